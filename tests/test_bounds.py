"""What is done to a full queue costs as much for each event, and goes in small steps.

The twin of ``benchmarks/bounds.py`` for machines that are busy: calls are counted where
that one has a clock. A pass over all that waits which calls nothing is not seen here.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

import amplitude_async
from amplitude_async import (
    Amplitude,
    Config,
    DestinationPlugin,
    DropReason,
    Overflow,
)
from amplitude_async.client.plain_destination import PlainDestination
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.transport import Transport
from amplitude_async.storage import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

pytestmark = pytest.mark.long

PACKAGE = str(Path(amplitude_async.__file__).parent)
TESTING = str(Path(PACKAGE) / "testing")

FEW = 1_000
MANY = 20_000
MOST_RATIO = 1.3
# A step may form some full requests, understand the answer to one, or write down a
# share. What went through all 20,000 events would make as many calls at the least.
MOST_MORE_IN_A_STEP = 4_000
SLICE = 200


class Watch:
    """Counts the calls of our own functions: all of them, and in the longest step."""

    def __init__(self) -> None:
        self.total = 0
        self.longest = 0
        self._in_step = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count for as long as the block takes."""
        plain, profile = asyncio.Handle._run, sys.getprofile()  # noqa: SLF001

        def counted(handle: asyncio.Handle) -> None:
            self._end_step()
            plain(handle)
            self._end_step()

        def note(frame: FrameType, kind: str, _argument: object) -> None:
            if kind == "call":
                name = frame.f_code.co_filename
                if name.startswith(PACKAGE) and not name.startswith(TESTING):
                    self._in_step += 1

        asyncio.Handle._run = counted  # type: ignore[assignment,method-assign] # noqa: SLF001
        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(profile)
            asyncio.Handle._run = plain  # type: ignore[method-assign] # noqa: SLF001
            self._end_step()

    def _end_step(self) -> None:
        self.total += self._in_step
        self.longest = max(self.longest, self._in_step)
        self._in_step = 0


class Offline(Amplitude):
    """A client whose requests hang."""

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        transport = ScriptedTransport()
        transport.hang()
        return transport


def throttling(body: bytes) -> Response:
    """Throttle every event of a request."""
    listed = list(range(body.count(b'"e"')))
    return Response(429, body=json.dumps({"throttled_events": listed}).encode())


def record(number: int, wall: float) -> Record:
    """Return an encoded event of a user of its own."""
    user = f"user-{number}"
    return Record(0, b'{"e":1}', user, user, None, str(number), wall)


class Rig:
    """An engine full of events, in virtual time, before a server that hangs."""

    def __init__(self, events: int, **options: Any) -> None:
        self.events = events
        self.clock = FakeClock()
        self.transport = ScriptedTransport(
            clock=self.clock, then=options.pop("then", None)
        )
        config = Config(
            api_key="key",
            server_url="http://server.invalid/",
            max_storage_capacity=events,
            **options,
        )
        self.engine = engine_of(config, self.transport, self.clock)

    async def fill(self) -> None:
        """Let all requests that may be out hang, and all else wait."""
        self.transport.hang()
        await self.engine.start()
        await self.offer(self.events)

    async def offer(self, events: int) -> None:
        """Accept so many events."""
        for number in range(events):
            self.engine.intake.offer_nowait(record(number, self.clock.wall()))
            if number % SLICE == 0:
                await asyncio.sleep(0)

    async def finish(self, work: Awaitable[Any]) -> Any:
        """Let time pass until something is done."""
        task = asyncio.ensure_future(work)
        await self.clock.settle()
        for _ in range(10_000):
            if task.done():
                return task.result()
            await self.clock.advance(self.clock.next_timer or 0.01)
        pytest.fail("it does not end")


Scene = Callable[[int, Watch], Awaitable[int]]
"""Does something where so many events wait, and says how many it was done to."""


async def track(events: int, watch: Watch) -> int:
    """Track beside all that waits."""
    tracked = 300
    async with Offline("key", max_storage_capacity=events) as client:
        for number in range(events - tracked):
            client.track_nowait("Bounds", user_id=f"user-{number}")
        await asyncio.sleep(0)
        with watch.on():
            for number in range(tracked):
                await client.track("Bounds", user_id=f"visitor-{number}")
        await client.shutdown(0.0)
    return tracked


