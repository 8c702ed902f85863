"""Ages are counted within a process on a clock that nobody can set."""

import json
from typing import Any

from amplitude_async import Config
from amplitude_async.delivery.ages import Ages
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.outcome import DropReason
from amplitude_async.storage import Record, Storage
from amplitude_async.testing import ScriptedTransport
from tests.conftest import engine_of
from tests.delivery.left_behind import AdjustedClock, LeftBehind

__all__: list[str] = []

DAY = 86_400.0


class Rig:
    """An engine whose server is down, and a wall clock that can be set."""

    def __init__(self, storage: Storage | None = None, **options: Any) -> None:
        self.clock = AdjustedClock()
        self.transport = ScriptedTransport(then=Response(503), clock=self.clock)
        config = Config(api_key="key", server_url="http://server.invalid/", **options)
        self.engine = engine_of(config, self.transport, self.clock, storage=storage)

    async def track(self, count: int) -> None:
        """Accept events of as many users."""
        for number in range(count):
            user = f"user-{number}"
            body = json.dumps({"user_id": user}).encode()
            await self.engine.intake.accept(
                Record(0, body, user, user, None, user, self.clock.wall())
            )


async def test_a_wall_clock_that_jumps_forward_expires_nobody() -> None:
    """A day that only the wall clock has seen is no age."""
    rig = Rig()
    await rig.engine.start()
    await rig.track(100)
    await rig.clock.advance(5.0)
    rig.clock.offset = 2 * DAY
    await rig.clock.advance(60.0)
    assert rig.engine.stats.pending == 100

    await rig.engine.shutdown(0.0)


async def test_what_comes_after_a_jump_ages_like_everything_else() -> None:
    """Neither a jump forward nor one back makes an event live longer or shorter."""
    for jump in (-3 * DAY, 3 * DAY):
        rig = Rig(max_event_age=600.0)
        await rig.engine.start()
        await rig.track(1)
        await rig.clock.advance(1.0)
        rig.clock.offset = jump
        await rig.track(10)
        await rig.clock.advance(500.0)
        assert rig.engine.stats.pending == 11

        await rig.clock.advance(200.0)
        assert rig.engine.stats.dropped_by_reason == {DropReason.EXPIRED: 11}
        await rig.engine.shutdown(0.0)


async def test_a_clock_that_jumps_there_and_back_ages_nobody() -> None:
    """Not even where nobody looked at it between the two jumps."""
    rig = Rig(max_event_age=600.0)
    await rig.engine.start()
    await rig.track(1)
    await rig.clock.advance(0.02)
    for jump in (-30 * DAY, 300 * DAY):
        rig.clock.offset = jump
        await rig.track(1)
    rig.clock.offset = 0.0
    await rig.track(1)

    await rig.clock.advance(500.0)
    assert rig.engine.stats.pending == 4
    await rig.clock.advance(200.0)
    assert rig.engine.stats.dropped_by_reason == {DropReason.EXPIRED: 4}
    await rig.engine.shutdown(0.0)


async def test_an_old_event_behind_a_young_one_expires_too() -> None:
    """Every event's own age counts, and not that of the one at the head."""
    left = LeftBehind([3_600.0, 9 * DAY, 0.0], tells=False)
    rig = Rig(left, flush_interval=1.0)
    left.wall = rig.clock.wall()
    await rig.engine.start()
    await rig.clock.advance(120.0)

    assert rig.engine.stats.dropped_by_reason == {DropReason.EXPIRED: 1}
    sent = {body for request in rig.transport.requests for body in [request.body]}
    assert all(body.count(b'{"e":1}') == 2 for body in sent)
    await rig.engine.shutdown(0.0)


def test_small_corrections_are_no_jumps() -> None:
    """A clock that is kept right by a network's time is left alone."""
    clock = AdjustedClock()
    ages = Ages(clock)
    clock.offset = 0.4
    ages.notice(1)
    record = Record(1, b"", "a", None, None, "1", clock.wall())

    assert ages.put_right([record]) == [record]
    assert repr(ages) == "<Ages 0 jumps>"
