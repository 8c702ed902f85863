"""What is in a storage and not in memory: how much, and from where on."""

import asyncio
import math
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from amplitude_async.storage.base import Record

__all__ = ["Left", "Unread"]


class Left:
    """Events that were read and went back: the numbers of each throttled identity.

    Eight bytes for an event: an hour's events of one user may be among them.
    """

    def __init__(self) -> None:
        self._ids: dict[str, array[int]] = {}
        self.count = 0
        """Events of all identities."""

    def __contains__(self, identity: str) -> bool:
        return identity in self._ids

    def has(self, record: Record) -> bool:
        """Say whether a record is one of these."""
        ids = self._ids.get(record.identity)
        if ids is None:
            return False
        index = bisect_left(ids, record.id)
        return index < len(ids) and ids[index] == record.id

    def add(self, record: Record) -> None:
        """Note a record that goes back."""
        ids = self._ids.setdefault(record.identity, array("q"))
        if ids and record.id < ids[-1]:
            insort(ids, record.id)
        else:
            ids.append(record.id)
        self.count += 1

    def first_of(self, identity: str, most: int) -> Sequence[int]:
        """List the first numbers of an identity."""
        return self._ids.get(identity, array("q"))[:most]

    @property
    def first(self) -> int | None:
        """The lowest number of all; None where there is none."""
        return min((ids[0] for ids in self._ids.values()), default=None)

    def remove(self, identity: str, ids: Iterable[int]) -> int:
        """Strike numbers of an identity out; returns how many were there."""
        own = self._ids.get(identity)
        if own is None:
            return 0
        gone, length = set(ids), len(own)
        if gone.issuperset(own[: len(gone)]):
            # They mostly are the first: all others need not be looked at.
            del own[: len(gone)]
        else:
            own = array("q", [number for number in own if number not in gone])
            self._ids[identity] = own
        if not own:
            del self._ids[identity]
        removed = length - len(own)
        self.count -= removed
        return removed

    def clear(self) -> None:
        """Strike all of them out."""
        self._ids.clear()
        self.count = 0

    def __repr__(self) -> str:
        return f"<Left {self.count} of {len(self._ids)} identities>"


class Unread:
    """How far a storage was read, and what else of it is not in memory."""

    def __init__(self) -> None:
        self.cursor = 0
        """Id of the last record that was read, or went to memory as it was written."""
        self.ahead = 0
        """Records beyond it."""
        self._floor = math.inf
        self.unreadable = False
        """True where the last attempt to read on failed."""
        self.left = Left()
        """Records that were read and went back."""
        self.arrivals = 0
        self.missing = 0
        self.abandoned = False
        """True once the rest was left to the next process."""
        self.lock = asyncio.Lock()

    @property
    def count(self) -> int:
        """All that is in the storage and not in memory."""
        return self.ahead + self.left.count

    @property
    def start(self) -> int:
        """The id behind which all of it lies."""
        first = self.left.first
        return self.cursor if first is None else min(self.cursor, first - 1)

    def has(self, record: Record) -> bool:
        """Say whether a record of the storage is not in memory."""
        return record.id > self.cursor or self.left.has(record)

    @property
    def floor(self) -> float:
        """What has a higher id may not go yet: older events may be unread.

        Infinity where none is, or where nobody knows when one could be read.
        """
        return self._floor if self.ahead and not self.unreadable else math.inf

    def _lower_floor(self, record_id: float) -> None:
        self._floor = min(self._floor, record_id) if self.ahead else record_id

    def add(self, count: int, first: float) -> None:
        """Note records of other processes, and the first id of them."""
        self._lower_floor(first)
        self.ahead += count

    def leave(self, record_id: int) -> None:
        """Note that an appended record is in the storage only."""
        self._lower_floor(record_id)
        self.ahead += 1
        self.arrivals += 1

    def pass_by(self, record_id: int) -> None:
        """Note that an appended record is in memory too."""
        self.cursor = max(self.cursor, record_id)

    def read(self, last_id: int, count: int) -> None:
        """Note a page: so many of its records are in memory from now on."""
        self.cursor, self._floor = last_id, last_id + 1
        self.ahead -= count

    def decided(self, records: Iterable[Record]) -> None:
        """Note that records were decided where they lie."""
        left: dict[str, list[int]] = {}
        for record in records:
            if record.id > self.cursor:
                self.ahead -= 1
            else:
                left.setdefault(record.identity, []).append(record.id)
        for identity, ids in left.items():
            self.left.remove(identity, ids)

    def write_off(self) -> int:
        """Note that what should be ahead is not; returns how many."""
        lost, self.ahead = self.ahead, 0
        self.missing += lost
        return lost

    def abandon(self) -> int:
        """Leave everything to the next process; returns how many."""
        self.abandoned = True
        left, self.ahead = self.count, 0
        self.left.clear()
        return left

    def take_missing(self) -> int:
        """Say once how many records were written off."""
        missing, self.missing = self.missing, 0
        return missing

    def rebind(self) -> None:
        """Forget who was reading on a closed loop."""
        self.lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Unread {self.ahead} beyond {self.cursor}, {self.left!r}>"
