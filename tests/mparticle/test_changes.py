"""What is changed in a batch after it was made: validated again when it is encoded."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import ValidationError

from amplitude_async import DeliveryStatus
from amplitude_async.emulator import Emulator
from amplitude_async.mparticle import (
    Batch,
    BatchError,
    CommerceEvent,
    ConsentState,
    CustomEvent,
    GDPRConsentState,
    GenericEvent,
    MParticle,
    Product,
    ProductAction,
    UserIdentity,
    UserIdentityChangeEvent,
    encode_batch,
)

__all__: list[str] = []

Connect = Callable[..., MParticle]
MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
MS = 1_772_323_200_000
ID = UUID("0b0a9c8e-1111-4222-8333-944445555666")


class Size(NamedTuple):
    """A list to JSON, and none to a check for lists."""

    width: int
    height: int


def batch_of(*events: Any, **fields: Any) -> Any:
    """Make a batch of one user, whose parts a test changes at will."""
    return Batch(
        environment="development",
        user_identities={"customer_id": "c-1"},
        events=list(events),
        **fields,
    )


USABLE = [
    (Decimal("9.99"), 9.99),
    (MOMENT, "2026-03-01T00:00:00+00:00"),
    (ID, str(ID)),
    (timedelta(seconds=3), 3.0),
    ("ü", "ü"),
]
UNUSABLE = [
    (math.nan, "NaN"),
    (math.inf, "infinity"),
    (2**64, "64 bits"),
    (b"bytes", "bytes"),
    (object(), "no JSON form"),
    ("\ud800", "surrogate"),
    ({"a": 1}, "holds text"),
]


@pytest.mark.parametrize(("value", "sent"), USABLE)
async def test_attributes_set_one_by_one(
    value: Any, sent: Any, connect: Connect, emulator: Emulator
) -> None:
    """A value put into a dict is converted as one that was given to the model."""
    event: Any = CustomEvent(event_name="Paid", custom_attributes={}, custom_flags={})
    batch = batch_of(event, user_attributes={})
    batch.user_attributes["v"] = value
    event.custom_attributes["v"] = value
    event.custom_flags["v"] = value
    async with connect() as client:
        await client.upload(batch)
        await client.send(batch)

    assert batch.user_attributes == {"v": value}
    for wire in emulator.batches:
        data = wire["events"][0]["data"]
        assert wire["user_attributes"] == {"v": sent}
        assert data["custom_attributes"] == {"v": sent}
        assert data["custom_flags"] == {"v": sent}


@pytest.mark.parametrize(("value", "problem"), UNUSABLE)
async def test_attributes_that_cannot_be_sent(
    value: Any, problem: str, connect: Connect, emulator: Emulator
) -> None:
    """It is refused with field and reason, by both roads, and nothing is sent."""
    batch = batch_of(user_attributes={})
    batch.user_attributes["v"] = value
    other = batch_of(
        CustomEvent(event_name="a"), CustomEvent(event_name="b", custom_attributes={})
    )
    other.events[1].custom_attributes["v"] = value
    async with connect() as client:
        with pytest.raises(BatchError, match=problem) as raised:
            await client.upload(batch)
        delivery = await client.send(other)
        result = await delivery

    assert "user_attributes" in str(raised.value)
    assert "events.1.custom_attributes" in result.message
    assert problem in result.message
    assert emulator.requests == []


async def test_a_list_of_an_attribute(connect: Connect, emulator: Emulator) -> None:
    """What is not scalar in the list of a user's attribute is judged too."""
    batch = batch_of(user_attributes={"sizes": []})
    batch.user_attributes["sizes"] = Size(1, 2)
    assert batch.to_wire()["user_attributes"] == {"sizes": [1, 2]}
    batch.user_attributes["sizes"] = [1, math.nan]
    async with connect() as client:
        with pytest.raises(BatchError, match="sizes"):
            await client.upload(batch)
    assert emulator.requests == []


def test_dicts_become_the_models_they_stand_for() -> None:
    """What is added to a list of models is read as one, or refused with its place."""
    action: Any = ProductAction(action="purchase", products=[Product(id="a")])
    event = CommerceEvent(product_action=action)
    batch = batch_of(event)
    action.products.append({"id": "b", "total_product_amount": Decimal("1.5")})
    action.products[0].custom_attributes = {}
    action.products[0].custom_attributes["v"] = "w"
    [sent] = batch.to_wire()["events"]
    assert sent["data"]["product_action"]["products"] == [
        {"id": "a", "custom_attributes": {"v": "w"}},
        {"id": "b", "total_product_amount": 1.5},
    ]

    action.products.append({"idd": "b"})
    with pytest.raises(
        ValidationError, match=r"events\.0\.product_action\.products\.2"
    ):
        encode_batch(batch)
    action.products.pop()
    action.products[0].custom_attributes["v"] = 5
    with pytest.raises(ValidationError, match=r"products\.0\.custom_attributes\.v"):
        encode_batch(batch)


