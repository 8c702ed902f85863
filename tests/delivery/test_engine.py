"""The engine with virtual time, a scripted network and its account checked.

One file for one class; the schedule's own rules have tests without a loop beside it.
"""

import asyncio
import contextvars
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.config import Overflow
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.flusher import Flusher
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import (
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    Outcome,
)
from amplitude_async.delivery.parts import Site
from amplitude_async.delivery.stats import Stats
from amplitude_async.exceptions import QueueFullError
from amplitude_async.storage import MemoryStorage, Record, Storage
from amplitude_async.testing import Answer, FakeClock, ScriptedTransport

__all__: list[str] = []

KEY = "0123456789abcdef-secret"
OK = Response(200)
DOWN = Response(500)
DEAD = Response(0, error="ClientConnectorError: refused")
INVALID_KEY = Response(400, b'{"error":"Invalid API key"}')
THROTTLED = Response(429, b'{"error":"slow","throttled_events":[0]}')


class Rig:
    """An engine between a test and a scripted network."""

    def __init__(
        self,
        answers: Sequence[Answer] = (),
        *,
        then: Any = None,
        storage: Storage | None = None,
        make_endpoint: Callable[[Config], AmplitudeEndpoint] = AmplitudeEndpoint,
        **options: Any,
    ) -> None:
        self.clock = FakeClock()
        self.transport = ScriptedTransport(answers, then=then, clock=self.clock)
        config = Config(api_key=KEY, **options)
        site = Site.make(
            make_endpoint(config),
            config,
            transport=self.transport,
            clock=self.clock,
            rng=random.Random(1),
            max_age=config.max_event_age,
            client_id=id(self),
        )
        self.engine = Engine(site, storage or MemoryStorage())

    async def track(self, *names: str, size: int = 0) -> list[Delivery]:
        """Accept events named after their user: "ann-1" is the first of "ann"."""
        return [await self.engine.intake.accept(record(name, size)) for name in names]

    async def advance(self, seconds: float) -> None:
        """Let time pass; the account must add up before and after."""
        self.check()
        await self.clock.advance(seconds)
        self.check()

    async def finish(self, work: Coroutine[Any, Any, Stats], within: float) -> Stats:
        """Let time pass until a flush or shutdown returns; it must in time."""
        task = asyncio.ensure_future(work)
        await self.clock.settle()
        begun = self.clock.now()
        while not task.done():
            step = self.clock.next_timer
            assert step is not None, "it waits for nothing"
            assert self.clock.now() + step <= begun + within + 1e-6, "it is late"
            await self.advance(step)
        self.check()
        return task.result()

    def check(self) -> None:
        """Hold the engine's account against its own law."""
        stats = self.engine.stats
        assert stats.balanced, stats
        assert stats.pending >= 0
        assert stats.queue_bytes >= 0
        assert stats.pending or not stats.queue_bytes

    @property
    def requests(self) -> list[list[str]]:
        """The names of the events of each request."""
        return [[e["insert_id"] for e in r.events] for r in self.transport.requests]


def record(name: str, size: int = 0) -> Record:
    """Return an encoded event."""
    user = name.split("-", maxsplit=1)[0]
    event: dict[str, Any] = {
        "event_type": "click",
        "user_id": user,
        "insert_id": name,
    }
    if size:
        event["event_properties"] = {"x": "x" * size}
    body = json.dumps(event).encode()
    return Record(0, body, user, user, None, name, FakeClock().wall())


@asynccontextmanager
async def running(*args: Any, **options: Any) -> AsyncIterator[Rig]:
    """Run an engine and leave nothing behind."""
    rig = Rig(*args, **options)
    await rig.engine.start()
    await rig.clock.settle()
    try:
        yield rig
    finally:
        rig.transport.release()
        await rig.engine.shutdown(0.0)


def statuses(deliveries: list[Delivery]) -> list[str]:
    """Say what became of events, the reason where there is one."""
    return [
        "pending" if d.result is None else str(d.result.reason or d.result.status)
        for d in deliveries
    ]


def tasks_named(kind: str) -> list["asyncio.Task[Any]"]:
    """Find the engine's tasks of a kind."""
    return [t for t in asyncio.all_tasks() if t.get_name().endswith(f" {kind}")]


# When events go ---------------------------------------------------------------------


async def test_a_newcomer_sees_events_soon_and_then_they_gather() -> None:
    """The first batch goes after 0.1 s, later ones after flush_interval."""
    async with running(flush_interval=10.0) as rig:
        await rig.track("ann-1", "bob-1")
        await rig.advance(0.09)
        assert rig.requests == []
        await rig.advance(0.01)
        assert rig.requests == [["ann-1", "bob-1"]]

        await rig.track("ann-2")
        await rig.advance(9.9)
        await rig.track("bob-2")
        assert len(rig.requests) == 1
        await rig.advance(0.1)
        assert rig.requests[1:] == [["ann-2", "bob-2"]]
        assert [r.at for r in rig.transport.requests] == pytest.approx([0.1, 10.1])


