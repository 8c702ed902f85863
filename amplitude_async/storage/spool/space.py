"""How full a disk may become, and for how long what fails is left alone."""

import os
import sys
import time
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from amplitude_async.exceptions import StorageError

__all__ = ["DiskReserve", "Postponed"]

Key = TypeVar("Key", bound=Hashable)

# Of a small disk no more than this part is kept free.
_LARGEST_SHARE = 4


class DiskReserve:
    """The space that is left free, so that what lies on the disk can be deleted.

    To delete takes space as well: it is written into a log before it is done.

    Args:
        directory: on the disk in question.
        least: bytes to leave free, but no more than a quarter of the disk; 0: none.
    """

    def __init__(self, directory: Path, least: int) -> None:
        self._directory = directory
        self._least = least

    def __repr__(self) -> str:
        return f"<DiskReserve {self._least} bytes at {str(self._directory)!r}>"

    def check(self, size: int, reusable: Callable[[], int]) -> None:
        """See whether so many bytes can be written.

        Args:
            size: how many.
            reusable: says how many bytes take no space of the disk.

        Raises:
            StorageError: the disk is nearly full.
        """
        free, least = self._look()
        if free < least + size and free + reusable() < least + size:
            msg = (
                f"the disk of the spool {self._directory} is nearly full: {free} bytes "
                f"are free and {least} stay free for deleting: free space on the disk "
                f"(min_free_bytes={self._least})"
            )
            raise StorageError(msg)

    @property
    def is_touched(self) -> bool:
        """True where nothing more should be written."""
        free, least = self._look()
        return free < least

    @property
    def is_tight(self) -> bool:
        """True where it matters how much one transaction writes."""
        free, least = self._look()
        return free < least * _LARGEST_SHARE

    def _look(self) -> tuple[int, int]:
        """Return how many bytes are free, and how many should be."""
        if not self._least:
            return sys.maxsize, 0
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return sys.maxsize, 0  # writing finds out what is wrong
        # A file system without a size, as some are, says 0.
        least = min(self._least, disk.f_blocks * disk.f_frsize // _LARGEST_SHARE)
        return (disk.f_bavail * disk.f_frsize, least) if least else (sys.maxsize, 0)


class Postponed(Generic[Key]):
    """What failed: it is left alone for a while that doubles with each failure.

    Args:
        first: seconds after the first failure.
        longest: seconds at most.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._until: dict[Key, tuple[float, float]] = {}

    def __repr__(self) -> str:
        return f"<Postponed {len(self._until)}>"

    def is_due(self, key: Key) -> bool:
        """Say whether to try."""
        until, _ = self._until.get(key, (0.0, 0.0))
        return time.monotonic() >= until

    def failed(self, key: Key) -> bool:
        """Note a failure; True where it was the first in a row."""
        _, last = self._until.get(key, (0.0, 0.0))
        pause = min(last * 2, self._longest) if last else self._first
        self._until[key] = (time.monotonic() + pause, pause)
        return not last

    def worked(self, key: Key) -> None:
        """Note that it did not fail."""
        self._until.pop(key, None)

    def keep_only(self, keys: Collection[Key]) -> None:
        """Forget those that are gone."""
        for key in self._until.keys() - set(keys):
            del self._until[key]
