"""A callback may be slow, may fill up, may end the client: delivery stays sound."""

import asyncio
from collections.abc import Callable

import pytest

from amplitude_async import Amplitude, DeliveryResult, DropReason
from amplitude_async.emulator import Emulator
from amplitude_async.testing import FakeClock

__all__: list[str] = []

Connect = Callable[..., Amplitude]
CAPACITY = 4
ENDED = 5.0


class Gate:
    """A callback that lets results through only when it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.heard: list[DeliveryResult] = []

    async def __call__(self, result: DeliveryResult) -> None:
        """Take one result."""
        await self.open.wait()
        self.heard.append(result)


async def test_a_slow_callback_pauses_sending(
    connect: Connect, emulator: Emulator
) -> None:
    """Results that nobody fetches do not pile up: the next batch waits for room."""
    gate = Gate()
    client = connect(
        callback=gate,
        max_storage_capacity=CAPACITY,
        flush_queue_size=1,
        max_batch_size=1,
        max_in_flight=1,
        overflow_timeout=3600.0,
    )
    tracking = [
        asyncio.create_task(client.track("e", user_id="user-1")) for _ in range(20)
    ]
    async with asyncio.timeout(ENDED):
        # One result is with the callback, and more than half of the places are taken.
        most = 1 + CAPACITY // 2 + 1
        while emulator.stats.events_ingested < most:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
        await client.flush(0.02)
        assert emulator.stats.events_ingested == most
        gate.open.set()
        deliveries = await asyncio.gather(*tracking)
        assert all([(await delivery).ok for delivery in deliveries])
    await client.shutdown()

    assert len(gate.heard) == emulator.stats.events_ingested == 20


async def test_what_is_shed_meanwhile_is_counted(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """With no room for its result a shed event is counted and logged, not called."""
    gate = Gate()
    client = connect(
        callback=gate,
        max_storage_capacity=CAPACITY,
        flush_queue_size=1,
        overflow_timeout=0.0,
    )
    await client.start()
    for _ in range(50):
        client.track_nowait("e", user_id="user-1")
    stats = client.stats
    gate.open.set()
    await client.shutdown()

    assert stats.dropped_by_reason == {DropReason.OVERFLOW: 50 - CAPACITY}
    assert client.stats.balanced
    assert len(gate.heard) < 50
    assert "a result came without its call" in caplog.text


async def test_shutdown_waits_for_callbacks_within_its_deadline(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that hangs does not hang the shutdown, and the log says who missed."""
    client = connect(callback=Gate())
    await client.track("e", user_id="user-1")
    stats = await asyncio.wait_for(client.shutdown(0.05), ENDED)

    assert stats.delivered == 1
    assert "before the callback had seen every result" in caplog.text


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_a_callback_ends_the_client(
    timeout: float | None, connect: Connect, emulator: Emulator
) -> None:
    """Shutting down from a callback drains the rest, and waits for no callback."""
    heard = []
    all_heard = asyncio.Event()

    async def first_is_last(result: DeliveryResult) -> None:
        heard.append(result)
        if len(heard) == 3:
            all_heard.set()
        await client.shutdown(timeout)

    client = connect(callback=first_is_last, flush_queue_size=1, max_batch_size=1)
    for number in range(3):
        await client.track("e", user_id=f"user-{number}")
    await asyncio.wait_for(all_heard.wait(), ENDED)

    assert client.stats.delivered == emulator.stats.events_ingested == 3


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_a_callback_that_tracks_without_end_ends_with_the_client(
    connect: Connect, *, in_a_task: bool
) -> None:
    """Every result makes an event, every event a result: a shutdown ends the circle."""
    tasks: list[asyncio.Task[object]] = []

    async def again(_: DeliveryResult) -> None:
        tracking = client.track("again", user_id="user-1")
        if in_a_task:
            tasks.append(asyncio.create_task(tracking))
        else:
            await tracking

    client = connect(callback=again, flush_queue_size=1)
    await client.track("e", user_id="user-1")
    await client.flush(0.05)
    await asyncio.wait_for(client.shutdown(None), ENDED)
    await asyncio.gather(*tasks)
    accepted = client.stats.accepted
    await FakeClock().settle()  # all that could still run has run

    assert client.stats.accepted == accepted
    assert client.stats.pending == 0


async def test_a_callback_that_never_suspends_leaves_the_loop_its_turn(
    connect: Connect,
) -> None:
    """A callback may make its own work without end; others still get to run."""
    turns = 0

    async def again(_: DeliveryResult) -> None:
        if turns < 3:
            client.track_nowait("", user_id="user-1")  # rejected at once

    client = connect(callback=again)
    await client.start()
    client.track_nowait("", user_id="user-1")
    async with asyncio.timeout(ENDED):
        while turns < 3:
            await asyncio.sleep(0)
            turns += 1

    assert client.stats.rejected > 100
