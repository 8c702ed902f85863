"""A storage of one's own, and the tests that it inherits.

Run them with ``python -m pytest examples/tests/test_own_storage.py``.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from amplitude_async.storage import Record, SQLiteStorage, Storage
from amplitude_async.testing.storage_contract import HostileStorage, StorageContract

__all__: list[str] = []


class TimedStorage(SQLiteStorage):
    """Knows how long the disk has taken at worst."""

    slowest = 0.0

    def append(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Write records, and look at the clock when they are written."""
        started = time.monotonic()

        def note(_: asyncio.Future[None]) -> None:
            self.slowest = max(self.slowest, time.monotonic() - started)

        written = super().append(records)
        written.add_done_callback(note)
        return written


class TestTimedStorage(StorageContract):
    """What every storage promises, kept by this one."""

    def make(self, directory: Path) -> Storage:
        """Make one that is not open yet; those of one directory share it."""
        return TimedStorage(directory)


def test_a_full_disk(amplitude_emulator: Emulator, tmp_path: Path) -> None:
    """Where the storage fails, the event goes on in memory, and the client says so."""

    async def test() -> None:
        storage = HostileStorage(TimedStorage(tmp_path))
        storage.script["append"] = "OSError"
        async with Amplitude.from_env(storage=storage) as client:
            delivery = await client.track("Paid", user_id="user-1")
            assert not client.stats.durable
            assert (await delivery).ok

    asyncio.run(test())
