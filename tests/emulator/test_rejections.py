"""What was not taken is kept as well, each event with its reason."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault, ReceivedRequest, Seen
from amplitude_async.emulator.naming import named_problems

__all__ = ["session"]

GOOD = {"event_type": "Paid", "user_id": "user-1", "device_id": "phone-1"}
KEY = {"Authorization": "Basic a2V5OnNlY3JldA=="}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session."""
    async with aiohttp.ClientSession() as running:
        yield running


async def send(
    session: aiohttp.ClientSession, emulator: Emulator, *events: Any, **more: Any
) -> int:
    """Send events and return the status."""
    body = {"api_key": "key", "events": list(events), **more}
    async with session.post(emulator.batch_url, json=body) as response:
        return response.status


async def test_each_event_of_a_refused_request_is_told_why(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """The bad ones their own reason, the others that of the request."""
    bad, worse = {"event_type": "Paid"}, {**GOOD, "event_type": "", "time": "now"}
    assert await send(session, emulator, GOOD, bad, worse) == 400
    whole = (
        "its request was answered 400: event 1: user_id is missing, and so is "
        "device_id; 1 more is refused"
    )
    reasons = {
        0: whole,
        1: "user_id is missing, and so is device_id",
        2: "event_type is missing or empty",
    }
    (request,) = emulator.requests
    assert request.reasons == reasons
    assert (request.number, request.taken) == (1, False)
    rejected = emulator.events(rejected=True)
    assert [seen.event for seen in rejected] == [GOOD, bad, worse]
    assert [seen.reason for seen in rejected] == list(reasons.values())
    assert {(seen.status, seen.request, seen.verdict) for seen in rejected} == {
        (400, 1, "rejected")
    }
    assert [(seen.number, seen.index) for seen in rejected] == [(1, 0), (2, 1), (3, 2)]
    assert emulator.events == emulator.events() == emulator.events(rejected=False) == []
    assert emulator.stats.events_rejected == 3


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (Fault.throttle(["user-1"]), 429, "its user or device is throttled"),
        (Fault.quota(["user-1"]), 429, "the daily quota of its user_id is exceeded"),
        (
            Fault.quota(device_ids=["phone-1"]),
            429,
            "the daily quota of its device_id is exceeded",
        ),
        (Fault.silenced(["phone-1"]), 400, "its device is silenced"),
        (
            Fault.too_large(0, count=1),
            413,
            "its request was answered 413: the fault 'too_large' fired",
        ),
        (
            Fault.html(),
            502,
            "its request was answered 502: the fault 'html' fired",
        ),
        (
            Fault(hang_up="during"),
            200,
            "its request was answered 200: the fault 'hang up during' fired",
        ),
        (
            Fault(400, body={"events_with_missing_fields": {"event_type": [0]}}),
            400,
            "event_type is missing",
        ),
        (
            Fault(400, body={"events_with_invalid_id_lengths": {"user_id": [0]}}),
            400,
            "user_id is too short",
        ),
    ],
)
async def test_a_fault_says_why_as_well(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    fault: Fault,
    status: int,
    reason: str,
) -> None:
    """Also one whose answer was written by hand."""
    emulator.faults.add(fault)
    if fault.hang_up:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(
                emulator.batch_url, json={"api_key": "key", "events": [GOOD]}
            ) as response:
                await response.read()
    else:
        assert await send(session, emulator, GOOD) == status
    (seen,) = emulator.events(rejected=True)
    assert (seen.status, seen.reason) == (status, reason)
    assert emulator.requests[0].reasons == {0: reason}


@pytest.mark.parametrize("hang_up", ["before", "after"])
async def test_a_cut_connection_is_told_as_no_answer(
    emulator: Emulator, session: aiohttp.ClientSession, hang_up: Any
) -> None:
    """What was stored all the same is not among the rejected."""
    emulator.faults.add(Fault(hang_up=hang_up, count=None))
    with pytest.raises(aiohttp.ClientError):
        await send(session, emulator, GOOD)
    assert emulator.events(rejected=True) == []
    assert len(emulator.events) == (hang_up == "after")
    assert emulator.requests[0].taken == (hang_up == "after")
    assert emulator.requests[0].status == 0


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"api_key": "other", "events": [GOOD]}, 400, "api_key is none of those"),
        ({"events": [GOOD]}, 400, "api_key is missing or empty"),
        (
            {"api_key": "key", "events": [GOOD], "options": 5},
            400,
            "options must be a JSON object",
        ),
        ({"api_key": "key", "events": [GOOD] * 2001}, 413, "2001 events in one"),
        ({"api_key": "key", "events": [GOOD] * 12}, 429, "user or device is throttled"),
        ({"api_key": "key", "events": [GOOD, 1]}, 400, "1 of the events are no JSON"),
    ],
)
async def test_the_judges_own_refusals_say_why(
    session: aiohttp.ClientSession, body: object, status: int, reason: str
) -> None:
    """Whatever of the request could be read has the reason of the whole."""
    async with Emulator(api_keys=["key"], eps_threshold=10) as emulator:
        async with session.post(emulator.batch_url, json=body) as response:
            assert response.status == status
        rejected = emulator.events(rejected=True)
        assert reason in rejected[0].reason
        assert emulator.stats.events_rejected == len(rejected)


