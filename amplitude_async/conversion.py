"""Makes JSON of values that are none, within a budget; `encoding` has the policy.

Whoever chose the value may mean harm. So nothing here costs more than the budget of
bytes and of steps allows: sizes are added up before anything is copied or encoded, and
a path is put into words only where it is told.
"""

import asyncio
import dataclasses
import enum
import uuid
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Final, TypeAlias, TypeVar, cast

from pydantic import BaseModel

from amplitude_async.losses import (
    DROP,
    Budget,
    Dropped,
    Json,
    Key,
    Limits,
    Loss,
    Path,
    TooLargeError,
    is_encodable_text,
)
from amplitude_async.shown import kind_of

__all__ = ["MAX_BITS", "SMALL_INT", "convert"]

_StepT = TypeVar("_StepT", str, int)


MAX_BITS: Final = 1024
"""An int of more bits is beyond a double, the number type of most JSON readers."""

SMALL_INT: Final = 2**63
"""Ints below it, and above its negative, need no second look."""

_LEAST_INT: Final = -SMALL_INT

# The same bound, as an exponent of ten: a Decimal is measured before it becomes an int.
_MAX_EXPONENT: Final = 308

_NOT_FINITE: Final = "NaN and infinity have no JSON form"


def convert(
    value: object, path: str, limits: Limits, losses: list[Loss]
) -> Json | Dropped:
    """Copy a value into the types of JSON; never raises, never changes it.

    Args:
        value: Anything.
        path: The name of the value in `losses`.
        limits: What it must keep to.
        losses: Receives an entry for each key that was lost or cut; beyond twenty of
            them one entry with their number.

    Returns:
        A copy that shares no container with `value`, or `DROP`.
    """
    budget = Budget(limits.max_bytes, losses)
    try:
        return _Conversion(limits, budget).value(value, (None, path), 0)
    except TooLargeError as error:
        losses.append(error.loss)
        return DROP
    finally:
        budget.sum_up(path)


