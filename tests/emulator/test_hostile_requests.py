"""Whatever is sent, the emulator answers in words and stays within its bounds."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from amplitude_async.emulator import Emulator, Fault
from amplitude_async.emulator.amplitude_api import (
    BATCH_PATH,
    HTTP_API_PATH,
    AmplitudeApi,
)
from amplitude_async.emulator.control import Control
from amplitude_async.emulator.judgement import Api, Arrival, Judgement
from amplitude_async.emulator.ledger import Ledger
from amplitude_async.emulator.mparticle_api import (
    BULK_PATH,
    EVENTS_PATH,
    HISTORICAL_PATH,
    MParticleApi,
)
from amplitude_async.emulator.rates import RateMeter
from amplitude_async.emulator.reading import parse, weigh
from amplitude_async.emulator.records import ReceivedRequest
from amplitude_async.emulator.script import FaultScript, parse_faults

__all__: list[str] = []

JSON = {"Content-Type": "application/json"}
EVENT = {"event_type": "click", "user_id": "user-1"}
KEY = "Basic " + "a2V5OnNlY3JldA=="

# Any JSON --------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("event_type", "user_id", "device_id", "time", "insert_id", "events"),
        *("environment", "development", "user_identities", "customer_id", "email"),
        *("user_attributes", "consent_state", "gdpr", "ccpa", "data_sale_opt_out"),
        *("consented", "context", "data_plan", "plan_id", "data", "custom_attributes"),
        *("commerce_event", "product_action", "products", "action", "promotion_action"),
        *("user_identity_change", "new", "old", "identity_type", "identity"),
        *("timestamp_unixtime_ms", "source_request_id", "$groupidentify", "", "\ud800"),
        *("min_id_length", "options", "client_upload_time", "custom_event", "mpid"),
        *("event_name", "custom_event_type", "status", "delay", "kind", "throttle"),
        *("count", "rate", "headers", "body", "user_ids", "max_events", "too_large"),
        *("path", "name", "hang_up", "endless", "trickle", "ingest", "at_once", "busy"),
        *("requests_per_second", "retry_after", "eps_threshold", "quota", "silenced"),
    ]
)
TEXTS = WORDS | st.text(st.characters(), max_size=12)
NUMBERS = (
    st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 10**4_299, 0, 1, 503])
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=5)
    ),
    max_leaves=25,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event_type": st.just("$groupidentify") | VALUES},
        optional={
            name: st.just("user-1") | VALUES
            for name in ("user_id", "device_id", "time", "insert_id")
        },
    )
    | VALUES,
    max_size=4,
)
REQUESTS = st.fixed_dictionaries(
    {"api_key": st.just("key") | VALUES, "events": EVENTS | VALUES},
    optional={
        "options": VALUES | st.fixed_dictionaries({"min_id_length": VALUES}),
        "client_upload_time": VALUES,
    },
)
TYPES = st.sampled_from(
    [
        *("custom_event", "commerce_event", "user_identity_change", "screen_view"),
        *("profile", "session_end", "opt_out", "none of them"),
    ]
)
BATCHES = st.fixed_dictionaries(
    {"environment": st.just("development") | VALUES},
    optional={
        "user_identities": st.dictionaries(TEXTS, VALUES, max_size=3) | VALUES,
        "user_attributes": st.dictionaries(TEXTS, VALUES, max_size=3) | VALUES,
        "consent_state": st.dictionaries(
            st.sampled_from(["gdpr", "ccpa"]), VALUES, max_size=2
        ),
        "context": st.fixed_dictionaries({"data_plan": VALUES}) | VALUES,
        "source_request_id": VALUES,
        "events": st.lists(
            st.fixed_dictionaries({"event_type": TYPES | VALUES, "data": VALUES})
            | VALUES,
            max_size=3,
        ),
    },
)
BYTES = st.binary(max_size=60) | st.builds(
    lambda value: json.dumps(value).encode(),
    VALUES | REQUESTS | BATCHES | st.lists(BATCHES, max_size=3),
)
DEEP = b'{"api_key":"key","events":[{"event_type":"$groupidentify","device_id":' + (
    b"[" * 940 + b"]" * 940 + b',"insert_id":"i"}]}'
)


def check_kept(ledger: Ledger, judgement: Judgement) -> None:
    """Find each event once: stored, a copy, or not taken and told why."""
    stats, unit = ledger.stats, judgement.unit
    rejected = ledger.rejected(unit)
    assert all(seen.reason and "\n" not in seen.reason for seen in rejected)
    stored = stats.events_ingested + stats.batches_ingested
    copies = stats.duplicates + stats.batch_duplicates
    not_taken = stats.events_rejected + stats.batches_rejected
    assert stored + copies + not_taken == len(judgement.events)
    for name in ledger.users(unit):
        assert ledger.of_user(unit, name)


def check(api: Api, arrival: Arrival) -> None:
    """Judge, note the pace, keep and show, as the emulator does with a request."""
    judgement = api.judge(arrival)
    if judgement.accepted:
        judgement = api.judge_rate(judgement, RateMeter(2.0), 0.0)
    assert judgement.status in (200, 202, 400, 401, 403, 413, 429)
    assert judgement.note or judgement.status in (200, 202)
    assert len(judgement.accepted) == len(judgement.keys)
    assert "\n" not in judgement.note
    ledger = Ledger(10, 10)
    of_events = judgement.unit == "event"
    request = ReceivedRequest(
        arrival.path,
        judgement.status,
        events=judgement.events if of_events else (),
        batches=() if of_events else judgement.events,
        problems=judgement.problems,
        note=judgement.note,
        weight=1,
    )
    ledger.record(request, judgement)
    check_kept(ledger, judgement)
    json.dumps(judgement.body, allow_nan=False)
    FaultScript().turn().after_reading(ledger.requests[0])


@given(
    path=st.sampled_from([HTTP_API_PATH, BATCH_PATH]),
    body=BYTES | st.builds(lambda value: json.dumps(value).encode(), REQUESTS),
)
@example(path=BATCH_PATH, body=DEEP)
@example(path=BATCH_PATH, body=b'{"api_key":"key","events":[{"event_type":1e400}]}')
def test_amplitudes_judge_has_an_answer_to_everything(path: str, body: bytes) -> None:
    """It never raises, and a refusal always has a note."""
    check(AmplitudeApi(), Arrival(path, 0.0, body=body))


@given(
    path=st.sampled_from([EVENTS_PATH, BULK_PATH, HISTORICAL_PATH]),
    body=BYTES | st.builds(lambda value: json.dumps(value).encode(), BATCHES),
    headers=st.just({"Authorization": KEY})
    | st.dictionaries(
        st.sampled_from(["Authorization", "Content-Encoding"]),
        st.text(max_size=20) | st.sampled_from([KEY, "Basic \udcff", "gzip", "Basic"]),
    ),
    partial=st.booleans(),
)
@example(
    path=EVENTS_PATH,
    body=b'{"environment":' + b"[" * 940 + b"]" * 940 + b"}",
    headers={"Authorization": KEY},
    partial=True,
)
def test_mparticles_judge_has_an_answer_to_everything(
    path: str, body: bytes, headers: dict[str, str], partial: bool
) -> None:
    """It never raises, whatever body and headers are."""
    api = MParticleApi(bulk_partial=partial)
    check(api, Arrival(path, 0.0, headers=headers, body=body))


def read_faults(value: object) -> tuple[list[Fault], str]:
    """Return the faults, or why there are none."""
    try:
        return parse_faults(value), ""
    except ValueError as error:
        return [], str(error)


@given(VALUES.filter(bool) | st.dictionaries(WORDS, VALUES, max_size=5))
@example({"delay": 10**400})
@example({"rate": 10**400})
@example({"requests_per_second": 10**400})
def test_a_fault_is_taken_or_refused_in_words(value: object) -> None:
    """What becomes a fault can be shown, and all else is a bad request."""
    faults, problem = read_faults(value)
    assert faults or 10 < len(problem) < 600
    script = FaultScript()
    script.add(*faults)
    json.dumps(script.describe(), allow_nan=False)
    for fault in faults:
        fault.answer(ReceivedRequest("/batch", 200, events=(EVENT,)), {})


# Over a socket -----------------------------------------------------------------------


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session whose base is the emulator."""
    async with aiohttp.ClientSession(emulator.url) as open_session:
        yield open_session


