"""The handle a verb returns, the result behind it, and the callback."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    EnrichmentPlugin,
    Event,
)
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]


async def test_awaiting_brings_the_flush_forward(
    connect: Connect, emulator: Emulator
) -> None:
    """A long linger is cut for whoever waits; several who wait share a request."""
    async with connect(flush_interval=3600.0) as client:
        await (await client.track("first", user_id="user-1"))
        handles = [await client.track("e", user_id="user-1") for _ in range(3)]
        results = await asyncio.gather(*handles)

    assert [one.ok for one in results] == [True] * 3
    assert [len(request.events) for request in emulator.requests] == [1, 3]


async def test_a_handle_can_be_awaited_any_number_of_times(connect: Connect) -> None:
    """Before and after the outcome, at the same time and one after another."""
    async with connect() as client:
        delivery = await client.track("e", user_id="user-1")
        assert (delivery.done, delivery.result) == (False, None)

        async def wait() -> DeliveryResult:
            return await delivery

        first, second = await asyncio.gather(wait(), wait())
        third = await delivery

    assert first is second is third is delivery.result
    assert delivery.done


async def test_cancelling_the_wait_does_not_cancel_the_event(
    connect: Connect, emulator: Emulator
) -> None:
    """Somebody who stops waiting takes nothing away."""
    async with connect() as client:
        delivery = await client.track("e", user_id="user-1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await delivery
        assert not delivery.done
        assert (await delivery).ok

    assert emulator.stats.events_ingested == 1


async def test_done_callbacks(connect: Connect) -> None:
    """Each is called once on the loop, also where the outcome is known already."""
    calls: list[Delivery] = []
    async with connect() as client:
        delivery = await client.track("e", user_id="user-1")
        delivery.add_done_callback(calls.append)
        delivery.add_done_callback(calls.append)
        await delivery
        await asyncio.sleep(0)
        assert calls == [delivery] * 2
        delivery.add_done_callback(calls.append)
        assert len(calls) == 2
        await asyncio.sleep(0)

    assert calls == [delivery] * 3


async def test_what_a_result_says(connect: Connect, emulator: Emulator) -> None:
    """Status, code, reason, attempts, destination and the event as it was sent."""
    emulator.faults.add(Fault(500))
    async with connect(retry_base_interval=0.001) as client:
        delivery = await client.track("e", user_id="user-1", insert_id="i-1")
        result = await delivery

    assert (result.status, result.ok) == (DeliveryStatus.DELIVERED, True)
    assert (result.code, result.attempts, result.reason) == (200, 2, None)
    assert (result.destination, result.insert_id) == ("amplitude", "i-1")
    assert result.event == Event.model_validate(emulator.events[0])
    assert result.event is result.event
    assert delivery.insert_id == "i-1"


async def test_a_repr_says_what_happened_and_nothing_personal(
    connect: Connect,
) -> None:
    """Handles, results and clients show states and ids of ours, no event data."""
    async with connect() as client:
        delivery = await client.track(
            "Signed Up", user_id="alice@example.org", insert_id="i-1"
        )
        pending = repr(delivery)
        result = await delivery
        assert repr(client).startswith("<Amplitude open url=")

    assert repr(client).startswith("<Amplitude closed url=")
    assert pending == "<Delivery i-1 pending>"
    assert repr(delivery) == f"<Delivery i-1 {result!r}>"
    for shown in (pending, repr(delivery), repr(result), repr(client)):
        assert "alice" not in shown
        assert "Signed Up" not in shown


async def test_a_handle_that_nobody_awaits_says_nothing(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Failed events warn in the log once, not as futures that nobody looked at."""
    emulator.faults.add(Fault(400, count=None))
    async with connect() as client:
        for _ in range(3):
            await client.track("e", user_id="user-1")
        stats = await client.flush()

    assert stats.rejected == 3
    assert "never retrieved" not in caplog.text


# --- The callback ---


async def test_the_callback_hears_of_every_accepted_event_once(
    connect: Connect,
) -> None:
    """Delivered, invalid, opted-out, filtered and late events are all reported."""
    results: list[DeliveryResult] = []

    def filtering(event: Event) -> Event | None:
        return None if event.event_type == "filtered" else event

    client = connect(callback=results.append, plugins=[filtering])
    async with client:
        await client.track("delivered", user_id="user-1")
        await client.flush()
        await client.track("invalid")
        await client.track("filtered", user_id="user-1")
        client.opt_out = True
        await client.track("opted out", user_id="user-1")
    await client.track("late", user_id="user-1")
    await asyncio.sleep(0)

    assert [(one.event.event_type, one.status, one.reason) for one in results] == [
        ("delivered", DeliveryStatus.DELIVERED, None),
        ("invalid", DeliveryStatus.REJECTED, None),
        ("filtered", DeliveryStatus.DROPPED, DropReason.PLUGIN),
        ("opted out", DeliveryStatus.DROPPED, DropReason.OPT_OUT),
        ("late", DeliveryStatus.DROPPED, DropReason.CLOSED),
    ]
    assert client.stats.accepted == len(results)


async def test_an_async_callback_is_awaited_in_order(connect: Connect) -> None:
    """One result at a time; shutdown waits for the last."""
    log: list[str] = []

    async def callback(result: DeliveryResult) -> None:
        log.append(f"begin {result.event.event_type}")
        await asyncio.sleep(0.001)
        log.append(f"end {result.event.event_type}")

    async with connect(callback=callback) as client:
        await client.track("a", user_id="user-1")
        await client.track("b", user_id="user-1")

    assert log == ["begin a", "end a", "begin b", "end b"]


