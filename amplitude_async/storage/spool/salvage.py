"""What becomes of a damaged file: all that can be read of it moves to a new one.

SQLite stops at the first page that it cannot read. Here it is asked again behind that
page, and row by row where that is of no use. Nothing is changed in a damaged file:
each change could tear it further.
"""

# ruff: noqa: S608 - all SQL is put together from constants of the spool

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.connection import deadline
from amplitude_async.storage.spool.file import MOST_ROWS, SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path

__all__ = ["Salvaged", "salvage"]

# An event that nothing more was found behind for so long, in seconds, was the last.
_PATIENCE = 5.0
# So many rows in a row may be missing before the next are looked for further on: an
# inner page that is lost hides a few thousand.
_CLOSELY = 20_000
# So many rows are asked for one by one, where reading in order has passed them over.
_SINGLY = 200_000


class Salvaged(NamedTuple):
    """The new file, and what was moved into it."""

    file: SpoolFile
    lock: SpoolLock
    events: int
    damaged: int
    """Rows that were set aside, since what they hold is not what was written."""


def salvage(
    damaged: SpoolFile,
    *,
    destination: str,
    renumber: bool,
    full_sync: bool,
) -> Salvaged:
    """Move what can be read of a damaged file into a new one beside it.

    Args:
        damaged: is left as it is.
        destination: for whom its events are.
        renumber: give a new number to a row whose own is damaged; otherwise, where
            numbers are in use, it is set aside.
        full_sync: sync the new file to the disk in every transaction.

    Raises:
        StorageError: the new file cannot be written; there is none then.
    """
    path = new_spool_path(damaged.path.parent)
    lock = SpoolLock.try_acquire(path)
    if lock is None:
        msg = f"{path.parent} cannot lock files: choose a directory on a local disk"
        raise StorageError(msg)
    try:
        file = SpoolFile.create(path, destination, full_sync=full_sync)
        try:
            events, aside = file.receive(damaged.salvageable(Reading), renumber)
        except BaseException:
            file.close()
            file.remove()
            raise
    except BaseException:
        lock.release(remove=True)
        raise
    return Salvaged(file, lock, events, aside)
