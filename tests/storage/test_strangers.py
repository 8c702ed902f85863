"""Whoever puts things into the directory, or takes them away, harms only those."""

import asyncio
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from amplitude_async.exceptions import StorageError
from amplitude_async.storage import Record, SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import Ids

__all__: list[str] = []

HERE = "api.example.com/aaaa"
MUCH = 10**9


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SQLiteStorage]:
    """Open a spool within the time a service has to start, and close it."""
    storage = SQLiteStorage(directory)
    async with asyncio.timeout(20):
        await storage.open(HERE, Ids())
    try:
        yield storage
    finally:
        await storage.close()


async def names(storage: SQLiteStorage) -> list[str]:
    """List what is in a spool, in order."""
    found = await storage.fetch(0, 10_000, MUCH)
    return [record.insert_id for record in found if record.body]


def leave(directory: Path, *numbers: int) -> Path:
    """Write the file of a process that is gone."""
    return leave_records(directory, *map(make_record, numbers))


def leave_records(directory: Path, *records: Record) -> Path:
    """Write records into the file of a process that is gone."""
    path = new_spool_path(directory)
    with closing(SpoolFile.create(path, HERE, full_sync=False)) as file:
        file.insert(records)
    return path


def empty_but_its_log(path: Path) -> None:
    """Leave nothing of a file but the log beside it."""
    os.truncate(path, 0)
    log = Path(f"{path}-wal")
    log.write_bytes(b"something")
    log.chmod(0o600)


def many_empty(directory: Path) -> None:
    """Make a thousand files without a byte."""
    for number in range(1_000):
        (directory / f"{number:013d}-1-aaaaaaaa.spool").touch(0o600)


def delete(directory: Path, pattern: str) -> None:
    """Do as a cleaner does; everything takes the directory along."""
    for path in directory.glob(pattern):
        path.unlink()
    if pattern == "*":
        directory.rmdir()


def put_a_pipe_in_its_place(path: Path) -> None:
    """Let a reader wait for what nobody writes."""
    path.unlink()
    os.mkfifo(path)


def in_directory(directory: Path) -> set[str]:
    """List the names in a directory."""
    return {path.name for path in directory.iterdir()}


def put_a_file_in_its_place(directory: Path) -> None:
    """Make it impossible to have the directory again."""
    shutil.rmtree(directory)
    directory.touch()


def change(path: Path, *statements: str) -> None:
    """Do to a file what a stranger may do to it."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id,"
    " x'7b7d' AS body, '' AS identity, '' AS user_id, '' AS device_id, '' AS"
    " insert_id, 1.0 AS accepted_at, 1 AS checksum FROM n"
)
# Each event would come again under another number as soon as it is forgotten.
AGAIN = (
    "CREATE TRIGGER again AFTER DELETE ON events BEGIN INSERT INTO events SELECT"
    " old.id + 1000, old.body, old.identity, old.user_id, old.device_id,"
    " old.insert_id, old.accepted_at, old.checksum; END"
)


@pytest.mark.parametrize(
    "planted",
    [
        ("DROP TABLE events", f"CREATE VIEW events AS {ENDLESS}"),
        ("DROP TABLE meta", "CREATE VIEW meta AS SELECT 'schema' AS key, '2' AS value"),
        (AGAIN,),
        ("CREATE INDEX more ON events (identity)",),
        ("CREATE TABLE more (id INTEGER)",),
        ("DROP TABLE quarantine", f"CREATE VIEW quarantine AS {ENDLESS}"),
        (
            "DROP TABLE quarantine",
            "CREATE TABLE quarantine (id INT CHECK (id > abs(-1)))",
        ),
        (
            "DROP TABLE dead_letters",
            "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY)",
        ),
        ("ALTER TABLE events ADD COLUMN more TEXT DEFAULT 'x'",),
    ],
)
async def test_only_the_exact_schema_is_accepted(
    planted: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted view, trigger or column neither hangs the start nor sends again."""
    path = await asyncio.to_thread(leave, tmp_path, 1)
    await asyncio.to_thread(change, path, *planted)
    await asyncio.to_thread(leave, tmp_path, 2)
    started = time.monotonic()
    async with opened(tmp_path) as storage:
        assert "i-2" in await names(storage)
        await storage.settle(range(1, 100))
    assert time.monotonic() - started < 5
    assert path.with_suffix(".corrupt").exists()
    async with opened(tmp_path) as storage:
        assert await names(storage) == []
    assert caplog.text.count("moved to") == 1