async def post(
    session: aiohttp.ClientSession, path: str, data: bytes, **headers: str
) -> tuple[int, Any]:
    """Send bytes and return status and JSON answer."""
    # As a file where it is large: aiohttp warns of such bytes.
    stream = data if len(data) < 1_000_000 else io.BytesIO(data)
    headers = {**JSON, **headers}
    async with session.post(path, data=stream, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"body":' + b'{"a":' * 100_000,
        b"\xff",
        b"",
        b'{"delay": 1' + b"0" * 400 + b"}",
        b'{"delay": 1' + b"0" * 5_000 + b"}",
        b'{"delay": -1e400}',
        b'{"kind": {}}',
        b'{"kind": "throttle", "user_ids": [[]]}',
        b'{"kind": "too_large", "max_events": true}',
        b'{"headers": {"a\\n": "b"}}',
        b'{"headers": []}',
        b'[{"status": 503}, [[[]]]]',
    ],
)
async def test_a_bad_fault_is_a_bad_request(
    emulator: Emulator, session: aiohttp.ClientSession, data: bytes
) -> None:
    """It is answered with words, of a length that can be read."""
    status, answer = await post(session, "/_emulator/faults", data)
    assert status == HTTPStatus.BAD_REQUEST
    assert 10 < len(answer["error"]) < 600
    assert not emulator.faults.pending


