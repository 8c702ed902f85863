"""What becomes of a damaged file: all that can be read of it moves to a new one.

Nothing is changed in the damaged one, for each change could tear it further. It is
renamed, and stays for people.
"""

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path
from amplitude_async.storage.spool.schema import CorruptSpoolError, StrangeSpoolError

__all__ = ["Salvaged", "replace", "rescue"]

logger = logging.getLogger("amplitude_async.storage")


class Salvaged(NamedTuple):
    """A new file, locked, with what could be read of a damaged one."""

    file: SpoolFile
    lock: SpoolLock


def rescue(
    path: Path, destination: str, problem: CorruptSpoolError, *, full_sync: bool
) -> Salvaged | None:
    """Set a damaged file aside, whose process is gone and whose lock we have.

    Args:
        path: where it is.
        destination: of whom events are wanted.
        problem: what is wrong with it.
        full_sync: sync the new file to the disk in every transaction.

    Returns:
        What could be read of it; None where that is nothing.

    Raises:
        StorageError: it cannot be copied, or is another destination's: it is left.
    """
    saved = None
    # Who has planted a trigger in a file may have planted its events as well.
    if not isinstance(problem, StrangeSpoolError):
        with contextlib.suppress(CorruptSpoolError):
            saved = _salvage_orphan(path, destination, full_sync=full_sync)
    aside = SpoolFile.set_aside(path)
    if saved is None:
        logger.error("%s; moved to %s, its events are not sent", problem, aside)
    else:
        _tell(problem, saved.file, f"the damaged file to {aside}")
    return saved


def _salvage_orphan(path: Path, destination: str, *, full_sync: bool) -> Salvaged:
    with contextlib.closing(SpoolFile.wreck(path)) as wreck:
        if not wreck.destination:
            msg = f"{path} does not say whose its events are"
            raise CorruptSpoolError(msg)
        if wreck.destination != destination:
            msg = f"{path} is damaged and of another destination: it is left alone"
            raise StorageError(msg)
        return _salvage(wreck, destination, renumber=True, full_sync=full_sync)


def replace(
    file: SpoolFile,
    lock: SpoolLock,
    destination: str,
    problem: StorageError,
    *,
    full_sync: bool,
) -> Salvaged:
    """Replace an open file, which is damaged or was deleted; it is closed.

    Records keep their numbers.

    Raises:
        StorageError: the new file cannot be written; the old one stays as it is.
    """
    whole, has_name = file.presence.is_whole, file.presence.has_name and lock.intact
    saved = _salvage(file, destination, renumber=False, full_sync=full_sync)
    with contextlib.suppress(StorageError):
        file.close()
    rest = "and nothing is left of the old file"
    if whole:
        rest = f"the damaged file to {SpoolFile.set_aside(file.path)}"
    elif has_name:
        # Only what SQLite keeps beside it was deleted: what it had has moved.
        file.remove()
    _tell(problem, saved.file, rest)
    lock.release(remove=True)
    return saved


def _tell(problem: StorageError, file: SpoolFile, rest: str) -> None:
    logger.error(
        "%s; %d events that could be read moved to %s, %s",
        problem,
        file.extent().events,
        file.path,
        rest,
    )


def _salvage(
    damaged: SpoolFile, destination: str, *, renumber: bool, full_sync: bool
) -> Salvaged:
    path = new_spool_path(damaged.path.parent)
    lock = _lock(path)
    try:
        file = SpoolFile.create(path, destination, full_sync=full_sync)
        try:
            file.receive(damaged, renumber=renumber)
        except BaseException:
            file.close()
            file.remove()
            raise
    except BaseException:
        lock.release(remove=True)
        raise
    return Salvaged(file, lock)


def _lock(path: Path) -> SpoolLock:
    try:
        # Who deletes the file may have deleted the directory.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = SpoolLock.try_acquire(path)
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: make the directory writable"
        raise StorageError(msg) from error
    # Nobody else knows the name: it is the file system that has no locks.
    if lock is None:
        msg = f"{path.parent} cannot lock files: choose a directory on a local disk"
        raise StorageError(msg)
    return lock
