"""The spool in a directory: limits, groups, adoption, and everything that is wrong."""

# ruff: noqa: SLF001 - what SQLite was told is seen on the connection alone
# ruff: noqa: ASYNC240 - a look at a small directory

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import amplitude_async
from amplitude_async import ConfigurationError
from amplitude_async.exceptions import StorageError, StorageFullError
from amplitude_async.storage import DeadLetter, SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import Ids

__all__: list[str] = []

HERE = "https://example.org/ 0123"
THERE = "https://example.org/ 4567"
MUCH = 10**9


@asynccontextmanager
async def opened(
    directory: Path, destination: str = HERE, **options: Any
) -> AsyncIterator[SQLiteStorage]:
    """Open a spool and close it in the end."""
    storage = SQLiteStorage(directory, **options)
    await storage.open(destination, Ids())
    try:
        yield storage
    finally:
        await storage.close()


def files(directory: Path) -> list[str]:
    """List the endings of the names in a directory."""
    return sorted(path.name.rsplit(".", 1)[1] for path in directory.iterdir())


async def leave_behind(directory: Path, *numbers: int, destination: str = HERE) -> Path:
    """Write the file of a process that is gone."""
    return await asyncio.to_thread(_leave_behind, directory, numbers, destination)


def _leave_behind(directory: Path, numbers: Iterable[int], destination: str) -> Path:
    path = new_spool_path(directory)
    with closing(SpoolFile.create(path, destination, full_sync=False)) as file:
        file.insert([make_record(number) for number in numbers])
    return path


async def names(storage: SQLiteStorage) -> list[str]:
    """List what is in a spool, in order."""
    return [record.insert_id for record in await storage.fetch(0, 10_000, MUCH)]


# The directory ----------------------------------------------------------------------


async def test_the_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    """It is made with mode 0700, and everything in it with 0600."""
    spool = tmp_path / "a" / "spool"
    async with opened(spool) as storage:
        await storage.append([make_record(1)])
        assert stat.S_IMODE(spool.stat().st_mode) == 0o700
        assert {stat.S_IMODE(p.stat().st_mode) for p in spool.iterdir()} == {0o600}
        assert files(spool) == ["lock", "spool", "spool-shm", "spool-wal"]


async def test_an_empty_spool_leaves_nothing(tmp_path: Path) -> None:
    """A service that had nothing left to send leaves an empty directory."""
    async with opened(tmp_path) as storage:
        await storage.append([make_record(1)])
        await storage.settle([1])

    assert files(tmp_path) == []


async def test_what_is_left_is_one_file(tmp_path: Path) -> None:
    """The log is folded in: a backup can copy the one file that is there."""
    async with opened(tmp_path) as storage:
        await storage.append([make_record(1)])

    assert files(tmp_path) == ["spool"]


async def test_a_file_in_its_place_is_a_clear_error(tmp_path: Path) -> None:
    """What cannot be a directory is named, with a remedy."""
    (tmp_path / "spool").touch()
    with pytest.raises(StorageError, match=r"spool cannot be made: .*choose another"):
        await SQLiteStorage(tmp_path / "spool").open(HERE, Ids())


def test_a_read_only_directory_is_a_clear_error() -> None:
    """The error at start names the directory and what to do."""
    script = """
import asyncio, os, sys
from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage
if os.getuid() == 0:  # root may write anywhere, nobody may not
    os.setuid(65534)
asyncio.run(Amplitude("key", storage=SQLiteStorage(sys.argv[1])).start())
"""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        ended = subprocess.run(
            [sys.executable, "-c", script, name],
            env={"PYTHONPATH": os.environ["PYTHONPATH"]},
            capture_output=True,
            check=False,
            text=True,
            timeout=20,
        )
        Path(name).chmod(0o700)

    last = ended.stderr.strip().splitlines()[-1]
    assert f"StorageError: the spool directory {name} is not writable" in last
    assert "change its permissions" in last


async def test_a_directory_that_takes_no_files_is_a_clear_error() -> None:
    """Even for root there are places where no file can be made."""
    with pytest.raises(StorageError, match="/proc/self is not writable"):
        await SQLiteStorage("/proc/self").open(HERE, Ids())


