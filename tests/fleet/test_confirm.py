"""track returns when the log has the event, and never later than it may."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryStatus,
    Event,
    Overflow,
    Plugin,
    PluginType,
)
from amplitude_async.exceptions import (
    LogError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.storage import MemoryStorage, SQLiteStorage
from amplitude_async.testing import FakeClock
from tests.fleet.scene import MemberClient, MoodyLog, names_in, until

__all__: list[str] = []

Account = Callable[..., Any]


async def test_track_returns_when_the_log_has_it(accounted: Account) -> None:
    """The handle is settled already, and the event is there."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log, confirm_timeout=60.0))
    for number in range(20):
        delivery = await client.track(f"E{number:02}", user_id="user-1")
        assert delivery.done
        assert len(await names_in(log)) == number + 1


async def test_whoever_waits_for_the_log_waits_for_no_company() -> None:
    """However many events were to be sent at once by an option of the service's."""
    clock, log = FakeClock(), MoodyLog()
    async with MemberClient.at(
        clock, handover=log, flush_queue_size=200, flush_interval=60.0
    ) as client:
        for number in range(4):
            task = asyncio.create_task(client.track(f"E{number}", user_id="user-1"))
            await clock.advance(0.01)
            assert task.done()
            assert task.result().done
            await clock.advance(30.0)


async def test_two_thousand_callers_at_once(accounted: Account) -> None:
    """They share requests: none waits for its own turn, and order is kept."""
    log = MoodyLog(partitions=4)
    client = accounted(Amplitude(handover=log, confirm_timeout=60.0))

    async def call(user: int) -> None:
        for number in range(3):
            delivery = await client.track(f"E{number}", user_id=f"user-{user:04}")
            assert delivery.done

    await asyncio.gather(*(call(user) for user in range(2_000)))
    names = await names_in(log)
    assert len(names) == 6_000
    assert len(log.published) < 3_000  # and not one for each event


def broken(log: MemoryLog, way: str) -> None:
    """Let a log fail in some way."""
    errors = {
        "full": LogFullError("full"),
        "refused": LogRefusedError("no right"),
        "unreachable": LogUnreachableError("gone"),
        "uncertain": LogError("broken off"),
    }
    if way == "hangs":
        log.stall()
    elif way == "loses":
        log.lose_answers(True)
    else:
        log.refuse(errors[way])


def mended(log: MemoryLog) -> None:
    """Let it answer again."""
    log.go_on()
    log.refuse(None)
    log.lose_answers(False)


