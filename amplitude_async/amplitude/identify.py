"""Operations on user and group properties.

Amplitude Identify API documentation, section "User property operations".
"""

import logging
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from amplitude_async.shown import shown

__all__ = ["Identify"]

_LOGGER: Final = logging.getLogger("amplitude_async")

_CLEAR_ALL: Final = "$clearAll"

# The value of an operation that has none.
_NO_VALUE: Final = "-"

# The order in which the server applies the operations of one event.
_SERVER_ORDER: Final = (
    _CLEAR_ALL,
    "$unset",
    "$set",
    "$setOnce",
    "$add",
    "$append",
    "$prepend",
    "$preInsert",
    "$postInsert",
    "$remove",
)

# Deeper than anything that is sent; what lies below is cut by the encoder.
_MAX_COPY_DEPTH: Final = 64


class Identify(BaseModel):
    """A set of property operations, built by chaining.

    ``Identify().set("plan", "pro").add("logins", 1)``

    The first operation on a property wins: a later one is ignored with a warning.
    `clear_all` stands alone, whatever comes before or after it. Values are copied,
    so changing a list afterwards changes nothing here.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:

        def __init__(self, *args: Any, **fields: Any) -> None:
            # First: whoever prints the locals of the error prints this object.
            super().__init__()
            if args or fields:
                msg = (
                    "Identify takes no arguments: chain operations such as "
                    "Identify().set('plan', 'pro')"
                )
                raise TypeError(msg)

    # Replaced, never changed in place: a copy of the model may share it.
    _operations: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _clears_all: bool = PrivateAttr(default=False)

    def set(self, key: str, value: Any) -> Self:
        """Set a property, whatever it was before."""
        return self._operate("$set", key, value)

    def set_once(self, key: str, value: Any) -> Self:
        """Set a property that has no value yet."""
        return self._operate("$setOnce", key, value)

    def add(self, key: str, value: float | Decimal) -> Self:
        """Add a number to a property; a missing one counts as 0.

        Raises:
            ValueError: The value is not a finite number.
        """
        is_number = isinstance(value, int | float | Decimal)
        if not is_number or isinstance(value, bool) or not _is_finite(value):
            raise ValueError(
                f"add({shown(key)}): value should be a finite number, not "
                f"{shown(value)}: "
                "use set() for other values"
            )
        return self._operate("$add", key, value)

    def append(self, key: str, value: Any) -> Self:
        """Put a value, or each of a list, at the end of a list property."""
        return self._operate("$append", key, value)

    def prepend(self, key: str, value: Any) -> Self:
        """Put a value, or each of a list, at the start of a list property."""
        return self._operate("$prepend", key, value)

    def pre_insert(self, key: str, value: Any) -> Self:
        """Put values that are not in a list property yet at its start."""
        return self._operate("$preInsert", key, value)

    def post_insert(self, key: str, value: Any) -> Self:
        """Put values that are not in a list property yet at its end."""
        return self._operate("$postInsert", key, value)

    def remove(self, key: str, value: Any) -> Self:
        """Take a value, or each of a list, out of a list property."""
        return self._operate("$remove", key, value)

    def unset(self, key: str) -> Self:
        """Delete a property."""
        return self._operate("$unset", key, _NO_VALUE)

    def clear_all(self) -> Self:
        """Delete every property; discards the other operations with a warning."""
        if self._operations:
            _LOGGER.warning(
                "clear_all() discards the %d operations before it", self._count()
            )
        self._operations = {}
        self._clears_all = True
        return self

    @property
    def properties(self) -> dict[str, Any]:
        """The operations as they go on the wire, in the server's order.

        A new dict each time.
        """
        if self._clears_all:
            return {_CLEAR_ALL: _NO_VALUE}
        operations = self._operations
        return {op: _copied(operations[op]) for op in _SERVER_ORDER if op in operations}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not self._operations and not self._clears_all

    def _operate(self, operation: str, key: str, value: Any) -> Self:
        key = _checked_key(operation, key)
        if self._clears_all:
            _LOGGER.warning(
                "%s of %s ignored: clear_all() stands alone", operation, shown(key)
            )
            return self
        for earlier, values in self._operations.items():
            if key in values:
                _LOGGER.warning(
                    "%s of %s ignored: %s of it came first",
                    operation,
                    shown(key),
                    earlier,
                )
                return self
        values = {**self._operations.get(operation, {}), key: _copied(value)}
        self._operations = {**self._operations, operation: values}
        return self

    def _count(self) -> int:
        return sum(len(values) for values in self._operations.values())

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Counts only: values may be personal.
        if self._clears_all:
            return [(_CLEAR_ALL, 1)]
        return [(op, len(values)) for op, values in self._operations.items()]


def _is_finite(value: float | Decimal) -> bool:
    try:
        return isfinite(value)
    except (OverflowError, ValueError):
        return False  # beyond a float, or a NaN that may not be looked at


def _checked_key(operation: str, key: object) -> str:
    if not isinstance(key, str) or not key:
        raise ValueError(
            f"{operation}: key should be a text of at least one character, "
            f"not {shown(key)}: name the property to change"
        )
    # The plain text of a member of a str Enum.
    return str.__str__(key)


def _copied(value: Any, depth: int = 0, copies: dict[int, Any] | None = None) -> Any:
    """Copy plain containers at every level and keep all other objects.

    Each container is copied once, so circles stay circles.
    """
    copies = {} if copies is None else copies
    kind = type(value)
    if kind not in (dict, list, tuple, set) or depth > _MAX_COPY_DEPTH:
        return value
    if id(value) in copies:
        return copies[id(value)]
    if kind is dict:
        members: dict[Any, Any] = {}
        copies[id(value)] = members
        members.update((k, _copied(v, depth + 1, copies)) for k, v in value.items())
        return members
    if kind is list:
        items: list[Any] = []
        copies[id(value)] = items
        items.extend(_copied(item, depth + 1, copies) for item in value)
        return items
    return kind(_copied(item, depth + 1, copies) for item in value)