def test_a_full_disk_at_the_start_is_a_clear_error(tmp_path: Path) -> None:
    """The error says what to do, and nothing is left behind."""
    script = """
import asyncio, resource, signal, sys
from amplitude_async import AmplitudeError
from amplitude_async.storage import SQLiteStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
storage = SQLiteStorage(sys.argv[1])
limits = (5_000, resource.RLIM_INFINITY)

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    try:
        await storage.open("here", lambda count: 1)
    except AmplitudeError as error:
        print(error)

asyncio.run(main())
resource.setrlimit(resource.RLIMIT_FSIZE, limits[1:] * 2)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "spool")],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    )

    assert (
        ": free space on the disk" in ended.stdout or "check the disk" in ended.stdout
    )
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_spool_that_cannot_be_closed_is_let_go(tmp_path: Path) -> None:
    """The error is told, and the file is free for the next process all the same."""
    storage = SQLiteStorage(tmp_path)
    await storage.open(HERE, Ids())
    await storage.append([make_record(1)])
    own = storage._sources.own
    assert own is not None
    own.file._connection.close()
    with pytest.raises(StorageError, match="closed database"):
        await storage.close()
    async with opened(tmp_path) as storage:
        assert await names(storage) == ["i-1"]


def test_the_package_offers_the_spool_on_demand() -> None:
    """A name that is not there is an ordinary error."""
    with pytest.raises(AttributeError, match="no attribute 'Shelf'"):
        amplitude_async.storage.Shelf  # noqa: B018


async def test_a_spool_is_opened_once(tmp_path: Path) -> None:
    """Two clients need two storages; a failed start can be repeated."""
    async with opened(tmp_path) as storage:
        with pytest.raises(StorageError, match="give each client its own"):
            await storage.open(HERE, Ids())
    (tmp_path / "file").touch()
    second = SQLiteStorage(tmp_path / "file")
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot be made"):
            await second.open(HERE, Ids())


async def test_a_closed_spool_says_so(tmp_path: Path) -> None:
    """Nothing can be read from or written to a spool that is not open."""
    storage = SQLiteStorage(tmp_path)
    with pytest.raises(StorageError, match="is not open"):
        await storage.append([make_record(1)])
    with pytest.raises(StorageError, match="is not open"):
        await storage.fetch(0, 1, MUCH)
    assert await storage.list_dead_letters() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synchronous": "off"}, "synchronous='off': use 'normal' or 'full'"),
        ({"max_events": 0}, "max_events=0: must be at least 1"),
        ({"max_bytes": -1}, "max_bytes=-1: must be at least 1"),
        ({"max_age": timedelta(0)}, r"max_age=0\.0: must be at least 1"),
        ({"max_age": float("nan")}, "max_age=nan: must be at least 1"),
        ({"dead_letters": -1}, "dead_letters=-1: must be at least 0"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    """The error says which one, its value and what is right."""
    with pytest.raises(ConfigurationError, match=message):
        SQLiteStorage("spool", **options)


def test_its_own_age_limit_is_the_default() -> None:
    """Amplitude deduplicates for seven days: a day less, or what was chosen."""
    assert SQLiteStorage("spool").default_max_age == 6 * 86400
    chosen = SQLiteStorage("spool", max_age=timedelta(days=20))
    assert chosen.default_max_age == 20 * 86400
    assert repr(chosen) == "<SQLiteStorage 'spool' 0 events>"


# Writing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synchronous", "level"), [("normal", 1), ("full", 2)], ids=["normal", "full"]
)
async def test_the_sync_level_is_the_one_chosen(
    synchronous: str, level: int, tmp_path: Path
) -> None:
    """SQLite is told; its log is written ahead either way."""
    async with opened(tmp_path, synchronous=synchronous) as storage:
        await storage.append([make_record(1)])
        own = storage._sources.own
        assert own is not None
        connection = own.file._connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_concurrent_appends_share_a_transaction(tmp_path: Path) -> None:
    """64 that come in one turn of the loop cost one commit."""
    async with opened(tmp_path) as storage:
        own = storage._sources.own
        assert own is not None
        commits: list[str] = []
        own.file._connection.set_trace_callback(commits.append)
        await asyncio.gather(*(storage.append([make_record(n)]) for n in range(1, 65)))

        assert [text for text in commits if text == "COMMIT"] == ["COMMIT"]
        assert await storage.size() == 64


async def test_limits_of_count_and_bytes(tmp_path: Path) -> None:
    """Beyond them nothing is written; what is settled makes room again."""
    async with opened(tmp_path, max_events=2) as storage:
        await storage.append([make_record(1), make_record(2)])
        with pytest.raises(StorageFullError, match="holds 2 events of max_events=2"):
            await storage.append([make_record(3)])
        await storage.settle([1])
        await storage.append([make_record(4)])
        assert await names(storage) == ["i-2", "i-4"]
        await storage.settle([2, 4])

    size = len(make_record(1).body)
    async with opened(tmp_path, max_bytes=2 * size) as storage:
        await storage.append([make_record(1), make_record(2)])
        with pytest.raises(StorageFullError, match=f"bytes of max_bytes={2 * size}"):
            await storage.append([make_record(3)])
        assert await storage.size() == 2


async def test_limits_count_what_was_taken_over(tmp_path: Path) -> None:
    """Records of processes that are gone take half of the room, and give it back."""
    await leave_behind(tmp_path, 1, 2)
    async with opened(tmp_path, max_events=2) as storage:
        await storage.append([make_record(9)])
        with pytest.raises(StorageFullError):
            await storage.append([make_record(10)])
        await storage.settle([1, 2])
        await storage.append([make_record(10)])
        assert await storage.size() == 2


async def test_a_failed_transaction_counts_nothing(tmp_path: Path) -> None:
    """Its error takes no room from the next."""
    async with opened(tmp_path, max_events=3) as storage:
        await storage.append([make_record(1)])
        for _ in range(3):
            with pytest.raises(StorageError, match="UNIQUE"):
                await storage.append([make_record(1), make_record(2)])
        assert await storage.size() == 1
        await storage.append([make_record(3), make_record(4)])
        assert await names(storage) == ["i-1", "i-3", "i-4"]


async def test_a_loop_that_closes_takes_nothing_along(tmp_path: Path) -> None:
    """A client that moves to another loop goes on with the same spool."""
    storage = SQLiteStorage(tmp_path)

    async def first() -> None:
        await storage.open(HERE, Ids())
        await storage.append([make_record(1)])
        storage.append([make_record(2)])  # nobody waits, and the loop ends

    async def second() -> None:
        await storage.append([make_record(3)])
        assert await names(storage) == ["i-1", "i-2", "i-3"]
        await storage.close()

    await asyncio.to_thread(asyncio.run, first())
    await asyncio.to_thread(asyncio.run, second())


# Taking over ------------------------------------------------------------------------


async def test_files_are_taken_over_in_order_and_removed(tmp_path: Path) -> None:
    """Older files first, each once; a drained one goes away."""
    paths = [
        await leave_behind(tmp_path, *numbers) for numbers in ((7, 9), (1, 2), (5,))
    ]
    async with opened(tmp_path) as storage:
        assert await storage.size() == 5
        await storage.append([make_record(100)])
        assert await names(storage) == ["i-7", "i-9", "i-1", "i-2", "i-5", "i-100"]
        found = await storage.fetch(0, 10_000, MUCH)

        after, read = 0, []
        while page := await storage.fetch(after, 2, MUCH):
            read += page
            after = page[-1].id
        assert read == found
        after, read = 0, []
        while page := await storage.fetch(after, 99, 1):
            assert len(page) == 1
            read += page
            after = page[-1].id
        assert read == found

        await storage.settle([record.id for record in found if record.id < 100][:3])
        assert [path.exists() for path in paths] == [False, True, True]
        await storage.settle([record.id for record in found])
        assert [path.exists() for path in paths] == [False, False, False]
        assert await storage.size() == 0


async def test_a_locked_file_is_left_alone(tmp_path: Path) -> None:
    """A process that lives keeps its file, whatever is in it."""
    path = await leave_behind(tmp_path, 1)
    lock = await asyncio.to_thread(SpoolLock.try_acquire, path)
    assert lock is not None
    async with opened(tmp_path) as storage:
        assert await storage.size() == 0
        lock.release(remove=False)
        assert await storage.adopt(Ids()) == 1


async def test_a_cancelled_adoption_is_made_up_for(tmp_path: Path) -> None:
    """Files that were claimed for somebody who left are handed to the next."""
    async with opened(tmp_path) as storage:
        await leave_behind(tmp_path, 1)
        adopting = asyncio.ensure_future(storage.adopt(Ids()))
        await asyncio.sleep(0)
        adopting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adopting
        assert await storage.adopt(Ids()) == 1
        assert await names(storage) == ["i-1"]


async def test_a_start_that_is_cancelled_leaves_nothing_locked(tmp_path: Path) -> None:
    """The records are there for whoever starts next."""
    await leave_behind(tmp_path, 1)
    opening = asyncio.ensure_future(SQLiteStorage(tmp_path).open(HERE, Ids()))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(5.0):
        # Its thread may not have begun: it is no sign that no lock is there.
        while any("spool" in one.name for one in threading.enumerate()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
    async with opened(tmp_path) as storage:
        assert await names(storage) == ["i-1"]


async def test_a_file_of_another_destination_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never drained, and one line tells about it."""
    path = await leave_behind(tmp_path, 1, destination=THERE)
    async with opened(tmp_path) as storage:
        assert await storage.adopt(Ids()) == 0
        assert await storage.size() == 0
    assert caplog.text.count("belongs to another destination") == 1
    assert path.name in caplog.text
    async with opened(tmp_path, THERE) as storage:
        assert await names(storage) == ["i-1"]


