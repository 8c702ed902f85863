"""The files that one open spool reads from: its own, and those it has taken over.

Everything here runs on the spool's thread, but for what says otherwise.
"""

import bisect
import contextlib
import ctypes
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool.file import Extent, SpoolFile
from amplitude_async.storage.spool.lock import SUFFIX, SpoolLock, new_spool_path
from amplitude_async.storage.spool.schema import CorruptSpoolError

__all__ = ["Source", "Sources", "Tally"]

logger = logging.getLogger("amplitude_async.storage")

_HIGHEST = 2**63 - 1
_FILES_LOOKED_AT = 8
_EMPTY = Extent(0, 0, 0, 0)


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
        "_first",
        "_last",
        "base",
        "file",
        "ids",
        "lock",
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
        # The own file is never counted down: it grows, too.
        self._count = extent.events
        self._first, self._last = extent.first, extent.last

    def number(self, allot: Callable[[int], int]) -> int:
        """Get ids for the records that were there; returns how many those are."""
        # Rows between them that are gone get ids as well: adding is all it takes then.
        span = self._last - self._first + 1
        start = allot(span)
        self.base = start - self._first
        self.ids = range(start, start + span)
        return self._count

    def reduce(self, events: int) -> bool:
        """Count so many events less; True where that was the last."""
        self._count -= events
        return self._count <= 0

    def leave(self) -> None:
        """Close the file and free it; delete it where nothing is left in it."""
        try:
            kept = self.file.keeps
            self.file.close()
            if not kept:
                self.file.remove()
        finally:
            self.lock.release(remove=True)


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
    """

    def __init__(self, directory: Path, *, full_sync: bool, dead_letters: int) -> None:
        self.own: Source | None = None
        """The file that this process writes to, while the spool is open."""
        self.settled = Tally()
        """What is in no file any more; what was taken over counts less than nothing."""
        self._directory = directory
        self._full_sync = full_sync
        self._dead_letters = dead_letters
        self._destination = ""
        # Handed from thread to thread: what is claimed waits here for its ids, which
        # only the loop's thread can give.
        self._claimed: deque[Source] = deque()
        self._adopted: list[Source] = []
        self._told: set[Path] = set()

    # Making and leaving ------------------------------------------------------

    def create(self, destination: str) -> None:
        """Make the own file.

        Raises:
            StorageError: the directory cannot be used; the message says why.
        """
        self._destination = destination
        self._make_directory()
        path = new_spool_path(self._directory)
        lock = self._new_lock(path)
        try:
            file = SpoolFile.create(path, destination, full_sync=self._full_sync)
        except BaseException:
            lock.release(remove=True)
            raise
        self.own = Source(file, lock)
        _keep_from_children(self.own)

    def _make_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = (
                f"the spool directory {self._directory} cannot be made: "
                f"{error.strerror or error}: choose another or make it writable"
            )
            raise StorageError(msg) from error

    def _new_lock(self, path: Path) -> SpoolLock:
        try:
            lock = SpoolLock.try_acquire(path)
        except OSError as error:
            msg = (
                f"the spool directory {self._directory} is not writable: "
                f"{error.strerror or error}: choose another or change its permissions"
            )
            raise StorageError(msg) from error
        # Nobody else knows the name: it is the file system that has no locks.
        if lock is None:
            msg = (
                f"the spool directory {self._directory} cannot lock files: choose one "
                "on a local disk"
            )
            raise StorageError(msg)
        return lock

    def leave(self) -> None:
        """Close and free every file, and delete those with nothing left.

        Raises:
            StorageError: one of them made trouble; all are free even so.
        """
        sources = self._all()
        self.own = None
        self._adopted = []
        self._claimed.clear()
        problem: StorageError | None = None
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

    def claim_orphans(self) -> None:
        """Lock the files of processes that are gone."""
        mine = {source.file.path for source in self._all()}
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path not in mine:
                self._claim(path)

    def _claim(self, path: Path) -> None:
        lock = SpoolLock.try_acquire(path)
        if lock is None:
            return
        source = None
        try:
            # Its owner may have removed it before the lock was ours.
            if path.exists():
                source = self._take_over(path, lock)
        except CorruptSpoolError as error:
            aside = SpoolFile.set_aside(path)
            # Our own message says it all, without a traceback.
            logger.error(  # noqa: TRY400
                "%s; moved to %s, its events are not sent", error, aside
            )
        except StorageError as error:
            # What may be whole, or of a newer version, is for somebody else to read.
            self._tell(logging.ERROR, path, str(error))
        finally:
            if source is None:
                lock.release(remove=True)
        if source is not None:
            _keep_from_children(source)
            self._claimed.append(source)

    def _take_over(self, path: Path, lock: SpoolLock) -> Source | None:
        # Not migrated at once: a file of another destination stays as it is.
        file = SpoolFile.open(path, migrate=False)
        source = None
        kept = True
        try:
            if file.blank:
                kept = False
            elif file.destination != self._destination:
                message = "belongs to another destination: it is left alone"
                self._tell(logging.WARNING, path, message)
            else:
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
            size: bytes of their bodies; those that were not written count as settled.

        Raises:
            StorageError: nothing was written.
        """
        try:
            self._own_file().insert(records)
        except StorageError:
            self.settled.add(len(records), size)
            raise

    def _own_file(self) -> SpoolFile:
        if self.own is None:
            msg = f"the spool {self._directory} is not open"
            raise StorageError(msg)
        return self.own.file

    def forget(self, ids: list[int]) -> None:
        """Delete the records with these ids, which are sorted."""
        # A copy, since a file that is finished leaves the list.
        for source in list(self._adopted):
            start = bisect.bisect_left(ids, source.ids.start)
            stop = bisect.bisect_left(ids, source.ids.stop)
            if start < stop:
                rows = [number - source.base for number in ids[start:stop]]
                del ids[start:stop]
                self._delete(source, rows)
        # What belongs to none of the others is the own file's.
        if ids and self.own is not None:
            self._delete(self.own, ids)
            self.own.file.shrink()

    def _delete(self, source: Source, rows: list[int]) -> None:
        removed = source.file.delete(rows)
        self.settled.add(removed.events, removed.size)
        self._reduce(source, removed.events)

    def _reduce(self, source: Source, events: int) -> None:
        """Count an adopted file down, and be done with it at the end."""
        if source is not self.own and source.reduce(events):
            self._adopted.remove(source)
            source.leave()

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events in the own file."""
        self._own_file().bury(letters, self._dead_letters)

    # Reading -----------------------------------------------------------------

    def oldest(self) -> float | None:
        """When the oldest record was accepted, so far as that is found at once."""
        # Of many files that were taken over the first are the oldest.
        files = [source.file for source in self._all()[:_FILES_LOOKED_AT]]
        found = [file.first_accepted() for file in files]
        return min((one for one in found if one is not None), default=None)

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events in the own file."""
        return self._own_file().dead_letters()

    def read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        found: list[Record] = []
        for source, above, up_to in self._stretches(after):
            if len(found) >= limit or max_bytes <= 0:
                break
            rows = source.file.fetch(
                max(above - source.base, 0),
                limit - len(found),
                max_bytes,
                up_to=up_to - source.base,
                one_at_least=not found,
            )
            max_bytes -= sum([len(record.body) for record in rows])
            damaged = [record.id for record in rows if not record.body]
            if damaged:
                self._quarantine(source, damaged)
            base = source.base
            found += [r._replace(id=r.id + base) for r in rows] if base else rows
        return found

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
            removed = source.file.quarantine(rows)
            self.settled.add(removed.events, removed.size)
            self._reduce(source, removed.events)


def _keep_from_children(source: Source) -> None:
    """Let a forked child neither hold the lock nor touch the database.

    The child shares the lock's descriptor and would keep the lock beyond the parent's
    death. Its copy of the connection is never closed: closing it would fold away a log
    that the parent is writing.
    """
    # A hook of the interpreter cannot be taken back: it must not keep the file.
    weak = weakref.ref(source)

    def forget() -> None:
        held = weak()
        if held is not None:
            held.lock.forget()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held.file))

    os.register_at_fork(after_in_child=forget)
