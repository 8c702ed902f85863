"""Names of spool files and the locks beside them.

A lock tells whether the process that wrote a file is alive: the kernel frees it when
the process dies, however that happens.
"""

import fcntl
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Self

__all__ = ["ASIDE", "SUFFIX", "SpoolLock", "new_spool_path"]

SUFFIX = ".spool"
ASIDE = ".corrupt"
"""Of files that could not be read and were renamed: nobody takes them for a spool."""


def new_spool_path(directory: Path) -> Path:
    """Name a file that nobody has; names sort by the time of their making."""
    stamp = time.time_ns() // 1_000_000
    name = f"{stamp:013d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    return directory / name


# A planted link is not followed, and a planted pipe keeps nobody waiting.
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SpoolLock:
    """An advisory lock beside a spool file; the kernel frees it when we die."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Take the lock of a file; None where a living process has it."""
        lock_path = path.with_suffix(".lock")
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
        try:
            # Of a descriptor and not of a process (lockf): two spools of one process
            # must keep each other out as well.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What we have locked may be a file that has no name any more.
            same = _is_there(descriptor, lock_path)
        except OSError:
            os.close(descriptor)
            return None
        if not same:
            os.close(descriptor)  # its owner removed it in between
            return None
        return cls(lock_path, descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        """Say whether a living process has the lock of a file; makes nothing."""
        try:
            descriptor = os.open(path.with_suffix(".lock"), os.O_RDONLY | _CAREFULLY)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who ask do not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def intact(self) -> bool:
        """False where somebody has deleted or replaced the file that we have locked."""
        return self._descriptor >= 0 and _is_there(self._descriptor, self._path)

    def release(self, *, remove: bool) -> None:
        """Free the lock; ``remove`` deletes its file where nothing is left to lock."""
        if self._descriptor < 0:
            return
        # While it is still locked, or it could be the next owner's by now.
        if remove and self.intact:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def forget(self) -> None:
        """Close a descriptor inherited through fork: the lock stays the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _is_there(descriptor: int, path: Path) -> bool:
    """Say whether an open file still has its name."""
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - on each commit
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and os.path.samestat(os.fstat(descriptor), found)
