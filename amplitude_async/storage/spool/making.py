"""How a spool file comes into being: a name that nobody has, its lock, and the file."""

from pathlib import Path
from typing import NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path

__all__ = ["LockedFile", "make_directory", "make_locked"]


class LockedFile(NamedTuple):
    """A file whose lock we have."""

    file: SpoolFile
    lock: SpoolLock


def make_locked(directory: Path, destination: str, *, full_sync: bool) -> LockedFile:
    """Make and lock an empty file for records of one destination.

    Raises:
        StorageError: the directory cannot be used; the message says why.
    """
    path = new_spool_path(directory)
    lock = _lock_new(path)
    try:
        file = SpoolFile.create(path, destination, full_sync=full_sync)
    except BaseException:
        lock.release(remove=True)
        raise
    return LockedFile(file, lock)


def make_directory(directory: Path) -> None:
    """Make the directory of a spool where it is missing, for this user only.

    Raises:
        StorageError: that cannot be; the message says why.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"the spool directory {directory} cannot be made: "
            f"{error.strerror or error}: make the directory writable or choose another"
        )
        raise StorageError(msg) from error


def _lock_new(path: Path) -> SpoolLock:
    directory = path.parent
    try:
        lock = SpoolLock.try_acquire(path)
    except OSError as error:
        msg = (
            f"the spool directory {directory} is not writable: "
            f"{error.strerror or error}: choose another or change its permissions"
        )
        raise StorageError(msg) from error
    # Nobody else knows the name: it is the file system that has no locks.
    if lock is None:
        msg = (
            f"the spool directory {directory} cannot lock files: choose one on a local "
            "disk"
        )
        raise StorageError(msg)
    return lock
