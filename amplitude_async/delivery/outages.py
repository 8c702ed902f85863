"""What was accepted and is not in the storage: it failed then, or is not done yet."""

import asyncio
import contextvars
import math
from collections.abc import Callable, Sequence

from amplitude_async.delivery.clock import Clock, Timer

__all__ = ["TRY_AGAIN_INTERVAL", "Loose", "Outage"]

# A disk that was full may have room again.
TRY_AGAIN_INTERVAL = 60.0
# One that is slow is mostly busy for a moment: each further time twice as long.
SLOW_INTERVAL = 1.0
# One that was slow so often in a row is stuck.
SLOW_AT_MOST = 3


class Outage:
    """Whether a storage works, and when to ask it again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._retry: Timer | None = None
        self._pause = SLOW_INTERVAL
        self._slow = 0
        self.failed = False
        self.bypassed = False
        """True while events go to memory without asking the storage."""

    def begin(self, *, slow: bool = False) -> None:
        """The storage failed; ask it again after a while, or soon if it was slow."""
        self.failed = True
        if not slow:
            self._slow = SLOW_AT_MOST
        if not self.bypassed:
            self.bypassed = True
            pause = TRY_AGAIN_INTERVAL
            if slow:
                pause = min(self._pause, TRY_AGAIN_INTERVAL)
                self._pause = 2 * pause
                self._slow += 1
            self._retry = self._clock.call_later(pause, self._try_again)

    @property
    def brief(self) -> bool:
        """True while the storage is slow and was not so for long: it may work now."""
        return self.bypassed and self._slow < SLOW_AT_MOST

    def _try_again(self) -> None:
        """Let the next event find out whether the storage works again."""
        self._retry = None
        self.bypassed = False

    def end(self) -> None:
        """The storage took a record again."""
        self.failed = self.bypassed = False
        self._pause = SLOW_INTERVAL
        self._slow = 0
        self.stop()

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def rebind(self) -> None:
        """Ask again at once: the timer was one of a closed loop."""
        self._retry = None
        self.bypassed = False


class Loose:
    """Records that are in memory only: written in the background, or not at all.

    Args:
        settle: is to forget a record that was decided before it was written.
        clock: says since when a record is being written.
    """

    def __init__(self, settle: Callable[[Sequence[int]], None], clock: Clock) -> None:
        self._settle = settle
        self._clock = clock
        self._writing: dict[asyncio.Future[None], float] = {}
        self._ids: set[int] = set()

    def __contains__(self, record_id: int) -> bool:
        return record_id in self._ids

    def __len__(self) -> int:
        """Count those that do not survive the process."""
        return len(self._ids)

    def add(self, record_id: int) -> None:
        """Note a record that does not survive the process, as yet or at all."""
        self._ids.add(record_id)

    @property
    def waits_since(self) -> float:
        """Since when the first of those is being written that are; else infinity."""
        return next(iter(self._writing.values()), math.inf)

    def watch(
        self,
        record_id: int,
        writing: "asyncio.Future[None]",
        failed: Callable[[BaseException, int], None],
    ) -> None:
        """Wait in the background until a record is written; say so where it is not."""

        def written(writing: "asyncio.Future[None]") -> None:
            self._writing.pop(writing, None)
            # One that was cancelled was so by the storage: nobody here does it.
            cancelled = writing.cancelled()
            error = asyncio.CancelledError() if cancelled else writing.exception()
            if error is None:
                self._written(record_id)
            else:
                failed(error, record_id)

        self._writing[writing] = self._clock.now()
        # An empty context: that of the verb would live as long as a disk is stuck.
        writing.add_done_callback(written, context=contextvars.Context())

    def _written(self, record_id: int) -> None:
        if record_id in self._ids:
            self._ids.discard(record_id)
        else:
            # It was not there when it was decided: nobody asked to forget it.
            self._settle([record_id])

    def forget(self, ids: Sequence[int]) -> Sequence[int]:
        """Drop records that are decided; returns those that the storage has."""
        loose = self._ids
        if not loose:
            return ids
        written = [number for number in ids if number not in loose]
        loose.difference_update(ids)
        return written

    async def wait(self, timeout: float) -> None:
        """Wait until what is being written is written, or is not."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=timeout)

    def rebind(self) -> None:
        """Forget what was being written on a closed loop."""
        self._writing.clear()
