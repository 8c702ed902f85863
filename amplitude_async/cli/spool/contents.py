"""What an event's body says, of whichever vendor it is, and however it was damaged."""

import json
import re
from typing import Any

__all__ = ["event_type", "json_of"]

# In JSON these stand between tokens or, those of 7f and above, in a string, where a
# terminal takes them for commands or turns the text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


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
        return json.loads(body.decode())
    # Too deep for the parser: a file from elsewhere may have anything in it.
    except (ValueError, RecursionError, AttributeError):
        return None


def json_of(body: bytes) -> bytes:
    """Return a body as one line of JSON; null where it is none."""
    if _parsed(body) is None:
        return b"null"
    return _CONTROLS.sub(_escaped, body.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return " " if character < " " else f"\\u{ord(character):04x}"
