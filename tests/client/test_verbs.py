"""Verbs: what each puts on the wire, and who wins where fields are given twice."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from amplitude_async import (
    Amplitude,
    Delivery,
    DeliveryStatus,
    Event,
    EventOptions,
    Identify,
    Plan,
    Revenue,
    TypedEvent,
)
from amplitude_async.emulator import Emulator
from amplitude_async.testing import CapturedEvents, capture

__all__: list[str] = []

Connect = Callable[..., Amplitude]

FILLED_IN = {"insert_id", "time", "library"}


class CheckoutCompleted(TypedEvent):
    """An event described by a class."""

    order_id: str
    total: Decimal


def sent(emulator: Emulator) -> list[dict[str, Any]]:
    """Return the events that arrived, without what is filled in for everybody."""
    return [
        {name: value for name, value in event.items() if name not in FILLED_IN}
        for event in emulator.events
    ]


VERBS: dict[str, tuple[Callable[[Amplitude], Awaitable[Delivery]], dict[str, Any]]] = {
    "track": (
        lambda client: client.track("Signed Up", user_id="user-1"),
        {"event_type": "Signed Up", "user_id": "user-1"},
    ),
    "track_event": (
        lambda client: client.track(Event(event_type="Signed Up", user_id="user-1")),
        {"event_type": "Signed Up", "user_id": "user-1"},
    ),
    "track_typed": (
        lambda client: client.track(
            CheckoutCompleted(order_id="o-1", total=Decimal("9.99")),
            user_id="user-1",
            event_properties={"order_id": "loses", "more": True},
        ),
        {
            "event_type": "Checkout Completed",
            "user_id": "user-1",
            "event_properties": {"order_id": "o-1", "total": 9.99, "more": True},
        },
    ),
    "identify": (
        lambda client: client.identify(Identify().set("plan", "pro"), user_id="user-1"),
        {
            "event_type": "$identify",
            "user_id": "user-1",
            "user_properties": {"$set": {"plan": "pro"}},
        },
    ),
    "group_identify": (
        lambda client: client.group_identify("org", "15", Identify().set("size", 3)),
        {
            "event_type": "$groupidentify",
            "groups": {"org": "15"},
            "group_properties": {"$set": {"size": 3}},
        },
    ),
    "set_group": (
        lambda client: client.set_group("org", "15", user_id="user-1"),
        {
            "event_type": "$identify",
            "user_id": "user-1",
            "user_properties": {"$set": {"org": "15"}},
            "groups": {"org": "15"},
        },
    ),
    "set_group_list": (
        lambda client: client.set_group("org", ["15", "21"], device_id="device-1"),
        {
            "event_type": "$identify",
            "device_id": "device-1",
            "user_properties": {"$set": {"org": ["15", "21"]}},
            "groups": {"org": ["15", "21"]},
        },
    ),
    "revenue": (
        lambda client: client.revenue(
            Revenue(price=3.99, product_id="p", properties={"color": "red"}),
            user_id="user-1",
            event_properties={"$price": "loses", "shop": "b"},
        ),
        {
            "event_type": "revenue_amount",
            "user_id": "user-1",
            "event_properties": {
                "$price": 3.99,
                "$productId": "p",
                "$quantity": 1,
                "color": "red",
                "shop": "b",
            },
        },
    ),
}


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """Yield what every client of a test tracks; nothing is sent."""
    with capture() as events:
        yield events


@pytest.mark.parametrize("name", VERBS)
async def test_each_verb_on_the_wire(
    name: str, connect: Connect, emulator: Emulator
) -> None:
    """Each verb sends one event of the documented shape."""
    call, expected = VERBS[name]
    async with connect() as client:
        result = await (await call(client))

    assert (result.status, result.code, result.attempts) == (
        DeliveryStatus.DELIVERED,
        200,
        1,
    )
    assert sent(emulator) == [expected]


@pytest.mark.parametrize("name", VERBS)
async def test_verbs_take_options_and_fields(
    name: str, connect: Connect, emulator: Emulator
) -> None:
    """Each verb takes options positionally; explicit fields win over them."""
    options = EventOptions(user_id="options", device_id="options", app_version="1")
    fields: dict[str, Any] = {"user_id": "explicit", "ip": "10.0.0.1"}
    async with connect() as client:
        calls: dict[str, Awaitable[Delivery]] = {
            "track": client.track("e", options, **fields),
            "track_event": client.track(
                Event(event_type="e", user_id="event", ip="event", language="de"),
                options,
                **fields,
            ),
            "track_typed": client.track(
                CheckoutCompleted(order_id="o", total=Decimal(1)), options, **fields
            ),
            "identify": client.identify(Identify().set("a", 1), options, **fields),
            "group_identify": client.group_identify(
                "org", "15", Identify().set("a", 1), options, **fields
            ),
            "set_group": client.set_group("org", "15", options, **fields),
            "set_group_list": client.set_group("org", ["15"], options, **fields),
            "revenue": client.revenue(Revenue(price=1), options, **fields),
        }
        chosen = calls.pop(name)
        for other in calls.values():
            cast("Any", other).close()
        await (await chosen)

    (event,) = sent(emulator)
    merged = {key: event[key] for key in ("user_id", "device_id", "app_version", "ip")}
    assert merged == {
        "user_id": "explicit",
        "device_id": "options",
        "app_version": "1",
        "ip": "10.0.0.1",
    }
    assert event.get("language") == ("de" if name == "track_event" else None)


async def test_options_overwrite_the_event(
    connect: Connect, events: CapturedEvents
) -> None:
    """An option wins over the event's own value, zero included; the rest stays."""
    moment = datetime(2022, 11, 12, 13, 14, 15, tzinfo=UTC)
    old = 1_600_000_000_000
    properties = {"kept": 1}
    event = Event(
        event_type="e",
        user_id="user-1",
        time=old,
        event_id=5,
        event_properties=properties,
    )
    async with connect() as client:
        await (await client.track(event, EventOptions(time=old + 10, event_id=0)))
        await (await client.track(event, time=moment))
        await (await client.track(event, event_properties={"instead": 2}))
        await (await client.track(event, user_id=None))

    assert [one["event_id"] for one in events] == [0, 5, 5, 5]
    assert [one["time"] for one in events] == [
        old + 10,
        1668258855000,
        old,
        old,
    ]
    assert [one["event_properties"] for one in events] == [
        {"kept": 1},
        {"kept": 1},
        {"instead": 2},
        {"kept": 1},
    ]


