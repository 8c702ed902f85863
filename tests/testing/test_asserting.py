"""Assertions on captured events, and what they say where they fail."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import pytest
from dirty_equals import IsInt, IsPartialDict, IsStr

from amplitude_async import DropReason, Event, Identify, Revenue
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.mparticle import (
    Batch,
    CommerceEvent,
    CustomEvent,
    Product,
    ProductAction,
    UserIdentities,
)
from amplitude_async.testing import CapturedEvents
from tests.testing.conftest import DELIVERED, Captor

__all__: list[str] = []

USER = UUID("8b9f1c60-0b7c-4b3c-8a52-2d7a4d0f3f10")


def failure(run: Any, *args: Any, **keywords: Any) -> str:
    """Return the message of an assertion that has to fail."""
    with pytest.raises(AssertionError) as caught:
        run(*args, **keywords)
    message = str(caught.value)
    assert len(message.splitlines()) <= 40
    assert max(map(len, message.splitlines())) <= 240
    return message


# What fits --------------------------------------------------------------------


@pytest.fixture
def paid(captor: Captor, events: CapturedEvents) -> CapturedEvents:
    """Return a collection that holds one event with much in it."""
    captor.track(
        "Paid",
        user_id=USER,
        time=datetime(2026, 1, 2, tzinfo=UTC),
        product_id="p-1",
        price=3,
        groups={"team": ["a", "b"]},
        event_properties={
            "total": Decimal("9.99"),
            "count": 1,
            "big": 2**53 + 1,
            "first": True,
            "none": None,
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "tags": ("a", "b"),
            "items": [{"sku": "s-1", "n": 1}],
            "price": 5,
            "deep": {"er": {"most": 1, "least": 2}, "flat": 3},
        },
    )
    return events


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"total": 9.99},
        {"total": Decimal("9.99")},
        {"count": 1.0},
        {"big": 2**53 + 1},
        {"first": True},
        {"none": None},
        {"at": datetime(2026, 1, 2, tzinfo=UTC)},
        {"tags": ["a", "b"]},
        {"tags": ("a", "b")},
        {"items": [{"sku": "s-1", "n": 1}]},
        {"items": [ANY]},
        {"items": [IsPartialDict(sku="s-1")]},
        {"deep": {"er": {"most": 1}}},
        {"deep": {}},
        {"deep": {"er": ANY}},
        {"deep": ANY},
        {"count": IsInt(gt=0)},
        {"user_id": str(USER)},
        {"user_id": USER},
        {"user_id": IsStr(regex="8b.*")},
        {"device_id": None},
        {"time": datetime(2026, 1, 2, tzinfo=UTC)},
        {"time": 1_767_312_000_000},
        {"product_id": "p-1"},
        {"productId": "p-1"},
        {"price": 3},
        {"event_properties": {"price": 5, "count": 1}},
        {"event_properties": IsPartialDict(price=5)},
        {"event_properties": {"price": 5}, "total": 9.99},
        {"groups": {"team": ["a", "b"]}},
        {"library": "amplitude-async/1.2.3"},
    ],
    ids=repr,
)
def test_what_fits_is_found(paid: CapturedEvents, expected: dict[str, Any]) -> None:
    """Fields and properties, subsets at any depth, numbers as numbers, own ``==``."""
    assert paid.assert_tracked("Paid", times=1, **expected) is paid[0]
    failure(paid.assert_not_tracked, "Paid", **expected)


@pytest.mark.parametrize(
    "expected",
    [
        {"total": 9.98},
        {"count": True},
        {"first": 1},
        {"first": "true"},
        {"count": "1"},
        {"big": 2**53},
        {"none": False},
        {"missing": None},
        {"missing": ANY},
        {"tags": ["a"]},
        {"tags": frozenset("a")},
        {"items": [{"sku": "s-1"}]},
        {"items": [{"sku": "s-1", "n": True}]},
        {"deep": {"er": {"most": 2}}},
        {"deep": {"er": {"most": {"more": 1}}}},
        {"deep": 3},
        {"count": IsInt(gt=1)},
        {"user_id": "8b9f1c60"},
        {"user_id": None},
        {"device_id": ANY},
        {"price": 5},
        {"event_properties": {"price": 3}},
        {"event_properties": None},
        {"total": math.nan},
        {"tags": "\ud800"},
    ],
    ids=repr,
)
def test_what_does_not_fit_is_not_found(
    paid: CapturedEvents, expected: dict[str, Any]
) -> None:
    """True is no number, and what is missing is not even anything."""
    paid.assert_not_tracked("Paid", **expected)
    failure(paid.assert_tracked, "Paid", **expected)


def test_times_are_counted(events: CapturedEvents, captor: Captor) -> None:
    """So often and not otherwise; at least once where nothing is said."""
    for number in range(3):
        captor.track("Paid", user_id="user-1", event_properties={"n": number})

    events.assert_tracked("Paid")
    events.assert_tracked("Paid", times=3)
    events.assert_tracked("Paid", times=1, n=2)
    message = failure(events.assert_tracked, "Paid", times=1)
    assert "was tracked 3 times, wanted 1" in message
    assert message.count("'Paid' user_id='user-1'") == 3
    message = failure(events.assert_tracked, "Paid", times=2, n=1)
    assert "was tracked once, wanted 2" in message
    assert "n: wanted 1, is 2" in message
    with pytest.raises(ValueError, match="assert_not_tracked"):
        events.assert_tracked("Paid", times=0)


def test_an_event_at_several_destinations_counts_once(
    events: CapturedEvents, captor: Captor
) -> None:
    """Amplitude, mParticle and a warehouse had the same event, twice in all."""
    where = ("amplitude", "mparticle", "warehouse")
    captor.track("Paid", *where, user_id="user-1")
    captor.track("Paid", *where, user_id="user-1")

    events.assert_tracked("Paid", times=2)
    for destination in where:
        found = events.assert_tracked("Paid", times=2, destination=destination)
        assert found.destination == destination
    message = failure(events.assert_tracked, "Paid", destination="elsewhere")
    assert "destination: wanted 'elsewhere', is 'amplitude'" in message
    events.assert_not_tracked("Paid", destination="elsewhere")


def test_events_with_the_same_insert_id_are_two(
    events: CapturedEvents, captor: Captor
) -> None:
    """The server would drop the second; that it was tracked is seen."""
    for _ in range(2):
        captor.track("Paid", user_id="user-1", insert_id="paid-1")

    events.assert_tracked("Paid", times=2)


def test_mparticle_events_are_asked_for_alike(
    events: CapturedEvents, captor: Captor
) -> None:
    """Fields mean what the destination makes of them, attributes are properties."""
    captor.track(
        "Paid",
        "mparticle",
        user_id="user-1",
        device_id="device-1",
        time=1_700_000_000_000,
        ip="203.0.113.7",
        insert_id="paid-1",
        user_properties={"plan": "pro"},
        event_properties={"total": 9.5},
    )

    events.assert_tracked(
        "Paid",
        times=1,
        user_id="user-1",
        device_id="device-1",
        time=1_700_000_000_000,
        ip="203.0.113.7",
        insert_id="paid-1",
        user_properties={"plan": "pro"},
        total=9.5,
        custom_event_type="other",
    )
    events.assert_identified("user-1", set={"plan": "pro"})
    message = failure(events.assert_tracked, "Paid", total=9, region="Bern")
    assert "total: wanted 9, is 9.5" in message
    assert "region: wanted 'Bern', is missing" in message


def test_what_an_identify_does_is_asked_for(
    events: CapturedEvents, captor: Captor
) -> None:
    """Any operation, by the name it has in Identify."""
    identify = (
        Identify()
        .set("plan", "pro")
        .set_once("first", 1)
        .add("logins", 2)
        .append("tags", "a")
        .prepend("tags2", ["b"])
        .pre_insert("c", "d")
        .post_insert("e", "f")
        .remove("g", "h")
        .unset("trial")
    )
    captor.identify(identify, user_id="user-1", device_id="device-1")
    captor.identify(Identify().clear_all(), device_id="device-2")

    events.assert_identified("user-1", set={"plan": "pro"}, times=1)
    events.assert_identified(
        "user-1",
        device_id="device-1",
        set={"plan": ANY},
        set_once={"first": 1},
        add={"logins": 2},
        append={"tags": "a"},
        prepend={"tags2": ["b"]},
        pre_insert={"c": "d"},
        post_insert={"e": "f"},
        remove={"g": "h"},
        unset="trial",
    )
    events.assert_identified(unset=["trial"])
    events.assert_identified(device_id="device-2", clear_all=True)
    events.assert_identified(times=2)
    message = failure(
        events.assert_identified, "user-1", set={"logins": 2}, unset=["trial", "plan"]
    )
    assert "$set.logins: wanted 2, is missing (there is $add.logins)" in message
    assert "$unset.plan: wanted '-', is missing (there is $set.plan)" in message
    failure(events.assert_identified, "user-1", clear_all=True)
    failure(events.assert_identified, "user-2")


def test_an_identify_at_both_vendors_counts_once(
    events: CapturedEvents, captor: Captor
) -> None:
    """A batch without events shares no id with the identify it was made of."""
    captor.identify(
        Identify().set("plan", "pro"), "amplitude", "mparticle", user_id="user-1"
    )

    events.assert_identified("user-1", set={"plan": "pro"}, times=1)


def test_what_is_said_of_a_group_is_asked_for(
    events: CapturedEvents, captor: Captor
) -> None:
    """By type and name, one of several names included."""
    operations = Identify().set("plan", "pro").unset("trial").properties
    captor.track(
        "$groupidentify", groups={"company": "acme"}, group_properties=operations
    )
    captor.track(
        "$groupidentify", groups={"team": ["a", "b"]}, group_properties=operations
    )

    events.assert_group_identified("company", "acme", set={"plan": "pro"}, times=1)
    events.assert_group_identified("team", "b", unset="trial")
    events.assert_group_identified("team", ["a", "b"])
    message = failure(events.assert_group_identified, "company", "acmy", set={"x": 1})
    assert "groups.company: wanted 'acmy', is 'acme'" in message
    failure(events.assert_group_identified, "firm", "acme")
    failure(events.assert_identified, set={"plan": "pro"})


@pytest.mark.parametrize(
    ("event", "amount"),
    [
        (Revenue(revenue=9.5).to_event(user_id="user-1"), 9.5),
        (Revenue(price=4.75, quantity=2).to_event(user_id="user-1"), 9.5),
        (Revenue(price=0.1, quantity=3).to_event(user_id="user-1"), 0.3),
        (Revenue(price=-3).to_event(user_id="user-1"), -3),
        (Revenue(price=3, revenue=7).to_event(user_id="user-1"), 7),
        (Event("Paid", user_id="user-1", revenue=9.5), Decimal("9.50")),
        (Event("Paid", user_id="user-1", price=4.75, quantity=2), 9.5),
        (Event("Paid", user_id="user-1", price=4.75), IsInt | 4.75),
        (Event("Paid", user_id="user-1", price=2, quantity=3, revenue=7), 6),
    ],
)
@pytest.mark.parametrize("destination", ["amplitude", "warehouse"])
def test_revenue_is_found_wherever_it_stands(
    events: CapturedEvents, captor: Captor, event: Event, amount: Any, destination: str
) -> None:
    """As a total, as price times quantity, in properties and in fields."""
    captor.track(event, destination)
    captor.track("Left", user_id="user-1", event_properties={"revenue": 5})

    assert events.assert_revenue(amount, times=1, user_id="user-1") is events[0]
    message = failure(events.assert_revenue, 5)
    assert "amount: wanted 5, is" in message
    assert "'Left'" not in message


def test_revenue_is_found_at_mparticle_too(
    events: CapturedEvents, captor: Captor
) -> None:
    """A commerce event's total, negative for a refund; one sale at both counts once."""
    revenue = Revenue(
        price=4.75, quantity=2, product_id="p-1", currency="EUR", receipt="r-1"
    )
    both = ("amplitude", "mparticle")
    captor.track(revenue.to_event(user_id="user-1"), *both)
    captor.track(Revenue(revenue=-3).to_event(user_id="user-1"), *both)

    for destination in (None, *both):
        events.assert_revenue(
            9.5,
            times=1,
            destination=destination,
            user_id="user-1",
            product_id="p-1",
            currency="EUR",
            quantity=2,
            price=4.75,
            receipt="r-1",
        )
    events.assert_revenue(-3, times=1)
    failure(events.assert_revenue, 9.5, currency="USD")
    failure(events.assert_revenue, True)
    failure(events.assert_revenue, 10**400)


