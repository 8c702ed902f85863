"""What was accepted and is not in the storage: it failed then, or is not done yet."""

import asyncio
import math
from collections.abc import Callable, Sequence

from amplitude_async.delivery.clock import Clock, Timer

__all__ = ["TRY_AGAIN_INTERVAL", "Loose", "Outages"]

# A disk that was full may have room again.
TRY_AGAIN_INTERVAL = 60.0


class Outages:
    """When a storage did not work, in ids: what was accepted then is not in it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gaps: list[tuple[int, float]] = []
        self._spared: set[int] = set()
        self._retry: Timer | None = None
        self.failed = False
        self.bypassed = False
        """True while events go to memory without asking the storage."""

    def cover(self, record_id: int) -> bool:
        """Say whether an id was given while the storage did not work."""
        gaps = self._gaps
        covered = any(first <= record_id < end for first, end in gaps)
        return covered and record_id not in self._spared

    def spare(self, record_id: int) -> None:
        """Note a record that was written all the same, in the background."""
        if self._gaps:
            self._spared.add(record_id)

    def filtered(self, ids: Sequence[int]) -> Sequence[int]:
        """Leave out the ids that the storage never got."""
        if not self._gaps:
            return ids
        found = [n for n in ids if not self.cover(n)]
        self._spared.difference_update(found)
        return found

    def begin(self, record_id: int) -> None:
        """The storage failed at a record; ask it again after a while."""
        if not self.failed:
            self.failed = True
            self._gaps.append((record_id, math.inf))
        if not self.bypassed:
            self.bypassed = True
            self._retry = self._clock.call_later(TRY_AGAIN_INTERVAL, self._try_again)

    def _try_again(self) -> None:
        """Let the next event find out whether the storage works again."""
        self._retry = None
        self.bypassed = False

    def end(self, record_id: int) -> None:
        """The storage took a record again."""
        self.failed = self.bypassed = False
        first, _ = self._gaps.pop()
        self._gaps.append((first, record_id))

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._retry is not None:
            self._retry.cancel()


class Loose:
    """Records that are in memory and are written in the background, or were not.

    Args:
        outages: hears of a record that was written although the storage had failed.
        settle: is to forget a record that was decided before it was written.
    """

    def __init__(
        self, outages: Outages, settle: Callable[[Sequence[int]], None]
    ) -> None:
        self._outages = outages
        self._settle = settle
        self._writing: set[asyncio.Future[None]] = set()
        self._ids: set[int] = set()

    def __contains__(self, record_id: int) -> bool:
        return record_id in self._ids

    def add(self, record_id: int) -> None:
        """Note a record that does not survive the process as yet."""
        self._ids.add(record_id)

    def watch(
        self,
        record_id: int,
        writing: "asyncio.Future[None]",
        failed: Callable[[Exception, int], None],
    ) -> None:
        """Wait in the background until a record is written; say so where it is not."""

        def written(writing: "asyncio.Future[None]") -> None:
            self._writing.discard(writing)
            if writing.cancelled():
                return
            error = writing.exception()
            if error is None:
                self._written(record_id)
            elif isinstance(error, Exception):
                failed(error, record_id)

        self._writing.add(writing)
        writing.add_done_callback(written)

    def _written(self, record_id: int) -> None:
        if record_id in self._ids:
            self._ids.discard(record_id)
            self._outages.spare(record_id)
        else:
            # It may have been covered when it was decided: nobody asked to forget it.
            self._settle([record_id])

    def forget(self, ids: Sequence[int]) -> None:
        """Drop records that are decided."""
        if self._ids:
            self._ids.difference_update(ids)

    async def wait(self, timeout: float) -> None:
        """Wait until what is being written is written, or is not."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=timeout)

    def rebind(self) -> None:
        """Forget what was being written on a closed loop."""
        self._writing.clear()
