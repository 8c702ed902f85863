"""Which entries a person wants to see, as typed: `user:user-1 type:Paid -rejected`.

Pure. The page has a twin of this in its own language; both keep the same table of
cases, `tests/emulator/filter_cases.json`.

Words are separated by blanks and all must hold. Quotes keep blanks in a word, and
take its meaning from it: `"rejected"` is text. A minus before a word denies it. What
is still being typed, as `user:`, asks nothing. Case never matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["MOST_CHARACTERS", "MOST_WORDS", "STATES", "Filter"]

MOST_CHARACTERS = 500
"""Most characters a filter may have."""

MOST_WORDS = 20
"""Most words a filter may have."""

STATES = frozenset({"stored", "duplicate", "rejected", "dropped"})
"""What can become of an event; each is a word by itself."""

Entry = Mapping[str, Any]
_Test = Callable[[Entry, Mapping[str, str]], bool]

# An optional minus, then pieces in quotes, up to the next blank; the last quote may
# still be open.
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
_PROPERTY = "prop."


@dataclass(frozen=True, slots=True)
class _Word:
    denied: bool
    holds: _Test
    deep: bool = False


class Filter:
    """Says of an entry whether it is wanted.

    Args:
        text: as it was typed.

    Raises:
        ValueError: it is longer than a person types.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            msg = (
                f"q has {len(text):,} characters: shorten the filter to "
                f"{MOST_CHARACTERS}"
            )
            raise ValueError(msg)
        typed = _WORD.findall(text)
        if len(typed) > MOST_WORDS:
            msg = f"q has {len(typed)} words: give at most {MOST_WORDS}"
            raise ValueError(msg)
        self._words = tuple(filter(None, map(_parsed, typed)))

    @property
    def is_deep(self) -> bool:
        """Whether it asks for properties, of which an entry has three."""
        return any(word.deep for word in self._words)

    def __bool__(self) -> bool:
        """Whether it asks anything."""
        return bool(self._words)

    def holds(self, entry: Entry, properties: Mapping[str, str] | None = None) -> bool:
        """Return whether all words hold.

        Args:
            entry: as the page has it.
            properties: all properties as short JSON, None for those of the preview.
        """
        if properties is None:
            properties = dict(entry.get("preview") or ())
        return all(
            word.holds(entry, properties) is not word.denied for word in self._words
        )


def _parsed(typed: str) -> _Word | None:
    denied = typed.startswith("-")
    rest = typed[1:] if denied else typed
    key, colon, value = rest.partition(":")
    if not colon or not key or '"' in key:
        test = _bare(rest)
        return None if test is None else _Word(denied, test)
    key, wanted = key.lower(), value.replace('"', "").lower()
    if not wanted:
        return None
    known = _KEYS.get(key)
    if known is not None:
        return _Word(denied, known(wanted))
    return _Word(denied, _property(key.removeprefix(_PROPERTY), wanted), deep=True)


def _bare(typed: str) -> _Test | None:
    text = typed.replace('"', "").lower()
    if not text:
        return None
    if '"' not in typed and text in STATES:
        return _is(text)
    return lambda entry, _: any(text in one.lower() for one in _texts(entry))


def _texts(entry: Entry) -> Iterator[str]:
    """Return what a person sees of an entry, apart from its state."""
    for field in ("name", "user", "device"):
        yield entry.get(field) or ""
    for name, value in entry.get("preview") or ():
        yield name
        yield value


def _property(name: str, wanted: str) -> _Test:
    return lambda _, properties: any(
        _fits(wanted, _plain(value))
        for own, value in properties.items()
        if own.lower() == name
    )


def _is(wanted: str) -> _Test:
    if wanted == "local":
        return lambda entry, _: bool(entry.get("local"))
    return lambda entry, _: entry.get("state") == wanted


def _field(name: str) -> Callable[[str], _Test]:
    def make(wanted: str) -> _Test:
        return lambda entry, _: _fits(wanted, _text(entry.get(name)))

    return make


def _group(wanted: str) -> _Test:
    def holds(entry: Entry, _: Mapping[str, str]) -> bool:
        return any(_fits(wanted, name) for name in (entry.get("groups") or {}).values())

    return holds


_KEYS: Mapping[str, Callable[[str], _Test]] = MappingProxyType(
    {
        "user": _field("user"),
        "device": _field("device"),
        "type": _field("name"),
        "vendor": _field("vendor"),
        "request": _field("request"),
        "group": _group,
        "is": _is,
    }
)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _plain(shown: str) -> str:
    """Return a property as people type it: text without its quotes."""
    if not shown.startswith('"'):
        return shown
    try:
        return str(json.loads(shown))
    except ValueError:  # it was cut
        return shown[1:]


def _fits(wanted: str, text: str) -> bool:
    """Return whether a text is the wanted one, in which a star is any text."""
    text = text.lower()
    first, *others = wanted.split("*")
    if not others:
        return text == first
    *middle, last = others
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(text) - len(last) >= at and text.endswith(last)
