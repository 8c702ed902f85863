"""Forgets settled records, keeps rejected ones: in the background, many at a time."""

import asyncio
from collections.abc import Iterable, Sequence

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import is_theirs, spawn, within
from amplitude_async.storage.base import DeadLetter, Record, Storage

__all__ = ["Settler"]

# A call that has not ended by then has failed: others wait behind it.
PATIENCE = 30.0


class Settler:
    """What a storage is to forget, and the one task that tells it."""

    def __init__(self, storage: Storage, reporter: Reporter, clock: Clock) -> None:
        self._clock = clock
        self._storage = storage
        self._reporter = reporter
        self._passed_over: set[int] = set()
        self._settling: list[int] = []
        self._burying: list[DeadLetter] = []
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected records, before they are forgotten."""
        self._burying += letters
        del self._burying[: -self._storage.dead_letters]

    def pass_over(self, ids: Iterable[int]) -> None:
        """Leave records out when they are read, until they are forgotten."""
        self._passed_over.update(ids)

    def find(self, record_id: int) -> None:
        """Leave a record out no more: it is not there."""
        self._passed_over.discard(record_id)

    def unsettled(self, page: list[Record]) -> list[Record]:
        """Leave out of a page what is not to be found in it."""
        if not self._passed_over:
            return page
        return [record for record in page if record.id not in self._passed_over]

    def undo(self, record_id: int, error: BaseException) -> None:
        """Forget a record that may have been written or not."""
        self.pass_over([record_id])
        if isinstance(error, GeneratorExit):
            self.settle_later([record_id])  # there may be no loop any more
        else:
            self.settle([record_id])

    def settle(self, ids: Sequence[int]) -> None:
        """Forget records, together with all that was put down before."""
        self._settling += ids
        if self._stopped or not (self._settling or self._burying):
            return
        if self._task is None or self._task.done():
            self._task = spawn(self._settle_all(), "journal")

    def settle_later(self, ids: Sequence[int]) -> None:
        """Forget records together with the next that are settled, or at the end."""
        self._settling += ids

    async def _settle_all(self) -> None:
        while self._settling or self._burying:
            letters, self._burying = self._burying, []
            ids, self._settling = self._settling, []
            rejected = {letter.record.id for letter in letters}
            first = [number for number in ids if number not in rejected]
            # What could not be kept is not forgotten; the others are, even so.
            last = [number for number in ids if number in rejected]
            try:
                await self._forget(first)
                first = []
                if letters:
                    burying = self._storage.bury(letters)
                    await within(PATIENCE, self._clock, burying)
                    letters = []
                await self._forget(last)
                last = []
            except BaseException as error:
                # Tried again with the next that are settled, and at the end.
                self.settle_later([*first, *last])
                self._keep_letters(letters)
                if not is_theirs(error):
                    raise
                self._report(error)
                return

    async def _forget(self, ids: list[int]) -> None:
        if ids:
            await within(PATIENCE, self._clock, self._storage.settle(ids))
            self._passed_over.difference_update(ids)

    def _keep_letters(self, letters: list[DeadLetter]) -> None:
        """Put letters down again; no more than are to be kept."""
        self._burying = (letters + self._burying)[-self._storage.dead_letters :]

    def _report(self, error: BaseException) -> None:
        self._reporter.error(
            "storage_settle",
            "%s; delivered events may be sent again after a restart, under the same "
            "insert_id",
            in_words(error),
        )

    async def wait(self, timeout: float) -> None:
        """Wait until all that was put down so far is forgotten, at most so long."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=timeout)

    async def stop(self, timeout: float) -> None:
        """Cancel the task, where a storage keeps it; for good."""
        self._stopped = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=timeout)

    def retire(self) -> None:
        """Begin nothing any more: the storage is another process's."""
        self._stopped = True

    def rebind(self, cut_off: Sequence[int]) -> None:
        """Forget the task of a closed loop; undo what was being written there."""
        self._task = None
        self.pass_over(cut_off)
        self._settling += cut_off

    def __repr__(self) -> str:
        return f"<Settler {len(self._settling)} to forget>"
