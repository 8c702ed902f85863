"""What each answer of an Amplitude server means for the events of its request.

One row for each row, and each variant, of what servers and proxies were seen to answer.
Where the official SDKs differ among themselves, the row says what ours does.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.endpoint import (
    MAX_RETRY_AFTER,
    AmplitudeEndpoint,
    interpret,
)
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Response,
    Sort,
    Verdict,
    describe_failure,
    excerpt,
    retry_after,
)
from amplitude_async.storage.base import Record

__all__: list[str] = []

WALL = datetime(2024, 2, 3, 4, 5, 6, 789000, UTC).timestamp()
KEY = 'k"e\\y-of-the-project'
HTML = b"<html><body>Bad gateway \x00\x1b[31m</body></html>"


def record(
    number: int, user_id: str | None = None, device_id: str | None = None
) -> Record:
    """Return an encoded event."""
    identity = user_id or device_id or ""
    return Record(number, b"{}", identity, user_id, device_id, str(number), WALL)


# Indexes 0 to 5: three of one user, one of another, two that a device id names.
RECORDS = [
    record(1, "user-a"),
    record(2, "user-b"),
    record(3, "user-a", "device-1"),
    record(4, None, "device-2"),
    record(5, "user-c", "device-3"),
    record(6, "user-a"),
]


def answer(status: int, *, header: str | None = None, **body: Any) -> Response:
    """Return an answer with a JSON body."""
    headers = {} if header is None else {"retry-after": header}
    return Response(status, json.dumps(body).encode(), headers)


def fault(error: str) -> Response:
    """Return what the transport says where no answer came."""
    return Response(0, error=error)


def case(name: str, response: Response, verdict: Verdict, records: int = 6) -> object:
    """Return one row of the table."""
    return pytest.param(response, verdict, RECORDS[:records], id=name)


INVALID = "Invalid field values on some events"
MISSING = "Request missing required field"
SILENCED = "Events silenced for device_id"
SLOW = "Too many requests for some devices and users"

SUCCESS = [
    case("200", answer(200, code=200, events_ingested=6), Accept(200, "delivered")),
    case("200 with {}", answer(200), Accept(200, "delivered")),
    case("200 without a body", Response(200), Accept(200, "delivered")),
    case("200 with HTML", Response(200, HTML), Accept(200, "delivered")),
    case(
        "200 whose body claims 400",
        answer(200, code=400, error="Invalid API key: x"),
        Accept(200, "delivered"),
    ),
    case("202", Response(202), Accept(202, "delivered")),
    case("299", Response(299), Accept(299, "delivered")),
]
REFUSALS = [
    case(
        "400 Invalid API key: with the key",
        answer(400, code=400, error="Invalid API key: abc"),
        Refuse(400, "Invalid API key: abc"),
    ),
    case(
        "400 Invalid API key",
        answer(400, error="Invalid API key"),
        Refuse(400, "Invalid API key"),
    ),
    case(
        "400 missing_field api_key",
        answer(400, error=MISSING, missing_field="api_key"),
        Refuse(400, f"{MISSING}: api_key"),
    ),
    case("401", answer(401), Refuse(401, "HTTP 401: {}")),
    case("404 with HTML", Response(404, b"<p>no"), Refuse(404, "HTTP 404: <p>no")),
    case("405 without a body", Response(405), Refuse(405, "HTTP 405")),
]
LISTS = [
    case(
        "400 events_with_invalid_fields",
        answer(400, error=INVALID, events_with_invalid_fields={"time": [0, 2]}),
        Sort(
            400,
            INVALID,
            {
                0: f"{INVALID}: field time has a value the server refuses",
                2: f"{INVALID}: field time has a value the server refuses",
            },
        ),
    ),
    case(
        "400 events_with_missing_fields",
        answer(400, error=MISSING, events_with_missing_fields={"event_type": [3]}),
        Sort(400, MISSING, {3: f"{MISSING}: required field event_type is missing"}),
    ),
    case(
        "400 events_with_invalid_id_lengths",
        answer(400, error=INVALID, events_with_invalid_id_lengths={"user_id": [4]}),
        Sort(400, INVALID, {4: f"{INVALID}: user_id is shorter than min_id_length"}),
    ),
    case(
        "400 silenced_events",
        answer(400, error=SILENCED, silenced_events=[1, 5]),
        Sort(
            400,
            SILENCED,
            dict.fromkeys([1, 5], f"{SILENCED}: the device is silenced"),
        ),
    ),
    case(
        "400 silenced_devices",
        answer(400, error=SILENCED, silenced_devices=["device-1", "device-2"]),
        Sort(
            400,
            SILENCED,
            dict.fromkeys([2, 3], f"{SILENCED}: the device is silenced"),
        ),
    ),
    case(
        "400 all kinds of lists are joined, the first complaint is kept",
        answer(
            400,
            error=INVALID,
            events_with_invalid_fields={"time": [0]},
            events_with_missing_fields={"event_type": [0, 1]},
            events_with_invalid_id_lengths={"user_id": [2]},
            silenced_events=[3],
        ),
        Sort(
            400,
            INVALID,
            {
                0: f"{INVALID}: field time has a value the server refuses",
                1: f"{INVALID}: required field event_type is missing",
                2: f"{INVALID}: user_id is shorter than min_id_length",
                3: f"{INVALID}: the device is silenced",
            },
        ),
    ),
    case(
        "400 throttled_events beside silenced ones are held",
        answer(400, error=SILENCED, silenced_events=[0], throttled_events=[0, 1]),
        Sort(
            400,
            SILENCED,
            {0: f"{SILENCED}: the device is silenced"},
            frozenset({1}),
        ),
    ),
    case(
        "400 missing_field beside lists: only the listed are lost",
        answer(
            400,
            error=MISSING,
            missing_field="event_type",
            events_with_missing_fields={"event_type": [5]},
        ),
        Sort(400, MISSING, {5: f"{MISSING}: required field event_type is missing"}),
    ),
    case(
        "400 with a list beside rubbish",
        answer(
            400,
            error=INVALID,
            events_with_invalid_fields={"time": [1, -1, "2", True, None, 1.0]},
            events_with_missing_fields="none",
            silenced_events={"3": 1},
            throttled_events=None,
        ),
        Sort(
            400, INVALID, {1: f"{INVALID}: field time has a value the server refuses"}
        ),
    ),
]
UNNAMED = [
    case(
        "400 missing_field without lists",
        answer(400, error=MISSING, missing_field="event_type"),
        Bisect(400, f"{MISSING}: event_type"),
    ),
    case(
        "400 Invalid JSON request body",
        answer(400, error="Invalid JSON request body"),
        Bisect(400, "Invalid JSON request body"),
    ),
    case(
        "400 one event alone",
        answer(400, error="Invalid event JSON"),
        Bisect(400, "Invalid event JSON"),
        records=1,
    ),
    case(
        "400 with empty lists",
        answer(400, error=INVALID, events_with_invalid_fields={"time": []}),
        Bisect(400, INVALID),
    ),
    case(
        "400 whose indexes are all beyond the batch",
        answer(400, error=INVALID, events_with_invalid_fields={"time": [6, 70]}),
        Bisect(400, INVALID),
    ),
    case("400 without a body", Response(400), Bisect(400, "HTTP 400")),
    case(
        "400 cut off",
        Response(400, b'{"error": "Inv'),
        Bisect(400, 'HTTP 400: {"error": "Inv'),
    ),
    case("400 with a JSON array", Response(400, b"[1]"), Bisect(400, "HTTP 400: [1]")),
    case(
        "403 firewall",
        answer(403, code=403, error="Forbidden"),
        Bisect(403, 'HTTP 403: {"code": 403, "error": "Forbidden"}'),
    ),
    case("402", Response(402), Bisect(402, "HTTP 402")),
    case("422", Response(422), Bisect(422, "HTTP 422")),
]
TOO_LARGE = [
    case(
        "413 many",
        answer(413, code=413, error="Payload too large"),
        Halve(413, 'HTTP 413: {"code": 413, "error": "Payload too large"}'),
    ),
    case("413 one", Response(413), Halve(413, "HTTP 413"), records=1),
    case(
        "413 of nginx, HTML", Response(413, b"<html>"), Halve(413, "HTTP 413: <html>")
    ),
    case("413 JSON without code", answer(413), Halve(413, "HTTP 413: {}")),
]
THROTTLES = [
    case(
        "429 throttled_events",
        answer(429, error=SLOW, throttled_events=[1, 3]),
        Sort(429, SLOW, {}, frozenset({1, 3})),
    ),
    case(
        "429 throttled_users holds all events of the user",
        answer(429, error=SLOW, throttled_users={"user-a": 40}),
        Sort(429, SLOW, {}, frozenset({0, 2, 5})),
    ),
    case(
        "429 throttled_devices matches beside a user_id",
        answer(429, error=SLOW, throttled_devices={"device-1": 40, "device-2": 31}),
        Sort(429, SLOW, {}, frozenset({2, 3})),
    ),
    case(
        "429 daily quota of a user, even where its index is not throttled",
        answer(429, error=SLOW, exceeded_daily_quota_users={"user-b": 500_200}),
        Sort(429, SLOW, {1: f"exceeded daily quota: {SLOW}"}),
    ),
    case(
        "429 daily quota of a device",
        answer(429, error=SLOW, exceeded_daily_quota_devices={"device-3": 500_900}),
        Sort(429, SLOW, {4: f"exceeded daily quota: {SLOW}"}),
    ),
    case(
        "429 quota and throttle: the quota decides",
        answer(
            429,
            error=SLOW,
            exceeded_daily_quota_users={"user-b": 500_200},
            throttled_users={"user-a": 31},
            throttled_events=[1, 3],
        ),
        Sort(429, SLOW, {1: f"exceeded daily quota: {SLOW}"}, frozenset({0, 2, 3, 5})),
    ),
    case(
        "429 that names strangers only",
        answer(429, error=SLOW, throttled_users={"user-z": 31}, throttled_events=[6]),
        Busy(429, SLOW, throttled=True),
    ),
    case("429 without a body", Response(429), Busy(429, "HTTP 429", throttled=True)),
    case("429 with {}", answer(429), Busy(429, "HTTP 429: {}", throttled=True)),
    case(
        "429 without a body, with Retry-After",
        Response(429, b"", {"retry-after": "7"}),
        Busy(429, "HTTP 429", 7.0),
    ),
    case(
        "429 Retry-After is capped",
        Response(429, b"", {"retry-after": "86400"}),
        Busy(429, "HTTP 429", MAX_RETRY_AFTER),
    ),
]
FAILURES = [
    case("408", answer(408), Broken(408, "HTTP 408: {}")),
    case("timeout", fault("no complete answer"), Broken(0, "no complete answer")),
    case(
        "cut after sending began",
        fault("ServerDisconnectedError: closed"),
        Broken(0, "ServerDisconnectedError: closed"),
    ),
    case(
        "answer broken off inside the body",
        Response(400, b"", {}, "ClientPayloadError: cut"),
        Broken(400, "ClientPayloadError: cut"),
    ),
    case("500 with HTML", Response(500, b"<b>"), Broken(500, "HTTP 500: <b>")),
    case("502", Response(502), Busy(502, "HTTP 502")),
    case("503", Response(503), Busy(503, "HTTP 503")),
    case(
        "no connection at all",
        Response(0, error="ClientConnectorError: refused", sent=False),
        Busy(0, "ClientConnectorError: refused"),
    ),
    case(
        "503 with Retry-After",
        Response(503, b"", {"retry-after": "20"}),
        Busy(503, "HTTP 503", 20.0),
    ),
    case("504", Response(504), Busy(504, "HTTP 504")),
    case("599", Response(599), Broken(599, "HTTP 599")),
    case(
        "302 is not followed",
        Response(302, b"", {"location": "http://elsewhere.test/"}),
        Broken(302, "HTTP 302"),
    ),
    case("304", Response(304), Broken(304, "HTTP 304")),
    case("101", Response(101), Broken(101, "HTTP 101")),
    case("600 and more", Response(999), Broken(999, "HTTP 999")),
]


@pytest.mark.parametrize(
    ("response", "verdict", "records"),
    [
        *SUCCESS,
        *REFUSALS,
        *LISTS,
        *UNNAMED,
        *TOO_LARGE,
        *THROTTLES,
        *FAILURES,
    ],
)
def test_an_answer_means_one_thing(
    response: Response, verdict: Verdict, records: list[Record]
) -> None:
    """The status decides; a 4xx never makes a request that is sent again unchanged."""
    assert interpret(response, records, WALL) == verdict


def test_a_huge_answer_leaves_a_short_message() -> None:
    """At most 200 characters of a server's text get into a message."""
    verdict = interpret(Response(500, b"x" * 1_000_000), RECORDS, WALL)

    assert isinstance(verdict, Broken)
    assert len(verdict.message) <= len("HTTP 500: ") + 200


