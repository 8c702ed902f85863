"""Events as Amplitude's Export API writes them, made into events that can be sent."""

from collections.abc import Mapping
from typing import Any, Final

from amplitude_async.amplitude.events import GROUP_IDENTIFY
from amplitude_async.cli.send.moments import milliseconds

__all__ = ["from_export", "is_exported"]

# Names that nothing but an export has.
_MARKS: Final = frozenset({"$insert_id", "event_time", "client_event_time"})

_SAME: Final = (
    "user_id",
    "device_id",
    "event_type",
    "session_id",
    "event_id",
    "event_properties",
    "user_properties",
    "groups",
    "version_name",
    "platform",
    "os_name",
    "os_version",
    "device_brand",
    "device_manufacturer",
    "device_model",
    "country",
    "region",
    "city",
    "dma",
    "language",
    "location_lat",
    "location_lng",
    "idfa",
    "adid",
    "partner_id",
    "library",
)
_RENAMED: Final = {"device_carrier": "carrier", "ip_address": "ip"}


def is_exported(line: Mapping[str, Any]) -> bool:
    """Tell whether a line comes from an export."""
    return not _MARKS.isdisjoint(line)


def from_export(line: Mapping[str, Any]) -> dict[str, Any]:
    """Take what can be sent again out of an exported event.

    Left out is what only Amplitude gives: its own ids and times of processing.

    Raises:
        ValueError: its time cannot be read.
    """
    found = {name: line[name] for name in _SAME if line.get(name) is not None}
    for theirs, ours in _RENAMED.items():
        if line.get(theirs) is not None:
            found[ours] = line[theirs]
    happened = line.get("event_time") or line.get("client_event_time")
    if isinstance(happened, str):
        found["time"] = _time(happened)
    elif happened is not None:
        found["time"] = happened
    insert_id = line.get("$insert_id") or line.get("insert_id") or line.get("uuid")
    if insert_id:
        found["insert_id"] = insert_id
    if found.get("event_type") == GROUP_IDENTIFY and line.get("group_properties"):
        found["group_properties"] = line["group_properties"]
    # Empty ones say nothing, and every exported event has them.
    return {name: value for name, value in found.items() if value not in ({}, "")}


def _time(text: str) -> int:
    try:
        return milliseconds(text)
    except ValueError as error:
        msg = f"event_time={text[:40]!r} {error}"
        raise ValueError(msg) from None