async def test_a_full_queue_goes_at_once() -> None:
    """So many events need no time to pass."""
    async with running(flush_queue_size=2) as rig:
        await rig.track("ann-1", "bob-1")
        await rig.clock.settle()

        assert rig.requests == [["ann-1", "bob-1"]]
        assert rig.clock.now() == 0.0


async def by_interval(rig: Rig) -> None:
    """Wait."""
    await rig.advance(10.0)


async def by_flush(rig: Rig) -> None:
    """Flush."""
    await rig.finish(rig.engine.flush(10.0), 0.0)


async def by_shutdown(rig: Rig) -> None:
    """Shut down."""
    await rig.finish(rig.engine.shutdown(5.0), 0.0)


async def by_size(rig: Rig) -> None:
    """Do nothing: two events are a batch."""
    await rig.clock.settle()


@pytest.mark.parametrize("trigger", [by_interval, by_flush, by_shutdown, by_size])
async def test_each_trigger_alone_sends_one_request(
    trigger: Callable[[Rig], Coroutine[Any, Any, None]],
) -> None:
    """Interval, size, flush and shutdown each send both events, in order."""
    async with running(flush_queue_size=2 if trigger is by_size else 200) as rig:
        deliveries = await rig.track("ann-1", "ann-2")
        await trigger(rig)

        assert rig.requests == [["ann-1", "ann-2"]]
        assert statuses(deliveries) == ["delivered", "delivered"]


async def test_an_idle_engine_sends_nothing_and_sets_no_timer() -> None:
    """A flush without events returns at once; nothing wakes the process."""
    async with running() as rig:
        stats = await rig.finish(rig.engine.flush(None), 0.0)

        assert stats == Stats(queue_capacity=20_000)
        assert rig.requests == []
        assert rig.clock.next_timer is None


async def test_requests_go_side_by_side_up_to_their_bound() -> None:
    """max_in_flight requests at a time, no more, however many events wait."""
    async with running(flush_queue_size=1, max_batch_size=1, max_in_flight=3) as rig:
        rig.transport.hang()
        await rig.track(*[f"user{n}-1" for n in range(10)])
        await rig.clock.settle()
        assert rig.transport.in_flight == 3

        rig.transport.release()
        await rig.finish(rig.engine.flush(5.0), 1.0)
        assert rig.transport.most_in_flight == 3
        assert rig.engine.stats.delivered == 10


async def test_the_flush_task_wakes_per_batch_not_per_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand events cost a handful of turns."""
    turns = 0

    def counted(flusher: Flusher) -> None:
        nonlocal turns
        turns += 1
        turn(flusher)

    turn = Flusher.turn
    async with running(flush_queue_size=200) as rig:
        monkeypatch.setattr(Flusher, "turn", counted)
        for n in range(1_000):
            await rig.track(f"user{n}-1")
            await asyncio.sleep(0)
        await rig.finish(rig.engine.flush(5.0), 1.0)

        assert 0 < turns <= 3 * 5 + 3
        assert rig.engine.stats.delivered == 1_000


@pytest.mark.parametrize(
    ("size", "options", "compressed"),
    [
        pytest.param(1_000, {}, False, id="small"),
        pytest.param(3_000, {}, True, id="above 2 KiB"),
        pytest.param(400_000, {}, True, id="in slices"),
        pytest.param(3_000, {"server_url": "http://a.test"}, False, id="custom URL"),
        pytest.param(3_000, {"compression": None}, False, id="switched off"),
    ],
)
async def test_large_bodies_go_as_gzip(
    size: int, options: dict[str, Any], compressed: bool
) -> None:
    """Bytes sent are counted as they go; the header goes along."""
    async with running(**options) as rig:
        await rig.track("ann-1", size=size)
        await rig.finish(rig.engine.flush(5.0), 1.0)

        assert rig.transport.requests[0].compressed is compressed
        assert rig.requests == [["ann-1"]]
        assert (rig.engine.stats.bytes_sent < size) is compressed


# Handles ----------------------------------------------------------------------------


async def test_a_handle_tells_how_it_ended() -> None:
    """Pending first, then one result for good, with the event in it."""
    async with running([DOWN, OK]) as rig:
        (delivery,) = await rig.track("ann-1")
        assert not delivery.done
        assert delivery.result is None
        await rig.advance(60.0)

        result = await delivery
        assert delivery.done
        assert result is delivery.result is await delivery
        assert result.ok
        assert (result.code, result.attempts) == (200, 2)
        assert result.destination == "amplitude"
        assert result.insert_id == delivery.insert_id == "ann-1"
        assert result.event.user_id == "ann"
        assert result.event is result.event


async def test_awaited_handles_share_one_early_request() -> None:
    """Who waits brings the flush forward; waits within 10 ms are one."""
    async with running([OK]) as rig:
        await rig.track("zoe-1")
        await rig.advance(0.1)
        deliveries = await rig.track("ann-1", "bob-1", "eve-1")
        waits = [asyncio.ensure_future(d._wait()) for d in deliveries]  # noqa: SLF001
        await rig.advance(0.009)
        assert len(rig.requests) == 1
        await rig.advance(0.001)

        assert rig.requests[1:] == [["ann-1", "bob-1", "eve-1"]]
        assert [(await wait).ok for wait in waits] == [True] * 3


async def test_cancelling_a_wait_leaves_the_event_alone() -> None:
    """The host's request may end; its event goes on."""
    async with running() as rig:
        (delivery,) = await rig.track("ann-1")

        async def wait() -> DeliveryResult:
            return await delivery

        waiting = asyncio.ensure_future(wait())
        await rig.clock.settle()
        waiting.cancel()
        await rig.advance(1.0)

        assert waiting.cancelled()
        assert statuses([delivery]) == ["delivered"]


