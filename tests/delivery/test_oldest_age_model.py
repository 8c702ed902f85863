"""The oldest age against a naive count, whatever happens to events and to clocks."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amplitude_async import Delivery, Overflow
from amplitude_async.delivery.endpoint import Response
from amplitude_async.exceptions import QueueFullError
from amplitude_async.storage import SQLiteStorage
from tests.delivery.test_oldest_age import DAY, THROTTLED, Rig

__all__: list[str] = []

ANSWERS = {
    "takes": Response(200),
    "is busy": Response(503),
    "breaks": Response(500),
    "throttles": Response(429, THROTTLED),
    "bisects": Response(400),
    "halves": Response(413),
    "refuses": Response(401),
}
STEPS = st.one_of(
    st.tuples(st.just("track"), st.integers(0, 4)),
    st.tuples(st.just("answer"), st.sampled_from(sorted(ANSWERS))),
    st.tuples(st.just("advance"), st.sampled_from([0.05, 1.0, 7.0, 40.0, 400.0])),
    st.tuples(st.just("set"), st.sampled_from([DAY, -DAY, 0.5, -3_600.0])),
    st.tuples(st.just("purge"), st.sampled_from([None, "user-0", "user-1"])),
)
WAIT = 0.02


class Account:
    """Each event that was accepted, and when."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.waits: list[asyncio.Task[None]] = []
        self._accepted: list[tuple[float, Delivery]] = []

    async def track(self, user: int) -> None:
        """Accept an event, or leave somebody waiting for room."""
        task = asyncio.create_task(self._track(user))
        await asyncio.wait([task], timeout=WAIT)
        self.waits = [one for one in [*self.waits, task] if not one.done()]

    async def _track(self, user: int) -> None:
        try:
            delivery = await self.rig.track(user)
        except QueueFullError:
            return
        self._accepted.append((self.rig.clock.now(), delivery))

    def check(self) -> None:
        """Compare; whoever waits for room may be accepted at any moment."""
        stats = self.rig.engine.stats
        assert (stats.oldest_age is None) == (stats.pending == 0)
        self.waits = [one for one in self.waits if not one.done()]
        if self.waits:
            return
        left = [moment for moment, delivery in self._accepted if not delivery.done]
        assert len(left) == stats.pending
        if left:
            naive = self.rig.clock.now() - min(left)
            assert stats.oldest_age == pytest.approx(naive, abs=2 * WAIT)


async def live(rig: Rig, steps: list[tuple[str, Any]]) -> None:
    """Let all of it happen, and compare after each step."""
    await rig.engine.start()
    account = Account(rig)
    for name, value in steps:
        if name == "track":
            await account.track(value)
        elif name == "answer":
            rig.answer = ANSWERS[value]
        elif name == "advance":
            await rig.clock.advance(value)
        elif name == "set":
            rig.clock.offset += value
        else:
            await rig.engine.purge(value)
        for _ in range(3):
            await asyncio.sleep(0)
        account.check()
    while any(not one.done() for one in account.waits):
        await rig.clock.advance(WAIT)
    await rig.engine.shutdown(0.0)
    assert rig.oldest is None


@pytest.mark.parametrize("spooled", [False, True])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    steps=st.lists(STEPS, max_size=40),
    policy=st.sampled_from(list(Overflow)),
    capacity=st.sampled_from([3, 6, 50]),
)
def test_the_oldest_age_is_that_of_a_naive_count(
    steps: list[tuple[str, Any]],
    policy: Overflow,
    capacity: int,
    *,
    spooled: bool,
) -> None:
    """Under each policy; through spills, splits, throttles, purges and jumps."""

    async def lived(storage: SQLiteStorage | None) -> None:
        rig = Rig(
            storage,
            overflow=policy,
            overflow_timeout=WAIT,
            max_storage_capacity=capacity,
            flush_queue_size=3,
            max_batch_size=5,
            max_event_age=900.0,
        )
        await live(rig, steps)

    if not spooled:
        asyncio.run(lived(None))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(lived(SQLiteStorage(Path(folder))))
