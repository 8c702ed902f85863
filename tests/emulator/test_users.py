"""The picture of a user: properties, groups, revenue, and what they did."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amplitude_async import Amplitude, EventOptions, Identify, Revenue
from amplitude_async.emulator import Emulator, SeenUser, UnknownUserError
from amplitude_async.emulator.judgement import JsonObject, Judgement
from amplitude_async.emulator.ledger import Ledger
from amplitude_async.emulator.operations import Properties
from amplitude_async.emulator.records import ReceivedRequest
from amplitude_async.emulator.users import picture, picture_of_batches, unknown_user
from tests.conftest import examples

__all__: list[str] = []

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner)
    ),
    max_leaves=3,
)
OPERATIONS = st.sampled_from(
    [
        "$set",
        "$setOnce",
        "$add",
        "$append",
        "$prepend",
        "$unset",
        "$clearAll",
        "$preInsert",
        "$postInsert",
        "$remove",
    ]
)


def after(*operations: object, **before: Any) -> dict[str, Any]:
    """Return the properties after operations."""
    properties = Properties()
    properties.put(before)
    for one in operations:
        properties.apply(one)
    return properties.as_dict()


def fill(*events: JsonObject, unit: Any = "event", **bounds: Any) -> Ledger:
    """Return a ledger that has stored these."""
    ledger = Ledger(bounds.get("keep", 100_000), 10)
    keys = (None,) * len(events)
    judgement = Judgement(200, {}, unit=unit, accepted=events, keys=keys)
    ledger.record(ReceivedRequest("/batch", 200), judgement)
    return ledger


def picture_of(*events: JsonObject, name: str = "user-1") -> SeenUser:
    """Return the picture that events make."""
    return picture(name, fill(*events).of_user("event", name))


@pytest.mark.parametrize(
    ("operation", "before", "then"),
    [
        ({"$set": {"a": 2}}, {"a": 1}, {"a": 2}),
        ({"$setOnce": {"a": 2, "b": 3}}, {"a": 1}, {"a": 1, "b": 3}),
        ({"$add": {"a": 2, "b": 3}}, {"a": 1}, {"a": 3, "b": 3}),
        ({"$add": {"a": -0.5}}, {"a": 1}, {"a": 0.5}),
        ({"$add": {"a": "2", "b": True}}, {"a": 1}, {"a": 1}),
        ({"$add": {"a": 2}}, {"a": "text"}, {"a": "text"}),
        ({"$append": {"a": 2}}, {"a": [1]}, {"a": [1, 2]}),
        ({"$append": {"a": [2, 3]}}, {"a": 1}, {"a": [1, 2, 3]}),
        ({"$append": {"a": 1}}, {}, {"a": [1]}),
        ({"$prepend": {"a": [2, 3]}}, {"a": [1]}, {"a": [2, 3, 1]}),
        ({"$preInsert": {"a": [1, 2, 2]}}, {"a": [1]}, {"a": [2, 1]}),
        ({"$postInsert": {"a": [1, 2, "1"]}}, {"a": [1]}, {"a": [1, 2, "1"]}),
        ({"$postInsert": {"a": [True]}}, {"a": [1]}, {"a": [1, True]}),
        ({"$postInsert": {"a": {"x": 1}}}, {"a": [{"x": 1}]}, {"a": [{"x": 1}]}),
        ({"$remove": {"a": [1, 3]}}, {"a": [1, 2, 1]}, {"a": [2]}),
        ({"$remove": {"a": 1, "b": 1}}, {"a": 1}, {"a": 1}),
        ({"$unset": {"a": "-"}}, {"a": 1, "b": 2}, {"b": 2}),
        ({"$clearAll": "-"}, {"a": 1, "b": 2}, {}),
        # The server's order, whatever that of the keys.
        (
            {"$add": {"a": 1}, "$set": {"a": 5}, "$unset": {"a": "-"}},
            {"a": 1},
            {"a": 6},
        ),
        ({"$set": {"b": 1}, "$clearAll": "-"}, {"a": 1}, {"b": 1}),
        # Operations and plain properties do not mix.
        ({"$set": {"a": 2}, "b": 3}, {}, {"a": 2}),
        ({"b": 3}, {"a": 1}, {"a": 1, "b": 3}),
        ({"$set": 5, "$add": None}, {"a": 1}, {"a": 1}),
        (5, {"a": 1}, {"a": 1}),
    ],
)
def test_operations(operation: object, before: Any, then: Any) -> None:
    """Each does what Amplitude's documentation says."""
    assert after(operation, **before) == then


