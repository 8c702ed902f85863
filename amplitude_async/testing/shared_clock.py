"""A clock of a test for clients on several loops, in threads as well."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from amplitude_async.testing.clock import FakeClock, FakeTimer

__all__ = ["SharedClock"]

# For a loop that is busy with something else.
_PATIENCE: Final = 10.0


class SharedClock(FakeClock):
    """A ``FakeClock`` that clients on any loop and thread may have in common.

    An asynchronous test says ``await clock.advance(10)``, a synchronous one
    ``clock.advance_sync(10)``. Each timer fires on the loop that has set it.
    """

    def __init__(self, *, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        super().__init__(now=now, wall=wall)
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
            return timer

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