class _Conversion:
    """One walk through a value that may hold anything."""

    __slots__ = ("_active", "_budget", "_limits")

    def __init__(self, limits: Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._active: set[int] = set()

    def value(self, value: Any, path: Path, depth: int) -> Json | Dropped:
        """Convert a value that lies inside `depth` containers."""
        try:
            return self._by_type(value, path, depth)
        except TooLargeError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
            return self._budget.lose(path, f"its conversion raised {kind_of(error)}")

    def _by_type(self, value: Any, path: Path, depth: int) -> Json | Dropped:
        kind = type(value)
        # What comes by the thousand costs bytes, but no step.
        if value is None or kind is bool:
            atom: Json = value
            return atom
        if kind is str:
            return self.text(value, path, depth)
        if kind is int:
            return self.integer(value, path, depth)
        if kind is float:
            return self.number(value, path, depth)
        self._budget.step(path)
        known = _RULE_OF.get(kind)
        if known is not None:
            return known(self, value, path, depth)
        for types, convert in _RULES:
            if isinstance(value, types):
                return convert(self, value, path, depth)
        # A class that is a dataclass is no instance of one.
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, path, depth)
        return self.array_scalar(value, path, depth)

    # Scalars -----------------------------------------------------------------

    def no_form(self, value: object, path: Path, _depth: int) -> Dropped:
        return self._budget.lose(path, f"a {kind_of(value)} has no JSON form")

    def text(self, value: str, path: Path, _depth: int) -> Json | Dropped:
        # Not str(): a subclass may print something else than it holds.
        text = value if type(value) is str else str.__str__(value)
        longest = self._limits.max_string
        is_cut = longest is not None and len(text) > longest
        if is_cut:
            text = text[:longest]
        if len(text) > self._limits.max_bytes:
            raise TooLargeError(path, f"has {len(text):,} characters")
        self._budget.spend(len(text), path)
        if not self._is_encodable(text, path):
            return self._budget.lose(
                path, "holds a lone surrogate, which is not Unicode text"
            )
        if is_cut:
            self._budget.lose(path, f"cut to {longest} characters")
        return text

    def _is_encodable(self, text: str, path: Path) -> bool:
        if is_encodable_text(text):
            return True
        # Finding out was an exception, the dearest of all checks.
        self._budget.step(path)
        return False

    def text_of(self, value: object, path: Path, depth: int) -> Json | Dropped:
        return self.text(str(value), path, depth)

    def iso(self, value: date | time, path: Path, depth: int) -> Json | Dropped:
        # Like NaN, what pandas has for "no time" is a datetime that equals nothing.
        if value != value:  # noqa: PLR0124
            return self.no_form(value, path, depth)
        return self.text(value.isoformat(), path, depth)

    def seconds(self, value: timedelta, _path: Path, _depth: int) -> float:
        return value.total_seconds()

    def member(self, value: enum.Enum, path: Path, depth: int) -> Json | Dropped:
        return self._by_type(value.value, path, depth)

    def integer(self, value: int, path: Path, _depth: int) -> Json | Dropped:
        number = int.__int__(value)
        bits = number.bit_length()
        # Three bits or a little more to a digit.
        self._budget.spend(min(bits, MAX_BITS) * 3 // 10, path)
        if bits > MAX_BITS:
            return self._budget.lose(
                path, f"exceeds 1E+{_MAX_EXPONENT}, too large for JSON"
            )
        return number

    def number(self, value: float, path: Path, _depth: int) -> Json | Dropped:
        number = float.__float__(value)
        if isfinite(number):
            return number
        return self._budget.lose(path, _NOT_FINITE)

    def integral(self, value: Integral, path: Path, depth: int) -> Json | Dropped:
        if _is_array_scalar(value):
            return self.array_scalar(value, path, depth)
        return self.integer(int(value), path, depth)

    def real(self, value: Real, path: Path, depth: int) -> Json | Dropped:
        return self.number(float(value), path, depth)

    def decimal(self, value: Decimal, path: Path, depth: int) -> Json | Dropped:
        if not value.is_finite():
            return self._budget.lose(path, _NOT_FINITE)
        # Before it becomes an int, which may have a million digits.
        if value.adjusted() > _MAX_EXPONENT:
            return self._budget.lose(
                path, f"exceeds 1E+{_MAX_EXPONENT}, too large for JSON"
            )
        _, digits, exponent = value.as_tuple()
        # All of them are read, whatever is left of them in a float.
        self._budget.spend(len(digits), path)
        if isinstance(exponent, int) and exponent >= 0:
            return self.integer(int(value), path, depth)
        return self.number(float(value), path, depth)

    def array_scalar(self, value: Any, path: Path, depth: int) -> Json | Dropped:
        """Convert one element of an array library by what its ``item()`` gives."""
        if not _is_array_scalar(value):
            return self.no_form(value, path, depth)
        item = value.item()
        # A moment or a duration whose unit is too fine for Python comes as a count of
        # that unit, and nobody could tell which.
        is_count = value.dtype.kind in "mM" and isinstance(item, int)
        if is_count or _is_array_scalar(item):
            return self.no_form(value, path, depth)
        return self._by_type(item, path, depth)

    # Containers --------------------------------------------------------------

    def model(self, value: BaseModel, path: Path, depth: int) -> Json | Dropped:
        if not self._enter(value, path, depth):
            return DROP
        try:
            # The dump is the object itself in another form, so it counts no level.
            fields = value.model_dump(mode="python", by_alias=True, warnings=False)
            return self._by_type(fields, path, depth)
        finally:
            self._active.discard(id(value))

    def _dataclass(self, value: Any, path: Path, depth: int) -> Json | Dropped:
        items: list[tuple[str, Any]] = []
        for field in dataclasses.fields(value):
            try:
                items.append((field.name, getattr(value, field.name)))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
                where = (path, field.name)
                self._budget.lose(where, f"reading it raised {kind_of(error)}")
        return self._object(value, items, path, depth)

    def mapping(
        self, value: Mapping[Any, Any], path: Path, depth: int
    ) -> Json | Dropped:
        if type(value) is dict:
            # The least it comes to: nobody walks through what is too large anyway.
            self._budget.spend(5 * len(value), path)
            self._budget.step(path, len(value))
            return self._object(value, value.items(), path, depth)
        return self._object(value, self._watched(value.items(), path), path, depth)

    def _object(
        self, owner: Any, items: Iterable[tuple[Any, Any]], path: Path, depth: int
    ) -> Json | Dropped:
        if not self._enter(owner, path, depth):
            return DROP
        result: dict[str, Any] = {}
        try:
            # One after the other: a name that was lost may come again.
            result.update(self._each(self._named(items, path, result), path, depth))
        finally:
            self._active.discard(id(owner))
        return result

    def _named(
        self, items: Iterable[tuple[Any, Any]], path: Path, taken: Collection[str]
    ) -> Iterator[tuple[str, Any]]:
        """Give the items whose keys are names that no other has."""
        for key, item in items:
            # An Enum and its text come to one name: the first of them is kept.
            text = key.value if isinstance(key, enum.Enum) else key
            if not isinstance(text, str):
                self._budget.lose(
                    (path, Key(key)), f"its key is a {kind_of(text)}, not text"
                )
                continue
            name = text if type(text) is str else str.__str__(text)
            self._budget.spend(len(name), path)
            if not self._is_encodable(name, path):
                problem = "its key holds a lone surrogate, which is not text"
            elif name in taken:
                problem = "another key has the same text"
            else:
                yield name, item
                continue
            self._budget.lose((path, Key(key)), problem)

    def array(self, value: Iterable[Any], path: Path, depth: int) -> Json | Dropped:
        if not self._enter(value, path, depth):
            return DROP
        owner = id(value)
        if type(value) in {list, tuple}:
            plain = cast("Sequence[Any]", value)
            self._budget.spend(2 * len(plain), path)
            self._budget.step(path, len(plain))
        else:
            value = self._watched(value, path)
        try:
            return [item for _, item in self._each(enumerate(value), path, depth)]
        finally:
            self._active.discard(owner)

    def _each(
        self, items: Iterable[tuple[_StepT, Any]], path: Path, depth: int
    ) -> Iterator[tuple[_StepT, Json]]:
        """Convert what a container holds; what comes by the thousand at once."""
        longest = self._limits.max_string or self._limits.max_bytes
        for step, item in items:
            kind = type(item)
            if kind is str:
                if len(item) <= longest and item.isascii():
                    self._budget.spend(len(item), path)
                    yield step, item
                    continue
            elif kind is int:
                if _LEAST_INT < item < SMALL_INT:
                    yield step, item
                    continue
            elif kind is float:
                if isfinite(item):
                    yield step, item
                else:
                    self._budget.lose((path, step), _NOT_FINITE)
                continue
            elif kind is bool or item is None:
                yield step, item
                continue
            converted = self.value(item, (path, step), depth + 1)
            if converted is not DROP:
                yield step, converted

    def _watched(self, items: Iterable[Any], path: Path) -> Iterable[Any]:
        """Count a step for each item: what gives them may never come to an end."""
        for item in items:
            self._budget.step(path)
            self._budget.spend(2, path)
            yield item

    def ordered(
        self, value: AbstractSet[Any], path: Path, depth: int
    ) -> Json | Dropped:
        result = self.array(value, path, depth)
        if isinstance(result, list):
            try:
                result.sort()
            except TypeError:
                # Mixed types have no order; the set's own is as good as any.
                return result
        return result

    def _enter(self, container: object, path: Path, depth: int) -> bool:
        # By identity and only while inside: an object that comes twice is no circle.
        if id(container) in self._active:
            self._budget.lose(path, "refers back to an object that contains it")
            return False
        if depth >= self._limits.max_depth:
            reason = f"nested deeper than {self._limits.max_depth} levels"
            self._budget.lose(path, reason)
            return False
        self._active.add(id(container))
        return True


def _is_array_scalar(value: Any) -> bool:
    """Tell an element of numpy and its kin: no rule of Python's names their classes."""
    return (
        not isinstance(value, type)
        and getattr(value, "shape", None) == ()
        and hasattr(value, "dtype")
        and callable(getattr(value, "item", None))
    )


_Convert: TypeAlias = Callable[[_Conversion, Any, Path, int], Json | Dropped]

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

# What most values are, found at once: asking abstract classes takes microseconds.
_RULE_OF: Final[dict[type, _Convert]] = {
    dict: _Conversion.mapping,
    list: _Conversion.array,
    tuple: _Conversion.array,
    set: _Conversion.ordered,
    frozenset: _Conversion.ordered,
    datetime: _Conversion.iso,
    date: _Conversion.iso,
    time: _Conversion.iso,
    timedelta: _Conversion.seconds,
    uuid.UUID: _Conversion.text_of,
    Decimal: _Conversion.decimal,
    bytes: _Conversion.no_form,
}