# Rejections --------------------------------------------------------------------


def test_rejections_fail_and_wanted_drops_do_not(
    events: CapturedEvents, captor: Captor
) -> None:
    """What was found bad, or lost though nobody asked, is told with its reason."""
    captor.track("Paid", user_id="user-1")
    for reason in (DropReason.OPT_OUT, DropReason.PLUGIN, DropReason.PURGED):
        captor.settle(Event("Quiet"), Outcome.dropped(reason, "as asked"))
    events.assert_no_rejections()

    closed = Outcome.dropped(DropReason.CLOSED, "the client was shut down before")
    captor.settle(Event("Late"), closed)
    message = failure(events.assert_no_rejections)
    assert "1 dropped" in message
    assert "dropped (closed) 'Late': the client was shut down before" in message
    assert "Quiet" not in message

    captor.settle(Event("Bad"), Outcome.rejected("user_id is missing"))
    message = failure(events.assert_no_rejections)
    assert "1 rejected and 1 dropped" in message
    assert "rejected 'Bad': user_id is missing" in message


def test_an_event_that_was_rejected_comes_first(
    events: CapturedEvents, captor: Captor
) -> None:
    """Who asks for an event that was tracked in vain reads why, above all."""
    captor.track("Paid", user_id="user-2", event_properties={"total": 9})
    captor.settle(
        Event("Paid", user_id="u", event_properties={"total": 9.5}),
        Outcome.rejected("user_id 'u' has 1 characters"),
    )

    lines = failure(events.assert_tracked, "Paid", total=9.5).splitlines()
    assert lines[0] == "no event 'Paid' with total=9.5 was tracked"
    assert lines[1] == "it was tracked, but REJECTED: user_id 'u' has 1 characters"
    # It is another event that was rejected.
    lines = failure(events.assert_tracked, "Paid", total=8).splitlines()
    assert "REJECTED" not in lines[1]
    assert "not sent: 1" in lines