def test_hostile_names_of_fields_are_cut() -> None:
    """A field name that the server sends is text, whatever braces are in it."""
    lists = {"{0.__class__}" + "x" * 500: [0]}

    verdict = interpret(answer(400, events_with_invalid_fields=lists), RECORDS, WALL)

    assert isinstance(verdict, Sort)
    assert "field {0.__class__}xxx" in verdict.rejected[0]
    assert len(verdict.rejected[0]) < 500


# The frame --------------------------------------------------------------------------


def endpoint(**options: Any) -> AmplitudeEndpoint:
    """Return the endpoint of a project."""
    return AmplitudeEndpoint(Config(api_key=KEY, **options))


def test_a_request_carries_key_time_and_events() -> None:
    """The body is one JSON object around the events, byte for byte as they came."""
    bodies = [b'{"event_type":"a" }', b'{"event_type":"b","n":1.0}']

    framed = endpoint().frame(bodies, WALL)

    assert json.loads(framed) == {
        "api_key": KEY,
        "client_upload_time": "2024-02-03T04:05:06.789Z",
        "events": [{"event_type": "a"}, {"event_type": "b", "n": 1.0}],
    }
    assert b",".join(bodies) in framed


def test_the_upload_time_has_milliseconds_on_the_full_second() -> None:
    """The time keeps its form where the milliseconds are zero."""
    framed = endpoint().frame([b"{}"], 1_700_000_000.0)

    assert json.loads(framed)["client_upload_time"] == "2023-11-14T22:13:20.000Z"


