"""Who waits for an event, and how an arrival wakes them: nobody polls."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import TIMEOUT_MAX

from amplitude_async.testing.captured import Captured
from amplitude_async.testing.wanted import Wanted

__all__ = ["LoopWaiter", "Search", "ThreadWaiter", "Waiters"]


class Search:
    """Looks through the events of a name, each once, until enough fit.

    Args:
        wanted: what is asked for.
        times: how many must fit.
        read: gives the list of the events of that name, which others append to.
    """

    def __init__(
        self, wanted: Wanted, times: int, read: Callable[[], Sequence[Captured]]
    ) -> None:
        self.name = wanted.name or ""
        self._wanted = wanted
        self._times = times
        self._read = read
        self._list: Sequence[Captured] = ()
        self._seen = 0
        self._tally = wanted.tally()

    @property
    def found(self) -> int:
        """How many fit so far."""
        return self._tally.total

    def go_on(self) -> Captured | None:
        """Look at what is new; gives the event that made the number full."""
        events = self._read()
        if events is not self._list:
            # Another list: what was found is forgotten.
            self._list, self._seen, self._tally = events, 0, self._wanted.tally()
        while self._seen < len(events):
            event = events[self._seen]
            self._seen += 1
            fits = self._wanted.fits(event)
            if fits and self._tally.add(event) and self._tally.total >= self._times:
                return event
        return None


class LoopWaiter:
    """Somebody who waits on an event loop; woken from any thread."""

    def __init__(self, search: Search) -> None:
        self._loop = asyncio.get_running_loop()
        self._search = search
        self._is_woken = False
        self.found: asyncio.Future[Captured] = self._loop.create_future()

    def wake(self) -> None:
        """Let the loop look at what is new, once however much there is."""
        if self._is_woken:
            return
        self._is_woken = True
        # Whoever waited on a loop that was closed waits no more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.look)

    def look(self) -> None:
        """Look at what is new."""
        # First, so that what arrives meanwhile wakes it again.
        self._is_woken = False
        if self.found.done():
            return
        event = self._search.go_on()
        if event is not None:
            self.found.set_result(event)

    def late(self) -> Captured | None:
        """Look for the last time, when the time is over."""
        if self.found.done() and not self.found.cancelled():
            return self.found.result()
        return self._search.go_on()


class ThreadWaiter:
    """Somebody who blocks a thread; woken from any other."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._arrived = threading.Event()

    def wake(self) -> None:
        """Let the thread look at what is new."""
        self._arrived.set()

    def wait(self, timeout: float | None, now: Callable[[], float]) -> Captured | None:
        """Block until the event is there; None when the time is over."""
        end = None if timeout is None else now() + timeout
        while True:
            # First, so that what arrives meanwhile wakes it again.
            self._arrived.clear()
            if (event := self._search.go_on()) is not None:
                return event
            left = None if end is None else end - now()
            if left is not None and left <= 0:
                return None
            # A longer wait than the system knows is one without an end.
            self._arrived.wait(None if left is None else min(left, TIMEOUT_MAX))


class Waiters:
    """All who wait, by the name of the event they wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each tuple is replaced and never changed: whoever wakes takes no lock, since
        # a signal's handler may track in the middle of anything.
        self._by_name: dict[str, tuple[LoopWaiter | ThreadWaiter, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def __len__(self) -> int:
        return sum(map(len, list(self._by_name.values())))

    def add(self, name: str, waiter: LoopWaiter | ThreadWaiter) -> None:
        """Wake one from now on."""
        with self._lock:
            self._by_name[name] = (*self._by_name.get(name, ()), waiter)

    def remove(self, name: str, waiter: LoopWaiter | ThreadWaiter) -> None:
        """Wake one no more."""
        with self._lock:
            left = tuple(w for w in self._by_name[name] if w is not waiter)
            if left:
                self._by_name[name] = left
            else:
                del self._by_name[name]

    def wake(self, names: Iterable[str]) -> None:
        """Wake those who wait for events of these names."""
        for name in names:
            for waiter in self._by_name.get(name, ()):
                waiter.wake()
