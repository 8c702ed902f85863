"""Two accounts that several deciders read: failures per event, held events. Pure."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from amplitude_async.delivery.outcome import Settlement
from amplitude_async.storage.base import Record

__all__ = ["Attempts", "Held"]


class _Past(NamedTuple):
    """What is remembered of an event whose request was not taken."""

    failures: int
    """Requests that it was part of and that came to nothing."""
    charges: int
    """Those among them that may be its own fault."""
    taken: int
    """How much the destination had taken, in all, when it failed last."""


_NEW = _Past(0, 0, -1)


class Attempts:
    """How often the requests of an event failed; most events are not in here.

    A failure is charged to an event only if the destination took something else since
    the event failed before: proof that the event may be at fault, and not the server.
    """

    __slots__ = ("_max_batch_size", "_pasts", "charged")

    def __init__(self, max_batch_size: int) -> None:
        self._pasts: dict[int, _Past] = {}
        self._max_batch_size = max_batch_size
        self.charged = 0
        """Undecided events that were charged: they travel in smaller company."""

    def __bool__(self) -> bool:
        return bool(self._pasts)

    def failures(self, record: Record) -> int:
        """Count the requests of an event that came to nothing."""
        return self._pasts.get(record.id, _NEW).failures

    def charges(self, record: Record) -> int:
        """Count those that may be the event's own fault."""
        return self._pasts.get(record.id, _NEW).charges

    def fail(self, record: Record, taken: int, *, broken: bool) -> bool:
        """Enter a request that came to nothing; returns whether the event is charged.

        Args:
            record: an event of the request.
            taken: requests that the destination took so far.
            broken: the request broke; False where the destination was busy.
        """
        past = self._pasts.get(record.id, _NEW)
        charged = broken and 0 <= past.taken < taken
        self.charged += charged and not past.charges
        # What a busy server says is no evidence: it moves no mark.
        mark = taken if broken else past.taken
        self._pasts[record.id] = _Past(past.failures + 1, past.charges + charged, mark)
        return charged

    def forget(self, settlements: Iterable[Settlement]) -> None:
        """Drop the past of events whose fate is decided."""
        if self._pasts:
            self.forget_records(record for record, _ in settlements)

    def forget_records(self, records: Iterable[Record]) -> None:
        """Drop the past of events that are somebody else's from now on."""
        for record in records:
            past = self._pasts.pop(record.id, _NEW)
            self.charged -= past.charges > 0

    def size_limit(self, record: Record) -> int:
        """Most events that may travel with an event: halved at each charge.

        So a poisonous event cannot take its neighbours with it.
        """
        return max(1, self._max_batch_size >> self.charges(record))

    def size_limit_of(self, records: Iterable[Record]) -> int:
        """Most events that may travel with the one of them that was charged most."""
        return min(map(self.size_limit, records), default=self._max_batch_size)

    def __repr__(self) -> str:
        return f"<Attempts {len(self._pasts)} failed before, {self.charged} charged>"


# Where a storage has the rest, one identity of several holds so much of the room.
SHARES = 8
LEAST_SHARE = 30


class Held:
    """How many events of throttled identities wait, and how many may."""

    __slots__ = ("_most", "_most_bytes", "bytes", "count")

    def __init__(self, most: int, most_bytes: float = math.inf) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = 0
        self.bytes = 0

    @property
    def room(self) -> int:
        """How many more events may be held."""
        if self.bytes >= self._most_bytes:
            return 0
        return max(0, self._most - self.count)

    @property
    def spare(self) -> float:
        """How many more bytes may be held; the last event may exceed them."""
        return max(0, self._most_bytes - self.bytes)

    @property
    def share(self) -> int:
        """How many events one of several identities should hold."""
        return max(LEAST_SHARE, self._most // SHARES)

    def fitting(self, records: Sequence[Record], most: int) -> int:
        """Say how many of these, from the first on, may be held too."""
        most, spare = min(len(records), most, self.room), self.spare
        for index in range(most):
            if spare <= 0:
                return index
            spare -= len(records[index].body)
        return most

    @property
    def overfull(self) -> bool:
        """True where more events are held than may be."""
        return self.count > self._most

    def change(self, events: int, size: int = 0) -> None:
        """Enter events that a lane took in, or gave up where the number is negative."""
        self.count += events
        self.bytes += size

    def __repr__(self) -> str:
        return f"<Held {self.count} of {self._most}>"
