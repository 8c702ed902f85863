"""How many requests a busy server takes: so many a second, so many at once. Pure."""

from __future__ import annotations

import math

__all__ = ["Admission"]

_ROUNDING = 1e-6


class Admission:
    """Counts the requests that a server lets in, and turns the others away.

    What was turned away uses nothing up. After a quiet second as many requests may
    come at once as a second takes, one at least.

    Args:
        per_second: requests let in a second, None for any number.
        at_once: requests under way together, None for any number.
    """

    def __init__(self, per_second: float | None, at_once: int | None) -> None:
        self._per_second = per_second
        self._at_once = math.inf if at_once is None else at_once
        self._burst = 1.0 if per_second is None else max(1.0, per_second)
        self._room = self._burst
        self._counted_at = -math.inf
        self._under_way = 0

    def admit(self, now: float) -> bool:
        """Let one more request in, until `leave`; False where there is no room."""
        if self._under_way >= self._at_once or not self._has_room(now):
            return False
        if self._per_second is not None:
            self._room -= 1.0
        self._under_way += 1
        return True

    def leave(self) -> None:
        """Note that a request which was let in has its answer."""
        self._under_way -= 1

    def _has_room(self, now: float) -> bool:
        if self._per_second is None:
            return True
        # Requests come in the order in which their bodies were read, and not always in
        # that of their arrival: no second may count twice.
        if now > self._counted_at:
            gained = (now - self._counted_at) * self._per_second
            self._room = min(self._burst, self._room + gained)
            self._counted_at = now
        # Fractions of a request come short of a whole one by rounding.
        return self._room >= 1.0 - _ROUNDING
