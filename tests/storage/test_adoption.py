"""Taking over the files of others: a few at a time, and each fails by itself."""

# ruff: noqa: SLF001 - locks and threads are seen inside alone

import asyncio
import contextlib
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import SQLiteStorage
from amplitude_async.storage.spool import source
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import HERE, Ids, opened

__all__: list[str] = []

MUCH = 10**9


async def leave_behind(directory: Path, *numbers: int) -> Path:
    """Write the file of a process that is gone."""
    return await asyncio.to_thread(leave_file, directory, *numbers)


def leave_file(directory: Path, *numbers: int) -> Path:
    """Write such a file where nothing else runs."""
    path = new_spool_path(directory)
    with closing(SpoolFile.create(path, HERE, full_sync=False)) as file:
        file.insert([make_record(number) for number in numbers])
    return path


async def names(storage: SQLiteStorage) -> list[str]:
    """List what is in a spool, in order."""
    return [record.insert_id for record in await storage.fetch(0, 10_000, MUCH)]


@contextlib.contextmanager
def written_by_a_stranger(path: Path) -> Any:
    """Hold the write lock of a file, as a tool of another kind may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


# Few at a time ----------------------------------------------------------------------


async def test_eight_files_at_a_time(tmp_path: Path) -> None:
    """The oldest come first; each call brings the next."""
    for number in range(1, 21):
        await leave_behind(tmp_path, number)
    async with opened(tmp_path) as (storage, ids, recovered):
        taken = [recovered]
        while adopted := await storage.adopt(ids):
            taken.append(adopted)
        assert taken == [8, 8, 4]
        assert await names(storage) == [f"i-{number}" for number in range(1, 21)]


def test_more_files_than_descriptors(tmp_path: Path) -> None:
    """300 files and 64 descriptors: all are drained, and nothing raises."""
    first = leave_file(tmp_path, 1)
    for _ in range(299):
        shutil.copy(first, new_spool_path(tmp_path))
    script = """
import asyncio, resource, sys
from amplitude_async.storage import SQLiteStorage
last = 0
def allot(count):
    global last
    last += count
    return last - count + 1
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    storage = SQLiteStorage(sys.argv[1])
    found = await storage.open("https://example.org/ 0123", allot)
    after = 0
    while found:
        page = await storage.fetch(after, 1_000, 10**9)
        after = page[-1].id
        await storage.settle([record.id for record in page])
        print(len(page), flush=True)
        found = await storage.adopt(allot)
    await storage.close()
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )

    assert ended.stderr == ""
    taken = [int(line) for line in ended.stdout.split()]
    assert sum(taken) == 300
    assert max(taken) <= 8
    assert list(tmp_path.iterdir()) == []


async def test_each_takes_what_it_has_room_for(tmp_path: Path) -> None:
    """A quarter of the room, or one file; two processes share what was left."""
    for start in range(0, 100, 10):
        await leave_behind(tmp_path, *range(start + 1, start + 11))
    async with (
        opened(tmp_path, max_events=100) as (first, ids, recovered),
        opened(tmp_path, max_events=100) as (second, _, others),
    ):
        assert (recovered, others) == (20, 20)
        assert await first.adopt(ids) == 0
        # Its own new events have the rest of the room.
        await first.append([make_record(ids(1)) for _ in range(80)])

        found = await first.fetch(0, 20, MUCH)
        await first.settle([record.id for record in found])
        assert await first.adopt(ids) == 20
        assert await second.size() == 20


async def test_a_file_beyond_the_room_is_taken_alone(tmp_path: Path) -> None:
    """Somebody has to; events of its own have half of the room all the same."""
    await leave_behind(tmp_path, *range(1, 101))
    await leave_behind(tmp_path, 200)
    async with opened(tmp_path, max_events=100) as (storage, ids, recovered):
        assert recovered == 100
        assert await storage.adopt(ids) == 0
        await storage.append([make_record(ids(1)) for _ in range(50)])
        found = await storage.fetch(0, 100, MUCH)
        await storage.settle([record.id for record in found])
        assert await storage.adopt(ids) == 1


async def test_bytes_count_as_well(tmp_path: Path) -> None:
    """A few large events are as much as many small ones."""
    for number in range(1, 5):
        await leave_behind(tmp_path, number)
    size = len(make_record(1).body)
    async with opened(tmp_path, max_bytes=8 * size) as (_, _, recovered):
        assert recovered == 2