@pytest.mark.parametrize("opens", [SpoolFile.open, SpoolFile.view])
def test_a_command_refuses_a_planted_view(
    opens: Callable[[Path], SpoolFile], tmp_path: Path
) -> None:
    """It ends at once, whichever way it looks into the file."""
    path = leave(tmp_path, 1)
    change(path, "DROP TABLE events", f"CREATE VIEW events AS {ENDLESS}")
    with pytest.raises(StorageError, match=r"no usable spool|no spool has"):
        opens(path)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1},{"api_key":"x"}',
        b'{"a":1}],"api_key":"x","more":[{}',
        b'{"a":1} ',
        b'{"a":NaN}',
        b'"text"',
        b"[]",
        b"{",
        b"",
        b"\xff",
        b'{"a":' * 20_000,
    ],
)
async def test_a_body_is_exactly_one_object(body: bytes, tmp_path: Path) -> None:
    """Nothing can be spliced into a request, even with the right checksum."""
    spliced = make_record(2)._replace(body=body)
    await asyncio.to_thread(leave_records, tmp_path, make_record(1), spliced)
    async with opened(tmp_path) as storage:
        assert await names(storage) == ["i-1"]


async def test_an_enormous_value_is_not_read(tmp_path: Path) -> None:
    """It takes neither the memory nor the other events."""
    path = await asyncio.to_thread(leave, tmp_path, 1, 2, 3)
    enormous = "UPDATE events SET body = zeroblob(40000000) WHERE id = 2"
    await asyncio.to_thread(change, path, enormous)
    async with opened(tmp_path) as storage:
        assert await names(storage) == ["i-1", "i-3"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o666), "has mode 0666"),
        (lambda path: os.chown(path, 12345, -1), "belongs to user 12345"),
        (
            lambda path: (
                path.rename(path.with_suffix(".x"))
                and path.symlink_to(path.with_suffix(".x"))
            ),
            "is no regular file",
        ),
        (
            lambda path: path.with_suffix(".spool-wal").symlink_to("/dev/zero"),
            "is no regular file",
        ),
        (put_a_pipe_in_its_place, "is no regular file"),
    ],
)
async def test_what_others_may_have_written_is_left_and_told_once(
    spoil: Callable[[Path], object],
    why: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A link is not followed, a pipe not waited for, and another's file not sent."""
    if os.geteuid() and "user" in why:
        pytest.skip("needs the right to give a file to another user")
    path = await asyncio.to_thread(leave, tmp_path, 1)
    await asyncio.to_thread(spoil, path)
    await asyncio.to_thread(leave, tmp_path, 2)
    async with opened(tmp_path) as storage:
        await storage.adopt(Ids())
        assert await names(storage) == ["i-2"]
    assert path.name in in_directory(tmp_path)
    assert caplog.text.count(why) == 1


@pytest.mark.parametrize("plant", [os.mkfifo, lambda lock: lock.symlink_to("x")])
async def test_a_planted_lock_harms_only_its_file(
    plant: Callable[[Path], None], tmp_path: Path
) -> None:
    """Neither a pipe nor a link in the place of a lock keeps a service waiting."""
    path = await asyncio.to_thread(leave, tmp_path, 1)
    await asyncio.to_thread(plant, path.with_suffix(".lock"))
    await asyncio.to_thread(leave, tmp_path, 2)
    async with opened(tmp_path) as storage:
        assert "i-2" in await names(storage)
    assert not (tmp_path / "x").exists()


async def test_a_directory_that_is_open_to_all_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Some volumes are made so: it is used, and a WARNING says what may happen."""
    await asyncio.to_thread(tmp_path.chmod, 0o777)
    async with opened(tmp_path):
        pass
    assert "anybody may delete its files: chmod 700" in caplog.text


async def test_empty_files_cost_next_to_nothing(tmp_path: Path) -> None:
    """They are swept away without SQLite, and the events behind them arrive."""
    await asyncio.to_thread(many_empty, tmp_path)
    await asyncio.to_thread(leave, tmp_path, 1)
    storage = SQLiteStorage(tmp_path)
    started = time.monotonic()
    allot = Ids()
    await storage.open(HERE, allot)
    for _ in range(20):
        await storage.adopt(allot)
        if await storage.size():
            break
    assert time.monotonic() - started < 3
    assert await names(storage) == ["i-1"]
    await storage.settle([1])
    await storage.close()
    assert in_directory(tmp_path) == set()


async def test_an_empty_file_with_a_log_is_set_aside(tmp_path: Path) -> None:
    """SQLite would clear the log away, in which there may be events."""
    path = await asyncio.to_thread(leave, tmp_path, 1)
    await asyncio.to_thread(empty_but_its_log, path)
    async with opened(tmp_path):
        pass
    assert in_directory(tmp_path) == {
        f"{path.stem}.corrupt",
        f"{path.stem}.corrupt-wal",
    }


# Taken away -------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["*.spool", "*.spool-wal", "*.lock", "*"])
@pytest.mark.parametrize("how", ["append", "confirm", "close"])
async def test_what_a_cleaner_deletes_is_written_again(
    pattern: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is called stored lies on the disk, and the log says who is to stop."""
    directory = tmp_path / "spool"
    storage = SQLiteStorage(directory)
    await storage.open(HERE, Ids())
    await storage.append([make_record(n) for n in range(1, 7)])
    delete(directory, pattern)
    if how == "append":
        await storage.append([make_record(7)])
    if how == "confirm":
        await storage.confirm()
    await storage.close()

    async with opened(directory) as again:
        found = await names(again)
    assert found[:6] == [f"i-{n}" for n in range(1, 7)]
    assert len(found) == 6 + (how == "append")
    assert "let nothing clean" in caplog.text


async def test_a_file_that_another_process_took_is_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New events go to a new file; those that were taken are the other's to send."""
    storage = SQLiteStorage(tmp_path)
    await storage.open(HERE, Ids())
    await storage.append([make_record(1)])
    delete(tmp_path, "*.lock")
    async with opened(tmp_path) as other:
        assert await names(other) == ["i-1"]
        await storage.append([make_record(2)])
        assert await storage.size() == 1
        assert await names(storage) == ["i-2"]
        await other.settle([1])
        assert await other.size() == 0
    await storage.close()
    assert "another process has taken over" in caplog.text
    async with opened(tmp_path) as again:
        assert await names(again) == ["i-2"]


async def test_a_spool_that_cannot_be_written_again_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An append fails, and so does what is asked before events are called stored."""
    directory = tmp_path / "spool"
    storage = SQLiteStorage(directory)
    await storage.open(HERE, Ids())
    await storage.append([make_record(1)])
    put_a_file_in_its_place(directory)
    with pytest.raises(StorageError, match="make the directory writable"):
        await storage.append([make_record(2)])
    with pytest.raises(StorageError):
        await storage.confirm()
    with pytest.raises(StorageError):
        await storage.close()
    assert caplog.records == []


def test_a_lock_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """Its owner can tell, and does not delete the next one's."""
    lock = SpoolLock.try_acquire(tmp_path / "one.spool")
    assert lock is not None
    assert lock.intact
    (tmp_path / "one.lock").unlink()
    assert not lock.intact
    following = SpoolLock.try_acquire(tmp_path / "one.spool")
    assert following is not None
    lock.release(remove=True)
    assert following.intact
    following.release(remove=True)
    assert logging.getLogger("amplitude_async").handlers == []
