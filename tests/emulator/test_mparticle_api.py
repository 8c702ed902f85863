"""The mParticle judge answers as the published rules say, field by field."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from amplitude_async.emulator.judgement import Arrival, Judgement
from amplitude_async.emulator.mparticle_api import (
    BULK_PATH,
    EVENTS_PATH,
    HISTORICAL_PATH,
    MAX_BATCH_BYTES,
    MAX_REQUEST_BYTES,
    MParticleApi,
)
from amplitude_async.emulator.mparticle_rules import find_problem, is_historical
from amplitude_async.emulator.rates import RateMeter

__all__: list[str] = []

NOW = 1_700_000_000.0
HOUR_MS = 3_600_000
PRODUCT = {"name": "shirt", "custom_attributes": {"size": "M"}}
IDENTITY = {
    "identity_type": "email",
    "identity": "a@example.com",
    "timestamp_unixtime_ms": 1,
}


def basic(pair: str = "key:secret") -> str:
    """Return the header value of these credentials."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


def judge(
    document: object,
    path: str = EVENTS_PATH,
    *,
    api: MParticleApi | None = None,
    encoding: str = "",
) -> Judgement:
    """Judge a document, or bytes as they are, sent to one of the paths."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    sent = {"Authorization": basic(), "Content-Encoding": encoding}
    arrival = Arrival(path=path, received_at=NOW, headers=sent, body=body)
    return (api or MParticleApi()).judge(arrival)


def batch(*events: object, **fields: Any) -> dict[str, Any]:
    """Return a batch without a problem around these events."""
    return {"environment": "development", "events": list(events), **fields}


def event(kind: str = "custom_event", **data: Any) -> dict[str, Any]:
    """Return an event, with the required fields if it is a custom one."""
    if kind == "custom_event":
        data = {"event_name": "signup", "custom_event_type": "other", **data}
    return {"event_type": kind, "data": data}


def message(verdict: Judgement) -> str:
    """Return the one error's message."""
    assert verdict.body is not None
    (error,) = verdict.body["errors"]
    text: str = error["message"]
    return text


def test_good_batch_is_answered_with_nothing() -> None:
    """A stored batch gets 202, no body, and its source_request_id as a key."""
    sent = batch(event(), source_request_id="r1")
    verdict = judge(sent)
    assert (verdict.status, verdict.body) == (202, None)
    assert (verdict.accepted, verdict.keys) == ((sent,), (("key", "r1"),))
    assert (verdict.unit, verdict.api_key_ok, verdict.note) == ("batch", True, "")


def test_bulk_stores_all_in_order() -> None:
    """An array of batches is stored as it is; one without an id has no key."""
    sent = [batch(), batch(source_request_id="r2"), batch(source_request_id="")]
    verdict = judge(sent, BULK_PATH)
    assert (verdict.status, verdict.accepted) == (202, tuple(sent))
    assert verdict.keys == (None, ("key", "r2"), None)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 403),
        ("Basic", 403),
        ("Basic !!!", 403),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), 403),
        ("Bearer " + base64.b64encode(b"key:secret").decode(), 403),
        (basic("key"), 403),
        (basic("key:"), 403),
        (basic(":secret"), 403),
        (basic("other:secret"), 403),
        (basic("key:other"), 403),
        (basic("key:pässword:"), 202),
        (basic("key:pässword:").replace("Basic", "basic"), 202),
    ],
)
def test_credentials(authorization: str | None, status: int) -> None:
    """No header is 401, any other header than the right one 403."""
    headers = {} if authorization is None else {"Authorization": authorization}
    body = json.dumps(batch()).encode()
    arrival = Arrival(EVENTS_PATH, NOW, headers=headers, body=body)
    verdict = MParticleApi({"key": "pässword:"}).judge(arrival)
    assert verdict.status == status
    assert verdict.api_key_ok == (status == 202)
    assert "pässword" not in str(verdict.body) + verdict.note


