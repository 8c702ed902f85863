"""Reads a storage: on and on, again what went back, or all that is unread."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from itertools import repeat

from amplitude_async.delivery.appends import Appends
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.settling import Settler
from amplitude_async.delivery.tasks import is_theirs, within
from amplitude_async.delivery.unread import Unread
from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import Record, Storage

__all__ = ["Reading"]

PAGE = 1_000
PAGE_BYTES = 8 * 1024 * 1024
# A page that has not come by then does not come: somebody else may be next.
PATIENCE = 30.0


class Reading:
    """What of a storage is read, and what comes of it.

    Args:
        storage: has the records.
        unread: how far it was read; also what others ask before they write.
        settler: knows what is to be left out.
        appends: records that are being written, and are nobody's as yet.
        reporter: hears of what fails.
        clock: says how long a page takes.
    """

    def __init__(
        self,
        storage: Storage,
        unread: Unread,
        *,
        settler: Settler,
        appends: Appends,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._unread = unread
        self._settler = settler
        self._appends = appends
        self._reporter = reporter
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Reading {self._unread.count} unread>"

    async def read_on(self, limit: int, max_bytes: int) -> list[Record]:
        """Read the next unread records; they are in memory from now on.

        A damaged record has an empty body.
        """
        unread = self._unread
        if unread.lock.locked():
            return []  # a purge is reading: what it finds must not slip through
        async with unread.lock:
            records: list[Record] = []
            while unread.ahead and not records and not unread.abandoned:
                arrivals = unread.arrivals
                page = await self._fetch(unread.cursor, limit, max_bytes)
                unread.unreadable = page is None
                if page is None:
                    break
                if not page and arrivals == unread.arrivals:
                    self._report_lost(unread.write_off())
                records = self._accepted(page)
                if not page:
                    break
                unread.read(page[-1].id, len(records))
            return records

    async def _fetch(
        self, after: int, limit: int, max_bytes: int
    ) -> list[Record] | None:
        """Read a page; None where that failed.

        A storage of somebody else's may answer with what was not asked for.
        """
        try:
            fetching = self._storage.fetch(after, limit, max_bytes)
            page = await within(PATIENCE, self._clock, fetching)
            return _checked(page, after)
        except BaseException as error:  # as above
            if not is_theirs(error):
                raise
            self._reporter.error("storage_read", "%s", in_words(error))
            return None

    def _report_lost(self, count: int) -> None:
        self._reporter.error(
            "storage_lost",
            "the storage does not find events that it had",
            count=count,
        )

    def _accepted(self, page: list[Record]) -> list[Record]:
        """Leave out what is no unread event: being appended, undone, in memory."""
        if self._appends:
            # They ascend, and those who wait for them hear of them in order.
            first = self._appends.first
            page[:] = [record for record in page if record.id < first]
        return self._settler.unsettled(page)

    def set_back(self, record: Record) -> None:
        """Leave a record that was read to the storage again: it is unread."""
        self._unread.left.add(record)

    async def read_back(self, wanted: dict[str, int], max_bytes: int) -> list[Record]:
        """Read records again that went back, the first of some identities.

        Args:
            wanted: how many of each.
            max_bytes: most bytes of them, but for the first.

        Returns:
            Records that are in memory from now on; none where reading failed.
        """
        unread = self._unread
        if unread.lock.locked():
            return []
        async with unread.lock:
            owners = {
                number: identity
                for identity, most in wanted.items()
                for number in unread.left.first_of(identity, most)
            }
            found: list[Record] = []
            numbers, index = sorted(owners), 0
            while index < len(numbers) and max_bytes > 0 and not unread.abandoned:
                page = await self._fetch(numbers[index] - 1, PAGE, PAGE_BYTES)
                if page is None:
                    break
                last = page[-1].id if page else numbers[-1]
                for record in self._settler.unsettled(page):
                    if record.id in owners and (max_bytes > 0 or not found):
                        max_bytes -= len(record.body)
                        found.append(record)
                        last = record.id if max_bytes <= 0 else last
                behind = bisect_right(numbers, last)
                self._pick_up(numbers[index:behind], owners, found)
                index = behind
            return found

    def _pick_up(
        self, numbers: list[int], owners: dict[int, str], found: list[Record]
    ) -> None:
        """Note that records were read again, or are not there any more."""
        there = {record.id for record in found}
        lost = [number for number in numbers if number not in there]
        if lost:
            self._unread.missing += len(lost)
            self._report_lost(len(lost))
        struck: dict[str, list[int]] = {}
        for number in numbers:
            struck.setdefault(owners[number], []).append(number)
        for identity, ids in struck.items():
            self._unread.left.remove(identity, ids)

    def take_missing(self) -> int:
        """Return once how many unread records the storage has lost."""
        return self._unread.take_missing()

    async def pages(self) -> AsyncGenerator[list[Record], None]:
        """Read the unread records page by page; they stay unread."""
        after = self._unread.start
        while True:
            page = await self._fetch(after, PAGE, PAGE_BYTES)
            if page is None:
                return
            records = self._accepted(page)
            if not page:
                return
            after = page[-1].id
            # Once a purge has decided all that was unread, new ones go to memory.
            yield [record for record in records if self._unread.has(record)]

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
                self._unread.decided(found)
                count += len(found)
                settle(found)
        return count

    def abandon(self) -> int:
        """Leave unread records to the next process; returns how many."""
        return self._unread.abandon()


def _checked(page: Iterable[Record], after: int) -> list[Record]:
    """Hold a page against what was asked for.

    Raises:
        StorageError: it is something else.
    """
    records = list(page)
    if all(map(isinstance, records, repeat(Record))):
        numbers = [record.id for record in records]
        if numbers == sorted(set(numbers)) and (not numbers or numbers[0] > after):
            return records
    msg = f"the storage was asked for events above {after} in order, and gave others"
    raise StorageError(msg)