async def test_a_done_callback_is_called_once_before_and_after() -> None:
    """Registered early or late, it gets the handle."""
    called: list[Delivery] = []
    async with running() as rig:
        (delivery,) = await rig.track("ann-1")
        delivery.add_done_callback(called.append)
        assert called == []
        await rig.advance(1.0)
        assert called == [delivery]
        delivery.add_done_callback(called.append)
        await rig.clock.settle()
        assert called == [delivery, delivery]


# Callbacks --------------------------------------------------------------------------


async def test_the_callback_is_called_once_for_every_event() -> None:
    """Delivered, rejected, shed: each has one result."""
    results: list[DeliveryResult] = []
    bad = Response(400, b'{"error":"no","events_with_invalid_fields":{"time":[0]}}')
    async with running([bad, OK], callback=results.append) as rig:
        await rig.track("ann-1", "bob-1")
        rig.engine.settle_at_door(
            None, "eve-1", Outcome.dropped(DropReason.OPT_OUT, "opted out")
        )
        await rig.advance(5.0)

        seen = {result.insert_id: str(result.status) for result in results}
        assert len(results) == 3
        assert seen == {"ann-1": "rejected", "bob-1": "delivered", "eve-1": "dropped"}


async def test_an_async_callback_is_awaited_one_result_at_a_time() -> None:
    """Results come in the order of outcomes, never two at once."""
    seen: list[str] = []
    gate = asyncio.Event()

    async def callback(result: DeliveryResult) -> None:
        seen.append(f"begin {result.insert_id}")
        await gate.wait()
        seen.append(f"end {result.insert_id}")

    async with running(callback=callback) as rig:
        await rig.track("ann-1", "bob-1")
        await rig.advance(1.0)
        assert seen == ["begin ann-1"]
        gate.set()
        await rig.clock.settle()

    assert seen == ["begin ann-1", "end ann-1", "begin bob-1", "end bob-1"]


