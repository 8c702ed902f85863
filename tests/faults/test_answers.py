"""For each answer a server can give: what becomes of each of ten events."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    EventOptions,
)
from amplitude_async.emulator import Emulator, Fault, ReceivedRequest

__all__: list[str] = []

Connect = Callable[..., Amplitude]
EVENTS = 10
USERS = 5
DELIVERED, REJECTED = DeliveryStatus.DELIVERED, DeliveryStatus.REJECTED
DROPPED = DeliveryStatus.DROPPED
ALL = range(EVENTS)
ENDED = 5.0


def user(number: int) -> str:
    """Name the user of an event."""
    return f"user-{number % USERS}"


async def track_ten(client: Amplitude) -> list[DeliveryResult]:
    """Track ten events of five users in one go, and wait for their outcomes."""
    deliveries = [
        await client.track("e", user_id=user(n), event_properties={"n": n}) for n in ALL
    ]
    async with asyncio.timeout(ENDED):
        return [await delivery for delivery in deliveries]


def stored(emulator: Emulator) -> list[int]:
    """Return the numbers of the events at the server, in its order."""
    return [event["event_properties"]["n"] for event in emulator.events]


def check_order(emulator: Emulator) -> None:
    """Fail where an event of a user overtook an earlier one."""
    numbers = stored(emulator)
    for owner in {user(n) for n in numbers}:
        own = [n for n in numbers if user(n) == owner]
        assert own == sorted(own)


def numbered(*numbers: int) -> Callable[[ReceivedRequest], bool]:
    """Match requests that carry one of these events."""
    return lambda request: any(
        event["event_properties"]["n"] in numbers for event in request.events
    )


def more_than(events: int) -> Callable[[ReceivedRequest], bool]:
    """Match requests with more events."""
    return lambda request: len(request.events) > events


def whole(request: ReceivedRequest) -> bool:
    """Match the request with all events."""
    return len(request.events) == EVENTS


HTML = "<html><h1>Nobody parses me</h1></html>"
MISSING = {"code": 400, "error": "Request missing required field"}
MISSING_LIST = {"events_with_missing_fields": {"event_type": [0, 3]}}
SILENCED = {
    "code": 400,
    "error": "Invalid field values on some events",
    "silenced_events": [2],
    "events_with_invalid_fields": {"time": [5]},
}
BARE_400 = {"code": 400, "error": "Invalid JSON request body"}
FEWER_RETRIES = {"flush_max_retries": 4}
HASTY = {"connection_timeout": 0.05}


@dataclass(frozen=True)
class Row:
    """A fault, and what is to become of the ten events."""

    faults: Iterable[Fault]
    requests: int
    """Most requests it may take."""
    lost: Iterable[int] = ()
    """Events that are not delivered, and how they end."""
    status: DeliveryStatus = REJECTED
    code: int = 0
    reason: DropReason | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


FAIL = Fault.server_error
TABLE = {
    "nothing": Row([], 1),
    # Failures: counted retries, and after the third one event at a time.
    "500 three times": Row([FAIL(count=3)], 7),
    "500 for a while": Row([FAIL(count=8)], 12),
    "500 for ever": Row(
        [FAIL(count=None)], 50, ALL, DROPPED, 500, DropReason.RETRIES, FEWER_RETRIES
    ),
    "500 and no retries wanted": Row(
        [FAIL(count=1)],
        1,
        ALL,
        DROPPED,
        500,
        DropReason.RETRIES,
        {"flush_max_retries": 0},
    ),
    "500 html": Row([Fault.html(500, count=2)], 3),
    "502 html": Row([Fault.html(502, count=2)], 3),
    "503 json without code": Row([Fault(503, body={"error": "busy"}, count=2)], 3),
    "503 with Retry-After": Row([Fault(503, headers={"Retry-After": "0"})], 3),
    "408 twice": Row([Fault(408, count=2)], 3),
    "302 twice": Row([Fault(302, headers={"Location": "/batch"}, count=2)], 3),
    "no answer twice": Row([Fault(delay=float("inf"), count=2)], 3, options=HASTY),
    "no answer for ever": Row(
        [Fault(504, delay=float("inf"), count=None)],
        20,
        ALL,
        DROPPED,
        0,
        DropReason.RETRIES,
        {**HASTY, "flush_max_retries": 1, "connection_timeout": 0.01},
    ),
    "closed before reading": Row([Fault(hang_up="before")], 2),
    "closed after storing": Row([Fault(hang_up="after")], 2),
    "closed in the answer": Row([Fault(500, hang_up="during")], 2),
    "closed in a good answer": Row([Fault(200, hang_up="during", ingest=True)], 1),
    "closed five times": Row([Fault(hang_up="after", count=5)], 9),
    # Throttles: the throttled wait, all others go on.
    "429 for a user": Row([Fault.throttle(["user-1"])], 3),
    "429 for a user four times": Row([Fault.throttle(["user-1"], count=4)], 6),
    "429 for everybody": Row([Fault.throttle(["user-0", "user-1", "user-2"])], 5),
    "429 names users only": Row(
        [Fault(429, body={"code": 429, "throttled_users": {"user-1": 12}})], 3
    ),
    "429 names events only": Row(
        [Fault(429, body={"code": 429, "throttled_events": [1, 6]})], 3
    ),
    "429 quota": Row([Fault.quota(["user-1"])], 2, [1, 6], REJECTED, 429),
    "429 bare": Row([Fault(429, body={"code": 429}, count=3)], 5),
    "429 with Retry-After: 0": Row(
        [Fault(429, body="", headers={"Retry-After": "0"}, count=3)], 5
    ),
    "429 html": Row([Fault.html(429)], 3),
    # Too large: halves, until the server is content.
    "413 above three": Row([Fault.too_large(3)], 9),
    "413 html above three": Row([Fault(413, body=HTML, when=more_than(3))], 9),
    "413 without code": Row(
        [Fault(413, body={"error": "big"}, when=more_than(3), count=None)], 9
    ),
    "413 for one event": Row([Fault.too_large(0)], 2 * EVENTS, ALL, REJECTED, 413),
    # Bad requests: what is named is lost, what is not is searched for.
    "400 missing fields": Row(
        [Fault(400, body=MISSING | MISSING_LIST, when=whole)], 2, [0, 3], REJECTED, 400
    ),
    "400 missing_field beside lists": Row(
        [Fault(400, body=MISSING | MISSING_LIST | {"missing_field": "event_type"})],
        2,
        [0, 3],
        REJECTED,
        400,
    ),
    "400 silenced and invalid": Row(
        [Fault(400, body=SILENCED)], 2, [2, 5], REJECTED, 400
    ),
    "400 bare three times": Row([Fault(400, body=BARE_400, count=3)], 8),
    "400 bare because of one event": Row(
        [Fault(400, body=BARE_400, when=numbered(7), count=None)],
        9,
        [7],
        REJECTED,
        400,
    ),
    "400 bare for ever": Row(
        [Fault(400, body=BARE_400, count=None)], 2 * EVENTS, ALL, REJECTED, 400
    ),
    "400 html": Row([Fault(400, body=HTML)], 3),
    "400 {}": Row([Fault(400, body={})], 3),
    "403 html three times": Row([Fault.html(403, count=3)], 8),
    "403 because of one event": Row(
        [Fault(403, body=HTML, when=numbered(0), count=None)], 9, [0], REJECTED, 403
    ),
    "403 for ever": Row([Fault.html(403, count=None)], 2 * EVENTS, ALL, REJECTED, 403),
    "418 once": Row([Fault(418)], 3),
    # Refusals: the server means us, and one request is enough to know.
    "400 invalid key": Row([Fault.invalid_key(count=None)], 1, ALL, REJECTED, 400),
    "401": Row([Fault(401, count=None)], 1, ALL, REJECTED, 401),
    "404": Row([Fault(404, count=None)], 1, ALL, REJECTED, 404),
    "405": Row([Fault(405, count=None)], 1, ALL, REJECTED, 405),
    # Any 2xx is a success, whatever comes with it.
    "200 malformed": Row([Fault(200, body="{]", count=None)], 1),
    "200 empty": Row([Fault(200, body="", count=None)], 1),
    "200 without code": Row([Fault(200, body={}, count=None)], 1),
    "200 html": Row([Fault(200, body=HTML, count=None)], 1),
    "200 with the code of another": Row([Fault(200, body={"code": 500})], 1),
    "204": Row([Fault(204, count=None)], 1),
    "200 in a trickle": Row([Fault(trickle=0.05)], 1, options=HASTY),
    "200 endless": Row([Fault(endless=True)], 1),
    "500 endless": Row([Fault(500, endless=True)], 2),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_what_becomes_of_ten_events(
    row: Row,
    connect: Connect,
    emulator: Emulator,
) -> None:
    """Nothing is lost but what the server will not have, and nothing storms."""
    emulator.faults.add(*row.faults)
    lost = set(row.lost)
    async with connect(**row.options) as client:
        ended = await track_ten(client)

        assert client.stats.requests <= row.requests
    failed = [result for n, result in enumerate(ended) if n in lost]
    assert {n for n, result in enumerate(ended) if not result.ok} == lost
    assert {r.status for r in failed} <= {row.status}
    assert {r.code for r in failed} <= {row.code}
    assert {r.reason for r in failed} <= {row.reason}
    assert set(stored(emulator)) == set(ALL) - lost
    check_order(emulator)


async def test_a_quota_is_found_by_an_id_from_options(
    connect: Connect, emulator: Emulator
) -> None:
    """A quota matches the ids that were sent, wherever they were given."""
    emulator.faults.add(Fault.quota(["user-1"], count=None))
    async with connect() as client:
        over = await client.track("e", EventOptions(user_id="user-1"))
        other = await client.track("e", EventOptions(user_id="user-2"))

        assert ((await over).status, (await over).code) == (REJECTED, 429)
        assert (await other).ok


async def test_a_lost_answer_is_no_second_event(
    connect: Connect, emulator: Emulator
) -> None:
    """What was stored before the connection broke is stored once: same insert_id."""
    emulator.faults.add(Fault(hang_up="after"))
    async with connect() as client:
        ended = await track_ten(client)

    assert all(result.ok and result.attempts == 2 for result in ended)
    assert emulator.stats.duplicates == EVENTS
    assert stored(emulator) == list(ALL)


async def test_a_server_that_refuses_connections_and_comes_back(
    connect: Connect, emulator: Emulator
) -> None:
    """A restart of the server loses nothing."""
    await emulator.refuse()
    async with connect() as client:
        deliveries = [await client.track("e", user_id=user(n)) for n in ALL]
        async with asyncio.timeout(ENDED):
            while client.stats.requests < 4:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)
            assert client.stats.pending == EVENTS
            assert "Cannot connect" in str(client.stats.last_error)
            await emulator.listen()
            ended = [await delivery for delivery in deliveries]

    assert all(result.ok for result in ended)
    assert emulator.stats.events_ingested == EVENTS


async def test_what_a_result_says_at_the_end_of_all_retries(
    connect: Connect, emulator: Emulator
) -> None:
    """The last real status, the last real error and the number of attempts are told."""
    emulator.faults.add(Fault(500, body={"error": "disk full"}, count=None))
    async with connect(flush_max_retries=2) as client:
        [result, *_] = await track_ten(client)

    assert (result.code, result.attempts) == (500, 3)
    assert result.message.startswith("given up after 3 failed requests: HTTP 500")
    assert "disk full" in result.message


async def test_a_refusal_is_answered_for_at_once(
    connect: Connect, emulator: Emulator
) -> None:
    """After an invalid key new events are rejected without a request, for a minute."""
    emulator.faults.add(Fault.invalid_key(count=None))
    async with connect() as client:
        await track_ten(client)
        later = await track_ten(client)
        stats = await client.flush(None)

    assert {(result.status, result.code) for result in later} == {(REJECTED, 400)}
    assert "Invalid API key" in later[0].message
    assert stats.requests == 1


async def test_an_id_that_is_not_throttled_does_not_wait(
    connect: Connect, emulator: Emulator
) -> None:
    """While one user is held, all others are delivered at once."""
    emulator.faults.add(Fault.throttle(["user-1"]))
    async with connect(retry_throttled_interval=3600.0) as client:
        deliveries = [await client.track("e", user_id=user(n)) for n in ALL]
        async with asyncio.timeout(ENDED):
            others = [await d for n, d in enumerate(deliveries) if n % USERS != 1]
        # Nothing can happen before the deadline, so that flush does not wait for it.
        stats = await client.flush(600.0)

        assert all(result.ok for result in others)
        assert (stats.held, stats.pending) == (2, 2)
        emulator.faults.clear()
    assert client.stats.delivered == EVENTS