def test_an_event_that_was_dropped_says_why(
    events: CapturedEvents, captor: Captor
) -> None:
    """Where nothing at all would be sent, that is said too."""
    drop = Outcome.dropped(DropReason.OPT_OUT, "opt_out is set")
    captor.settle(Event("Paid"), drop)

    message = failure(events.assert_tracked, "Paid", total=9.5)
    assert "it was tracked, but DROPPED (opt_out): opt_out is set" in message
    assert "no event was captured that would have been sent" in message


# Messages ----------------------------------------------------------------------


def test_the_three_nearest_are_shown_with_what_differs(
    events: CapturedEvents, captor: Captor
) -> None:
    """Of many events those that come closest, the closest first."""
    for number in range(10):
        captor.track(
            "Paid",
            user_id=f"user-{number}",
            event_properties={"total": number, "order": "o-1"},
        )
    captor.track("Left", user_id="user-7")

    message = failure(
        events.assert_tracked, "Paid", user_id="user-7", total=8, order="o-1"
    )
    lines = message.splitlines()
    assert lines[1] == "nearest of 11 events:"
    assert lines[2].startswith("  1. 'Paid' user_id='user-8'")
    assert lines[3] == "       user_id: wanted 'user-7', is 'user-8'"
    assert lines[4].startswith("  2. 'Paid' user_id='user-7'")
    assert lines[5] == "       total: wanted 8, is 7"
    assert message.count("\n  ") == 3 + 1 + 1 + 2
    assert "Left" not in message


