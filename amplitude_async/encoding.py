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
NaN, infinity, bytes, anything else    lost, with a `Loss` that says where
=====================================  =====================================
"""

import asyncio
import dataclasses
import enum
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Final, TypeAlias

import pydantic_core
from pydantic import BaseModel

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

Json: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None

# Types that are JSON whatever their value; str still has to be valid Unicode,
# which the encoder finds out for nothing.
_ATOMS: Final = frozenset({str, int, bool, type(None)})

# A request of 1 MB cannot hold more values than this, at two bytes each. The bound
# keeps endless mappings and structures that refer to themselves many times over
# from stopping the program.
_MAX_VALUES: Final = 500_000
_MAX_LEVEL_WIDTH: Final = 100_000

# The largest exponent of ten of a double, the number type of most JSON readers.
_MAX_EXPONENT: Final = 308

# Paths go into warnings, where a key of a megabyte has no place.
_MAX_LABEL: Final = 80


class Dropped(enum.Enum):
    """The type of `DROP`."""

    DROP = "drop"


DROP: Final = Dropped.DROP
"""Stands for a value that has no JSON form."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One key that was lost or cut while a value was encoded."""

    path: str
    """Where it was, for example ``event_properties.items[3].price``."""

    reason: str
    """What was wrong with it. Names types and limits, never the value."""


@dataclass(frozen=True, slots=True)
class ValuePolicy:
    """What may be sent and what is done with the rest."""

    max_depth: int = 40
    """Containers within containers, the outermost included.

    Amplitude HTTP V2 API, keys of the event argument: at most 40 layers.
    """

    max_string: int | None = None
    """Longer strings are cut to so many characters. None: no limit."""

    def is_json(self, value: object) -> bool:
        """Tell whether a value is JSON as it is and within the limits.

        Lone surrogates are not looked for: `to_json` raises on them.
        """
        if type(value) is dict and self.max_string is None and self.max_depth > 1:
            # Nearly every event has one flat dict of scalars: no second pass.
            for key, item in value.items():
                kind = type(item)
                if type(key) is not str:
                    return False
                if kind in _ATOMS or (kind is float and isfinite(item)):
                    continue
                # A list of scalars is usual too; what is deeper takes the long way.
                if kind is not list or not _ATOMS.issuperset(map(type, item)):
                    break
            else:
                return True
        return self._is_json_tree(value)

    def convert(self, value: object, path: str, losses: list[Loss]) -> Json | Dropped:
        """Copy a value into the types of JSON; never raises, never changes it.

        Args:
            value: Anything.
            path: The name of the value in `losses`.
            losses: Receives an entry for each key that was lost or cut.

        Returns:
            A copy that shares no container with `value`, or `DROP`.
        """
        return _Conversion(self, losses).value(value, path, 0)

    def _is_json_tree(self, value: object) -> bool:
        # Level by level instead of recursion: a circle ends at the depth limit and
        # a structure that multiplies itself at the width limit.
        level: list[Any] = [[value]]
        for _ in range(self.max_depth + 1):
            below: list[Any] = []
            for container in level:
                if not self._is_json_container(container, below):
                    return False
            if not below:
                return True
            if len(below) > _MAX_LEVEL_WIDTH:
                return False
            level = below
        return False

    def _is_json_container(self, container: Any, below: list[Any]) -> bool:
        if type(container) is dict:
            if not all(type(key) is str for key in container):
                return False
            container = container.values()
        longest = self.max_string
        for item in container:
            kind = type(item)
            if kind is str:
                if longest is not None and len(item) > longest:
                    return False
            elif kind is dict or kind is list:
                below.append(item)
            elif kind is float:
                if not isfinite(item):
                    return False
            elif kind not in _ATOMS:
                return False
        return True


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


