"""All that arrived in one order, whatever became of it."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import attrgetter
from threading import RLock

from .kept import Kept
from .seen import Seen

__all__ = ["Log"]

_number = attrgetter("number")


class Log:
    """Reads what is kept in several places as if it were one.

    Args:
        lock: held by whoever writes there.
        kept: the places; each is in order of arrival.
    """

    def __init__(self, lock: RLock, kept: Sequence[Kept[Seen]]) -> None:
        self._lock = lock
        self._kept = kept

    @property
    def oldest(self) -> int:
        """The lowest number kept, 0 where nothing is."""
        with self._lock:
            firsts = [kept.items[0].number for kept in self._kept if kept.items]
        return min(firsts, default=0)

    @property
    def forgotten(self) -> int:
        """How many of them are no longer kept."""
        return sum(kept.forgotten for kept in self._kept)

    def newest(self, after: int, most: int) -> list[Seen]:
        """Return what has come after a number, in order, the newest of each kind."""
        found: list[Seen] = []
        with self._lock:
            for kept in self._kept:
                for seen in islice(reversed(kept.items), most):
                    if seen.last_number <= after:
                        break
                    found.append(seen)
        found.sort(key=_number)
        return found

    def since(self, after: int) -> Iterator[Seen]:
        """Return what is kept now of what came after a number, in order."""
        return heapq.merge(*self._parts(after), key=_number)

    def before(self, number: int | None) -> Iterator[Seen]:
        """Return what is kept now of what came before a number, the newest first."""
        parts = []
        for part in self._parts(0):
            at = (
                len(part) if number is None else bisect_right(part, number, key=_number)
            )
            parts.append(islice(reversed(part), len(part) - at, None))
        return heapq.merge(*parts, key=_number, reverse=True)

    def find(self, number: int) -> Seen | None:
        """Return what has this number, or holds the event that has it."""
        for part in self._parts(0):
            at = bisect_right(part, number, key=_number)
            if at and number <= part[at - 1].last_number:
                return part[at - 1]
        return None

    def _parts(self, after: int) -> list[list[Seen]]:
        with self._lock:
            parts = [list(kept.items) for kept in self._kept]
        return [part[bisect_right(part, after, key=_number) :] for part in parts]
