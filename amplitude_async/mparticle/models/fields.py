"""Types of fields of the mParticle models.

What is usual is decided in Rust; the functions here see the rest and say what is
wrong, with the value and the remedy.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from amplitude_async.encoding import (
    Dropped,
    Json,
    Loss,
    ValuePolicy,
    is_encodable_text,
    unix_ms,
)
from amplitude_async.shown import shown
from amplitude_async.wire import ID_CHOICES, Lenient

__all__ = [
    "Attributes",
    "CurrencyCode",
    "Duration",
    "FilledId",
    "Flag",
    "Flags",
    "Given",
    "Identity",
    "Int64",
    "Known",
    "LifetimeValue",
    "Moment",
    "MomentOrZero",
    "Mpid",
    "Name",
    "Number",
    "Quantity",
    "Scalar",
    "UInt64",
    "UserAttribute",
    "UserAttributeValue",
    "UserAttributes",
    "UuidText",
    "are_plain",
    "moment_or_zero",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY_MS: Final = 86_400_000

# Seconds since the epoch stay below it for three thousand years, and milliseconds
# have been above it since 1973.
_SECONDS_BELOW: Final = 10**11

# A length of time of eleven days and a half; read as seconds, a point in time of 2001.
# No session lasts so long, and no point in time of today is so short.
_DURATION_BELOW: Final = 10**9

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_POLICY: Final = ValuePolicy()

Scalar: TypeAlias = str | int | float | bool | None
"""One value that an attribute can hold."""

UserAttributeValue: TypeAlias = Scalar | list[Scalar]
"""One value that an attribute of a user can hold."""


def _unusable(kind: str, value: object, problem: str) -> PydanticCustomError:
    """Make the error that names the value; pydantic adds the field."""
    return PydanticCustomError(
        kind, "{value} {problem}", {"value": shown(value), "problem": problem}
    )


# --- Moments and durations ---


def _to_ms(value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise _unusable(
                "naive_datetime",
                value,
                "has no time zone: use datetime.now(UTC) or .replace(tzinfo=...)",
            )
        return (value - _EPOCH) // _MILLISECOND
    raise _unusable(
        "not_milliseconds",
        value,
        "should be whole milliseconds since the epoch or an aware datetime: use "
        "int(seconds * 1000) or datetime.now(UTC)",
    )


def _moment(value: object) -> int:
    moment = _to_ms(value)
    if moment < _SECONDS_BELOW:
        raise _unusable(
            "seconds_for_milliseconds",
            value,
            "lies before 1974 when read as milliseconds: multiply seconds by 1000",
        )
    if moment > unix_ms(time.time()) + _DAY_MS:
        raise _unusable(
            "moment_in_the_future",
            value,
            "lies more than a day ahead: give milliseconds since the epoch, not "
            "micro- or nanoseconds",
        )
    return moment


def moment_or_zero(value: object) -> int:
    """Turn a moment into milliseconds since the epoch; 0 stands for none.

    Raises:
        pydantic_core.PydanticCustomError: It is no moment, or one in seconds.
    """
    return 0 if type(value) is int and value == 0 else _moment(value)


def _duration(value: object) -> int:
    if isinstance(value, timedelta):
        length = value // _MILLISECOND
    elif type(value) is int:
        length = value
    else:
        raise _unusable(
            "not_a_duration",
            value,
            "should be whole milliseconds or a timedelta: use timedelta(seconds=...)",
        )
    if not 0 <= length < _DURATION_BELOW:
        raise _unusable(
            "not_a_duration",
            value,
            "should be a length of time of at least 0 and less than eleven days, in "
            "milliseconds, not a point in time: subtract the start",
        )
    return length


# The Any is for type checkers alone: it lets a caller pass what is converted, and
# still reads as the type the field holds.
_INTEGER: Final = WithJsonSchema({"type": "integer"})

Moment: TypeAlias = Annotated[int | Any, PlainValidator(_moment), _INTEGER]
"""Milliseconds since the epoch; an aware datetime becomes them."""

MomentOrZero: TypeAlias = Annotated[int | Any, PlainValidator(moment_or_zero), _INTEGER]
"""A moment, or the 0 that mParticle's own SDKs send for "no such moment"."""

Duration: TypeAlias = Annotated[int | Any, PlainValidator(_duration), _INTEGER]
"""A length of time in milliseconds; a timedelta becomes them."""


