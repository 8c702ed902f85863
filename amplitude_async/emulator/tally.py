"""Counters of a ledger: exact, whatever is still kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .judgement import Judgement
from .records import ReceivedRequest
from .seen import Seen

__all__ = ["Tally"]


class Tally:
    """Counts requests and what was in them; the shelves count what was stored."""

    def __init__(self) -> None:
        self._by_status: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()

    def count(self, request: ReceivedRequest) -> None:
        """Count a request as it was answered."""
        self._by_status[request.status] += 1
        self._counts.update(
            events_received=len(request.events),
            batches_received=len(request.batches),
            bytes_received=request.body_bytes,
            faults_fired=request.fault is not None,
        )

    def count_silent(self, judgement: Judgement) -> None:
        """Count what was dropped without a word."""
        self._counts["historical_dropped"] += judgement.too_young
        self._counts["partial_dropped"] += judgement.unfit

    def count_connections(self, dropped: int) -> None:
        """Count connections that were closed without a whole answer."""
        self._counts["connections_dropped"] += dropped

    def count_local(self, seen: Seen) -> None:
        """Count what a client told of."""
        self._counts[f"local_{seen.verdict}"] += 1

    def absorb(self, later: Tally) -> None:
        """Add what another one counted later."""
        self._by_status.update(later._by_status)
        self._counts.update(later._counts)

    def as_fields(self) -> dict[str, Any]:
        """Return the counters by the names that they have in `EmulatorStats`."""
        return {
            "requests": self._by_status.total(),
            "by_status": dict(self._by_status),
            **{name: self._counts[name] for name in _NAMES},
        }


_NAMES = (
    "events_received",
    "batches_received",
    "bytes_received",
    "faults_fired",
    "connections_dropped",
    "historical_dropped",
    "partial_dropped",
    "local_rejected",
    "local_dropped",
)
