"""Looks for what other processes left behind, by the clock, in a task of its own."""

from collections.abc import Callable

from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.journal import Journal

__all__ = ["Adopter"]

ADOPT_INTERVAL = 30.0
ADOPT_AGAIN = 1.0


class Adopter:
    """Takes over orphans, whatever the load: the storage says how many at a time.

    Apart from reading, so that a neighbour's file that keeps a storage busy holds up
    nothing of one's own.

    Args:
        allot: reserves ids for events of other processes.
        recovered: is told how many events were taken over.
        works_here: False in a forked child, which has a copy of its parent's task.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock,
        allot: Callable[[int], int],
        recovered: Callable[[int], None],
        works_here: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._allot = allot
        self._recovered = recovered
        self._works_here = works_here
        self._alarm = Alarm(clock)
        self._due = clock.now() + ADOPT_INTERVAL

    async def run(self) -> None:
        """Look around whenever it is time."""
        while self._works_here():
            self._alarm.clear()
            if self._clock.now() >= self._due:
                self._due = self._clock.now() + ADOPT_INTERVAL
                adopted = await self._journal.adopt(self._allot)
                self._recovered(adopted)
                if adopted:  # a storage takes over a few at a time: there may be more
                    self._due = self._clock.now() + ADOPT_AGAIN
            self._alarm.ring_at(self._due)
            await self._alarm.wait()

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self._alarm.rebind()

    def stop(self) -> None:
        """Leave no timer behind."""
        self._alarm.stop()

    def __repr__(self) -> str:
        return f"<Adopter, next at {self._due:g}>"
