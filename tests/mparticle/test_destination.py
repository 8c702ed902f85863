"""One Amplitude client feeds both vendors: the mapping row by row, and its account."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    Event,
    Identify,
    Revenue,
)
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    MParticle,
    MParticleDestination,
    to_batch,
)
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

Connect = Callable[..., MParticle]
Both = Callable[..., Amplitude]
UUID = "0b0a9c8e-1111-4222-8333-944445555666"
WHO = {"user_identities": {"customer_id": "user-1"}}


@pytest.fixture
async def both(emulator: Emulator, connect: Connect) -> AsyncIterator[Both]:
    """Yield a function that makes an Amplitude client which feeds mParticle too."""
    clients: list[Amplitude] = []

    def make(
        mparticle: MParticle | None = None, *, mapping: Any = None, **options: Any
    ) -> Amplitude:
        destination = MParticleDestination(mparticle or connect(), mapping=mapping)
        given = {"server_url": emulator.httpapi_url, "trust_env": False, **options}
        clients.append(Amplitude("amplitude-key", plugins=[destination], **given))
        return clients[-1]

    yield make
    for client in clients:
        stats = await client.shutdown(0.2)
        assert stats.balanced, stats
        assert stats.destinations["mparticle"].balanced
        assert stats.destinations["mparticle"].pending == 0


# The mapping -----------------------------------------------------------------


def mapped(event_type: str = "e", **fields: Any) -> dict[str, Any]:
    """Return the batch of an event as it is on the wire."""
    batch = to_batch(Event(event_type=event_type, **fields), "development")
    assert batch is not None
    wire = batch.to_wire()
    assert wire.pop("environment") == "development"
    return wire


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user_id": "user-1"}, WHO),
        ({"user_id": 42}, {"user_identities": {"customer_id": "42"}}),
        ({"device_id": UUID}, {"mp_deviceid": UUID}),
        ({"device_id": UUID.replace("-", "").upper()}, {"mp_deviceid": UUID}),
        ({"device_id": "phone"}, {"user_identities": {"other": "phone"}}),
        (
            {"user_id": "u", "device_id": "phone"},
            {"user_identities": {"customer_id": "u", "other": "phone"}},
        ),
        ({"user_id": "", "device_id": ""}, {}),
        ({"ip": "192.0.2.1"}, {"ip": "192.0.2.1"}),
        ({"ip": "$remote"}, {}),
        ({"idfa": UUID}, {"device_info": {"ios_advertising_id": UUID}}),
        ({"idfv": UUID}, {"device_info": {"ios_idfv": UUID}}),
        ({"adid": UUID}, {"device_info": {"android_advertising_id": UUID}}),
        ({"adid": "none"}, {}),
        ({"android_id": "a"}, {"device_info": {"android_uuid": "a"}}),
        ({"device_brand": "b"}, {"device_info": {"brand": "b"}}),
        ({"device_manufacturer": "m"}, {"device_info": {"device_manufacturer": "m"}}),
        ({"device_model": "m"}, {"device_info": {"device_model": "m"}}),
        ({"os_version": "7"}, {"device_info": {"os_version": "7"}}),
        ({"carrier": "c"}, {"device_info": {"network_carrier": "c"}}),
        ({"country": "IT"}, {"device_info": {"device_country": "IT"}}),
        ({"language": "it"}, {"device_info": {"locale_language": "it"}}),
        ({"user_agent": "u"}, {"device_info": {"http_header_user_agent": "u"}}),
        ({"platform": "ios"}, {"device_info": {"platform": "iOS"}}),
        ({"platform": "Web"}, {"device_info": {"platform": "web"}}),
        ({"platform": "fridge"}, {}),
        ({"app_version": "1"}, {"application_info": {"application_version": "1"}}),
        ({"user_properties": {"plan": "pro"}}, {"user_attributes": {"plan": "pro"}}),
        (
            {"user_properties": {"plan": "a", "$set": {"plan": "b"}}},
            {"user_attributes": {"plan": "b"}},
        ),
    ],
)
def test_who_and_on_what(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Ids, device, app and user properties, each in its place."""
    wire = mapped(**fields)

    assert wire.pop("events") == [
        {
            "event_type": "custom_event",
            "data": {"event_name": "e", "custom_event_type": "other"},
        }
    ]
    assert wire == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"time": 1_700_000_000_000, "insert_id": "i"},
            {"timestamp_unixtime_ms": 1_700_000_000_000, "source_message_id": "i"},
        ),
        (
            {"location_lat": 0.0, "location_lng": 12.5},
            {"location": {"latitude": 0.0, "longitude": 12.5}},
        ),
        ({"location_lat": 1.0}, {}),
        (
            {
                "event_properties": {
                    "text": "\u20ac",
                    "number": Decimal("1.5"),
                    "flag": False,
                    "nothing": None,
                    "list": ["\u20ac", 1],
                    "object": {"a": {"b": 1}},
                    "lost": float("nan"),
                }
            },
            {
                "custom_attributes": {
                    "text": "\u20ac",
                    "number": 1.5,
                    "flag": False,
                    "nothing": None,
                    "list": '["\u20ac", 1]',
                    "object": '{"a": {"b": 1}}',
                }
            },
        ),
        ({"event_properties": {}}, {}),
        (
            {
                "groups": {"org": "15", "team": ["a", "b"], "x": "group"},
                "event_properties": {"x": "property"},
            },
            {"custom_attributes": {"org": "15", "team": '["a", "b"]', "x": "property"}},
        ),
    ],
)
def test_an_ordinary_event(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """A custom event of type other, with time, place, properties and groups."""
    (event,) = mapped("Paid", **fields)["events"]

    plain = {"event_name": "Paid", "custom_event_type": "other"}
    assert event == {"event_type": "custom_event", "data": {**plain, **expected}}


@pytest.mark.parametrize(
    ("revenue", "action", "rest"),
    [
        (
            Revenue(price=3.5, quantity=2, product_id="p", receipt="r", currency="EUR"),
            {
                "action": "purchase",
                "transaction_id": "r",
                "total_amount": 7.0,
                "products": [
                    {
                        "id": "p",
                        "price": 3.5,
                        "quantity": 2,
                        "total_product_amount": 7.0,
                    }
                ],
            },
            {"currency_code": "EUR"},
        ),
        (
            Revenue(revenue=Decimal("29.33"), quantity=2, revenue_type="cd"),
            {
                "action": "purchase",
                "transaction_id": "i",
                "total_amount": 29.33,
                "products": [{"quantity": 2, "total_product_amount": 29.33}],
            },
            {"custom_attributes": {"$revenueType": "cd"}},
        ),
        (
            Revenue(price=-3, properties={"why": "broken"}),
            {
                "action": "refund",
                "transaction_id": "i",
                "total_amount": 3,
                "products": [{"price": 3, "quantity": 1, "total_product_amount": 3}],
            },
            {"custom_attributes": {"why": "broken"}},
        ),
        (
            Revenue(revenue=0, currency="Taler"),
            {
                "action": "purchase",
                "transaction_id": "i",
                "total_amount": 0,
                "products": [{"quantity": 1, "total_product_amount": 0}],
            },
            {},
        ),
    ],
)
def test_revenue(
    revenue: Revenue, action: dict[str, Any], rest: dict[str, Any]
) -> None:
    """A sale is a purchase and a negative one a refund, in absolute amounts."""
    event = revenue.to_event(user_id="user-1", insert_id="i")
    batch = to_batch(event, "development")
    assert batch is not None
    (wire,) = batch.to_wire()["events"]

    assert wire["event_type"] == "commerce_event"
    assert wire["data"] == {
        "product_action": action,
        "source_message_id": "i",
        **rest,
    }


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (
            {"$set": {"plan": "pro", "tags": ["a", {"b": 1}], "o": {"c": 1}}},
            {
                "user_attributes": {
                    "plan": "pro",
                    "tags": ["a", '{"b": 1}'],
                    "o": '{"c": 1}',
                }
            },
        ),
        ({"$set": {"gone": None}}, {"user_attributes": {"gone": None}}),
        ({"$unset": {"plan": "-"}}, {"deleted_user_attributes": ["plan"]}),
        (
            {"$set": {"a": 1}, "$unset": {"a": "-", "b": "-"}},
            {"user_attributes": {"a": 1}, "deleted_user_attributes": ["b"]},
        ),
        ({"$set": {"a": 1}, "$add": {"n": 1}}, {"user_attributes": {"a": 1}}),
    ],
)
def test_identify(properties: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is set and unset becomes of the user's attributes, without an event."""
    wire = mapped("$identify", user_id="user-1", user_properties=properties)

    assert wire == {**WHO, **expected}


@pytest.mark.parametrize(
    ("fields", "attributes"),
    [
        ({"event_properties": {"": 1, "a": 2}}, {"a": 2}),
        ({"groups": {"": "x"}, "event_properties": {"a": 2}}, {"a": 2}),
        ({"event_properties": {"n": 2**63}}, {"n": str(2**63)}),
        ({"event_properties": {"n": -(2**63)}}, {"n": -(2**63)}),
        ({"event_properties": {"n": [2**64]}}, {"n": f"[{2**64}]"}),
    ],
)
def test_one_property_costs_no_event(
    fields: dict[str, Any], attributes: dict[str, Any]
) -> None:
    """What mParticle cannot have in one property costs that property alone."""
    [sent] = mapped(**fields)["events"]

    assert sent["data"]["custom_attributes"] == attributes


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"$set": 5, "a": 1}, {"user_attributes": {"a": 1}}),
        ({"$set": {"": 1, "a": 1}}, {"user_attributes": {"a": 1}}),
        ({"$set": {"n": 2**64}}, {"user_attributes": {"n": str(2**64)}}),
        (
            {"$set": {"a": 1}, "$unset": {"": "-", "b": "-"}},
            {"user_attributes": {"a": 1}, "deleted_user_attributes": ["b"]},
        ),
        ({"$set": {"a": 1}, "$unset": "abc"}, {"user_attributes": {"a": 1}}),
    ],
)
def test_operations_of_other_shapes(
    properties: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Operations that are no operations change nothing, and cost nothing else."""
    wire = mapped("$identify", user_properties=properties, user_id="user-1")

    assert wire == {**WHO, **expected}


@pytest.mark.parametrize(
    ("properties", "action", "product"),
    [
        (
            {"$price": "9.5", "$quantity": "2"},
            "purchase",
            {"price": 9.5, "quantity": 2.0, "total_product_amount": 19.0},
        ),
        (
            {"$price": 9.5, "$quantity": -2},
            "refund",
            {"price": 9.5, "quantity": 2, "total_product_amount": 19.0},
        ),
        (
            {"$revenue": 5, "$quantity": None, "$productId": 7},
            "purchase",
            {"id": "7", "total_product_amount": 5},
        ),
    ],
)
def test_revenue_of_other_shapes(
    properties: dict[str, Any], action: str, product: dict[str, Any]
) -> None:
    """Numbers that are text and ids that are numbers are read as what they say."""
    [sent] = mapped("revenue_amount", event_properties=properties)["events"]

    assert sent["data"]["product_action"]["action"] == action
    assert sent["data"]["product_action"]["products"] == [product]


@pytest.mark.parametrize("price", [None, "free", float("nan"), True, 10**400, []])
def test_no_sale_of_nothing(price: object) -> None:
    """Revenue without a number is no purchase of zero: it is refused."""
    event = Event(event_type="revenue_amount", event_properties={"$price": price})

    with pytest.raises(ValueError, match=r"set \$price or \$revenue"):
        to_batch(event, "development")


async def test_what_has_no_name_is_told(
    both: Both, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A property without a name is left out of mParticle's copy, with a warning."""
    async with both() as client:
        await client.track("e", user_id="user-1", event_properties={"": 1, "a": 2})
        await client.flush()

    [batch] = emulator.batches
    assert batch["events"][0]["data"]["custom_attributes"] == {"a": 2}
    assert "event_properties has a key without a name" in caplog.text


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([Decimal("1.5"), b"b", object(), 2**64]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
properties_of_any_kind = st.dictionaries(
    st.text(max_size=3)
    | st.sampled_from(["$set", "$unset", "$price", "$quantity", "$revenue"]),
    values,
    max_size=4,
)


@given(
    kind=st.sampled_from(["e", "$identify", "revenue_amount", "$groupidentify"]),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "event_properties": properties_of_any_kind,
            "user_properties": properties_of_any_kind,
            "groups": st.dictionaries(st.text(max_size=2), st.text(max_size=2)),
            "device_id": st.text(max_size=3),
            "idfa": st.text(max_size=3),
            "platform": st.text(max_size=3),
            "app_version": st.text(max_size=3),
            "location_lat": st.floats(allow_nan=False, allow_infinity=False),
            "location_lng": st.floats(allow_nan=False, allow_infinity=False),
        },
    ),
)
def test_any_event_has_a_batch(kind: str, fields: dict[str, Any]) -> None:
    """Nothing in an event's data makes the mapping fail, but revenue without a sum."""
    try:
        batch = to_batch(Event(event_type=kind, user_id="u", **fields), "development")
    except ValueError as error:
        if kind != "revenue_amount":
            raise
        problem = str(error)
    else:
        if batch is not None:
            assert Batch.model_validate(batch.to_wire()).to_wire() == batch.to_wire()
        return
    assert "it has no amount" in problem