async def test_a_file_from_the_future_is_left_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An older version beside a newer one reports the file and leaves it whole."""
    path = await leave_behind(tmp_path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        connection.commit()
    async with opened(tmp_path) as storage:
        assert await storage.size() == 0
        await storage.adopt(Ids())
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "has spool schema 99" in errors[0].getMessage()
    assert path.exists()


@pytest.mark.parametrize("content", [b"not a database" * 400, None])
async def test_a_corrupt_file_is_set_aside(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It blocks nothing, an ERROR says where it went, and nobody tries it again."""
    path = await leave_behind(tmp_path, *range(1, 2_000))
    if content is None:
        whole = path.read_bytes()
        content = whole[:8192] + b"\xab" * (len(whole) - 8192)
    path.write_bytes(content)
    await leave_behind(tmp_path, 9_000)
    async with opened(tmp_path) as storage:
        assert await names(storage) == ["i-9000"]
        await storage.adopt(Ids())
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert f"moved to {path.with_suffix('.corrupt')}" in errors[0].getMessage()
    assert path.with_suffix(".corrupt").read_bytes() == content


async def test_an_unfinished_file_is_cleared_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that died while it started leaves no error behind."""
    path = new_spool_path(tmp_path)
    path.touch()
    async with opened(tmp_path):
        assert not path.exists()
    assert caplog.records == []


async def test_a_damaged_record_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes once, without a body, and its file is finished all the same."""
    path = await leave_behind(tmp_path, 1, 2)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET body = x'00' WHERE id = 1")
        connection.commit()
    async with opened(tmp_path) as storage:
        found = await storage.fetch(0, 10, MUCH)
        assert [bool(record.body) for record in found] == [False, True]
        assert await storage.size() == 1
        assert await names(storage) == ["i-2"]
        await storage.settle([record.id for record in found])
        assert await storage.size() == 0
        assert path.exists()  # with what was set aside, for people
    assert "1 damaged events are set aside" in caplog.text


# Dead letters -----------------------------------------------------------------------


async def test_dead_letters_outlive_the_process(tmp_path: Path) -> None:
    """They move into the file of the next one, the newest of them."""
    letters = [DeadLetter(make_record(n), 400, f"bad {n}", float(n)) for n in (1, 2, 3)]
    async with opened(tmp_path, dead_letters=2) as storage:
        await storage.bury(letters[:2])
    async with opened(tmp_path, dead_letters=2) as storage:
        await storage.bury(letters[2:])
        kept = await storage.list_dead_letters()
        assert [one.message for one in kept] == ["bad 2", "bad 3"]
        assert len([p for p in tmp_path.iterdir() if p.suffix == ".spool"]) == 1
    async with opened(tmp_path) as storage:
        assert await storage.list_dead_letters() == []  # not asked for, not touched
    async with opened(tmp_path, dead_letters=2) as storage:
        assert await storage.list_dead_letters() == [
            one._replace(record=one.record._replace(id=number))
            for number, one in enumerate(letters[1:], start=1)
        ]
