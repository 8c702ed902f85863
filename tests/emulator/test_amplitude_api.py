"""The judge answers as Amplitude's documentation says, table by table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from amplitude_async.emulator.amplitude_api import (
    BATCH_PATH,
    HTTP_API_PATH,
    AmplitudeApi,
)
from amplitude_async.emulator.judgement import Arrival, Judgement
from amplitude_async.emulator.rates import RateMeter

GOOD = {"event_type": "click", "user_id": "user-1", "time": 1, "insert_id": "i1"}


def judge(document: object, *, api_keys: set[str] | None = None) -> Judgement:
    """Judge a document sent to the HTTP V2 endpoint."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    arrival = Arrival(path=HTTP_API_PATH, received_at=12.5, body=body)
    return AmplitudeApi(api_keys).judge(arrival)


def request(*events: object, **more: object) -> dict[str, object]:
    """Return a request body with these events."""
    return {"api_key": "key", "events": list(events), **more}


def test_good_request_is_answered_with_counts_size_and_time() -> None:
    """The 200 body has the four documented keys and the accepted events."""
    body = json.dumps(request(GOOD, GOOD)).encode()
    verdict = judge(body)
    assert verdict.status == 200
    assert verdict.body == {
        "code": 200,
        "events_ingested": 2,
        "payload_size_bytes": len(body),
        "server_upload_time": 12500,
    }
    assert verdict.accepted == (GOOD, GOOD)
    assert verdict.api_key_ok


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "Missing request body"),
        (b" \r\n\t", "Missing request body"),
        (b"{", "Invalid JSON request body"),
        (b"[]", "Invalid JSON request body"),
        (b"null", "Invalid JSON request body"),
        (b'"text"', "Invalid JSON request body"),
        (b'{"api_key": NaN}', "Invalid JSON request body"),
        (b'{"api_key": -Infinity}', "Invalid JSON request body"),
        (b'{"api_key": "\xff"}', "Invalid JSON request body"),
        (b"[" * 100_000, "Invalid JSON request body"),
    ],
)
def test_unreadable_body_is_refused(body: bytes, error: str) -> None:
    """A body that is absent or no JSON object is named as such."""
    verdict = judge(body)
    assert (verdict.status, verdict.body) == (400, {"code": 400, "error": error})
    assert not verdict.api_key_ok


def test_undecodable_body_is_no_json() -> None:
    """A body whose encoding could not be undone is no valid JSON."""
    verdict = AmplitudeApi().judge(Arrival(HTTP_API_PATH, 0.0, body=None))
    assert verdict.body == {"code": 400, "error": "Invalid JSON request body"}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "api_key"),
        ({"events": [GOOD]}, "api_key"),
        ({"api_key": None, "events": [GOOD]}, "api_key"),
        ({"api_key": "key"}, "events"),
        ({"api_key": "key", "events": None}, "events"),
        ({"api_key": "key", "events": []}, "events"),
        ({"api_key": "key", "events": {"0": GOOD}}, "events"),
    ],
)
def test_missing_field_is_named(document: dict[str, object], field: str) -> None:
    """A request without key or events says which one it lacks."""
    verdict = judge(document)
    assert verdict.status == 400
    assert verdict.body == {
        "code": 400,
        "error": "Request missing required field",
        "missing_field": field,
    }


@pytest.mark.parametrize("key", ["", 7, ["key"], "other"])
def test_unknown_key_is_refused_without_repeating_it(key: object) -> None:
    """The answer to a bad key is the documented error and nothing of the key."""
    verdict = judge({"api_key": key, "events": [GOOD]}, api_keys={"key"})
    assert verdict.body == {"code": 400, "error": "Invalid API key"}
    assert not verdict.api_key_ok
    assert verdict.accepted == ()


def test_known_key_is_accepted() -> None:
    """A key of the collection is accepted."""
    assert judge(request(GOOD), api_keys={"key"}).status == 200


def test_keys_given_as_one_string_are_refused() -> None:
    """A string would silently become a set of letters."""
    with pytest.raises(ValueError, match="collection"):
        AmplitudeApi("key")


@pytest.mark.parametrize("event", [None, 1, "event", [GOOD]])
def test_event_that_is_no_object_is_refused(event: object) -> None:
    """One event that is no JSON object refuses the request."""
    verdict = judge(request(GOOD, event))
    assert verdict.body == {"code": 400, "error": "Invalid event JSON"}


