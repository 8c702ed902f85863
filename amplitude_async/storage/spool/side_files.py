"""A database is several files: what is done to one that is closed is done to all."""

import contextlib
from pathlib import Path

from amplitude_async.storage.spool.lock import ASIDE

__all__ = ["set_aside", "sweep"]

_SIDE_FILES = ("", "-wal", "-shm")


def sweep(path: Path) -> None:
    """Delete a file that nobody has open, and what SQLite keeps beside it."""
    for suffix in _SIDE_FILES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a closed file so that nobody takes it for a spool; returns where."""
    aside = path.with_suffix(ASIDE)
    for suffix in _SIDE_FILES:
        # A clean close has folded the other two into the first.
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside
