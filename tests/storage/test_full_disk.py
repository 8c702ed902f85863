"""A disk that is full: what lies on it is delivered and deleted, then all works again.

On a small real file system, which only root can mount.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.exceptions import StorageError, StorageFullError
from amplitude_async.storage import DeadLetter, SQLiteStorage
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import Ids, opened

__all__: list[str] = []

Connect = Callable[..., Amplitude]
MUCH = 10**9
MB = 1024**2

# Writes until the disk is nearly full, and dies or closes.
FILL = """
import asyncio, json, os, sys
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import SQLiteStorage
from amplitude_async.testing.storage_contract import make_record
given = json.loads(sys.argv[1])

async def main():
    storage = SQLiteStorage(given["directory"], **given["options"])
    await storage.open("https://example.org/ 0123", lambda count: 1)
    written = 0
    try:
        while True:
            ids = range(written + 1, written + 2 + 100_000 // given["size"])
            records = [make_record(number, size=given["size"]) for number in ids]
            await storage.append(records)
            written += len(records)
    except StorageError as error:
        print(json.dumps([written, str(error)]), flush=True)
    if given["close"]:
        await storage.close()
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("NOT TESTED: a full disk. Only root may mount a small one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


def fill(disk: Path, *, size: int, close: bool, **options: Any) -> tuple[int, str]:
    """Fill the spool on a disk from a process of its own; returns what it had done."""
    given = {
        "directory": str(disk / "spool"),
        "size": size,
        "close": close,
        "options": options,
    }
    ended = subprocess.run(
        [sys.executable, "-c", FILL, json.dumps(given)],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    written, message = json.loads(ended.stdout)
    return written, message


async def drain(storage: SQLiteStorage) -> int:
    """Read and forget everything; returns how many there were."""
    after = count = 0
    while page := await storage.fetch(after, 1_000, 8 * MB):
        after = page[-1].id
        count += len(page)
        await storage.settle([record.id for record in page])
    return count


async def write_until_full(storage: SQLiteStorage, ids: Ids) -> int:
    """Write until the storage says that the disk is nearly full; returns how many."""
    written, problem = 0, ""
    while not problem:
        try:
            await storage.append([make_record(ids(1), size=4_000) for _ in range(10)])
        except StorageError as error:
            problem = str(error)
        else:
            written += 10
    assert "nearly full" in problem
    return written


def fill_up(disk: Path, *, but: int) -> None:
    """Fill a disk as others do, to the last byte or nearly so."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), b"\0" * 4_096)
    os.truncate(ballast, ballast.stat().st_size - but)


def free(disk: Path) -> int:
    """Return how many bytes of a disk are free."""
    return shutil.disk_usage(disk).free


def pretend(monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
    """Let every disk have so many bytes."""
    sizes = SimpleNamespace(f_blocks=total, f_frsize=1, f_bavail=free)
    monkeypatch.setattr(os, "statvfs", lambda _path: sizes)


# The reserve, on any machine --------------------------------------------------------


async def test_nothing_is_written_into_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how much is free and what to do; it is a failure, and no limit."""
    async with opened(tmp_path) as (storage, _, _):
        pretend(monkeypatch, total=1_000 * MB, free=31 * MB)
        with pytest.raises(StorageError, match=r"nearly full: .*free space") as caught:
            await storage.append([make_record(1)])
        # With that one events would be shed: they go on in memory.
        assert not isinstance(caught.value, StorageFullError)
        assert await storage.size() == 0

        pretend(monkeypatch, total=1_000 * MB, free=33 * MB)
        await storage.append([make_record(1)])
        with pytest.raises(StorageError, match="nearly full"):
            await storage.append([make_record(2, size=MB)])
        assert await storage.size() == 1


@pytest.mark.parametrize(
    ("total", "options"),
    [(24 * MB, {}), (0, {}), (1_000 * MB, {"min_free_bytes": 0})],
    ids=["a quarter of a small disk", "a disk without a size", "no reserve"],
)
async def test_the_reserve_is_never_the_whole_disk(
    total: int,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small disk can be used, and so can one that says nothing of itself."""
    pretend(monkeypatch, total=total, free=7 * MB)
    async with opened(tmp_path, **options) as (storage, _, _):
        await storage.append([make_record(1)])
        assert await storage.size() == 1


async def test_a_disk_that_cannot_be_asked_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing finds out what is wrong, if anything is."""

    def fail(_path: Path) -> None:
        raise OSError

    monkeypatch.setattr(os, "statvfs", fail)
    async with opened(tmp_path) as (storage, _, _):
        await storage.append([make_record(1)])


async def test_dead_letters_take_nothing_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server refused must not keep from deleting what it took."""
    letters = [DeadLetter(make_record(1), 400, "bad", 1.0)]
    async with opened(tmp_path, dead_letters=5) as (storage, _, _):
        pretend(monkeypatch, total=1_000 * MB, free=MB)
        await storage.bury(letters)
        await storage.bury(letters)
        assert await storage.list_dead_letters() == []
        pretend(monkeypatch, total=1_000 * MB, free=100 * MB)
        await storage.bury(letters)
        assert len(await storage.list_dead_letters()) == 1
    assert caplog.text.count("rejected events are not kept") == 1


# A small disk -----------------------------------------------------------------------


@pytest.mark.parametrize("close", [False, True], ids=["killed", "closed"])
@pytest.mark.parametrize("size", [200, 4_000, 20_000, 900_000])
async def test_a_spool_that_filled_its_disk_drains(
    size: int, *, close: bool, small_disk: Path
) -> None:
    """It stops while deletions fit; the next process deletes all, and writes again."""
    written, message = await asyncio.to_thread(fill, small_disk, size=size, close=close)
    assert "nearly full" in message
    assert free(small_disk) > 2 * MB

    async with opened(small_disk / "spool") as (storage, ids, recovered):
        assert recovered == written
        assert await drain(storage) == written
        assert await storage.size() == 0
        assert free(small_disk) > 20 * MB
        await storage.append([make_record(ids(1))])
        assert await storage.size() == 1


async def test_a_process_that_filled_its_disk_goes_on(small_disk: Path) -> None:
    """What it has delivered is deleted, and it writes again."""
    async with opened(small_disk / "spool") as (storage, ids, _):
        for _ in range(3):
            written = await write_until_full(storage, ids)
            assert written > 1_000
            assert await drain(storage) == written
            assert await storage.size() == 0


async def test_a_start_on_a_full_disk_delivers_what_is_there(
    emulator: Emulator,
    connect: Callable[..., Amplitude],
    small_disk: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Others filled it: events of before go out, new ones go on in memory."""
    spool = small_disk / "spool"
    emulator.faults.add(Fault(503, count=None))
    async with connect(storage=SQLiteStorage(spool)) as client:
        for number in range(20):
            await client.track("before", user_id=f"user-{number}")
        await client.shutdown(0.01)
    emulator.faults.clear()
    # SQLite opens no file without a little space beside it.
    await asyncio.to_thread(fill_up, small_disk, but=65_536)

    async with connect(storage=SQLiteStorage(spool)) as client:
        assert client.stats.recovered == 20
        await client.track("after", user_id="user-1")
        assert not client.stats.durable
        await client.flush()
        assert client.stats.delivered == 21
    assert "no room for a file of its own" in caplog.text
    assert len(emulator.events) == 21


async def test_a_disk_without_a_free_byte_costs_nothing_but_doubles(
    emulator: Emulator,
    connect: Connect,
    small_disk: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All is delivered once; what could not be deleted by the end comes again.

    Under the same insert_id, so that the server keeps one of both.
    """
    spool = small_disk / "spool"
    emulator.faults.add(Fault(503, count=None))
    # On a busy machine the outage is long enough to shed what comes behind it.
    options = {"max_storage_capacity": 20, "overflow_timeout": 30.0}
    async with connect(storage=SQLiteStorage(spool), **options) as client:
        # More than its log has room for when they are deleted.
        for number in range(100):
            text = "x" * 5_000
            properties = {"text": text}
            user = f"user-{number % 7}"
            await client.track("e", user_id=user, event_properties=properties)
        await asyncio.to_thread(fill_up, small_disk, but=0)
        assert free(small_disk) == 0
        emulator.faults.clear()
        for number in range(10):
            await client.track("after", user_id=f"user-{number % 7}")
        stats = await client.flush()
        assert stats.balanced
        assert (stats.delivered, stats.pending, stats.durable) == (110, 0, False)
    first = [event["insert_id"] for event in emulator.events]
    assert len(first) == len(set(first)) == 110
    assert "delivered events may be sent again" in caplog.text
    (small_disk / "ballast").unlink()

    async with connect(storage=SQLiteStorage(spool)) as client:
        stats = await client.flush()
        assert stats.balanced
        assert stats.delivered == stats.recovered
    again = [event["insert_id"] for event in emulator.events][110:]
    assert len(again) == len(set(again))
    assert set(again) <= set(first)
    async with connect(storage=SQLiteStorage(spool)) as client:
        assert client.stats.recovered == 0
