"""How old the oldest undecided event is, wherever it waits."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    Config,
    Delivery,
    DestinationPlugin,
    Event,
    Overflow,
)
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.handle import Ledger
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.storage import Record, SQLiteStorage, Storage
from amplitude_async.testing import ScriptedTransport
from tests.conftest import engine_of
from tests.delivery.left_behind import AdjustedClock, LeftBehind

__all__: list[str] = []

DAY = 86_400.0
THROTTLED = (
    b'{"code":429,"error":"slow","throttled_users":{"user-0":30},'
    b'"throttled_devices":{},"throttled_events":[0]}'
)


class Rig:
    """An engine whose server is down, and a wall clock that can be set."""

    def __init__(self, storage: Storage | None = None, **options: Any) -> None:
        self.clock = AdjustedClock()
        self.answer = Response(503)
        self.transport = ScriptedTransport(then=lambda _: self.answer, clock=self.clock)
        config = Config(api_key="key", server_url="http://server.invalid/", **options)
        self.engine = engine_of(config, self.transport, self.clock, storage=storage)

    async def track(self, user: int) -> Delivery:
        """Accept an event of a user."""
        name = f"user-{user}"
        body = json.dumps({"user_id": name}).encode()
        return await self.engine.intake.accept(
            Record(0, body, name, name, None, name, self.clock.wall())
        )

    @property
    def oldest(self) -> float | None:
        """What the account says."""
        return self.engine.stats.oldest_age


async def test_nothing_waits_and_nothing_is_old() -> None:
    """Before the first event and after the last there is no age."""
    rig = Rig()
    await rig.engine.start()
    assert rig.oldest is None
    rig.answer = Response(200)
    await rig.track(0)
    assert rig.oldest == 0.0
    await rig.clock.advance(60.0)
    assert rig.oldest is None
    await rig.engine.shutdown(0.0)


async def test_the_age_is_that_of_the_oldest_and_grows() -> None:
    """Also while it backs off, and when others came long after it."""
    rig = Rig()
    await rig.engine.start()
    await rig.track(0)
    for user in range(1, 600):
        await rig.clock.advance(1.0)
        await rig.track(user)
    assert rig.oldest == pytest.approx(599.0)
    await rig.engine.shutdown(0.0)
    assert rig.oldest is None


async def test_an_event_in_the_middle_of_its_neighbours_is_found() -> None:
    """Those before it and behind it were decided: its own time counts."""
    rig = Rig(flush_queue_size=1)
    await rig.engine.start()
    rig.answer = Response(200)
    for user in range(1, 100):
        await rig.track(user)
        await rig.clock.advance(1.0)
    assert rig.oldest is None
    rig.answer = Response(503)
    await rig.track(0)
    await rig.clock.advance(7.0)
    assert rig.oldest == pytest.approx(7.0)
    await rig.engine.shutdown(0.0)


async def test_a_wall_clock_that_jumps_changes_no_age() -> None:
    """Days that only the wall clock has seen are none, forward or back."""
    rig = Rig()
    await rig.engine.start()
    await rig.track(0)
    await rig.clock.advance(5.0)
    for offset in (2 * DAY, -2 * DAY, 0.0):
        rig.clock.offset = offset
        await rig.track(1)
        await rig.clock.advance(5.0)
    assert rig.oldest == pytest.approx(20.0)
    await rig.engine.shutdown(0.0)


async def test_the_oldest_may_be_shed_and_purged() -> None:
    """What is given up is no more, and the next one is the oldest."""
    rig = Rig(overflow=Overflow.DROP_OLDEST, max_storage_capacity=3)
    await rig.engine.start()
    for user in range(5):
        await rig.track(user)
        await rig.clock.advance(1.0)
    stats = rig.engine.stats
    assert stats.pending == 3
    assert stats.oldest_age == pytest.approx(3.0)
    await rig.engine.purge("user-2")
    assert rig.oldest == pytest.approx(2.0)
    await rig.engine.purge(None)
    assert rig.oldest is None
    await rig.engine.shutdown(0.0)


async def test_a_held_event_is_as_old_as_any() -> None:
    """A throttled identity's events wait aside, and count."""
    rig = Rig()
    await rig.engine.start()
    rig.answer = Response(429, THROTTLED)
    await rig.track(0)
    await rig.clock.advance(20.0)
    assert rig.engine.stats.held == 1
    rig.answer = Response(200)
    await rig.track(1)
    await rig.clock.advance(5.0)
    assert rig.oldest == pytest.approx(25.0)
    await rig.engine.shutdown(0.0)