def test_consent_is_added_purpose_by_purpose() -> None:
    """An empty map is there to be filled, and is not sent while it is empty."""
    state: Any = ConsentState(gdpr={}, ccpa={})
    batch = batch_of(consent_state=state)
    assert "consent_state" not in batch.to_wire()

    state.gdpr["ads"] = GDPRConsentState(consented=True, timestamp_unixtime_ms=MS)
    state.gdpr["mail"] = {"consented": False, "timestamp_unixtime_ms": MOMENT}
    assert batch.to_wire()["consent_state"] == {
        "gdpr": {
            "ads": {"consented": True, "timestamp_unixtime_ms": MS},
            "mail": {"consented": False, "timestamp_unixtime_ms": MS},
        }
    }
    state.gdpr["mail"] = {"consented": "no"}
    with pytest.raises(ValidationError, match=r"consent_state\.gdpr\.mail\.consented"):
        encode_batch(batch)


def test_lists_of_text_hold_text() -> None:
    """Names and partner ids that were added are text, or refused."""
    batch = batch_of(deleted_user_attributes=["a"], partner_identities={"p": "1"})
    batch.deleted_user_attributes.append(7)
    with pytest.raises(ValidationError, match=r"deleted_user_attributes\.1"):
        encode_batch(batch)
    batch.deleted_user_attributes = ["a"]
    batch.partner_identities["q"] = 5
    with pytest.raises(ValidationError, match=r"partner_identities\.q"):
        encode_batch(batch)


def test_kept_and_forgotten_in_one() -> None:
    """The rule about the two holds for what was added, too."""
    batch = batch_of(user_attributes={"a": 1}, deleted_user_attributes=["b"])
    batch.deleted_user_attributes.append("a")
    with pytest.raises(ValidationError, match="remove each from one of the two"):
        encode_batch(batch)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (
            lambda: batch_of(user_attributes={"a": 1}),
            "deleted_user_attributes",
            ["a"],
        ),
        (
            lambda: batch_of(deleted_user_attributes=["a"]),
            "user_attributes",
            {"a": 1},
        ),
        (
            lambda: UserIdentityChangeEvent(
                new=UserIdentity(
                    identity_type="email", identity="e", timestamp_unixtime_ms=MS
                )
            ),
            "new",
            None,
        ),
        (
            lambda: CommerceEvent(product_action=ProductAction(action="click")),
            "product_action",
            None,
        ),
        (lambda: CustomEvent(event_name="e"), "event_name", ""),
        (lambda: CustomEvent(event_name="e"), "custom_attributes", {"a": [1]}),
    ],
)
def test_a_refused_assignment_changes_nothing(
    make: Callable[[], Any], name: str, value: Any
) -> None:
    """A model that refuses a value goes on with the one it had."""
    model = make()
    before = model.model_copy(deep=True)
    with pytest.raises(ValidationError):
        setattr(model, name, value)
    assert model == before
    assert model.to_wire() == before.to_wire()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"ip": 12345}, "ip"),
        ({"mpid": "none"}, "mpid"),
        ({"user_attributes": {"v": math.nan}}, "user_attributes"),
        ({"user_identities": {"customer_ID": "c"}}, "user_identities.customer_ID"),
        (
            {
                "events": [
                    CustomEvent(event_name="e").model_copy(update={"event_name": 5})
                ]
            },
            "events.0",
        ),
    ],
)
async def test_what_a_plugin_returns_is_validated(
    change: dict[str, Any], where: str, connect: Connect, emulator: Emulator
) -> None:
    """A copy that a plugin made unchecked is refused, and the field is named."""

    async def spoil(batch: Batch) -> Batch:
        return batch.model_copy(update=change)

    async with connect() as client:
        await client.add(spoil)
        result = await (await client.send(batch_of(CustomEvent(event_name="e"))))

    assert result.status is DeliveryStatus.REJECTED
    assert f"the batch cannot be sent, {where}" in result.message
    assert emulator.requests == []


# Ids and times ---------------------------------------------------------------