def test_an_event_of_several_destinations_is_shown_once(
    events: CapturedEvents, captor: Captor
) -> None:
    """Three places in a message are for three events."""
    captor.track("Paid", "amplitude", "mparticle", "warehouse", user_id="user-1")

    assert failure(events.assert_tracked, "Paid", total=1).count("'Paid' user") == 1
    assert failure(events.assert_not_tracked, "Paid").count("'Paid' user") == 1


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("Payed", "Paid"),
        ("paid", "Paid"),
        ("sign_up", "Sign Up"),
        ("SignUp", "Sign Up"),
    ],
)
def test_a_name_that_is_nearly_right_is_told(
    events: CapturedEvents, captor: Captor, asked: str, meant: str
) -> None:
    """A slip of the pen is found without looking for it."""
    captor.track("Paid", user_id="user-1")
    captor.track("Sign Up", user_id="user-1")

    message = failure(events.assert_tracked, asked)
    assert f"did you mean '{meant}'?" in message
    assert f"name: wanted '{asked}', is '{meant}'" in message


def test_a_field_that_is_a_property_is_told(
    events: CapturedEvents, captor: Captor
) -> None:
    """The commonest mistake has its remedy in the message."""
    captor.track("Paid", user_id="user-1", event_properties={"price": 5, "total": 1})

    message = failure(events.assert_tracked, "Paid", price=5, totl=1)
    assert "price: wanted 5, is missing" in message
    assert "event_properties={'price': ...}" in message
    assert "totl: wanted 1, is missing (there is 'total')" in message


class _Raising:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not look at me")

    __hash__ = None  # type: ignore[assignment]


class _Unreadable(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("do not look at me")


def test_a_value_that_raises_is_no_match_and_is_named(
    events: CapturedEvents, captor: Captor
) -> None:
    """Comparing by ``==`` of theirs may go wrong: the message says so."""
    captor.track("Paid", user_id="user-1", revenue=1, event_properties={"x": {"y": 1}})

    message = failure(events.assert_tracked, "Paid", x={"y": _Raising()})
    assert "comparing them raised RuntimeError" in message
    message = failure(events.assert_tracked, "Paid", x=_Unreadable(a=1))
    assert "reading what is wanted raised RuntimeError" in message
    assert "raised RuntimeError" in failure(events.assert_revenue, _Raising())


@pytest.mark.parametrize(
    "name",
    ["%s %(x)d {0} {name} \\", "\ud800", "\x1b[31mred", "a\nb", "n" * 10_000, ""],
)
def test_names_of_any_kind_are_shown(
    events: CapturedEvents, captor: Captor, name: str
) -> None:
    """A name is never a format, an escape or a line of its own."""
    if name and name != "\ud800":
        captor.track(name, user_id="user-1", event_properties={"n": 1})
        events.assert_tracked(name, n=1)
    message = failure(events.assert_tracked, name, n=2, **{"%s\n": "\x1b"})
    assert "\x1b" not in message
    message.encode()


def test_large_values_do_not_flood_the_message(
    events: CapturedEvents, captor: Captor
) -> None:
    """Ten thousand keys, long texts and deep nesting come to a few lines."""
    deep: dict[str, Any] = {}
    for _ in range(35):
        deep = {"in": deep}
    many = {f"k{number}": "v" * 20 for number in range(10_000)}
    captor.track("Paid", user_id="user-1", event_properties={"m": many, "d": deep})
    endless: dict[str, Any] = {}
    endless["in"] = endless

    events.assert_tracked("Paid", m=many, d=deep)
    other = dict.fromkeys(many, "x" * 10000)
    assert "and many more" in failure(events.assert_tracked, "Paid", m=other, **other)
    assert "d.in.in" in failure(events.assert_tracked, "Paid", d=endless)
    with pytest.raises(TypeError, match="event type"):
        events.assert_tracked(Event("Paid"))  # type: ignore[arg-type]


@pytest.mark.timeout(60)  # compared by pairs it takes hours
def test_a_failing_assertion_on_many_events_is_quick(
    events: CapturedEvents, captor: Captor
) -> None:
    """To look for the nearest of 20,000 is a matter of a second, not of minutes."""
    for number in range(20_000):
        captor.track(
            "Paid" if number % 2 else f"Event {number}",
            user_id=f"user-{number}",
            event_properties={"total": number, "order": f"o-{number}"},
        )

    failure(events.assert_tracked, "Paid", user_id="x", total=-1, ordr="o-3", a=1)
    failure(events.assert_tracked, "Event", user_id="x", total=-1, ordr="o-3")


def test_a_batch_of_several_users_events_is_told_apart(
    events: CapturedEvents, captor: Captor
) -> None:
    """Each event of a batch counts by itself."""
    captor.upload(
        Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            events=[CustomEvent(event_name="Paid"), CustomEvent(event_name="Paid")],
        )
    )

    events.assert_tracked("Paid", times=2, user_id="user-1")


