"""Captured events as plain dicts that are the same in every run."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from amplitude_async.testing.captured import Captured

__all__ = ["Row", "rows_of", "snapshot_of"]

# What our own generators make; an id that was chosen, as "paid-o-1", says something.
_INSERT_ID: Final = re.compile(r"[0-9a-f]{20}-[0-9a-f]{1,16}")
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
)
# At the top of an event, and in the data of mParticle's: elsewhere it is a property.
_OF_EACH_RUN: Final = frozenset({"time", "library", "timestamp_unixtime_ms"})
_MESSAGE_IDS: Final = frozenset({"source_message_id", "source_request_id"})
_FIRST: Final = ("event_type", "user_id", "device_id")
_VENDORS: Final = ("amplitude", "mparticle")

_Masking = Callable[[str, Any], Any]


class Row(NamedTuple):
    """One event of a snapshot, and what it is sorted by."""

    identity: str
    destination: str
    user_id: str | None
    device_id: str | None
    members: dict[str, Any]


def snapshot_of(
    events: Iterable[Captured], *, mask: Iterable[str] = (), keep: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Give events as dicts, masked and in a stable order."""
    return [row.members for row in rows_of(events, mask=mask, keep=keep)]


def rows_of(
    events: Iterable[Captured], *, mask: Iterable[str] = (), keep: Iterable[str] = ()
) -> list[Row]:
    """Give events as rows: identities sorted, the events of each in their order.

    Args:
        events: in the order of acceptance.
        mask: keys to mask at any depth.
        keep: keys to leave as they are.
    """
    masked, kept = _names(mask), _names(keep)

    def masking(key: str, value: Any) -> Any:
        if key in kept:
            return value
        if key in masked:
            return f"<{key}>"
        if isinstance(value, str) and _INSERT_ID.fullmatch(value):
            return "<insert_id>"
        return value

    def of_each_run(key: str, value: Any) -> Any:
        if key in kept:
            return value
        if key in _OF_EACH_RUN:
            return f"<{key}>"
        if key in _MESSAGE_IDS and isinstance(value, str) and _UUID.fullmatch(value):
            return f"<{key}>"
        return value

    rows = [_row(event, masking, of_each_run) for event in events]
    # Stable: the events of one identity at one destination stay in their order.
    return sorted(rows, key=lambda row: (row.identity, row.destination))


def _row(event: Captured, masking: _Masking, of_each_run: _Masking) -> Row:
    # First what a reader looks for.
    first: list[str] = [key for key in _FIRST if key in event.wire]
    wire = {key: event.wire[key] for key in dict.fromkeys((*first, *event.wire))}
    members = {key: of_each_run(key, value) for key, value in wire.items()}
    vendor = _VENDORS[0]
    if event.batch is not None:
        vendor = _VENDORS[1]
        if isinstance(data := members.get("data"), dict):
            data = {key: of_each_run(key, value) for key, value in data.items()}
            members = {**members, "data": data}
        whole = {key: of_each_run(key, value) for key, value in event.batch.items()}
        members = {**whole, "events": [members]} if members else whole
    if event.destination != vendor:
        members = {"destination": event.destination, **members}
    return Row(
        event.identity,
        event.destination,
        event.user_id,
        event.device_id,
        _each(members, masking),
    )


def _each(value: Any, masking: _Masking) -> Any:
    """Copy a JSON value, with the value of each key as it is to be shown."""
    if isinstance(value, dict):
        return {
            key: made
            if (made := masking(key, item)) is not item
            else _each(item, masking)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_each(masking("", item), masking) for item in value]
    return value


def _names(given: Iterable[str]) -> frozenset[str]:
    """Take one name for what it is, and not for its letters."""
    return frozenset((given,) if isinstance(given, str) else given)
