"""The engine's side of a storage: what was read, what is only there, and its failure.

Memory first: a record is appended and goes to memory as well. Once memory is full,
records are only appended; while one of those is unread, all new ones queue behind it.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence

from amplitude_async.delivery.reporting import Reporter
from amplitude_async.exceptions import StorageError, StorageFullError
from amplitude_async.storage.base import DeadLetter, Record, Storage

__all__ = ["Journal"]

PURGE_PAGE = 1_000
PURGE_BYTES = 16 * 1024 * 1024


class Journal:
    """One storage and how far it was read."""

    def __init__(self, storage: Storage, destination: str, reporter: Reporter) -> None:
        self._storage = storage
        self._destination = destination
        self._reporter = reporter
        self._opened = False
        self._failed = False
        self._cursor = 0
        self._settling: list[int] = []
        self._burying: list[DeadLetter] = []
        self._task: asyncio.Task[None] | None = None
        self.unread = 0
        """Records that are in the storage and not in memory."""

    @property
    def durable(self) -> bool:
        """True while an appended record survives the process."""
        return self._storage.durable and not self._failed

    @property
    def writes(self) -> bool:
        """True where settled records must be forgotten, even after a failure."""
        return self._storage.durable

    async def open(self, allot: Callable[[int], int]) -> int:
        """Open the storage once; returns how many records it has taken over."""
        if self._opened:
            return 0
        recovered = await self._storage.open(self._destination, allot)
        self._opened = True
        self.unread += recovered
        return recovered

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Look for records that another process left behind."""
        try:
            adopted = await self._storage.adopt(allot)
        except StorageError as error:
            self._reporter.warning("adopt", "%s", error)
            return 0
        self.unread += adopted
        return adopted

    async def append(self, record: Record) -> bool:
        """Write a record; False where the storage is full or has failed.

        A cancelled append is undone: the record was not accepted.
        """
        if self._failed:
            return False
        writing: asyncio.Future[None] | None = None
        try:
            writing = asyncio.ensure_future(self._storage.append((record,)))
            await asyncio.shield(writing)
        except StorageFullError as error:
            self._reporter.error("storage_full", "%s", error)
            return False
        except StorageError as error:
            self._fail(error)
            return False
        except asyncio.CancelledError:
            if writing is not None:
                writing.add_done_callback(lambda _: self.settle_soon([record.id]))
            raise
        return True

    def _fail(self, error: StorageError) -> None:
        self._failed = True
        self._reporter.error(
            "storage",
            "%s; events are kept in memory only from now on and do not survive "
            "the process",
            error,
        )

    def mark_read(self, record_id: int) -> None:
        """Note that an appended record is in memory too."""
        self._cursor = record_id

    def leave_unread(self) -> None:
        """Note that an appended record is in the storage only."""
        self.unread += 1

    async def read_on(self, limit: int, max_bytes: int) -> list[Record]:
        """Read the next unread records; they are in memory from now on.

        A damaged record has an empty body.
        """
        try:
            records = await self._storage.fetch(self._cursor, limit, max_bytes)
        except StorageError as error:
            self._reporter.error("storage_read", "%s", error)
            return []
        if records:
            self._cursor = records[-1].id
            self.unread -= len(records)
        return records

    @property
    def keeps_dead_letters(self) -> bool:
        """True where rejected records are kept for people."""
        return self._storage.durable and self._storage.dead_letters > 0

    def bury_soon(self, letters: list[DeadLetter]) -> None:
        """Keep rejected records in the background, before they are forgotten."""
        self._burying += letters

    def settle_soon(self, ids: Sequence[int]) -> None:
        """Forget records in the background, many at a time."""
        if not self._storage.durable or not (ids or self._burying):
            return
        self._settling += ids
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._settle_all(),
                name="amplitude_async journal",
                context=contextvars.Context(),
            )

    async def _settle_all(self) -> None:
        while self._settling or self._burying:
            letters, self._burying = self._burying, []
            ids, self._settling = self._settling, []
            try:
                if letters:
                    await self._storage.bury(letters)
                await self._storage.settle(ids)
            except StorageError as error:
                self._reporter.error(
                    "storage_settle",
                    "%s; delivered events may be sent again after a restart, under "
                    "the same insert_id",
                    error,
                )

    async def settled(self) -> None:
        """Wait until all records settled so far are forgotten."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def purge(self, chosen: Callable[[Record], bool]) -> list[Record]:
        """Find the chosen ones among the unread records; the caller settles them."""
        found: list[Record] = []
        after = self._cursor
        while self.unread:
            page = await self._storage.fetch(after, PURGE_PAGE, PURGE_BYTES)
            if not page:
                break
            after = page[-1].id
            found += [record for record in page if chosen(record)]
        self.unread -= len(found)
        return found

    def abandon_unread(self) -> int:
        """Leave unread records to the next process; returns how many."""
        left, self.unread = self.unread, 0
        return left

    async def close(self) -> None:
        """Finish writing and close the storage."""
        await self.settled()
        if self._opened:
            self._opened = False
            try:
                await self._storage.close()
            except StorageError as error:
                self._reporter.error("storage_close", "%s", error)

    def after_fork(self) -> Storage:
        """Build the storage of a forked child; the parent keeps this one."""
        return self._storage.after_fork()

    def rebind(self) -> None:
        """Forget the background task of a closed loop."""
        self._task = None