def test_keys_must_be_a_mapping() -> None:
    """A pair is no mapping, and the error does not repeat it."""
    with pytest.raises(ValueError, match="mapping") as raised:
        MParticleApi(("key", "top-secret"))  # type: ignore[arg-type]
    assert "top-secret" not in str(raised.value)
    assert "top-secret" not in repr(MParticleApi({"key": "top-secret"}))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", EVENTS_PATH),
        (b"{", EVENTS_PATH),
        (b'{"environment": "\xff"}', EVENTS_PATH),
        (b'{"environment": "development", "mpid": NaN}', EVENTS_PATH),
        (b"[" * 100_000, BULK_PATH),
        (b"[]", EVENTS_PATH),
        (b"null", EVENTS_PATH),
        (b"{}", EVENTS_PATH),
        (b"[]", BULK_PATH),
        (b"{}", BULK_PATH),
        (b"null", HISTORICAL_PATH),
        (b"[1]", BULK_PATH),
    ],
)
def test_unreadable_request_is_refused(body: bytes, path: str) -> None:
    """What is no JSON, or not the shape of the path, is a bad request."""
    verdict = judge(body, path)
    assert verdict.status == 400
    assert verdict.body == {
        "errors": [{"code": "BAD_REQUEST", "message": message(verdict)}]
    }
    assert verdict.api_key_ok


def test_compressed_body_is_refused() -> None:
    """Nobody documents compression, so a client that uses it is told."""
    verdict = judge(batch(), encoding="gzip")
    assert (verdict.status, verdict.accepted) == (400, ())
    assert "Content-Encoding is 'gzip'" in message(verdict)
    assert judge(batch(), encoding="Identity").status == 202


