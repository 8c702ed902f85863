"""Lines on their way, in their order: what is known up to where."""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from amplitude_async.cli.send.source import Raw

__all__ = ["Fate", "Line", "Told", "Window"]

# More than the requests in flight can carry, and less than a client's memory holds.
_MOST: Final = 8_000
_MOST_BYTES: Final = 16_000_000


class Fate(Enum):
    """What became of a line."""

    OPEN = "open"
    BLANK = "blank"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    LEFT = "left"
    """Given up by this run: the next one sends it again."""


class Told(NamedTuple):
    """What became of an event, as it is told to a person."""

    fate: Fate
    reason: str = ""
    code: int = 0


class Line:
    """One line on its way."""

    __slots__ = ("fate", "raw", "token")

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.fate = Fate.OPEN
        self.token: Any = None
        """What the sender knows it by."""

    def hand_over(self, token: object) -> None:
        """Keep what the sender knows it by."""
        self.token = token

    def settle(self, fate: Fate) -> None:
        """Write down what became of it."""
        self.fate, self.token = fate, None


class Window:
    """The lines from the first one that is undecided on.

    Args:
        line: the outcome of this line and of all before it is known.
        look: says what became of a line, or None while that is open.
        tell: hears of each line that is decided, once.
    """

    def __init__(
        self,
        line: int,
        look: Callable[[Line], Told | None],
        tell: Callable[[Line, Told], None],
    ) -> None:
        self.line = line
        self.last: Raw | None = None
        """That line, where it is one of this run."""
        self.counts = dict.fromkeys(Fate, 0)
        """Outcomes up to that line."""
        self.settled = 0
        """Outcomes in all, also of lines behind one that is undecided."""
        self.open = 0
        """How many lines are undecided, as far as was looked."""
        self._look = look
        self._tell = tell
        self._lines: deque[Line] = deque()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """True where no further line should be taken before one is decided."""
        return self.open >= _MOST or self._bytes >= _MOST_BYTES

    def take(self, raw: Raw) -> Line:
        """Take the next line in."""
        line = Line(raw)
        self._lines.append(line)
        self.open += 1
        self._bytes += len(raw.text)
        return line

    def sweep(self) -> None:
        """Look at the oldest lines, up to the first one that is undecided."""
        lines = self._lines
        while lines:
            first = lines[0]
            if first.fate is Fate.OPEN:
                self._ask(first)
            if first.fate in _UNKNOWN:
                return
            lines.popleft()
            self.counts[first.fate] += 1
            self.line, self.last = first.raw.number, first.raw

    def sweep_all(self) -> None:
        """Look at all lines, as one that is held may have others behind it."""
        for line in self._lines:
            if line.fate is Fate.OPEN:
                self._ask(line)
        self.sweep()

    def _ask(self, line: Line) -> None:
        told = self._look(line)
        if told is not None:
            self.settle(line, told)

    def settle(self, line: Line, told: Told) -> None:
        """Write down what became of a line."""
        line.settle(told.fate)
        self.settled += 1
        self.open -= 1
        self._bytes -= len(line.raw.text)
        self._tell(line, told)


_UNKNOWN: Final = frozenset({Fate.OPEN, Fate.LEFT})
