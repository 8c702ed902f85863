"""What is lost on the way to JSON, where it was, and how much the way may cost."""

import enum
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from amplitude_async.shown import kind_of, printable

__all__ = [
    "DROP",
    "MAX_WORK",
    "MOST_LOSSES",
    "Budget",
    "Dropped",
    "Json",
    "Key",
    "Limits",
    "Loss",
    "Path",
    "TooLargeError",
    "in_words",
    "is_encodable_text",
]

Json: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any] | None

MOST_LOSSES: Final = 20
"""So many losses are told one by one, the rest by their number."""

MAX_WORK: Final = 100_000
"""So many plain values, or a tenth of others, are looked at in a field that is no JSON.

A request has room for more; but the event loop waits for all of them, a microsecond or
two for each that has to be converted.
"""

_STEP: Final = 10

# Paths go into warnings, where a key of a megabyte has no place.
_MAX_LABEL: Final = 80
_MAX_PATH: Final = 160


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

    count: int = 1
    """More than one where the rest of many losses are told by their number."""

    too_large: bool = False
    """True where no request could hold the value: the event is lost with it."""


# Where a value is: the path of its container, and the key or index in it. A pair, since
# one is made for each value; in words only where somebody asks.
Path: TypeAlias = tuple["Path | None", object]


class Key(NamedTuple):
    """A key that may be anything, apart from an index."""

    key: object


def in_words(path: Path) -> str:
    """Spell a path out, cut in the middle where it is long."""
    labels: list[str] = []
    here: Path | None = path
    while here is not None:
        here, step = here
        labels.append(_label(step))
    words = "".join(reversed(labels)).removeprefix(".")
    if len(words) <= _MAX_PATH:
        return words
    half = (_MAX_PATH - 3) // 2
    return f"{words[:half]}...{words[-half:]}"


def _label(step: object) -> str:
    """Name a key or an index so that it can always be printed."""
    if isinstance(step, int):
        return f"[{step}]"
    key = step.key if isinstance(step, Key) else step
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return f".{printable(str.__str__(key)[:_MAX_LABEL])}"
    return f".<{kind_of(key)}>"


def is_encodable_text(text: str) -> bool:
    """Tell whether a string has a UTF-8 form, that is, holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Limits(NamedTuple):
    """What a value must keep to; `encoding.ValuePolicy` explains each."""

    max_depth: int
    max_string: int | None
    max_bytes: int


class TooLargeError(Exception):
    """The value cannot be sent, or not without holding up the loop."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.loss = Loss(in_words(path), reason, too_large=True)


class Budget:
    """What the conversion of one field may cost, and what is lost in it."""

    __slots__ = ("_bytes", "_losses", "_max_bytes", "_untold", "_work")

    def __init__(self, max_bytes: int, losses: list[Loss]) -> None:
        self._max_bytes = max_bytes
        self._losses = losses
        self._bytes = max_bytes
        self._work = MAX_WORK
        self._untold = 0

    def step(self, path: Path, work: int = _STEP) -> None:
        """Take note that something has to be converted, or of plain values."""
        self._work -= work
        if self._work < 0:
            raise TooLargeError(
                path,
                f"makes its field too much to convert: {MAX_WORK // _STEP:,} values "
                f"that are no plain JSON, or {MAX_WORK:,} that are, may be in one",
            )

    def spend(self, size: int, path: Path) -> None:
        """Take note of bytes of JSON, of which there may be more, but not fewer."""
        self._bytes -= size
        if self._bytes < 0:
            most = self._max_bytes
            raise TooLargeError(path, f"brings the field to more than {most:,} bytes")

    def lose(self, path: Path, reason: str) -> Dropped:
        """Take note of a loss."""
        if len(self._losses) < MOST_LOSSES:
            self._losses.append(Loss(in_words(path), reason))
        else:
            self._untold += 1
        return DROP

    def sum_up(self, name: str) -> None:
        """Tell by their number the losses that were not told one by one."""
        if self._untold:
            reason = f"{self._untold:,} more values were lost"
            self._losses.append(Loss(name, reason, self._untold))
