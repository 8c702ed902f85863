"""What an item of a spool says, of whichever vendor it is, and however it was damaged.

A file may be anybody's work: any value may stand in any column and in any body. Here it
becomes text, a whole number, a moment or nothing, for all commands alike.
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from amplitude_async.storage.spool.directory import Item

__all__ = ["Facts", "event_type", "json_of", "json_value", "moment"]

# Nested deeper than any vendor takes, and not so deep that it could not be written.
_DEEPEST = 100

# In JSON these stand between tokens or, those of 7f and above, in a string, where a
# terminal takes them for commands or turns the text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Facts(NamedTuple):
    """An event or a dead letter in values that can be shown and written anywhere."""

    event_type: str | None
    insert_id: str | int | None
    user_id: str | int | None
    device_id: str | int | None
    accepted_at: str | None
    """ISO 8601; None where nobody knows."""
    bytes: int
    """Size of the body; 0 where it is damaged."""
    code: str | int | None = None
    """Of the verdict, as the two that follow."""
    reason: str | int | None = None
    rejected_at: str | None = None

    @classmethod
    def of(cls, item: Item) -> Self:
        """Read an item, whatever stands in it."""
        record, letter = item.record, item.letter
        body = record.body if isinstance(record.body, bytes) else b""
        facts = cls(
            event_type=event_type(body),
            insert_id=_plain(record.insert_id),
            user_id=_plain(record.user_id),
            device_id=_plain(record.device_id),
            # Of a damaged event nobody knows when.
            accepted_at=moment(record.accepted_at or None),
            bytes=len(body),
        )
        if letter is None:
            return facts
        return facts._replace(
            code=_plain(letter.code),
            reason=_plain(letter.message),
            rejected_at=moment(letter.rejected_at),
        )


def moment(seconds: object) -> str | None:
    """Write seconds since the epoch in ISO 8601; None where they are no moment."""
    if not isinstance(seconds, int | float):
        return None
    try:
        found = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> str | int | None:
    if value is None or isinstance(value, str | int):
        return value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def event_type(body: bytes) -> str | None:
    """Name the type of an event; None where the body does not say.

    A batch for mParticle is named after its first event.
    """
    content = _parsed(body)
    if not isinstance(content, dict):
        return None
    events = content.get("events")
    if not isinstance(events, list):
        return _named(content, "event_type")
    if not events or not isinstance(events[0], dict):
        return None
    first = events[0]
    data = first.get("data")
    # What a person called it tells more than of which kind it is.
    called = isinstance(data, dict) and (
        _named(data, "event_name") or _named(data, "screen_name")
    )
    name = called or _named(first, "event_type")
    more = len(events) - 1
    return f"{name} and {more:,} more" if name and more else name


def _named(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    # Too deep for the parser: a file from elsewhere may have anything in it.
    except (ValueError, RecursionError, AttributeError):
        return None


def _refuse_constant(name: str) -> object:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def json_of(body: bytes) -> bytes:
    """Return a body as one line of JSON; null where it is none."""
    if _parsed(body) is None:
        return b"null"
    return _CONTROLS.sub(_escaped, body.decode()).encode()


def json_value(body: bytes) -> Any:
    """Return a body as JSON values, or as text where they could not be written again.

    Nested too deep, or with a number that is infinite once it is read.
    """
    value = _parsed(body)
    return body.decode() if _is_unwritable(value) else value


def _is_unwritable(value: object) -> bool:
    depth, layer = 0, [value]
    while layer:
        if depth > _DEEPEST or any(map(_is_infinite, layer)):
            return True
        depth += 1
        layer = [inner for one in layer for inner in _inside(one)]
    return False


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return " " if character < " " else f"\\u{ord(character):04x}"