async def test_a_raising_callback_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, the next results come, and delivery goes on."""
    seen: list[str] = []

    def callback(result: DeliveryResult) -> None:
        seen.append(result.insert_id)
        raise ZeroDivisionError

    async with running(callback=callback) as rig:
        deliveries = await rig.track("ann-1", "bob-1")
        await rig.advance(1.0)

        assert seen == ["ann-1", "bob-1"]
        assert statuses(deliveries) == ["delivered", "delivered"]
    assert caplog.text.count("the callback raised") == 1


async def test_a_slow_callback_pauses_sending_and_loses_no_result() -> None:
    """No request starts whose results are not sure of a place behind the callback."""
    seen: list[str] = []
    gate = asyncio.Event()

    async def callback(result: DeliveryResult) -> None:
        await gate.wait()
        seen.append(result.insert_id)

    options = {"flush_queue_size": 1, "max_batch_size": 1, "overflow": "drop_newest"}
    async with running(callback=callback, max_storage_capacity=3, **options) as rig:
        for n in range(6):
            await rig.track(f"ann-{n}")
            await rig.advance(0.1)
        # One is with the callback, two wait for it: less than half of it is free.
        assert rig.engine.stats.delivered == 3
        assert rig.engine.stats.pending == 3
        deliveries = await rig.track("ann-6")
        assert statuses(deliveries) == ["overflow"]
        gate.set()
        await rig.advance(30.0)

    assert sorted(seen) == [f"ann-{n}" for n in range(7)]


# The account ------------------------------------------------------------------------

MOODS: dict[str, list[Answer]] = {
    "well": [OK],
    "one failure": [DOWN, OK],
    "dead for a while": [DEAD] * 8,
    "bare 429": [Response(429)],
    "throttles": [THROTTLED, OK, THROTTLED],
    "too large": [Response(413)] * 3,
    "bare 400": [Response(400)] * 5,
    "firewall": [Response(403)] * 20,
    "lists": [Response(400, b'{"silenced_events":[0,1]}')] * 4,
    "quota": [Response(429, b'{"exceeded_daily_quota_users":{"ann":5}}')],
    "refusal": [INVALID_KEY],
    "redirect": [Response(302)],
    "HTML": [Response(502, b"<html>"), Response(200, b"<html>")],
}


@pytest.mark.parametrize("mood", MOODS)
async def test_the_account_adds_up_at_every_step(mood: str) -> None:
    """Each event has one outcome, in whatever mood the server is."""
    results: list[str] = []
    async with running(
        MOODS[mood], callback=lambda result: results.append(result.insert_id)
    ) as rig:
        names = [f"{user}-{n}" for n in range(4) for user in ("ann", "bob", "eve")]
        deliveries = []
        for name in names:
            deliveries += await rig.track(name)
            await rig.advance(0.05)
        for _ in range(40):
            await rig.advance(rig.clock.next_timer or 1.0)

        assert rig.engine.stats.pending == 0
        assert "pending" not in statuses(deliveries)
        assert sorted(results) == sorted(names)
        assert rig.engine.stats.accepted == 12


@pytest.mark.parametrize(
    "answer",
    [Response(403), Response(400), Response(429), Response(413, b"{}"), DOWN, DEAD],
    ids=["403", "bare 400", "bare 429", "413 without code", "500", "dead"],
)
async def test_no_answer_makes_a_hot_loop(answer: Response) -> None:
    """In one second a server that always says the same sees few requests."""
    async with running(then=answer) as rig:
        await rig.track(*[f"user{n}-1" for n in range(64)])
        await rig.advance(1.1)

        assert len(rig.requests) <= 2 * 64


# Overflow ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "patience", "expected"),
    [
        (Overflow.WAIT, 1.0, ["pending", "pending", "overflow"]),
        (Overflow.DROP_NEWEST, 0.0, ["pending", "pending", "overflow"]),
        (Overflow.DROP_OLDEST, 0.0, ["overflow", "pending", "pending"]),
    ],
)
async def test_an_event_beyond_the_capacity_is_shed(
    policy: Overflow, patience: float, expected: list[str]
) -> None:
    """WAIT gives up after its time; the others decide at once, each in its way."""
    async with running(max_storage_capacity=2, overflow=policy) as rig:
        rig.transport.hang()
        deliveries = await rig.track("ann-1", "bob-1")
        third = asyncio.ensure_future(rig.track("eve-1"))
        await rig.clock.settle()
        assert third.done() is (policy is not Overflow.WAIT)
        # Time stands still for the others, so that nothing is in flight yet.
        await rig.advance(patience)

        assert statuses(deliveries + third.result()) == expected
        assert rig.engine.stats.dropped_by_reason == {DropReason.OVERFLOW: 1}


async def test_events_in_flight_cannot_make_room() -> None:
    """Where all is under way the new event is shed, whatever the policy."""
    async with running(max_storage_capacity=1, overflow="drop_oldest") as rig:
        rig.transport.hang()
        deliveries = await rig.track("ann-1")
        await rig.advance(1.0)
        deliveries += await rig.track("bob-1")

        assert statuses(deliveries) == ["pending", "overflow"]


async def test_waiters_get_room_in_the_order_they_came() -> None:
    """First come, first served, as soon as outcomes make room."""
    order: list[str] = []
    async with running(max_storage_capacity=2, overflow_timeout=60.0) as rig:
        rig.transport.hang()
        await rig.track("ann-1", "bob-1")

        async def insist(name: str) -> None:
            await rig.track(name)
            order.append(name)

        waits = [asyncio.ensure_future(insist(f"user{n}-1")) for n in range(4)]
        await rig.advance(1.0)
        assert order == []
        rig.transport.release()
        await rig.advance(40.0)

        assert order == [f"user{n}-1" for n in range(4)]
        assert rig.engine.stats.delivered == 6
        assert all(wait.done() for wait in waits)


async def test_a_latecomer_does_not_take_the_room_of_those_who_waited() -> None:
    """Room that was promised to a waiter is not free for whoever looks first."""
    async with running(max_storage_capacity=1, overflow_timeout=60.0) as rig:
        rig.transport.hang()
        await rig.track("ann-1")
        waiting = asyncio.ensure_future(rig.track("bob-1"))
        await rig.advance(1.0)

        async def grab() -> Delivery:
            while rig.engine.stats.pending:  # noqa: ASYNC110 - each turn of the loop
                await asyncio.sleep(0)
            return rig.engine.intake.offer_nowait(record("eve-1"))

        late = asyncio.ensure_future(grab())
        await asyncio.sleep(0)
        rig.transport.release()
        await rig.advance(30.0)

        assert statuses(waiting.result()) == ["delivered"]
        assert statuses([late.result()]) == ["overflow"]


async def test_a_cancelled_waiter_accepts_nothing_and_passes_its_turn_on() -> None:
    """A verb that was cancelled leaves no trace in the account."""
    async with running(max_storage_capacity=1, overflow_timeout=60.0) as rig:
        rig.transport.hang()
        await rig.track("ann-1")
        first = asyncio.ensure_future(rig.track("bob-1"))
        second = asyncio.ensure_future(rig.track("eve-1"))
        await rig.advance(1.0)
        first.cancel()
        rig.transport.release()
        await rig.advance(30.0)

        assert first.cancelled()
        assert second.done()
        assert rig.engine.stats.accepted == rig.engine.stats.delivered == 2


async def test_nobody_waits_for_a_failing_destination() -> None:
    """Nothing was taken for longer than the wait would be: WAIT sheds at once."""
    async with running(then=Response(429), max_storage_capacity=2) as rig:
        await rig.track("ann-1", "bob-1")
        await rig.advance(1.2)
        (delivery,) = await rig.track("eve-1")

        assert statuses([delivery]) == ["overflow"]


async def test_a_hiccup_sheds_nothing() -> None:
    """Who finds no room just after a failure waits for it like everybody else."""
    async with running([Response(503)], max_storage_capacity=2) as rig:
        await rig.track("ann-1", "bob-1")
        await rig.advance(0.1)
        waiting = asyncio.ensure_future(rig.track("eve-1"))
        await rig.advance(1.0)

        assert statuses(await waiting) in (["pending"], ["delivered"])


async def test_those_who_wait_are_told_when_waiting_stops_helping() -> None:
    """A destination that refuses us wakes them all."""
    async with running(then=INVALID_KEY, max_storage_capacity=1) as rig:
        rig.transport.hang()
        await rig.track("ann-1")
        waiting = asyncio.ensure_future(rig.track("bob-1"))
        await rig.advance(0.5)
        assert not waiting.done()
        rig.transport.release()
        await rig.clock.settle()

        assert waiting.done()
        assert statuses(waiting.result()) == ["rejected"]


async def test_raise_raises_and_accepts_nothing() -> None:
    """The error names the bounds; the account knows nothing of the event."""
    async with running(max_storage_capacity=1, overflow=Overflow.RAISE) as rig:
        await rig.track("ann-1")

        with pytest.raises(QueueFullError, match="max_storage_capacity=1"):
            await rig.track("bob-1")
        with pytest.raises(QueueFullError, match="max_storage_capacity=1"):
            rig.engine.intake.offer_nowait(record("bob-1"))
        assert rig.engine.stats.accepted == 1


@pytest.mark.parametrize("policy", [Overflow.WAIT, Overflow.DROP_NEWEST])
async def test_synchronous_code_never_waits(policy: Overflow) -> None:
    """Without room the event is shed on the spot."""
    async with running(max_storage_capacity=1, overflow=policy) as rig:
        await rig.track("ann-1")

        delivery = rig.engine.intake.offer_nowait(record("bob-1"))

        assert statuses([delivery]) == ["overflow"]


async def test_memory_is_bounded_by_bytes_too() -> None:
    """Encoded bytes of undecided events count, those in flight included."""
    async with running(max_storage_bytes=2_000, overflow="drop_newest") as rig:
        rig.transport.hang()
        deliveries = await rig.track("ann-1", "bob-1", "eve-1", size=800)
        deliveries += await rig.track("joe-1", size=5_000)

        assert statuses(deliveries) == ["pending", "pending", "overflow", "overflow"]
        assert rig.engine.stats.queue_bytes <= 2_000


# Flush ------------------------------------------------------------------------------


async def test_a_flush_waits_for_what_was_accepted_before_it() -> None:
    """Retries included; what comes later is not its business."""
    async with running([DOWN, DOWN, OK], flush_interval=60.0) as rig:
        deliveries = await rig.track("ann-1")
        flush = asyncio.ensure_future(rig.engine.flush(10.0))
        await rig.clock.settle()
        later = await rig.track("ann-2")
        while not flush.done():
            await rig.advance(0.05)

        assert statuses(deliveries) == ["delivered"]
        assert flush.result().delivered >= 1
        assert rig.clock.now() < 1.0
        assert later[0].insert_id == "ann-2"


async def test_a_flush_returns_at_its_deadline() -> None:
    """A server that hangs holds it no longer."""
    async with running() as rig:
        rig.transport.hang()
        await rig.track("ann-1")

        stats = await rig.finish(rig.engine.flush(2.0), 2.0)

        assert rig.clock.now() == pytest.approx(2.0)
        assert stats.pending == 1


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        pytest.param(THROTTLED, {}, id="held"),
        pytest.param(Response(429), {}, id="bare 429"),
        pytest.param(Response(503, b"", {"retry-after": "60"}), {}, id="Retry-After"),
        pytest.param(DOWN, {"retry_base_interval": 60.0}, id="backing off"),
    ],
)
async def test_a_flush_does_not_wait_for_what_cannot_come(
    answer: Response, option: dict[str, Any]
) -> None:
    """All that is left waits beyond the deadline: it returns at once."""
    async with running([answer], retry_max_interval=600.0, **option) as rig:
        await rig.track("ann-1")

        stats = await rig.finish(rig.engine.flush(5.0), 0.0)

        assert stats.pending == 1


async def test_a_flush_without_a_limit_waits_for_a_hold() -> None:
    """None means as long as it takes."""
    async with running([THROTTLED]) as rig:
        deliveries = await rig.track("ann-1")

        await rig.finish(rig.engine.flush(None), 31.0)

        assert statuses(deliveries) == ["delivered"]
        assert rig.clock.now() == pytest.approx(30.0)


async def test_a_cancelled_flush_stops_nothing() -> None:
    """Events go on without the one who waited."""
    async with running([DOWN]) as rig:
        deliveries = await rig.track("ann-1")
        flush = asyncio.ensure_future(rig.engine.flush(None))
        await rig.clock.settle()
        flush.cancel()
        await rig.advance(20.0)

        assert flush.cancelled()
        assert statuses(deliveries) == ["delivered"]


# Refusals ---------------------------------------------------------------------------


async def test_a_refused_destination_rejects_at_once_until_the_probe() -> None:
    """Waiting and new events get the server's answer; one request a minute."""
    async with running([INVALID_KEY, INVALID_KEY]) as rig:
        waiting = await rig.track("ann-1", "bob-1")
        await rig.finish(rig.engine.flush(10.0), 0.0)
        assert statuses(waiting) == ["rejected"] * 2

        new = await rig.track("eve-1")
        assert statuses(new) == ["rejected"]
        assert new[0].result is not None
        assert new[0].result.code == 400
        await rig.finish(rig.engine.flush(10.0), 0.0)
        assert len(rig.requests) == 1

        await rig.advance(60.0)
        probe = await rig.track("eve-2")
        await rig.advance(1.0)
        assert statuses(probe) == ["rejected"]
        await rig.advance(60.0)
        probe = await rig.track("eve-3")
        await rig.advance(1.0)
        assert statuses(probe) == ["delivered"]
        assert rig.requests[1:] == [["eve-2"], ["eve-3"]]


