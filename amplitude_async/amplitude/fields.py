"""Types of fields: decided in Rust for what is usual, in Python for the rest."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field
from pydantic_core import core_schema

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
    "Finite",
    "GroupName",
    "Id",
    "Milliseconds",
    "Properties",
    "WholeNumber",
    "WireModel",
    "unknown_field",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def _ms_of(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    return (moment - _EPOCH) // _MILLISECOND


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
        (core_schema.int_schema(strict=True), from_instance(datetime, _ms_of)),
        "should be whole milliseconds since the epoch or an aware datetime: use "
        "int(seconds * 1000) or datetime.now(UTC)",
        "int",
        {"type": "integer"},
    ),
]

WholeNumber: TypeAlias = Annotated[int, Field(strict=True)]

# Property values are looked at when the event is encoded, not here: that way one
# bad value loses its key and not the event. The same goes for keys.
Properties: TypeAlias = dict[Any, Any]