async def test_the_callers_objects_are_never_changed(
    connect: Connect, events: CapturedEvents
) -> None:
    """Event, options, typed event, identify and revenue are the same afterwards."""
    event = Event(event_type="e", user_id="user-1", event_properties={"a": [1]})
    options = EventOptions(device_id="device-1", plan=Plan(branch="main"))
    typed = CheckoutCompleted(order_id="o", total=Decimal(1))
    identify = Identify().set("a", [1])
    revenue = Revenue(price=1, properties={"a": 1})
    objects = (event, options, typed, identify, revenue)
    before = [repr(one) + str(one.model_fields_set) for one in objects]

    async with connect(plan=Plan(version="2")) as client:
        for extra in (None, options):
            await client.track(event, extra, city="Graz")
            await client.track(typed, extra, user_id="user-1")
            await client.identify(identify, extra, user_id="user-1")
            await client.revenue(revenue, extra, user_id="user-1")

    assert [repr(one) + str(one.model_fields_set) for one in objects] == before
    assert len(events) == 8


async def test_later_changes_of_an_event_do_not_matter(
    connect: Connect, emulator: Emulator
) -> None:
    """An event is sent as it was when the verb returned, however deep."""
    properties = {"list": [1], "deep": {"a": 1}}
    event = Event(event_type="e", user_id="user-1", event_properties=properties)
    async with connect() as client:
        delivery = await client.track(event)
        event.event_type = "other"
        properties["list"].append(2)  # type: ignore[attr-defined]
        assert event.event_properties is not None
        event.event_properties["deep"]["a"] = 2
        result = await delivery

    assert sent(emulator)[0]["event_type"] == "e"
    expected = {"list": [1], "deep": {"a": 1}}
    assert sent(emulator)[0]["event_properties"] == expected
    assert result.event.event_properties == expected


async def test_one_object_tracked_twice_is_two_events(
    connect: Connect, events: CapturedEvents
) -> None:
    """Each call makes an insert_id of its own, which the handle knows."""
    event = Event(event_type="e", user_id="user-1")
    async with connect() as client:
        handles = [await client.track(event), await client.track(event)]

    assert [one["insert_id"] for one in events] == [one.insert_id for one in handles]
    assert handles[0].insert_id != handles[1].insert_id


async def test_ids_become_text(connect: Connect, emulator: Emulator) -> None:
    """An int is a fine user id where the server takes one so short."""
    async with connect(min_id_length=1) as client:
        await client.track("e", user_id=42)
        await client.flush()

    assert emulator.events[0]["user_id"] == "42"
    assert emulator.requests[0].options == {"min_id_length": 1}


async def test_extra_reaches_no_server(connect: Connect, emulator: Emulator) -> None:
    """What is for plugins alone stays here; what is absent leaves no key."""
    async with connect() as client:
        await client.track("e", user_id="user-1", extra={"request": object()})
        await client.flush()

    assert sent(emulator) == [{"event_type": "e", "user_id": "user-1"}]


async def test_plan_and_ingestion_metadata_of_the_client(
    connect: Connect, events: CapturedEvents
) -> None:
    """Each event gets what the configuration knows, unless it has its own."""
    options: dict[str, Any] = {
        "plan": {"branch": "main", "version_id": "a1"},
        "ingestion_metadata": {"source_name": "ampli"},
    }
    async with connect(**options) as client:
        await client.identify(Identify().set("a", 1), user_id="user-1")
        await client.track("e", user_id="user-1", plan={"version": "2"})

    first, second = events
    assert first["plan"] == {"branch": "main", "versionId": "a1"}
    assert second["plan"] == {"version": "2"}
    assert first["ingestion_metadata"] == {"source_name": "ampli"}
    assert first["library"].startswith("amplitude-async-python/")


