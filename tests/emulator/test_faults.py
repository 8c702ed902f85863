"""Faults check themselves, and the script fires them in order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from amplitude_async.emulator import Fault, FaultScript, ReceivedRequest
from amplitude_async.emulator.script import parse_faults


def received(*users: str, path: str = "/batch", **more: Any) -> ReceivedRequest:
    """Return a request with one event per user id."""
    events = tuple({"event_type": "click", "user_id": user, **more} for user in users)
    return ReceivedRequest(path, 200, events=events)


def fire(script: FaultScript, request: ReceivedRequest) -> str | None:
    """Take a request through the script and name the fault that fired."""
    turn = script.turn()
    fault = turn.before_reading(request) or turn.after_reading(request)
    return None if fault is None else fault.label


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"status": 99}, "status"),
        ({"status": 600}, "status"),
        ({"status": True}, "status"),
        ({"status": "500"}, "status"),
        ({"body": 5}, "body"),
        ({"headers": ["a"]}, "headers"),
        ({"headers": {"a b": "x"}}, "headers"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"a": "x\r\nb: y"}}, "headers"),
        ({"headers": {1: "x"}}, "headers"),
        ({"delay": -1}, "delay"),
        ({"delay": math.nan}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"trickle": -0.1}, "trickle"),
        ({"hang_up": "now"}, "hang_up"),
        ({"count": 0}, "count"),
        ({"count": 1.5}, "count"),
        ({"rate": 0}, "rate"),
        ({"rate": 1.1}, "rate"),
        ({"rate": "1"}, "rate"),
        ({"path": "batch"}, "path"),
        ({"path": 5}, "path"),
        ({"ingest": 1}, "ingest"),
        ({"endless": "yes"}, "endless"),
        ({"when": True}, "when"),
        ({"name": 5}, "name"),
        ({"hang_up": "after", "status": 500}, "status"),
        ({"hang_up": "before", "body": "x"}, "body"),
        ({"hang_up": "after", "trickle": 0.1}, "trickle"),
        ({"hang_up": "after", "endless": True}, "endless"),
        ({"hang_up": "before", "ingest": True}, "ingest"),
        ({"hang_up": "during", "endless": True}, "endless"),
    ],
)
def test_bad_fault_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    """A fault that cannot be acted on names field, value and remedy."""
    with pytest.raises(ValueError, match=rf"fault {name}.* is .*: "):
        Fault(**fields)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (Fault.throttle, "ids"),
        (lambda: Fault.throttle("user-1"), "user_ids"),
        (lambda: Fault.throttle(user_ids=5), "user_ids"),  # type: ignore[arg-type]
        (lambda: Fault.quota(device_ids=[5]), "device_ids"),  # type: ignore[list-item]
        (lambda: Fault.throttle(["user-1"], eps_threshold=0), "eps_threshold"),
        (lambda: Fault.too_large(-1), "max_events"),
    ],
)
def test_bad_domain_fault_is_refused_by_name(build: Any, name: str) -> None:
    """The named faults check their own parameters too."""
    with pytest.raises(ValueError, match=f"fault {name} is"):
        build()


@pytest.mark.parametrize(
    ("fault", "stores"),
    [
        (Fault(), True),
        (Fault(delay=1), True),
        (Fault(200), True),
        (Fault(202, body="no json"), True),
        (Fault(302), False),
        (Fault(500), False),
        (Fault(500, ingest=True), True),
        (Fault(hang_up="before"), False),
        (Fault(hang_up="during"), False),
        (Fault(hang_up="during", ingest=True), True),
        (Fault(hang_up="after"), True),
    ],
)
def test_which_faults_store_events(fault: Fault, stores: bool) -> None:
    """A fault stores events when its answer says so, or when told to."""
    assert fault.stores() is stores


@pytest.mark.parametrize(
    ("fault", "label"),
    [
        (Fault(name="mine"), "mine"),
        (Fault(503), "status 503"),
        (Fault(hang_up="after"), "hang up after"),
        (Fault(delay=1), "delay"),
        (Fault(trickle=1), "fault"),
        (Fault.html(), "html"),
    ],
)
def test_fault_has_a_label(fault: Fault, label: str) -> None:
    """Records name a fault, by its name or by what it does."""
    assert fault.label == label


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault(), {"judged": True}),
        (Fault(200), {"judged": True}),
        (Fault(body="text"), "text"),
        (Fault(500), {"code": 500, "error": "Internal Server Error"}),
        (Fault(599), {"code": 599, "error": "Error"}),
        (Fault(413), {"code": 413, "error": "Payload too large"}),
        (
            Fault(429),
            {"code": 429, "error": "Too many requests for some devices and users"},
        ),
        (Fault.invalid_key(), {"code": 400, "error": "Invalid API key"}),
        (Fault.server_error(), {"code": 500, "error": "Internal Server Error"}),
        (Fault(body=lambda request: {"path": request.path}), {"path": "/batch"}),
    ],
)
def test_answer_of_a_fault(fault: Fault, answer: object) -> None:
    """A fault answers its body, else one that fits its status, else as judged."""
    assert fault.answer(received(), {"judged": True}) == answer


def test_throttle_names_ids_and_events_of_the_request() -> None:
    """The 429 body lists only those ids that the request holds."""
    fault = Fault.throttle(["user-1", "absent"], ["device-2"], eps_threshold=30)
    request = ReceivedRequest(
        "/batch",
        200,
        events=({"user_id": "user-1"}, {"user_id": "x"}, {"device_id": "device-2"}),
    )
    assert fault.answer(request, {}) == {
        "code": 429,
        "error": "Too many requests for some devices and users",
        "eps_threshold": 30,
        "throttled_devices": {"device-2": 31},
        "throttled_users": {"user-1": 31},
        "exceeded_daily_quota_users": {},
        "exceeded_daily_quota_devices": {},
        "throttled_events": [0, 2],
    }


def test_quota_and_silenced_name_ids_and_events() -> None:
    """Both bodies have the documented keys."""
    request = received("user-1", "user-2", device_id="phone")
    quota = Fault.quota(["user-2"]).answer(request, {})
    assert isinstance(quota, dict)
    assert quota["exceeded_daily_quota_users"] == {"user-2": 500_001}
    assert quota["throttled_events"] == [1]
    assert Fault.silenced(["phone"]).answer(request, {}) == {
        "code": 400,
        "error": "Events silenced for device_id",
        "eps_threshold": 100,
        "exceeded_daily_quota_devices": {},
        "silenced_devices": ["phone"],
        "silenced_events": [0, 1],
        "throttled_devices": {},
        "throttled_events": [],
    }


def test_script_fires_in_order_and_counts_down() -> None:
    """Each fault fires as often as it says, the first that is left first."""
    script = FaultScript()
    script.add(Fault(503, count=2), Fault(hang_up="before"), Fault(429, count=None))
    fired = [fire(script, received()) for _ in range(5)]
    assert fired == ["status 503"] * 2 + ["hang up before"] + ["status 429"] * 2
    assert [fault.status for fault in script.pending] == [429]
    script.clear()
    assert fire(script, received()) is None


def test_script_skips_what_does_not_match() -> None:
    """Path and condition decide who gets a fault; others leave it in place."""
    script = FaultScript()
    script.add(
        Fault(500, path="/2/httpapi"),
        Fault.throttle(["user-1"]),
        Fault(hang_up="before", when=lambda request: len(request.events) > 1),
    )
    assert fire(script, received("user-2")) is None
    assert fire(script, received("user-2", "user-3")) == "hang up before"
    assert fire(script, received("user-1")) == "throttle"
    assert fire(script, received("user-1", path="/2/httpapi")) == "status 500"
    assert script.pending == ()


def test_hang_up_before_may_pass_to_the_next() -> None:
    """A hang-up whose condition fails hands the request to the fault behind it."""
    script = FaultScript()
    script.add(Fault(hang_up="before", when=lambda _: False), Fault(500))
    assert fire(script, received()) == "status 500"


def test_too_large_lasts_until_requests_are_small() -> None:
    """It answers 413 as long as requests hold too many events."""
    script = FaultScript()
    script.add(Fault.too_large(1))
    assert fire(script, received("a", "b")) == "too_large"
    assert fire(script, received("a", "b")) == "too_large"
    assert fire(script, received("a")) is None


def test_fault_used_up_meanwhile_does_not_fire() -> None:
    """Two requests that wait for one fault do not both get it."""
    script = FaultScript()
    script.add(Fault(500))
    first, second = script.turn(), script.turn()
    for turn in (first, second):
        assert turn.before_reading(received()) is None
    assert first.after_reading(received()) is not None
    assert second.after_reading(received()) is None


def test_rate_is_drawn_from_the_seed() -> None:
    """The same seed repeats the same draws, also after a clear."""

    def draw(script: FaultScript) -> list[str | None]:
        script.add(Fault(500, rate=0.5, count=None))
        return [fire(script, received()) for _ in range(50)]

    script = FaultScript(seed=7)
    drawn = draw(script)
    assert 10 < drawn.count("status 500") < 40
    script.clear()
    assert draw(script) == drawn
    assert draw(FaultScript(seed=8)) != drawn


def test_only_faults_are_added() -> None:
    """Anything else is refused with an example."""
    with pytest.raises(TypeError, match="Fault"):
        FaultScript().add(503)  # type: ignore[arg-type]


def test_script_describes_itself() -> None:
    """What is pending is told in plain JSON values."""
    script = FaultScript()
    script.add(Fault(503, count=3), Fault(delay=math.inf, path="/batch", count=None))
    assert script.describe() == [
        {
            "id": 1,
            "text": "answers 503, 3 more times",
            "name": "status 503",
            "left": 3,
            "status": 503,
        },
        {
            "id": 2,
            "text": "never answers, on /batch, until it is removed",
            "name": "delay",
            "left": None,
            "delay": "inf",
            "path": "/batch",
        },
    ]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({}, "fault"),
        ({"status": 503, "headers": {"Retry-After": "1"}, "count": None}, "status 503"),
        ({"kind": "throttle", "user_ids": ["user-1"]}, "throttle"),
        ({"kind": "quota", "device_ids": ["d"], "count": 2}, "quota"),
        ({"kind": "silenced", "device_ids": ["d"]}, "silenced"),
        ({"kind": "too_large", "max_events": 5}, "too_large"),
        ({"kind": "invalid_key"}, "invalid_key"),
        ({"kind": "server_error", "status": 503}, "server_error"),
        ({"kind": "html"}, "html"),
    ],
)
def test_fault_is_read_from_json(value: dict[str, Any], label: str) -> None:
    """Every kind can be posted, alone or in a list."""
    assert [fault.label for fault in parse_faults(value)] == [label]
    assert [fault.label for fault in parse_faults([value, value])] == [label] * 2


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (5, "JSON object"),
        ([5], "JSON object"),
        ({"stauts": 5}, "no key 'stauts': use "),
        ({"when": "x"}, "no key 'when'"),
        ({"kind": "flood"}, "kind is 'flood': use one of throttle"),
        ({"kind": ["html"]}, "kind is"),
        ({"kind": "html", "delay": 1}, "html fault has no key 'delay'"),
        ({"kind": "silenced"}, "lacks a key.*device_ids"),
        ({"kind": "html", "status": "x"}, "status is 'x'"),
        ({"status": 7}, "status is 7"),
    ],
)
def test_bad_json_fault_is_explained(value: object, match: str) -> None:
    """What is no fault is answered with what to change."""
    with pytest.raises(ValueError, match=match):
        parse_faults(value)
