"""The ledger that is written now, and how all is forgotten at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .judgement import Vendor
from .ledger import Ledger
from .script import FaultScript
from .waiting import Waiters

__all__ = ["Book"]


class Book:
    """Holds the ledger, and replaces it when it is reset.

    Args:
        new_ledger: makes an empty one.
        waiting: who waits for events, whichever ledger they come to.
        faults: the script to clear.
        vendors: those whose rates are forgotten.
    """

    def __init__(
        self,
        new_ledger: Callable[[], Ledger],
        waiting: Waiters,
        faults: FaultScript,
        vendors: Sequence[Vendor],
    ) -> None:
        self._new_ledger = new_ledger
        self._waiting = waiting
        self._faults = faults
        self._vendors = vendors
        self._ledger = new_ledger()

    def ledger(self) -> Ledger:
        """Return the ledger to write to and to read."""
        return self._ledger

    def count_dropped(self, connections: int) -> None:
        """Count connections that were closed without an answer."""
        self._ledger.drop_connections(connections)

    def reset(self) -> None:
        """Forget what arrived, counters, faults, deduplication keys and rates."""
        with self._waiting.lock:
            self._ledger = self._new_ledger()
            self._waiting.restart()
        self._faults.clear()
        for vendor in self._vendors:
            if vendor.meter is not None:
                vendor.meter.clear()
