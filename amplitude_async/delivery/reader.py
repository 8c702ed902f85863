"""Takes records into memory that are only in the storage, in a task of its own."""

import math
from collections.abc import Callable

from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.room import Room
from amplitude_async.storage.base import Record

__all__ = ["Reader"]

ADOPT_INTERVAL = 30.0
REREAD_INTERVAL = 1.0
REFILL_EVENTS = 5_000
REFILL_BYTES = 8 * 1024 * 1024


class Reader:
    """Refills half of the room from the journal, and looks for what others left there.

    Args:
        allot: reserves ids for events of other processes.
        take_in: takes records into memory; with none, something else has changed.
        recovered: is told how many events of others were found.
        works_here: False in a forked child, which has a copy of its parent's task.
    """

    def __init__(
        self,
        journal: Journal,
        room: Room,
        *,
        clock: Clock,
        allot: Callable[[int], int],
        take_in: Callable[[list[Record]], None],
        recovered: Callable[[int], None],
        works_here: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._room = room
        self._clock = clock
        self._allot = allot
        self._take_in = take_in
        self._recovered = recovered
        self._works_here = works_here
        self._alarm = Alarm(clock)
        self._adopt_at = clock.now() + ADOPT_INTERVAL
        self._read_at = clock.now()
        self.busy = False
        """True while it reads, or is about to."""

    def look(self) -> None:
        """See whether there is something to read now, and begin."""
        if not self.busy and self._has_work():
            self.busy = True
            self._alarm.ring()

    def _has_work(self) -> bool:
        now = self._clock.now()
        if self._journal.unread:
            return now >= self._read_at and all(self._room.half_left())
        return not self._room.count and now >= self._adopt_at

    async def run(self) -> None:
        """Read whenever there is something to read and room for it."""
        while self._works_here():
            self._alarm.clear()
            self.busy = self._has_work()
            if self.busy:
                try:
                    await self._adopt()
                    await self._refill()
                finally:
                    self.busy = False
                self._take_in([])
            self._alarm.ring_at(self._next_look())
            await self._alarm.wait()

    @property
    def reads_at(self) -> float:
        """When it reads on; infinity where nothing is unread, or there is no room."""
        able = self._journal.unread and all(self._room.half_left())
        return self._read_at if able else math.inf

    def _next_look(self) -> float:
        """Say when to look again where nobody calls."""
        # What is due already waits for room: whoever makes room calls.
        due = self._read_at if self._journal.unread else self._adopt_at
        return due if due > self._clock.now() else math.inf

    async def _adopt(self) -> None:
        if self._room.count or self._journal.unread:
            return
        self._adopt_at = self._clock.now() + ADOPT_INTERVAL
        self._recovered(await self._journal.adopt(self._allot))

    async def _refill(self) -> None:
        while self._journal.unread:
            room, spare = self._room.half_left()
            if not room or not spare:
                return
            records = await self._journal.read_on(
                min(room, REFILL_EVENTS), min(spare, REFILL_BYTES)
            )
            if not records:
                # A storage that cannot be read now is not asked in a circle.
                self._read_at = self._clock.now() + REREAD_INTERVAL
                return
            self._take_in(records)

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self._alarm.rebind()
        self.busy = False

    def __repr__(self) -> str:
        return f"<Reader {'busy' if self.busy else 'at rest'}>"
