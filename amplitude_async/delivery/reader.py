"""Takes records into memory that are only in the storage, in a task of its own."""

import asyncio
import math
from collections.abc import Callable

from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.deciding.schedule import Schedule
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
        schedule: says of whom more may come that went back to the storage.
        take_in: takes records into memory; with none, something else has changed.
        bring_back: takes those in that had gone back.
        works_here: False in a forked child, which has a copy of its parent's task.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock,
        schedule: Schedule,
        left: Callable[[], tuple[int, int]],
        take_in: Callable[[list[Record]], None],
        bring_back: Callable[[list[Record]], None],
        works_here: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._schedule = schedule
        self._left = left
        self._take_in = take_in
        self._bring_back = bring_back
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
                    await self._catch_up()
                finally:
                    self.busy = False
                self._take_in([])
            self._alarm.ring_at(self._next_look())
            await self._alarm.wait()

    @property
    def reads_at(self) -> float:
        """When it reads on; infinity where nothing is unread, or there is no room."""
        return self._read_at if self._can_refill or self._can_catch_up else math.inf

    @property
    def _can_refill(self) -> bool:
        return self._journal.ahead > 0 and all(self._left())

    @property
    def _can_catch_up(self) -> bool:
        return self._schedule.wants_more

    def _next_look(self) -> float:
        """Say when to look again where nobody calls."""
        # What is due already waits for room: whoever makes room calls.
        waits = self._journal.unread and self._read_at > self._clock.now()
        return self._read_at if waits else math.inf

    async def _refill(self) -> None:
        while self._can_refill and self._clock.now() >= self._read_at:
            room, spare = self._left()
            records = await self._journal.reading.read_on(
                min(room, REFILL_EVENTS), min(spare, REFILL_BYTES)
            )
            if not records:
                # A storage that cannot be read now is not asked in a circle.
                self._read_at = self._clock.now() + REREAD_INTERVAL
                return
            self._take_in(records)
            # A storage may answer at once, and all of it be left where it is.
            await asyncio.sleep(0)

    async def _catch_up(self) -> None:
        """Go on with throttled identities whose events went back to the storage."""
        if not self._can_catch_up or self._clock.now() < self._read_at:
            return
        wanted, spare = self._schedule.wanted()
        records = await self._journal.reading.read_back(
            wanted, min(spare, REFILL_BYTES)
        )
        if not records:
            self._read_at = self._clock.now() + REREAD_INTERVAL
        self._bring_back(records)

    def stop(self) -> None:
        """Leave no timer behind."""
        self._alarm.stop()

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self._alarm.rebind()
        self.busy = False

    def __repr__(self) -> str:
        return f"<Reader {'busy' if self.busy else 'at rest'}>"
