"""Whether the log is full, found out beside the publishes and not by each of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from amplitude_async.delivery.tasks import spawn
from amplitude_async.exceptions import LogError, LogFullError, LogRefusedError

__all__ = ["Gauge"]

LOOK_AGAIN: Final = 1.0
# To count a large backlog takes long: at most so large a part of the time goes there.
REST: Final = 20.0


class Gauge:
    """How much of its bytes the log has in use; publishes learn of it within a second.

    Args:
        max_bytes: most bytes of chunks that wait; None: no limit but the disk's.
        whole_size: tells what the files take: cheap, and never less than what waits.
        live_bytes: counts what waits: the files do not shrink when that goes.
    """

    def __init__(
        self,
        max_bytes: int | None,
        whole_size: Callable[[], Awaitable[int]],
        live_bytes: Callable[[], Awaitable[int]],
    ) -> None:
        self._max_bytes = max_bytes
        self._whole_size = whole_size
        self._live_bytes = live_bytes
        self._size = 0
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Gauge {self._size} of {self._max_bytes} bytes>"

    def check(self) -> None:
        """Let a chunk pass, and see to it that the next check knows what is so then.

        Raises:
            LogFullError: there was no room lately.
        """
        if self._max_bytes is None:
            return
        if self._task is None and time.monotonic() >= self._due:
            self._task = spawn(self._look_aside(), "gauge")
        if self._size >= self._max_bytes:
            msg = (
                f"the log is full: {self._size} of max_bytes={self._max_bytes} wait in "
                "it; start relays, see why a destination is stuck, or raise max_bytes"
            )
            raise LogFullError(msg)

    async def _look_aside(self) -> None:
        try:
            # Who publishes learns of a log that does not answer by itself.
            with suppress(LogError):
                await self.look()
        finally:
            self._task = None

    async def look(self) -> None:
        """Find out what is so now.

        Raises:
            LogError: the server does not answer.
        """
        if self._max_bytes is None:
            return
        began = time.monotonic()
        self._due = began + LOOK_AGAIN
        size = await self._whole_size()
        if size >= self._max_bytes:
            try:
                size = await self._live_bytes()
            except LogRefusedError:
                size = 0  # this role may not count: opening has warned of it
        self._size = size
        ended = time.monotonic()
        self._due = max(began + LOOK_AGAIN, ended + REST * (ended - began))

    async def close(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