def test_options_go_along_only_with_a_min_id_length() -> None:
    """An absent ``min_id_length`` leaves no trace in the request."""
    framed = endpoint(min_id_length=1).frame([b"{}"], WALL)

    assert json.loads(framed)["options"] == {"min_id_length": 1}
    assert b"options" not in endpoint().frame([b"{}"], WALL)


@pytest.mark.parametrize("options", [{}, {"min_id_length": 10**9}])
def test_the_frame_keeps_within_its_bound(options: dict[str, Any]) -> None:
    """What stands around the events is never larger than announced."""
    vendor = endpoint(**options)

    assert len(vendor.frame([], WALL)) <= vendor.frame_bytes


@pytest.mark.parametrize(
    ("use_batch", "most"), [(False, 10**6), (True, 20 * 10**6)], ids=["v2", "batch"]
)
def test_limits_stay_below_those_of_the_api(use_batch: bool, most: int) -> None:
    """A request has at most 2,000 events and less than 1 MB or 20 MB."""
    vendor = endpoint(use_batch=use_batch)

    assert vendor.max_events == 2_000
    assert most - 1_000 < vendor.max_bytes < most


def test_headers_say_what_is_sent_and_by_whom() -> None:
    """Headers name the library; the user's own come on top."""
    headers = endpoint(headers={"X-Team": "shop", "Accept": "text/plain"}).headers

    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("amplitude-async/")
    assert headers["X-Team"] == "shop"
    assert headers["Accept"] == "text/plain"


