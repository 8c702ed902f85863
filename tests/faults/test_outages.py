"""Outages of every kind, hours long, through a whole engine in virtual time."""

import asyncio
import json
from collections import Counter

import pytest

from amplitude_async import Config
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.engine import Engine
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

pytestmark = pytest.mark.long

EVENTS = 20_000
STEPS = 20
ANSWER_TAKES = 0.05
TIMEOUT = 10.0
HOUR = 3_600.0

# What a request meets during the outage, and after how many seconds.
KINDS: dict[str, tuple[float, Response]] = {
    "no connection": (0.0, Response(0, error="connection refused", sent=False)),
    "timeout": (TIMEOUT, Response(0, error="no complete answer within 10 s")),
    "cut after sending": (0.02, Response(0, error="the connection was reset")),
    "500": (0.02, Response(500)),
    "503": (0.02, Response(503)),
    "429": (0.02, Response(429)),
    "503 with Retry-After": (0.02, Response(503, b"", {"retry-after": "120"})),
    "408": (0.02, Response(408)),
    "redirect": (0.02, Response(307, b"", {"location": "https://else.invalid/"})),
}
# Most seconds without a request; a wait that the server asks for counts, too.
LONGEST_WAIT = {"503 with Retry-After": 120.0}
# The longest pause is 60 s with jitter: it may be as short as this.
SHORTEST_LATE_PAUSE = 36.0
# While pauses grow, requests are closer.
REQUESTS_AT_FIRST = 15


class Server(ScriptedTransport):
    """Takes nothing until the outage is over, and everything from then on."""

    def __init__(self, clock: FakeClock, kind: str, over: float) -> None:
        super().__init__(then=self.answer, clock=clock)
        self._fake = clock
        self._delay, self._trouble = KINDS[kind]
        self._over = over
        self.refused = 0
        self.first = self.last = 0.0
        self.taken: Counter[int] = Counter()

    async def answer(self, body: bytes) -> Response:
        """Answer by the clock."""
        self.requests.clear()
        if self._fake.now() < self._over:
            self.refused += 1
            await self._pass(self._delay)
            return self._trouble
        await self._pass(ANSWER_TAKES)
        self.taken.update(event["n"] for event in json.loads(body)["events"])
        self.last = self._fake.now()
        self.first = self.first or self.last
        return Response(200)

    async def _pass(self, seconds: float) -> None:
        passed = asyncio.Event()
        self._fake.call_later(seconds, passed.set)
        await passed.wait()


def record(number: int, clock: FakeClock) -> Record:
    """Make an event of one of many users."""
    user = f"user-{number % 7_919}"
    body = b'{"user_id":"%b","n":%d}' % (user.encode(), number)
    return Record(0, body, user, user, None, str(number), clock.wall())


def build(server: Server, clock: FakeClock) -> Engine:
    """Build an engine with the defaults that a service has."""
    config = Config(
        api_key="key", server_url="http://server.invalid/", overflow="drop_newest"
    )
    return engine_of(config, server, clock)


def charged(engine: Engine) -> int:
    """Count the undecided events that some failure was charged to."""
    return engine._parts.schedule._attempts.charged  # noqa: SLF001 - no outcome tells


async def fill(engine: Engine, clock: FakeClock, hours: float) -> None:
    """Fill the memory: some at once, the others all through the outage."""
    # In an hour most of them are tried again and again. In a day that takes seconds.
    before = EVENTS * 3 // 4 if hours == 1 else STEPS * 10
    for number in range(before):
        engine.intake.offer_nowait(record(number, clock))
    share = (EVENTS - before) // STEPS
    for first in range(before, EVENTS, share):
        for number in range(first, first + share):
            engine.intake.offer_nowait(record(number, clock))
        await clock.advance(hours * HOUR / STEPS)
        assert engine.stats.pending == first + share
        assert charged(engine) == 0


# To the engine these are four kinds of trouble; hours of each are enough.
LONG = ("no connection", "timeout", "429", "503 with Retry-After")
CASES = [
    *((kind, 1) for kind in KINDS),
    *((kind, 23) for kind in LONG),
    ("500", 12),
]


@pytest.mark.parametrize(("kind", "hours"), CASES)
async def test_an_outage_costs_nothing_but_time(kind: str, hours: int) -> None:
    """All that fits in memory is delivered once, uncharged, ten seconds after.

    The pauses between requests grow to `retry_max_interval`, so that the number of
    requests during the outage is bounded, too.
    """
    clock = FakeClock()
    server = Server(clock, kind, hours * HOUR)
    engine = build(server, clock)
    await engine.start()
    await fill(engine, clock, hours)
    assert 0 < server.refused <= REQUESTS_AT_FIRST + hours * HOUR / SHORTEST_LATE_PAUSE
    await clock.advance(LONGEST_WAIT.get(kind, 60.0) + TIMEOUT + 10.0)

    stats = engine.stats
    assert (stats.delivered, stats.pending) == (EVENTS, 0)
    assert stats.balanced
    assert server.taken == Counter(range(EVENTS))
    assert server.last - server.first <= 10.0
    await engine.shutdown(0.0)
