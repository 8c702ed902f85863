"""The base of every model that goes on the wire, and field types both vendors use."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeAlias
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import (
    CoreSchema,
    InitErrorDetails,
    PydanticCustomError,
    core_schema,
)

from amplitude_async.config import near_miss
from amplitude_async.shown import shown

__all__ = [
    "ID_CHOICES",
    "Finite",
    "Id",
    "Lenient",
    "WireModel",
    "from_instance",
    "hinted",
    "unknown_field",
]

# What other SDKs, and habit, call a field: no misspelling, so that likeness misleads.
_MEANT: Final = {
    "properties": "event_properties",
    "timestamp": "time",
    "traits": "user_properties",
}

# Errors of pydantic that tell of a name: one that is given, and one that is assigned.
_UNKNOWN: Final = frozenset({"extra_forbidden", "no_such_attribute"})

# Where values with names of the caller's own choosing go, by model.
_HOMES: Final = {
    "event_properties": "properties",
    "custom_attributes": "attributes",
}


# Compared by identity: typing hashes annotations, and schemas have no hash.
@dataclass(frozen=True, slots=True, eq=False)
class Lenient:
    """A field that takes related Python types and holds one type alone.

    A union built by hand: the first choice costs no more than the bare type, and
    one message covers all the choices.
    """

    choices: tuple[CoreSchema, ...]
    """Tried from left to right, so the usual one comes first."""

    message: str
    """What to say when none of them fits."""

    serializer: Literal["str", "float", "int", "any"]
    """The type the field holds."""

    json_schema: dict[str, Any]
    """How the field looks in a JSON schema."""

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            core_schema.union_schema(list(self.choices), mode="left_to_right"),
            custom_error_type="unusable_value",
            custom_error_message=self.message,
            # Without it the serializer would try each choice in turn.
            serialization=core_schema.simple_ser_schema(self.serializer),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.json_schema


def from_instance(kind: type, convert: Callable[[Any], Any]) -> CoreSchema:
    """Make a choice that takes instances of a class and converts them."""
    return core_schema.no_info_after_validator_function(
        convert, core_schema.is_instance_schema(kind)
    )


ID_CHOICES: Final = (
    core_schema.str_schema(),
    core_schema.no_info_after_validator_function(
        str, core_schema.int_schema(strict=True)
    ),
    from_instance(UUID, str),
)
"""What can be an id: text, or an int or UUID that becomes text."""

Id: TypeAlias = Annotated[
    str,
    Lenient(
        ID_CHOICES,
        "an id should be text, an int or a UUID: convert it with str()",
        "str",
        {"type": "string"},
    ),
]
"""Text; int and UUID become text."""

Finite: TypeAlias = Annotated[
    float,
    Lenient(
        # Strict takes neither bool nor text but whatever can be a float, as Decimal.
        (core_schema.float_schema(strict=True, allow_inf_nan=False),),
        "should be a finite number (int, float or Decimal): convert it with float()",
        "float",
        {"type": "number"},
    ),
]
"""A finite float; int and Decimal become one, bool and text raise."""


class WireModel(BaseModel):
    """Base of what goes on the wire: unknown names raise, with a hint."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    _by_place: ClassVar[tuple[str, ...]] = ()
    """Fields that may be given without their name, in this order."""

    if not TYPE_CHECKING:

        def __init__(self, /, *args: Any, **data: Any) -> None:
            # Stands in for pydantic's own: hints without a validator in Python,
            # which would cost every event.
            __tracebackhide__ = True
            if args:
                data = _named(type(self), args, data)
            try:
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                raise hinted(error, type(self)) from None

        def __setattr__(self, name: str, value: Any) -> None:
            before = None
            # A check of the whole model looks at it when the value is in already.
            if type(self).__pydantic_decorators__.model_validators:
                before = self.__dict__.copy(), self.__pydantic_fields_set__.copy()
            try:
                super().__setattr__(name, value)
            except BaseException as error:
                if before is not None:
                    values, given = before
                    object.__setattr__(self, "__dict__", values)
                    object.__setattr__(self, "__pydantic_fields_set__", given)
                if isinstance(error, ValidationError):
                    raise hinted(error, type(self)) from None
                raise

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Forty fields that are None would hide the three that are not.
        return [pair for pair in super().__repr_args__() if pair[1] is not None]


def _named(
    model: type[WireModel], values: tuple[Any, ...], fields: dict[str, Any]
) -> dict[str, Any]:
    """Give values the names of their places.

    Raises:
        TypeError: There are more values than places, or a field is given twice.
    """
    places = model._by_place  # noqa: SLF001 - of the class above
    name = model.__name__
    if isinstance(values[0], Mapping):
        msg = f"{name} takes its fields by name: unpack the mapping, {name}(**...)"
        raise TypeError(msg)
    if len(values) > len(places):
        if places:
            msg = f"{name} takes {', '.join(places)} by place and the rest by name"
        else:
            first = next(iter(model.model_fields), "field")
            msg = f"{name} takes its fields by name: {name}({first}=...)"
        raise TypeError(msg)
    placed = dict(zip(places, values, strict=False))
    twice = placed.keys() & fields.keys()
    if twice:
        msg = f"{name} was given {', '.join(sorted(twice))} twice: by place and by name"
        raise TypeError(msg)
    return {**placed, **fields}


def hinted(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """Reword "extra inputs are not permitted" so that it names the likely field."""
    details = error.errors(include_url=False)
    if all(detail["type"] not in _UNKNOWN for detail in details):
        return error
    lines: list[InitErrorDetails] = []
    for detail in details:
        kind, message = detail["type"], detail["msg"]
        if kind in _UNKNOWN and len(detail["loc"]) == 1:
            message = unknown_field(str(detail["loc"][0]), model)
        lines.append(
            InitErrorDetails(
                # An instance, since our own error types have no template.
                type=PydanticCustomError(kind, "{message}", {"message": message}),
                loc=detail["loc"],
                input=detail["input"],
            )
        )
    return ValidationError.from_exception_data(
        error.title,
        lines,
        hide_input=bool(model.model_config.get("hide_input_in_errors")),
    )


def unknown_field(name: str, model: type[BaseModel]) -> str:
    """Say that a model has no such field, and which one was probably meant."""
    if name in {"event_options", "options"} and "event_type" in model.model_fields:
        remedy = "EventOptions are the argument before the fields"
        return f"unknown field {shown(name)}: {remedy}"
    meant = _MEANT.get(name)
    hint = meant if meant in model.model_fields else None
    hint = hint or near_miss(name, model.model_fields)
    if hint is not None:
        return f"unknown field {shown(name)}: did you mean {hint!r}?"
    for home, kind in _HOMES.items():
        if home in model.model_fields:
            return f"unknown field {shown(name)}: {kind} go in {home}"
    return f"unknown field {shown(name)}: see the fields of {model.__name__}"