def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of members that have different names."""
    made = dict(pairs)
    assert len(made) == len(pairs), f"a name comes twice: {pairs}"
    return made


async def raw(batch: Batch, connect: Connect, recorder: Any) -> list[dict[str, Any]]:
    """Send a batch by every road and read what arrived, name by name."""
    recorder.requests.clear()
    async with connect(base_url=recorder.url) as client:
        await client.upload(batch)
        await client.upload_many([batch])
        await client.send(batch)
    found = []
    for request in recorder.requests:
        body = json.loads(request.raw, object_pairs_hook=only_once)
        found += body if isinstance(body, list) else [body]
    assert len(found) == 3
    return found


@pytest.mark.parametrize(
    "key",
    [
        'x","environment":"production',
        '"',
        "\\",
        '\\"},{"a":"',
        "\n\x00\x7f",
        "ü\u2028",
    ],
)
async def test_no_id_says_more_than_it_is(
    key: str, connect: Connect, recorder: Any
) -> None:
    """Text of any kind stays text: no id changes what stands beside it."""
    event = CustomEvent(event_name=key, source_message_id=key)
    generic = GenericEvent(event_type=key, data={"source_message_id": key, key: key})
    batch = batch_of(event, generic, source_request_id=key, user_attributes={key: key})
    for sent in await raw(batch, connect, recorder):
        assert sent["environment"] == "development"
        assert sent["source_request_id"] == key
        assert sent["user_attributes"] == {key: key}
        assert [one["data"]["source_message_id"] for one in sent["events"]] == [key] * 2
        assert sent["events"][1]["event_type"] == key


async def test_empty_ids_are_missing(connect: Connect, recorder: Any) -> None:
    """An empty id is none: one is filled in, once."""
    event = CustomEvent(event_name="e", source_message_id="")
    copied = CustomEvent(event_name="e").model_copy(update={"source_message_id": ""})
    generic = GenericEvent(
        event_type="x", data={"source_message_id": "", "timestamp_unixtime_ms": None}
    )
    batch = batch_of(event, copied, generic, source_request_id="")
    unset = batch_of(CustomEvent(event_name="e")).model_copy(
        update={"source_request_id": ""}
    )
    for sent in [
        *await raw(batch, connect, recorder),
        *await raw(unset, connect, recorder),
    ]:
        assert UUID(sent["source_request_id"])
        for one in sent["events"]:
            assert UUID(one["data"]["source_message_id"])
            assert one["data"]["timestamp_unixtime_ms"] > MS / 2


def test_empty_ids_name_nobody() -> None:
    """A partner's empty identity ties a batch to no profile."""
    batch = Batch(environment="development", partner_identities={"p": ""})
    assert not batch.has_identity


@pytest.mark.parametrize(
    ("moment", "sent"),
    [(MOMENT, MS), (MS, MS), (float(MS), MS), (0, 0), ("soon", "soon")],
)
async def test_the_time_of_a_generic_event(
    moment: Any, sent: Any, connect: Connect, recorder: Any
) -> None:
    """It is sent once, in milliseconds; what is no time goes as it is."""
    made = GenericEvent(event_type="x", data={"timestamp_unixtime_ms": moment})
    added = GenericEvent(event_type="x", data={})
    added.data["timestamp_unixtime_ms"] = moment
    named = GenericEvent(
        event_type="x", data={"timestamp_unixtime_ms": moment, "source_message_id": 7}
    )
    for body in await raw(batch_of(made, added, named), connect, recorder):
        data = [event["data"] for event in body["events"]]
        assert [one["timestamp_unixtime_ms"] for one in data] == [sent] * 3
        assert data[2]["source_message_id"] == 7


async def test_old_events_that_were_changed(
    connect: Connect, emulator: Emulator
) -> None:
    """The historical endpoint's rules are about what will be sent."""
    old: Any = GenericEvent(event_type="x", data={})
    old.data["timestamp_unixtime_ms"] = MOMENT
    batch = batch_of(old)
    async with connect() as client:
        await client.upload_historical([batch])
        batch.events.append({"event_type": "screen_view"})
        with pytest.raises(BatchError, match=r"events\.1\.screen_view\.screen_name"):
            await client.upload_historical([batch])

    [sent] = emulator.batches
    assert sent["events"][0]["data"]["timestamp_unixtime_ms"] == MS


@pytest.mark.parametrize(
    "moment", [1_772_323_200, 1_772_323_200.5, MOMENT.replace(tzinfo=None)]
)
def test_a_generic_event_in_seconds(moment: Any) -> None:
    """Seconds and a time without a zone are refused, wherever they were put."""
    with pytest.raises(ValidationError, match="data"):
        GenericEvent(event_type="x", data={"timestamp_unixtime_ms": moment})
    added = GenericEvent(event_type="x", data={})
    added.data["timestamp_unixtime_ms"] = moment
    with pytest.raises(ValidationError, match=r"events\.0\.data"):
        encode_batch(batch_of(added))
