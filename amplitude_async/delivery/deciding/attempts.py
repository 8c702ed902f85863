"""Two accounts that several deciders read: failures per event, held events. Pure."""

from collections.abc import Iterable

from amplitude_async.delivery.outcome import Settlement
from amplitude_async.storage.base import Record

__all__ = ["Attempts", "Held"]


class Attempts:
    """How often the request of an event has failed; most events are not in here."""

    __slots__ = ("_failures", "_max_batch_size")

    def __init__(self, max_batch_size: int) -> None:
        self._failures: dict[int, int] = {}
        self._max_batch_size = max_batch_size

    def __bool__(self) -> bool:
        return bool(self._failures)

    def of(self, record: Record) -> int:
        """Count the failed requests of an event."""
        return self._failures.get(record.id, 0)

    def charge(self, record: Record) -> int:
        """Count one more failed request; returns how many there were."""
        failures = self._failures[record.id] = self.of(record) + 1
        return failures

    def forget(self, settlements: Iterable[Settlement]) -> None:
        """Drop the count of events whose fate is decided."""
        if self._failures:
            for record, _ in settlements:
                self._failures.pop(record.id, None)

    def size_limit(self, record: Record) -> int:
        """Most events that may travel with an event that failed before.

        Halved at each failure, so that one poisonous event cannot take its neighbours
        with it.
        """
        return max(1, self._max_batch_size >> self.of(record))

    def size_limit_of(self, records: Iterable[Record]) -> int:
        """Most events that may travel with the one of them that failed most often."""
        return min(map(self.size_limit, records), default=self._max_batch_size)

    def __repr__(self) -> str:
        return f"<Attempts {len(self._failures)} events failed before>"


class Held:
    """How many events of throttled identities wait, and how many may."""

    __slots__ = ("_most", "count")

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    @property
    def room(self) -> int:
        """How many more events may be held."""
        return max(0, self._most - self.count)

    def change(self, events: int) -> None:
        """Enter events that a lane took in, or gave up where the number is negative."""
        self.count += events

    def __repr__(self) -> str:
        return f"<Held {self.count} of {self._most}>"