async def test_a_refusal_reaches_events_that_came_meanwhile() -> None:
    """An event accepted while the refused request was under way does not linger."""
    async with running([INVALID_KEY]) as rig:
        rig.transport.hang()
        await rig.track("ann-1")
        await rig.advance(0.5)
        late = await rig.track("bob-1")
        rig.transport.release()
        await rig.clock.settle()

        assert statuses(late) == ["rejected"]
        assert len(rig.requests) == 1


# Shutdown ---------------------------------------------------------------------------


async def test_a_shutdown_drains_and_closes() -> None:
    """All is delivered, the transport is closed, a second call changes nothing."""
    async with running() as rig:
        await rig.track(*[f"user{n}-1" for n in range(500)])

        stats = await rig.finish(rig.engine.shutdown(5.0), 5.0)

        assert (stats.delivered, stats.pending) == (500, 0)
        assert rig.transport.closed
        assert await rig.engine.shutdown(5.0) == stats
        assert tasks_named("flush") == tasks_named("request") == []


@pytest.mark.parametrize("answer", [DEAD, DOWN, Response(429)])
async def test_a_shutdown_against_a_dead_server_ends_in_time(answer: Response) -> None:
    """Every event is settled by the deadline: DROPPED shutdown."""
    results: list[DeliveryResult] = []
    async with running(then=answer, callback=results.append) as rig:
        deliveries = await rig.track(*[f"user{n}-1" for n in range(20)])

        stats = await rig.finish(rig.engine.shutdown(5.0), 5.0)

        assert statuses(deliveries) == ["shutdown"] * 20
        assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 20}
        assert stats.pending == stats.queue_bytes == 0
        assert len(results) == 20


