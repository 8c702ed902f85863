"""What an assertion asks for, as something that an event is compared with."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final
from uuid import UUID

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    GROUP_IDENTIFY,
    IDENTIFY,
    EventFields,
)
from amplitude_async.encoding import unix_ms
from amplitude_async.shown import kind_of, shown
from amplitude_async.testing.amounts import amount_of, is_amount, sale_value
from amplitude_async.testing.captured import BATCH, MISSING, Captured, Missing
from amplitude_async.testing.matching import (
    Difference,
    Tally,
    differences,
    near_key,
)

__all__ = [
    "OPERATIONS",
    "Wanted",
    "wanted_event",
    "wanted_group",
    "wanted_identify",
    "wanted_revenue",
]

OPERATIONS: Final = {
    "set": "$set",
    "set_once": "$setOnce",
    "add": "$add",
    "append": "$append",
    "prepend": "$prepend",
    "pre_insert": "$preInsert",
    "post_insert": "$postInsert",
    "remove": "$remove",
    "unset": "$unset",
}
"""The operations of ``Identify``, and how they are spelt on the wire."""

_FIELDS: Final = EventFields.__annotations__.keys() | ATTRIBUTE_OF.keys()
_IDS: Final = frozenset({"user_id", "device_id", "insert_id"})
_MOMENTS: Final = frozenset({"time", "session_id"})
_MOST_DIFFERENCES = 50
_LONGEST_TEXT = 300

_Check = Callable[[Captured], Iterator[Difference]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    text: str
    """In words, for a message: ``event 'Paid' with total=9.5``."""
    is_of_kind: Callable[[Captured], bool]
    """Whether an event is worth a comparison at all."""
    checks: tuple[_Check, ...]
    name: str | None = None
    """The name of the event, where that is what is asked for."""
    by_key: bool = True
    """Whether one event at several destinations is told by its key."""
    destination: str | None = None
    texts: tuple[tuple[str, str], ...] = ()
    """Fields that must be just these texts: the quick look, for many who wait."""

    def fits(self, captured: Captured) -> bool:
        """Say whether an event is what is asked for."""
        if captured.batch is None:
            wire = captured.wire
            for name, text in self.texts:
                if wire.get(name) != text:
                    return False
        return self.is_of_kind(captured) and not self.count(captured, most=1)

    def count(self, captured: Captured, most: int = _MOST_DIFFERENCES) -> int:
        """Count in how many places it differs, up to so many."""
        return sum(1 for _ in islice(self.differences(captured), most))

    def differences(self, captured: Captured) -> Iterator[Difference]:
        """Name the places in which an event is not what is asked for."""
        wanted = self.destination
        if wanted is not None and captured.destination != wanted:
            yield Difference("destination", wanted, captured.destination)
        for check in self.checks:
            yield from check(captured)

    def tally(self) -> Tally:
        """Begin to count events that fit."""
        return Tally(by_key=self.by_key)


def wanted_event(
    name: str, destination: str | None, expected: Mapping[str, Any]
) -> Wanted:
    """Ask for an event by its name, fields and properties.

    Raises:
        TypeError: the name is no text.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the name of an event is text, not {shown(name)}: give its event type"
        )
    text = f"event {shown(name)}{_with(destination, expected)}"
    return Wanted(
        text,
        lambda captured: captured.name == name,
        (_check_of(expected),),
        name=name,
        destination=destination,
        texts=tuple(
            (field, value)
            for field, value in expected.items()
            # These have one spelling, and an empty id is none.
            if field in _IDS and type(value) is str and value
        ),
    )


def wanted_revenue(
    amount: object, destination: str | None, expected: Mapping[str, Any]
) -> Wanted:
    """Ask for an event with an amount of money."""

    def check(captured: Captured) -> Iterator[Difference]:
        found = amount_of(captured)
        note = ""
        try:
            if is_amount(amount, found):
                return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
            note = f"comparing them raised {kind_of(error)}"
        yield Difference("amount", amount, MISSING if found is None else found, note)

    return Wanted(
        f"revenue of {shown(amount)}{_with(destination, expected)}",
        lambda captured: amount_of(captured) is not None,
        (check, _check_of(expected, sale=True)),
        destination=destination,
    )


def wanted_identify(
    user_id: object, device_id: object, operations: Mapping[str, Any]
) -> Wanted:
    """Ask for changes of a user's properties."""
    ids = {"user_id": user_id, "device_id": device_id}
    given = {name: value for name, value in ids.items() if value is not None}
    return Wanted(
        f"identify{_with(None, {**given, **operations})}",
        lambda captured: captured.name != GROUP_IDENTIFY and _is_identify(captured),
        (_check_of(given), _check_of_operations(operations)),
        by_key=False,
    )


