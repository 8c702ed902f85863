"""Long work in shares: the loop has a turn after each."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from amplitude_async.delivery.tasks import spawn

__all__ = ["SHARE", "Shares"]

SHARE = 500
"""So many events are settled in a few milliseconds, their callbacks included."""

T = TypeVar("T")


class Shares(Generic[T]):
    """What is still to be done, and the one task that does it a share at a time.

    Args:
        work: does a share; suspends nowhere and keeps nothing of it.
        name: what the task does, as people read it in a list of tasks.
    """

    def __init__(self, work: Callable[[list[T]], None], name: str) -> None:
        self._work = work
        self._name = name
        self._items: deque[T] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, items: Sequence[T]) -> None:
        """Do what is little at once, and begin with what is much."""
        if len(items) <= SHARE:
            self._work(list(items))
            return
        self._items.extend(items)
        self._ensure_running()

    def _ensure_running(self) -> None:
        if self._task is None or self._task.done():
            self._task = spawn(self._run(), self._name)

    async def _run(self) -> None:
        try:
            while self._items:
                self._work(self._take(SHARE))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.finish()  # the loop is closing: there is no later
            raise

    def _take(self, most: int) -> list[T]:
        share = list(islice(self._items, most))
        for _ in share:
            self._items.popleft()
        return share

    async def done(self) -> None:
        """Wait until nothing is left; who gives up waiting stops nothing."""
        while self._items:
            self._ensure_running()
            if self._task is not None:
                await asyncio.wait({self._task})

    def finish(self) -> None:
        """Do all that is left at once, where no loop runs any more."""
        while self._items:
            self._work(self._take(SHARE))

    def rebind(self) -> None:
        """Finish what was begun on a closed loop."""
        self._task = None
        self.finish()

    def __repr__(self) -> str:
        return f"<Shares of {self._name}: {len(self)} left>"
