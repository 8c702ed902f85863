"""A clock that moves only when a test says so."""

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable, Iterator

from amplitude_async.shown import shown

__all__ = ["FakeClock", "FakeTimer"]

# Enough for any chain of tasks that wake each other, few enough to end at once.
_MOST_ROUNDS = 1_000
_ROUNDS_OF_QUIET = 3
_ROUNDS_UNSEEN = 100
_MOST_TIMERS_AT_ONCE = 10_000
# Ten steps of 0.1 s should reach what is due after 1 s.
_ROUNDING = 1e-9


class FakeTimer:
    """A timer of virtual time."""

    __slots__ = ("_callback", "_context", "due", "loop")

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        """When it fires."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it fires; None: wherever time passes."""
        self._callback: Callable[[], object] | None = callback
        self._context = contextvars.copy_context()

    @property
    def cancelled(self) -> bool:
        """True where it will not fire any more."""
        return self._callback is None

    def cancel(self) -> None:
        """Make it not fire."""
        self._callback = None

    def fire(self) -> None:
        """Call back, once, in the context that has set it."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback)


class FakeClock:
    """Virtual time: an hour of back-off passes in a millisecond, always alike.

    ``await clock.advance(10)`` goes from timer to timer and lets the tasks that each
    one wakes run before time goes on.
    """

    def __init__(self, *, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        # The epoch is a difference, so that both readings move together.
        self._epoch = wall - now
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._tickets = itertools.count()

    def now(self) -> float:
        """Virtual seconds that only ever grow."""
        return self._now

    def wall(self) -> float:
        """Virtual seconds since the epoch."""
        return self._epoch + self._now

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        """Set a timer; it fires inside ``advance``."""
        timer = FakeTimer(self._now + max(delay, 0.0), callback)
        heapq.heappush(self._timers, (timer.due, next(self._tickets), timer))
        return timer

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next timer fires; None where none is set."""
        self._forget_cancelled()
        return self._timers[0][0] - self._now if self._timers else None

    async def advance(self, seconds: float) -> None:
        """Let so much time pass, timer by timer.

        Raises:
            ValueError: time cannot go back.
            RuntimeError: timers keep firing while time stands still.
        """
        for timer in self._due_within(seconds):
            if timer is not None:
                self._fire(timer)
            await self.settle()

    def _due_within(self, seconds: float) -> Iterator[FakeTimer | None]:
        """Let time pass, and stop at each timer; None where only tasks may be due."""
        if seconds < 0:
            raise ValueError(f"seconds={shown(seconds)} must not be negative")
        target = self._now + seconds
        standing = 0
        yield None
        while (timer := self._pop_due(target)) is not None:
            standing = standing + 1 if timer.due <= self._now else 0
            if standing > _MOST_TIMERS_AT_ONCE:
                raise RuntimeError(
                    f"{standing} timers fired at {self._now:g} s: what is being tested "
                    "spins; look for a delay that is computed as zero"
                )
            self._now = max(self._now, timer.due)
            yield timer
        self._now = max(self._now, target)
        yield None

    def _fire(self, timer: FakeTimer) -> None:
        timer.fire()

    async def settle(self) -> None:
        """Let every task run that can run without time going on."""
        # A loop other than asyncio's own may not show what is ready to run.
        ready = getattr(asyncio.get_running_loop(), "_ready", None)
        quiet = 0
        for _ in range(_ROUNDS_UNSEEN if ready is None else _MOST_ROUNDS):
            await asyncio.sleep(0)
            quiet = 0 if ready is None or ready else quiet + 1
            if quiet >= _ROUNDS_OF_QUIET:
                return

    def _forget_cancelled(self) -> None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)

    def _pop_due(self, target: float) -> FakeTimer | None:
        self._forget_cancelled()
        if not self._timers or self._timers[0][0] > target + _ROUNDING:
            return None
        return heapq.heappop(self._timers)[2]

    def __repr__(self) -> str:
        waiting = sum(not timer.cancelled for _, _, timer in self._timers)
        return f"<FakeClock now={self._now:g} timers={waiting}>"
