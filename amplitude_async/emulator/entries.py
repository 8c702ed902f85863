"""What one event came to, as the page shows it: short, and safe to show.

Pure. Whatever an event holds, an entry has a few short texts of it and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import Any, TypeGuard

from .judgement import JsonObject
from .reading import text_of
from .records import ReceivedRequest
from .seen import Seen
from .users import amount_of, batch_keys

__all__ = [
    "brief",
    "entries_of",
    "entry",
    "event_at",
    "json_text",
    "name_at",
    "properties_of",
    "request_row",
    "short_properties",
]

_LONGEST_NAME = 200
_LONGEST_REASON = 500
_LONGEST_VALUE = 60
_MOST_PREVIEWED = 3
_MOST_GROUPS = 5
# More could not be searched while somebody waits.
_MOST_SEARCHED = 200
_LONGEST_OPTIONS = 2_000

_KINDS: Mapping[str, str] = MappingProxyType(
    {"$identify": "identify", "$groupidentify": "group"}
)
_NAMED_BY = ("event_name", "screen_name", "action", "message")


def entries_of(seen: Seen) -> Iterator[dict[str, Any]]:
    """Return an entry for each event in what arrived, in their order."""
    for number in range(seen.number, seen.last_number + 1):
        yield entry(seen, number)


def entry(seen: Seen, number: int) -> dict[str, Any]:
    """Return the entry of one event, whose number is one of those of `seen`."""
    if seen.unit == "batch":
        own = _of_batch(seen.event, event_at(seen, number))
    else:
        own = _of_event(seen.event)
    return {
        "n": number,
        "at": seen.received_at,
        **own,
        "state": seen.verdict,
        "reason": seen.reason[:_LONGEST_REASON],
        "local": seen.local,
        "request": seen.request or None,
    }


def event_at(seen: Seen, number: int) -> JsonObject:
    """Return the event that has a number; of a batch without events, the batch."""
    if seen.unit == "event":
        return seen.event
    events = seen.event.get("events")
    at = number - seen.number
    found = events[at] if isinstance(events, list) and at < len(events) else seen.event
    return found if isinstance(found, dict) else {"not_an_object": brief(found)}


def name_at(seen: Seen, number: int) -> str:
    """Return the name of the event that has a number, as its entry has it."""
    if seen.unit == "event":
        return seen.name[:_LONGEST_NAME]
    event = event_at(seen, number)
    return _batch_name(event, _batch_kind(seen.event, event))[:_LONGEST_NAME]


def properties_of(seen: Seen, number: int) -> Mapping[str, Any]:
    """Return what an event says besides its type and its user."""
    event = event_at(seen, number)
    if seen.unit == "event":
        return _event_properties(event)
    return _batch_properties(seen.event, event)


def short_properties(seen: Seen, number: int) -> dict[str, str]:
    """Return the properties as short JSON, for a filter."""
    found = properties_of(seen, number)
    return {
        str(name): brief(value) for name, value in islice(found.items(), _MOST_SEARCHED)
    }


def brief(value: object) -> str:
    """Return a value as JSON, or the beginning of it, in a few characters."""
    if isinstance(value, str):
        cut = f"{value[:_LONGEST_VALUE]}…" if len(value) > _LONGEST_VALUE else value
        # As json.dumps does without ASCII, which makes an encoder for each call.
        return encode_basestring(cut)
    if isinstance(value, dict):
        return f"{{{len(value)} keys}}" if value else "{}"
    if isinstance(value, list):
        plain = len(value) <= _MOST_PREVIEWED and not any(
            isinstance(one, (dict, list)) for one in value
        )
        return f"[{', '.join(map(brief, value))}]" if plain else f"[{len(value)} items]"
    return json.dumps(value)[: 2 * _LONGEST_VALUE]


def json_text(value: object, most: int) -> str:
    """Return a value as JSON, or why it is not shown."""
    try:
        text = json.dumps(value, separators=(",", ":"))
    except RecursionError:
        # It could be read only just: writing it takes a little more.
        return json.dumps({"not_shown": "nested too deep"})
    if len(text) > most:
        return json.dumps({"not_shown": f"{len(text):,} characters of JSON"})
    return text


def request_row(request: ReceivedRequest) -> dict[str, Any]:
    """Return what may be told of a request: its headers may hold credentials."""
    options = json.loads(json_text(request.options, _LONGEST_OPTIONS))
    return {
        "number": request.number,
        "path": request.path[:_LONGEST_NAME],
        "status": request.status,
        "events": len(request.events),
        "batches": len(request.batches),
        "body_bytes": request.body_bytes,
        "decoded_bytes": request.decoded_bytes,
        "received_at": request.received_at,
        "fault": request.fault,
        "note": request.note[:_LONGEST_REASON],
        "client_upload_time": (request.client_upload_time or "")[:100] or None,
        "options": options,
    }


def _of_event(event: JsonObject) -> dict[str, Any]:
    name = text_of(event.get("event_type"))
    kind = _KINDS.get(name, "event")
    if kind == "event" and amount_of(event) is not None:
        kind = "revenue"
    return {
        "vendor": "amplitude",
        "name": name[:_LONGEST_NAME],
        "kind": kind,
        "user": _id(event.get("user_id")),
        "device": _id(event.get("device_id")),
        "groups": _groups(event.get("groups")),
        "preview": _preview(_event_properties(event)),
    }


def _of_batch(batch: JsonObject, event: JsonObject) -> dict[str, Any]:
    kind = _batch_kind(batch, event)
    keys = list(islice(batch_keys(batch), 1))
    return {
        "vendor": "mparticle",
        "name": _batch_name(event, kind)[:_LONGEST_NAME],
        "kind": kind[:_LONGEST_NAME],
        "user": keys[0][1][:_LONGEST_NAME] if keys else None,
        "device": _id(batch.get("mp_deviceid")),
        "groups": None,
        "preview": _preview(_batch_properties(batch, event)),
    }


def _batch_kind(batch: JsonObject, event: JsonObject) -> str:
    return text_of(event.get("event_type")) if event is not batch else "attributes"


def _batch_name(event: JsonObject, kind: str) -> str:
    data = event.get("data")
    for holder in (data, data.get("product_action") if _is_object(data) else None):
        if not _is_object(holder):
            continue
        for field in _NAMED_BY:
            if name := text_of(holder.get(field)):
                return name
    return kind


def _event_properties(event: JsonObject) -> Mapping[str, Any]:
    found = event.get("event_properties")
    if _is_object(found) and found:
        return found
    for field in ("user_properties", "group_properties"):
        changes = event.get(field)
        if _is_object(changes) and changes:
            return _changed(changes)
    return {}


def _changed(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what operations say of each property, the first of each alone."""
    found: dict[str, Any] = {}
    for name, values in islice(changes.items(), _MOST_SEARCHED):
        if name.startswith("$") and _is_object(values):
            for key, value in islice(values.items(), _MOST_SEARCHED):
                found.setdefault(key, value)
        else:
            found.setdefault(name, values)
    return found


def _batch_properties(batch: JsonObject, event: JsonObject) -> Mapping[str, Any]:
    data = event.get("data")
    own = data.get("custom_attributes") if _is_object(data) else None
    if _is_object(own) and own:
        return own
    attributes = batch.get("user_attributes") if event is batch else None
    return attributes if _is_object(attributes) else {}


def _preview(properties: Mapping[str, Any]) -> list[list[str]]:
    return [
        [str(name)[:_LONGEST_VALUE], brief(value)]
        for name, value in islice(properties.items(), _MOST_PREVIEWED)
    ]


def _groups(groups: object) -> dict[str, str] | None:
    if not _is_object(groups) or not groups:
        return None
    return {
        str(kind)[:_LONGEST_NAME]: ", ".join(
            map(text_of, names[:_MOST_GROUPS] if isinstance(names, list) else [names])
        )[:_LONGEST_NAME]
        for kind, names in islice(groups.items(), _MOST_GROUPS)
    }


def _id(value: object) -> str | None:
    return text_of(value)[:_LONGEST_NAME] or None


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