def test_too_large_request() -> None:
    """A body past the limit of its path is 413."""
    headers = {"Authorization": basic()}
    arrival = Arrival(BULK_PATH, NOW, headers=headers, body=None, too_large=True)
    verdict = MParticleApi().judge(arrival)
    assert verdict.status == 413
    assert verdict.body is not None
    assert verdict.body["errors"][0]["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("path", [EVENTS_PATH, BULK_PATH, HISTORICAL_PATH])
def test_body_limit_holds_on_every_path(path: str) -> None:
    """The three paths share one limit, others are not mParticle's."""
    assert MParticleApi().body_limit(path) == MAX_REQUEST_BYTES == 256_000
    assert MParticleApi().body_limit(path + "/") is None


def test_too_many_batches() -> None:
    """A hundred batches may be in one request, one more is 413."""
    assert judge([batch()] * 100, BULK_PATH).status == 202
    verdict = judge([batch()] * 101, BULK_PATH)
    assert (verdict.status, len(verdict.events)) == (413, 101)
    assert "101 batches" in message(verdict)


@pytest.mark.parametrize("path", [EVENTS_PATH, BULK_PATH])
def test_batch_size_is_measured_as_it_was_written(path: str) -> None:
    """The limit of a batch is exact, in bytes, with its own spaces and escapes."""

    def sized(size: int) -> bytes:
        head, tail = b'{"environment": "development",  "ip": "\\u00e9', b'"}'
        fill = size - len(head) - len(tail)
        written = head + "é".encode() * (fill // 2) + b"x" * (fill % 2) + tail
        small = json.dumps(batch()).encode()
        # The spaces between batches belong to neither.
        return written if path == EVENTS_PATH else b" [%s ,\n%s ] " % (small, written)

    assert judge(sized(MAX_BATCH_BYTES), path).status == 202
    verdict = judge(sized(MAX_BATCH_BYTES + 1), path)
    assert verdict.status == 413
    assert "128001 bytes" in verdict.note


GOOD = [
    {"environment": "production"},
    batch(mpid=-(2**63), user_identities={"customer_id": "c", "customerid": 5}),
    batch(user_identities={"other_id_10": "a", "phone_number_3": None}),
    batch(user_attributes={"plan": "pro", "gone": None, "tags": ["a", 1, True]}),
    batch(
        consent_state={
            "gdpr": {"ads": {"consented": False, "timestamp_unixtime_ms": 1}},
            "ccpa": {
                "data_sale_opt_out": {"consented": True, "timestamp_unixtime_ms": 1}
            },
        }
    ),
    batch(context={}),
    batch(context={"data_plan": {"plan_id": "p", "plan_version": 2}}),
    batch(event(custom_attributes={"a": 1, "b": None, "c": 1.5})),
    batch(event("session_start"), event("first_run"), event("uninstall")),
    batch(event("from the future", anything=[1])),
    batch(event("screen_view", screen_name="home")),
    batch(event("session_end", session_duration_ms=0)),
    batch(event("opt_out", is_opted_out=False)),
    batch(event("commerce_event", product_action={"action": "purchase"})),
    batch(
        event(
            "commerce_event",
            product_action={"action": "refund", "products": [PRODUCT, {}]},
            promotion_action=None,
        )
    ),
    batch(event("commerce_event", promotion_action={"action": "view"})),
    batch(event("commerce_event", product_impressions=[])),
    batch(event("user_identity_change", new=IDENTITY, old=None)),
    batch(event("user_attribute_change", user_attribute_name="a", new=[1], old=None)),
]


@pytest.mark.parametrize("sent", GOOD)
def test_what_the_rules_allow_passes(sent: Mapping[str, Any]) -> None:
    """No rule is made up: the published shapes are taken."""
    assert find_problem(sent) is None


BAD = [
    ("a batch must be a JSON object", [batch()]),
    ("environment is missing", {}),
    ("environment is missing", batch(environment="")),
    ("environment is 'unknown': use development", batch(environment="unknown")),
    ("environment is ['development']", batch(environment=["development"])),
    ("source_request_id must be text", batch(source_request_id=5)),
    ("mpid must be a 64-bit integer", batch(mpid="5")),
    ("mpid must be", batch(mpid=2**63)),
    ("mpid must be", batch(mpid=True)),
    ("mpid must be", batch(mpid=1.0)),
    ("events must be a JSON array", batch(events=None)),
    ("user_identities must be", batch(user_identities=["a"])),
    ("user_identities has no key 'user_id'", batch(user_identities={"user_id": "a"})),
    ("user_identities.email must be text", batch(user_identities={"email": []})),
    ("user_attributes must be", batch(user_attributes=[])),
    ("user_attributes.a must be", batch(user_attributes={"a": {}})),
    ("user_attributes.a must be", batch(user_attributes={"a": [[]]})),
    ("consent_state must be", batch(consent_state=None)),
    ("consent_state.lgpd is no", batch(consent_state={"lgpd": {}})),
    ("consent_state.gdpr must be", batch(consent_state={"gdpr": []})),
    ("consent_state.gdpr.a must be", batch(consent_state={"gdpr": {"a": True}})),
    (
        "consent_state.gdpr.a.consented is missing",
        batch(consent_state={"gdpr": {"a": {"timestamp_unixtime_ms": 1}}}),
    ),
    (
        "consent_state.gdpr.a.timestamp_unixtime_ms is missing",
        batch(consent_state={"gdpr": {"a": {"consented": False}}}),
    ),
    (
        "consent_state.gdpr.a.consented must be true or false",
        batch(
            consent_state={"gdpr": {"a": {"consented": 1, "timestamp_unixtime_ms": 1}}}
        ),
    ),
    ("consent_state.ccpa has no key 'a'", batch(consent_state={"ccpa": {"a": {}}})),
    ("context must be", batch(context=5)),
    ("context.data_plan must be", batch(context={"data_plan": None})),
    ("context.data_plan.plan_id is missing", batch(context={"data_plan": {}})),
    (
        "context.data_plan.plan_version must be",
        batch(context={"data_plan": {"plan_id": "p", "plan_version": "2"}}),
    ),
    ("events[1] must be a JSON object", batch(event(), "click")),
    ("events[0].event_type is missing", batch({"data": {}})),
    ("events[0].event_type must be text", batch({"event_type": 5, "data": {}})),
    ("events[0].data is missing", batch({"event_type": "first_run"})),
    ("events[0].data must be", batch({"event_type": "new", "data": []})),
    ("events[0].data.event_name is missing", batch(event(event_name=""))),
    ("events[0].data.event_name must be text", batch(event(event_name=5))),
    (
        "events[0].data.timestamp_unixtime_ms must be",
        batch(event("first_run", timestamp_unixtime_ms="1")),
    ),
    ("events[0].data.custom_attributes must", batch(event(custom_attributes=[]))),
    (
        "events[0].data.custom_attributes.a must be a scalar",
        batch(event(custom_attributes={"a": ["b"]})),
    ),
    (
        "events[0].data.is_opted_out must be true or false",
        batch(event("opt_out", is_opted_out="no")),
    ),
    ("events[0].data needs exactly one", batch(event("commerce_event"))),
    (
        "events[0].data needs exactly one",
        batch(event("commerce_event", product_action={}, promotion_action={})),
    ),
    (
        "events[0].data.product_action must be",
        batch(event("commerce_event", product_action="purchase")),
    ),
    (
        "events[0].data.promotion_action.action is missing",
        batch(event("commerce_event", promotion_action={})),
    ),
    (
        "events[0].data.product_action.products must be",
        batch(
            event("commerce_event", product_action={"action": "click", "products": {}})
        ),
    ),
    (
        "events[0].data.product_action.products[0] must be",
        batch(
            event("commerce_event", product_action={"action": "click", "products": [1]})
        ),
    ),
    (
        "products[1].custom_attributes.a must be",
        batch(
            event(
                "commerce_event",
                product_action={
                    "action": "click",
                    "products": [PRODUCT, {"custom_attributes": {"a": {}}}],
                },
            )
        ),
    ),
    ("events[0].data.old is missing", batch(event("user_identity_change", new=None))),
    (
        "events[0].data.new must be",
        batch(event("user_identity_change", new="a", old=None)),
    ),
    (
        "events[0].data.old.identity is missing",
        batch(
            event("user_identity_change", new=None, old={**IDENTITY, "identity": ""})
        ),
    ),
]


@pytest.mark.parametrize(("problem", "sent"), BAD)
def test_what_the_rules_forbid_is_named(problem: str, sent: object) -> None:
    """A batch that breaks a rule is a bad request that names the field."""
    assert problem in (find_problem(sent) or "")
    assert judge([sent], BULK_PATH).status == 400


REQUIRED = {
    "application_state_transition": ["application_transition_type"],
    "breadcrumb": ["label"],
    "crash_report": ["severity", "message"],
    "custom_event": ["custom_event_type", "event_name"],
    "network_performance": ["url", "response_code"],
    "opt_out": ["is_opted_out"],
    "profile": ["previous_mpid", "current_mpid", "profile_event_type"],
    "push_message": [
        "push_message_token",
        "push_message_type",
        "push_notification_payload",
    ],
    "push_registration": ["register", "registration_token"],
    "screen_view": ["screen_name"],
    "session_end": ["session_duration_ms"],
    "user_attribute_change": ["user_attribute_name"],
}
FILLED = {"is_opted_out": False, "register": True, "response_code": 200}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in REQUIRED.items() for name in names],
)
def test_required_data_field_is_missed(kind: str, name: str) -> None:
    """Each required field of each event type is asked for, and is enough."""
    numbers = {"session_duration_ms": 1, "previous_mpid": 1, "current_mpid": 2}
    data = {one: {**FILLED, **numbers}.get(one, "text") for one in REQUIRED[kind]}
    assert find_problem(batch({"event_type": kind, "data": data})) is None
    del data[name]
    problem = find_problem(batch({"event_type": kind, "data": data}))
    assert problem == f"events[0].data.{name} is missing or empty"


