"""Types of fields: decided in Rust for what is usual, in Python for the rest."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_core import core_schema

from amplitude_async.shown import kind_of
from amplitude_async.wire import (
    ID_CHOICES,
    Finite,
    Id,
    Lenient,
    WireModel,
    from_instance,
    unknown_field,
)

__all__ = [
    "ABSENT",
    "INT64_MAX",
    "INT64_MIN",
    "MS_MAX",
    "MS_MIN",
    "Context",
    "Finite",
    "GroupName",
    "Groups",
    "Id",
    "Milliseconds",
    "Moment",
    "OptionalMilliseconds",
    "OptionalMoment",
    "Properties",
    "Text",
    "WholeNumber",
    "WireModel",
    "few_members",
    "few_properties",
    "unknown_field",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
"""What a whole number of an event can be, as the server stores it."""

MS_MIN: Final = 10**11
"""Seconds stay below it for three thousand years; milliseconds were there in 1973."""
MS_MAX: Final = 10**14
"""Microseconds and nanoseconds are above it, milliseconds for three thousand years."""


def _ms_of(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    return (moment - _EPOCH) // _MILLISECOND


def _moment_of(moment: datetime) -> int:
    milliseconds = _ms_of(moment)
    if not MS_MIN < milliseconds < MS_MAX:
        raise ValueError("before 1974")
    return milliseconds


# As many values may need converting, and these all do.
_MOST_PROPERTIES: Final = 10_000


def few_properties(value: Any) -> Any:
    """Copy a mapping, which somebody may have written so that it never ends.

    Raises:
        ValueError: It holds too much, or cannot be read.
    """
    if type(value) is dict:
        return value
    try:
        if isinstance(value, dict):
            # As pydantic reads it, whatever a subclass makes of its methods.
            return dict(dict.items(value))
        if not isinstance(value, Mapping):
            return value
        found = dict(islice(value.items(), _MOST_PROPERTIES + 1))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
        msg = f"reading it raised {kind_of(error)}: give a dict"
        raise ValueError(msg) from None
    if len(found) > _MOST_PROPERTIES:
        msg = f"a mapping may hold at most {_MOST_PROPERTIES:,} properties: give a dict"
        raise ValueError(msg)
    return found


GroupName: TypeAlias = Annotated[
    str | list[str],
    Lenient(
        (
            *ID_CHOICES,
            core_schema.list_schema(core_schema.union_schema(list(ID_CHOICES))),
        ),
        "a group name should be text, an int or a UUID, or a list of these",
        "any",
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
]

Milliseconds: TypeAlias = Annotated[
    int,
    Lenient(
        (
            core_schema.int_schema(strict=True, ge=INT64_MIN, le=INT64_MAX),
            from_instance(datetime, _ms_of),
        ),
        "should be whole milliseconds since the epoch or an aware datetime: use "
        "int(seconds * 1000) or datetime.now(UTC)",
        "int",
        {"type": "integer"},
    ),
]
"""Whole milliseconds, or a number that only looks like them, as a session id may."""

Moment: TypeAlias = Annotated[
    int,
    Lenient(
        (
            core_schema.int_schema(strict=True, gt=MS_MIN, lt=MS_MAX),
            from_instance(datetime, _moment_of),
        ),
        "should be whole milliseconds since the epoch (12 or 13 digits, so neither "
        "seconds nor microseconds) or an aware datetime: use int(seconds * 1000) or "
        "datetime.now(UTC)",
        "int",
        {"type": "integer"},
    ),
]
"""A point in time, 1973 or later, in whole milliseconds since the epoch."""

Text: TypeAlias = Annotated[
    str,
    Lenient(
        (
            *ID_CHOICES,
            core_schema.no_info_after_validator_function(
                str, core_schema.float_schema(strict=True, allow_inf_nan=False)
            ),
        ),
        "should be text: convert it with str()",
        "str",
        {"type": "string"},
    ),
]
"""Text; a number or a UUID becomes text, as ids do."""

WholeNumber: TypeAlias = Annotated[int, Field(strict=True, ge=INT64_MIN, le=INT64_MAX)]

if TYPE_CHECKING:
    # Pydantic converts what is assigned; a type checker believes it of a descriptor.

    class _Takes:
        """A moment is given as a datetime, too, and held in milliseconds."""

        def __get__(self, instance: object, owner: object) -> int | None: ...
        def __set__(self, instance: object, value: int | datetime | None) -> None: ...

    OptionalMoment: TypeAlias = _Takes
    OptionalMilliseconds: TypeAlias = _Takes
else:
    OptionalMoment = Moment | None
    OptionalMilliseconds = Milliseconds | None

ABSENT: Final[Any] = None
"""The default of such a field, of a type that fits any."""

# Property values are looked at when the event is encoded, not here: that way one
# bad value loses its key and not the event. The same goes for keys.
# More than any of the small models has, with room for names that are wrong.
_MOST_MEMBERS: Final = 20


def few_members(value: Any) -> Any:
    """Look at the names in a mapping that stands for a model, before it becomes one.

    Raises:
        ValueError: It cannot be one.
    """
    read = few_properties(value)
    if isinstance(read, dict):
        if len(read) > _MOST_MEMBERS:
            msg = f"has {len(read):,} names: give those of the model alone"
            raise ValueError(msg)
        # The model is made of them as of keywords, which takes nothing else.
        if not all(type(name) is str for name in read):
            raise ValueError("its names should be text")
    return read


Groups: TypeAlias = Annotated[dict[str, GroupName], BeforeValidator(few_properties)]

Context: TypeAlias = Annotated[dict[str, Any], BeforeValidator(few_properties)]

Properties: TypeAlias = Annotated[dict[Any, Any], BeforeValidator(few_properties)]
