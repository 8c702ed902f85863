"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

__all__ = ["OwnLoop"]

_Result = TypeVar("_Result")

_START_TIMEOUT = 10.0


class OwnLoop:
    """Runs coroutines for any thread; it lives from `start` to `stop`.

    The thread is a daemon: who forgets to stop it can still end the program.

    Args:
        name: of the thread.
        at_end: what to do there as the last.
    """

    def __init__(
        self, name: str, at_end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._at_end = at_end
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether coroutines can be given to it."""
        return self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop itself, once it has started."""
        return self._ready.result(_START_TIMEOUT)

    def start(self) -> None:
        """Start the thread, and return when its loop runs."""
        self._thread.start()
        self._ready.result(_START_TIMEOUT)

    def call(
        self, step: Callable[[], Coroutine[Any, Any, _Result]], timeout: float
    ) -> _Result:
        """Run a coroutine there and return, or raise, what it does.

        Raises:
            TimeoutError: it did not end in time; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(step(), self.loop)
        try:
            return future.result(timeout)
        except BaseException:
            # Ctrl-C as well: nobody waits for it any more.
            future.cancel()
            raise

    async def join(self, step: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Run a coroutine there, from any loop."""
        loop = self.loop
        if loop is asyncio.get_running_loop():
            return await step()
        future = asyncio.run_coroutine_threadsafe(step(), loop)
        return await asyncio.wrap_future(future)

    def ask_to_stop(self) -> None:
        """Let the loop end, without waiting for it."""
        try:
            self.loop.call_soon_threadsafe(self._stop.set)
        except (RuntimeError, FutureTimeoutError):  # it has ended, or never began
            return

    def stop(self, timeout: float) -> bool:
        """End the loop and its thread; False where something there does not yield."""
        if self._thread.ident is None:
            return True
        self.ask_to_stop()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._ready.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        await self._at_end()
