"""The files that one open spool reads from: its own, and those it has taken over.

Everything here runs on the spool's thread, but for what says otherwise.
"""

import bisect
import contextlib
import ctypes
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from weakref import WeakSet

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool.file import Amount, Extent, SpoolFile
from amplitude_async.storage.spool.lock import SUFFIX, SpoolLock
from amplitude_async.storage.spool.making import (
    LockedFile,
    make_directory,
    make_locked,
)
from amplitude_async.storage.spool.salvage import replace, rescue
from amplitude_async.storage.spool.schema import CorruptSpoolError
from amplitude_async.storage.spool.space import DiskReserve, Postponed
from amplitude_async.storage.spool.strangers import (
    is_empty,
    name_stranger,
    open_to_all,
)

__all__ = ["Source", "Sources", "Tally"]

logger = logging.getLogger("amplitude_async.storage")

T = TypeVar("T")

_HIGHEST = 2**63 - 1
_FILES_LOOKED_AT = 8
_EMPTY = Extent(0, 0, 0, 0)
# Each file that is taken over needs descriptors: a process has few of them.
_FILES_AT_ONCE = 8
# So many seconds the looking about for files may keep those who append waiting.
_LOOK_ABOUT = 0.5
# So long a file that cannot be taken over is left alone, in seconds.
_CLAIM_AGAIN = (1.0, 1_800.0)
# Who writes to a file that we have taken over holds up those who write to our own.
_STRANGERS_WAIT = 0.05
_DELETE_AGAIN = (0.1, 30.0)
# What one transaction deletes: each page of it goes through the log. The less, the
# less space it takes of a disk that has little.
_ROWS_AT_ONCE = 2_000
_FEW_ROWS = 200
_FEW_BYTES = 512 * 1024
# Readings of a file in a row that fail before it is passed over.
_FAILED_READS = 5
# So often a damaged file is replaced: a disk that spoils each new one is not to be
# filled with them.
_MOST_MENDINGS = 3


class Tally:
    """A count that only one thread changes, so that it needs no lock."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events = 0
        self.size = 0

    def add(self, events: int, size: int) -> None:
        """Count so many events and bytes more, or less."""
        self.events += events
        self.size += size

    def clear(self) -> None:
        """Begin again at nothing."""
        self.events = self.size = 0


class Source:
    """One file and the range of ids under which its records are handed out."""

    __slots__ = (
        "__weakref__",
        "_count",
        "_failures",
        "_first",
        "_last",
        "_size",
        "base",
        "deletions",
        "file",
        "ids",
        "lock",
        "mendings",
        "owed",
    )

    def __init__(
        self, file: SpoolFile, lock: SpoolLock, extent: Extent = _EMPTY
    ) -> None:
        self.file = file
        self.lock = lock
        self.base = 0
        """Added to a row's number to make an id; 0 for the own file."""
        self.ids = range(0)
        """The ids of an adopted file; empty for the own file."""
        self.owed: list[int] = []
        """Rows that could not be deleted as yet."""
        self.deletions: Postponed[Path] = Postponed(*_DELETE_AGAIN)
        """Whether to try that again already."""
        self._failures = 0
        self.mendings = 0
        """How often it was damaged and a new file took its place."""
        self._count, self._size = extent.events, extent.size
        self._first, self._last = extent.first, extent.last

    def number(self, allot: Callable[[int], int]) -> int:
        """Get ids for the records that were there; returns how many those are."""
        # Rows between them that are gone get ids as well: adding is all it takes then.
        span = self._last - self._first + 1
        start = allot(span)
        self.base = start - self._first
        self.ids = range(start, start + span)
        return self._count

    @property
    def amount(self) -> Amount:
        """How much is in the file."""
        return Amount(self._count, self._size)

    @property
    def is_passed_over(self) -> bool:
        """True once reading it has failed too often; its rows wait for a restart."""
        return self._failures >= _FAILED_READS

    def owe(self, rows: list[int]) -> None:
        """Note rows that are to be deleted."""
        self.owed += rows

    def pay(self) -> None:
        """Note that nothing is to be deleted any more."""
        self.owed.clear()

    def was_read(self, *, well: bool) -> None:
        """Count the readings that fail in a row."""
        self._failures = 0 if well else self._failures + 1

    def reduce(self, removed: Amount) -> None:
        """Count what was removed."""
        self._count -= removed.events
        self._size -= removed.size

    def grow(self, events: int, size: int) -> None:
        """Count what was written."""
        self._count += events
        self._size += size

    def note_mending(self) -> None:
        """Count that a damaged file is replaced."""
        self.mendings += 1

    def relock(self, lock: SpoolLock) -> None:
        """Go on with another lock, as the old one's file is gone."""
        self.lock.release(remove=False)
        self.lock = lock

    def take(self, saved: LockedFile) -> Amount:
        """Go on with a new file; returns how much did not come along."""
        self.file, self.lock = saved
        left = self.file.extent()
        return Amount(self._count - left.events, self._size - left.size)

    def leave(self) -> None:
        """Close the file and free it; delete it where nothing is left in it."""
        try:
            if self.owed:
                with contextlib.suppress(StorageError):
                    self.file.delete(self.owed)
            kept = self.file.keeps
            self.file.close()
            if not kept:
                self.file.remove()
        finally:
            self.lock.release(remove=True)


