"""When does a task wake: one event that is rung, and one timer that rings it."""

import asyncio
import math

from amplitude_async.delivery.clock import Clock, Timer

__all__ = ["Alarm"]


class Alarm:
    """Wakes the one task that waits: now, or at the earliest time it was told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._timer: Timer | None = None
        self._at = math.inf

    def ring(self) -> None:
        """Wake the task now."""
        self._rung.set()

    def ring_by(self, when: float) -> None:
        """Wake the task at a time, unless it wakes before that anyway."""
        if when < self._at:
            self._set(when)

    def ring_at(self, when: float) -> None:
        """Wake the task at a time and at no earlier one; infinity: at none."""
        if when != self._at:
            self._set(when)

    def _set(self, when: float) -> None:
        self._silence()
        self._at = when
        if when < math.inf:
            delay = max(when - self._clock.now(), 0.0)
            self._timer = self._clock.call_later(delay, self._strike)

    def _strike(self) -> None:
        self._timer = None
        self._at = math.inf
        self._rung.set()

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = math.inf

    def clear(self) -> None:
        """Look from now on: what rang before is being seen to."""
        self._rung.clear()

    async def wait(self) -> None:
        """Sleep until it rings."""
        await self._rung.wait()

    def stop(self) -> None:
        """Wake the task for the last time; no timer is left behind."""
        self._silence()
        self._rung.set()

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self._rung = asyncio.Event()
        self._timer = None
        self._at = math.inf

    def __repr__(self) -> str:
        rung = "rung" if self._rung.is_set() else "quiet"
        return f"<Alarm {rung}, next at {self._at:g}>"
