"""No answer of a server makes a storm of requests, and the log stays readable."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Config
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.engine import Engine
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

KEY = "0123456789abcdef-secret"
MARKER = "what-a-user-did"
SECONDS = 100
PER_SECOND = 10

Server = Callable[[bytes], Response]


def body(**answer: Any) -> bytes:
    """Encode the body of an answer."""
    return json.dumps(answer).encode()


def throttle_all(request: bytes) -> Response:
    """Throttle whatever comes."""
    users = {event["user_id"]: 12 for event in json.loads(request)["events"]}
    return Response(429, body(code=429, throttled_users=users))


class Flicker:
    """A server that fails every second request."""

    def __init__(self) -> None:
        self._requests = 0

    def __call__(self, _: bytes) -> Response:
        """Answer the next request."""
        self._requests += 1
        return Response(500 if self._requests % 2 else 200)


# Most requests in 100 seconds with ten new events each.
STORMS: dict[str, tuple[Server, int]] = {
    "403 html": (lambda _: Response(403, b"<html>"), 60),
    "400 bare": (lambda _: Response(400, body(code=400)), 60),
    "400 empty": (lambda _: Response(400), 60),
    "413 json without code": (lambda _: Response(413, b"{}"), 60),
    "429 bare": (lambda _: Response(429), 10),
    "429 html": (lambda _: Response(429, b"<html>"), 10),
    "429 now": (lambda _: Response(429, b"", {"retry-after": "0"}), 60),
    "429 for all": (throttle_all, 200),
    "500": (lambda _: Response(500), 30),
    "500 now": (lambda _: Response(500, b"", {"retry-after": "0"}), 30),
    "503 later": (lambda _: Response(503, b"", {"retry-after": "60"}), 5),
    "no answer": (lambda _: Response(0, error="refused"), 30),
    "302": (lambda _: Response(302, b"", {"location": "/"}), 30),
    "401": (lambda _: Response(401), 5),
    "invalid key": (lambda _: Response(400, body(error="Invalid API key")), 5),
    "flickering": (Flicker(), 400),
}


async def ask(server: Server, clock: FakeClock, **options: Any) -> Engine:
    """Track ten events a second for a hundred seconds; returns the engine, drained."""
    config = Config(api_key=KEY, server_url="http://server.invalid/", **options)
    engine = engine_of(config, ScriptedTransport(then=server, clock=clock), clock)
    await engine.start()
    for number in range(SECONDS * PER_SECOND):
        user = f"user-{number % 50}"
        event = json.dumps({"user_id": user, "event_properties": {"did": MARKER}})
        await engine.intake.accept(
            Record(0, event.encode(), user, user, None, str(number), clock.wall())
        )
        await clock.advance(1 / PER_SECOND)
        assert engine.stats.balanced
    return engine


@pytest.mark.parametrize(("server", "most"), STORMS.values(), ids=STORMS.keys())
async def test_no_answer_makes_a_storm(
    server: Server, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests stay bounded, each cause is logged once a minute, bodies and key never.

    After a dozen fruitless answers in a row even a search for a bad event slows down.
    """
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    clock = FakeClock()
    engine = await ask(server, clock, flush_queue_size=10)
    stats = await engine.shutdown(0.0)

    assert 0 < stats.requests <= most
    loud = [record for record in caplog.records if record.levelno > logging.DEBUG]
    causes = Counter(
        record.getMessage().rsplit("[", 1)[-1].split(" x")[0] for record in loud
    )
    # 100 seconds and the shutdown: at once, after a minute, and what is new then.
    assert not causes or max(causes.values()) <= 2
    lines = [record.getMessage() for record in caplog.records]
    uploads = [line for line in lines if "upload of" in line]
    # What the shutdown cut off has no line of its own.
    assert stats.requests - 1 <= len(uploads) <= stats.requests
    assert MARKER not in "".join(lines)
    assert KEY not in "".join(lines)


async def test_a_line_tells_how_often(caplog: pytest.LogCaptureFixture) -> None:
    """One refusal is one cause; what was kept quiet is in the next line's count."""
    clock = FakeClock()
    engine = await ask(lambda _: Response(401), clock)

    assert not any("[rejected " in record.getMessage() for record in caplog.records)
    refused = [
        int(record.getMessage().rsplit(" x", 1)[1].rstrip("]"))
        for record in caplog.records
        if "[refused " in record.getMessage()
    ]
    assert len(refused) == 2
    assert refused[0] == 1
    # Ten a second for a minute.
    assert 500 < refused[1] <= engine.stats.rejected
    await engine.shutdown(0.0)


@pytest.mark.parametrize(
    ("status", "level", "words"),
    [
        (500, logging.WARNING, ["HTTP 500", "state healthy", "events wait"]),
        (429, logging.WARNING, ["HTTP 429", "state healthy", "events wait"]),
        (413, logging.WARNING, ["the server answered 413"]),
        (401, logging.ERROR, ["refuses us", "401", "check key, zone and URL"]),
    ],
)
async def test_what_a_line_says(
    status: int, level: int, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The first line of its level says what happened, what it means and what waits."""
    engine = await ask(lambda _: Response(status), FakeClock())
    await engine.shutdown(0.0)

    first = next(r for r in caplog.records if r.levelno == level)
    assert first.name == "amplitude_async"
    assert [word for word in words if word not in first.getMessage()] == []


async def test_a_servers_text_is_cut_and_tamed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server cannot flood the log or forge a line in it."""
    page = b"<html>\n\x1b[2J" + b"x" * 10_000
    engine = await ask(lambda _: Response(500, page), FakeClock())
    await engine.shutdown(0.0)

    for record in caplog.records:
        assert len(record.getMessage()) < 400
        assert record.getMessage().isprintable()
