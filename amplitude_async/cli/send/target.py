"""What the first word of the command means: a file, standard input, or an event."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from amplitude_async.cli.send.mapping import MAPPINGS, Place, put, value_of

__all__ = ["Target", "fields_of", "target_of"]

_PATH_LIKE: Final = re.compile(
    r"[/\\]|\.(?:jsonl|ndjson|json|csv|tsv|txt|log|gz|zip)$", re.IGNORECASE
)


class Target(NamedTuple):
    """What is to be sent."""

    path: Path | None = None
    """A file."""
    event: str | None = None
    """The type of one event. With neither of the two it is standard input."""


def target_of(
    what: str, *, as_event: bool, event_options: Sequence[str], words: Sequence[str]
) -> Target:
    """Tell a file from the name of an event.

    Args:
        what: the word: ``-``, an existing file, or else an event type.
        as_event: True where ``--event`` was given, and a file is not looked for.
        event_options: the options given that go with one event alone.
        words: the properties given.

    Raises:
        ValueError: it can be neither, or the rest goes with the other one.
    """
    if not what.strip():
        msg = "the name of the event is empty: name a file or an event"
        raise ValueError(msg)
    if as_event:
        return Target(event=what)
    path = Path(what)
    extra = [*event_options, *words]
    if what == "-" or _is_there(path):
        if extra:
            shown = "standard input" if what == "-" else "a file that is here"
            msg = (
                f"{what} is {shown}, and {extra[0]} goes with one event: leave it out, "
                "or add --event to send an event of that name"
            )
            raise ValueError(msg)
        return Target() if what == "-" else Target(path=path)
    if os.path.isdir(path):  # noqa: PTH112 - of any name, also one that is too long
        msg = f"{what} is a directory: name a file in it, or add --event"
        raise ValueError(msg)
    if _PATH_LIKE.search(what) and not extra:
        msg = f"there is no file {what}: look at its path, or add --event for an event"
        raise ValueError(msg)
    return Target(event=what)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() or path.is_fifo() or path.is_char_device()
    except PermissionError:
        return True  # whoever opens it is told so
    except OSError:
        return False  # a name too long for a file may still be one of an event


def fields_of(
    words: Sequence[str], settings: Sequence[tuple[Place, Any]]
) -> dict[str, Any]:
    """Make the fields of one event of the words of the command line.

    Raises:
        ValueError: a word is no property with a value.
    """
    fields: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name):
            msg = (
                f"{word} is no property: write {word or 'name'}=value, and put quotes "
                "around an event type of several words"
            )
            raise ValueError(msg)
        head, dot, _ = name.partition(".")
        inside = dot and head in MAPPINGS
        place = Place.of(name) if inside else Place("event_properties", name)
        put(fields, place, value_of(text) if place.field != "groups" else text)
    for place, value in settings:
        put(fields, place, value)
    return fields
