"""Events that another process has left, and a wall clock that somebody sets."""

from collections.abc import Callable, Sequence

from amplitude_async.storage import MemoryStorage, Record
from amplitude_async.storage.base import Holdings
from amplitude_async.testing import FakeClock

__all__ = ["AdjustedClock", "LeftBehind"]


class AdjustedClock(FakeClock):
    """A clock whose wall reading somebody sets."""

    offset = 0.0

    def wall(self) -> float:
        """Read the wall clock, as it was set."""
        return super().wall() + self.offset


class LeftBehind(MemoryStorage):
    """A storage in which another process has left events of these ages."""

    durable = True
    wall = 0.0

    def __init__(self, ages: Sequence[float], *, tells: bool = True) -> None:
        self._ages = ages
        self._first = 0
        self._tells = tells

    async def open(self, _: str, allot: Callable[[int], int]) -> int:
        """Take them all over."""
        self._first = allot(len(self._ages))
        return len(self._ages)

    async def fetch(self, after: int, _: int, __: int) -> list[Record]:
        """Read them, each of a user of its own."""
        found = []
        for number, age in enumerate(self._ages, self._first):
            user, then = f"user-{number}", self.wall - age
            found.append(Record(number, b'{"e":1}', user, user, None, user, then))
        return [record for record in found if record.id > after]

    def holdings(self) -> Holdings:
        """Say when the oldest was accepted, if it does."""
        return Holdings(1, self.wall - max(self._ages)) if self._tells else Holdings()
