"""The ledger that is written now, and how all is forgotten at once, or brought back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .bell import Bell
from .judgement import Vendor
from .ledger import Ledger, Numbers
from .script import FaultScript
from .waiting import Waiters

__all__ = ["UNDO_SECONDS", "Book", "LedgerMaker"]

UNDO_SECONDS = 60.0
"""So long what was cleared can be brought back."""


class LedgerMaker(Protocol):
    """Makes an empty ledger."""

    def __call__(self, *, numbers: Numbers, changed: Callable[[], None]) -> Ledger:
        """Make it; its numbers go on where another one ended."""


@dataclass(frozen=True, slots=True, repr=False)
class _Cleared:
    token: str
    ledger: Ledger
    until: float


class Book:
    """Holds the ledger, and replaces it when it is cleared or reset.

    Args:
        new_ledger: makes an empty one.
        waiting: who waits for events, whichever ledger they come to.
        faults: the script to clear.
        vendors: those whose rates are forgotten.
        bell: is rung at each change.
        now: seconds that never go back.
    """

    def __init__(
        self,
        new_ledger: LedgerMaker,
        *,
        waiting: Waiters,
        faults: FaultScript,
        vendors: Sequence[Vendor],
        bell: Bell,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new_ledger = new_ledger
        self._waiting = waiting
        self._faults = faults
        self._vendors = vendors
        self._bell = bell
        self._now = now
        self._numbers = Numbers()
        self._cleared: _Cleared | None = None
        self._ledger = self._fresh()

    def ledger(self) -> Ledger:
        """Return the ledger to write to and to read."""
        return self._ledger

    def count_dropped(self, connections: int) -> None:
        """Count connections that were closed without an answer."""
        self._ledger.drop_connections(connections)

    def reset(self) -> None:
        """Forget what arrived, counters, faults, deduplication keys and rates."""
        self._turn_over()
        self._cleared = None
        self._faults.clear()
        for vendor in self._vendors:
            if vendor.meter is not None:
                vendor.meter.clear()
        self._tell_cleared(None)

    def clear(self) -> str:
        """Forget what arrived, counters and deduplication keys, for now.

        Returns:
            What `undo` takes, for a minute; of several only the last.
        """
        token = secrets.token_urlsafe(12)
        until = self._now() + UNDO_SECONDS
        self._cleared = _Cleared(token, self._turn_over(), until)
        self._tell_cleared(token)
        return token

    def undo(self, token: str) -> bool:
        """Bring back what was cleared, before what came since; False: it is gone."""
        self.let_go()
        with self._waiting.lock:
            cleared = self._cleared
            if cleared is None or cleared.token != token:
                return False
            self._cleared = None
            cleared.ledger.absorb(self._ledger)
            self._ledger = cleared.ledger
        oldest, newest = self._ledger.log.oldest, self._numbers.seen
        self._bell.announce("restored", {"oldest": oldest, "newest": newest})
        return True

    def let_go(self) -> None:
        """Forget for good what was cleared more than a minute ago."""
        cleared = self._cleared
        if cleared is not None and cleared.until <= self._now():
            self._cleared = None

    def _fresh(self) -> Ledger:
        return self._new_ledger(numbers=self._numbers, changed=self._bell.ring)

    def _turn_over(self) -> Ledger:
        """Begin a new ledger and return the one before."""
        with self._waiting.lock:
            before, self._ledger = self._ledger, self._fresh()
            self._waiting.restart()
        return before

    def _tell_cleared(self, undo: str | None) -> None:
        details = {"before": self._numbers.seen, "undo": undo}
        self._bell.announce("cleared", details)