def test_groups_of_a_user() -> None:
    """They are attributes named like the group type."""
    groups = {"org": "15", "team": ["a", "b"]}
    wire = mapped("$identify", user_id="user-1", groups=groups)

    assert wire == {**WHO, "user_attributes": groups}


@pytest.mark.parametrize(
    "event",
    [
        Event(event_type="$groupidentify", groups={"org": "15"}),
        Event(event_type="$identify", user_id="user-1"),
        *(
            Event(event_type="$identify", user_id="user-1", user_properties={name: {}})
            for name in ("$setOnce", "$add", "$append", "$remove", "$clearAll")
        ),
    ],
)
def test_what_mparticle_has_nothing_like(event: Event) -> None:
    """Group properties and changes that build on what the server has."""
    assert to_batch(event, "development") is None


def test_the_table_is_on_the_page() -> None:
    """The documentation shows the table of the module, row by row."""
    from amplitude_async.mparticle import destination  # noqa: PLC0415

    page = Path(__file__).parents[2] / "docs" / "mparticle-destination.md"
    text = page.read_text("utf-8")
    rows = [one for one in (destination.__doc__ or "").splitlines() if one[:1] == "|"]
    assert len(rows) > 15
    for row in rows:
        assert row.replace("``", "`") in text


# Delivery --------------------------------------------------------------------