def test_hostile_numbers_and_depths_change_nothing() -> None:
    """What has no sum has none, and what cannot be compared is itself alone."""
    huge = 10**400
    assert after({"$add": {"a": huge}}, a=0.5) == {"a": 0.5}
    assert after({"$add": {"a": 1e308}}, a=1e308) == {"a": 1e308}
    assert after({"$add": {"a": huge}}, a=1) == {"a": 1}
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    values = after({"$append": {"a": [deep]}}, {"$remove": {"a": [deep]}})
    assert values == {"a": []}
    while deep:  # or the interpreter would follow it down
        (deep,) = deep


@settings(max_examples=examples(50))
@given(
    st.lists(
        st.dictionaries(OPERATIONS, JSON | st.dictionaries(st.text(max_size=2), JSON)),
        max_size=4,
    )
)
def test_no_operation_raises_or_changes_what_was_sent(sent: list[JsonObject]) -> None:
    """Whatever the values, and the picture's lists are its own."""
    before = repr(sent)
    events = [
        {"event_type": "$identify", "user_id": "user-1", "user_properties": one}
        for one in sent
    ]
    if events:
        assert picture_of(*events).events == tuple(events)
    assert repr(sent) == before


async def test_a_real_clients_user_has_its_picture(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """From the verbs to the picture, over the socket."""
    client = connect()
    user = EventOptions(user_id="user-1", device_id="phone-1")
    await client.identify(Identify().set("plan", "free").append("tags", "a"), user)
    await client.identify(Identify().set("plan", "pro").add("logins", 1), user)
    await client.track("Paid", user, user_properties={"city": "Rome"})
    await client.set_group("org", ["o-1", "o-2"], user_id="user-1")
    await client.revenue(Revenue(price=0.1, quantity=3), user_id="user-1")
    await client.track("Sold", user_id="user-1", device_id="pad-2", revenue=0.2)
    await client.track("Opened", device_id="pad-2")
    await client.track("Opened", device_id="pad-3")
    await client.flush()

    seen = emulator.user("user-1")
    assert seen.properties == {
        "plan": "pro",
        "tags": ["a"],
        "logins": 1,
        "city": "Rome",
        "org": ["o-1", "o-2"],
    }
    assert seen.groups == {"org": ("o-1", "o-2")}
    assert seen.revenue == 0.5
    assert seen.devices == ("phone-1", "pad-2")
    assert [one["event_type"] for one in seen.events] == [
        "$identify",
        "$identify",
        "Paid",
        "$identify",
        "revenue_amount",
        "Sold",
    ]
    assert [one["event_type"] for one in emulator.user("pad-2").events] == [
        "Sold",
        "Opened",
    ]
    assert emulator.users == ["user-1", "pad-2", "pad-3"]


@pytest.mark.parametrize(
    ("fields", "revenue"),
    [
        ({"event_properties": {"$revenue": 9.5}}, 9.5),
        ({"event_properties": {"$price": 2, "$quantity": 3}}, 6),
        ({"event_properties": {"$price": 2}}, 2),
        ({"event_properties": {"$revenue": 9.5, "$price": 2}, "revenue": 1}, 9.5),
        ({"revenue": 9.5}, 9.5),
        ({"price": 2, "quantity": 3, "revenue": 9.5}, 6),
        ({"revenue": -9.5}, -9.5),
        ({"revenue": "9.5", "price": True}, 0),
        ({"price": 10**400, "quantity": 2}, 0),
        ({"price": 1e308, "quantity": 1e308}, 0),
        ({"event_properties": ["$revenue"]}, 0),
    ],
)
def test_revenue_of_an_event(fields: JsonObject, revenue: float) -> None:
    """Each event counts once, by what stands nearest to its purpose."""
    event = {"event_type": "Sold", "user_id": "user-1", **fields}
    assert picture_of(event).revenue == revenue


def test_groups_of_an_event_are_not_those_of_the_user() -> None:
    """As at Amplitude: only set_group is for good."""
    event = {"event_type": "Paid", "user_id": "user-1", "groups": {"org": "o-1"}}
    assert picture_of(event).groups == {}
    seen = picture_of(event, {**event, "event_type": "$identify", "groups": {"a": 5}})
    assert seen.groups == {"a": ("5",)}


def test_group_properties_are_not_those_of_the_user() -> None:
    """And operations count in $identify alone."""
    sent = {"$set": {"a": 1}}
    event = {"user_id": "user-1", "user_properties": sent, "group_properties": sent}
    for kind in ("$groupidentify", "Paid"):
        assert picture_of({**event, "event_type": kind}).properties == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user-2", "'user-2' was stored; known are 'user-1', 'phone': did you mean"),
        ("x", "nothing of user or device 'x' was stored; known are 'user-1', 'phone'"),
    ],
)
async def test_an_unknown_user_names_those_that_are_known(
    emulator: Emulator, connect: Callable[..., Amplitude], name: str, message: str
) -> None:
    """And the one that was meant."""
    client = connect()
    await client.track("Paid", user_id="user-1")
    await (await client.track("Paid", device_id="phone"))
    with pytest.raises(KeyError) as caught:
        emulator.user(name)
    assert message in str(caught.value)
    assert isinstance(caught.value, UnknownUserError)


