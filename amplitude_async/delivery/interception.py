"""What stands between every client of this process and the network while tests run.

The one switch of the package that is of the whole process, as a test's is: a suite
cannot hand anything to a client that an application makes by itself. Without tests
nothing is ever put here, and an event asks one attribute.
"""

import os
from collections.abc import Callable
from threading import RLock
from typing import Final, Protocol

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.guard import Place, guard_of, place_of_caller, speak_for
from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.storage.base import Record

__all__ = ["CAPTURED", "INTERCEPTION", "Gate", "Guard", "Interception", "Taker"]

CAPTURED: Final = Outcome(
    DeliveryStatus.DELIVERED, 200, "captured in a test: nothing was sent", None, 1
)
_HELD_BACK: Final = "held back while capture() is active"


class Taker(Protocol):
    """Records what would have been sent."""

    def add(
        self,
        destination: str,
        body: bytes | None,
        source: object,
        *,
        insert_id: str,
        outcome: Outcome,
    ) -> None:
        """Take one event, from any thread; at once, and without raising.

        Args:
            destination: whose event it is.
            body: as it would be on the wire; None where it was not encoded.
            source: the event, or the body again.
            insert_id: its deduplication key.
            outcome: ``CAPTURED``, or why it would not have been sent.
        """


class Guard(Protocol):
    """Keeps the clients of a test suite away from the network."""

    def verdict_on(self, url: str, record: Record) -> Outcome | None:
        """Say what becomes of an event for an address; None: it may go there."""

    def forbids(self, url: str) -> str | None:
        """Say why no request may go to an address; None: it may."""


class Interception:
    """Who takes the events of every client of this process, instead of the network.

    Args:
        guard: watches what nobody takes.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self.active = guard is not None
        """True where anybody is here: all that an event has to ask."""
        self._lock = RLock()
        self._takers: tuple[Taker, ...] = ()
        self._guard = guard
        self._clocks: tuple[Callable[[], Clock], ...] = ()

    @property
    def capturing(self) -> bool:
        """True while events are taken, and none is sent."""
        return bool(self._takers)

    # Who is here -------------------------------------------------------------

    def begin(self, taker: Taker) -> None:
        """Let somebody take every event from now on; several may at once."""
        with self._lock:
            self._takers = (*self._takers, taker)
            self._note()

    def end(self, taker: Taker) -> None:
        """Let somebody take no more."""
        with self._lock:
            self._takers = tuple(one for one in self._takers if one is not taker)
            self._note()

    def arm(self, guard: Guard | None) -> None:
        """Let a guard watch what nobody takes; None: nobody."""
        with self._lock:
            self._guard = guard
            self._note()

    @property
    def guard(self) -> Guard | None:
        """What watches; None: nobody."""
        return self._guard

    def _note(self) -> None:
        self.active = bool(self._takers) or self._guard is not None

    # Clocks ------------------------------------------------------------------

    def begin_time(self, make: Callable[[], Clock]) -> None:
        """Let clients that are made from now on take their time from elsewhere."""
        with self._lock:
            self._clocks = (*self._clocks, make)

    def end_time(self, make: Callable[[], Clock]) -> None:
        """Let new clients have their own time again."""
        with self._lock:
            self._clocks = tuple(one for one in self._clocks if one is not make)

    def make_clock(self) -> Clock | None:
        """Make the clock of a new client; None: its own."""
        clocks = self._clocks
        return clocks[-1]() if clocks else None

    # Callers on other threads ------------------------------------------------

    def locate(self) -> Place | None:
        """Find the line that calls, where a guard would want to name it."""
        return None if self._guard is None else place_of_caller()

    def speak_for(self, place: Place | None) -> None:
        """Name that line for what follows in this context, which is another thread's.

        Args:
            place: of the caller, as ``locate`` has found it there.
        """
        speak_for(place)

    # What they say -----------------------------------------------------------

    def tell(
        self, destination: str, source: object, *, insert_id: str, outcome: Outcome
    ) -> None:
        """Give an event, encoded or not, with its end to all who take it."""
        body = source if isinstance(source, bytes) else None
        for taker in self._takers:
            taker.add(destination, body, source, insert_id=insert_id, outcome=outcome)

    def verdict_on(self, record: Record, url: str | None) -> Outcome | None:
        """Say what becomes of an event that would be sent; None: it is sent.

        Args:
            record: the encoded event.
            url: where it would go; None where that is not the network.
        """
        if self._takers:
            return CAPTURED
        guard = self._guard
        if guard is None or url is None:
            return None
        return guard.verdict_on(url, record)

    def forbids(self, url: str) -> str | None:
        """Say why no request may leave the process now; None: it may.

        What was accepted before waits until it may: it is not lost.
        """
        if self._takers:
            return _HELD_BACK
        guard = self._guard
        return None if guard is None else guard.forbids(url)

    def __repr__(self) -> str:
        return f"<Interception {len(self._takers)} takers, guard {self._guard!r}>"


class Gate:
    """Where the events of one destination pass, and may be intercepted.

    Args:
        url: where its requests go.
        reaches_network: False where a test has put something in the network's place.
    """

    def __init__(self, url: str, *, reaches_network: bool) -> None:
        self._url = url if reaches_network else None

    @property
    def is_watched(self) -> bool:
        """True where something would become of an event instead of being sent."""
        if INTERCEPTION.capturing:
            return True
        return self._url is not None and INTERCEPTION.forbids(self._url) is not None

    def verdict_on(self, record: Record) -> Outcome | None:
        """Say what becomes of an event instead of being sent; None: nothing does."""
        return INTERCEPTION.verdict_on(record, self._url)


INTERCEPTION: Final = Interception(guard_of(os.environ))
"""The switch of this process; a forked child inherits who is there.

A process that a test has started is guarded from its first import on.
"""
