"""What becomes of a damaged file: all that can be read of it moves to a new one.

Nothing is changed in the damaged one, for each change could tear it further. It is
renamed, and stays for people.
"""

import contextlib
import logging
from pathlib import Path

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock
from amplitude_async.storage.spool.making import (
    LockedFile,
    make_directory,
    make_locked,
)
from amplitude_async.storage.spool.receiving import receive
from amplitude_async.storage.spool.schema import CorruptSpoolError, StrangeSpoolError
from amplitude_async.storage.spool.side_files import set_aside

__all__ = ["replace", "rescue"]

logger = logging.getLogger("amplitude_async.storage")


def rescue(
    path: Path, destination: str, problem: CorruptSpoolError, *, full_sync: bool
) -> LockedFile | None:
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
    aside = set_aside(path)
    if saved is None:
        logger.error("%s; moved to %s, its events are not sent", problem, aside)
    else:
        _tell(problem, saved.file, f"the damaged file to {aside}")
    return saved


def _salvage_orphan(path: Path, destination: str, *, full_sync: bool) -> LockedFile:
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
) -> LockedFile:
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
        rest = f"the damaged file to {set_aside(file.path)}"
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
) -> LockedFile:
    directory = damaged.path.parent
    make_directory(directory)  # who deletes a file may have deleted that as well
    file, lock = made = make_locked(directory, destination, full_sync=full_sync)
    try:
        receive(file, damaged, renumber=renumber)
    except BaseException:
        file.close()
        file.remove()
        lock.release(remove=True)
        raise
    return made