def is_encodable_text(text: str) -> bool:
    """Tell whether a string has a UTF-8 form, that is, holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encodable_text(text: str) -> str:
    """Give a string a UTF-8 form: a lone surrogate is spelled out."""
    if is_encodable_text(text):
        return text
    return text.encode("utf-8", "backslashreplace").decode()


class _TooManyValuesError(Exception):
    """The value being converted has more parts than any request can hold."""


class _Conversion:
    """One walk through a value that may hold anything."""

    __slots__ = ("_active", "_left", "_losses", "_policy")

    def __init__(self, policy: ValuePolicy, losses: list[Loss]) -> None:
        self._policy = policy
        self._losses = losses
        self._active: set[int] = set()
        self._left = _MAX_VALUES

    def value(self, value: Any, path: str, depth: int) -> Json | Dropped:
        """Convert a value that lies inside `depth` containers."""
        try:
            return self._by_type(value, path, depth)
        except _TooManyValuesError:
            return self._lose(path, f"has more than {_MAX_VALUES} values")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # its own code
            return self._lose(path, f"its conversion raised {type(error).__name__}")

    def _by_type(self, value: Any, path: str, depth: int) -> Json | Dropped:
        if type(value) is not str and type(value) in _ATOMS:
            atom: Json = value
            return atom
        for types, convert in _RULES:
            if isinstance(value, types):
                return convert(self, value, path, depth)
        # A class that is a dataclass is no instance of one.
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, path, depth)
        return self.no_form(value, path, depth)

    def _lose(self, path: str, reason: str) -> Dropped:
        self._losses.append(Loss(path, reason))
        return DROP

    def no_form(self, value: object, path: str, _depth: int) -> Dropped:
        return self._lose(path, f"a {type(value).__name__} has no JSON form")

    def text(self, value: str, path: str, _depth: int) -> Json | Dropped:
        # Not str(): a subclass may print something else than it holds.
        text = str.__str__(value)
        if not is_encodable_text(text):
            return self._lose(path, "holds a lone surrogate, which is not Unicode text")
        longest = self._policy.max_string
        if longest is None or len(text) <= longest:
            return text
        self._losses.append(Loss(path, f"cut to {longest} characters"))
        return text[:longest]

    def text_of(self, value: object, path: str, depth: int) -> Json | Dropped:
        return self.text(str(value), path, depth)

    def iso(self, value: date | time, path: str, depth: int) -> Json | Dropped:
        return self.text(value.isoformat(), path, depth)

    def seconds(self, value: timedelta, _path: str, _depth: int) -> float:
        return value.total_seconds()

    def member(self, value: enum.Enum, path: str, depth: int) -> Json | Dropped:
        return self._by_type(value.value, path, depth)

    def integer(self, value: int, _path: str, _depth: int) -> int:
        return int.__int__(value)

    def number(self, value: float, path: str, _depth: int) -> Json | Dropped:
        number = float.__float__(value)
        if isfinite(number):
            return number
        return self._lose(path, "NaN and infinity have no JSON form")

    def integral(self, value: Integral, _path: str, _depth: int) -> int:
        return int(value)

    def real(self, value: Real, path: str, depth: int) -> Json | Dropped:
        return self.number(float(value), path, depth)

    def decimal(self, value: Decimal, path: str, depth: int) -> Json | Dropped:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int):
            return self._lose(path, "NaN and infinity have no JSON form")
        if value.adjusted() > _MAX_EXPONENT:
            return self._lose(path, f"exceeds 1E+{_MAX_EXPONENT}, too large for JSON")
        if exponent >= 0:
            return int(value)
        return self.number(float(value), path, depth)

    def model(self, value: BaseModel, path: str, depth: int) -> Json | Dropped:
        if not self._enter(value, path, depth):
            return DROP
        try:
            # The dump is the object itself in another form, so it counts no level.
            fields = value.model_dump(mode="python", by_alias=True, warnings=False)
            return self._by_type(fields, path, depth)
        finally:
            self._active.discard(id(value))

    def _dataclass(self, value: Any, path: str, depth: int) -> Json | Dropped:
        items: list[tuple[str, Any]] = []
        for field in dataclasses.fields(value):
            try:
                items.append((field.name, getattr(value, field.name)))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # its own
                where = f"{path}.{field.name}"
                self._lose(where, f"reading it raised {type(error).__name__}")
        return self._object(value, items, path, depth)

    def mapping(
        self, value: Mapping[Any, Any], path: str, depth: int
    ) -> Json | Dropped:
        return self._object(value, value.items(), path, depth)

    def _object(
        self, owner: Any, items: Iterable[tuple[Any, Any]], path: str, depth: int
    ) -> Json | Dropped:
        if not self._enter(owner, path, depth):
            return DROP
        result: dict[str, Any] = {}
        try:
            for key, item in items:
                self._spend()
                where = f"{path}.{_label(key)}"
                name = self._key(key, where, result)
                if name is None:
                    continue
                converted = self.value(item, where, depth + 1)
                if converted is not DROP:
                    result[name] = converted
        finally:
            self._active.discard(id(owner))
        return result

    def _key(self, key: Any, path: str, taken: Collection[str]) -> str | None:
        # An Enum and its text come to one name: the first of them is kept.
        if isinstance(key, enum.Enum):
            key = key.value
        if not isinstance(key, str):
            self._lose(path, f"its key is a {type(key).__name__}, not text")
            return None
        name = str.__str__(key)
        if not is_encodable_text(name):
            self._lose(path, "its key holds a lone surrogate, which is not text")
        elif name in taken:
            self._lose(path, "another key has the same text")
        else:
            return name
        return None

    def array(self, value: Iterable[Any], path: str, depth: int) -> Json | Dropped:
        if not self._enter(value, path, depth):
            return DROP
        result: list[Any] = []
        try:
            for index, item in enumerate(value):
                self._spend()
                converted = self.value(item, f"{path}[{index}]", depth + 1)
                if converted is not DROP:
                    result.append(converted)
        finally:
            self._active.discard(id(value))
        return result

    def ordered(self, value: AbstractSet[Any], path: str, depth: int) -> Json | Dropped:
        result = self.array(value, path, depth)
        if isinstance(result, list):
            try:
                result.sort()
            except TypeError:
                # Mixed types have no order; the set's own is as good as any.
                return result
        return result

    def _enter(self, container: object, path: str, depth: int) -> bool:
        # By identity and only while inside: an object that comes twice is no circle.
        if id(container) in self._active:
            self._lose(path, "refers back to an object that contains it")
            return False
        if depth >= self._policy.max_depth:
            self._lose(path, f"nested deeper than {self._policy.max_depth} levels")
            return False
        self._active.add(id(container))
        return True

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooManyValuesError


def _label(key: object) -> str:
    """Name a key in a path so that it can always be printed."""
    if not isinstance(key, str):
        return f"<{type(key).__name__}>"
    return encodable_text(str.__str__(key)[:_MAX_LABEL])


_Convert: TypeAlias = Callable[[_Conversion, Any, str, int], Json | Dropped]

# The first match wins, so subclasses stand before their bases: an Enum may be a
# str, a datetime is a date, and text and bytes are sequences.
_RULES: Final[tuple[tuple[type | tuple[type, ...], _Convert], ...]] = (
    (enum.Enum, _Conversion.member),
    (str, _Conversion.text),
    (int, _Conversion.integer),
    (float, _Conversion.number),
    (dict, _Conversion.mapping),
    ((list, tuple, deque), _Conversion.array),
    ((date, time), _Conversion.iso),
    (timedelta, _Conversion.seconds),
    ((uuid.UUID, PurePath), _Conversion.text_of),
    (Decimal, _Conversion.decimal),
    ((bytes, bytearray, memoryview), _Conversion.no_form),
    (BaseModel, _Conversion.model),
    (AbstractSet, _Conversion.ordered),
    (Mapping, _Conversion.mapping),
    (Sequence, _Conversion.array),
    (Integral, _Conversion.integral),
    (Real, _Conversion.real),
)
