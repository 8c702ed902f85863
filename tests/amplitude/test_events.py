"""Events: what the models take, what goes on the wire, what is never changed."""

import copy
import json
import math
import pickle
import typing
import warnings
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, computed_field

from amplitude_async.amplitude.compose import (
    build_event,
    check_field_names,
    merge_options,
)
from amplitude_async.amplitude.encoder import (
    _HELD,
    EncodedEvent,
    EventDefaults,
    InsertIds,
    decode_event,
    encode_event,
)
from amplitude_async.amplitude.events import (
    Event,
    EventFields,
    EventOptionFields,
    EventOptions,
    IngestionMetadata,
    Plan,
)
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.config import near_miss
from amplitude_async.encoding import ValuePolicy
from amplitude_async.shown import printable

POLICY = ValuePolicy()
NO_DEFAULTS = EventDefaults()
WALL = 1_700_000_000.5
MOMENT = 1_700_000_000_000


def encode(
    event: Event,
    policy: ValuePolicy = POLICY,
    defaults: EventDefaults = NO_DEFAULTS,
) -> EncodedEvent:
    """Encode with a fixed insert id and time."""
    return encode_event(event, policy, defaults, insert_id=lambda: "new-id", wall=0.007)


def wire(event: Event, **options: Any) -> dict[str, Any]:
    """Give the members that the encoder did not fill in."""
    body: dict[str, Any] = json.loads(encode(event, **options).body)
    assert (body.pop("insert_id"), body.pop("time")) == ("new-id", 7)
    return body


# --- Fields ---


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("user_id", 42, "42"),
        ("user_id", "", ""),
        ("device_id", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("insert_id", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("time", 1_700_000_000_000, 1_700_000_000_000),
        ("session_id", 5, 5),
        ("os_version", 17, "17"),
        ("os_version", 17.2, "17.2"),
        ("time", datetime(2022, 11, 12, 13, 14, 15, tzinfo=UTC), 1668258855000),
        ("session_id", datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        ("session_id", -1, -1),
        ("session_id", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1000),
        ("price", 2, 2.0),
        ("price", Decimal("0.1"), 0.1),
        ("revenue", -1.5, -1.5),
        ("location_lat", Decimal("59.9"), 59.9),
        ("groups", {"a": 15, "b": ("x", 2)}, {"a": "15", "b": ["x", "2"]}),
        ("event_properties", MappingProxyType({4: 1}), {4: 1}),
        ("plan", {"versionId": "v"}, Plan(version_id="v")),
        (
            "ingestion_metadata",
            {"source_name": "s"},
            IngestionMetadata(source_name="s"),
        ),
    ],
)
def test_lenient_input(name: str, value: object, held: object) -> None:
    """Related Python types are taken and held as one plain type."""
    fields: dict[str, Any] = {name: value}
    event = Event(event_type="e", **fields)
    assert getattr(event, name) == held
    assert type(getattr(event, name)) is type(held)
    event = Event(event_type="e")
    setattr(event, name, value)
    assert getattr(event, name) == held


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("user_id", True, "convert it with str"),
        ("user_id", 1.5, "convert it with str"),
        ("time", 1.5, "aware datetime"),
        ("time", True, "aware datetime"),
        ("time", 1_700_000_000, "int(seconds * 1000)"),
        ("time", 1_700_000_000_000_000, "nor microseconds"),
        ("time", datetime(1970, 1, 2, tzinfo=UTC), "neither seconds"),
        ("time", 10**400, "whole milliseconds"),
        ("quantity", 10**400, "less than or equal to"),
        ("os_version", [17], "convert it with str()"),
        ("os_version", True, "convert it with str()"),
        ("os_version", float("nan"), "convert it with str()"),
        ("time", datetime(2022, 11, 12), "aware datetime"),  # noqa: DTZ001
        ("price", "1", "finite number"),
        ("price", True, "finite number"),
        ("price", math.nan, "finite number"),
        ("price", Decimal("Infinity"), "finite number"),
        ("price", Decimal("1E+400"), "finite number"),
        ("quantity", True, "valid integer"),
        ("groups", {"a": None}, "a group name should be"),
        ("event_properties", "k=v", "valid dictionary"),
        ("plan", {"brunch": "main"}, "did you mean 'branch'"),
        ("user_idd", "u", "did you mean 'user_id'"),
        ("userId", "u", "did you mean 'user_id'"),
        ("colour", "red", "properties go in event_properties"),
    ],
)
def test_bad_input(name: str, value: object, remedy: str) -> None:
    """A bad value or an unknown name raises an error with field and remedy."""
    fields: dict[str, Any] = {"event_type": "e", name: value}
    with pytest.raises(ValidationError) as raised:
        Event(**fields)
    assert remedy in str(raised.value)
    assert raised.value.errors()[0]["loc"][0] == name
    with pytest.raises(ValidationError) as raised:
        Event.model_validate(fields)
    assert remedy in str(raised.value)