async def flush(events: int, watch: Watch) -> int:
    """Let many handlers wait for all that waits, which goes out."""
    rig = Rig(events)
    await rig.fill()
    handlers = [
        asyncio.ensure_future(rig.engine.flush(5.0)) for _ in range(events // 5)
    ]
    await asyncio.sleep(0)
    with watch.on():
        rig.transport.release()
        await rig.finish(asyncio.gather(*handlers))
    assert rig.engine.stats.delivered == events
    return events


async def flush_in_vain(events: int, watch: Watch) -> int:
    """Let many handlers wait for what does not come."""
    rig = Rig(events)
    await rig.fill()
    handlers = [
        asyncio.ensure_future(rig.engine.flush(0.5)) for _ in range(events // 20)
    ]
    with watch.on():
        await rig.finish(asyncio.gather(*handlers))
    assert rig.engine.stats.pending == events
    return events


async def purge(events: int, watch: Watch) -> int:
    """Give up all that waits."""
    rig = Rig(events)
    await rig.fill()
    with watch.on():
        purged: int = await rig.engine.purge(None)
    assert rig.engine.stats.pending == events - purged
    return purged


async def shutdown(events: int, watch: Watch) -> int:
    """Shut down with all that waits."""
    rig = Rig(events)
    await rig.fill()
    with watch.on():
        await rig.finish(rig.engine.shutdown(0.1))
    assert rig.engine.stats.dropped == events
    return events


async def shed_oldest(events: int, watch: Watch) -> int:
    """Make room for newer events, again and again."""
    rig = Rig(events, overflow=Overflow.DROP_OLDEST)
    await rig.fill()
    with watch.on():
        await rig.offer(events // 4)
    assert rig.engine.stats.dropped == events // 4
    return events // 4


async def expire(events: int, watch: Watch) -> int:
    """Let all that waits grow too old."""
    rig = Rig(events, max_event_age=0.5, max_in_flight=1, max_batch_size=100)
    await rig.fill()
    await rig.clock.advance(0.6)
    with watch.on():
        rig.transport.release()
        await rig.finish(rig.engine.flush(5.0))
    stats = rig.engine.stats
    assert stats.pending == 0
    assert stats.dropped_by_reason[DropReason.EXPIRED] == stats.dropped
    return stats.dropped


async def throttle(events: int, watch: Watch) -> int:
    """Let the server throttle everybody, and give them up."""
    # Requests of one size: what an answer decides is one step.
    rig = Rig(events, then=throttling, max_in_flight=4, max_batch_size=200)
    await rig.fill()
    with watch.on():
        rig.transport.release()
        await rig.clock.advance(5.0)
        assert rig.engine.stats.held == events // 2
        await rig.engine.purge(None)
    assert rig.engine.stats.pending == 0
    return events


class Stuck(DestinationPlugin):
    """Never through with its first event."""

    name = "stuck"

    async def execute(self, event: object) -> None:
        """Take an event."""
        del event
        await asyncio.Event().wait()


class OpenDoor:
    """Lets everything in."""

    def admit(self, _event: object, number: int, wall: float) -> Record:
        """Make the record of an event."""
        return record(number, wall)._replace(id=number)

    def insert_id(self, _event: object) -> str:
        """Give the key of an event."""
        return ""


async def _plain(events: int) -> PlainDestination:
    plain = PlainDestination(
        Stuck(),
        door=OpenDoor(),
        config=Config(api_key="key", max_storage_capacity=events),
        decode=bytes,
        clock=LoopClock(),
        client_id=1,
    )
    await plain.start()
    for _ in range(events):
        plain.offer_nowait(None)
    await asyncio.sleep(0)
    return plain


async def purge_plain(events: int, watch: Watch) -> int:
    """Give up what waits for a plain destination."""
    plain = await _plain(events)
    with watch.on():
        purged = await plain.purge(None)
    await plain.shutdown(0.0)
    assert purged == events - 1
    return purged


async def shutdown_plain(events: int, watch: Watch) -> int:
    """Shut a plain destination down."""
    plain = await _plain(events)
    with watch.on():
        await plain.shutdown(0.0)
    assert plain.stats.dropped == events
    return events


@pytest.mark.parametrize(
    "scene",
    [
        track,
        flush,
        flush_in_vain,
        purge,
        shutdown,
        shed_oldest,
        expire,
        throttle,
        purge_plain,
        shutdown_plain,
    ],
)
async def test_an_event_costs_as_much_among_many(scene: Scene) -> None:
    """Calls per event, and calls in one step of the loop, stay what they are."""
    few, many = Watch(), Watch()
    of_few, of_many = await scene(FEW, few), await scene(MANY, many)

    assert many.total / of_many <= MOST_RATIO * few.total / of_few
    assert many.longest <= few.longest + MOST_MORE_IN_A_STEP