async def test_a_raising_callback_hurts_nobody(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once with its error; the other results are still handed over."""
    seen: list[str] = []

    def callback(result: DeliveryResult) -> None:
        seen.append(result.event.event_type)
        raise RuntimeError("callback is broken")

    async with connect(callback=callback) as client:
        for name in ("a", "b"):
            await client.track(name, user_id="user-1")

    assert seen == ["a", "b"]
    assert emulator.stats.events_ingested == 2
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "callback is broken" in errors[0].getMessage()


async def test_a_callback_method_is_called_on_its_own_object(connect: Connect) -> None:
    """What the owner of a bound method counts is counted there, not on a copy."""

    class Counter:
        def __init__(self) -> None:
            self.lock = asyncio.Lock()  # what could not be copied
            self.seen: list[DeliveryResult] = []

        def hear(self, result: DeliveryResult) -> None:
            self.seen.append(result)

    counter = Counter()
    async with connect(callback=counter.hear) as client:
        await client.track("e", user_id="user-1")

    assert len(counter.seen) == 1


async def test_tracking_from_a_callback(connect: Connect, emulator: Emulator) -> None:
    """It does not deadlock, and the event goes through the plugins like any other."""
    seen: list[str] = []
    tracked = asyncio.Event()

    async def callback(result: DeliveryResult) -> None:
        if result.event.event_type == "first":
            await client.track("second", user_id="user-1")
            tracked.set()

    def spy(event: Event) -> Event:
        seen.append(event.event_type)
        return event

    async with connect(callback=callback, plugins=[spy]) as client:
        await client.track("first", user_id="user-1")
        await asyncio.wait_for(tracked.wait(), 5.0)

    assert seen == ["first", "second"]
    assert emulator.stats.events_ingested == 2


@pytest.mark.parametrize("waits_by", ["a delivery", "a flush"])
async def test_a_callback_may_wait_for_outcomes(
    connect: Connect, waits_by: str
) -> None:
    """Requests that had to wait for the callback go on while it waits for them."""
    heard: list[DeliveryResult] = []
    waited = asyncio.Event()

    async def callback(result: DeliveryResult) -> None:
        heard.append(result)
        if len(heard) > 1:
            return
        await filled.wait()
        if waits_by == "a flush":
            await client.flush(None)
        else:
            await deliveries[-1]
        waited.set()

    filled = asyncio.Event()
    async with connect(
        callback=callback, max_storage_capacity=100, flush_queue_size=10
    ) as client:
        # The first is with the callback, and more than half of its places are taken.
        deliveries = [await client.track("e", user_id="user-0")]
        await deliveries[0]
        deliveries += [client.track_nowait("e", user_id=f"user-{n}") for n in range(99)]
        filled.set()
        await asyncio.wait_for(waited.wait(), 10.0)

    assert len(heard) == 100
    assert client.stats.delivered == 100


async def test_delivery_runs_in_no_context_of_the_host(connect: Connect) -> None:
    """A request's context variables do not leak into callbacks and destinations."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("of the host")
    seen: list[Any] = []

    def callback(result: DeliveryResult) -> None:
        seen.append(request.get(None))

    def enrich(event: Event) -> Event:
        seen.append(request.get(None))
        return event

    async with connect(callback=callback, plugins=[enrich]) as client:
        await (await client.track("e", user_id="user-1"))

    assert seen == ["of the host", None]


# --- The short road ---


def drive(coroutine: Any) -> tuple[Any, int]:
    """Run a coroutine that waits for nothing; returns its value and its turns."""
    for turns in range(10):
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value, turns
    coroutine.close()
    pytest.fail("it waits for something")


class Stamp(EnrichmentPlugin):
    """A plain plugin."""

    def execute(self, event: Event) -> Event:
        """Fill in the version."""
        event.app_version = "1"
        return event


class AsyncStamp(EnrichmentPlugin):
    """An async plugin that has nothing to wait for."""

    async def execute(self, event: Event) -> Event:
        """Fill in the platform."""
        event.platform = "server"
        return event


@pytest.mark.parametrize("plugins", [[], [Stamp()], [AsyncStamp(), Stamp()]])
async def test_track_suspends_at_most_once_in_a_hundred(
    plugins: list[EnrichmentPlugin], connect: Connect, emulator: Emulator
) -> None:
    """In memory, with room and plain plugins: one turn for the loop, and no more."""
    async with connect(plugins=plugins) as client:
        ends = [drive(client.track("e", user_id="user-1")) for _ in range(100)]
        # What is settled at the door gives a turn each time.
        _, turns = drive(client.track("e"))
        await client.flush()

    assert sum(turns for _, turns in ends) <= 1
    assert turns == 1
    assert [one.done for one, _ in ends] == [True] * 100
    assert emulator.stats.events_ingested == 100


async def test_async_plugins_are_awaited_one_by_one(
    connect: Connect, emulator: Emulator
) -> None:
    """Each gets what the one before it returned, while other events overtake none."""
    order: list[str] = []

    def step(name: str) -> EnrichmentPlugin:
        class Step(EnrichmentPlugin):
            async def execute(self, event: Event) -> Event:
                order.append(f"{name} begins {event.event_type}")
                await asyncio.sleep(0)
                order.append(f"{name} ends {event.event_type}")
                return event

        return Step()

    async with connect(plugins=[step("a"), step("b"), step("c")]) as client:
        await client.track("e", user_id="user-1")
        await client.flush()

    assert order == [
        f"{name} {what} e" for name in "abc" for what in ("begins", "ends")
    ]
    assert emulator.stats.events_ingested == 1