@pytest.mark.parametrize("data", [b"{", b"", b"[1]"])
async def test_a_body_that_cannot_be_read_has_its_note(
    emulator: Emulator, session: aiohttp.ClientSession, data: bytes
) -> None:
    """There is no event to tell of."""
    async with session.post(emulator.batch_url, data=data) as response:
        assert response.status == 400
    assert emulator.events(rejected=True) == []
    assert emulator.requests[0].reasons == {}
    assert emulator.requests[0].note


async def test_a_copy_is_neither_stored_nor_rejected(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """It was accepted."""
    event = {**GOOD, "insert_id": "a"}
    for _ in range(2):
        assert await send(session, emulator, event) == 200
    assert emulator.events == [event]
    assert emulator.events(rejected=True) == []
    assert (emulator.stats.duplicates, emulator.stats.events_rejected) == (1, 0)


async def test_batches_not_taken_say_why(session: aiohttp.ClientSession) -> None:
    """Those of a refused request, and those that were dropped in silence."""
    good = {"environment": "development", "user_identities": {"customer_id": "u1"}}
    bad = {"environment": "moon"}
    async with Emulator(bulk_partial=True) as emulator:
        url = emulator.mparticle_url + "/bulkevents"
        for path, sent, status in (
            ("", [bad, 5, good], 202),
            ("", [bad], 400),
            ("/historical", [good], 202),
        ):
            async with session.post(url + path, json=sent, headers=KEY) as response:
                assert response.status == status
        assert emulator.batches == [good]
        why = "environment is 'moon': use development or production"
        young = "an event is younger than 72 hours, or has no time"
        rejected = emulator.batches(rejected=True)
        assert [(seen.status, seen.reason) for seen in rejected] == [
            (202, why),
            (400, why),
            (202, young),
        ]
        first = emulator.requests[0]
        assert (first.reasons, first.taken) == ({0: why}, True)
        assert emulator.stats.batches_rejected == 3


async def test_what_was_not_taken_is_bounded_apart_from_the_rest(
    session: aiohttp.ClientSession,
) -> None:
    """A flood of bad events drives out no good one, and is told in numbers."""
    async with Emulator(keep=3, keep_bytes=20_000) as emulator:
        assert await send(session, emulator, GOOD) == 200
        for number in range(5):
            await send(session, emulator, {"event_type": f"Bad {number}"})
        assert emulator.events == [GOOD]
        rejected = emulator.events(rejected=True)
        assert [seen.name for seen in rejected] == ["Bad 2", "Bad 3", "Bad 4"]
        stats = emulator.stats
        assert (stats.events_rejected, stats.rejected_forgotten) == (5, 2)
        assert stats.events_forgotten == 0
        await send(session, emulator, {"event_type": "x" * 20_000})
        assert len(emulator.events(rejected=True)) == 1


async def test_a_list_of_events_goes_where_any_list_goes(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Copied, pickled and compared it is what it holds."""
    await send(session, emulator, GOOD)
    events = emulator.events
    pickled = pickle.loads(pickle.dumps(events))  # noqa: S301 - our own
    for other in (copy.deepcopy(events), pickled):
        assert other == events == [GOOD]
        assert other[0] is not events[0]
    assert json.loads(json.dumps(events)) == [GOOD]
    assert repr(events) == repr([GOOD])


def test_what_is_seen_shows_no_content() -> None:
    """A line about it holds no property and no id."""
    seen = Seen(
        number=1,
        received_at=0.0,
        verdict="rejected",
        reason="too late",
        status=400,
        request=1,
        index=0,
        event={"event_type": "Paid", "user_id": "secret", "a": "secret"},
    )
    assert repr(seen) == "<Seen 1 'Paid' rejected 400: too late>"
    assert (seen.name, seen.user_id, seen.device_id) == ("Paid", "secret", "")


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        {"silenced_events": 5, "events_with_missing_fields": [1]},
        {"events_with_missing_fields": {"a": 5}},
        {"throttled_events": [True, "0", -1, 9, None, [0]]},
        {"throttled_events": [], "exceeded_daily_quota_users": ["user-1", 5]},
    ],
)
def test_an_answer_that_names_no_event_gives_no_reason(body: object) -> None:
    """A body of a fault may be anything."""
    assert named_problems(body, [GOOD]) == {}


def test_a_request_without_a_note_says_its_status() -> None:
    """As far as anything is known of it."""
    request = ReceivedRequest("/batch", 500, events=(GOOD,), taken=False)
    assert request.reasons == {0: "its request was answered 500"}
    assert json.dumps(ReceivedRequest("/batch", 200, events=(GOOD,)).reasons) == "{}"
