"""Time as a parameter: the engine reads and waits on a clock that tests can replace."""

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None:
        """Make it not happen."""


class Clock(Protocol):
    """Where the engine takes its time from."""

    def now(self) -> float:
        """Seconds that only ever grow, for waits."""

    def wall(self) -> float:
        """Seconds since the epoch, for ages and timestamps."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call back on the loop after so many seconds."""


class LoopClock:
    """The real time of the running event loop."""

    # The functions themselves: each event asks, and a call around them costs as much
    # as they do.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Set a timer on the running loop.

        In an empty context: the objects of a request must not live as long as it.
        """
        loop, context = asyncio.get_running_loop(), contextvars.Context()
        return loop.call_later(delay, callback, context=context)