async def test_one_track_reaches_both(both: Both, emulator: Emulator) -> None:
    """Every verb, with the same id and time at each vendor."""
    client = both()
    delivery = await client.track("Paid", user_id="user-1", event_properties={"a": 1})
    await client.revenue(Revenue(price=2), user_id="user-1")
    await client.identify(Identify().set("plan", "pro"), user_id="user-1")
    await client.set_group("org", "15", user_id="user-1")
    stats = await client.flush()

    assert (await delivery).destination == "amplitude"
    assert stats.delivered == stats.destinations["mparticle"].delivered == 4
    paid, sale, plan, group = emulator.batches
    event = emulator.events[0]
    data = paid["events"][0]["data"]
    assert data["source_message_id"] == event["insert_id"] == delivery.insert_id
    assert data["timestamp_unixtime_ms"] == event["time"]
    assert sale["events"][0]["data"]["product_action"]["action"] == "purchase"
    assert plan["user_attributes"] == {"plan": "pro"}
    assert group["user_attributes"] == {"org": "15"}
    assert {b["user_identities"]["customer_id"] for b in emulator.batches} == {"user-1"}


async def test_what_is_left_out_says_so(
    both: Both, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is DROPPED by the mapping with a reason, in silence but for one warning."""
    results: list[DeliveryResult] = []
    client = both(connect(callback=results.append))
    await client.group_identify("org", "15", Identify().set("a", 1))
    for _ in range(3):
        await client.identify(Identify().add("n", 1), user_id="user-1")
    stats = await client.flush()
    await client.shutdown()

    mparticle = stats.destinations["mparticle"]
    assert mparticle.dropped_by_reason == {DropReason.PLUGIN: 4}
    assert (stats.delivered, mparticle.rejected) == (4, 0)
    assert {one.message for one in results} == {
        "the mapping leaves '$groupidentify' out",
        "the mapping leaves '$identify' out",
    }
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]
    assert [one.getMessage() for one in warnings] == [
        "mparticle: mParticle has nothing like $add: left out [left out $add x1]"
    ]


async def test_what_mparticle_does_not_take(both: Both) -> None:
    """It is REJECTED there with a reason, and delivered to Amplitude."""
    client = both()
    delivery = await client.track(
        "e", user_id="user-1", event_properties={"a": "x" * 5000}
    )
    await client.track("e", user_id="user-1", time=4_000_000_000_000)
    stats = await client.flush()

    assert (await delivery).ok
    assert stats.delivered == 2
    assert stats.destinations["mparticle"].rejected == 2


async def test_a_mapping_of_ones_own(both: Both, emulator: Emulator) -> None:
    """It may change its copy of the event, and leave events out."""

    def mapping(event: Event) -> Batch | None:
        if event.event_type == "secret":
            return None
        assert event.event_properties is not None
        event.event_properties["seen"] = True
        event.event_type = "renamed"
        return to_batch(event, "production")

    properties = {"a": 1}
    client = both(mapping=mapping)
    await client.track("e", user_id="user-1", event_properties=properties)
    await client.track("secret", user_id="user-1", event_properties=properties)
    stats = await client.flush()

    (batch,) = emulator.batches
    assert batch["environment"] == "production"
    data = batch["events"][0]["data"]
    assert data["event_name"] == "renamed"
    assert data["custom_attributes"] == {"a": 1, "seen": True}
    assert emulator.events[0]["event_properties"] == properties == {"a": 1}
    assert emulator.events[0]["event_type"] == "e"
    assert stats.destinations["mparticle"].dropped_by_reason == {DropReason.PLUGIN: 1}


def _raises(_event: Event) -> Batch:
    raise KeyError("plan")


def _refuses(_event: Event) -> Batch:
    raise ValueError("no plan")


def _returns_a_dict(_event: Event) -> Any:
    return {"environment": "development"}


def _makes_too_much(_event: Event) -> Batch:
    attributes = {f"a{number}": "x" * 4000 for number in range(10)}
    events = [CustomEvent(event_name="e", custom_attributes=attributes)] * 9
    return Batch(environment="development", **WHO, events=events)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (_raises, "the mapping raised KeyError: 'plan'"),
        (_refuses, "the event has no mParticle form: no plan"),
        (_returns_a_dict, "returned a dict: return a Batch or None"),
        (_makes_too_much, "larger than 128000 bytes"),
    ],
)
async def test_a_mapping_that_fails(
    both: Both, connect: Connect, mapping: Any, message: str
) -> None:
    """Its fault reaches neither the verb nor the other vendor."""
    results: list[DeliveryResult] = []
    client = both(connect(callback=results.append), mapping=mapping)
    await client.track("e", user_id="user-1")
    stats = await client.flush()
    await client.shutdown()

    assert stats.delivered == 1
    (result,) = results
    assert result.status is DeliveryStatus.REJECTED
    assert message in result.message


async def test_without_an_environment(connect: Connect) -> None:
    """The default mapping cannot guess it; a mapping of one's own may know."""
    client = connect(environment=None)
    with pytest.raises(ValueError, match="has no environment"):
        MParticleDestination(client)
    destination = MParticleDestination(client, mapping=_returns_a_dict)
    # It has no short road, on which a client that was shut down would go unnoticed.
    assert destination.offer(Event(event_type="e", user_id="user-1")) is None


async def test_a_stuck_mparticle_delays_nothing(
    both: Both, connect: Connect, emulator: Emulator
) -> None:
    """Its queue is full and its server hangs: Amplitude goes on at once."""
    emulator.faults.add(Fault(delay=60.0, count=None, path="/v2/bulkevents"))
    stuck = connect(max_storage_capacity=2, overflow_timeout=60.0, flush_queue_size=1)
    client = both(stuck)
    async with asyncio.timeout(5):
        deliveries = [await client.track(str(n), user_id="user-1") for n in range(20)]
        for delivery in deliveries:
            assert (await delivery).ok

    mparticle = client.stats.destinations["mparticle"]
    assert mparticle.dropped_by_reason == {DropReason.OVERFLOW: 18}
    assert mparticle.pending == 2
    stats = await client.shutdown(0.1)
    assert stats.delivered == 20
    assert stats.destinations["mparticle"].dropped == 20


async def test_a_stuck_amplitude_delays_nothing(
    both: Both, connect: Connect, emulator: Emulator
) -> None:
    """The other way round."""
    emulator.faults.add(Fault(delay=60.0, count=None, path="/2/httpapi"))
    results: list[DeliveryResult] = []
    complete = asyncio.Event()

    def note(result: DeliveryResult) -> None:
        results.append(result)
        if len(results) == 5:
            complete.set()

    client = both(connect(callback=note))
    for number in range(5):
        await client.track(str(number), user_id="user-1")
    await asyncio.wait_for(complete.wait(), 5)

    assert all(result.ok for result in results)
    assert client.stats.delivered == 0
    stats = await client.shutdown(0.1)
    assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 5}