def wanted_group(
    group_type: str, group_name: object, operations: Mapping[str, Any]
) -> Wanted:
    """Ask for changes of a group's properties."""

    def check(captured: Captured) -> Iterator[Difference]:
        groups = captured.field("groups")
        found = groups.get(group_type, MISSING) if isinstance(groups, dict) else MISSING
        among = [found, *found] if isinstance(found, list) else [found]
        path = f"groups.{group_type}"
        if all(next(differences(group_name, one, path), None) for one in among):
            yield Difference(path, group_name, found)

    named = f"{shown(group_type)} {shown(group_name)}"
    return Wanted(
        f"group_identify of {named}{_with(None, operations)}",
        lambda captured: captured.name == GROUP_IDENTIFY,
        (check, _check_of_operations(operations)),
        by_key=False,
    )


def _is_identify(captured: Captured) -> bool:
    # Those of mParticle have other names, and go along with events.
    return captured.name in {IDENTIFY, BATCH} or captured.operations is not None


def _with(destination: str | None, expected: Mapping[str, Any]) -> str:
    """Put what is expected into words, cut to what fits into a message."""
    parts: list[str] = []
    length = 0
    for name, value in expected.items():
        parts.append(f"{name}={shown(value)}")
        length += len(parts[-1])
        if length > _LONGEST_TEXT:
            parts.append("...")
            break
    if destination is not None:
        parts.append(f"destination={shown(destination)}")
    return " with " + ", ".join(parts) if parts else ""


# Fields and properties -------------------------------------------------------


def _check_of(expected: Mapping[str, Any], *, sale: bool = False) -> _Check:
    fields = {name: value for name, value in expected.items() if name in _FIELDS}
    properties = {n: value for n, value in expected.items() if n not in _FIELDS}
    if isinstance(given := fields.get("event_properties"), Mapping):
        del fields["event_properties"]
        properties = {**given, **properties}
    fields = {name: _as_field(name, value) for name, value in fields.items()}

    def check(captured: Captured) -> Iterator[Difference]:
        for name, value in fields.items():
            in_sale = sale_value(captured, name) if sale else MISSING
            if isinstance(in_sale, Missing):
                yield from _of_field(captured, name, value)
            else:
                yield from differences(value, in_sale, name)
        for name, value in properties.items():
            yield from _of_property(captured, name, value)

    return check


def _as_field(name: str, value: Any) -> Any:
    """Give what the model makes of related types: ids are text, moments numbers."""
    if name in _IDS and isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if name in _MOMENTS and isinstance(value, datetime) and value.tzinfo is not None:
        return unix_ms(value.timestamp())
    return value


def _of_field(captured: Captured, name: str, value: Any) -> Iterator[Difference]:
    found = captured.field(name)
    if not isinstance(found, Missing):
        yield from differences(value, found, name)
    elif value is not None:
        beside = captured.properties.get(name, MISSING)
        note = "" if isinstance(beside, Missing) else _meant(name, beside)
        yield Difference(name, value, MISSING, note)


def _meant(name: str, beside: object) -> str:
    return (
        f"there is an event property {name!r} of {shown(beside, 40)}: to ask for it "
        f"use event_properties={{{name!r}: ...}}"
    )


def _of_property(captured: Captured, name: Any, value: Any) -> Iterator[Difference]:
    key = name if isinstance(name, str) else shown(name)
    found = captured.property_named(key)
    if isinstance(found, Missing):
        yield Difference(key, value, MISSING, lambda: _near(key, captured))
    else:
        yield from differences(value, found, key)


def _near(key: str, captured: Captured) -> str:
    near = near_key(key, captured.properties)
    return f"there is {shown(near)}" if near else ""


# Operations ------------------------------------------------------------------


def _check_of_operations(operations: Mapping[str, Any]) -> _Check:
    wanted = {
        OPERATIONS[name]: _unset(value) if name == "unset" else value
        for name, value in operations.items()
        if name in OPERATIONS
    }
    if operations.get("clear_all"):
        wanted["$clearAll"] = "-"

    def check(captured: Captured) -> Iterator[Difference]:
        found = captured.operations or {}
        for name, value in wanted.items():
            for one in differences(value, found.get(name, {}), name):
                where = partial(_where, found, one.path, name)
                yield one if one.note else replace(one, note=where)

    return check


def _where(found: Mapping[str, Any], path: str, but: str) -> str:
    """Say in which other operation a property stands."""
    key = path.removeprefix(f"{but}.")
    for name, values in found.items():
        if name != but and isinstance(values, dict) and key in values:
            return f"there is {name}.{key:.80}"
    return ""


def _unset(value: Any) -> Any:
    """Take names, or one, as well as the mapping that is on the wire."""
    if isinstance(value, str):
        return {value: "-"}
    if isinstance(value, list | tuple | set | frozenset):
        return {str(name): "-" for name in value}
    return value
