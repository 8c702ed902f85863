"""Tasks of the host end at any time: what they were doing stays accounted for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DropReason,
    EnrichmentPlugin,
    Event,
)
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]
CAPACITY = 5
ENDED = 5.0


class Slow(EnrichmentPlugin):
    """A plugin that thinks for as long as it is not let go."""

    name = "slow"

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()

    async def execute(self, event: Event) -> Event:
        """Wait."""
        self.entered.set()
        await self.go.wait()
        return event


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task that waits, and see it end."""
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, ENDED)


async def full_client(connect: Connect, emulator: Emulator) -> Amplitude:
    """Make a client whose queue is full and whose server does not answer."""
    emulator.faults.add(Fault(500, delay=float("inf"), count=None))
    client = connect(
        max_storage_capacity=CAPACITY, flush_queue_size=1, overflow_timeout=3600.0
    )
    await client.start()
    for _ in range(CAPACITY):
        await client.track("e", user_id="user-1")
    return client


def open_again(emulator: Emulator) -> None:
    """Let the server answer from now on."""
    emulator.faults.clear()


async def test_cancelled_while_waiting_for_room(
    connect: Connect, emulator: Emulator
) -> None:
    """A verb that was cancelled accepted nothing; the next in line gets its turn."""
    client = await full_client(connect, emulator)
    waiting = [
        asyncio.create_task(client.track("e", user_id="user-2")) for _ in range(3)
    ]
    await cancelled(waiting[1])

    assert client.stats.accepted == CAPACITY
    open_again(emulator)
    assert client.stats.pending == CAPACITY
    await client.shutdown(0.0)
    ended = [await waiting[0], await waiting[2]]
    assert client.stats.accepted == CAPACITY + 2
    assert all(delivery.done for delivery in ended)


async def test_cancelled_inside_a_plugin(connect: Connect, emulator: Emulator) -> None:
    """A cancelled plugin takes its own event along and nothing else."""
    plugin = Slow()
    client = connect(plugins=[plugin])
    task = asyncio.create_task(client.track("e", user_id="user-1"))
    await plugin.entered.wait()
    await cancelled(task)

    assert client.stats.accepted == 0
    plugin.go.set()
    assert (await (await client.track("e", user_id="user-1"))).ok
    assert emulator.stats.events_ingested == 1


async def test_cancelled_in_the_first_start(
    connect: Connect, emulator: Emulator
) -> None:
    """Who is cancelled in the set-up of a plugin leaves a client that can start."""
    entered, go = asyncio.Event(), asyncio.Event()

    class SlowToSetUp(EnrichmentPlugin):
        name = "slow to set up"

        async def setup(self, client: Any) -> None:  # noqa: ARG002 - the signature
            entered.set()
            await go.wait()

        def execute(self, event: Event) -> Event:
            return event

    client = connect(plugins=[SlowToSetUp()])
    task = asyncio.create_task(client.track("e", user_id="user-1"))
    await entered.wait()
    await cancelled(task)

    go.set()
    assert (await (await client.track("e", user_id="user-1"))).ok


async def test_cancelled_while_flushing(connect: Connect, emulator: Emulator) -> None:
    """A cancelled flush cancels no event, and others still wait for theirs."""
    client = await full_client(connect, emulator)
    first = asyncio.create_task(client.flush(None))
    second = asyncio.create_task(client.flush(0.02))
    await cancelled(first)
    stats = await asyncio.wait_for(second, ENDED)

    assert stats.pending == CAPACITY
    await client.shutdown(0.0)


async def test_cancelled_while_shutting_down(
    connect: Connect, emulator: Emulator
) -> None:
    """A shutdown goes on without the one who asked for it."""
    emulator.faults.add(Fault(delay=0.02))
    client = connect()
    await client.track("e", user_id="user-1")
    await cancelled(asyncio.create_task(client.shutdown()))
    stats = await client.shutdown()

    assert (stats.delivered, emulator.stats.events_ingested) == (1, 1)


async def test_a_flush_without_a_limit_ends_with_the_client(
    connect: Connect, emulator: Emulator
) -> None:
    """Who waits for outcomes has them all when the client is shut down."""
    client = await full_client(connect, emulator)
    flushing = asyncio.create_task(client.flush(None))
    await asyncio.sleep(0)
    await client.shutdown(0.0)
    stats = await asyncio.wait_for(flushing, ENDED)

    assert stats.dropped_by_reason == {DropReason.SHUTDOWN: CAPACITY}


@pytest.mark.parametrize("kind", ["flush", "request", "callback"])
async def test_our_tasks_come_back(
    kind: str, connect: Connect, emulator: Emulator
) -> None:
    """A host that cancels every task it finds does not stop delivery."""
    heard: list[DeliveryResult] = []
    client = connect(callback=heard.append, flush_queue_size=1)
    await client.start()
    emulator.faults.add(Fault(500, delay=float("inf")))
    first = await client.track("e", user_id="user-1")
    async with asyncio.timeout(ENDED):
        # At the server, or the fault would be left for the request after this one.
        while not emulator.requests:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
        killed = [
            task
            for task in asyncio.all_tasks()
            if task.get_name().startswith("amplitude_async")
            and task.get_name().endswith(kind)
        ]
        for task in killed:
            task.cancel()
        if kind != "request":
            emulator.faults.clear()
            await emulator.refuse()  # what hangs is cut off
            await emulator.listen()
        second = await client.track("e", user_id="user-2")
        assert (await first).ok
        assert (await second).ok
    await client.shutdown()

    assert len(heard) == 2
    assert emulator.stats.events_ingested == 2


async def test_shutdown_from_inside_a_plugin(
    connect: Connect, emulator: Emulator
) -> None:
    """A plugin may end the client; the event it has in hand is told so."""

    class Last(EnrichmentPlugin):
        name = "last"

        async def execute(self, event: Event) -> Event:
            await client.shutdown()
            return event

    client = connect(plugins=[Last()])
    async with asyncio.timeout(ENDED):
        delivery = await client.track("e", user_id="user-1")
        result = await delivery

    assert result.reason is DropReason.CLOSED


@pytest.mark.parametrize("limit", [None, 60.0])
async def test_flushes_leave_nothing_behind(
    limit: float | None, connect: Connect
) -> None:
    """However many have waited, nobody is remembered when all is decided."""
    client = connect()
    await client.start()
    flushes = client._own._engine._parts.books.flushes  # noqa: SLF001 - what could stay
    for _ in range(5):
        await client.track("e", user_id="user-1")
        await asyncio.gather(*(client.flush(limit) for _ in range(20)))

    assert (len(flushes._marks), len(flushes._deadlines)) == (0, 0)  # noqa: SLF001