async def test_what_was_cut_off_in_flight_says_so() -> None:
    """It may have been delivered, and nobody can know."""
    async with running() as rig:
        rig.transport.hang()
        deliveries = await rig.track("ann-1")
        await rig.advance(1.0)
        deliveries += await rig.track("ann-2")

        await rig.finish(rig.engine.shutdown(5.0), 5.0)

        messages = [d.result.message for d in deliveries if d.result]
        assert statuses(deliveries) == ["shutdown"] * 2
        assert ["may have been delivered" in message for message in messages] == [
            True,
            False,
        ]


async def test_a_shutdown_gives_the_held_one_last_request() -> None:
    """Throttled and backing-off identities go once more before the end."""
    async with running([THROTTLED]) as rig:
        deliveries = await rig.track("ann-1", "bob-1")
        await rig.advance(1.0)
        assert statuses(deliveries) == ["pending", "delivered"]

        await rig.finish(rig.engine.shutdown(5.0), 0.0)

        assert statuses(deliveries) == ["delivered", "delivered"]
        assert rig.requests[-1] == ["ann-1"]


async def test_a_shutdown_with_a_refused_key_returns_at_once() -> None:
    """There is nothing to wait for."""
    async with running([INVALID_KEY]) as rig:
        await rig.track("ann-1")
        stats = await rig.finish(rig.engine.shutdown(5.0), 0.0)

        assert (stats.rejected, stats.pending) == (1, 0)


