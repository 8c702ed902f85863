"""Lines on their way, in their order: what is known up to where."""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from amplitude_async.cli.send.source import Raw

__all__ = ["Fate", "Line", "Past", "Told", "Window"]

# More than the requests in flight can carry, and less than a client's memory holds.
_MOST: Final = 8_000
_MOST_BYTES: Final = 16_000_000
# So many may wait for one that is undecided, before those that are decided are merged.
_LOOSE: Final = 10_000


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


class Past:
    """Lines in a row that are decided, behind one that is not: counted, not kept."""

    __slots__ = ("counts", "last")

    def __init__(self) -> None:
        self.counts: dict[Fate, int] = {}
        self.last = Raw(0, b"", 0)

    def add(self, line: Line) -> None:
        """Count one more."""
        self.counts[line.fate] = self.counts.get(line.fate, 0) + 1
        self.last = line.raw

    def join(self, other: "Past") -> None:
        """Count those of another one, which comes right after."""
        for fate, count in other.counts.items():
            self.counts[fate] = self.counts.get(fate, 0) + count
        self.last = other.last


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
        self.all = dict.fromkeys(Fate, 0)
        """Outcomes in all, also of lines behind one that is undecided."""
        self.open = 0
        """How many lines are undecided, as far as was looked."""
        self._look = look
        self._tell = tell
        self._lines: deque[Line | Past] = deque()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """True where no further line should be taken before one is decided."""
        return self.open >= _MOST or self._bytes >= _MOST_BYTES

    @property
    def settled(self) -> int:
        """How many lines are decided."""
        return sum(self.all.values())

    @property
    def kept(self) -> int:
        """How many lines, or rows of them, are kept."""
        return len(self._lines)

    def take(self, raw: Raw) -> Line:
        """Take the next line in."""
        line = Line(raw)
        self._lines.append(line)
        self.open += 1
        self._bytes += len(raw.text)
        return line

    def sweep(self) -> None:
        """Look at the oldest lines, up to the first one that is undecided."""
        lines, counts = self._lines, self.counts
        while lines:
            first = lines[0]
            if isinstance(first, Past):
                for fate, count in first.counts.items():
                    counts[fate] += count
                self.line, self.last = first.last.number, first.last
                lines.popleft()
                continue
            if first.fate is Fate.OPEN:
                self._ask(first)
            if first.fate in _UNKNOWN:
                return
            lines.popleft()
            counts[first.fate] += 1
            self.line, self.last = first.raw.number, first.raw

    def sweep_all(self) -> None:
        """Look at all lines, as one that is held may have others behind it."""
        for line in self._lines:
            if isinstance(line, Line) and line.fate is Fate.OPEN:
                self._ask(line)
        self.sweep()
        if len(self._lines) > _LOOSE:
            self._gather()

    def _gather(self) -> None:
        """Keep nothing of decided lines but their number.

        One event that is held for long has the whole rest of a file behind it.
        """
        gathered: deque[Line | Past] = deque()
        past: Past | None = None
        for line in self._lines:
            if isinstance(line, Line) and line.fate in _UNKNOWN:
                gathered.append(line)
                past = None
                continue
            if past is None:
                past = Past()
                gathered.append(past)
            if isinstance(line, Past):
                past.join(line)
            else:
                past.add(line)
        self._lines = gathered

    def _ask(self, line: Line) -> None:
        told = self._look(line)
        if told is not None:
            self.settle(line, told)

    def settle(self, line: Line, told: Told) -> None:
        """Write down what became of a line."""
        line.settle(told.fate)
        self.all[told.fate] += 1
        self.open -= 1
        self._bytes -= len(line.raw.text)
        self._tell(line, told)


_UNKNOWN: Final = frozenset({Fate.OPEN, Fate.LEFT})
