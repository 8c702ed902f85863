"""What a test holds after ``capture()``: the events, to be asked and waited for."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from os import PathLike
from typing import Any, Final, overload

from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.shown import shown
from amplitude_async.testing.asserting import Assertions
from amplitude_async.testing.captured import Arrival, Captured
from amplitude_async.testing.masks import Mask
from amplitude_async.testing.records import check_recording, write_recording
from amplitude_async.testing.snapshots import snapshot_of
from amplitude_async.testing.waiting import (
    LoopWaiter,
    Search,
    ThreadWaiter,
    Waiters,
)
from amplitude_async.testing.wanted import Wanted, wanted_event

__all__ = ["CapturedEvents"]

_NO_EVENTS: Final[Sequence[Captured]] = ()


class _Contents:
    """The captured events, sorted by what became of them."""

    def __init__(self) -> None:
        self.delivered: list[Captured] = []
        self.rejected: list[Captured] = []
        self.dropped: list[Captured] = []
        self.by_name: dict[str, list[Captured]] = {}

    def take(self, event: Captured) -> None:
        """Put an event where it belongs."""
        if event.status is DeliveryStatus.DELIVERED:
            self.delivered.append(event)
            self.by_name.setdefault(event.name, []).append(event)
        elif event.status is DeliveryStatus.REJECTED:
            self.rejected.append(event)
        else:
            self.dropped.append(event)


class CapturedEvents(Assertions, Sequence[Captured]):
    """The events that would have been sent, in the order in which they were accepted.

    May be used from any thread, also while others track. Whoever goes through it sees
    the events of that moment.
    """

    def __init__(self) -> None:
        # Appended to without a lock: a signal's handler may track in the middle of
        # anything, and who tracks may not wait for who reads.
        self._arrived: deque[Arrival] = deque()
        self._lock = threading.RLock()
        self._contents = _Contents()
        self._waiters = Waiters()

    # Intake ------------------------------------------------------------------

    def add(  # noqa: PLR0917 - what the client hands over, in its order
        self,
        destination: str,
        body: bytes | None,
        source: object,
        insert_id: str,
        outcome: Outcome,
    ) -> None:
        """Take an event in; called by the client, from any thread. Never raises.

        Args:
            destination: name of the destination that accepted it.
            body: the encoded event, or the encoded mParticle batch of some; None for
                what was settled before it was encoded.
            source: the event or batch itself.
            insert_id: what the client calls it.
            outcome: what would have become of it.
        """
        arrival = Arrival(destination, body, source, insert_id, outcome)
        self._arrived.append(arrival)
        if self._waiters and outcome.status is DeliveryStatus.DELIVERED:
            self._waiters.wake({event.name for event in arrival.events})

    def _read(self) -> _Contents:
        """Sort in what has arrived."""
        with self._lock:
            contents = self._contents
            while (arrival := self._next()) is not None:
                for event in arrival.events:
                    contents.take(event)
            return contents

    def _next(self) -> Arrival | None:
        # Not asked first whether there is one: a signal's handler may read meanwhile.
        with suppress(IndexError):
            return self._arrived.popleft()
        return None

    def clear(self) -> None:
        """Forget what was captured so far."""
        with self._lock:
            self._read()
            self._contents = _Contents()

    # A sequence --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._read().delivered)

    def __iter__(self) -> Iterator[Captured]:
        return iter(tuple(self._read().delivered))

    @overload
    def __getitem__(self, index: int) -> Captured: ...

    @overload
    def __getitem__(self, index: slice) -> list[Captured]: ...

    def __getitem__(self, index: int | slice) -> Captured | list[Captured]:
        return self._read().delivered[index]

    def __repr__(self) -> str:
        contents = self._read()
        return (
            f"<CapturedEvents {len(contents.delivered)} events, "
            f"{len(contents.rejected)} rejected, {len(contents.dropped)} dropped>"
        )

    @property
    def rejected(self) -> list[Captured]:
        """The events that were found bad; ``message`` says why."""
        return list(self._read().rejected)

    @property
    def dropped(self) -> list[Captured]:
        """The events that were given up; ``reason`` and ``message`` say why."""
        return list(self._read().dropped)

    def named(self, name: str) -> list[Captured]:
        """Give the events of a name, those of each destination."""
        return list(self._read().by_name.get(name, ()))

    def of_user(self, user_id: str) -> list[Captured]:
        """Give the events of a user."""
        return [event for event in self if event.user_id == user_id]

    # Waiting -----------------------------------------------------------------

    async def wait_for(
        self,
        name: str,
        /,
        timeout: float | None = 1.0,
        *,
        times: int = 1,
        destination: str | None = None,
        **expected: Any,
    ) -> Captured:
        """Wait until an event is there; returns at once where it is.

        Args:
            name: its name.
            timeout: seconds; None waits for ever.
            times: how many must fit, each counted once however many destinations it
                went to.
            destination: look at one destination only.
            **expected: fields and properties, as for ``assert_tracked``.

        Returns:
            The event that made the number full.

        Raises:
            AssertionError: it did not come in time; the message shows what did.
            ValueError: the timeout or ``times`` is no such number.
        """
        __tracebackhide__ = True
        _check_timeout(timeout)
        wanted = wanted_event(name, destination, expected)
        search = self._search(wanted, times)
        waiter = LoopWaiter(search)
        self._waiters.add(search.name, waiter)
        try:
            waiter.look()
            async with asyncio.timeout(timeout):
                event: Captured | None = await waiter.found
        except TimeoutError:
            # It may have come in the very moment.
            event = waiter.late()
        finally:
            self._waiters.remove(search.name, waiter)
        if event is None:
            raise AssertionError(self._too_late(wanted, search, times, timeout))
        return self._shown(wanted, event)

    def wait_for_sync(
        self,
        name: str,
        /,
        timeout: float | None = 1.0,
        *,
        times: int = 1,
        destination: str | None = None,
        **expected: Any,
    ) -> Captured:
        """Block this thread until an event is there; otherwise as ``wait_for``.

        Raises:
            RuntimeError: an event loop runs on this thread, which would stand still.
            AssertionError: it did not come in time; the message shows what did.
            ValueError: the timeout or ``times`` is no such number.
        """
        __tracebackhide__ = True
        _check_no_loop_runs()
        _check_timeout(timeout)
        wanted = wanted_event(name, destination, expected)
        search = self._search(wanted, times)
        waiter = ThreadWaiter(search)
        self._waiters.add(search.name, waiter)
        try:
            event = waiter.wait(timeout, time.monotonic)
        finally:
            self._waiters.remove(search.name, waiter)
        if event is None:
            raise AssertionError(self._too_late(wanted, search, times, timeout))
        return self._shown(wanted, event)

    def _shown(self, wanted: Wanted, found: Captured) -> Captured:
        """Give the event as the destination had it whose view is the best known."""
        same = [
            event
            for event in self.named(found.name)
            if event.key == found.key and wanted.fits(event)
        ]
        return min(same, key=lambda event: event.rank, default=found)

    def _search(self, wanted: Wanted, times: int) -> Search:
        if times < 1:
            raise ValueError(f"times={times} is nothing to wait for: give 1 or more")
        name = wanted.name or ""
        return Search(wanted, times, lambda: self._listed(name))

    def _listed(self, name: str) -> Sequence[Captured]:
        return self._read().by_name.get(name, _NO_EVENTS)

    def _too_late(
        self, wanted: Wanted, search: Search, times: int, timeout: float | None
    ) -> str:
        count = f"{times} times " if times > 1 else ""
        came = f"; it came {search.found} times" if search.found else ""
        headline = f"no {wanted.text} was tracked {count}within {timeout:g} s{came}"
        return self._why(headline, wanted)

    # Snapshots and recordings ------------------------------------------------

    def snapshot(
        self, *, mask: Iterable[str] = (), keep: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """Give the events as plain dicts that are the same in every run.

        What each run makes anew is masked: ``"<time>"``, ``"<insert_id>"`` where it was
        not given, ``"<library>"``. Identities are sorted, and the events of each stay
        in their order, so that handlers that run at once give one result.

        Args:
            mask: more keys to mask, at any depth.
            keep: keys to leave as they are.
        """
        return snapshot_of(self, mask=mask, keep=keep)

    def write(
        self,
        path: str | PathLike[str],
        *,
        mask: Mask | Iterable[str] = (),
        keep: Iterable[str] = (),
    ) -> None:
        """Write the events into a file: one line of JSON for each, without secrets.

        The file is there as a whole or not at all.

        Args:
            path: its folder is made where there is none.
            mask: more keys to mask beside those of ``Mask``, or a ``Mask`` of your own.
            keep: keys to leave as they are.

        Raises:
            ValueError: there are more than a recording may hold.
        """
        write_recording(path, self, Mask.of(mask, keep))

    def assert_recorded(
        self,
        path: str | PathLike[str],
        *,
        mask: Mask | Iterable[str] = (),
        keep: Iterable[str] = (),
    ) -> None:
        """Compare the events with those of a file that ``write`` has made.

        Args:
            path: the file.
            mask: as it was given to ``write``.
            keep: likewise.

        Raises:
            AssertionError: they differ, or there is no file; the message says where
                and how to record anew.
            ValueError: the file is no recording; the message names the line.
        """
        __tracebackhide__ = True
        problem = check_recording(path, self, Mask.of(mask, keep))
        if problem:
            raise AssertionError(problem)


def _check_timeout(timeout: float | None) -> None:
    # type() and not isinstance(): true and false are no seconds.
    if timeout is None or (type(timeout) in {int, float} and timeout >= 0):
        return
    raise ValueError(f"timeout={shown(timeout)}: give seconds, 0 or more, or None")


def _check_no_loop_runs() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "wait_for_sync would stop the event loop that runs on this thread: "
        "await wait_for(...)"
    )