# --- Numbers ---

Int64: TypeAlias = Annotated[int, Field(strict=True, ge=_INT64_MIN, le=_INT64_MAX)]
"""A signed 64-bit integer; no text, float or bool."""

UInt64: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**64)]
"""An unsigned 64-bit integer."""

Flag: TypeAlias = Annotated[bool, Field(strict=True)]
"""True or False, and nothing that merely looks like it."""


def _mpid(value: object) -> int:
    number: object = value
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            number = None
    if type(number) is not int or not _INT64_MIN <= number <= _INT64_MAX:
        raise _unusable(
            "not_an_mpid",
            value,
            "should be a signed 64-bit integer, as a number or as decimal text",
        )
    return number


Mpid: TypeAlias = Annotated[int | Any, PlainValidator(_mpid), _INTEGER]
"""An mParticle user id; decimal text becomes a number."""

_NUMBER_CHOICES: Final = (
    core_schema.int_schema(strict=True, ge=_INT64_MIN, le=_INT64_MAX),
    core_schema.float_schema(strict=True, allow_inf_nan=False),
)
_NUMBER_MESSAGE: Final = (
    "should be a finite number (int, float or Decimal): convert it with float()"
)

Number: TypeAlias = Annotated[
    float | Any, Lenient(_NUMBER_CHOICES, _NUMBER_MESSAGE, "any", {"type": "number"})
]
"""A finite number; an int stays one, a Decimal becomes a float."""

Quantity: TypeAlias = Annotated[
    float | Any,
    Lenient(
        (
            core_schema.int_schema(strict=True, ge=0, le=_INT64_MAX),
            core_schema.float_schema(strict=True, allow_inf_nan=False, ge=0),
        ),
        "should be a finite number of at least 0: send a refund for what comes back",
        "any",
        {"type": "number", "minimum": 0},
    ),
]
"""A finite number that is not negative."""

LifetimeValue: TypeAlias = Annotated[
    bool | float,
    Lenient(
        (core_schema.bool_schema(strict=True), *_NUMBER_CHOICES),
        "should be a bool or a finite number",
        "any",
        {"type": ["boolean", "number"]},
    ),
]
"""A bool, as the Go SDK has it, or a number, as the published schema has it."""


# --- Text ---

Name: TypeAlias = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Identity: TypeAlias = Annotated[
    str | Any,
    Lenient(
        (core_schema.str_schema(min_length=1), *ID_CHOICES[1:]),
        "an identity should be text that is not empty, an int or a UUID: leave it out "
        "where there is none",
        "str",
        {"type": "string", "minLength": 1},
    ),
]
"""Text that is not empty; int and UUID become text."""


FilledId: TypeAlias = Annotated[
    str | Any,
    Lenient(
        (
            core_schema.str_schema(min_length=1),
            core_schema.no_info_after_validator_function(
                lambda _: None, core_schema.literal_schema([""])
            ),
            *ID_CHOICES[1:],
        ),
        "an id should be text, an int or a UUID: convert it with str()",
        "str",
        {"type": "string"},
    ),
]
"""An id that is filled in where there is none; empty text is none."""


def _currency(value: str) -> str:
    if len(value) == 3 and value.isascii() and value.isalpha():
        return value
    raise _unusable(
        "not_a_currency",
        value,
        "should be a currency code of three letters, ISO 4217, for example USD",
    )


CurrencyCode: TypeAlias = Annotated[str, AfterValidator(_currency)]
"""A currency code of three letters."""


