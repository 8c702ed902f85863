"""Takes records into memory that are only in the storage, in a task of its own."""

import math
from collections.abc import Callable

from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.journal import Journal
from amplitude_async.storage.base import Record

__all__ = ["Reader"]

REREAD_INTERVAL = 1.0
REFILL_EVENTS = 5_000
REFILL_BYTES = 8 * 1024 * 1024


class Reader:
    """Refills half of the room from the journal.

    Args:
        left: says how many events and bytes there is room for.
        take_in: takes records into memory; with none, something else has changed.
        works_here: False in a forked child, which has a copy of its parent's task.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock,
        left: Callable[[], tuple[int, int]],
        take_in: Callable[[list[Record]], None],
        works_here: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._left = left
        self._take_in = take_in
        self._works_here = works_here
        self._alarm = Alarm(clock)
        self._read_at = clock.now()
        self.busy = False
        """True while it reads, or is about to."""

    def look(self) -> None:
        """See whether there is something to read now, and begin."""
        if not self.busy and self._has_work():
            self.busy = True
            self._alarm.ring()

    def _has_work(self) -> bool:
        return self._clock.now() >= self.reads_at

    async def run(self) -> None:
        """Read whenever there is something to read and room for it."""
        while self._works_here():
            self._alarm.clear()
            self.busy = self._has_work()
            if self.busy:
                try:
                    await self._refill()
                finally:
                    self.busy = False
                self._take_in([])
            self._alarm.ring_at(self._next_look())
            await self._alarm.wait()

    @property
    def reads_at(self) -> float:
        """When it reads on; infinity where nothing is unread, or there is no room."""
        able = self._journal.unread and all(self._left())
        return self._read_at if able else math.inf

    def _next_look(self) -> float:
        """Say when to look again where nobody calls."""
        # What is due already waits for room: whoever makes room calls.
        waits = self._journal.unread and self._read_at > self._clock.now()
        return self._read_at if waits else math.inf

    async def _refill(self) -> None:
        while self._clock.now() >= self.reads_at:
            room, spare = self._left()
            records = await self._journal.read_on(
                min(room, REFILL_EVENTS), min(spare, REFILL_BYTES)
            )
            if not records:
                # A storage that cannot be read now is not asked in a circle.
                self._read_at = self._clock.now() + REREAD_INTERVAL
                return
            self._take_in(records)

    def stop(self) -> None:
        """Leave no timer behind."""
        self._alarm.stop()

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self._alarm.rebind()
        self.busy = False

    def __repr__(self) -> str:
        return f"<Reader {'busy' if self.busy else 'at rest'}>"
