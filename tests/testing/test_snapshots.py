"""Snapshots: plain dicts that are the same in every run."""

import json
import random

import pytest

from amplitude_async import Event, Identify, Revenue
from amplitude_async.mparticle import Batch, CustomEvent, UserIdentities
from amplitude_async.testing import CapturedEvents
from tests.testing.conftest import Captor

__all__: list[str] = []


def test_what_each_run_makes_anew_is_masked(
    events: CapturedEvents, captor: Captor
) -> None:
    """Ids, times and the library; what the user chose stays."""
    captor.track("Paid", user_id="user-1", event_properties={"total": 9.5, "time": 3})
    captor.track("Paid", user_id="user-1", insert_id="paid-o-1", session_id=5)

    assert events.snapshot() == [
        {
            "event_type": "Paid",
            "user_id": "user-1",
            "event_properties": {"total": 9.5, "time": 3},
            "time": "<time>",
            "insert_id": "<insert_id>",
            "library": "<library>",
        },
        {
            "event_type": "Paid",
            "user_id": "user-1",
            "session_id": 5,
            "time": "<time>",
            "insert_id": "paid-o-1",
            "library": "<library>",
        },
    ]


def test_more_is_masked_or_kept_on_demand(
    events: CapturedEvents, captor: Captor
) -> None:
    """Any key at any depth; one name may be given as it is."""
    captor.track(
        "Paid",
        user_id="user-1",
        time=1_700_000_000_000,
        event_properties={"trace": "abc", "deep": [{"trace": [1, 2]}]},
    )

    (row,) = events.snapshot(mask="trace", keep=("time", "library"))
    assert row["event_properties"] == {
        "trace": "<trace>",
        "deep": [{"trace": "<trace>"}],
    }
    assert row["time"] == 1_700_000_000_000
    assert row["library"] == "amplitude-async/1.2.3"
    (row,) = events.snapshot(keep="insert_id")
    assert row["insert_id"] == events[0].insert_id


def test_a_batch_is_one_row_for_each_event(
    events: CapturedEvents, captor: Captor
) -> None:
    """With all that the batch says, and the ids of mParticle masked."""
    captor.upload(
        Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            events=[
                CustomEvent(event_name="Paid", source_message_id="paid-1"),
                CustomEvent(event_name="Left"),
            ],
        )
    )
    captor.upload(
        Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            user_attributes={"plan": "pro"},
            source_request_id="request-1",
        )
    )

    first, second, third = events.snapshot()
    assert first == {
        "environment": "development",
        "user_identities": {"customer_id": "user-1"},
        "source_request_id": "<source_request_id>",
        "events": [
            {
                "event_type": "custom_event",
                "data": {
                    "event_name": "Paid",
                    "custom_event_type": "other",
                    "timestamp_unixtime_ms": "<timestamp_unixtime_ms>",
                    "source_message_id": "paid-1",
                },
            }
        ],
    }
    assert second["events"][0]["data"]["source_message_id"] == "<source_message_id>"
    assert third["user_attributes"] == {"plan": "pro"}
    assert third["source_request_id"] == "request-1"
    assert "events" not in third


def test_an_id_that_went_on_to_mparticle_is_masked_everywhere(
    events: CapturedEvents, captor: Captor
) -> None:
    """A sale without a receipt has our insert_id for its transaction."""
    captor.track(Revenue(revenue=9.5).to_event(user_id="user-1"), "mparticle")

    (row,) = events.snapshot()
    data = row["events"][0]["data"]
    assert data["product_action"]["transaction_id"] == "<insert_id>"
    assert data["source_message_id"] == "<insert_id>"


def test_another_destination_is_named(events: CapturedEvents, captor: Captor) -> None:
    """Each vendor's own rows need no name."""
    captor.track("Paid", "amplitude", "warehouse", "mparticle", user_id="user-1")

    rows = events.snapshot()
    assert [row.get("destination") for row in rows] == [None, None, "warehouse"]


@pytest.mark.parametrize("seed", range(20))
def test_handlers_that_run_at_once_give_one_snapshot(seed: int) -> None:
    """The order between identities is that of their names; inside it stays."""
    whose = [user for user in ("ann-1", "bob-1", "cid-1") for _ in range(4)]
    random.Random(seed).shuffle(whose)
    events = CapturedEvents()
    captor = Captor(events)
    steps = dict.fromkeys(whose, 0)
    for user in whose:
        steps[user] += 1
        captor.track(f"Step {steps[user]}", "amplitude", "mparticle", user_id=user)

    assert [
        (row["user_id"], row["event_type"])
        for row in events.snapshot()
        if "user_id" in row
    ] == [(user, f"Step {step}") for user in steps_of(steps) for step in range(1, 5)]


def steps_of(steps: dict[str, int]) -> list[str]:
    """Return the users, sorted."""
    return sorted(steps)


def test_a_snapshot_is_json_and_nobody_elses(
    events: CapturedEvents, captor: Captor
) -> None:
    """To change it changes no event."""
    captor.track("Paid", user_id="user-1", event_properties={"deep": {"list": [1]}})
    captor.identify(Identify().set("plan", "pro"), device_id="device-1")
    captor.track(
        Event(
            "$groupidentify", groups={"team": "a"}, group_properties={"$set": {"n": 1}}
        )
    )

    rows = events.snapshot()
    assert json.loads(json.dumps(rows)) == rows
    rows[0].clear()
    for row in rows:
        row.get("event_properties", {}).get("deep", {}).get("list", []).append(2)
    assert events.assert_tracked("Paid", deep={"list": [1]})
    # A group has no user: it is sorted by its own name.
    assert [row["event_type"] for row in events.snapshot()] == [
        "$identify",
        "$groupidentify",
        "Paid",
    ]


def test_inline_snapshot_takes_it(events: CapturedEvents, captor: Captor) -> None:
    """It is compared as it is written in a test."""
    inline = pytest.importorskip("inline_snapshot")
    captor.track("Paid", user_id="user-1")

    assert events.snapshot() == inline.snapshot(
        [
            {
                "user_id": "user-1",
                "event_type": "Paid",
                "insert_id": "<insert_id>",
                "time": "<time>",
                "library": "<library>",
            }
        ]
    )
