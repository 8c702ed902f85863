"""More events than fit: each policy sheds as promised, and nothing in silence."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DropReason,
    Overflow,
    QueueFullError,
)
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]
CAPACITY = 50
EVENTS = 300


async def track_many(client: Amplitude, events: int = EVENTS) -> None:
    """Track as fast as the tasks of a busy host do."""
    for number in range(events):
        if number % 10 == 0:
            await asyncio.sleep(0)  # or no callback ever gets its turn
        await client.track(
            "e", user_id=f"user-{number % 5}", event_properties={"n": number}
        )


def stored(emulator: Emulator) -> list[int]:
    """Return the numbers of the events at the server."""
    return sorted(event["event_properties"]["n"] for event in emulator.events)


@pytest.mark.parametrize("shut_down_at_once", [True, False])
async def test_waiting_for_room_loses_nothing(
    connect: Connect, emulator: Emulator, *, shut_down_at_once: bool
) -> None:
    """While the server is well, a full queue slows the caller down and no more."""
    emulator.faults.add(Fault(delay=0.002, count=None))
    client = connect(max_storage_capacity=CAPACITY, overflow_timeout=30.0)
    await track_many(client)
    if not shut_down_at_once:
        await client.flush(30.0)
    stats = await client.shutdown(30.0)

    assert (stats.delivered, stats.dropped) == (EVENTS, 0)
    assert stored(emulator) == list(range(EVENTS))


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Overflow.DROP_NEWEST, range(CAPACITY)),
        (Overflow.DROP_OLDEST, range(EVENTS - CAPACITY, EVENTS)),
        (Overflow.RAISE, range(CAPACITY)),
    ],
)
async def test_what_a_policy_keeps(
    policy: Overflow, kept: range, connect: Connect, emulator: Emulator
) -> None:
    """The newest or the oldest are shed, or the verb raises and accepts nothing."""
    client = connect(max_storage_capacity=CAPACITY, overflow=policy, callback=None)
    await client.start()
    accepted = 0
    # Without a turn for the loop nothing is sent and no callback runs meanwhile.
    for number in range(EVENTS):
        with contextlib.suppress(QueueFullError):
            client.track_nowait("e", user_id="user-1", event_properties={"n": number})
            accepted += 1
    stats = await client.shutdown(30.0)

    assert accepted == (CAPACITY if policy is Overflow.RAISE else EVENTS)
    assert stats.accepted == accepted
    assert stored(emulator) == list(kept)
    shed = stats.dropped_by_reason.get(DropReason.OVERFLOW, 0)
    assert shed == accepted - CAPACITY


async def test_a_full_queue_goes_though_it_is_no_full_batch(
    connect: Connect, emulator: Emulator
) -> None:
    """Where a batch can never fill up, want of room sends it, not the interval."""
    client = connect(
        max_storage_capacity=CAPACITY,
        flush_queue_size=200,
        flush_interval=3600.0,
        overflow_timeout=30.0,
    )
    async with asyncio.timeout(10.0):
        await track_many(client)

    assert client.stats.dropped == 0
    assert client.stats.delivered >= EVENTS - CAPACITY


async def test_nobody_waits_for_a_failing_server(
    connect: Connect, emulator: Emulator, results: list[DeliveryResult]
) -> None:
    """While the server fails, a full queue sheds at once: the host is not held up."""
    emulator.faults.add(Fault(500, count=None))
    client = connect(
        max_storage_capacity=CAPACITY,
        overflow_timeout=0.02,
        flush_max_retries=1_000_000,
    )
    await client.start()
    await track_many(client, 30)
    await client.flush(0.05)
    await track_many(client)

    assert client.stats.pending == CAPACITY
    assert client.stats.dropped_by_reason == {DropReason.OVERFLOW: 30 + 300 - CAPACITY}
    emulator.faults.clear()
    stats = await client.shutdown(30.0)
    assert stats.delivered == emulator.stats.events_ingested == CAPACITY
    assert Counter(result.reason for result in results) == {
        None: CAPACITY,
        DropReason.OVERFLOW: 30 + 300 - CAPACITY,
    }


async def test_a_burst_larger_than_the_queue(
    connect: Connect, emulator: Emulator
) -> None:
    """A burst beyond the capacity is delivered whole: the caller waits its turn."""
    client = connect(max_storage_capacity=1000, flush_queue_size=200)
    await client.start()
    await track_many(client, 2500)
    stats = await client.shutdown(30.0)

    assert (stats.delivered, stats.dropped) == (2500, 0)
    assert emulator.stats.events_ingested == 2500


async def test_a_queue_is_bounded_by_bytes_too(
    connect: Connect, emulator: Emulator, results: list[DeliveryResult]
) -> None:
    """Large events fill the queue before there are many of them."""
    client = connect(
        flush_queue_size=200,
        flush_interval=3600.0,
        max_storage_bytes=10_000,
        overflow=Overflow.DROP_NEWEST,
    )
    await client.start()
    for _ in range(20):
        await client.track("e", user_id="user-1", event_properties={"text": "x" * 1000})
        assert client.stats.queue_bytes <= 10_000

    assert 10 < client.stats.dropped < 15
    await client.shutdown()
    assert "bytes of max_storage_bytes=10000" in results[0].message
