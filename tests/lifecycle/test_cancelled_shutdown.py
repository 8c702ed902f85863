"""A shutdown that somebody cancels from outside is finished by whoever waits for it."""

import asyncio
from collections.abc import Callable

import pytest

from amplitude_async import Amplitude, Overflow
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.storage import MemoryStorage

__all__: list[str] = []

Connect = Callable[..., Amplitude]
ENDED = 5.0


class Watched(MemoryStorage):
    """A storage that tells whether it was closed."""

    closed = 0

    async def close(self) -> None:
        """Note it."""
        self.closed += 1
        await super().close()


def cancel_shutdown() -> int:
    """Cancel the client's own task, as a host that cancels all it finds."""
    found = [t for t in asyncio.all_tasks() if t.get_name().endswith(" shutdown")]
    for task in found:
        task.cancel()
    return len(found)


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_second_call_finishes_it(
    turns: int, connect: Connect, emulator: Emulator
) -> None:
    """Wherever it was cut off, every event has an outcome and the storage closes."""
    emulator.faults.add(Fault(500, delay=float("inf"), count=None))
    storage = Watched()
    client = connect(storage=storage, flush_queue_size=1, overflow=Overflow.DROP_NEWEST)
    deliveries = [await client.track("e", user_id=f"user-{n}") for n in range(50)]
    first = asyncio.create_task(client.shutdown(0.0))
    for _ in range(turns):
        await asyncio.sleep(0)
    cancel_shutdown()
    first.cancel()
    await asyncio.wait({first})
    stats = await asyncio.wait_for(client.shutdown(0.0), ENDED)

    assert (stats.accepted, stats.dropped, stats.pending) == (50, 50, 0)
    assert all(delivery.done for delivery in deliveries)
    assert storage.closed == 1


async def test_the_drain_survives_while_somebody_waits(
    connect: Connect, emulator: Emulator
) -> None:
    """The one who waits is not told of a cancellation that was not meant for it."""
    emulator.faults.add(Fault(delay=0.05))
    client = connect()
    await client.track("e", user_id="user-1")
    waiting = asyncio.create_task(client.shutdown())
    await asyncio.sleep(0.01)
    assert cancel_shutdown() == 1
    stats = await asyncio.wait_for(waiting, ENDED)

    assert (stats.delivered, emulator.stats.events_ingested) == (1, 1)


async def test_all_who_wait_join_the_one_that_goes_on(
    connect: Connect, emulator: Emulator
) -> None:
    """Nobody who was not cancelled himself hears of the cancellation."""
    emulator.faults.add(Fault(503, count=100))
    client = connect()
    await client.track("e", user_id="user-1")
    waiting = [asyncio.create_task(client.shutdown(0.5)) for _ in range(3)]
    await asyncio.sleep(0.05)

    assert cancel_shutdown() == 1
    async with asyncio.timeout(ENDED):
        ended = await asyncio.gather(*waiting)

    assert [stats.pending for stats in ended] == [0, 0, 0]