async def test_those_who_wait_for_room_are_dropped_by_a_shutdown() -> None:
    """They were never in the queue: DROPPED closed."""
    async with running(max_storage_capacity=1, overflow_timeout=60.0) as rig:
        rig.transport.hang()
        await rig.track("ann-1")
        waiting = asyncio.ensure_future(rig.track("bob-1"))
        await rig.advance(0.5)
        await rig.finish(rig.engine.shutdown(1.0), 1.0)

        assert statuses(await waiting) == ["closed"]


# Faults of ours and of others -------------------------------------------------------


async def test_a_killed_flush_task_comes_back() -> None:
    """Somebody cancelled every task of the loop: events still go."""
    async with running(flush_queue_size=1) as rig:
        (task,) = tasks_named("flush")
        task.cancel()
        await rig.clock.settle()
        deliveries = await rig.track("ann-1")
        await rig.advance(0.2)

        assert task.cancelled()
        assert statuses(deliveries) == ["delivered"]


async def test_a_killed_sender_costs_a_second_request() -> None:
    """Its batch is queued again and delivered under the same insert_id."""
    async with running(flush_queue_size=1) as rig:
        rig.transport.hang()
        deliveries = await rig.track("ann-1")
        await rig.clock.settle()
        (task,) = tasks_named("request")
        task.cancel()
        rig.transport.release()
        await rig.advance(1.0)

        assert statuses(deliveries) == ["delivered"]
        assert rig.requests == [["ann-1"], ["ann-1"]]


class FaultyEndpoint(AmplitudeEndpoint):
    """Dies of one user's events."""

    def frame(self, bodies: Sequence[bytes], wall: float) -> bytes:
        """Raise where "bad" is among the events."""
        if any(b'"user_id": "bad"' in body for body in bodies):
            raise ZeroDivisionError
        return super().frame(bodies, wall)


async def test_a_batch_that_kills_its_sender_is_given_up_after_three_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """DROPPED internal, logged once with its traceback; all others go on."""
    async with running(make_endpoint=FaultyEndpoint, flush_queue_size=1) as rig:
        bad = await rig.track("bad-1")
        await rig.clock.settle()
        good = await rig.track("ann-1")
        await rig.advance(5.0)

        assert statuses(bad + good) == ["internal", "delivered"]
        assert rig.requests == [["ann-1"]]
    assert caplog.text.count("Traceback") == 1


def explode(_: bytes) -> Response:
    """Raise what no transport should."""
    raise ZeroDivisionError


async def test_a_transport_that_raises_is_survived() -> None:
    """A fault below the seam is treated like any fault of ours."""
    async with running([explode]) as rig:
        deliveries = await rig.track("ann-1")
        await rig.advance(5.0)

        assert statuses(deliveries) == ["delivered"]


async def test_tasks_start_in_an_empty_context() -> None:
    """A request's trace must not leak into everybody's delivery."""
    trace = contextvars.ContextVar("trace", default="none")
    seen: list[str] = []

    def answer(_: bytes) -> Response:
        seen.append(trace.get())
        return OK

    trace.set("of the host's request")
    async with running(
        [answer], callback=lambda _: seen.append(trace.get()), flush_queue_size=1
    ) as rig:
        await rig.track("ann-1")
        await rig.clock.settle()

    assert seen == ["none", "none"]


async def test_a_purge_gives_up_what_waits_and_spares_what_goes() -> None:
    """Events of one user are DROPPED purged; the request under way goes on."""
    async with running(flush_queue_size=2) as rig:
        rig.transport.hang()
        flying = await rig.track("ann-1", "bob-1")
        await rig.clock.settle()
        waiting = await rig.track("ann-2", "bob-2")

        assert await rig.engine.purge("ann") == 1
        rig.transport.release()
        await rig.finish(rig.engine.flush(5.0), 1.0)

        assert statuses(flying + waiting) == [
            "delivered",
            "delivered",
            "purged",
            "delivered",
        ]


def test_a_second_loop_takes_over_where_the_first_was_closed() -> None:
    """Waiting events and the one under way are sent from the new loop."""
    rig = Rig(flush_queue_size=1)
    rig.transport.hang()

    async def first() -> list[Delivery]:
        await rig.engine.start()
        deliveries = await rig.track("ann-1")
        await rig.clock.settle()
        return deliveries + await rig.track("ann-2")

    async def second() -> None:
        rig.engine.rebind()
        rig.transport.release()
        await rig.engine.start()
        await rig.finish(rig.engine.flush(60.0), 60.0)
        await rig.engine.shutdown(1.0)

    deliveries = asyncio.run(first())
    rig.check()
    asyncio.run(second())

    assert statuses(deliveries) == ["delivered", "delivered"]
    assert rig.requests[0] == ["ann-1"]
    assert rig.transport.abandoned == 1


def test_results_wait_for_the_callback_on_the_next_loop() -> None:
    """What the first loop did not hand over is handed over by the second."""
    seen: list[str] = []

    async def callback(result: DeliveryResult) -> None:
        seen.append(result.insert_id)
        await asyncio.sleep(0 if len(seen) > 1 else 3_600)

    rig = Rig(flush_queue_size=2, callback=callback)

    async def first() -> None:
        await rig.engine.start()
        await rig.track("ann-1", "bob-1")
        await rig.clock.settle()

    async def second() -> None:
        rig.engine.rebind()
        await rig.engine.start()
        await rig.clock.settle()
        await rig.engine.shutdown(1.0)

    asyncio.run(first())
    asyncio.run(second())

    assert seen == ["ann-1", "bob-1"]


async def test_the_log_has_a_line_per_batch_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """DEBUG tells of each upload; neither key nor event is ever in it."""
    with caplog.at_level(logging.DEBUG, "amplitude_async"):
        async with running([DOWN, INVALID_KEY], flush_queue_size=1) as rig:
            await rig.track("ann-1")
            await rig.advance(20.0)

    assert caplog.text.count("upload of 1 events") == len(rig.requests) == 2
    assert KEY not in caplog.text
    assert "click" not in caplog.text


# A storage that survives ------------------------------------------------------------


class ShelfStorage(Storage):
    """A durable storage on a dict: what is on the shelf outlives the engine."""

    durable = True

    def __init__(self, shelf: list[Record] | None = None) -> None:
        self.shelf = {r.id: r for r in shelf or []}

    async def open(self, _: str, allot: Callable[[int], int]) -> int:
        """Take over what lies on the shelf under new ids."""
        first = allot(len(self.shelf))
        old = list(self.shelf.values())
        self.shelf = {first + i: r._replace(id=first + i) for i, r in enumerate(old)}
        return len(old)

    async def append(self, records: Sequence[Record]) -> None:
        """Put records on the shelf."""
        self.shelf |= {r.id: r for r in records}

    async def fetch(self, after: int, limit: int, _: int) -> list[Record]:
        """Read on."""
        return [r for n, r in sorted(self.shelf.items()) if n > after][:limit]

    async def settle(self, ids: Sequence[int]) -> None:
        """Take records off the shelf."""
        for number in ids:
            self.shelf.pop(number, None)

    async def size(self) -> int:
        """Count the records."""
        return len(self.shelf)

    async def close(self) -> None:
        """Keep the shelf."""


async def test_what_a_spool_brings_is_delivered_and_counted_apart() -> None:
    """Recovered events have no handle; new ones beside them keep theirs."""
    old = [record(f"old-{n}")._replace(id=n) for n in range(1, 4)]
    storage = ShelfStorage(old)
    async with running(storage=storage) as rig:
        deliveries = await rig.track("ann-1", "bob-1")
        await rig.finish(rig.engine.flush(5.0), 5.0)

        stats = rig.engine.stats
        assert (stats.recovered, stats.accepted, stats.delivered) == (3, 2, 5)
        assert statuses(deliveries) == ["delivered", "delivered"]
        assert storage.shelf == {}


async def test_a_durable_storage_keeps_what_a_shutdown_could_not_send() -> None:
    """STORED, on the shelf, and taken over by the next engine."""
    storage = ShelfStorage()
    async with running(storage=storage, then=DEAD) as rig:
        deliveries = await rig.track("ann-1", "bob-1")
        stats = await rig.finish(rig.engine.shutdown(5.0), 5.0)
        assert statuses(deliveries) == ["stored", "stored"]
        assert (stats.stored, stats.pending) == (2, 0)

    async with running(storage=storage) as rig:
        await rig.finish(rig.engine.flush(5.0), 5.0)
        assert rig.engine.stats.recovered == rig.engine.stats.delivered == 2
        assert storage.shelf == {}


async def test_a_refusal_never_consumes_a_spool() -> None:
    """Durable events stay pending while the key is wrong."""
    storage = ShelfStorage()
    async with running(storage=storage, then=INVALID_KEY) as rig:
        deliveries = await rig.track("ann-1", "bob-1")
        stats = await rig.finish(rig.engine.flush(10.0), 0.0)
        assert stats.pending == 2
        await rig.advance(600.0)

        assert statuses(deliveries) == ["pending", "pending"]
        assert len(storage.shelf) == 2
        assert len(rig.requests) <= 12


async def test_a_durable_storage_takes_what_memory_cannot() -> None:
    """Beyond the capacity events lie on the shelf alone, and go later, in order."""
    storage = ShelfStorage()
    async with running(storage=storage, max_storage_capacity=4) as rig:
        rig.transport.hang()
        deliveries = await rig.track(*[f"ann-{n}" for n in range(20)])
        await rig.advance(1.0)
        assert rig.engine.stats.pending == 20
        rig.transport.release()
        await rig.finish(rig.engine.flush(60.0), 60.0)

        assert {d.result.status for d in deliveries if d.result} == {
            DeliveryStatus.DELIVERED
        }
        sent = [name for names in rig.requests for name in names]
        assert sent == [f"ann-{n}" for n in range(20)]