class _NoRoomError(Exception):
    """A file was given back: it comes when those at hand are done with."""


class _Stretch(NamedTuple):
    """Ids in a row whose records lie in one file."""

    source: Source
    above: int
    up_to: int


class Sources:
    """Owns the files of one spool: makes, claims, reads, empties and leaves them.

    Args:
        directory: where they lie; others have files there as well.
        full_sync: sync the own file to the disk in every transaction.
        dead_letters: keep so many of the newest rejected events.
        min_free_bytes: leave so much of the disk free.
    """

    def __init__(
        self,
        directory: Path,
        *,
        full_sync: bool,
        dead_letters: int,
        min_free_bytes: int,
    ) -> None:
        self.own: Source | None = None
        """The file that this process writes to, while the spool is open."""
        self.settled = Tally()
        """What is in no file any more; what was taken over counts less than nothing."""
        self.held = Tally()
        """What is left of what was taken over."""
        self._directory = directory
        self._full_sync = full_sync
        self._dead_letters = dead_letters
        self._destination = ""
        # Handed from thread to thread: what is claimed waits here for its ids, which
        # only the loop's thread can give.
        self._claimed: deque[Source] = deque()
        self._adopted: list[Source] = []
        self._told: set[Path] = set()
        self._reserve = DiskReserve(directory, min_free_bytes)
        self._postponed: Postponed[Path] = Postponed(*_CLAIM_AGAIN)

    # Making and leaving ------------------------------------------------------

    def open(self, destination: str, room: Amount) -> None:
        """Make the own file, and lock those of processes that are gone.

        Where the disk has no room for an own file, theirs are drained first, and the
        own one is made with the first event that is written.

        Args:
            destination: whose records these are.
            room: take over no more than this.

        Raises:
            StorageError: the directory cannot be used, and nothing is there to drain.
        """
        make_directory(self._directory)
        if open_to_all(self._directory):
            message = "anybody may delete its files: chmod 700"
            self._tell(logging.WARNING, self._directory, message)
        self._destination = destination
        problem: StorageError | None = None
        if not self._reserve.is_touched:
            problem = self._try_to_make_own()
        self.claim_orphans(room)
        if self.own is None and not self._claimed:
            problem = self._try_to_make_own()
            if problem is not None:
                raise problem
        if self.own is None:
            logger.error(
                "the spool %s has no room for a file of its own: events that are left "
                "from before are sent, new ones are in memory only%s",
                self._directory,
                f": {problem}" if problem is not None else "",
            )

    def _try_to_make_own(self) -> StorageError | None:
        """Make the own file; returns what went wrong."""
        try:
            self.own = _make_own(
                self._directory, self._destination, full_sync=self._full_sync
            )
        except StorageError as error:
            return error
        return None

    def leave(self) -> None:
        """Close and free every file, and delete those with nothing left.

        Raises:
            StorageError: one of them made trouble; all are free even so.
        """
        # What was deleted meanwhile is written once more: it is called stored.
        problem: StorageError | None = None
        try:
            self.confirm()
        except StorageError as error:
            problem = error
        sources = self._all()
        self.own = None
        self._destination = ""
        self._adopted = []
        self._claimed.clear()
        self.held.clear()
        for source in sources:
            try:
                source.leave()
            except StorageError as error:
                problem = error
        if problem is not None:
            raise problem

    def _all(self) -> list[Source]:
        own = [self.own] if self.own is not None else []
        return [*own, *self._adopted, *self._claimed]

    # Taking over -------------------------------------------------------------

    def number_claimed(self, allot: Callable[[int], int]) -> int:
        """Give ids to what was claimed; runs on the loop's thread, where ids are.

        Returns:
            How many events were taken over.
        """
        taken = 0
        # Also those that an adoption claimed whose waiter was cancelled.
        while self._claimed:
            source = self._claimed.popleft()
            taken += source.number(allot)
            self._adopted.append(source)
        return taken

    def claim_orphans(self, room: Amount) -> None:
        """Lock files of processes that are gone, few at a time.

        Args:
            room: so much may be taken over in all; more than that only in one file.
        """
        self._delete_owed()
        give_up_at = time.monotonic() + _LOOK_ABOUT
        before = len(self._claimed)
        mine = {source.file.path for source in self._all()}
        paths = sorted(self._directory.glob(f"*{SUFFIX}"))
        self._postponed.keep_only(paths)
        for path in paths:
            if (
                len(self._claimed) - before >= _FILES_AT_ONCE
                or (self.held.events and self.held.events >= room.events)
                or (self.held.events and self.held.size >= room.size)
                or time.monotonic() > give_up_at
            ):
                return
            if path in mine or not self._postponed.is_due(path):
                continue
            try:
                self._look_at(path, room)
            except _NoRoomError:
                return  # the oldest come first

    def _look_at(self, path: Path, room: Amount) -> None:
        """Lock a file where that works; else leave it alone for a while."""
        before = self.held.events
        try:
            if SpoolLock.is_held(path):
                return  # its process lives
            self._claim(path, room)
        except _NoRoomError:
            raise
        except Exception as error:  # noqa: BLE001 - one file harms no other
            problem = f"{type(error).__name__}: it is left alone for now"
            self._tell(logging.ERROR, path, problem)
        if self.held.events > before or not path.exists():
            self._postponed.worked(path)
        else:
            self._postponed.failed(path)

    def _claim(self, path: Path, room: Amount) -> None:
        if stranger := name_stranger(path):
            self._tell(logging.WARNING, path, stranger)
            return
        lock = SpoolLock.try_acquire(path)
        if lock is None:
            return
        source = None
        try:
            # Its owner may have removed it before the lock was ours.
            if path.exists():
                source = self._take_over(path, lock)
        except CorruptSpoolError as error:
            source = self._rescue(path, error)
        except StorageError as error:
            # What may be whole, or of a newer version, is for somebody else to read.
            self._tell(logging.ERROR, path, str(error))
        finally:
            if source is None or source.lock is not lock:
                lock.release(remove=True)
        if source is not None:
            self._keep_or_return(source, room)

    def _keep_or_return(self, source: Source, room: Amount) -> None:
        """Keep a file that was claimed, unless others are at hand and it is large."""
        amount, held = source.amount, self.held
        fits = (
            held.events + amount.events <= room.events
            and held.size + amount.size <= room.size
        )
        if held.events and not fits:
            self.settled.add(*amount)
            source.leave()
            raise _NoRoomError
        _KEPT_FROM_CHILDREN.add(source)
        held.add(*amount)
        self._claimed.append(source)

    def _take_over(self, path: Path, lock: SpoolLock) -> Source | None:
        if is_empty(path):
            if Path(f"{path}-wal").exists() and not is_empty(Path(f"{path}-wal")):
                # SQLite would clear the log away, in which there may be events.
                msg = f"{path}: is empty, and its log is not: this is no usable spool"
                raise CorruptSpoolError(msg)
            SpoolFile.sweep(path)
            return None
        # Not migrated at once: a file of another destination stays as it is.
        file = SpoolFile.open(path, migrate=False, wait=_STRANGERS_WAIT)
        source = None
        kept = True
        try:
            if file.blank:
                kept = False
            elif file.destination != self._destination:
                message = "belongs to another destination: it is left alone"
                self._tell(logging.WARNING, path, message)
            else:
                file.verify()
                file.migrate()
                source = self._measure(file, lock)
                kept = file.keeps
        finally:
            if source is None:
                file.close()
        if not kept:
            file.remove()
        return source

    def _measure(self, file: SpoolFile, lock: SpoolLock) -> Source | None:
        """Make a source of a file; None where it has no events."""
        extent = file.extent()
        if self._dead_letters and self.own is not None:
            # Where that cannot be, they stay with the file.
            with contextlib.suppress(StorageError):
                self.own.file.inherit(file, self._dead_letters)
        if not extent.events:
            return None
        self.settled.add(-extent.events, -extent.size)
        return Source(file, lock, extent)

    # Damage ------------------------------------------------------------------

    def _rescue(self, path: Path, problem: CorruptSpoolError) -> Source | None:
        """Make a source of what can be read of a damaged file; None: nothing can."""
        try:
            saved = rescue(path, self._destination, problem, full_sync=self._full_sync)
        except StorageError as error:
            self._tell(logging.ERROR, path, str(error))
            return None
        if saved is None:
            return None
        source = self._measure(*saved)
        if source is None:
            Source(*saved).leave()
        return source

    def _sound(self, source: Source, work: Callable[[SpoolFile], T]) -> T:
        """Do something with a file, and once more if that finds out some damage."""
        try:
            return work(source.file)
        except CorruptSpoolError as error:
            if source.mendings >= _MOST_MENDINGS:
                raise
            source.note_mending()
            self._replace(source, error)
            return work(source.file)

    def _replace(self, source: Source, problem: StorageError) -> None:
        """Put a new file with what can be read in the place of one."""
        saved = replace(
            source.file,
            source.lock,
            self._destination,
            problem,
            full_sync=self._full_sync,
        )
        self._count_out(source, source.take(saved))

    def confirm(self) -> None:
        """See that all files are still there, and write those again that are not.

        Raises:
            StorageError: one cannot be; what was in it dies with this process.
        """
        problem: StorageError | None = None
        for source in self._all():
            if source.amount.events <= 0 and not self._dead_letters:
                continue  # there is nothing to lose
            try:
                self._confirm(source)
            except StorageError as error:
                problem = error
        if problem is not None:
            raise problem

    def _confirm(self, source: Source) -> None:
        file = source.file
        if file.presence.is_whole and source.lock.intact:
            return
        msg = (
            f"the spool file {file.path}, or its lock, was deleted or replaced while it"
            f" was in use: let nothing clean {self._directory}"
        )
        lost = StorageError(msg)
        if not file.presence.is_whole:
            self._replace(source, lost)
            return
        lock = _lock_again(file.path)
        if lock is None:
            self._give_up(source, lost)
            return
        logger.warning("%s; it is locked again", msg)
        source.relock(lock)

    def _give_up(self, source: Source, problem: StorageError) -> None:
        """Leave a file to another process, which has taken it over and sends it."""
        logger.error("%s; another process has taken over its events", problem)
        self._count_out(source, source.amount)
        source.lock.release(remove=False)
        with contextlib.suppress(StorageError):
            source.file.close()
        if source is self.own:
            self.own = None
        elif source in self._adopted:
            self._adopted.remove(source)

    def _tell(self, level: int, path: Path, message: str) -> None:
        """Log once about a file that is left where it is."""
        if path not in self._told:
            self._told.add(path)
            logger.log(level, "spool file %s: %s", path, message)

    # Writing -----------------------------------------------------------------

    def insert(self, records: Sequence[Record], size: int) -> None:
        """Write records into the own file, in one transaction.

        Args:
            records: what to write.
            size: bytes of their bodies.

        Raises:
            StorageError: nothing was written.
        """
        # Once in the log, and once in the file.
        self._reserve.check(2 * size, self._reusable)
        if self.own is not None:
            self._confirm(self.own)
        # At the start the disk was full; meanwhile it is not.
        if self.own is None and self._destination:
            problem = self._try_to_make_own()
            if problem is not None:
                raise problem
        own = self._own()
        self._sound(own, lambda file: file.insert(records))
        own.grow(len(records), size)

    def _reusable(self) -> int:
        return 0 if self.own is None else self.own.file.reusable

    def _own(self) -> Source:
        if self.own is None:
            msg = f"the spool {self._directory} is not open"
            raise StorageError(msg)
        return self.own

    def forget(self, ids: list[int]) -> None:
        """Delete the records with these ids, which are sorted."""
        for source in self._adopted:
            start = bisect.bisect_left(ids, source.ids.start)
            stop = bisect.bisect_left(ids, source.ids.stop)
            source.owe([number - source.base for number in ids[start:stop]])
            del ids[start:stop]
        try:
            # What belongs to none of the others is the own file's.
            if ids and self.own is not None:
                self._delete(self.own, ids)
                self.own.file.shrink()
        finally:
            self._delete_owed()

    def _delete_owed(self) -> None:
        """Delete what is to be forgotten in files of others; each fails by itself."""
        # A copy, since a file that is finished leaves the list.
        for source in list(self._adopted):
            path = source.file.path
            if not source.owed or not source.deletions.is_due(path):
                continue
            try:
                self._delete(source, list(source.owed))
            except StorageError as error:
                if source.deletions.failed(path):
                    logger.warning(
                        "%s; its delivered events are deleted later, or sent again "
                        "after a restart, under the same insert_id",
                        error,
                    )
            else:
                source.pay()
                source.deletions.worked(path)

    def _delete(self, source: Source, rows: list[int]) -> None:
        is_tight = self._reserve.is_tight
        step = _FEW_ROWS if is_tight else _ROWS_AT_ONCE
        for start in range(0, len(rows), step):
            parts = [rows[start : start + step]]
            if is_tight:
                weigh = partial(SpoolFile.sizes, ids=parts[0])
                parts = _light_parts(self._sound(source, weigh))
            for part in parts:
                removed = self._sound(source, partial(SpoolFile.delete, ids=part))
                self._count_out(source, removed)
        self._be_done_with(source)

    def _count_out(self, source: Source, removed: Amount) -> None:
        """Count what is in a file no more."""
        self.settled.add(removed.events, removed.size)
        source.reduce(removed)
        if source is not self.own and not source.is_passed_over:
            self.held.add(-removed.events, -removed.size)

    def _be_done_with(self, source: Source) -> None:
        """Leave an adopted file in which nothing is left."""
        if source is not self.own and source.amount.events <= 0:
            self._adopted.remove(source)
            source.pay()
            source.leave()

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events in the own file, while the disk has room for them."""
        if self._reserve.is_touched:
            message = "rejected events are not kept: the disk is nearly full"
            self._tell(logging.WARNING, self._directory, message)
            return
        self._sound(self._own(), lambda file: file.bury(letters, self._dead_letters))

    # Reading -----------------------------------------------------------------

    def oldest(self) -> float | None:
        """When the oldest record was accepted, so far as that is found at once."""
        # Of many files that were taken over the first are the oldest.
        files = [source.file for source in self._all()[:_FILES_LOOKED_AT]]
        found = [file.first_accepted() for file in files]
        return min((one for one in found if one is not None), default=None)

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events in the own file."""
        return self._own().file.dead_letters()

    def read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        found: list[Record] = []
        for source, above, up_to in self._stretches(after):
            if len(found) >= limit or max_bytes <= 0:
                break
            try:
                fetch = partial(
                    SpoolFile.fetch,
                    after=max(above - source.base, 0),
                    limit=limit - len(found),
                    max_bytes=max_bytes,
                    up_to=up_to - source.base,
                    one_at_least=not found,
                )
                rows = self._sound(source, fetch)
            except StorageError as error:
                if found:
                    break  # what was read goes first, and this is read again
                if source is self.own or not self._pass_over(source, error):
                    raise
                continue
            source.was_read(well=True)
            max_bytes -= sum([len(record.body) for record in rows])
            damaged = [record.id for record in rows if not record.body]
            if damaged:
                self._quarantine(source, damaged)
            base = source.base
            found += [r._replace(id=r.id + base) for r in rows] if base else rows
        return found

    def _pass_over(self, source: Source, error: StorageError) -> bool:
        """Count a failed reading; True once a file is not read any more."""
        source.was_read(well=False)
        if not source.is_passed_over:
            return False
        amount = source.amount
        self.held.add(-amount.events, -amount.size)
        logger.error(
            "%s; its %d events stay where they are until the next start",
            error,
            amount.events,
        )
        return True

    def _stretches(self, after: int) -> Iterator[_Stretch]:
        """Cut the ids above one into stretches of one file each, in order."""
        own = self.own
        for source in sorted(self._adopted, key=lambda one: one.ids.start):
            first, last = source.ids.start, source.ids.stop - 1
            if last <= after:
                continue
            # Ids that were given before a file was adopted are the own file's.
            if own is not None:
                yield _Stretch(own, after, first - 1)
            if not source.is_passed_over:
                yield _Stretch(source, max(after, first - 1), last)
            after = last
        if own is not None:
            yield _Stretch(own, after, _HIGHEST)

    def _quarantine(self, source: Source, rows: list[int]) -> None:
        logger.error(
            "spool file %s: %d damaged events are set aside and not sent",
            source.file.path,
            len(rows),
        )
        # On a full disk they stay where they are until they are settled.
        with contextlib.suppress(StorageError):
            set_aside = partial(SpoolFile.quarantine, ids=rows)
            self._count_out(source, self._sound(source, set_aside))
            self._be_done_with(source)


