"""Whether our files are sound and still there, and what is done where they are not."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock
from amplitude_async.storage.spool.salvage import replace
from amplitude_async.storage.spool.schema import CorruptSpoolError
from amplitude_async.storage.spool.source import Source

__all__ = ["Mending"]

logger = logging.getLogger("amplitude_async.storage")

T = TypeVar("T")

# So often a damaged file is replaced: a disk that spoils each new one is not to be
# filled with them.
_MOST_MENDINGS = 3


class Mending:
    """Puts a new file in the place of one that is damaged or was deleted.

    Args:
        custody: has the files.
        dead_letters: how many of them a file may keep.
    """

    def __init__(self, custody: Custody, dead_letters: int) -> None:
        self._custody = custody
        self._dead_letters = dead_letters

    def sound(self, source: Source, work: Callable[[SpoolFile], T]) -> T:
        """Do something with a file, and once more if that finds out some damage."""
        try:
            return work(source.file)
        except CorruptSpoolError as error:
            if source.mendings >= _MOST_MENDINGS:
                raise
            source.note_mending()
            self._replace(source, error)
            return work(source.file)

    def confirm_all(self) -> None:
        """See that all files are still there, and write those again that are not.

        Raises:
            StorageError: one cannot be; what was in it dies with this process.
        """
        problem: StorageError | None = None
        for source in self._custody.all():
            if source.amount.events <= 0 and not self._dead_letters:
                continue  # there is nothing to lose
            try:
                self.confirm(source)
            except StorageError as error:
                problem = error
        if problem is not None:
            raise problem

    def confirm(self, source: Source) -> None:
        """See that one file is still there, else write it again or leave it.

        Raises:
            StorageError: it cannot be written.
        """
        file = source.file
        if file.presence.is_whole and source.lock.intact:
            return
        msg = (
            f"the spool file {file.path}, or its lock, was deleted or replaced while it"
            f" was in use: let nothing clean {self._custody.directory}"
        )
        lost = StorageError(msg)
        if not file.presence.is_whole:
            self._replace(source, lost)
            return
        lock = _lock_again(file.path)
        if lock is None:
            logger.error("%s; another process has taken over its events", lost)
            self._custody.give_up(source)
            return
        logger.warning("%s; it is locked again", msg)
        source.relock(lock)

    def _replace(self, source: Source, problem: StorageError) -> None:
        """Put a new file with what can be read in the place of one."""
        custody = self._custody
        saved = replace(
            source.file,
            source.lock,
            custody.destination,
            problem,
            full_sync=custody.full_sync,
        )
        custody.count_out(source, source.take(saved))


def _lock_again(path: Path) -> SpoolLock | None:
    """Lock a file whose lock was deleted; None where another process was faster."""
    try:
        return SpoolLock.try_acquire(path)
    except OSError as error:
        msg = f"{path}: cannot be locked: {error.strerror or error}"
        raise StorageError(msg) from error