def test_one_bad_batch_refuses_the_bulk_request() -> None:
    """By default nothing is stored, and only the note tells which batch it was."""
    verdict = judge([batch(), batch(mpid="5"), batch()], BULK_PATH)
    assert (verdict.status, verdict.accepted, len(verdict.events)) == (400, (), 3)
    assert message(verdict) == "mpid must be a 64-bit integer"
    assert verdict.note == "batch 1: mpid must be a 64-bit integer"


def test_bulk_taken_in_part() -> None:
    """With bulk_partial the good batches are stored and the bad ones vanish."""
    api = MParticleApi(bulk_partial=True)
    verdict = judge([batch(mpid="5"), batch(mpid=5), 7], BULK_PATH, api=api)
    assert (verdict.status, verdict.accepted) == (202, (batch(mpid=5),))
    assert (verdict.unfit, verdict.too_young) == (2, 0)
    assert verdict.note == "dropped 2 of 3 batches in silence"
    assert judge([7], BULK_PATH, api=api).status == 400
    assert judge(batch(mpid="5"), api=api).status == 400


@pytest.mark.parametrize(
    ("ages", "kept"),
    [
        ([], False),
        ([None], False),
        ([72], True),
        ([71.9], False),
        ([800, 72], True),
        ([800, 71.9], False),
        ([800, None], False),
    ],
)
def test_historical_rules(ages: list[float | None], kept: bool) -> None:
    """Only batches whose every event is at least 72 hours old are kept."""
    events = [
        event()
        if age is None
        else event(timestamp_unixtime_ms=int(NOW * 1000 - age * HOUR_MS))
        for age in ages
    ]
    sent = batch(*events)
    assert is_historical(sent, NOW) is kept
    verdict = judge([sent], HISTORICAL_PATH)
    assert (verdict.status, verdict.body) == (202, None)
    assert len(verdict.accepted) == kept
    assert verdict.too_young == (not kept)
    assert len(judge([sent], BULK_PATH).accepted) == 1


