"""The models beside the list of everything the Go and the Python SDK have.

`mparticle_models.json` is the union of both SDKs with mParticle's own documents. Each
departure of ours stands in a table here, with its reason.
"""

import ast
import inspect
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from amplitude_async import mparticle
from amplitude_async.mparticle import (
    BaseEvent,
    Batch,
    BatchContext,
    BatchLocation,
    CCPAConsentState,
    CustomEvent,
    Event,
    GenericEvent,
    UserIdentities,
)
from amplitude_async.mparticle.models.fields import Known
from amplitude_async.wire import WireModel

__all__: list[str] = []

Json = dict[str, Any]

LISTED: Json = json.loads(
    (Path(__file__).parents[1] / "data" / "mparticle_models.json").read_text("utf-8")
)
MODELS: list[Json] = LISTED["models"]
COMMON: list[Json] = next(
    model["fields"] for model in MODELS if model["name"] == "CommonEventData"
)

RENAMED = {
    ("PushRegistrationEvent", "register"): (
        "registered",
        "every class has a method register: the attribute would hide it",
    ),
}
OPTIONAL = {
    ("GDPRConsentState", "timestamp_unixtime_ms"): "filled in at construction",
    ("CCPAConsentState", "timestamp_unixtime_ms"): "filled in at construction",
    ("CustomEvent", "custom_event_type"): "other, as in both SDKs",
    ("ProfileEvent", "previous_mpid"): "the Python SDK has no such field",
    ("ProfileEvent", "current_mpid"): "the Python SDK has no such field",
    ("UserIdentityChangeEvent", "new"): "None is sent as null",
    ("UserIdentityChangeEvent", "old"): "None is sent as null",
}
"""Listed as required, but not for the caller: what stands there instead."""

ADDED = {
    ("Batch", "origin_mpid"): "in the published schema",
    ("BatchContext", "location"): "in the published schema",
    ("CCPAConsentState", "regulation"): "in the published schema",
}
"""Fields that are in neither SDK."""

ELSEWHERE = {
    ("GeoLocation", name): "a BatchLocation: an event's place needs coordinates"
    for name in (
        "country_code",
        "region_code",
        "city_name",
        "postal_code",
        "dma_code",
        "location_source",
    )
}
NOT_OFFERED = {
    ("CommonEventData", "custom_flags"): "the schema has it on three kinds of event",
    ("CommonEventData", "page_url"): "browsers send it, the schema does not know it",
    ("CommonEventData", "active_time_on_site_ms"): "the same",
    ("Batch", "modified"): "the same",
    ("ApplicationInformation", "sideloaded_kits_count"): "the same",
}
ENUM_VALUES_NOT_OFFERED = {
    ("Environment", "unknown"): "would mix test data into live data",
    ("EventType", "unknown"): "a placeholder of the Python SDK, no type of event",
}


def class_of(listed: str) -> type[BaseModel]:
    """Return our class for a listed model; an event and its data are one class."""
    name = "BaseEvent" if listed == "CommonEventData" else listed.removesuffix("Data")
    found: type[BaseModel] = getattr(mparticle, name)
    assert issubclass(found, BaseModel)
    return found


def wire_fields(model: type[BaseModel]) -> dict[str, tuple[str, FieldInfo]]:
    """Map the keys a model has on the wire to attribute and field."""
    return {
        info.serialization_alias or name: (name, info)
        for name, info in model.model_fields.items()
        if not (issubclass(model, BaseEvent) and name == "event_type")
    }


def known_values(annotation: object) -> type[StrEnum] | None:
    """Find the enum of known values in an annotation."""
    marks = getattr(annotation, "__metadata__", ())
    for mark in marks:
        if isinstance(mark, Known):
            return mark.values
    for part in get_args(annotation):
        found = known_values(part)
        if found is not None:
            return found
    return None


def enum_of(info: FieldInfo) -> type[StrEnum] | None:
    """Find the enum of known values of a field."""
    for mark in info.metadata:
        if isinstance(mark, Known):
            return mark.values
    return known_values(info.annotation)


HAVE_FIELDS = [
    model for model in MODELS if model["kind"] not in {"event", "event_base"}
]


@pytest.mark.parametrize("listed", HAVE_FIELDS, ids=lambda model: model["name"])
def test_a_model_has_just_the_listed_fields(listed: Json) -> None:
    """Every field and wire key exists, and none that is not listed or explained."""
    model = class_of(listed["name"])
    own = {field["json"]: field for field in listed["fields"]}
    if listed["kind"] == "event_data":
        own = {field["json"]: field for field in COMMON} | own
    ours = wire_fields(model)
    added = {key for (name, key) in ADDED if name == model.__name__}

    assert ours.keys() == own.keys() | added
    for key, field in own.items():
        name, info = ours[key]
        expected, _ = RENAMED.get((model.__name__, key), (field["name"], ""))
        assert name == expected
        optional = (model.__name__, key) in OPTIONAL or not field["required"]
        assert info.is_required() is not optional, key


@pytest.mark.parametrize("listed", HAVE_FIELDS, ids=lambda model: model["name"])
def test_a_field_names_its_enum(listed: Json) -> None:
    """A field of a listed enum knows that enum, and stays open."""
    ours = wire_fields(class_of(listed["name"]))
    enums = {enum["name"] for enum in LISTED["enums"]} - {"Environment"}

    for field in listed["fields"]:
        kind = field["type"].split(" | ")[0]
        if kind in enums:
            found = enum_of(ours[field["json"]][1])
            assert found is not None, field["json"]
            assert found.__name__ == kind