def test_bad_assignment() -> None:
    """Assignments are validated, and a refused one changes nothing."""
    event = Event(event_type="e", price=1)
    with pytest.raises(ValidationError, match="finite number"):
        setattr(event, "price", "2")  # noqa: B010  # a wrong type on purpose
    assert event.price == 1.0


def test_options_have_no_properties() -> None:
    """Options hold everything but the type and the four dicts of an event."""
    four = {"event_properties", "user_properties", "groups", "group_properties"}
    assert Event.model_fields.keys() - EventOptions.model_fields.keys() == {
        "event_type",
        *four,
    }
    fields: dict[str, Any] = {"event_properties": {}}
    with pytest.raises(ValidationError, match="see the fields of EventOptions"):
        EventOptions(**fields)


def test_typed_fields_match_the_models() -> None:
    """The keyword fields for type checkers are exactly the fields of the models."""
    options = typing.get_type_hints(EventOptionFields).keys()
    fields = typing.get_type_hints(EventFields).keys()
    assert options == EventOptions.model_fields.keys()
    assert fields == Event.model_fields.keys() - {"event_type"}


def test_copies_and_repr() -> None:
    """Events compare, pickle and copy, and print only what they have."""
    event = Event(event_type="e", user_id="u", plan=Plan(version="1"))
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301
    assert copy.deepcopy(event) == event
    assert repr(event) == "Event(user_id='u', plan=Plan(version='1'), event_type='e')"


