"""How many events came when, in as many bars as a chart has."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile

__all__ = ["BARS", "Timeline"]

BARS = 60
"""So many bars a chart has, and so many intervals are counted apart."""

# Seconds of a bar. Each is some of the one before, so that bars can be added up.
_STEPS = (1, 5, 10, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400)


class Timeline:
    """Counts events by the time of their arrival, exactly, in at most 60 intervals.

    The intervals are a second long, and longer as soon as what was counted is older
    than 60 of them. What is older than 60 days is forgotten.
    """

    __slots__ = ("_level", "_rejected", "_stored")

    def __init__(self) -> None:
        self._level = 0
        self._stored: Counter[int] = Counter()
        self._rejected: Counter[int] = Counter()

    @property
    def step(self) -> int:
        """Seconds of an interval."""
        return _STEPS[self._level]

    def add(self, at: float, *, stored: bool) -> None:
        """Count one event that came at a time."""
        place = int(at // self.step)
        # Most come when others came, and change no bounds.
        if place not in self._stored and place not in self._rejected:
            self._make_room(at)
            place = int(at // self.step)
        counted = self._stored if stored else self._rejected
        counted[place] += 1

    def last(self, now: float) -> int:
        """Return the number of the last bar, once all bars go as far as a time."""
        self._make_room(now)
        places = (*self._stored, *self._rejected, int(now // self.step))
        return max(places)

    def bars(self, step: int, last: int) -> tuple[list[int], list[int]]:
        """Return what was stored and what was not, in bars that are no shorter.

        Args:
            step: seconds of a bar, those of another timeline that holds this one.
            last: the number of the last bar.
        """
        stored = self._folded(self._stored, step, last)
        return stored, self._folded(self._rejected, step, last)

    def _folded(self, counted: Counter[int], step: int, last: int) -> list[int]:
        first, ratio = last - BARS + 1, max(1, step // self.step)
        bars = [0] * BARS
        for place, count in counted.items():
            at = place // ratio - first
            if 0 <= at < BARS:
                bars[at] += count
        return bars

    def _make_room(self, at: float) -> None:
        """Let intervals grow until one at a time fits in with all others."""
        places = (*self._stored, *self._rejected)
        if not places:
            return
        first = min(min(places) * self.step, at)
        last = max(max(places) * self.step, at)
        small = takewhile(lambda step: last // step - first // step >= BARS, _STEPS)
        level = max(self._level, min(len(list(small)), len(_STEPS) - 1))
        if level > self._level:
            ratio = _STEPS[level] // self.step
            self._stored = _joined(self._stored, ratio)
            self._rejected = _joined(self._rejected, ratio)
            self._level = level
        if last // self.step - first // self.step >= BARS:
            self._forget(int(last // self.step) - BARS)

    def _forget(self, until: int) -> None:
        for counted in (self._stored, self._rejected):
            for place in [one for one in counted if one <= until]:
                del counted[place]


def _joined(counted: Counter[int], ratio: int) -> Counter[int]:
    joined: Counter[int] = Counter()
    for place, count in counted.items():
        joined[place // ratio] += count
    return joined