def _uuid_text(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    try:
        parsed = UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise _unusable(
            "not_a_uuid",
            value,
            "should be a UUID: leave the field out where there is none",
        ) from None
    # The letters keep their case: Apple's ids are written in capitals.
    hyphenated = isinstance(value, str) and value.lower() == str(parsed)
    return str(value) if hyphenated else str(parsed)


UuidText: TypeAlias = Annotated[
    str | Any,
    PlainValidator(_uuid_text),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
"""A UUID as hyphenated text; a UUID object or text without hyphens becomes it."""


if TYPE_CHECKING:
    _Model = TypeVar("_Model")
    Given: TypeAlias = _Model | Any
else:
    _Model = TypeVar("_Model")
    # Any in the union would let anything through.
    Given = Annotated[_Model, "a dict becomes one"]
"""A model, for which a caller may give a dict."""


class Known:
    """Marks text for which an enum lists the known values; others are accepted.

    The published lists disagree with each other and grow, so none is closed.
    """

    __slots__ = ("values",)

    def __init__(self, values: type[StrEnum]) -> None:
        self.values = values

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.str_schema(min_length=1)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 1,
            "examples": [str(value) for value in self.values],
        }


# --- Attributes and flags ---


def _json(value: object, path: str) -> Json:
    """Convert what has a JSON form, by the policy of the whole package."""
    losses: list[Loss] = []
    converted = _POLICY.convert(value, path, losses)
    # An attribute that cannot go raises: the caller of a model is still there to mend
    # it, unlike the one whose event a plugin has spoilt.
    if losses or isinstance(converted, Dropped):
        problem = "; ".join(f"{loss.path} {loss.reason}" for loss in losses)
        raise _unusable("no_json_form", value, f"cannot be sent: {problem}")
    return converted


def _scalar(value: object, key: str) -> Scalar:
    kind = type(value)
    if kind is str and is_encodable_text(cast("str", value)):
        return cast("str", value)
    scalar = _json(value, key)
    if isinstance(scalar, (list, dict)):
        raise _unusable(
            "not_a_scalar",
            value,
            f"cannot be the attribute {shown(key)}, which holds text, a number, a bool "
            "or None: join it into text or send several attributes",
        )
    if type(scalar) is int and not _INT64_MIN <= scalar <= _INT64_MAX:
        raise _unusable(
            "int_too_big", value, f"as {shown(key)} exceeds 64 bits: send it as text"
        )
    return scalar


def are_plain(attributes: dict[Any, Any]) -> bool:
    """Tell whether attributes are what goes on the wire, without a look at lists."""
    for name, value in attributes.items():
        # Text that is not ASCII takes the long way, where it is not in the way.
        if type(name) is not str or not name or not name.isascii():
            return False
        kind = type(value)
        if kind is str:
            if not value.isascii():
                return False
        elif kind is int:
            if not _INT64_MIN <= value <= _INT64_MAX:
                return False
        elif kind is float:
            if not isfinite(value):
                return False
        elif kind is not bool and value is not None:
            return False
    return True


def _items(value: object) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise _unusable("not_attributes", value, "should be a dict of name to value")
    for key, item in value.items():
        if not isinstance(key, str) or not key or not is_encodable_text(key):
            raise _unusable("not_a_name", key, "should be text that is not empty")
        yield str(key), item


def _attributes(value: object) -> dict[str, Scalar]:
    return {key: _scalar(item, key) for key, item in _items(value)}


def _user_attribute(value: object, key: str = "value") -> UserAttributeValue:
    if isinstance(value, str) or not isinstance(value, (Sequence, AbstractSet)):
        return _scalar(value, key)
    entries = _json(value, key)
    if not isinstance(entries, list):
        return _scalar(value, key)
    return [_scalar(item, key) for item in entries]


def _user_attributes(value: object) -> dict[str, UserAttributeValue]:
    return {key: _user_attribute(item, key) for key, item in _items(value)}


def _flags(value: object) -> dict[str, Json]:
    return {key: _json(item, key) for key, item in _items(value)}


_SCALAR_SCHEMA: Final[dict[str, Any]] = {
    "type": ["string", "number", "boolean", "null"]
}
_USER_ATTRIBUTE_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [_SCALAR_SCHEMA, {"type": "array", "items": _SCALAR_SCHEMA}]
}

Attributes: TypeAlias = Annotated[
    dict[str, Any],
    PlainValidator(_attributes),
    WithJsonSchema({"type": "object", "additionalProperties": _SCALAR_SCHEMA}),
]
"""Attributes of an event: text, numbers, bools and None, neither lists nor dicts."""

UserAttribute: TypeAlias = Annotated[
    Any, PlainValidator(_user_attribute), WithJsonSchema(_USER_ATTRIBUTE_SCHEMA)
]
"""One attribute of a user: a scalar or a list of scalars."""

UserAttributes: TypeAlias = Annotated[
    dict[str, Any],
    PlainValidator(_user_attributes),
    WithJsonSchema({"type": "object", "additionalProperties": _USER_ATTRIBUTE_SCHEMA}),
]
"""Attributes of a user: scalars or lists of scalars."""

Flags: TypeAlias = Annotated[
    dict[str, Any], PlainValidator(_flags), WithJsonSchema({"type": "object"})
]
"""A dict of any JSON values."""
