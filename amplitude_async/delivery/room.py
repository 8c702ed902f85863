"""How full are we: bounds of count and bytes, promised places, who waits in line."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.storage.base import Record

__all__ = ["Room"]


class Room:
    """The places of undecided events in memory: queued, parked, held and in flight."""

    def __init__(self, capacity: int, max_bytes: int, clock: Clock) -> None:
        self.capacity = capacity
        """Most undecided events in memory."""
        self._max_bytes = max_bytes
        # What newcomers may fill: less while a part is reserved for a storage.
        self._open, self._open_bytes = capacity, max_bytes
        self._clock = clock
        self._promised = 0
        self._promised_bytes = 0
        # In order of arrival; whoever leaves the line early costs no search.
        self._waiters: OrderedDict[asyncio.Future[bool], int] = OrderedDict()
        self._verdict: Outcome | None = None
        self.count = 0
        """Undecided events in memory."""
        self.bytes = 0
        """Their encoded bytes."""
        self.crowded = False
        """Somebody wanted in and found no room: what waits must go now."""
        self.closed = False
        """True once no event is taken any more."""

    def fits(self, size: int) -> bool:
        """Say whether so many bytes fit beside what is here or promised."""
        return (
            self.count + self._promised < self._open
            and self.bytes + self._promised_bytes + size <= self._open_bytes
        )

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many more events would find places now; from any thread."""
        return (
            not self._waiters
            and self.count + self._promised + events <= self._open
            and self.bytes + self._promised_bytes + size <= self._open_bytes
        )

    def take(self, size: int) -> bool:
        """Give a place to an event; False where it does not fit, or others wait."""
        # Written out, not asked of `fits`: every event comes through here.
        if (
            self._waiters
            or self.count + self._promised >= self._open
            or self.bytes + self._promised_bytes + size > self._open_bytes
        ):
            return False
        self.count += 1
        self.bytes += size
        return True

    def take_in(self, records: Sequence[Record]) -> None:
        """Give places to events of a storage, whoever waits: they were here before."""
        self.count += len(records)
        self.bytes += sum(len(record.body) for record in records)

    def free(self, count: int, size: int) -> None:
        """Take back the places of events whose fate is decided."""
        self.count -= count
        self.bytes -= size

    def half_left(self, held: int = 0, held_bytes: int = 0) -> tuple[int, int]:
        """Say how many events and bytes of a storage fit: half is for new ones.

        Held events have the other half, and do not count here: who is throttled stops
        nobody else. One event fits beside them, however small the room is.

        Args:
            held: events of throttled identities.
            held_bytes: their bytes.
        """
        count, size = self.count - held, self.bytes - held_bytes
        least = int(not count)
        return (
            max(least, self.capacity // 2 - count),
            max(least, self._max_bytes // 2 - size),
        )

    def reserve(self, count: int, size: int) -> None:
        """Keep so many places and bytes for events of a storage."""
        self._open = self.capacity - count
        self._open_bytes = self._max_bytes - size

    def could_hold(self, size: int) -> bool:
        """Say whether an event of so many bytes fits into an empty room."""
        return size <= self._max_bytes

    @property
    def full(self) -> Outcome:
        """What becomes of an event that finds no room, or finds the door closed."""
        if self._verdict is not None:
            return self._verdict
        message = (
            f"the queue is full: {self.count} events of max_storage_capacity="
            f"{self.capacity}, {self.bytes} bytes of "
            f"max_storage_bytes={self._max_bytes}"
        )
        return Outcome.dropped(DropReason.OVERFLOW, message)

    # Waiting in line ---------------------------------------------------------

    def crowd(self) -> None:
        """Note that somebody found no room."""
        self.crowded = True

    def relieve(self) -> None:
        """Note that all that waits is on its way."""
        self.crowded = False

    async def wait(self, size: int, timeout: float) -> bool:
        """Wait in line for a place; True where the event has one now."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(timeout, lambda: _answer(waiter, promised=False))
        self._waiters[waiter] = size
        try:
            promised = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._redeem(size)
                self.admit()  # its place goes to the next in line
            raise
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)
        if promised:
            self._redeem(size)
            self.count += 1
            self.bytes += size
        return promised

    def _redeem(self, size: int) -> None:
        self._promised -= 1
        self._promised_bytes -= size

    def admit(self) -> None:
        """Promise places to those who wait in line, in order, as far as it goes."""
        waiters = self._waiters
        while waiters:
            waiter, size = next(iter(waiters.items()))
            if not waiter.done():
                if not self.fits(size):
                    return
                self._promised += 1
                self._promised_bytes += size
                _answer(waiter, promised=True)
            del waiters[waiter]

    def send_away(self) -> None:
        """Tell all who wait in line that waiting does not help any more."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            _answer(waiter, promised=False)

    def close(self, verdict: Outcome) -> None:
        """Take no event any more; what comes, or waits in line, ends so."""
        self.closed = True
        self._verdict = verdict
        self.send_away()

    def rebind(self) -> None:
        """Forget those who waited on a closed loop."""
        self._waiters.clear()
        self._promised = self._promised_bytes = 0

    def __repr__(self) -> str:
        line = f", {len(self._waiters)} in line" if self._waiters else ""
        return (
            f"<Room {self.count} of {self.capacity} events, {self.bytes} of "
            f"{self._max_bytes} bytes, {self._promised} promised{line}>"
        )


def _answer(waiter: "asyncio.Future[bool]", *, promised: bool) -> None:
    if not waiter.done():
        waiter.set_result(promised)
