"""What a captured event shows, and the collection that holds it."""

import threading
from typing import Any

import pytest

from amplitude_async import DeliveryStatus, DropReason, Event, Identify, Revenue
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    ScreenViewEvent,
    SessionStartEvent,
    UserIdentities,
)
from amplitude_async.testing import CapturedEvents
from tests.testing.conftest import Captor

__all__: list[str] = []


def test_an_event_is_shown_as_it_would_be_sent(
    events: CapturedEvents, captor: Captor
) -> None:
    """Fields, properties and wire form are at hand."""
    captor.track(
        "Paid",
        user_id="user-1",
        device_id="device-1",
        insert_id="paid-1",
        product_id="p-1",
        event_properties={"total": 9.5},
    )

    (event,) = events
    assert (event.name, event.user_id, event.device_id) == (
        "Paid",
        "user-1",
        "device-1",
    )
    assert event.properties == {"total": 9.5}
    assert event.insert_id == "paid-1"
    assert event["productId"] == "p-1"
    assert event.wire["library"] == "amplitude-async/1.2.3"
    assert event.batch is None
    assert event.destination == "amplitude"
    assert (event.status, event.reason, event.message) == ("delivered", None, "")
    assert "'Paid' user_id='user-1'" in repr(event)
    assert repr(events) == "<CapturedEvents 1 events, 0 rejected, 0 dropped>"


def test_a_batch_is_shown_as_its_events(events: CapturedEvents, captor: Captor) -> None:
    """Each event of an mParticle batch is one, and knows its batch."""
    captor.upload(
        Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            mp_deviceid="8b9f1c60-0b7c-4b3c-8a52-2d7a4d0f3f10",
            events=[
                CustomEvent(event_name="Paid", custom_attributes={"total": 9.5}),
                ScreenViewEvent(screen_name="Home"),
                SessionStartEvent(),
            ],
        )
    )

    assert [event.name for event in events] == ["Paid", "Home", "session_start"]
    paid = events[0]
    assert paid.user_id == "user-1"
    assert paid.device_id == "8b9f1c60-0b7c-4b3c-8a52-2d7a4d0f3f10"
    assert paid.properties == {"total": 9.5}
    assert paid["event_type"] == "custom_event"
    assert paid.batch is not None
    assert len(paid.batch["events"]) == 3
    assert len({event.insert_id for event in events}) == 3
    assert {event.destination for event in events} == {"mparticle"}


def test_a_batch_without_events_is_not_lost(
    events: CapturedEvents, captor: Captor
) -> None:
    """What is said of a user alone can be asked for."""
    captor.upload(
        Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            user_attributes={"plan": "pro"},
            deleted_user_attributes=["trial"],
        )
    )

    assert [event.name for event in events] == ["batch"]
    events.assert_identified("user-1", set={"plan": "pro"}, unset=["trial"])


def test_what_is_not_sent_is_kept_apart(events: CapturedEvents, captor: Captor) -> None:
    """Rejected and dropped events say why, and are none of the sequence."""
    captor.track("Sent", user_id="user-1")
    captor.settle(Event("Bad", user_id="u"), Outcome.rejected("user_id 'u' is short"))
    drop = Outcome.dropped(DropReason.OPT_OUT, "opt_out is set")
    captor.settle(Event("Out", event_properties={"n": 1}), drop)

    assert [event.name for event in events] == ["Sent"]
    (rejected,), (dropped,) = events.rejected, events.dropped
    assert (rejected.name, rejected.user_id) == ("Bad", "u")
    assert rejected.message == "user_id 'u' is short"
    assert rejected.status is DeliveryStatus.REJECTED
    assert (dropped.reason, dropped.properties) == (DropReason.OPT_OUT, {"n": 1})


def test_what_has_no_wire_form_is_shown_as_far_as_it_can_be(
    events: CapturedEvents, captor: Captor
) -> None:
    """A rejected event with a bad value still has its other fields."""
    bad = Event("Bad", user_id="user-1").model_copy(
        update={"time": object(), "product_id": "p-1", "city": "\ud800"}
    )
    captor.settle(bad, Outcome.rejected("time is bad"))
    captor.settle(object(), Outcome.rejected("no event at all"))
    batch = Batch(environment="development", events=[CustomEvent(event_name="Paid")])
    captor.settle(batch, Outcome.rejected("no identity"))
    broken = batch.model_copy(update={"ip": object()})
    captor.settle(broken, Outcome.rejected("bad ip"))

    first, second, third, fourth = events.rejected
    assert (first.name, first.user_id, first["productId"]) == ("Bad", "user-1", "p-1")
    assert second.name == ""
    assert third.name == "Paid"
    assert fourth.name == "Paid"