async def test_overflow_never_raises_into_track(both: Both, connect: Connect) -> None:
    """Whatever the policy of the mParticle client is."""
    full = connect(max_storage_capacity=1, overflow="raise", flush_interval=60)
    client = both(full)
    async with client:
        for number in range(3):
            await client.track(str(number), user_id="user-1")
        client.track_nowait("now", user_id="user-1")
        client.track_nowait("now", user_id="user-1", event_properties={"a": "x" * 5000})
        stats = client.stats.destinations["mparticle"]
        assert stats.dropped_by_reason == {DropReason.OVERFLOW: 3}
        assert stats.rejected == 1


async def test_the_handle_where_amplitude_is_removed(
    both: Both, emulator: Emulator
) -> None:
    """It belongs to mParticle then."""
    client = both()
    async with client:
        await client.remove("amplitude")
        result = await (await client.track("e", user_id="user-1"))
        assert (result.ok, result.destination) == (True, "mparticle")
        client.track_nowait("now", user_id="user-1")
    assert emulator.events == []
    assert emulator.stats.batches_ingested == 2


async def test_removing_it_drains_it(both: Both, emulator: Emulator) -> None:
    """What it has accepted is delivered, and its client is shut down."""
    client = both()
    async with client:
        await client.track("e", user_id="user-1")
        await client.remove("mparticle")
        assert emulator.stats.batches_ingested == 1
        await client.track("e", user_id="user-1")
        await client.add(MParticleDestination(MParticle(opt_out=True), mapping=_raises))