WAYS = ["hangs", "full", "refused", "unreachable", "uncertain", "loses"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_log_that_fails_costs_no_more_than_the_time_limit(way: str) -> None:
    """The event waits, and is handed over later: in order, and once."""
    clock, log = FakeClock(), MoodyLog()
    client = MemberClient.at(clock, handover=log, confirm_timeout=1.0)
    async with client:
        await client.track("E0", user_id="user-1")
        broken(log, way)
        deliveries = []
        for number in range(1, 4):
            started = clock.now()
            task = asyncio.create_task(client.track(f"E{number}", user_id="user-1"))
            await clock.advance(0.99)
            # An outage delays no verb, once it has lasted longer than the limit.
            assert not task.done() or task.result().done or number > 1
            await clock.advance(0.02)
            assert task.done()
            assert clock.now() - started < 1.1
            deliveries.append(task.result())
        mended(log)
        await clock.advance(60.0)
        if way == "refused":
            # A memory that cannot outlive the process tells at once.
            return
        assert [one.done for one in deliveries] == [True] * 3
        assert [(await one).status for one in deliveries] == [
            DeliveryStatus.HANDED_OVER
        ] * 3
        assert await names_in(log) == ["E0", "E1", "E2", "E3"]


@pytest.mark.parametrize("way", WAYS)
async def test_room_and_log_are_waited_for_within_one_limit(way: str) -> None:
    """With WAIT and a full queue: not one limit after the other."""
    clock, log = FakeClock(), MoodyLog()
    client = MemberClient.at(
        clock,
        handover=log,
        confirm_timeout=1.0,
        overflow=Overflow.WAIT,
        max_storage_capacity=4,
    )
    async with client:
        await client.track("E0", user_id="user-1")
        broken(log, way)
        tasks = [
            asyncio.create_task(client.track(f"E{n}", user_id="user-1"))
            for n in range(1, 9)
        ]
        await clock.advance(1.05)
        assert all(task.done() for task in tasks)
        late = asyncio.create_task(client.track("late", user_id="user-1"))
        await clock.advance(1.05)
        assert late.done()
        mended(log)
        await clock.advance(60.0)
        assert client.stats.balanced
        assert client.stats.pending == 0
        names = await names_in(log)
        assert names == sorted(set(names))


async def test_all_that_may_be_waited_for_is_waited_for_within_one_limit() -> None:
    """A storage, room, and a callback that has no place for a result."""

    class Stuck(MemoryStorage):
        durable = True

        async def append(self, _: Any) -> None:
            await asyncio.Event().wait()

    async def callback(_: Any) -> None:
        await asyncio.Event().wait()

    clock, log = FakeClock(), MoodyLog()
    client = MemberClient.at(
        clock,
        handover=log,
        confirm_timeout=1.0,
        storage=Stuck(),
        callback=callback,
        max_storage_capacity=4,
    )
    await client.start()
    log.stall()
    for _ in range(2):
        tasks = [
            asyncio.create_task(client.track(f"E{n}", user_id="user-1"))
            for n in range(30)
        ]
        await clock.advance(1.01)
        assert all(task.done() for task in tasks)
    assert client.stats.balanced
    log.go_on()
    stopping = asyncio.create_task(client.shutdown(0.0))
    while not stopping.done():
        await clock.advance(1.0)


@pytest.mark.parametrize("way", WAYS)
async def test_with_a_spool_under_it(way: str, tmp_path: Any) -> None:
    """The storage has it: track returns in time, and all are handed over in order."""
    log = MoodyLog()
    client = Amplitude(
        handover=log,
        confirm_timeout=0.05,
        storage=SQLiteStorage(tmp_path / "spool"),
        retry_base_interval=0.01,
        retry_max_interval=0.02,
    )
    async with client:
        broken(log, way)
        for number in range(5):
            await asyncio.wait_for(client.track(f"E{number}", user_id="user-1"), 10)
        assert client.stats.pending + client.stats.handed_over == 5
        mended(log)
        if way == "refused":
            stats = await client.shutdown(1.0)
            assert (stats.stored + stats.handed_over, stats.dropped) == (5, 0)
            return
        await until(lambda: not client.stats.pending)
    assert await names_in(log) == [f"E{number}" for number in range(5)]


async def test_without_confirm_track_returns_at_once(accounted: Account) -> None:
    """A log that hangs holds up nobody."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log, confirm=False))
    await client.track("E0", user_id="user-1")
    log.stall()
    deliveries = [await client.track(f"E{n}", user_id="user-1") for n in range(1, 9)]
    assert not any(delivery.done for delivery in deliveries)
    log.go_on()
    for delivery in deliveries:
        assert (await delivery).ok


async def test_a_track_that_is_cancelled_accepted_its_event(
    accounted: Account,
) -> None:
    """Who gives up waiting stops nothing."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log, confirm_timeout=60.0))
    await client.start()
    log.stall()
    task = asyncio.create_task(client.track("E0", user_id="user-1"))
    await until(lambda: client.stats.accepted == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    log.go_on()
    await until(lambda: client.stats.handed_over == 1)
    assert await names_in(log) == ["E0"]


async def test_a_plugin_that_tracks_waits_for_nothing_of_its_own(
    accounted: Account,
) -> None:
    """Nor does the event that it is asked about wait for the plugin's."""
    log = MemoryLog()

    class Echo(Plugin):
        plugin_type = PluginType.ENRICHMENT
        name = "echo"

        async def execute(self, event: Event) -> Event:
            if event.event_type == "E0":
                await client.track("echo", user_id="user-1")
            return event

    client = accounted(Amplitude(handover=log, confirm_timeout=30.0, plugins=[Echo()]))
    async with asyncio.timeout(10):
        await client.track("E0", user_id="user-1")
    assert await names_in(log) == ["echo", "E0"]


async def test_a_callback_that_tracks_does_not_wait_for_itself(
    accounted: Account,
) -> None:
    """However slow callbacks are, and however many results wait for them."""
    log = MemoryLog()

    async def callback(result: Any) -> None:
        if result.event is None or result.event.event_type != "echo":
            await client.track("echo", user_id="user-1")

    client = accounted(
        Amplitude(
            handover=log,
            confirm_timeout=30.0,
            callback=callback,
            max_storage_capacity=10,
        )
    )
    async with asyncio.timeout(15):
        for number in range(50):
            await client.track(f"E{number}", user_id="user-1")
        await until(lambda: client.stats.handed_over == 100)


async def test_a_refused_event_confirms_nothing(accounted: Account) -> None:
    """What the door settles returns at once, whatever the log does."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log, confirm_timeout=30.0))
    await client.start()
    log.stall()
    async with asyncio.timeout(10):
        delivery = await client.track("E", user_id="")
    assert delivery.done
    log.go_on()


async def test_shutdown_lets_go_who_waits(accounted: Account) -> None:
    """A verb that waits for a log returns when the client ends."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log, confirm_timeout=60.0))
    await client.start()
    log.stall()
    task = asyncio.create_task(client.track("E0", user_id="user-1"))
    await until(lambda: client.stats.accepted == 1)
    async with asyncio.timeout(20):
        stats = await client.shutdown(0.1)
        delivery = await task
    assert (await delivery).status is DeliveryStatus.DROPPED
    assert stats.balanced
    log.go_on()