@pytest.mark.parametrize(
    "listed",
    [model for model in MODELS if model["kind"] == "event"],
    ids=lambda model: model["name"],
)
def test_an_event_has_its_type(listed: Json) -> None:
    """Each event class is of the listed type, and only that."""
    field = class_of(listed["name"]).model_fields["event_type"]

    assert field.default == listed["event_type"]
    assert get_args(field.annotation) == (listed["event_type"],)
    assert field.frozen


@pytest.mark.parametrize("listed", LISTED["enums"], ids=lambda enum: enum["name"])
def test_an_enum_has_just_the_listed_values(listed: Json) -> None:
    """Every listed value exists, spelt as on the wire."""
    enum = getattr(mparticle, listed["name"])
    left_out = {
        value for (name, value) in ENUM_VALUES_NOT_OFFERED if name == listed["name"]
    }

    assert {str(value) for value in enum} == set(listed["values"]) - left_out


def test_fields_of_the_documents_are_offered_or_explained() -> None:
    """What is in the schema or the documents alone is not forgotten."""
    for field in LISTED["extra_fields"]:
        place = (field["model"], field["name"])
        if place in NOT_OFFERED:
            assert field["json"] not in wire_fields(class_of(field["model"]))
        elif place in ELSEWHERE:
            assert field["json"] in BatchLocation.model_fields
        else:
            assert place in ADDED
            assert field["json"] in wire_fields(class_of(field["model"]))
    assert BatchContext.model_fields["location"].annotation == BatchLocation | None


def test_event_types_without_a_class_in_the_sdks_exist() -> None:
    """The three listed event types that neither SDK can send have classes here."""
    for listed in LISTED["extra_event_types"]:
        model = getattr(mparticle, listed["name"])
        assert model.model_fields["event_type"].default == listed["event_type"]


def test_keys_that_must_be_null_are() -> None:
    """What the list marks as an explicit null is one."""
    for listed in MODELS:
        nulls = {field["json"] for field in listed["fields"] if field.get("emit_null")}
        model = class_of(listed["name"]) if listed["kind"] == "event_data" else None
        if model is not None and issubclass(model, BaseEvent):
            assert set(model.explicit_nulls) == nulls


def test_the_union_has_every_event_class() -> None:
    """A batch can hold each kind of event there is."""
    union = get_args(Event)[0]
    members = {
        get_args(member)[0] if get_origin(member) is Annotated else member
        for member in get_args(union)
    }
    classes = {
        value
        for value in vars(mparticle).values()
        if isinstance(value, type)
        and issubclass(value, (BaseEvent, GenericEvent))
        and value is not BaseEvent
    }

    assert members == classes


WIRE_MODELS = sorted(
    (
        value
        for value in vars(mparticle).values()
        if isinstance(value, type) and issubclass(value, WireModel)
    ),
    key=lambda model: model.__name__,
)


@pytest.mark.parametrize("model", WIRE_MODELS, ids=lambda model: model.__name__)
def test_an_unknown_field_is_refused_with_a_hint(model: type[WireModel]) -> None:
    """A misspelt field of any model raises and names the closest one."""
    name = list(model.model_fields)[-1]

    with pytest.raises(ValidationError, match=f"did you mean '{name}'"):
        model(**{f"{name}x": 1})


@pytest.mark.parametrize("model", WIRE_MODELS, ids=lambda model: model.__name__)
def test_every_field_has_a_docstring(model: type[WireModel]) -> None:
    """Under each field stands what it means."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    below = zip(definition.body, definition.body[1:], strict=False)

    for statement, following in below:
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(
            statement.annotation
        ):
            assert isinstance(following, ast.Expr), ast.unparse(statement)
            assert isinstance(following.value, ast.Constant)


@pytest.mark.parametrize("model", WIRE_MODELS, ids=lambda model: model.__name__)
def test_a_model_has_a_json_schema(model: type[WireModel]) -> None:
    """Tools can read what a model looks like, under the names of the wire."""
    schema = TypeAdapter(model).json_schema(mode="serialization")

    assert schema["title"] == model.__name__
    assert schema["properties"].keys() == {
        info.serialization_alias or name for name, info in model.model_fields.items()
    }


def test_a_hint_is_given_inside_wire_json_too() -> None:
    """Reading the wire form is as strict as constructing."""
    wire = {
        "environment": "development",
        "events": [{"event_type": "screen_view", "data": {"screenName": "Home"}}],
    }

    with pytest.raises(ValidationError, match="did you mean 'screen_name'"):
        Batch.model_validate(wire)


def test_an_attribute_given_as_a_field_is_sent_home() -> None:
    """A name that resembles no field is told where attributes go."""
    with pytest.raises(ValidationError, match="attributes go in custom_attributes"):
        CustomEvent.model_validate({"event_name": "e", "zz_top": 1})


def test_no_secret_shows() -> None:
    """A key in a batch is in no repr and in no error."""
    secret = "k3y-of-a-queue"
    batch = Batch(environment="development", api_key=secret, api_keys=[secret])

    with pytest.raises(ValidationError) as caught:
        Batch.model_validate({"api_key": secret, "enviroment": "development"})

    assert secret not in repr(batch)
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value)


def test_repr_shows_what_is_set() -> None:
    """Fields without a value do not crowd the rest out."""
    assert repr(UserIdentities(email="a@b.c")) == "UserIdentities(email='a@b.c')"
    assert "hardware_id" not in repr(CCPAConsentState.opted_out())
