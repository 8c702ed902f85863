"""One file of a spool and its events. Everything here blocks.

Callers run it on a thread of their own.
"""

# ruff: noqa: S608 - all SQL is put together from constants of this package

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import Record
from amplitude_async.storage.spool import schema
from amplitude_async.storage.spool.connection import (
    BUSY_TIMEOUT,
    connect,
    look_into,
)
from amplitude_async.storage.spool.damage import readable_rows
from amplitude_async.storage.spool.database import Database
from amplitude_async.storage.spool.letters import Letters
from amplitude_async.storage.spool.pages import Pages
from amplitude_async.storage.spool.presence import Presence
from amplitude_async.storage.spool.rows import (
    COLUMNS,
    MOST_ROWS,
    PLACES,
    read_row,
    row_of,
    runs,
)
from amplitude_async.storage.spool.schema import translated
from amplitude_async.storage.spool.side_files import sweep

__all__ = ["Amount", "Extent", "SpoolFile"]

# sqlite3 gives up the interpreter's lock once per statement: a row of its own each
# would cost a busy loop many times what the writing costs.
_ROWS_AT_ONCE = 64
_LAST_ROW = 2**63 - 1


class Extent(NamedTuple):
    """How much a file holds, and between which rows it lies."""

    events: int
    size: int
    """Bytes of all bodies."""
    first: int
    last: int


class Amount(NamedTuple):
    """So many events: what a file holds, what it holds less, what may be taken over."""

    events: int
    size: int
    """Bytes of all bodies."""