async def test_opting_out(both: Both, connect: Connect, emulator: Emulator) -> None:
    """Of both at Amplitude's client, of mParticle alone at its own."""
    own = connect()
    client = both(own)
    async with client:
        client.opt_out = True
        await client.track("a", user_id="user-1")
        client.opt_out = False
        own.opt_out = True
        await client.track("b", user_id="user-1")
    stats = client.stats

    assert emulator.batches == []
    assert (stats.accepted, stats.delivered) == (2, 1)
    assert stats.destinations["mparticle"].dropped_by_reason == {DropReason.OPT_OUT: 2}


@pytest.mark.parametrize("strict", [False, True])
async def test_an_mparticle_client_that_was_shut_down(
    both: Both, connect: Connect, *, strict: bool
) -> None:
    """What it does not take any more is DROPPED closed, and Amplitude goes on."""
    own = connect(strict=strict)
    client = both(own)
    async with client:
        await client.track("a", user_id="user-1")
        await own.shutdown()
        assert (await (await client.track("b", user_id="user-1"))).ok
        stats = await client.flush()

    mparticle = stats.destinations["mparticle"]
    assert (mparticle.delivered, mparticle.pending) == (1, 0)
    assert mparticle.dropped_by_reason == {DropReason.CLOSED: 1}