@pytest.mark.parametrize(
    ("options", "compress"),
    [
        ({}, True),
        ({"server_zone": "eu", "use_batch": True}, True),
        ({"compression": None}, False),
        ({"server_url": "http://proxy.test/"}, False),
        ({"server_url": "http://proxy.test/", "compression": "gzip"}, True),
    ],
)
def test_gzip_goes_to_who_is_known_to_take_it(
    options: dict[str, Any], compress: bool
) -> None:
    """Official URLs get gzip unless told otherwise, custom ones only when told so."""
    assert endpoint(**options).compress is compress


def test_a_fingerprint_tells_projects_and_hosts_apart_without_the_key() -> None:
    """A spool's label names its destination and gives nothing away."""
    ours = endpoint()
    other_key = AmplitudeEndpoint(Config(api_key="another"))
    other_host = endpoint(server_zone="EU")

    labels = {v.fingerprint() for v in (ours, other_key, other_host, endpoint())}

    assert len(labels) == 3
    assert "api2.amplitude.com" in ours.fingerprint()
    assert KEY not in ours.fingerprint()
    assert KEY not in repr(ours)


# What is read from answers ----------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("  ", None, id="blank"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param(" 17 ", 17.0, id="seconds"),
        pytest.param("300", 300.0, id="the cap"),
        pytest.param("301", 300.0, id="above the cap"),
        pytest.param("9" * 4_000, 300.0, id="absurd"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("\u0661\u0667", None, id="foreign digits"),
        pytest.param("soon", None, id="word"),
        pytest.param("Sat, 03 Feb 2024 04:05:36 GMT", 29.211, id="date"),
        pytest.param("Sat, 03 Feb 2024 04:05:36 -0000", 29.211, id="date without zone"),
        pytest.param("Sat, 03 Feb 2024 06:05:36 +0200", 29.211, id="date elsewhere"),
        pytest.param("Sat, 03 Feb 2024 03:00:00 GMT", 0.0, id="past"),
        pytest.param("Fri, 31 Dec 2049 23:59:59 GMT", 300.0, id="far future"),
        pytest.param("Sat, 99 Feb 2024 04:05:36 GMT", None, id="no such date"),
    ],
)
def test_retry_after_is_read_or_ignored(value: str | None, wait: float | None) -> None:
    """Seconds and dates count, from 0 to the cap; all else is as if absent."""
    headers = {} if value is None else {"retry-after": value}

    found = retry_after(headers, WALL, 300.0)

    assert found == (None if wait is None else pytest.approx(wait, abs=1e-3))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (b"bytes \xff", "bytes \N{REPLACEMENT CHARACTER}"),
        ("two\n\tlines  and\x1b[31m colour\x00", "two lines and [31m colour"),
        ("", ""),
        ("x" * 300, "x" * 200),
        ("é".encode() * 300, "é" * 200),
    ],
)
def test_an_excerpt_fits_a_log_line(text: str | bytes, shown: str) -> None:
    """A server's text is cut and loses what could break or forge a line."""
    assert excerpt(text) == shown


