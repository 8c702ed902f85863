"""Properties of a user as they are after one operation after the other.

Pure. Amplitude Identify API documentation, section "User property operations". What is
no operation on what a property holds, such as a number added to text, changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Properties"]

_CLEAR_ALL = "$clearAll"


class _Values:
    """A list to which values are added at both ends and from which they are taken.

    Each costs the same however long the list is: a user may have had many thousands.
    """

    def __init__(self, values: Iterable[object]) -> None:
        self._values: dict[int, object] = {}
        self._places: dict[object, list[int]] = {}
        self._first = self._next = 0
        self.append(values)

    def append(self, values: Iterable[object]) -> None:
        for value in values:
            self._put(self._next, value)
            self._next += 1

    def prepend(self, values: Iterable[object]) -> None:
        for value in reversed(list(values)):
            self._first -= 1
            self._put(self._first, value)

    def without_known(self, values: Iterable[object]) -> list[object]:
        fresh = {_key(value): value for value in values}
        return [value for key, value in fresh.items() if key not in self._places]

    def remove(self, values: Iterable[object]) -> None:
        for value in values:
            for place in self._places.pop(_key(value), ()):
                del self._values[place]

    def as_list(self) -> list[object]:
        return [self._values[place] for place in sorted(self._values)]

    def _put(self, place: int, value: object) -> None:
        self._values[place] = value
        self._places.setdefault(_key(value), []).append(place)


class Properties:
    """The properties of one user, changed by operations in their order."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """Return them as they are now, in a new dict."""
        return {
            name: value.as_list() if isinstance(value, _Values) else value
            for name, value in self._values.items()
        }

    def put(self, values: object) -> None:
        """Set plain properties; names that begin with $ are none."""
        if isinstance(values, Mapping):
            plain = {
                name: value
                for name, value in values.items()
                if name not in _OPERATIONS and name != _CLEAR_ALL
            }
            self._values.update(plain)

    def apply(self, operations: object) -> None:
        """Carry out the operations of one event in the order in which servers do."""
        if not isinstance(operations, Mapping):
            return
        if _CLEAR_ALL in operations:
            self._values.clear()
        named = [name for name in _OPERATIONS if name in operations]
        for name in named:
            changes = operations[name]
            if isinstance(changes, Mapping):
                for key, value in changes.items():
                    _OPERATIONS[name](self._values, key, value)
        if not named and _CLEAR_ALL not in operations:
            self.put(operations)

    def drop(self, names: object) -> None:
        """Delete the properties of a list."""
        for name in names if isinstance(names, list) else ():
            if isinstance(name, str):
                self._values.pop(name, None)


def _unset(values: dict[str, Any], key: str, _: object) -> None:
    values.pop(key, None)


def _set(values: dict[str, Any], key: str, value: object) -> None:
    values[key] = value


def _set_once(values: dict[str, Any], key: str, value: object) -> None:
    values.setdefault(key, value)


def _add(values: dict[str, Any], key: str, value: object) -> None:
    before = values.get(key, 0)
    if not _is_number(before) or not _is_number(value):
        return
    try:
        total = before + value
        if math.isfinite(total):
            values[key] = total
    except OverflowError:  # one of them is longer than a fraction can be
        return


def _append(values: dict[str, Any], key: str, value: object) -> None:
    _listed(values, key).append(_several(value))


def _prepend(values: dict[str, Any], key: str, value: object) -> None:
    _listed(values, key).prepend(_several(value))


def _post_insert(values: dict[str, Any], key: str, value: object) -> None:
    held = _listed(values, key)
    held.append(held.without_known(_several(value)))


def _pre_insert(values: dict[str, Any], key: str, value: object) -> None:
    held = _listed(values, key)
    held.prepend(held.without_known(_several(value)))


def _remove(values: dict[str, Any], key: str, value: object) -> None:
    if isinstance(values.get(key), list | _Values):
        _listed(values, key).remove(_several(value))


_OPERATIONS: Mapping[str, Callable[[dict[str, Any], str, object], None]] = (
    MappingProxyType(
        {
            "$unset": _unset,
            "$set": _set,
            "$setOnce": _set_once,
            "$add": _add,
            "$append": _append,
            "$prepend": _prepend,
            "$preInsert": _pre_insert,
            "$postInsert": _post_insert,
            "$remove": _remove,
        }
    )
)
"""The operations in the order in which the server carries them out."""


def _listed(values: dict[str, Any], key: str) -> _Values:
    """Return the list under a key, which a single value becomes."""
    held = values.get(key)
    if not isinstance(held, _Values):
        held = _Values(() if held is None else _several(held))
        values[key] = held
    return held


def _several(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_number(value: object) -> bool:
    # type() and not isinstance(): true and false are no numbers.
    return type(value) in (int, float)


def _key(value: object) -> object:
    """Return what equal values have in common, and others have not."""
    if type(value) in (str, int, float):
        return value
    try:
        return "json", json.dumps(value, sort_keys=True)
    except (RecursionError, ValueError):
        return "itself", id(value)