async def test_a_durable_mparticle(
    both: Both, connect: Connect, emulator: Emulator, tmp_path: Path
) -> None:
    """Its copies wait on disk for the next process, Amplitude's are delivered."""
    emulator.faults.add(Fault(503, count=None, path="/v2/bulkevents"))
    patient = {"retry_base_interval": 60.0, "retry_max_interval": 60.0}
    client = both(connect(storage=SQLiteStorage(tmp_path), **patient))
    for number in range(3):
        await client.track(str(number), user_id="user-1")
    stats = await client.shutdown(0.1)

    assert stats.delivered == 3
    assert stats.destinations["mparticle"].stored == 3


async def test_purging_a_user(both: Both, connect: Connect) -> None:
    """What waits for one user is given up at both vendors."""
    client = both(connect(flush_interval=60), flush_interval=60)
    async with client:
        await client.track("a", user_id="user-1")
        await client.track("a", user_id="user-2")
        assert await client.purge("user-1") == 2
        assert client.stats.destinations["mparticle"].pending == 1


# Loops and processes ---------------------------------------------------------


@pytest.mark.allow_blocking
def test_a_second_event_loop() -> None:
    """Both vendors go on in the next asyncio.run, also after one was shut down."""
    own = MParticle(
        "key",
        "secret",
        base_url="http://127.0.0.1:9",
        environment="development",
        trust_env=False,
        flush_interval=60,
    )
    client = Amplitude(
        "amplitude-key",
        server_url="http://127.0.0.1:9",
        trust_env=False,
        flush_interval=60,
        plugins=[MParticleDestination(own)],
    )

    async def track() -> None:
        await client.track("e", user_id="user-1")

    async def end() -> None:
        await own.shutdown(0.02)

    async def last() -> None:
        await track()
        stats = await client.shutdown(0.02)
        assert stats.balanced
        assert stats.destinations["mparticle"].balanced
        assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 3}
        assert stats.destinations["mparticle"].dropped_by_reason == {
            DropReason.SHUTDOWN: 2,
            DropReason.CLOSED: 1,
        }

    asyncio.run(track())
    asyncio.run(track())
    assert client.stats.destinations["mparticle"].pending == 2
    asyncio.run(end())
    asyncio.run(last())


