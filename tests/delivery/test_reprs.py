"""What a debugger, a log line or a failing assertion shows of an engine at work."""

import asyncio
import logging
import random

import pytest

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.parts import Parts, Site
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.storage import MemoryStorage, Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

KEY = "0123456789abcdef-secret"
THROTTLED = Response(429, b'{"error":"slow","throttled_users":{"user-0":12}}')


def record(user: str, number: int) -> Record:
    """Return an encoded event."""
    return Record(0, b'{"e":1}', user, user, None, f"{user}-{number}", 1_700_000_000.0)


def engine(clock: FakeClock, transport: ScriptedTransport) -> Engine:
    """Build an engine of narrow bounds."""
    config = Config(api_key=KEY, flush_queue_size=2, max_storage_capacity=20)
    return engine_of(config, transport, clock)


async def test_an_engine_says_what_is_out_pending_and_held() -> None:
    """One line at each stage of its life, without the key."""
    clock = FakeClock()
    transport = ScriptedTransport(clock=clock)
    running = engine(clock, transport)
    assert repr(running) == "<Engine amplitude healthy: 0 out, 0 pending, 0 held>"
    transport.hang()
    await running.start()
    for number in range(3):
        await running.intake.accept(record(f"user-{number}", number))
    await clock.advance(0.2)
    assert repr(running) == "<Engine amplitude healthy: 2 out, 3 pending, 0 held>"

    await running.shutdown(0.0)
    assert repr(running) == "<Engine amplitude closed: 0 out, 0 pending, 0 held>"
    assert KEY not in repr(running)


async def test_an_engine_shows_who_is_held() -> None:
    """A throttled user's events are pending and held."""
    clock = FakeClock()
    running = engine(clock, ScriptedTransport([THROTTLED], clock=clock))
    await running.start()
    await asyncio.gather(
        *(running.intake.accept(record("user-0", n)) for n in range(2))
    )
    await clock.advance(0.2)

    assert repr(running) == "<Engine amplitude healthy: 0 out, 2 pending, 2 held>"
    await running.shutdown(0.0)


@pytest.fixture
def parts() -> Parts:
    """Build the rooms of an engine that nobody runs."""
    clock = FakeClock()
    config = Config(api_key=KEY, max_storage_capacity=3, max_storage_bytes=100)
    endpoint = AmplitudeEndpoint(config)
    logger = logging.getLogger("amplitude_async")
    site = Site(
        endpoint,
        config,
        ScriptedTransport(clock=clock),
        clock,
        Reporter(logger, clock, "test"),
        random.Random(1),
        60.0,
        1,
    )
    return Parts.build(site, MemoryStorage(), engine(clock, ScriptedTransport()))


async def test_every_room_shows_its_counts(parts: Parts) -> None:
    """An intake, a room, a schedule, a journal and the books: each in one line."""
    for number in range(2):
        assert parts.intake.offer(record("user-1", number)) is not None

    assert repr(parts.intake) == "<Intake 2 fresh, 2 so far>"
    assert repr(parts.room) == "<Room 2 of 3 events, 14 of 100 bytes, 0 promised>"
    assert repr(parts.books) == "<Books 2 accepted>"
    assert repr(parts.journal) == (
        "<Journal MemoryStorage shut: 0 being written, 0 unread>"
    )
    assert repr(parts.journal._writer) == "<Writer 0 being written>"  # noqa: SLF001
    assert repr(parts.journal._writer.appends) == (  # noqa: SLF001
        "<Appends 0 under way>"
    )
    parts.intake.drain()
    assert repr(parts.schedule) == "<Schedule healthy: 0 out, 2 waiting, 0 held>"
    assert repr(parts.alarm) == "<Alarm rung, next at 0.1>"
    assert repr(parts.books.flushes) == "<Flushes 0 waiting for 0 events>"


async def test_a_room_shows_who_waits_in_line(parts: Parts) -> None:
    """Those who wait for room are seen, and those who were promised a place."""
    room = parts.room
    for _ in range(3):
        assert room.take(10)
    waiting = asyncio.ensure_future(room.wait(10, 1.0))
    await asyncio.sleep(0)
    assert repr(room) == "<Room 3 of 3 events, 30 of 100 bytes, 0 promised, 1 in line>"

    room.free(1, 10)
    room.admit()
    assert repr(room) == "<Room 2 of 3 events, 20 of 100 bytes, 1 promised>"
    assert await waiting
    assert repr(room) == "<Room 3 of 3 events, 30 of 100 bytes, 0 promised>"