def test_a_failure_is_told_in_words() -> None:
    """The fault itself where there was no answer, else status and text."""
    assert describe_failure(Response(0, error="DNS failed")) == "DNS failed"
    assert describe_failure(Response(503)) == "HTTP 503"
    assert re.match(r"HTTP 502: <html>", describe_failure(Response(502, HTML)))


@pytest.mark.parametrize(
    "status", [302, 400, 401, 403, 404, 405, 408, 422, 429, 500, 502, 503, 504, 599]
)
@pytest.mark.parametrize(
    ("header", "wait"), [("20", 20.0), ("0", 0.0), ("86400", MAX_RETRY_AFTER)]
)
def test_a_retry_after_makes_any_bare_answer_a_busy_one(
    status: int, header: str, wait: float
) -> None:
    """A server that says when to come again objects to nothing that was sent."""
    response = Response(status, b"", {"retry-after": header})

    assert interpret(response, RECORDS, WALL) == Busy(status, f"HTTP {status}", wait)


def test_a_retry_after_does_not_hide_the_lists() -> None:
    """Events that an answer names are rejected or held whatever its headers say."""
    response = answer(400, header="20", error=INVALID, silenced_events=[1])

    assert isinstance(interpret(response, RECORDS, WALL), Sort)
    assert interpret(answer(413, header="20"), RECORDS, WALL) == Halve(
        413, "HTTP 413: {}"
    )