WRONG_KINDS: dict[str, tuple[Callable[[Any], Awaitable[Any]], str]] = {
    "event": (lambda client: client.track(5), "event=5 must be an Event"),
    "event class": (lambda client: client.track(Event), "must be an Event"),
    "no event": (lambda client: client.track(), "event"),
    "mapping": (
        lambda client: client.track("e", {"a": 1}),
        "properties go in event_properties=",
    ),
    "options": (lambda client: client.track("e", 5), "options=5 must be EventOptions"),
    "identify": (lambda client: client.identify({"$set": {}}), "instance of Identify"),
    "identify options": (
        lambda client: client.identify(Identify().set("a", 1), {"user_id": "u"}),
        "must be EventOptions",
    ),
    "group identify": (
        lambda client: client.group_identify("org", "15", None),
        "identify=None must be an instance of Identify",
    ),
    "revenue": (lambda client: client.revenue(3.99), "revenue=3.99 must be"),
    "near miss": (
        lambda client: client.track("e", userid="u"),
        "unknown field 'userid': did you mean 'user_id'",
    ),
    "far miss": (
        lambda client: client.track("e", colour="red"),
        "unknown field 'colour': properties go in event_properties",
    ),
    "typed": (
        lambda client: client.track(
            CheckoutCompleted(order_id="o", total=Decimal(1)), userid="u"
        ),
        "did you mean 'user_id'",
    ),
    "empty identify": (
        lambda client: client.identify(Identify(), deviceid="d"),
        "did you mean 'device_id'",
    ),
    "identify fields": (
        lambda client: client.identify(Identify().set("a", 1), usr_id="u"),
        "did you mean 'user_id'",
    ),
    "set group": (
        lambda client: client.set_group("org", "15", usr_id="u"),
        "did you mean 'user_id'",
    ),
    "event type": (
        lambda client: client.track("e", event_type="f"),
        "event_type is the first argument",
    ),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
async def test_wrong_kinds_raise(name: str, connect: Connect) -> None:
    """A call that no data can excuse raises TypeError, says why, accepts nothing."""
    call, hint = WRONG_KINDS[name]
    async with connect() as client:
        with pytest.raises(TypeError) as caught:
            await call(client)

        assert hint in str(caught.value)
        assert client.stats.accepted == 0


async def test_track_nowait(connect: Connect, emulator: Emulator) -> None:
    """Synchronous code on the loop's thread tracks without awaiting."""
    async with connect() as client:
        delivery = client.track_nowait(
            Event(event_type="e"), EventOptions(device_id="device-1"), user_id="user-1"
        )
        assert not delivery.done
        assert (await delivery).ok
        with pytest.raises(TypeError, match="did you mean 'user_id'"):
            client.track_nowait("e", **cast("Any", {"userid": "u"}))

    expected = {"event_type": "e", "user_id": "user-1", "device_id": "device-1"}
    assert sent(emulator) == [expected]


# --- Property values ---


async def test_identify_sends_any_value(connect: Connect, emulator: Emulator) -> None:
    """Neither many keys nor lists of booleans make an operation invalid for us.

    The official Node SDK refuses these. A function has no JSON form: its key alone
    is lost.
    """
    identify = Identify().set("flags", [True, False]).set("call", len).append("l", None)
    for number in range(1001):
        identify.set(f"key {number}", number)
    async with connect() as client:
        assert (await (await client.identify(identify, user_id="user-1"))).ok

    operations = emulator.events[0]["user_properties"]
    assert operations["$append"] == {"l": None}
    assert operations["$set"]["flags"] == [True, False]
    assert len(operations["$set"]) == 1002
    assert "call" not in operations["$set"]


async def test_large_properties_are_sent_whole(
    connect: Connect, emulator: Emulator
) -> None:
    """A dict of 2,000 keys arrives, and each scalar as the very value it was.

    The official Python SDK sends an empty dict instead. Only the size of a whole
    request is limited.
    """
    properties = {
        "many": {str(number): number for number in range(2000)},
        "scalars": [False, 1, 1.5, "text", None],
        "zero": 0,
    }
    async with connect() as client:
        await client.track("e", user_id="user-1", event_properties=properties)

    assert emulator.events[0]["event_properties"] == properties


async def test_keys_keep_their_order(connect: Connect, events: CapturedEvents) -> None:
    """Properties arrive in the caller's order; the official Python SDK sorts them."""
    async with connect() as client:
        await client.track("e", user_id="user-1", event_properties={"b": 1, "a": 2})

    assert list(events[0]["event_properties"]) == ["b", "a"]