def test_json_schema() -> None:
    """An event can be part of the interface of a web service."""
    fields = Event.model_json_schema()["properties"]
    assert fields["user_id"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert fields["time"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]


def test_near_miss() -> None:
    """A misspelt name finds the one probably meant, a foreign one finds none."""
    assert near_miss("userID", ["user_id", "device_id"]) == "user_id"
    assert near_miss("flavour", ["user_id", "device_id"]) is None


# --- Building and merging ---


def test_field_names() -> None:
    """Both spellings of a field are known; others raise and name the likely one."""
    check_field_names({"productId": 1, "product_id": 1, "event_properties": 1})
    with pytest.raises(TypeError, match="'user_idd': did you mean 'user_id'"):
        check_field_names({"user_idd": 1})
    with pytest.raises(TypeError, match="first argument"):
        check_field_names({"event_type": 1})


def test_merge_order() -> None:
    """Fields win over options, options over the event; None overwrites nothing."""
    properties = {"k": [1]}
    event = Event(
        event_type="e", user_id="event", price=1, city="x", event_properties=properties
    )
    options = EventOptions(user_id="option", price=2, productId="p")  # type: ignore[call-arg]
    before = (event.model_dump(), options.model_dump())
    fields = {"user_id": 3, "price": None, "revenueType": "tax"}
    merged = merge_options(event, options, fields)
    assert merged == Event(
        event_type="e",
        user_id="3",
        price=2,
        city="x",
        product_id="p",
        revenue_type="tax",
        event_properties=properties,
    )
    assert (event.model_dump(), options.model_dump()) == before


def test_merge_of_nothing() -> None:
    """Without options and fields the very event comes back."""
    event = Event(event_type="e")
    assert merge_options(event, None, {}) is event
    assert merge_options(event, EventOptions(), {}) == event


def test_merge_takes_no_type_from_options() -> None:
    """An event used as options gives its options only."""
    merged = merge_options(
        Event(event_type="e"), Event(event_type="x", city="c", groups={"a": "b"}), {}
    )
    assert merged == Event(event_type="e", city="c")


def test_merge_refuses_bad_fields() -> None:
    """Unknown names and bad values raise and leave the event as it was."""
    event = Event(event_type="e")
    with pytest.raises(TypeError, match="did you mean 'price'"):
        merge_options(event, None, {"prize": 1})
    with pytest.raises(ValidationError, match="finite number"):
        merge_options(event, None, {"price": "free"})
    assert event == Event(event_type="e")


def test_build() -> None:
    """An event built from its type has the fields, then what options add."""
    event = build_event("e", EventOptions(user_id="o", city="c"), {"user_id": "f"})
    assert event == Event(event_type="e", user_id="f", city="c")
    assert build_event("e", None, {}) == Event(event_type="e")
    with pytest.raises(TypeError, match="did you mean 'city'"):
        build_event("e", None, {"citi": "c"})


# --- Typed events ---


class CheckoutCompleted(TypedEvent):
    """An event with an alias, an absent value and a nested Python value."""

    total: Decimal
    item_ids: tuple[int, ...] = Field((), serialization_alias="itemIds")
    coupon: str | None = None


class APICall(TypedEvent):
    """An event whose name starts with an acronym."""


class Renamed(CheckoutCompleted):
    """An event that names itself."""

    event_type: ClassVar[str] = "checkout"


class Child(Renamed):
    """An event that inherits fields and the name that its parent gave itself."""


ValueT = TypeVar("ValueT")


class Measured(TypedEvent, Generic[ValueT]):
    """A generic event."""

    value: ValueT


@pytest.mark.parametrize(
    ("event", "event_type"),
    [
        (CheckoutCompleted, "Checkout Completed"),
        (APICall, "API Call"),
        (Renamed, "checkout"),
        (Child, "checkout"),
        (Measured, "Measured"),
        (Measured[int], "Measured"),
    ],
)
def test_event_type_of_class(event: type[TypedEvent], event_type: str) -> None:
    """The event type is the class name in words unless the class gives one."""
    assert event.event_type == event_type


def test_typed_event() -> None:
    """Fields become properties under their aliases; absent ones are left out."""
    checkout = CheckoutCompleted(total=Decimal("9.90"), item_ids=(1, 2))
    own: dict[str, Any] = {"total": Decimal("9.90"), "itemIds": (1, 2)}
    assert checkout.properties() == own
    event = checkout.to_event(user_id="u", event_properties={"total": 0, "more": 1})
    assert event == Event(
        event_type="Checkout Completed",
        user_id="u",
        event_properties={**own, "more": 1},
    )
    assert wire(event)["event_properties"] == {
        "total": 9.9,
        "itemIds": [1, 2],
        "more": 1,
    }


def test_event_type_as_a_field() -> None:
    """An event type declared as a field is refused where the class is made."""
    namespace = {"__annotations__": {"event_type": str}, "event_type": "x"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError, match=r"ClassVar\[str\]"):
            type("Wrong", (TypedEvent,), namespace)


# --- Encoding ---


def test_wire_spelling() -> None:
    """Fields go out under their wire names, without None and `extra`."""
    event = Event(
        event_type="e",
        product_id="p",
        revenue_type="tax",
        receipt_sig="s",
        skip_user_properties_sync=True,
        plan=Plan(branch="main", version_id="v"),
        extra={"for": "plugins"},
    )
    assert wire(event) == {
        "event_type": "e",
        "productId": "p",
        "revenueType": "tax",
        "receiptSig": "s",
        "$skip_user_properties_sync": True,
        "plan": {"branch": "main", "versionId": "v"},
    }


def test_absent_empty_and_zero() -> None:
    """Empty objects, zeros and null properties are sent; no None fields and empty ids.

    An id that is empty is none: the server would refuse it.
    """
    event = Event(
        event_type="e",
        user_id="",
        device_id="",
        groups={},
        plan=Plan(),
        price=0,
        quantity=0,
        session_id=-1,
        event_properties={"n": None, "k": {"n": None}},
        user_properties=None,
    )
    assert wire(event) == {
        "event_type": "e",
        "groups": {},
        "plan": {},
        "price": 0,
        "quantity": 0,
        "session_id": -1,
        "event_properties": {"n": None, "k": {"n": None}},
    }


def test_insert_id_and_time_are_filled_in_the_bytes() -> None:
    """Where absent they are new for each encoding and never put into the event."""
    event = Event(event_type="e")
    first, second = (
        encode_event(event, POLICY, NO_DEFAULTS, insert_id=InsertIds(), wall=WALL)
        for _ in range(2)
    )
    assert first.insert_id != second.insert_id
    body = json.loads(first.body)
    assert body["insert_id"] == first.insert_id
    assert body["time"] == 1_700_000_000_500
    assert event == Event(event_type="e")
    generators = [InsertIds() for _ in range(10)]
    assert len({make() for make in generators for _ in range(10)}) == 100


def test_given_insert_id_and_time_stay() -> None:
    """The event's own insert id and time go out."""
    encoded = encode(Event(event_type="e", insert_id='a"é', time=MOMENT))
    assert encoded.insert_id == 'a"é'
    body = json.loads(encoded.body)
    assert body == {"insert_id": 'a"é', "time": MOMENT, "event_type": "e"}


def test_empty_insert_id_is_absent() -> None:
    """An empty insert id would merge all events that have one: it is replaced."""
    encoded = encode(Event(event_type="e", insert_id="", time=MOMENT))
    assert encoded.insert_id == "new-id"
    assert encoded.body.count(b"insert_id") == 1


def test_defaults() -> None:
    """Library, plan and ingestion metadata are filled in one by one."""
    defaults = EventDefaults(
        library="lib/1",
        plan=Plan(version_id="v"),
        ingestion_metadata=IngestionMetadata(source_name="s"),
    )
    filled = {
        "event_type": "e",
        "library": "lib/1",
        "plan": {"versionId": "v"},
        "ingestion_metadata": {"source_name": "s"},
    }
    assert wire(Event(event_type="e"), defaults=defaults) == filled
    own = Event(event_type="e", plan=Plan(), library="mine")
    assert wire(own, defaults=defaults) == {**filled, "library": "mine", "plan": {}}
    assert wire(own) == {"event_type": "e", "library": "mine", "plan": {}}


def test_values_are_converted_and_the_event_is_not() -> None:
    """Conversion happens in the bytes; a bad value loses its own key."""
    properties: dict[Any, Any] = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "bad": b"",
        4: 1,
        "ok": 1,
    }
    event = Event(
        event_type="e",
        event_properties=properties,
        user_properties={"$set": {"s": {1}, "bad": math.nan}},
        group_properties={"ok": 1},
    )
    before = copy.deepcopy(event)
    encoded = encode(event)
    assert wire(event) == {
        "event_type": "e",
        "event_properties": {"at": "2026-01-02T00:00:00+00:00", "ok": 1},
        "user_properties": {"$set": {"s": [1]}},
        "group_properties": {"ok": 1},
    }
    assert [loss.path for loss in encoded.losses] == [
        "event_properties.bad",
        "event_properties.<int>",
        "user_properties.$set.bad",
    ]
    assert event.event_properties == before.event_properties == properties


