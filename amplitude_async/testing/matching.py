"""What fits what was wanted, and what differs where it does not."""

import asyncio
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from amplitude_async.encoding import ValuePolicy
from amplitude_async.losses import DROP
from amplitude_async.shown import kind_of, printable, shown
from amplitude_async.testing.captured import MISSING, Captured, Missing

__all__ = ["Difference", "Tally", "differences", "near_key", "near_names"]

_PLAIN: Final = (bool, int, float, str, Decimal, Fraction, type(None))
# What the encoder turns into text or a number: compared with what became of it.
_CONVERTED: Final = (
    date,
    time,
    timedelta,
    Decimal,
    Fraction,
    Enum,
    PurePath,
    UUID,
)
_POLICY: Final = ValuePolicy()
_LONGEST_NAME: Final = 80
# To compare names costs some 50 microseconds each.
_MOST_NAMES: Final = 2_000
_MOST_KEYS: Final = 100
_LIKE: Final = 0.6


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which an event is not what was wanted."""

    path: str
    wanted: Any
    found: Any
    note: str | Callable[[], str] = ""
    """More to say, or what finds it out when somebody asks."""

    def __str__(self) -> str:
        is_missing = isinstance(self.found, Missing)
        found = "is missing" if is_missing else f"is {shown(self.found)}"
        more = self.note if isinstance(self.note, str) else self.note()
        note = f" ({more})" if more else ""
        path = printable(self.path[:_LONGEST_NAME])
        return f"{path}: wanted {shown(self.wanted)}, {found}{note}"


def differences(
    wanted: object, found: object, path: str, *, whole: bool = False
) -> Iterator[Difference]:
    """Name the places in which a value is not what was wanted.

    A mapping fits one that has more keys, at any depth outside of lists. Numbers are
    equal as numbers, but True is not 1.

    Args:
        wanted: any value; one with an ``==`` of its own decides by that.
        found: a JSON value, or ``MISSING``.
        path: where it stands.
        whole: keys that are not wanted differ too.
    """
    if isinstance(found, Missing):
        yield Difference(path, wanted, found)
    elif isinstance(wanted, Mapping) and isinstance(found, dict):
        yield from _of_mappings(wanted, found, path, whole=whole)
    else:
        try:
            equal = _equal(wanted, found)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
            note = f"comparing them raised {kind_of(error)}"
            yield Difference(path, wanted, found, note)
        else:
            if not equal:
                yield Difference(path, wanted, found)


def _of_mappings(
    wanted: Mapping[Any, Any], found: dict[str, Any], path: str, *, whole: bool
) -> Iterator[Difference]:
    try:
        pairs = list(wanted.items())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
        note = f"reading what is wanted raised {kind_of(error)}"
        yield Difference(path, wanted, found, note)
        return
    for key, value in pairs:
        name = key if isinstance(key, str) else shown(key)
        inner = found.get(name, MISSING)
        yield from differences(value, inner, f"{path}.{name}", whole=whole)
    if whole:
        for name in sorted(found.keys() - {key for key, _ in pairs}):
            yield Difference(f"{path}.{name}", MISSING, found[name])


def _equal(wanted: Any, found: Any) -> bool:
    """Compare two values; code of theirs may raise."""
    one_is_bool = isinstance(wanted, bool) or isinstance(found, bool)
    if one_is_bool and isinstance(wanted, _PLAIN):
        return type(wanted) is type(found) and wanted == found
    if type(wanted) is dict and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(
            _equal(value, found[key]) for key, value in wanted.items()
        )
    if type(wanted) in {list, tuple} and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_equal, wanted, found))
    if isinstance(wanted, set | frozenset) and isinstance(found, list):
        return _equal_unordered(wanted, found)
    if wanted == found:
        return True
    if not isinstance(wanted, _CONVERTED):
        return False
    sent = _POLICY.convert(wanted, "", [])
    return sent is not DROP and bool(sent == found)


def _equal_unordered(wanted: Iterable[Any], found: list[Any]) -> bool:
    """Compare a set with the list that it was sent as, in whichever order."""
    left = list(found)
    for value in wanted:
        place = next((n for n, one in enumerate(left) if _equal(value, one)), None)
        if place is None:
            return False
        del left[place]
    return not left


class Tally:
    """Counts events, each once however many destinations it went to.

    Args:
        by_key: events have a key that is the same everywhere; otherwise the
            destination that has most of them says how many there are.
    """

    def __init__(self, *, by_key: bool = True) -> None:
        self.total = 0
        self._by_key = by_key
        self._seen: dict[str, dict[str, int]] = {}
        self._most: dict[str, int] = {}

    def add(self, captured: Captured) -> bool:
        """Count one; says whether it was none that another destination had."""
        key = captured.key if self._by_key else ""
        at = self._seen.setdefault(key, {})
        count = at[captured.destination] = at.get(captured.destination, 0) + 1
        if count <= self._most.get(key, 0):
            return False
        self._most[key] = count
        self.total += 1
        return True


def near_names(name: str, names: list[str]) -> list[str]:
    """Find the names that were perhaps meant, the likeliest first."""
    plain = _plain(name)
    alike = [other for other in names if _plain(other) == plain]
    if alike:
        return alike[:3]
    length = len(plain)
    by_plain = {
        short: other
        for other in names
        if abs(len(short := _plain(other)) - length) <= max(3, length // 3)
    }
    few = list(by_plain)[:_MOST_NAMES]
    found = difflib.get_close_matches(plain, few, n=3, cutoff=_LIKE)
    return [by_plain[other] for other in found]


def near_key(name: str, keys: Mapping[str, Any]) -> str | None:
    """Find the key that was perhaps meant, or None."""
    few = [key for key in list(keys)[:_MOST_KEYS] if key != name]
    return next(iter(near_names(name, few)), None)


def _plain(name: str) -> str:
    short = name[:_LONGEST_NAME].casefold()
    return "".join(c for c in short if c.isalnum()) or short
