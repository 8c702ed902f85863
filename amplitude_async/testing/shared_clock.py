"""A clock of a test for clients on several loops, in threads as well."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Final

from amplitude_async.testing.clock import FakeClock, FakeTimer

__all__ = ["SharedClock"]

logger = logging.getLogger("amplitude_async.testing")

# For a loop that is busy with something else.
_PATIENCE: Final = 10.0


class SharedClock(FakeClock):
    """A ``FakeClock`` that clients on any loop and thread may have in common.

    An asynchronous test says ``await clock.advance(10)``, a synchronous one
    ``clock.advance_sync(10)``. Each timer fires on the loop that has set it.

    Time stands still in between. A test that forgets to move it ends all the same: a
    timer that has waited for its own length of real time, and for ``patience``, moves
    time to its moment.

    Args:
        now: where virtual time begins, in seconds.
        wall: the time of day then, in seconds since the epoch.
        patience: seconds of real time that time stands still at least.
    """

    def __init__(
        self,
        *,
        now: float = 0.0,
        wall: float = 1_700_000_000.0,
        patience: float = 5.0,
    ) -> None:
        super().__init__(now=now, wall=wall)
        self._patience = patience
        # Once it is forgotten, the next timers of the same wait need not try ours.
        self._is_forgotten = False
        # Reentrant: what a signal's handler tracks may set a timer as well.
        self._lock = threading.RLock()
        self._loops: set[asyncio.AbstractEventLoop] = set()

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        """Set a timer; it fires while time passes, on the loop that runs now."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._loops.add(loop)
            timer = super().call_later(delay, callback)
            timer.loop = loop
            patience = 0.0 if self._is_forgotten else self._patience
            real = max(delay, patience)
            context = contextvars.Context()
            timer.reminder = loop.call_later(real, self._remind, timer, context=context)
            return timer

    def _remind(self, timer: FakeTimer) -> None:
        """Move time to a timer that has waited for so long in real time."""
        if timer.cancelled:
            return
        self._is_forgotten = True
        logger.warning(
            "the clock of this test stood still while a client waited for %g s to "
            "pass: await clock.advance(), or clock.advance_sync()",
            timer.due - self._now,
        )
        for due in super()._due_within(max(timer.due - self._now, 0.0)):
            if due is not None:
                self._fire(due)

    def _due_within(self, seconds: float) -> Iterator[FakeTimer | None]:
        self._is_forgotten = False
        return super()._due_within(seconds)

    def advance_sync(self, seconds: float) -> None:
        """Let so much time pass, timer by timer, for a synchronous test.

        Raises:
            ValueError: time cannot go back.
            RuntimeError: an event loop runs on this thread, or another does not answer,
                or timers keep firing while time stands still.
        """
        if _running() is not None:
            msg = "advance_sync() on a running event loop: await advance() there"
            raise RuntimeError(msg)
        for timer in self._due_within(seconds):
            if timer is not None:
                self._fire(timer)
            for settled in self._settle_others(None):
                settled.result(_PATIENCE)

    async def settle(self) -> None:
        """Let every task run that can run without time going on, on every loop."""
        await super().settle()
        others = self._settle_others(asyncio.get_running_loop())
        if others:
            for settled in others:
                await asyncio.wait_for(asyncio.wrap_future(settled), _PATIENCE)
            await super().settle()

    def _settle_others(
        self, this: asyncio.AbstractEventLoop | None
    ) -> list[Future[None]]:
        with self._lock:
            self._loops = {loop for loop in self._loops if not loop.is_closed()}
            loops = [loop for loop in self._loops if loop.is_running()]
        return [
            asyncio.run_coroutine_threadsafe(FakeClock.settle(self), loop)
            for loop in loops
            if loop is not this
        ]

    def _fire(self, timer: FakeTimer) -> None:
        loop = timer.loop
        if loop is None or loop is _running():
            timer.fire()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(timer.fire)

    def _forget_cancelled(self) -> None:
        with self._lock:
            super()._forget_cancelled()

    def _pop_due(self, target: float) -> FakeTimer | None:
        with self._lock:
            return super()._pop_due(target)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