async def test_an_unknown_user_whose_events_were_rejected_says_so(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """That is what one looks for then."""
    with pytest.raises(UnknownUserError, match=r"stored; nobody is known yet$"):
        emulator.user("user-1")
    emulator.faults.add("rejected_event")
    await (await connect().track("Paid", user_id="user-1"))
    with pytest.raises(
        UnknownUserError,
        match="1 of its events were not taken, the last answered 400: event_properties",
    ):
        emulator.user("user-1")


def test_many_known_users_are_shown_in_part() -> None:
    """The message stays short."""
    error = unknown_user("user", [f"user-{n}" for n in range(20_000)])
    assert "'user-9' and 19,990 more" in str(error)
    assert len(str(error)) < 300
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert str(again) == str(error)


def test_mparticle_users() -> None:
    """Attributes and identities after all batches, by any identity."""
    first = {
        "environment": "production",
        "mpid": 7,
        "user_identities": {"customer_id": "u1", "email": "a@b.c"},
        "user_attributes": {"plan": "free", "city": "Rome", "tags": ["a"]},
        "events": [{"event_type": "custom_event", "data": {"event_name": "Paid"}}],
    }
    second = {
        "environment": "production",
        "user_identities": {"customer_id": "u1", "email": "d@e.f"},
        "deleted_user_attributes": ["city", 5],
        "user_attributes": {"plan": "pro"},
    }
    third = {"environment": "production", "mp_deviceid": "d1"}
    ledger = fill(first, second, third, {}, unit="batch")
    assert ledger.users("batch") == ["u1", "d1"]
    seen = picture_of_batches("u1", ledger.of_user("batch", "u1"))
    assert seen.attributes == {"plan": "pro", "tags": ["a"]}
    assert seen.identities == {"customer_id": "u1", "email": "d@e.f", "mpid": "7"}
    assert seen.batches == (first, second)
    assert seen.events == tuple(first["events"])  # type: ignore[arg-type]
    for name, count in (("7", 1), ("a@b.c", 1), ("d1", 1), ("nobody", 0)):
        assert len(ledger.of_user("batch", name)) == count


async def test_an_mparticle_user_over_the_socket(emulator: Emulator) -> None:
    """As the Amplitude one, and unknown ones alike."""
    with pytest.raises(UnknownUserError, match=re.escape("nobody is known yet")):
        emulator.mparticle_user("u1")
    assert emulator.mparticle_users == []


def test_who_is_forgotten_is_not_found() -> None:
    """The picture is made of what is kept, and so is the list of users."""
    events = [{"event_type": "a", "user_id": f"user-{n}"} for n in range(5)]
    ledger = fill(*events[:3], keep=2)
    assert ledger.users("event") == ["user-1", "user-2"]
    for event in events[3:]:
        judgement = Judgement(200, {}, accepted=(event,), keys=(None,))
        ledger.record(ReceivedRequest("/batch", 200), judgement)
    assert ledger.users("event") == ["user-3", "user-4"]
    assert ledger.of_user("event", "user-1") == []


def test_many_users_and_a_user_of_many_events_cost_no_more_than_they_are() -> None:
    """Ten times as much takes ten times as many steps, whatever lists grow."""
    operations = ("$prepend", "$postInsert", "$preInsert", "$remove", "$append")

    def steps(count: int) -> int:
        events: list[JsonObject] = [
            {
                "event_type": "$identify",
                "user_id": "user-1",
                "user_properties": {one: {"a": [n % 97, n]} for one in operations},
            }
            for n in range(count)
        ]
        others = ({"event_type": "a", "user_id": f"u-{n}"} for n in range(count))
        ledger = fill(*others, *events)
        taken = 0

        def count_step(*_: object) -> None:
            nonlocal taken
            taken += 1

        sys.setprofile(count_step)
        try:
            for name in ledger.users("event"):
                picture(name, ledger.of_user("event", name))
        finally:
            sys.setprofile(None)
        return taken

    assert steps(2_000) < 12 * steps(200)


def test_a_user_of_twenty_thousand_events_has_a_picture() -> None:
    """With lists as long, and each of as many users as well."""
    event = {"event_type": "$identify", "user_id": "user-1"}
    many = 20_000
    ledger = fill(
        *({**event, "user_properties": {"$prepend": {"a": n}}} for n in range(many)),
        *({**event, "user_id": f"other-{n}"} for n in range(many)),
    )
    seen = picture("user-1", ledger.of_user("event", "user-1"))
    assert seen.properties["a"] == list(range(many))[::-1]
    names = ledger.users("event")
    assert len(names) == many + 1
    assert sum(len(ledger.of_user("event", name)) for name in names) == 2 * many