MISSING = ("events_with_missing_fields", "Request missing required field")
INVALID = ("events_with_invalid_fields", "Invalid field values on some events")
SHORT = ("events_with_invalid_id_lengths", "Invalid id length for user_id or device_id")


@pytest.mark.parametrize(
    ("event", "finding", "field"),
    [
        ({"user_id": "user-1"}, MISSING, "event_type"),
        ({**GOOD, "event_type": None}, MISSING, "event_type"),
        ({**GOOD, "event_type": ""}, MISSING, "event_type"),
        ({**GOOD, "event_type": " \t"}, MISSING, "event_type"),
        ({**GOOD, "event_type": 5}, INVALID, "event_type"),
        ({**GOOD, "event_type": ["a"]}, INVALID, "event_type"),
        ({"event_type": "click"}, MISSING, "user_id"),
        ({"event_type": "click", "user_id": "", "device_id": None}, MISSING, "user_id"),
        ({**GOOD, "user_id": "four"}, SHORT, "user_id"),
        ({**GOOD, "user_id": 1234}, SHORT, "user_id"),
        ({"event_type": "click", "device_id": "four"}, SHORT, "device_id"),
        ({**GOOD, "user_id": "Unknown"}, INVALID, "user_id"),
        ({**GOOD, "user_id": "None"}, INVALID, "user_id"),
        ({**GOOD, "user_id": "{}"}, INVALID, "user_id"),
        ({**GOOD, "user_id": 0}, INVALID, "user_id"),
        ({**GOOD, "user_id": True}, INVALID, "user_id"),
        ({**GOOD, "user_id": {"id": "user-1"}}, INVALID, "user_id"),
        ({**GOOD, "user_id": "ok-id", "device_id": "lmy47d"}, INVALID, "device_id"),
        (
            {**GOOD, "device_id": "00000000-0000-0000-0000-000000000000"},
            INVALID,
            "device_id",
        ),
        ({**GOOD, "time": "1"}, INVALID, "time"),
        ({**GOOD, "time": 1.0}, INVALID, "time"),
        ({**GOOD, "time": True}, INVALID, "time"),
        ({**GOOD, "insert_id": 5}, INVALID, "insert_id"),
    ],
)
def test_bad_event_is_named_by_field_and_index(
    event: dict[str, object], finding: tuple[str, str], field: str
) -> None:
    """Field and index of a bad event are answered, and nothing is accepted."""
    key, error = finding
    verdict = judge(request(GOOD, event, GOOD))
    assert verdict.body == {"code": 400, "error": error, key: {field: [1]}}
    assert verdict.accepted == ()
    assert len(verdict.events) == 3


@pytest.mark.parametrize(
    "event",
    [
        {"event_type": "click", "user_id": "12345"},
        {"event_type": "click", "user_id": 12345},
        {"event_type": "click", "device_id": "12345", "time": None, "insert_id": None},
        {"event_type": "$groupidentify", "groups": {"org": "a"}},
        {"event_type": "$groupidentify", "user_id": "unknown"},
    ],
)
def test_unusual_but_good_event_is_accepted(event: dict[str, object]) -> None:
    """What the documentation allows is accepted."""
    assert judge(request(event)).accepted == (event,)


def test_all_bad_indexes_are_listed() -> None:
    """Every kind of problem lists every event that has it."""
    nothing: dict[str, object] = {}
    short = {"event_type": "click", "user_id": "a", "device_id": "b"}
    late = {**GOOD, "time": "late"}
    verdict = judge(request(nothing, GOOD, short, late, nothing, short))
    assert verdict.body == {
        "code": 400,
        "error": "Request missing required field",
        "events_with_missing_fields": {"event_type": [0, 4], "user_id": [0, 4]},
        "events_with_invalid_fields": {"time": [3]},
        "events_with_invalid_id_lengths": {"user_id": [2, 5], "device_id": [2, 5]},
    }


def test_short_id_is_removed_where_another_is_left() -> None:
    """A short id beside a usable one is taken out of the event that is stored."""
    event = {**GOOD, "device_id": "abc"}
    verdict = judge(request(event))
    assert verdict.accepted == (GOOD,)
    assert verdict.events == (event,)
    assert verdict.keys == (("key", "user-1", "i1"),)