# Each by itself ---------------------------------------------------------------------


async def test_a_file_that_raises_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone for a while that grows, and is taken once it works."""
    bad = await leave_behind(tmp_path, 1)
    good = await leave_behind(tmp_path, 2)
    now, tried = 1_000.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    open_file = SpoolFile.open

    def fail(path: Path, **options: Any) -> SpoolFile:
        nonlocal tried
        if path != bad:
            return open_file(path, **options)
        tried += 1
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    with monkeypatch.context() as patched:
        patched.setattr(SpoolFile, "open", fail)
        async with opened(tmp_path) as (storage, ids, recovered):
            assert recovered == 1
            assert await names(storage) == ["i-2"]
            for _ in range(100):
                now += 1.0
                assert await storage.adopt(ids) == 0
            assert 4 <= tried <= 9
            assert caplog.text.count("UnicodeDecodeError") == 1
            patched.undo()
            now += 3_600.0
            assert await storage.adopt(ids) == 1
    assert good.exists()


async def test_a_file_that_a_stranger_writes_to_makes_nobody_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is to be deleted there waits; appends and own rows do not."""
    path = await leave_behind(tmp_path, 1, 2)
    async with opened(tmp_path) as (storage, ids, recovered):
        assert recovered == 2
        with written_by_a_stranger(path):
            begin = time.monotonic()
            for _ in range(20):
                own = ids(1)
                await storage.append([make_record(own)])
                await storage.settle([1, own])
            assert time.monotonic() - begin < 2.5
            assert await storage.size() == 2
        assert caplog.text.count("are deleted later") == 1

        async with asyncio.timeout(5.0):
            while await storage.size() > 1:
                await asyncio.sleep(0.05)
                await storage.adopt(ids)
        assert await names(storage) == ["i-2"]


