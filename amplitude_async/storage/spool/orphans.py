"""How files are claimed whose process is gone, and which are left alone."""

import contextlib
import logging
import time
from pathlib import Path

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SUFFIX, SpoolLock
from amplitude_async.storage.spool.receiving import inherit
from amplitude_async.storage.spool.salvage import rescue
from amplitude_async.storage.spool.schema import CorruptSpoolError
from amplitude_async.storage.spool.side_files import sweep
from amplitude_async.storage.spool.source import Source
from amplitude_async.storage.spool.space import Postponed
from amplitude_async.storage.spool.strangers import is_empty, name_stranger
from amplitude_async.storage.spool.told import Told

__all__ = ["Orphans"]

# Each file that is taken over needs descriptors: a process has few of them.
_FILES_AT_ONCE = 8
# So many seconds the looking about for files may keep those who append waiting.
_LOOK_ABOUT = 0.5
# So long a file that cannot be taken over is left alone, in seconds.
_CLAIM_AGAIN = (1.0, 1_800.0)
# Who writes to a file that we have taken over holds up those who write to our own.
_STRANGERS_WAIT = 0.05

# Where the header has the version that it takes to write to a file: 1, or 2 with a log.
_WRITE_VERSION = 18


class _NoRoomError(Exception):
    """A file was given back: it comes when those at hand are done with."""


class Orphans:
    """Looks about for the files of processes that are gone.

    Args:
        custody: gets what is claimed.
        told: says of each file once why it is left.
        dead_letters: keep so many of the rejected events that they have.
    """

    def __init__(self, custody: Custody, told: Told, dead_letters: int) -> None:
        self._custody = custody
        self._told = told
        self._dead_letters = dead_letters
        self._postponed: Postponed[Path] = Postponed(*_CLAIM_AGAIN)

    def claim(self) -> None:
        """Lock a few of them, while there is room for what they have."""
        custody = self._custody
        give_up_at = time.monotonic() + _LOOK_ABOUT
        before = custody.claimed
        mine = {source.file.path for source in custody.all()}
        paths = sorted(custody.directory.glob(f"*{SUFFIX}"))
        self._postponed.keep_only(paths)
        for path in paths:
            if (
                custody.claimed - before >= _FILES_AT_ONCE
                or custody.allowance.is_used_up
                or time.monotonic() > give_up_at
            ):
                return
            if path in mine or not self._postponed.is_due(path):
                continue
            try:
                self._look_at(path)
            except _NoRoomError:
                return  # the oldest come first

    def _look_at(self, path: Path) -> None:
        """Lock a file where that works; else leave it alone for a while."""
        kept = False
        try:
            if SpoolLock.is_held(path):
                return  # its process lives
            source = self._lock(path)
            if source is not None:
                self._keep_or_return(source)
                kept = True
        except _NoRoomError:
            raise
        except Exception as error:  # noqa: BLE001 - one file harms no other
            problem = f"{type(error).__name__}: it is left alone for now"
            self._told.once(logging.ERROR, path, problem)
        if kept or not path.exists():
            self._postponed.worked(path)
        else:
            self._postponed.failed(path)

    def _lock(self, path: Path) -> Source | None:
        """Make a source of a file; None where it is not for us, or has no events."""
        if stranger := name_stranger(path):
            self._told.once(logging.WARNING, path, stranger)
            return None
        lock = SpoolLock.try_acquire(path)
        if lock is None:
            return None
        source = None
        try:
            # Its owner may have removed it before the lock was ours.
            if path.exists():
                source = self._take_over(path, lock)
        except CorruptSpoolError as error:
            source = self._rescue(path, error)
        except StorageError as error:
            # What may be whole, or of a newer version, is for somebody else to read.
            self._told.once(logging.ERROR, path, str(error))
        finally:
            if source is None or source.lock is not lock:
                lock.release(remove=True)
        return source

    def _keep_or_return(self, source: Source) -> None:
        """Keep a file that was claimed, unless others are at hand and it is large."""
        if not self._custody.allowance.has_place_for(source.amount):
            source.leave()
            raise _NoRoomError
        self._custody.claim(source)

    def _take_over(self, path: Path, lock: SpoolLock) -> Source | None:
        if is_empty(path):
            if Path(f"{path}-wal").exists() and not is_empty(Path(f"{path}-wal")):
                # SQLite would clear the log away, in which there may be events.
                msg = f"{path}: is empty, and its log is not: this is no usable spool"
                raise CorruptSpoolError(msg)
            sweep(path)
            return None
        # Not migrated at once: a file of another destination stays as it is.
        file = SpoolFile.open(path, migrate=False, wait=_STRANGERS_WAIT)
        source = None
        kept = True
        try:
            if file.blank:
                kept = False
            elif file.destination != self._custody.destination:
                message = "belongs to another destination: it is left alone"
                self._told.once(logging.WARNING, path, message)
            else:
                _check_header(path)
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
        """Make a source of an open file; None where it has no events."""
        extent = file.extent()
        own = self._custody.own
        if self._dead_letters and own is not None:
            # Where that cannot be, they stay with the file.
            with contextlib.suppress(StorageError):
                inherit(own.file, file, self._dead_letters)
        return Source(file, lock, extent) if extent.events else None

    def _rescue(self, path: Path, problem: CorruptSpoolError) -> Source | None:
        """Make a source of what can be read of a damaged file; None: nothing can."""
        custody = self._custody
        try:
            saved = rescue(
                path, custody.destination, problem, full_sync=custody.full_sync
            )
        except StorageError as error:
            self._told.once(logging.ERROR, path, str(error))
            return None
        if saved is None:
            return None
        source = self._measure(*saved)
        if source is None:
            Source(*saved).leave()
        return source


def _check_header(path: Path) -> None:
    """See that SQLite would write to a file, and not only read it.

    Otherwise its events would be sent at each start and never be deleted.

    Raises:
        CorruptSpoolError: the header says that it is of a later format. SQLite's
            file format, section 1.3.3.
    """
    with path.open("rb") as file:
        header = file.read(_WRITE_VERSION + 1)
    if header[_WRITE_VERSION:] not in {b"\x01", b"\x02"}:
        msg = f"{path}: its header forbids to write to it: it is damaged"
        raise CorruptSpoolError(msg)
