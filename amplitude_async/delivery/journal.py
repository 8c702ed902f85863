"""The engine's side of a storage: what is written, what is only there, its failures.

Memory first: a record is appended and goes to memory as well. Once memory is full,
records are only appended; while one of those is unread, all new ones queue behind it.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from amplitude_async.delivery.claims import Claims
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.opening import Allotted, Opening, counted
from amplitude_async.delivery.reading import Reading
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.settling import Settler
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.delivery.unread import Unread
from amplitude_async.delivery.writer import Writer
from amplitude_async.storage.base import DeadLetter, Holdings, Record, Storage

__all__ = ["Journal"]

CLOSE_TIMEOUT = 5.0
# What starts a client waits so long for its storage, in seconds.
PATIENCE = 30.0


class Journal:
    """One storage, how far it was read, and whether it can be relied on.

    Args:
        storage: keeps records beyond the process, or not.
        destination: whose records they are, without secrets.
        reporter: hears of what fails.
        clock: says how long an append takes.
        patience: seconds after which an append that has not ended has failed, and
            that a verb waits for the storage to open.
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
        self._reporter = reporter
        self._patience = patience
        self._sure = True
        self._unread = Unread()
        self._clock = clock
        self._settler = Settler(storage, reporter, clock)
        self._writer = Writer(
            storage, self._settler, reporter, clock, patience=patience
        )
        self._opening = Opening(storage, destination, reporter, clock)
        self.reading = Reading(
            storage,
            self._unread,
            settler=self._settler,
            appends=self._writer.appends,
            reporter=reporter,
            clock=clock,
        )
        """What is read of it."""
        self.claims = Claims(storage, self._unread)
        """What of it others may claim."""
        self.writes = storage.durable
        """True where settled records must be forgotten, even after a failure."""

    @property
    def durable(self) -> bool:
        """True while an appended record survives the process."""
        failed = self._opening.late or self._writer.outage.failed
        return self.writes and not failed

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
        if self._opening.late or not self.writes:
            return True
        return self._writer.outage.bypassed

    @property
    def may_work(self) -> bool:
        """True where a bypassed storage was only slow, and that not for long."""
        return self._writer.outage.brief and not self._opening.late

    @property
    def unread(self) -> int:
        """Records that are in the storage and not in memory."""
        return self._unread.count

    @property
    def ahead(self) -> int:
        """Those of them that were never read: new ones queue behind these."""
        return self._unread.ahead

    @property
    def floor(self) -> float:
        """The id from which on events in memory wait for older ones to be read."""
        return self._unread.floor

    def is_behind(self, identity: str) -> bool:
        """Say whether events of an identity went back: new ones queue behind them."""
        return identity in self._unread.left

    @property
    def appending(self) -> int:
        """Events that are being appended: not accepted as yet."""
        return len(self._writer.appends)

    def holds(self, record_id: int) -> bool:
        """Say whether an undecided record survives the process."""
        return self.writes and self._sure and record_id not in self._writer.loose

    def count(self, pending: int) -> int:
        """Say how many of so many undecided events are in the storage."""
        return pending - len(self._writer.loose) if self.writes else 0

    @property
    def keeps_unread(self) -> bool:
        """True while nothing says that what is only in the storage is lost."""
        return self._sure

    async def confirm(self) -> None:
        """See that what was written is still there, before it is called stored.

        Raises:
            Exception: whatever the storage raised; nothing of it is stored then.
        """
        if not self._opening.done:
            return
        self._sure = False
        await self._storage.confirm()
        self._sure = True

    def __repr__(self) -> str:
        state = "open" if self._opening.done else "shut"
        failed = ", failed" if self._writer.outage.failed else ""
        return (
            f"<Journal {type(self._storage).__name__} {state}{failed}: "
            f"{self.appending} being written, {self.unread} unread>"
        )

    # Opening -----------------------------------------------------------------

    async def open(
        self, allot: Callable[[int], int], recovered: Callable[[int], None]
    ) -> None:
        """Open the storage where it is not open; a verb waits for it, but not long.

        Where it takes longer events go on in memory, and it joins them when it is open.

        Args:
            allot: reserves ids for events of other processes.
            recovered: is told how many of them were taken over.

        Raises:
            AmplitudeError: it cannot be opened, and that was found out in time.
        """
        if self._opening.done:
            self.settle_soon([])  # what a closed loop left undone
            return
        self._opening.begin(allot, partial(self._join, recovered))
        if not await self._opening.wait(self._patience):
            self._opening.go_on_without(self._patience)

    async def opened(self) -> None:
        """Wait until the storage is open, as who starts a client does.

        Raises:
            AmplitudeError: it cannot be opened, or takes too long.
        """
        self._opening.begin_again()
        if not await self._opening.wait(PATIENCE):
            raise self._opening.too_slow(PATIENCE)

    def _join(self, told: Callable[[int], None], count: int, first: float) -> None:
        self._unread.add(count, first)
        told(count)
        self.settle_soon([])  # what was put down before it was open

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Look for records that another process left behind.

        Before that, for the storage itself where it could not be opened as yet.
        """
        if not self._opening.done:
            self._opening.begin_again()
            return 0
        try:
            ids = Allotted(allot)
            adopted = counted(await self._storage.adopt(ids.allot))
        except BaseException as error:  # a storage may raise anything
            if not is_theirs(error):
                raise
            self._reporter.warning("adopt", "%s", in_words(error))
            return 0
        self._unread.add(adopted, ids.first)
        return adopted

    # Writing -----------------------------------------------------------------

    def append(self, record: Record) -> Coroutine[Any, Any, bool]:
        """Write a record; False where the storage has failed or takes long.

        A cancelled append is undone: the record was not accepted. Ask first whether
        the storage is bypassed.

        Raises:
            StorageFullError: its own limit is reached.
        """
        return self._writer.append(record)

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

    def leave_unread(self, record_id: int) -> None:
        """Note that an appended record is in the storage only."""
        self._unread.leave(record_id)

    # Settling ----------------------------------------------------------------

    @property
    def keeps_dead_letters(self) -> bool:
        """True where rejected records are kept for people."""
        return self._storage.durable and self._storage.dead_letters > 0

    @property
    def keeps_given_up(self) -> bool:
        """True where events that we give up are kept for people as well."""
        return self._storage.keeps_given_up

    def bury_soon(self, letters: list[DeadLetter]) -> None:
        """Keep rejected records in the background, before they are forgotten."""
        self._settler.bury(letters)

    def settle_soon(self, ids: Sequence[int]) -> None:
        """Forget records in the background, many at a time."""
        if not self.writes:
            return
        written = self._writer.loose.forget(ids)
        if self._opening.late:
            self._settler.settle_later(written)
        else:
            self._settler.settle(written)

    async def settled(self) -> None:
        """Wait until all records settled so far are forgotten, but not long."""
        await self._settler.wait(CLOSE_TIMEOUT)

    # The end -----------------------------------------------------------------

    async def close(self) -> None:
        """Finish writing and close the storage, however long that takes."""
        self._writer.outage.stop()
        if not await self._opening.end():
            return
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
        self._opening.rebind()
        self._settler.rebind(self._writer.appends.ids)
        self._writer.rebind()