async def test_a_stranger_at_the_start_delays_one_file_only(tmp_path: Path) -> None:
    """The others are taken at once, and an old file is brought up to date later."""
    path = await leave_behind(tmp_path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE dead_letters")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    await leave_behind(tmp_path, 2)
    with written_by_a_stranger(path):
        begin = time.monotonic()
        async with opened(tmp_path) as (storage, _, recovered):
            assert time.monotonic() - begin < 2.5
            assert recovered == 1
            assert await names(storage) == ["i-2"]
    async with opened(tmp_path) as (_, _, recovered):
        assert recovered == 2


async def test_what_is_owed_is_deleted_at_the_end(tmp_path: Path) -> None:
    """A stranger who has left by then costs no event a second sending."""
    path = await leave_behind(tmp_path, 1, 2)
    async with opened(tmp_path) as (storage, _, _):
        with written_by_a_stranger(path):
            await storage.settle([1])
    async with opened(tmp_path) as (storage, _, _):
        assert await names(storage) == ["i-2"]


async def test_a_file_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a few attempts; what is behind it is read, and it stays for the next."""
    bad = await leave_behind(tmp_path, 1, 2)
    await leave_behind(tmp_path, 3)
    fetch = SpoolFile.fetch

    def fail(self: SpoolFile, *args: Any, **options: Any) -> Any:
        if self.path == bad:
            raise StorageError("disk I/O error")
        return fetch(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(SpoolFile, "fetch", fail)
        async with opened(tmp_path) as (storage, ids, _):
            await storage.append([make_record(ids(1))])
            for _ in range(4):
                with pytest.raises(StorageError, match="I/O error"):
                    await storage.fetch(0, 10, MUCH)
            assert await names(storage) == ["i-3", "i-4"]
    assert "its 2 events stay where they are" in caplog.text
    async with opened(tmp_path) as (storage, _, _):
        assert sorted(await names(storage)) == ["i-1", "i-2", "i-3", "i-4"]


@pytest.mark.parametrize("busy", [False, True])
async def test_events_of_a_file_that_is_passed_over_do_not_wait_for_ever(
    connect: Callable[..., Amplitude],
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    busy: bool,
) -> None:
    """They are told as lost to this process, whatever the load; the next sends them."""
    spool = tmp_path / "spool"
    emulator.faults.add(Fault(503, count=None))
    for number in range(2):
        async with connect(storage=SQLiteStorage(spool)) as client:
            await client.track(f"e-{number}", user_id="user-1")
            await client.shutdown(0.01)
    emulator.faults.clear()
    bad, _ = sorted(spool.glob("*.spool"))
    fetch = SpoolFile.fetch

    def fail(self: SpoolFile, *args: Any, **options: Any) -> Any:
        if self.path == bad:
            raise StorageError("disk I/O error")
        return fetch(self, *args, **options)

    monkeypatch.setattr("amplitude_async.delivery.reader.REREAD_INTERVAL", 0.01)
    with monkeypatch.context() as patched:
        patched.setattr(SpoolFile, "fetch", fail)
        async with connect(storage=SQLiteStorage(spool)) as client, asyncio.timeout(5):
            tracked = 0
            while client.stats.dropped == 0 or tracked < 10:
                if busy or tracked < 10:
                    verbs = [client.track("e", user_id="user-1") for _ in range(20)]
                    await asyncio.gather(*verbs)
                    tracked += len(verbs)
                await asyncio.sleep(0.001)
            stats = await client.flush()
            assert stats.balanced
            assert (stats.recovered, stats.dropped, stats.pending) == (2, 1, 0)
            assert stats.delivered == tracked + 1
    async with connect(storage=SQLiteStorage(spool)) as client:
        assert (await client.flush()).delivered == 1
    names = [event["event_type"] for event in emulator.events]
    assert sorted(set(names)) == ["e", "e-0", "e-1"]


# What is left when it is over -------------------------------------------------------


def is_free(directory: Path) -> bool:
    """Say whether no spool file of a directory has an owner."""
    return not any(SpoolLock.is_held(path) for path in directory.glob("*.spool"))


def spool_threads() -> int:
    """Count the threads of spools."""
    return sum(
        thread.name == "amplitude_async spool" for thread in threading.enumerate()
    )


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does by itself."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def test_a_spool_that_nobody_closes_is_let_go(tmp_path: Path) -> None:
    """Once it is collected its thread ends, its files are free and complete."""
    leave_file(tmp_path, 1)
    before = spool_threads()

    async def forget() -> "weakref.ref[SQLiteStorage]":
        storage, ids = SQLiteStorage(tmp_path), Ids()
        await storage.open(HERE, ids)
        await storage.append([make_record(ids(1))])
        return weakref.ref(storage)

    storage = asyncio.run(forget())
    gc.collect()
    assert storage() is None
    wait_for(lambda: spool_threads() == before and is_free(tmp_path))
    assert len(list(tmp_path.glob("*.spool"))) == 2


def test_closed_spools_leave_no_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks of the interpreter stay for ever: there is one for all spools."""
    hooks: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hook: hooks.append(hook))

    async def use() -> None:
        async with opened(tmp_path) as (storage, _, _):
            await storage.append([make_record(1)])
            await storage.settle([1])

    asyncio.run(use())
    gc.collect()
    assert hooks == []
    assert not source._KEPT_FROM_CHILDREN


async def test_closed_while_it_was_opened(tmp_path: Path) -> None:
    """Whoever opens it hears so, and neither thread nor lock stays."""
    await leave_behind(tmp_path, 1)
    before = spool_threads()
    storage = SQLiteStorage(tmp_path)
    opening = asyncio.ensure_future(storage.open(HERE, Ids()))
    await asyncio.sleep(0)
    await storage.close()
    with pytest.raises(StorageError, match="closed while it was being opened"):
        await opening
    await asyncio.to_thread(
        wait_for, lambda: spool_threads() == before and is_free(tmp_path)
    )
    async with opened(tmp_path) as (again, _, recovered):
        assert recovered == 1
        assert await names(again) == ["i-1"]


def test_threads_that_fork_at_the_same_time(tmp_path: Path) -> None:
    """Two spools at work and two threads that fork: nobody waits for ever."""
    script = """
import asyncio, os, sys, threading
from amplitude_async.storage import SQLiteStorage
from amplitude_async.testing.storage_contract import make_record

def fork():
    for _ in range(25):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)

async def main():
    both = [SQLiteStorage(sys.argv[1]) for _ in range(2)]
    for one in both:
        await one.open("here", lambda count: 1)
    threads = [threading.Thread(target=fork) for _ in range(2)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        await asyncio.gather(*(one.append([make_record(number)]) for one in both))
    for one in both:
        print(await one.size() == number)
        await one.close()

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )

    assert ended.stdout.split() == ["True", "True"], ended.stderr
