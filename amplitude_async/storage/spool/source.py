"""One file that an open spool reads from, and the lock that makes it ours."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from weakref import WeakSet

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.file import Amount, Extent, SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock
from amplitude_async.storage.spool.making import LockedFile
from amplitude_async.storage.spool.space import Postponed

__all__ = ["Source", "keep_from_children"]

_EMPTY = Extent(0, 0, 0, 0)
_DELETE_AGAIN = (0.1, 30.0)
# Readings of a file in a row that fail before it is passed over.
_FAILED_READS = 5


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

    def abandon(self) -> None:
        """Close the file, which another process has locked by now."""
        self.lock.release(remove=False)
        with contextlib.suppress(StorageError):
            self.file.close()

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


# State in a module, since a hook of the interpreter cannot be taken back: one for each
# file would stay for ever. Nothing is kept alive here.
_KEPT_FROM_CHILDREN: Final[WeakSet[Source]] = WeakSet()


def keep_from_children(source: Source) -> None:
    """See that a child of this process leaves a file and its lock alone."""
    _KEPT_FROM_CHILDREN.add(source)


def _leave_to_parent() -> None:
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


os.register_at_fork(after_in_child=_leave_to_parent)