def test_batch_without_an_event_list_is_not_historical() -> None:
    """An attribute-only batch is for the other endpoints."""
    assert not is_historical({"environment": "production"}, NOW)


def test_rate_counts_batches() -> None:
    """The use is told in percent, and past the limit the whole request is refused."""
    api, meter = MParticleApi(), RateMeter(10)
    first = api.judge_rate(judge([batch()] * 8, BULK_PATH), meter, 0.0)
    assert first.headers == {"X-mp-rate-limit-percentage-used": "80"}
    second = api.judge_rate(judge([batch()] * 3, BULK_PATH), meter, 0.5)
    assert (second.status, second.accepted, second.keys) == (429, (), ())
    assert second.headers == {
        "Retry-After": "1",
        "X-mp-rate-limit-exceeded": "account",
    }
    assert second.body is not None
    assert second.body["errors"][0]["code"] == "TOO_MANY_REQUESTS"
    assert (len(second.events), second.api_key_ok) == (3, True)
    third = api.judge_rate(judge([batch()] * 3, BULK_PATH), meter, 1.5)
    assert (third.status, len(third.accepted)) == (202, 3)


def test_lone_request_past_the_limit_is_let_through() -> None:
    """Otherwise no wait would ever help the sender of a full bulk request."""
    api, meter = MParticleApi(), RateMeter(10)
    verdict = api.judge_rate(judge([batch()] * 50, BULK_PATH), meter, 0.0)
    assert verdict.headers == {"X-mp-rate-limit-percentage-used": "100"}
    assert api.judge_rate(judge(batch()), meter, 0.1).status == 429


def test_errors_of_faults_are_worded_likewise() -> None:
    """A status a fault makes up gets an errors object, whatever it is."""
    assert MParticleApi.error_body(503, "Service Unavailable") == {
        "errors": [{"code": "SERVICE_UNAVAILABLE", "message": "Service Unavailable"}]
    }
    assert MParticleApi.error_body(599, "Error")["errors"][0]["code"] == "ERROR"
