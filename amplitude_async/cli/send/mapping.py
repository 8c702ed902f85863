"""Which column goes where, and what every event gets: the grammar of two options.

``--map PLACE=COLUMN`` puts a column into a place, ``--set PLACE=VALUE`` gives a value
to every event that has none there. A place is a field of an event (``user_id``) or a
name inside one of its mappings (``event_properties.total``).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from amplitude_async.amplitude.events import ATTRIBUTE_OF, Event
from amplitude_async.cli.send.moments import milliseconds
from amplitude_async.config import near_miss

__all__ = [
    "MAPPINGS",
    "Columns",
    "Place",
    "fill",
    "put",
    "read_settings",
    "value_of",
]

MAPPINGS: Final = ("event_properties", "user_properties", "groups", "group_properties")

_FIELDS: Final = (frozenset(Event.model_fields) - {"extra"}) | ATTRIBUTE_OF.keys()
# What stands in text and is meant as a number or a truth value.
_PARSED: Final = frozenset(
    {
        "event_id",
        "location_lat",
        "location_lng",
        "price",
        "quantity",
        "revenue",
        "session_id",
        "skip_user_properties_sync",
        "$skip_user_properties_sync",
    }
)
_AS_TEXT: Final = ":text"


@dataclass(frozen=True)
class Place:
    """Where in an event a value goes."""

    field: str
    key: str | None = None
    """The name inside the field, where that is a mapping."""
    text: bool = False
    """True keeps the value as text, though it looks like a number."""

    @classmethod
    def of(cls, name: str, *, text: bool = False) -> "Place":
        """Read a place.

        Raises:
            ValueError: an event has no such place.
        """
        head, dot, key = name.partition(".")
        if head in MAPPINGS:
            if not (dot and key):
                msg = f"{name} holds several: name one, such as {head}.total"
                raise ValueError(msg)
            return cls(head, key, text)
        if name not in _FIELDS:
            meant = near_miss(name, _FIELDS)
            hint = f"did you mean {meant}? " if meant else ""
            msg = (
                f"an event has no field {name}: {hint}A property is written "
                f"event_properties.{name}"
            )
            raise ValueError(msg)
        return cls(name, None, text)

    def value(self, text: str) -> Any:
        """Read the text of a cell or of the command line.

        Raises:
            ValueError: it is no time, where one is wanted.
        """
        if self.text:
            return text
        if self.field == "time":
            return milliseconds(text)
        # Ids and names stay as they are: 007 is no 7, and 1.10 no 1.1.
        if self.field in _PARSED or self.field.endswith("_properties"):
            return value_of(text)
        return text


def value_of(text: str) -> Any:
    """Read a value as JSON where it is that, and else as the text it is."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def read_settings(given: Iterable[str]) -> list[tuple[Place, Any]]:
    """Read what ``--set`` was given.

    Raises:
        ValueError: it is no place with a value.
    """
    settings = []
    for word in given:
        name, equals, text = word.partition("=")
        if not (equals and name):
            msg = f"--set {word}: write a place and a value, such as platform=Web"
            raise ValueError(msg)
        try:
            place = Place.of(name)
            settings.append((place, place.value(text)))
        except ValueError as error:
            msg = f"--set {word}: {error}"
            raise ValueError(msg) from None
    return settings


def put(fields: dict[str, Any], place: Place, value: Any) -> None:
    """Put a value into its place."""
    if place.key is None:
        fields[place.field] = value
    else:
        fields.setdefault(place.field, {})[place.key] = value


def fill(fields: dict[str, Any], settings: Iterable[tuple[Place, Any]]) -> None:
    """Give an event what it does not have by itself."""
    for place, value in settings:
        if place.key is None:
            if fields.get(place.field) is None:
                fields[place.field] = value
            continue
        inner = fields.get(place.field)
        if inner is None:
            fields[place.field] = {place.key: value}
        elif isinstance(inner, dict) and place.key not in inner:
            fields[place.field] = {**inner, place.key: value}


@dataclass(frozen=True)
class Columns:
    """Where the cells of a row go."""

    names: tuple[str, ...]
    places: tuple[Place | None, ...] = field(repr=False)

    @classmethod
    def of(
        cls, header: Sequence[str], given: Iterable[str], *, only_mapped: bool = False
    ) -> "Columns":
        """Read the header of a file, and what ``--map`` was given.

        A column that is mapped nowhere goes where its name says: to the field of that
        name, and else to the event property of that name.

        Raises:
            ValueError: no such column, no such place, or one that is taken.
        """
        names = tuple(name.strip() for name in header)
        wanted = _wanted(given, names)
        places = [
            wanted.get(name, None if only_mapped else _by_name(name)) for name in names
        ]
        taken: dict[tuple[str, str | None], str] = {}
        for name, place in zip(names, places, strict=True):
            if place is None:
                continue
            other = taken.setdefault((place.field, place.key), name)
            if other is not name:
                msg = (
                    f"the columns {other} and {name} both go to {place.field}: name "
                    "one of them differently, or map it elsewhere with --map"
                )
                raise ValueError(msg)
        return cls(names, tuple(places))

    def fields(self, row: Sequence[str]) -> dict[str, Any]:
        """Make the fields of an event; an empty cell is none.

        Raises:
            ValueError: the row has not as many cells as there are columns.
        """
        if len(row) != len(self.names):
            msg = f"the row has {len(row)} cells, the header has {len(self.names)}"
            raise ValueError(msg)
        fields: dict[str, Any] = {}
        for name, place, text in zip(self.names, self.places, row, strict=True):
            if place is None or not text:
                continue
            try:
                put(fields, place, place.value(text))
            except ValueError as error:
                msg = f"{name}={text[:40]!r} {error}"
                raise ValueError(msg) from None
        return fields


def _wanted(given: Iterable[str], names: Sequence[str]) -> Mapping[str, Place]:
    wanted: dict[str, Place] = {}
    for word in given:
        name, equals, column = word.partition("=")
        if not (name and equals and column):
            msg = f"--map {word}: write a place and a column, such as user_id=customer"
            raise ValueError(msg)
        text = column not in names and column.endswith(_AS_TEXT)
        column = column.removesuffix(_AS_TEXT) if text else column
        if column not in names:
            meant = near_miss(column, names)
            hint = f"did you mean {meant}?" if meant else f"there are {_listed(names)}"
            msg = (
                f"--map {word}: the file has no column {column}; {hint} (for the same "
                f"value in every row: --set {name}={column})"
            )
            raise ValueError(msg)
        try:
            wanted[column] = Place.of(name, text=text)
        except ValueError as error:
            msg = f"--map {word}: {error}"
            raise ValueError(msg) from None
    return wanted


def _listed(names: Sequence[str]) -> str:
    most = 12
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _by_name(name: str) -> Place | None:
    if not name:
        return None
    try:
        return Place.of(name)
    except ValueError:
        return Place("event_properties", name)