class SpoolFile:
    """The events of one spool file; its dead letters have an object of their own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._database = Database(path, connection)
        self.presence = Presence(path)
        self.letters = Letters(self._database)
        self.pages = Pages(self._database)

    # Opening and closing -----------------------------------------------------

    @classmethod
    def create(cls, path: Path, destination: str, *, full_sync: bool) -> Self:
        """Make a new, empty file for records of one destination."""
        with translated(path):
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            spool = cls(path, connect(path, full_sync=full_sync, new=True))
            try:
                schema.lay_out(spool._connection, destination)
                # The file's content is of no use where its name is lost.
                if full_sync:
                    _sync_directory(path.parent)
            except BaseException:
                spool.close()
                spool.remove()
                raise
            return spool

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        full_sync: bool = False,
        migrate: bool = True,
        wait: float = BUSY_TIMEOUT,
    ) -> Self:
        """Open an existing file and bring its schema up to date.

        Args:
            path: where it is.
            full_sync: sync each transaction to the disk.
            migrate: False leaves the schema as it is.
            wait: so many seconds where another process writes to it.

        Raises:
            StorageError: it is no spool, is damaged or is from a newer version.
        """
        with translated(path):
            spool = cls(path, connect(path, full_sync=full_sync, wait=wait))
            try:
                with spool._database.looking():
                    if not spool.blank:
                        schema.schema_version(spool._connection, path)
                if migrate:
                    spool.migrate()
            except BaseException:
                spool.close()
                raise
            return spool

    @classmethod
    def view(cls, path: Path) -> Self:
        """Open a file for reading one snapshot, whoever writes to it meanwhile.

        Nothing is migrated and nothing set aside.

        Raises:
            StorageError: it is no spool, is damaged or is from a newer version.
        """
        with translated(path):
            spool = cls(path, look_into(path))
            try:
                with spool._database.looking():
                    schema.schema_version(spool._connection, path)
            except BaseException:
                spool.close()
                raise
            return spool

    @classmethod
    def wreck(cls, path: Path) -> Self:
        """Open a damaged file as far as that goes, for reading what is left.

        Raises:
            CorruptSpoolError: nothing in it can be relied on.
            StorageError: it cannot be opened.
        """
        with translated(path):
            if not path.stat().st_size:
                # SQLite would clear the log beside it away, in which there may be
                # events.
                msg = f"{path}: is empty: this is no usable spool"
                raise schema.CorruptSpoolError(msg)
            spool = cls(path, look_into(path))
            try:
                with spool._database.looking():
                    schema.verify_readable(spool._connection, path)
            except BaseException:
                spool.close()
                raise
            return spool

    def migrate(self) -> None:
        """Bring the schema up to date.

        Raises:
            StorageError: the file is from a newer version, or damaged.
        """
        with translated(self.path):
            schema.migrate(self._connection, self.path)

    @property
    def destination(self) -> str:
        """Which destination the records are for."""
        with translated(self.path):
            return schema.read_label(self._connection, "destination") or ""

    @property
    def blank(self) -> bool:
        """True where the process died while it made the file: nothing is in it."""
        return not self._database.value("SELECT count(*) FROM sqlite_master")

    def verify(self) -> None:
        """Look through the whole file for damage.

        Raises:
            CorruptSpoolError: some is found.
        """
        with self._database.looking():
            found = self._database.value("PRAGMA quick_check(1)")
            # Each by itself, which SQLite reads from the ends.
            first = self._database.value("SELECT min(id) FROM events")
            last = self._database.value("SELECT max(id) FROM events")
        problem = None if found == "ok" else str(found)[:200]
        # No process has numbered so many, and ids must not run out.
        if last is not None and not 0 < first <= last < MOST_ROWS:
            problem = f"rows {first} to {last} are out of bounds"
        if problem:
            msg = f"{self.path}: {problem}: it is damaged"
            raise schema.CorruptSpoolError(msg)

    def close(self) -> None:
        """Close the file; a clean close folds the write-ahead log into it."""
        self._database.close()

    def remove(self) -> None:
        """Delete the closed file and what SQLite keeps beside it."""
        sweep(self.path)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Write all of a block or nothing of it; errors say what to do."""
        return self._database.transaction()

    # Records -----------------------------------------------------------------

    def insert(self, records: Iterable[Record]) -> None:
        """Write records in one transaction."""
        rows = [row_of(record) for record in records]
        with self.transaction() as connection:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                connection.execute(
                    f"INSERT INTO events ({COLUMNS}, checksum) VALUES "
                    + ",".join([PLACES] * len(part)),
                    [value for row in part for value in row],
                )

    def fetch(
        self,
        after: int,
        limit: int,
        max_bytes: int,
        *,
        up_to: int | None = None,
        one_at_least: bool = True,
    ) -> list[Record]:
        """Read records above a row number, in order; one at least if any.

        A record whose bytes are damaged comes back with an empty body.
        """
        found: list[Record] = []
        total = 0
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {COLUMNS}, checksum FROM events"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, _LAST_ROW if up_to is None else up_to, limit),
            )
            # Row by row: the limit in bytes decides how many are read at all.
            for row in rows:
                record = read_row(row)
                total += len(record.body)
                if total > max_bytes and (found or not one_at_least):
                    break
                found.append(record)
        return found

    def quarantine(self, ids: Sequence[int]) -> Amount:
        """Set damaged records aside."""
        with self._suspecting(), self.transaction() as connection:
            connection.executemany(
                "INSERT INTO quarantine SELECT * FROM events WHERE id = ?",
                [(number,) for number in ids],
            )
            return _delete(connection, ids)

    def wreckage(self) -> Iterator[tuple[Any, ...]]:
        """Read the rows of a damaged file, some of them more than once."""
        return readable_rows(
            self._connection, f"SELECT {COLUMNS}, checksum FROM events"
        )

    def peek(self) -> Iterator[Record]:
        """Read every record in order and leave damaged ones where they are.

        A damaged record has an empty body.
        """
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {COLUMNS}, checksum FROM events ORDER BY id"
            )
            for row in rows:
                yield read_row(row)

    def delete(self, ids: Iterable[int]) -> Amount:
        """Forget records; says what there was of them."""
        with self._suspecting(), self.transaction() as connection:
            return _delete(connection, ids)

    def sizes(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Say of each of these records that is there how many bytes its body has."""
        places = ",".join("?" * len(ids))
        return self._database.rows(
            f"SELECT id, length(body) FROM events WHERE id IN ({places})", ids
        )

    @contextmanager
    def _suspecting(self) -> Iterator[None]:
        """Look for damage where the disk seems to be full.

        SQLite takes a pointer beyond the end of the file for a page to be added.
        """
        try:
            yield
        except StorageError as error:
            if getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                self.verify()
            raise

    def extent(self) -> Extent:
        """Count the records; rows are 0 where there are none."""
        with translated(self.path):
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0),"
                " coalesce(min(id), 0), coalesce(max(id), 0) FROM events"
            ).fetchone()
        return Extent(*row)

    def set_aside_rows(self) -> list[tuple[Any, ...]]:
        """Read the damaged records that were set aside, as they are."""
        return self._database.rows("SELECT * FROM quarantine ORDER BY id")

    def forget_set_aside(self) -> None:
        """Forget the damaged records that were set aside."""
        with translated(self.path):
            self._connection.execute("DELETE FROM quarantine")

    def quarantined(self) -> int:
        """Count the damaged records that were set aside."""
        return int(self._database.value("SELECT count(*) FROM quarantine"))

    def oldest(self) -> float | None:
        """When the oldest record was accepted, seconds since the epoch."""
        found = self._database.value("SELECT min(accepted_at) FROM events")
        return None if found is None else float(found)

    def first_accepted(self) -> float | None:
        """When the first record was accepted; found at once, however many there are."""
        with translated(self.path):
            row = self._connection.execute(
                "SELECT accepted_at FROM events ORDER BY id LIMIT 1"
            ).fetchone()
        # A damaged row may have a value of any type.
        return row[0] if row and isinstance(row[0], float) else None

    @property
    def keeps(self) -> bool:
        """True while there is something in the file that a person may want."""
        found = self._database.value(
            "SELECT EXISTS (SELECT 1 FROM events)"
            " OR EXISTS (SELECT 1 FROM dead_letters)"
            " OR EXISTS (SELECT 1 FROM quarantine)"
        )
        return bool(found)


def _delete(connection: sqlite3.Connection, ids: Iterable[int]) -> Amount:
    count = size = 0
    for run in runs(ids):
        # Some may be gone: what is counted is what was there.
        found, found_bytes = connection.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
            " WHERE id BETWEEN ? AND ?",
            run,
        ).fetchone()
        connection.execute("DELETE FROM events WHERE id BETWEEN ? AND ?", run)
        count += found
        size += found_bytes
    return Amount(count, size)


def _sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
