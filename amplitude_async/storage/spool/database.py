"""One open database: what goes wrong with it says which file, and what to do."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amplitude_async.storage.spool.connection import deadline, transaction
from amplitude_async.storage.spool.schema import translated

__all__ = ["Database"]

# How long a file may take to be looked through, in seconds, and bytes a second.
_LOOK = 10.0
_LOOK_RATE = 20 * 1024 * 1024


class Database:
    """A connection to one file.

    Args:
        path: where the file is.
        connection: to it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    def value(self, query: str) -> Any:
        """Ask for one value."""
        with translated(self.path):
            return self.connection.execute(query).fetchone()[0]

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Ask for all rows at once."""
        with translated(self.path):
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of a block or nothing of it."""
        with translated(self.path), transaction(self.connection):
            yield self.connection

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Give up on a file that takes longer to look through than its size explains.

        Raises:
            CorruptSpoolError: it does, or is damaged.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        with (
            translated(self.path),
            deadline(self.connection, _LOOK + size / _LOOK_RATE),
        ):
            yield

    def close(self) -> None:
        """Close the file; a clean close folds the write-ahead log into it."""
        with translated(self.path):
            self.connection.close()