@pytest.mark.parametrize("offset", [0.0, 2 * DAY, -2 * DAY])
async def test_a_recovered_event_is_as_old_as_it_says(offset: float) -> None:
    """By the wall clock as it was when the event was taken over."""
    storage = LeftBehind([600.0, 30.0])
    rig = Rig(storage)
    rig.clock.offset = offset
    storage.wall = rig.clock.wall()
    await rig.engine.start()
    await rig.clock.advance(1.0)
    assert rig.oldest == pytest.approx(601.0)
    rig.clock.offset += DAY
    await rig.clock.advance(10.0)
    assert rig.oldest == pytest.approx(611.0)
    await rig.engine.shutdown(0.0)


async def test_a_storage_that_tells_nothing_has_events_since_it_was_opened() -> None:
    """Nobody knows more, and that much is sure."""
    storage = LeftBehind([600.0], tells=False)
    rig = Rig(storage)
    storage.wall = rig.clock.wall()
    await rig.engine.start()
    await rig.clock.advance(12.0)
    assert rig.oldest == pytest.approx(12.0)
    await rig.engine.shutdown(0.0)


async def test_what_is_in_the_spool_only_counts(tmp_path: Path) -> None:
    """Where memory is full, the oldest unread event is known as well."""
    storage = SQLiteStorage(tmp_path)
    rig = Rig(storage, max_storage_capacity=4)
    await rig.engine.start()
    for user in range(12):
        await rig.track(user)
        await rig.clock.advance(1.0)
    stats = rig.engine.stats
    assert stats.pending == 12
    assert (stats.queue_events, stats.spool_events) == (4, 12)
    assert stats.oldest_age == pytest.approx(12.0)
    await rig.engine.purge("user-0")
    assert rig.engine.stats.spool_events == 11
    await rig.engine.shutdown(0.0)
    assert rig.engine.stats.spool_events == 0


async def test_memory_alone_has_no_spool() -> None:
    """What is in memory only is in no spool."""
    rig = Rig()
    await rig.engine.start()
    await rig.track(0)
    assert (rig.engine.stats.queue_events, rig.engine.stats.spool_events) == (1, 0)
    await rig.engine.shutdown(0.0)


class Stuck(DestinationPlugin):
    """A destination that takes nothing until it is told to."""

    name = "stuck"

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def execute(self, _: Event) -> None:
        """Wait."""
        await self.free.wait()


async def test_a_plain_destination_tells_its_oldest(
    connect: Callable[..., Amplitude],
) -> None:
    """The event that is with the plugin is the oldest of its queue."""
    plugin = Stuck()
    async with connect(plugins=[plugin]) as client:
        await client.track("Seen", user_id="user-1")
        await client.track("Seen", user_id="user-1")
        await asyncio.sleep(0.02)
        stats = client.stats.destinations["stuck"]
        assert stats.queue_events == 2
        assert stats.oldest_age is not None
        assert stats.oldest_age >= 0.02
        plugin.free.set()
        await client.flush()
        assert client.stats.destinations["stuck"].oldest_age is None


def test_another_thread_may_ask_while_pages_come_and_go() -> None:
    """As a thread that serves metrics does."""
    ledger, over, faults = Ledger(), threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            try:
                assert ledger.undecided >= 0
                ledger.oldest_age(0.0)
            except RuntimeError as fault:
                faults.append(fault)
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    asking.start()
    numbers = range(0, 256 * 2_000, 256)
    for number in numbers:
        ledger.enter(number, 0.0)
    for number in numbers:
        ledger.settle(number, Outcome.rejected("bad"))
    over.set()
    asking.join()
    sys.setswitchinterval(before)
    assert faults == []


def test_an_append_that_ends_late_is_found_in_its_place() -> None:
    """Its page is opened behind that of a later event, and comes before it."""
    ledger = Ledger()
    for number, came in ((256, 1.0), (255, 1.5), (257, 100.0)):
        ledger.enter(number, came)
    ledger.settle(256, Outcome.rejected("bad"))

    assert ledger.oldest_age(200.0) == 198.5
    ledger.settle(255, Outcome.rejected("bad"))
    assert ledger.oldest_age(200.0) == 100.0
    ledger.settle(257, Outcome.rejected("bad"))
    assert ledger.oldest_age(200.0) is None
    assert ledger.undecided == 0
