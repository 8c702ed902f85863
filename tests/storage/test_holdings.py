"""What the counters say of a spool: bytes, and the age of its oldest event."""

import asyncio
from pathlib import Path

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from amplitude_async.storage import Record, SQLiteStorage
from amplitude_async.storage.base import Holdings, Storage
from amplitude_async.storage.memory import MemoryStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path
from tests.storage.conftest import Ids

__all__: list[str] = []

BODY = b'{"event_type": "Seen"}'


def record(number: int, accepted_at: float) -> Record:
    """Return an event."""
    return Record(number, BODY, "me", "me", None, f"e-{number}", accepted_at)


async def looked(storage: SQLiteStorage) -> Holdings:
    """Wait for what the storage does in the background; return what it says."""
    await storage.fetch(0, 1, 1)
    return storage.holdings()


async def test_bytes_and_age_follow_the_oldest_record(tmp_path: Path) -> None:
    """As records come, are settled, and come again."""
    storage = SQLiteStorage(tmp_path)
    await storage.open("here", Ids())
    assert storage.holdings() == Holdings(0, None)

    await storage.append([record(1, 100.0), record(2, 200.0)])
    await storage.append([record(3, 300.0)])
    assert storage.holdings() == Holdings(3 * len(BODY), 100.0)
    await storage.settle([1])
    assert await looked(storage) == Holdings(2 * len(BODY), 200.0)
    await storage.settle([2, 3])
    assert await looked(storage) == Holdings(0, None)
    await storage.append([record(4, 400.0)])
    assert storage.holdings() == Holdings(len(BODY), 400.0)
    await storage.close()


@pytest.mark.allow_blocking  # an orphan is made here instead of in a process
async def test_what_was_taken_over_counts(tmp_path: Path) -> None:
    """An orphan's events are the oldest there are."""
    with_old = SpoolFile.create(new_spool_path(tmp_path), "here", full_sync=False)
    with_old.insert([record(1, 50.0), record(2, 60.0)])
    with_old.close()
    storage = SQLiteStorage(tmp_path)
    ids = Ids()
    assert await storage.open("here", ids) == 2
    await storage.append([record(ids(1), 100.0)])

    assert await looked(storage) == Holdings(3 * len(BODY), 50.0)
    await storage.settle([1])
    assert await looked(storage) == Holdings(2 * len(BODY), 60.0)
    await storage.close()


async def test_stats_say_bytes_and_age(tmp_path: Path) -> None:
    """While the server is away; afterwards there is nothing to tell."""
    async with Emulator() as emulator:
        url = emulator.httpapi_url
    storage = SQLiteStorage(tmp_path)
    client = Amplitude("key", server_url=url, storage=storage, trust_env=False)
    async with client:
        await client.track("Seen", user_id="user-1")
        await asyncio.sleep(0.05)
        stats = client.stats
        assert stats.spool_bytes == stats.queue_bytes > 0
        assert stats.spool_oldest_age is not None
        assert 0.04 < stats.spool_oldest_age < 5.0
        await client.purge()
        await looked(storage)
        stats = client.stats
        assert (stats.spool_bytes, stats.spool_oldest_age) == (0, None)
        await client.shutdown(timeout=0.1)


class Telling(MemoryStorage):
    """Raises where it is asked what it has."""

    def holdings(self) -> Holdings:
        """Fail as a storage of somebody else may."""
        raise ConnectionError


@pytest.mark.parametrize("storage", [MemoryStorage(), Telling()])
async def test_without_a_spool_there_is_nothing_to_tell(storage: Storage) -> None:
    """Neither with memory storage nor with one that cannot say."""
    client = Amplitude("key", storage=storage, opt_out=True)
    async with client:
        stats = client.stats

    assert (stats.spool_bytes, stats.spool_oldest_age) == (0, None)


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    """The age of what seems to come from the future is none."""
    assert Holdings(1, 10.0).age(5.0) == 0.0
    assert Holdings(1, 10.0).age(15.0) == 5.0
    assert Holdings(0, None).age(15.0) is None