def test_a_number_of_any_length_is_refused_in_python() -> None:
    """The message does not try to write it out."""
    for value in (10**400, 10**5_000):
        for name in ("delay", "count", "at_once", "requests_per_second", "rate"):
            with pytest.raises(ValueError, match=f"fault {name} is"):
                Fault(503, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [object(), b"bytes", {1}])
def test_a_body_that_is_no_json_is_refused_at_once(value: object) -> None:
    """And not when a request is to be answered with it."""
    with pytest.raises(ValueError, match="fault body is"):
        Fault(503, body={"a": value})


async def test_numbers_that_no_page_can_read_are_refused(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """They would be served as Infinity, which is no JSON."""
    data = b'{"api_key":"k","events":[{"event_type":"e","user_id":"user-1","x":1e400}]}'
    status, answer = await post(session, "/batch", data)
    assert (status, answer["error"]) == (400, "Invalid JSON request body")
    assert "too large" in emulator.requests[0].note
    status, _ = await post(session, "/v2/events", data, Authorization=KEY)
    assert status == HTTPStatus.BAD_REQUEST


async def test_empty_gzip_members_are_bounded(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """They decode to nothing, so that no limit of bytes is ever reached."""
    body = json.dumps({"api_key": "key", "events": [EVENT]}).encode()
    packed = gzip.compress(b"", mtime=0) * 2_000 + gzip.compress(body, mtime=0)
    status, _ = await post(session, "/batch", packed, **{"Content-Encoding": "gzip"})
    assert status == HTTPStatus.BAD_REQUEST
    assert "1,000 gzip members" in emulator.requests[0].note
    packed = gzip.compress(b"", mtime=0) * 900 + gzip.compress(body, mtime=0)
    status, _ = await post(session, "/batch", packed, **{"Content-Encoding": "gzip"})
    assert status == HTTPStatus.OK


async def test_a_packing_longer_than_its_content_ends(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Empty blocks are no end of reading either."""
    head = gzip.compress(b"", mtime=0)[:10]
    empty_blocks = b"\x00\x00\x00\xff\xff" * 300_000
    status, _ = await post(
        session, HTTP_API_PATH, head + empty_blocks, **{"Content-Encoding": "gzip"}
    )
    assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "more than" in emulator.requests[0].note


async def test_values_too_many_to_hold_are_not_parsed(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Twenty megabytes of brackets would be half a gigabyte."""
    packed = gzip.compress(b'{"api_key":"k","events":[' + b"[]," * 6_000_000, 1)
    status, _ = await post(session, "/batch", packed, **{"Content-Encoding": "gzip"})
    assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "MiB of memory" in emulator.requests[0].note


@pytest.mark.parametrize(
    "text", [b"{},", b"[],", b'{"a":1},', b"[1],", b"300,", b'"ab",', b"1e1,", b'"",']
)
def test_what_values_weigh_is_not_guessed_too_low(text: bytes) -> None:
    """The estimate is above what the parser allocates."""
    import tracemalloc  # noqa: PLC0415 - it slows down what it does not measure

    body = b"[" + text * 20_000 + b"0]"
    tracemalloc.start()
    try:
        values = parse(body)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(values) > 20_000
    assert held < 1.1 * weigh(body)


async def test_what_is_kept_is_bounded_by_bytes_and_told() -> None:
    """The oldest go, the newest stays, the counters count them all."""
    async with (
        Emulator(keep_bytes=50_000) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        for number in range(20):
            event = {**EVENT, "n": number, "pad": "x" * 10_000}
            body = json.dumps({"api_key": "key", "events": [event]}).encode()
            await post(session, "/batch", body)
        kept = [event["n"] for event in emulator.events]
        stats = emulator.stats
        batch = {"environment": "development", "user_attributes": {"a": "x" * 60_000}}
        for _ in range(2):
            data = json.dumps(batch).encode()
            async with session.post(
                "/v2/events", data=data, headers={"Authorization": KEY}
            ) as response:
                assert response.status == HTTPStatus.ACCEPTED
        assert len(emulator.batches) == 1
        assert emulator.stats.batches_forgotten == 1
    assert kept == list(range(20))[-len(kept) :]
    assert 3 <= len(kept) <= 5
    assert stats.events_ingested == 20
    assert stats.events_forgotten == 20 - len(kept)
    assert stats.requests == 20
    assert 15 <= stats.requests_forgotten <= 18


async def test_a_part_of_a_request_is_weighed_by_itself() -> None:
    """What is new in a request of copies may be all of its weight."""
    async with (
        Emulator(keep_bytes=100_000) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        copies = [{**EVENT, "insert_id": "the same"}] * 1_000
        for number in range(10):
            large = {**EVENT, "n": number, "pad": "x" * 40_000}
            sent = {"api_key": "key", "events": [*copies, large]}
            await post(session, "/batch", json.dumps(sent).encode())
        assert len(emulator.events) <= 3


async def test_a_listing_ends_where_a_page_could_not_show_it() -> None:
    """The newest come first, and what is too large is named."""
    async with (
        Emulator() as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        for number, size in enumerate((3_000_000, 3_000_000, 3_000_000, 9_000_000)):
            event = {**EVENT, "n": number, "pad": "x" * size}
            sent = {"api_key": "key", "events": [event]}
            data = gzip.compress(json.dumps(sent).encode(), 1)
            await post(session, "/batch", data, **{"Content-Encoding": "gzip"})
        numbers = []
        for query in ("?limit=9", "?after=0&limit=2", "?after=2&limit=1"):
            async with session.get("/_emulator/events" + query) as response:
                listed = await response.json()
            numbers.append([one.get("n") for one in listed["events"]])
            assert listed["total"] == 4
        assert numbers == [[None], [0, 1], [2]]


async def test_an_event_nested_too_deep_to_be_served_is_named() -> None:
    """The page goes on without it."""
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    ledger = Ledger(10, 10)
    event = {"deep": deep}
    judgement = Judgement(200, {}, events=(event,), accepted=(event,), keys=(None,))
    ledger.record(ReceivedRequest("/batch", 200), judgement)
    control = Control(lambda: ledger, FaultScript(), lambda: None)
    (route,) = [one for one in control.routes() if one.path == "/_emulator/events"]
    request = make_mocked_request("GET", "/_emulator/events")
    response = await route.handler(request)
    assert isinstance(response, web.Response)
    assert "nested too deep" in (response.text or "")
    while deep:  # or the interpreter would follow it down
        (deep,) = deep  # type: ignore[misc]