def _light_parts(sizes: list[tuple[int, int]]) -> list[list[int]]:
    """Cut rows, of which the sizes are known, into parts of few bytes each."""
    parts: list[list[int]] = [[]]
    total = 0
    for row, size in sizes:
        if parts[-1] and total + size > _FEW_BYTES:
            parts.append([])
            total = 0
        parts[-1].append(row)
        total += size
    return parts


def _make_own(directory: Path, destination: str, *, full_sync: bool) -> Source:
    """Make and lock a file of this process.

    Raises:
        StorageError: the directory cannot be used; the message says why.
    """
    source = Source(*make_locked(directory, destination, full_sync=full_sync))
    _KEPT_FROM_CHILDREN.add(source)
    return source


def _lock_again(path: Path) -> SpoolLock | None:
    """Lock a file whose lock was deleted; None where another process was faster."""
    try:
        return SpoolLock.try_acquire(path)
    except OSError as error:
        msg = f"{path}: cannot be locked: {error.strerror or error}"
        raise StorageError(msg) from error


# State in a module, since a hook of the interpreter cannot be taken back: one for each
# file would stay for ever. Nothing is kept alive here.
_KEPT_FROM_CHILDREN: Final[WeakSet[Source]] = WeakSet()


def _keep_from_children() -> None:
    """Let a forked child neither hold the locks nor touch the databases.

    The child shares a lock's descriptor and would keep the lock beyond the parent's
    death. Its copy of a connection is never closed: closing it would fold away a log
    that the parent is writing.
    """
    for source in _KEPT_FROM_CHILDREN:
        source.lock.forget()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(source.file))
    # A child of this child has nothing to do with them, either.
    _KEPT_FROM_CHILDREN.clear()


os.register_at_fork(after_in_child=_keep_from_children)