def test_many_that_should_not_be_are_counted(
    events: CapturedEvents, captor: Captor
) -> None:
    """Some are shown, the others are a number; likewise what was rejected."""
    for number in range(10):
        captor.track("Paid", user_id="user-1", event_properties={"n": number})
        captor.settle(Event(f"Bad {number}"), Outcome.rejected("no user"))
        captor.settle(Event("Alike"), Outcome.rejected("no user"))

    message = failure(events.assert_not_tracked, "Paid")
    assert "event 'Paid' was tracked 10 times, and should not be:" in message
    assert "  and 4 more" in message
    message = failure(events.assert_tracked, "Left")
    assert "not sent: 20" in message
    assert "  and 7 others before them" in message
    message = failure(events.assert_no_rejections)
    assert "20 rejected though nothing should be" in message
    assert message.count("Alike") == 1


def test_a_sale_without_a_total_has_that_of_its_products(
    events: CapturedEvents, captor: Captor
) -> None:
    """As mParticle's server adds them up."""
    sale = CommerceEvent(
        product_action=ProductAction(
            action="purchase",
            products=[
                Product(id="p-1", price=2, quantity=3),
                Product(id="p-2", total_product_amount=3.5),
            ],
        )
    )
    captor.upload(Batch(environment="development", events=[sale]))

    events.assert_revenue(9.5, times=1)


def test_amounts_that_are_none_are_no_revenue(
    events: CapturedEvents, captor: Captor
) -> None:
    """Text, bools and a commerce event without a total have no amount."""
    captor.track("Paid", user_id="user-1", event_properties={"$revenue": "9.5"})
    captor.track("Paid", user_id="user-1", event_properties={"$price": True})
    for action in (b"{}", b"7", b'{"products":[7,{"price":"x"}]}'):
        body = b'{"environment":"x","events":[{"event_type":"commerce_event","data":'
        body += b'{"product_action":%b}}]}' % action
        events.add("mparticle", body, None, "i-1", DELIVERED)

    failure(events.assert_revenue, 9.5)
    failure(events.assert_revenue, ANY)
    failure(events.assert_revenue, 1, product_id="p-1")


def test_a_set_fits_in_whichever_order_it_was_sent(
    events: CapturedEvents, captor: Captor
) -> None:
    """A list is what the encoder makes of it, and a set has no order."""
    tags = {"red", "green", "blue"}
    captor.track("Paid", user_id="user-1", event_properties={"tags": tags})

    events.assert_tracked("Paid", tags={"blue", "red", "green"})
    events.assert_tracked("Paid", tags=frozenset(tags))
    for other in ({"red", "green"}, {"red", "green", "black"}, tags | {"black"}):
        events.assert_not_tracked("Paid", tags=other)