def test_a_rejected_event_is_shown_as_it_was(
    events: CapturedEvents, captor: Captor
) -> None:
    """What its owner changes later is not in it."""
    properties: dict[str, Any] = {"n": 1}
    event = Event("Bad", event_properties=properties)
    captor.settle(event, Outcome.rejected("no user"))
    event.event_properties = {"n": 2}

    assert events.rejected[0].properties == {"n": 1}


def test_events_are_picked_by_name_and_user(
    events: CapturedEvents, captor: Captor
) -> None:
    """Lists of events, in order."""
    captor.track("Paid", user_id="user-1", event_properties={"n": 1})
    captor.track("Paid", user_id="user-2")
    captor.track("Left", user_id="user-1")

    assert [event.user_id for event in events.named("Paid")] == ["user-1", "user-2"]
    assert [event.name for event in events.of_user("user-1")] == ["Paid", "Left"]
    assert events.named("paid") == []
    assert [event.name for event in events[1:]] == ["Paid", "Left"]


def test_clearing_starts_anew(events: CapturedEvents, captor: Captor) -> None:
    """All that was captured is forgotten, whatever became of it."""
    captor.track("Paid", user_id="user-1")
    captor.settle(Event("Bad"), Outcome.rejected("no user"))
    events.clear()
    captor.track("Left", user_id="user-1")

    assert [event.name for event in events] == ["Left"]
    assert events.rejected == []
    assert events.named("Paid") == []


def test_who_goes_through_the_events_sees_those_of_that_moment(
    events: CapturedEvents, captor: Captor
) -> None:
    """To track in the loop over what was tracked does not go on for ever."""
    captor.track("Paid", user_id="user-1")
    for event in events:
        captor.track("Again", user_id="user-1")
        assert event.name == "Paid"

    assert len(events) == 2


def test_events_come_from_any_thread(events: CapturedEvents, captor: Captor) -> None:
    """None is lost, and each thread's stay in its order."""

    def run(number: int) -> None:
        for count in range(200):
            captor.track("Paid", user_id=f"user-{number}", event_id=count)
            len(events)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(events) == 1_600
    for number in range(8):
        own = [event["event_id"] for event in events.of_user(f"user-{number}")]
        assert own == list(range(200))


class _Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("body", "source"),
    [
        (b"", None),
        (b"not json", None),
        (b"[1, 2]", None),
        (b'{"event_type": 7}', None),
        (b'{"environment": "x", "events": [1, {}, {"data": 5}]}', None),
        (b'{"environment": "x", "events": 5, "user_identities": 3}', None),
        (b'{"event_type": "x", "event_properties": [], "groups": 3}', None),
        (b'{"a":' * 5_000, None),
        (None, {"event_type": "x"}),
        (None, {1: 2, "event_type": b"\xff"}),
        pytest.param(None, _Hostile(), id="hostile"),
    ],
)
def test_nothing_makes_the_intake_raise(
    events: CapturedEvents, body: bytes | None, source: object
) -> None:
    """Whatever arrives is held, and can be looked at."""
    events.add("amplitude", body, source, "i-1", Outcome(DeliveryStatus.DELIVERED))

    for event in events:
        assert isinstance(event.name, str)
        assert repr(event)
        assert event.identity is not None
    events.snapshot()
    events.assert_not_tracked("Paid", total=1)


def test_an_event_of_a_sale_shows_its_operations_and_none_else(
    events: CapturedEvents, captor: Captor
) -> None:
    """Only what identifies has operations."""
    captor.identify(Identify().set("plan", "pro").unset("trial"), user_id="user-1")
    captor.track(Revenue(revenue=9.5).to_event(user_id="user-1"))

    first, second = events
    assert first.operations == {"$set": {"plan": "pro"}, "$unset": {"trial": "-"}}
    assert second.operations is None
