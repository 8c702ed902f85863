"""Whether the files that SQLite holds open still have their names.

What is written to one without a name dies with the process.
"""

import os
from pathlib import Path

from amplitude_async.exceptions import StorageError

__all__ = ["Presence"]

_BESIDE = ("-wal", "-shm")


class Presence:
    """Remembers which files an open database consists of."""

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self._beside = [f"{path}{suffix}" for suffix in _BESIDE]
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def is_whole(self) -> bool:
        """False where somebody deleted or replaced one of them."""
        return self.has_name and all(map(self._is_known, self._beside))

    @property
    def has_name(self) -> bool:
        """False where that is the database itself."""
        return self._is_known(self._name) and self._name in self._known

    def _is_known(self, name: str) -> bool:
        found = _inode(name)
        known = self._known.get(name)
        # Two of them are made at the first use, and stay until the file is closed.
        if known is None and found is not None:
            self._known[name] = found
        return known is None or found == known


def _inode(name: str) -> tuple[int, int] | None:
    """Ask which file has a name."""
    try:
        found = os.stat(name, follow_symlinks=False)  # noqa: PTH116 - on each commit
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        msg = f"{name}: {error.strerror or error}: make the directory accessible"
        raise StorageError(msg) from error
    return found.st_dev, found.st_ino