def test_later_changes_do_not_matter() -> None:
    """What the caller does to nested objects afterwards changes no byte."""
    nested = [1]
    event = Event(event_type="e", event_properties={"k": nested})
    body = encode(event).body
    nested.append(2)
    assert json.loads(body)["event_properties"] == {"k": [1]}


def test_lone_surrogates() -> None:
    """Text that is not Unicode loses its key or field; the type is kept legible."""
    event = Event(
        event_type="e\ud800",
        city="\ud800",
        country="NO",
        insert_id="\udfff",
        plan=Plan(branch="\ud800", version="1"),
        event_properties={"bad": "\ud800", "ok": "é"},
    )
    assert wire(event) == {
        "event_type": "e?",
        "country": "NO",
        "plan": {"version": "1"},
        "event_properties": {"ok": "é"},
    }
    assert {loss.path for loss in encode(event).losses} == {
        "event_type",
        "city",
        "insert_id",
        "plan.branch",
        "event_properties.bad",
    }


def test_group_names_changed_in_place() -> None:
    """Even a value put into the groups unvalidated loses only its own key."""
    event = Event(event_type="e", groups={"a": "b"})
    groups: dict[str, Any] = event.groups or {}
    groups["bad"] = b""
    encoded = encode(event)
    assert json.loads(encoded.body)["groups"] == {"a": "b"}
    assert [loss.path for loss in encoded.losses] == ["groups.bad"]


