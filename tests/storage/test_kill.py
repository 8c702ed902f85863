"""When `await track()` returns, the event survives kill -9.

A real process tracks at full speed and writes down each event that `track` accepted.
It is killed at a random instant, time and again, on one spool. All that it wrote down
must have been delivered in the end, each event once.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

ROUNDS = 5
HALF_OF_THE_REQUESTS = Fault(500, rate=0.5, count=None)
EVERY_REQUEST = Fault(503, count=None)


def delivered(emulator: Emulator) -> Counter[str]:
    """Count how often the server has stored each event."""
    return Counter(event["event_properties"]["n"] for event in emulator.events)


async def drain(connect: Callable[..., Amplitude]) -> Amplitude:
    """Start once more, and send what was left."""
    client = connect()
    await client.start()
    stats = await client.flush(None)
    assert stats.pending == 0
    await client.shutdown()
    return client


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", [None, HALF_OF_THE_REQUESTS], ids=["well", "failing"])
async def test_accepted_events_survive_kill_9(
    fault: Fault | None,
    seed: int,
    emulator: Emulator,
    connect: Callable[..., Amplitude],
    start_tracker: Callable[..., Any],
) -> None:
    """Nothing that was accepted is lost, and nothing is stored twice."""
    instants = random.Random(seed)
    if fault is not None:
        emulator.faults.add(fault)
    accepted: list[str] = []
    for number in range(ROUNDS):
        async with start_tracker(f"{seed}-{number}") as tracker:
            await tracker.read(instants.randrange(1, 4_000))
            await tracker.kill()
            accepted += tracker.accepted
    emulator.faults.clear()
    await drain(connect)

    arrived = delivered(emulator)
    assert set(accepted) <= set(arrived)
    assert set(arrived.values()) == {1}
    assert len(accepted) == len(set(accepted))


async def test_two_processes_share_a_directory(
    emulator: Emulator,
    connect: Callable[..., Amplitude],
    start_tracker: Callable[..., Any],
) -> None:
    """Two workers do not disturb each other; a third takes over from both, once."""
    emulator.faults.add(EVERY_REQUEST)
    async with start_tracker("a") as first, start_tracker("b") as second:
        await asyncio.gather(first.read(500), second.read(500))
        await first.kill()
        await second.read(len(second.accepted) + 100)
        await second.kill()
    emulator.faults.clear()
    client = await drain(connect)

    accepted = {*first.accepted, *second.accepted}
    arrived = delivered(emulator)
    assert accepted <= set(arrived)
    assert set(arrived.values()) == {1}
    assert client.stats.recovered == client.stats.delivered >= len(accepted)


async def test_a_living_process_keeps_its_file(
    emulator: Emulator,
    connect: Callable[..., Amplitude],
    start_tracker: Callable[..., Any],
) -> None:
    """Nobody takes a file whose process lives; at its death it is free at once."""
    emulator.faults.add(EVERY_REQUEST)
    async with start_tracker("a") as tracker:
        await tracker.read(100)
        client = connect()
        await client.start()
        assert client.stats.recovered == 0
        await client.shutdown()
        await tracker.kill()
    emulator.faults.clear()
    await drain(connect)

    assert set(tracker.accepted) <= set(delivered(emulator))
