"""The engine's side of a storage: what is written, what is only there, its failures.

Memory first: a record is appended and goes to memory as well. Once memory is full,
records are only appended; while one of those is unread, all new ones queue behind it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.settling import Settler
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.delivery.writer import Writer
from amplitude_async.storage.base import DeadLetter, Holdings, Record, Storage

__all__ = ["Journal"]

PAGE = 1_000
PAGE_BYTES = 8 * 1024 * 1024
CLOSE_TIMEOUT = 5.0


class _Unread:
    """What is in the storage and not in memory: how much, and from where on."""

    def __init__(self) -> None:
        self.cursor = 0
        """Id of the last record that was read, or went to memory as it was written."""
        self.count = 0
        self.arrivals = 0
        self.missing = 0
        self.abandoned = False
        """True once the rest was left to the next process."""
        self.lock = asyncio.Lock()

    def add(self, count: int) -> None:
        """Note records of other processes."""
        self.count += count

    def leave(self) -> None:
        """Note that an appended record is in the storage only."""
        self.count += 1
        self.arrivals += 1

    def pass_by(self, record_id: int) -> None:
        """Note that an appended record is in memory too."""
        self.cursor = max(self.cursor, record_id)

    def read(self, last_id: int, count: int) -> None:
        """Note a page: so many of its records are in memory from now on."""
        self.cursor = last_id
        self.count -= count

    def decided(self, count: int) -> None:
        """Note that records were decided where they lie."""
        self.count -= count

    def write_off(self) -> int:
        """Note that what should be there is not; returns how many."""
        lost, self.count = self.count, 0
        self.missing += lost
        return lost

    def abandon(self) -> int:
        """Leave everything to the next process; returns how many."""
        self.abandoned = True
        left, self.count = self.count, 0
        return left

    def take_missing(self) -> int:
        """Say once how many records were written off."""
        missing, self.missing = self.missing, 0
        return missing

    def rebind(self) -> None:
        """Forget who was reading on a closed loop."""
        self.lock = asyncio.Lock()


class Journal:
    """One storage, how far it was read, and whether it can be relied on.

    Args:
        storage: keeps records beyond the process, or not.
        destination: whose records they are, without secrets.
        reporter: hears of what fails.
        clock: says how long an append takes.
        patience: seconds after which an append that has not ended has failed.
    """

    def __init__(
        self,
        storage: Storage,
        destination: str,
        reporter: Reporter,
        clock: Clock,
        *,
        patience: float,
    ) -> None:
        self._storage = storage
        self._destination = destination
        self._reporter = reporter
        self._opened = False
        self._unread = _Unread()
        self._settler = Settler(storage, reporter)
        self._writer = Writer(
            storage, self._settler, reporter, clock, patience=patience
        )
        self.writes = storage.durable
        """True where settled records must be forgotten, even after a failure."""

    @property
    def durable(self) -> bool:
        """True while an appended record survives the process."""
        return self.writes and not self._writer.outage.failed

    @property
    def holdings(self) -> Holdings:
        """How much the storage says that it has; nothing where it cannot say."""
        try:
            return self._storage.holdings()
        except Exception:  # noqa: BLE001 - a storage may raise anything
            return Holdings()

    @property
    def bypassed(self) -> bool:
        """True while events go to memory without asking the storage."""
        return not self.writes or self._writer.outage.bypassed

    @property
    def unread(self) -> int:
        """Records that are in the storage and not in memory."""
        return self._unread.count

    @property
    def appending(self) -> int:
        """Events that are being appended: not accepted as yet."""
        return len(self._writer.appends)

    def holds(self, record_id: int) -> bool:
        """Say whether an undecided record survives the process."""
        return self.writes and record_id not in self._writer.loose

    def __repr__(self) -> str:
        state = "open" if self._opened else "shut"
        failed = ", failed" if self._writer.outage.failed else ""
        return (
            f"<Journal {type(self._storage).__name__} {state}{failed}: "
            f"{self.appending} being written, {self.unread} unread>"
        )

    # Opening -----------------------------------------------------------------

    async def open(self, allot: Callable[[int], int]) -> int:
        """Open the storage once; returns how many records it has taken over."""
        if self._opened:
            self.settle_soon([])  # what a closed loop left undone
            return 0
        recovered = await self._storage.open(self._destination, allot)
        self._opened = True
        self._unread.add(recovered)
        return recovered

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Look for records that another process left behind."""
        if self._writer.outage.failed:
            return 0
        try:
            adopted = await self._storage.adopt(allot)
        except BaseException as error:  # a storage may raise anything
            if not is_theirs(error):
                raise
            self._reporter.warning("adopt", "%s", in_words(error))
            return 0
        self._unread.add(adopted)
        return adopted

    # Writing -----------------------------------------------------------------

    async def append(self, record: Record) -> bool:
        """Write a record; False where the storage is full, has failed or takes long.

        A cancelled append is undone: the record was not accepted.
        """
        return not self.bypassed and await self._writer.append(record)

    def append_soon(self, record: Record) -> None:
        """Write a record that is in memory already, in the background."""
        if not self.bypassed:
            self._writer.append_soon(record)

    def keep_in_memory(self, record_id: int) -> None:
        """Note that a record is in memory only, and does not survive the process."""
        self._writer.loose.add(record_id)

    async def written(self) -> None:
        """Wait until what is written in the background is written, or is not."""
        await self._writer.loose.wait(CLOSE_TIMEOUT)

    def mark_read(self, record_id: int) -> None:
        """Note that an appended record is in memory too."""
        self._unread.pass_by(record_id)

    def has_passed(self, record_id: int) -> bool:
        """Say whether reading has got beyond an id: what is left there is not found."""
        return record_id < self._unread.cursor

    def leave_unread(self) -> None:
        """Note that an appended record is in the storage only."""
        self._unread.leave()

    # Reading -----------------------------------------------------------------

    async def read_on(self, limit: int, max_bytes: int) -> list[Record]:
        """Read the next unread records; they are in memory from now on.

        A damaged record has an empty body.
        """
        unread = self._unread
        if unread.lock.locked():
            return []  # a purge is reading: what it finds must not slip through
        async with unread.lock:
            records: list[Record] = []
            while unread.count and not records and not unread.abandoned:
                arrivals = unread.arrivals
                try:
                    page = await self._storage.fetch(unread.cursor, limit, max_bytes)
                except BaseException as error:  # as above
                    if not is_theirs(error):
                        raise
                    self._reporter.error("storage_read", "%s", in_words(error))
                    break
                if not page and arrivals == unread.arrivals:
                    self._reporter.error(
                        "storage_lost",
                        "the storage does not find events that it had",
                        count=unread.write_off(),
                    )
                records = self._accepted(page)
                if not page:
                    break
                unread.read(page[-1].id, len(records))
            return records

    def _accepted(self, page: list[Record]) -> list[Record]:
        """Leave out what is no unread event: being appended, undone, in memory."""
        if self._writer.appends:
            # They ascend, and those who wait for them hear of them in order.
            first = self._writer.appends.first
            page[:] = [record for record in page if record.id < first]
        return self._settler.unsettled(page)

    def take_missing(self) -> int:
        """Return once how many unread records the storage has lost."""
        return self._unread.take_missing()

    async def pages(self) -> AsyncGenerator[list[Record], None]:
        """Read the unread records page by page; they stay unread."""
        after = self._unread.cursor
        while True:
            try:
                page = await self._storage.fetch(after, PAGE, PAGE_BYTES)
            except BaseException as error:  # as above
                if not is_theirs(error):
                    raise
                self._reporter.error("storage_read", "%s", in_words(error))
                return
            records = self._accepted(page)
            if not page:
                return
            after = page[-1].id
            # Once a purge has decided all that was unread, new ones go to memory.
            yield [record for record in records if record.id > self._unread.cursor]

    async def purge(
        self,
        choose: Callable[[list[Record]], list[Record]],
        settle: Callable[[list[Record]], None],
    ) -> int:
        """Hand the chosen ones among the unread records over to be settled.

        Nothing is read on meanwhile, and nothing is found twice: what was purged is
        passed over until the storage has forgotten it.
        """
        count = 0
        async with self._unread.lock, aclosing(self.pages()) as pages:
            async for page in pages:
                if self._unread.abandoned:
                    break  # shut down meanwhile: the rest is the next process's
                found = choose(page)
                self._settler.pass_over(record.id for record in found)
                self._unread.decided(len(found))
                count += len(found)
                settle(found)
        return count

    def abandon_unread(self) -> int:
        """Leave unread records to the next process; returns how many."""
        return self._unread.abandon()

    # Settling ----------------------------------------------------------------

    @property
    def keeps_dead_letters(self) -> bool:
        """True where rejected records are kept for people."""
        return self._storage.durable and self._storage.dead_letters > 0

    def bury_soon(self, letters: list[DeadLetter]) -> None:
        """Keep rejected records in the background, before they are forgotten."""
        self._settler.bury(letters)

    def settle_soon(self, ids: Sequence[int]) -> None:
        """Forget records in the background, many at a time."""
        if self.writes:
            self._settler.settle(self._writer.loose.forget(ids))

    async def settled(self) -> None:
        """Wait until all records settled so far are forgotten, but not long."""
        await self._settler.wait(CLOSE_TIMEOUT)

    # The end -----------------------------------------------------------------

    async def close(self) -> None:
        """Finish writing and close the storage, however long that takes."""
        self._writer.outage.stop()
        if not self._opened:
            return
        self._opened = False
        await self._writer.appends.ended()
        self.settle_soon([])
        await self.settled()
        await self._storage.close()

    async def let_go(self, timeout: float) -> None:
        """Cancel what still waits for a storage that does not answer."""
        await self._settler.stop(timeout)

    def after_fork(self) -> Storage:
        """Build the storage of a forked child; the parent keeps this one."""
        self._settler.retire()
        return self._storage.after_fork()

    def rebind(self) -> None:
        """Forget what belongs to a closed loop; undo what was being appended there."""
        self._unread.rebind()
        self._settler.rebind(self._writer.appends.ids)
        self._writer.rebind()
