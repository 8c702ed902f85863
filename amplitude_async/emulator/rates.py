"""Counts events per identity over a sliding window."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from threading import Lock

__all__ = ["RateMeter"]


class RateMeter:
    """Refuse identities that send more than a threshold of events per second.

    Only admitted events count: what was refused was not stored, so waiting a
    window long always helps a client that sends no more than the threshold allows.
    """

    def __init__(self, threshold: float, window: float = 1.0) -> None:
        for name, value in (("eps_threshold", threshold), ("eps_window", window)):
            if not value > 0:
                msg = (
                    f"{name} must be above zero, got {value!r}: give events or seconds"
                )
                raise ValueError(msg)
        self.threshold = threshold
        self.window = window
        self._admitted: deque[tuple[float, Mapping[Hashable, int]]] = deque()
        self._counts: dict[Hashable, int] = {}
        # A test resets the emulator from a thread of its own.
        self._lock = Lock()

    def admit(self, counts: Mapping[Hashable, int], now: float) -> dict[Hashable, int]:
        """Count these events, or return the events per second of who is too fast.

        One identity above the threshold is enough to admit none of them.
        """
        with self._lock:
            self._forget_before(now - self.window)
            room = self.threshold * self.window
            over = {}
            for identity, count in counts.items():
                total = self._counts.get(identity, 0) + count
                if total > room:
                    over[identity] = round(total / self.window)
            if not over:
                self._admitted.append((now, counts))
                for identity, count in counts.items():
                    self._counts[identity] = self._counts.get(identity, 0) + count
            return over

    def used(self, identity: Hashable) -> float:
        """Return the used part of what the threshold allows, as of the last request."""
        return self._counts.get(identity, 0) / (self.threshold * self.window)

    def clear(self) -> None:
        """Forget every identity."""
        with self._lock:
            self._admitted.clear()
            self._counts.clear()

    def _forget_before(self, start: float) -> None:
        while self._admitted and self._admitted[0][0] <= start:
            _, counts = self._admitted.popleft()
            for identity, count in counts.items():
                left = self._counts[identity] - count
                if left:
                    self._counts[identity] = left
                else:
                    del self._counts[identity]
