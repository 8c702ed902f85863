"""Who waits for outcomes, and until when."""

import asyncio
import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterable

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.shares import SHARE, Shares

__all__ = ["Flushes"]


class _Stretch:
    """The events between two marks: how many are undecided, and who waits for them."""

    __slots__ = ("undecided", "waiters")

    def __init__(self, undecided: int) -> None:
        self.undecided = undecided
        self.waiters: set[asyncio.Future[None]] = set()

    def change(self, events: int) -> None:
        """Enter events that came to this stretch, or were decided where negative."""
        self.undecided += events


class Flushes:
    """Everybody who waits until all events up to a certain one have an outcome.

    Marks ascend, as ids do: an outcome is entered into one stretch, whoever and however
    many wait, and whoever waits for a stretch waits for all before it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: list[int] = []
        self._stretches: list[_Stretch] = []
        self._undecided = 0
        self._deadlines: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()
        # Thousands may wait for one event.
        self._going = Shares(_let_go, "flush")

    def __bool__(self) -> bool:
        return bool(self._marks)

    async def wait(self, mark: int, pending: int, timeout: float | None) -> None:
        """Wait until all events up to an id are decided, at most until the deadline.

        Args:
            mark: id of the newest event that counts.
            pending: how many events are undecided now.
            timeout: seconds; None: no limit.
        """
        deadline = None if timeout is None else self._clock.now() + timeout
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stretch = self._stretch(mark, pending)
        stretch.waiters.add(waiter)
        timer = None
        if timeout is not None and deadline is not None:
            heapq.heappush(self._deadlines, (deadline, next(self._tickets), waiter))
            timer = self._clock.call_later(timeout, lambda: _let_go([waiter]))
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            stretch.waiters.discard(waiter)
            self._forget_unwatched(mark, stretch)

    def _stretch(self, mark: int, pending: int) -> _Stretch:
        if self._marks and self._marks[-1] == mark:
            return self._stretches[-1]
        stretch = _Stretch(pending - self._undecided)
        self._undecided = pending
        self._marks.append(mark)
        self._stretches.append(stretch)
        return stretch

    def _forget_unwatched(self, mark: int, stretch: _Stretch) -> None:
        """Join a stretch nobody waits for to the next one."""
        if stretch.waiters:
            return
        index = bisect_left(self._marks, mark)
        if index == len(self._marks) or self._stretches[index] is not stretch:
            return  # it was decided
        del self._marks[index], self._stretches[index]
        if index < len(self._stretches):
            self._stretches[index].change(stretch.undecided)
        else:
            self._undecided -= stretch.undecided
        if not self._marks:
            self._deadlines.clear()

    def settled(self, ids: Iterable[int]) -> None:
        """Enter events that have an outcome, or that were not accepted in the end."""
        if not self._marks:
            return
        marks, stretches = self._marks, self._stretches
        for number in ids:
            index = bisect_left(marks, number)
            if index < len(marks):
                stretches[index].change(-1)
                self._undecided -= 1
        decided = 0
        while decided < len(stretches) and stretches[decided].undecided <= 0:
            self._going.add(list(stretches[decided].waiters))
            decided += 1
        if decided:
            del marks[:decided], stretches[:decided]
        if not marks:
            self._deadlines.clear()  # all of them are answered

    def answer(self, now: float, happening: float) -> bool:
        """Let those go whose deadline has come, or comes before anything happens.

        Returns:
            True where there may be more of them: the loop has its turn first.
        """
        deadlines = self._deadlines
        for _ in range(SHARE):
            if not deadlines:
                return False
            if deadlines[0][0] > now and deadlines[0][0] >= happening:
                return False
            _let_go([heapq.heappop(deadlines)[2]])
        return True

    def let_all_go(self) -> None:
        """Let everybody go: nothing will happen any more."""
        for stretch in self._stretches:
            self._going.add(list(stretch.waiters))
        self._forget_marks()

    def clear(self) -> None:
        """Forget those who waited on a closed loop."""
        self._going.forget()
        self._forget_marks()

    def _forget_marks(self) -> None:
        self._marks.clear()
        self._stretches.clear()
        self._deadlines.clear()
        self._undecided = 0

    def __repr__(self) -> str:
        waiters = sum(len(stretch.waiters) for stretch in self._stretches)
        return f"<Flushes {waiters} waiting for {self._undecided} events>"


def _let_go(waiters: "list[asyncio.Future[None]]") -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
