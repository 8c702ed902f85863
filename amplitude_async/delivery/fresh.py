"""Events that were accepted and are not scheduled: their queue, and their numbers."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

from amplitude_async.delivery.handle import whole_pages
from amplitude_async.storage.base import Record

__all__ = ["BulkQueue", "Numbers"]


class BulkQueue(asyncio.Queue[Record]):
    """An asyncio.Queue that is filled by one and emptied by the batch.

    Nobody waits in ``get``, so that nobody need be woken for an event. ``_init``,
    ``_get`` and ``_put`` are the overridable parts of ``asyncio.Queue``.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        self._records: deque[Record] = deque()
        self._weighed = (0, 0)
        self.since = 0.0
        """When the first of the waiting events came."""
        # Bound here, so that an event costs no Python call of the queue's own.
        self.add = self._records.append
        self.count = self._records.__len__

    def qsize(self) -> int:
        """Count the waiting events."""
        return len(self._records)

    def empty(self) -> bool:
        """Say whether none waits; the base class would look at a deque of its own."""
        return not self._records

    def _get(self) -> Record:
        return self._records.popleft()

    def _put(self, item: Record) -> None:
        self._records.append(item)

    @property
    def records(self) -> Sequence[Record]:
        """The waiting events, in order."""
        return self._records

    def take_below(self, limit: float) -> list[Record]:
        """Take the events out that have a lower id, up to the first that has not."""
        waiting = self._records
        if limit == math.inf:
            records = list(waiting)
            waiting.clear()
            return records
        records = []
        while waiting and waiting[0].id < limit:
            records.append(waiting.popleft())
        return records

    def begin(self, now: float) -> None:
        """Note when the first of them came."""
        self.since = now

    def weigh(self) -> int:
        """Sum the bytes of the waiting events; anew where their number changed."""
        count, size = self._weighed
        if count != len(self._records):
            size = sum([len(record.body) for record in self._records])
            self._weighed = len(self._records), size
        return size

    def remove(
        self, choose: Callable[[list[Record]], list[Record]] | None
    ) -> list[Record]:
        """Take the chosen ones out; without a choice all."""
        records = self.take_below(math.inf)
        removed = records if choose is None else choose(records)
        gone = {record.id for record in removed}
        self._records.extend(record for record in records if record.id not in gone)
        return removed

    def moved(self) -> "BulkQueue":
        """Make the same queue for another loop."""
        queue = BulkQueue()
        queue._records.extend(self._records)
        queue.since = self.since
        return queue


class Numbers:
    """Ids in order of acceptance."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = 1
        """The id of the next event that is accepted."""

    @property
    def last(self) -> int:
        """The id of the newest event."""
        return self.next - 1

    def take(self) -> int:
        """Give an id away, once."""
        number = self.next
        self.next = number + 1
        return number

    def allot(self, count: int) -> int:
        """Reserve ids for events of other processes; returns the first.

        They fill whole pages of the ledger: nobody holds a handle on them, and a page
        counts only events whose handle was given out.
        """
        first = whole_pages(self.last) + 1
        self.next = whole_pages(first + count - 1) + 1
        return first