@pytest.mark.allow_blocking
def test_a_forked_child_starts_empty() -> None:
    """At both vendors: no event of the parent's is sent twice."""

    async def in_child(client: Amplitude, url: str) -> bool:
        await client.track("child", user_id="user-1")
        stats = await client.shutdown()
        mparticle = stats.destinations["mparticle"]
        counts = (stats.accepted, stats.delivered, mparticle.accepted)
        return counts == (1, 1, 1) and mparticle.delivered == 1

    async def run() -> None:
        async with Emulator() as emulator:
            own = MParticle(
                "key",
                "secret",
                base_url=emulator.mparticle_url,
                environment="development",
                trust_env=False,
                flush_interval=60,
            )
            client = Amplitude(
                "amplitude-key",
                server_url=emulator.httpapi_url,
                trust_env=False,
                flush_interval=60,
                plugins=[MParticleDestination(own)],
            )
            await client.track("parent", user_id="user-1")
            child = os.fork()
            if not child:  # pragma: no cover - counted where coverage follows forks
                good = False
                try:
                    good = asyncio.run(in_child(client, emulator.url))
                finally:
                    os._exit(0 if good else 1)
            loop = asyncio.get_running_loop()
            _, status = await loop.run_in_executor(None, os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await client.shutdown()
            names = [b["events"][0]["data"]["event_name"] for b in emulator.batches]
            assert sorted(names) == ["child", "parent"]
            assert len(emulator.events) == 2

    asyncio.run(run())
