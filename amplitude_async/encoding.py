"""Turns values into JSON: one policy for every vendor, and one place that joins bytes.

Values that are JSON already pass untouched. Everything else is converted where a
faithful JSON form exists and otherwise loses its own key, never the event:

=====================================  =====================================
Python                                 JSON
=====================================  =====================================
datetime, date, time                   ISO 8601 text
timedelta                              number of seconds
UUID, Path                             text
Decimal, Fraction and other numbers    number
Enum                                   what its value becomes
str, int, float subclasses             the value of the base type
tuple, set, deque, other sequences     array (a set is sorted if it can be)
mapping, dataclass, pydantic model     object
elements of numpy, pandas and the like what their ``item()`` becomes
NaN, infinity, NaT                     lost, with a `Loss` that says where
numbers beyond a double (1.8E+308)     lost
bytes, arrays, anything else           lost
=====================================  =====================================

Sizes are added up before anything is encoded. What comes to more than a request may
have is lost with a `Loss` that is ``too_large``, and costs the event: it could never
be sent. So does what would take too long to convert.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import pydantic_core

from amplitude_async.conversion import MAX_BITS, SMALL_INT, convert
from amplitude_async.losses import (
    DROP,
    Dropped,
    Json,
    Limits,
    Loss,
    is_encodable_text,
)

__all__ = [
    "DROP",
    "Dropped",
    "Json",
    "Loss",
    "ValuePolicy",
    "encodable_text",
    "is_encodable_text",
    "to_json",
    "unix_ms",
    "with_members",
]

# Types that are JSON whatever their value.
_ATOMS: Final = frozenset({bool, type(None)})
_TEXT: Final = frozenset({str})
_NUMBERS: Final = frozenset({int, bool, float})
_CONTAINERS: Final = frozenset({dict, list})

# Up to so many containers are looked through, which takes some twenty milliseconds;
# structures that refer to themselves many times over end here as well.
_MAX_CONTAINERS: Final = 60_000

# What is within these cannot come to much, so nobody has to add it up.
_FEW: Final = 64
_SHORT: Final = 4_096
_SHORT_IN_LIST: Final = 128
_LEAST_INT: Final = -SMALL_INT


@dataclass(frozen=True, slots=True)
class ValuePolicy:
    """What may be sent and what is done with the rest."""

    max_depth: int = 40
    """Containers within containers, the outermost included.

    Amplitude HTTP V2 API, keys of the event argument: at most 40 layers.
    """

    max_string: int | None = None
    """Longer strings are cut to so many characters. None: no limit."""

    max_bytes: int = 1_000_000
    """What comes to more, and so fits into no request, is not even encoded."""

    def is_json(self, value: object) -> bool:  # noqa: C901, PLR0912 - each comes here
        """Tell whether a value is JSON as it is and within the limits.

        Lone surrogates are not looked for: `to_json` raises on them.
        """
        if (
            type(value) is dict
            and len(value) <= _FEW
            and self.max_string is None
            and self.max_depth > 1
        ):
            # Nearly every event has one flat dict of scalars: no second pass.
            for key, item in value.items():
                kind = type(item)
                if type(key) is not str or len(key) > _SHORT:
                    break
                if kind is str:
                    if len(item) > _SHORT:
                        break
                elif kind is int:
                    if not _LEAST_INT < item < SMALL_INT:
                        break
                elif kind is float:
                    if not isfinite(item):
                        return False
                # A list of scalars is usual too; what is deeper takes the long way.
                elif kind is list:
                    if len(item) > _FEW:
                        break
                    for part in item:
                        kind = type(part)
                        if kind is str:
                            if len(part) > _SHORT_IN_LIST:
                                break
                        elif kind is int:
                            if not _LEAST_INT < part < SMALL_INT:
                                break
                        elif kind not in _ATOMS:
                            break
                    else:
                        continue
                    break
                elif kind not in _ATOMS:
                    break
            else:
                return True
        return self._is_json_tree(value)

    def convert(self, value: object, path: str, losses: list[Loss]) -> Json | Dropped:
        """Copy a value into the types of JSON; never raises, never changes it.

        Args:
            value: Anything.
            path: The name of the value in `losses`.
            losses: Receives an entry for each key that was lost or cut; beyond twenty
                of them one entry with their number.

        Returns:
            A copy that shares no container with `value`, or `DROP`.
        """
        limits = Limits(self.max_depth, self.max_string, self.max_bytes)
        return convert(value, path, limits, losses)

    def _is_json_tree(self, value: object) -> bool:
        # Level by level instead of recursion: a circle ends at the depth limit and
        # a structure that multiplies itself at the number of containers.
        level: list[Any] = [[value]]
        seen, room = 0, self.max_bytes
        for _ in range(self.max_depth + 1):
            below: list[Any] = []
            for container in level:
                # The least it comes to: nobody walks through what is too large anyway.
                room -= 2 * len(container)
                if room < 0:
                    return False
                size = self._json_size(container, below)
                if size < 0:
                    return False
                room -= size
            if not below:
                return room >= 0
            seen += len(below)
            if room < 0 or seen > _MAX_CONTAINERS:
                return False
            level = below
        return False

    def _json_size(self, container: Any, below: list[Any]) -> int:  # noqa: PLR0912 - as above
        """Add up what a container holds, beside two bytes each; below 0: no JSON."""
        size = 0
        if type(container) is dict:
            if not _TEXT.issuperset(map(type, container)):
                return -1
            size = sum(map(len, container))
            container = container.values()
        if len(container) > _FEW:
            alike = self._size_of_alike(container, below)
            if alike is not None:
                return -1 if alike < 0 else size + alike
        longest = self.max_string
        for item in container:
            kind = type(item)
            if kind is str:
                size += len(item)
                if longest is not None and len(item) > longest:
                    return -1
            elif kind is dict or kind is list:
                below.append(item)
            elif kind is int:
                if not _LEAST_INT < item < SMALL_INT:
                    bits = item.bit_length()
                    if bits > MAX_BITS:
                        return -1
                    size += bits * 3 // 10
            elif kind is float:
                if not isfinite(item):
                    return -1
            elif kind not in _ATOMS:
                return -1
        return size

    def _size_of_alike(self, items: Collection[Any], below: list[Any]) -> int | None:
        """Add up many values at once; None where they are of several kinds."""
        kinds = set(map(type, items))
        if kinds <= _TEXT:
            longest = self.max_string
            if longest is not None and max(map(len, items)) > longest:
                return -1
            return sum(map(len, items))
        if kinds <= _CONTAINERS:
            below.extend(items)
            return 0
        if kinds <= _NUMBERS:
            return _size_of_numbers(items, kinds)
        return None


def _size_of_numbers(items: Collection[Any], kinds: set[type]) -> int | None:
    """Add up numbers; None where one of them needs a second look."""
    try:
        if float in kinds and not all(map(isfinite, items)):
            return -1
    except OverflowError:  # an int beyond a double
        return None
    if not _LEAST_INT < min(items) <= max(items) < SMALL_INT:
        return None
    # No float is shorter than "1.0".
    return 2 * len(items) if kinds == {float} else 0


def to_json(value: Json) -> bytes:
    """Encode a value that is JSON as compact UTF-8.

    Raises:
        pydantic_core.PydanticSerializationError: The value holds lone surrogates
            or something that is no JSON.
    """
    return pydantic_core.to_json(value)


def with_members(body: bytes, members: bytes) -> bytes:
    """Put members at the end of an encoded object.

    Args:
        body: An object as an encoder of ours wrote it, without white space.
        members: Each of them encoded, and after a comma: ``,"name":value``. May be
            empty.
    """
    # Nothing stands before the first member of an empty object. The comma is theirs
    # and not put here because events come by the thousand and "{}" hardly ever.
    if body == b"{}":
        members = members[1:]
    return b"%b%b}" % (body[:-1], members)


def unix_ms(wall: float) -> int:
    """Turn seconds since the epoch into whole milliseconds, as vendors want them."""
    return int(wall * 1000)


def encodable_text(text: str) -> str:
    """Give a string a UTF-8 form: a lone surrogate is spelled out."""
    if is_encodable_text(text):
        return text
    return text.encode("utf-8", "backslashreplace").decode()