def test_truncation_is_for_properties() -> None:
    """Property text is cut; ids, groups and the user agent are not."""
    long = "x" * 10
    event = Event(
        event_type=long,
        user_id=long,
        user_agent=long,
        groups={"g": long},
        event_properties={"k": [long]},
    )
    assert len(encode(event).losses) == 0
    body = wire(event, policy=ValuePolicy(max_string=4))
    assert body == {
        "event_type": long,
        "user_id": long,
        "user_agent": long,
        "groups": {"g": long},
        "event_properties": {"k": ["xxxx"]},
    }


def test_subclass_with_a_key_of_its_own() -> None:
    """A subclass can send a key that the library does not know yet."""

    class Newer(Event):
        brand_new: str | None = None

    encoded = encode(Newer(event_type="e", brand_new="b"))
    assert json.loads(encoded.body)["brand_new"] == "b"
    assert decode_event(encoded.body).event_type == "e"


def test_decoding_gives_the_event_back() -> None:
    """A decoded event is the encoded one with what was filled in."""
    event = Event(
        event_type="e",
        user_id="u",
        product_id="p",
        price=1.5,
        groups={"a": ["b"]},
        event_properties={"k": [None, {"n": 1}]},
        plan=Plan(version_id="v"),
    )
    decoded = decode_event(encode(event, defaults=EventDefaults(library="l")).body)
    filled_in = {"insert_id": "new-id", "time": 7, "library": "l"}
    assert decoded == event.model_copy(update=filled_in)


def test_decoding_shows_what_would_be_refused_today() -> None:
    """Bytes of an older version are shown as they are, and raise nothing."""
    decoded: Any = decode_event(
        b'{"event_type":"e","time":5,"productId":[1],"city":"Bonn"}'
    )
    assert (decoded.time, decoded.product_id, decoded.city) == (5, [1], "Bonn")


def test_what_fields_hold_is_what_the_models_make() -> None:
    """The short look at an event knows the types that validation leaves in it."""
    given: dict[str, Any] = dict.fromkeys(Event.model_fields, 1)
    dicts = {"event_properties", "user_properties", "group_properties", "extra"}
    given |= {name: {"a": 1} for name in dicts}
    given |= {"groups": {"a": "b"}, "plan": Plan(), "time": MOMENT}
    given |= {
        "event_type": "e",
        "ingestion_metadata": IngestionMetadata(),
        "skip_user_properties_sync": True,
    }

    made = Event(**given)

    held = {name: type(getattr(made, name)) for name in Event.model_fields}
    assert held == _HELD


def test_no_key_stands_twice() -> None:
    """Also where a subclass writes keys itself that would be filled in."""

    class Own(Event):
        @computed_field(alias="library")
        def own_library(self) -> str:
            """Name a library."""
            return "mine"

    body = encode(Own(event_type="e"), defaults=EventDefaults(library="l")).body
    pairs: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    assert ("library", "mine") in pairs
    assert len(dict(pairs)) == len(pairs)


@given(
    st.dictionaries(
        st.one_of(st.text(max_size=5), st.integers()),
        st.recursive(
            st.one_of(
                st.none(),
                st.integers(),
                st.floats(),
                st.text(st.characters(), max_size=5),
                st.binary(max_size=3),
                st.datetimes(),
                st.decimals(),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.text(max_size=3), inner, max_size=3),
            ),
            max_leaves=8,
        ),
        max_size=5,
    ),
    st.text(st.characters(), max_size=5),
)
def test_any_event_encodes(properties: dict[Any, Any], text: str) -> None:
    """No property and no text keeps an event from becoming valid JSON."""
    event = Event(
        event_type=text,
        city=text,
        event_properties=properties,
        user_properties={"$set": properties},
    )
    encoded = encode(event)
    body = json.loads(encoded.body, parse_constant=pytest.fail)
    assert body["event_properties"] == body["user_properties"]["$set"]
    names = [key for key in properties if isinstance(key, str)]
    top = {printable(f"event_properties.{key}") for key in names}
    lost = {loss.path for loss in encoded.losses}
    kept = {printable(f"event_properties.{key}") for key in body["event_properties"]}
    assert top - lost <= kept
