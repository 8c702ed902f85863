"""Bursts, slow callbacks and full queues: who is told, who goes, and in which order."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from amplitude_async import Config, DeliveryResult, DropReason, Overflow
from amplitude_async.storage import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

Callback = Callable[[DeliveryResult], object]


class Rig:
    """An engine with a callback, in virtual time."""

    def __init__(self, callback: Callback, **options: Any) -> None:
        self.clock = FakeClock()
        self.transport = ScriptedTransport(clock=self.clock)
        config = Config(
            api_key="key",
            server_url="http://server.invalid/",
            callback=callback,
            **options,
        )
        self.engine = engine_of(config, self.transport, self.clock)

    async def finish(self, work: Awaitable[Any]) -> Any:
        """Let time pass until something is done."""
        task = asyncio.ensure_future(work)
        await self.clock.settle()
        for _ in range(10_000):
            if task.done():
                return task.result()
            await self.clock.advance(self.clock.next_timer or 0.01)
        pytest.fail("it does not end")


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Count the calls of Python functions."""
    calls = [0]

    def note(_frame: FrameType, kind: str, _argument: object) -> None:
        calls[0] += kind == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def record(number: int, user: str | None = None) -> Record:
    """Return an encoded event."""
    user = user or f"user-{number}"
    wall = FakeClock().wall()
    return Record(0, b'{"e":1}', user, user, None, str(number), wall)


async def test_every_event_of_a_burst_has_its_callback() -> None:
    """However far the callbacks lag behind the server, none is left out."""
    heard: list[str] = []
    rig = Rig(lambda result: heard.append(result.insert_id), max_storage_capacity=500)
    await rig.engine.start()
    for number in range(20_000):
        await rig.engine.intake.accept(record(number))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await rig.finish(rig.engine.shutdown(60.0))

    assert len(heard) == len(set(heard)) == 20_000
    assert rig.engine.stats.balanced


async def test_a_request_waits_until_its_results_have_places() -> None:
    """A slow callback holds up sending, not the results of what was sent."""
    gate = asyncio.Event()
    heard: list[str] = []

    async def slow(result: DeliveryResult) -> None:
        await gate.wait()
        heard.append(result.insert_id)

    rig = Rig(slow, max_storage_capacity=100, overflow_timeout=600.0)
    await rig.engine.start()
    verbs = [
        asyncio.ensure_future(rig.engine.intake.accept(record(number)))
        for number in range(1_200)
    ]
    await rig.clock.advance(0.5)
    # One batch is with the callback or before it; the next one waits.
    assert rig.engine.stats.delivered == 100
    gate.set()
    await rig.finish(asyncio.gather(*verbs))
    await rig.finish(rig.engine.shutdown(60.0))

    stats = rig.engine.stats
    assert len(heard) == len(set(heard)) == stats.accepted == 1_200


async def test_only_a_synchronous_burst_goes_untold(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What `track_nowait` sheds beyond the callback's queue is counted and logged."""
    heard: list[str] = []
    rig = Rig(
        lambda result: heard.append(result.insert_id),
        max_storage_capacity=10,
        overflow=Overflow.DROP_NEWEST,
    )
    await rig.engine.start()
    for number in range(100):
        rig.engine.intake.offer_nowait(record(number))
    assert "a result came without its call" in caplog.text
    await rig.finish(rig.engine.shutdown(10.0))

    stats = rig.engine.stats
    assert (stats.delivered, stats.dropped) == (10, 90)
    assert len(heard) == 20


async def test_the_oldest_go_by_acceptance_wherever_they_wait() -> None:
    """In flight, parked, queued: the oldest that is not under way makes room."""
    lost: list[str] = []

    def hear(result: DeliveryResult) -> None:
        if result.reason is DropReason.OVERFLOW:
            lost.append(result.insert_id)

    rig = Rig(hear, max_storage_capacity=1_000, overflow=Overflow.DROP_OLDEST)
    await rig.engine.start()
    rig.transport.hang()
    for number in range(1_050):
        # Three users: most of what waits is parked behind what is in flight.
        await rig.engine.intake.accept(record(number, f"user-{number % 3}"))
        if number == 250:
            await rig.clock.advance(0.2)
    in_flight = sum(len(r.events) for r in rig.transport.requests)
    await rig.clock.settle()

    oldest = [str(number) for number in range(in_flight, in_flight + 50)]
    assert sorted(lost, key=int) == oldest
    rig.transport.release()
    await rig.finish(rig.engine.shutdown(10.0))


async def test_making_room_costs_the_same_however_many_wait() -> None:
    """Work per event that is shed does not grow with the queue."""
    costs = []
    for capacity in (1_000, 20_000):
        rig = Rig(
            lambda _: None,
            max_storage_capacity=capacity,
            overflow=Overflow.DROP_OLDEST,
        )
        await rig.engine.start()
        rig.transport.hang()
        for number in range(capacity):
            await rig.engine.intake.accept(record(number))
        with counted_calls() as calls:
            for number in range(capacity):
                await rig.engine.intake.accept(record(capacity + number))
        costs.append(calls[0] / capacity)
        rig.transport.release()
        await rig.finish(rig.engine.shutdown(0.0))

    assert costs[1] < 1.5 * costs[0]