@pytest.mark.parametrize(
    ("options", "user_id", "status"),
    [
        (None, "1234", 400),
        ({}, "1234", 400),
        ({"min_id_length": None}, "1234", 400),
        ({"min_id_length": 1}, "1", 200),
        ({"min_id_length": 8}, "1234567", 400),
        ({"min_id_length": 8}, "12345678", 200),
    ],
)
def test_min_id_length_moves_the_limit(
    options: object, user_id: str, status: int
) -> None:
    """The request's own minimum replaces the default of five."""
    event = {"event_type": "click", "user_id": user_id}
    assert judge(request(event, options=options)).status == status


@pytest.mark.parametrize(
    "options", [[], "x", {"min_id_length": 0}, {"min_id_length": "5"}]
)
def test_bad_options_are_refused_with_a_note(options: object) -> None:
    """Unusable options refuse the request, and the note says what to change."""
    verdict = judge(request(GOOD, options=options))
    assert verdict.status == 400
    assert "options" in verdict.note


def test_bool_is_no_min_id_length() -> None:
    """True is not the number one."""
    verdict = judge(request(GOOD, options={"min_id_length": True}))
    assert "got True" in verdict.note


@pytest.mark.parametrize(("count", "status"), [(2000, 200), (2001, 413)])
def test_event_limit(count: int, status: int) -> None:
    """2,000 events are the most a request may hold."""
    verdict = judge(request(*[GOOD] * count))
    assert verdict.status == status
    if status == 413:
        assert verdict.body == {"code": 413, "error": "Payload too large"}


def test_too_large_body_is_413() -> None:
    """What the reader stopped at the limit is answered 413."""
    arrival = Arrival(HTTP_API_PATH, 0.0, body=None, too_large=True)
    verdict = AmplitudeApi().judge(arrival)
    expected = {"code": 413, "error": "Payload too large"}
    assert (verdict.status, verdict.body) == (413, expected)


@pytest.mark.parametrize(
    ("path", "limit"),
    [(HTTP_API_PATH, 1_000_000), (BATCH_PATH, 20_000_000), ("/other", None)],
)
def test_body_limits(path: str, limit: int | None) -> None:
    """Each endpoint has its documented limit."""
    assert AmplitudeApi().body_limit(path) == limit


def test_options_and_upload_time_are_reported() -> None:
    """What the request says of itself is kept beside the verdict."""
    verdict = judge(
        request(GOOD, options={"min_id_length": 3}, client_upload_time="2026-01-01")
    )
    assert verdict.options == {"min_id_length": 3}
    assert verdict.client_upload_time == "2026-01-01"


@pytest.mark.parametrize(
    ("more", "identity"),
    [
        ({}, "user-1"),
        ({"device_id": "device"}, "device"),
        ({"insert_id": ""}, None),
        ({"insert_id": None}, None),
    ],
)
def test_dedup_key_prefers_the_device(
    more: Mapping[str, Any], identity: str | None
) -> None:
    """The key is project, device (else user) and insert id, none without the latter."""
    verdict = judge(request({**GOOD, **more}))
    assert verdict.keys == (None if identity is None else ("key", identity, "i1"),)


def test_rate_verdict_names_the_fast_and_their_events() -> None:
    """An identity above the threshold refuses the whole request with 429."""
    api = AmplitudeApi()
    meter = RateMeter(2)
    slow = {"event_type": "click", "user_id": "slow-one"}
    fast = {"event_type": "click", "user_id": "fast-one", "device_id": "phone"}
    verdict = api.judge_rate(judge(request(slow, fast, fast, fast)), meter, 0.0)
    assert verdict.status == 429
    assert verdict.accepted == ()
    assert verdict.body == {
        "code": 429,
        "error": "Too many requests for some devices and users",
        "eps_threshold": 2,
        "throttled_devices": {"phone": 3},
        "throttled_users": {"fast-one": 3},
        "exceeded_daily_quota_users": {},
        "exceeded_daily_quota_devices": {},
        "throttled_events": [1, 2, 3],
    }
    calm = judge(request(slow, fast, fast))
    assert api.judge_rate(calm, meter, 0.0) is calm
