"""Lines on their way, in their order: what is known up to where."""

import asyncio
from collections import deque
from enum import Enum
from typing import Final

from amplitude_async.cli.send.source import Raw

__all__ = ["Fate", "Line", "Window"]

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


class Line:
    """One line on its way."""

    __slots__ = ("fate", "raw")

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.fate = Fate.OPEN


class Window:
    """The lines from the first one that is undecided on."""

    def __init__(self, line: int = 0) -> None:
        self.line = line
        """The outcome of this line and of all before it is known."""
        self.last: Raw | None = None
        self.counts = dict.fromkeys(Fate, 0)
        """Outcomes up to that line."""
        self.settled = 0
        """Outcomes in all, also of lines behind one that is undecided."""
        self._lines: deque[Line] = deque()
        self._open = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()

    @property
    def open(self) -> int:
        """How many lines are undecided."""
        return self._open

    @property
    def is_full(self) -> bool:
        """True where no further line should be taken."""
        return self._open >= _MOST or self._bytes >= _MOST_BYTES

    async def room(self) -> None:
        """Wait until there is room for a line."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    async def drained(self) -> None:
        """Wait until no line is undecided."""
        while self._open:
            self._empty.clear()
            await self._empty.wait()

    def take(self, raw: Raw) -> Line:
        """Take the next line in."""
        line = Line(raw)
        self._lines.append(line)
        self._open += 1
        self._bytes += len(raw.text)
        return line

    def settle(self, line: Line, fate: Fate) -> None:
        """Write down what became of a line."""
        if line.fate is not Fate.OPEN:
            return
        line.fate = fate
        self.settled += 1
        self._open -= 1
        self._bytes -= len(line.raw.text)
        if not self._room.is_set() and not self.is_full:
            self._room.set()
        if not self._open:
            self._empty.set()
        lines = self._lines
        while lines and lines[0].fate not in _UNKNOWN:
            done = lines.popleft()
            self.counts[done.fate] += 1
            self.line, self.last = done.raw.number, done.raw


_UNKNOWN: Final = frozenset({Fate.OPEN, Fate.LEFT})
