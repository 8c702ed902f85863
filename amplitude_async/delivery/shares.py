"""Long work in shares: the loop has a turn after each."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Generic, Protocol, TypeVar

from amplitude_async.delivery.tasks import spawn

__all__ = ["SHARE", "Drained", "Shares", "SizedIterable"]

SHARE = 500
"""So many events are settled in a few milliseconds, their callbacks included."""

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SizedIterable(Sized, Iterable[T_co], Protocol[T_co]):
    """What can be counted before it is made, item by item."""


class Drained(Generic[S, T]):
    """What is made of items as they are taken out, one by one.

    To make thousands at once, or to free them at the end, would hold the loop.

    Args:
        items: emptied on the way.
        make: makes something of an item, when it is its turn.
    """

    def __init__(self, items: deque[S], make: Callable[[S], T]) -> None:
        self._items = items
        self._make = make

    def __len__(self) -> int:
        """Count those that are left."""
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """Take one out after the other."""
        while self._items:
            yield self._make(self._items.popleft())

    def __repr__(self) -> str:
        return f"<Drained {len(self)} left>"


class Shares(Generic[T]):
    """What is still to be done, and the one task that does it a share at a time.

    Args:
        work: does a share; suspends nowhere and keeps nothing of it.
        name: what the task does, as people read it in a list of tasks.
    """

    def __init__(self, work: Callable[[list[T]], None], name: str) -> None:
        self._work = work
        self._name = name
        self._runs: deque[Iterator[T]] = deque()
        self._left = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._left

    def add(self, items: SizedIterable[T]) -> None:
        """Do what is little at once, and begin with what is much.

        Items that are made while one iterates are made a share at a time.
        """
        if len(items) <= SHARE:
            self._work(list(items))
            return
        self._left += len(items)
        if isinstance(items, list):
            items = Drained(deque(items), _as_it_is)
        self._runs.append(iter(items))
        self._ensure_running()

    def _ensure_running(self) -> None:
        if self._task is None or self._task.done():
            self._task = spawn(self._run(), self._name)

    async def _run(self) -> None:
        try:
            while self._runs:
                self._do_share()
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.finish()  # the loop is closing: there is no later
            raise

    def _do_share(self) -> None:
        share = list(islice(self._runs[0], SHARE))
        if len(share) < SHARE:
            self._runs.popleft()
        self._left -= len(share)
        if share:
            self._work(share)

    async def done(self) -> None:
        """Wait until nothing is left; who gives up waiting stops nothing."""
        while self._runs:
            self._ensure_running()
            if self._task is not None:
                await asyncio.wait({self._task})

    def finish(self) -> None:
        """Do all that is left at once, where no loop runs any more."""
        while self._runs:
            self._do_share()

    def rebind(self) -> None:
        """Finish what was begun on a closed loop."""
        self._task = None
        self.finish()

    def forget(self) -> None:
        """Leave undone what was begun: nobody is there any more to whom it matters."""
        self._task = None
        self._runs.clear()
        self._left = 0

    def __repr__(self) -> str:
        return f"<Shares of {self._name}: {len(self)} left>"


def _as_it_is(item: T) -> T:
    return item
