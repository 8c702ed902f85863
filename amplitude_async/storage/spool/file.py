"""One file of a spool and its rows. Everything here blocks.

Callers run it on a thread of their own.
"""

# ruff: noqa: S608 - all SQL is put together from constants of this file

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool import schema
from amplitude_async.storage.spool.connection import (
    BUSY_TIMEOUT,
    connect,
    deadline,
    look_into,
    transaction,
)
from amplitude_async.storage.spool.damage import READ_FAILURES, readable_rows
from amplitude_async.storage.spool.lock import ASIDE
from amplitude_async.storage.spool.presence import Presence
from amplitude_async.storage.spool.schema import translated

__all__ = ["Amount", "Extent", "SpoolFile"]

# In the order of the fields of a record.
_COLUMNS = "id, body, identity, user_id, device_id, insert_id, accepted_at"
_PLACES = "(?, ?, ?, ?, ?, ?, ?, ?)"
_PUT = f"INSERT INTO {{}} ({_COLUMNS}, checksum) VALUES {_PLACES}"
_INSERT_ID = 5
_LETTER_WIDTH = 10
# sqlite3 gives up the interpreter's lock once per statement: a row of its own each
# would cost a busy loop many times what the writing costs.
_ROWS_AT_ONCE = 64
_LAST_ROW = 2**63 - 1
# Rows are numbered in order of acceptance: no process has come so far.
_MOST_ROWS = 2**40
# How long a file may take to be looked through, in seconds, and bytes a second.
_LOOK = 10.0
_LOOK_RATE = 20 * 1024 * 1024
_SIDE_FILES = ("", "-wal", "-shm")
# Give space back to the disk in small steps, and only where much is free.
_MUCH_FREE = 2_048
_PAGES_AT_ONCE = 1_000


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
    """The rows of one spool file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.presence = Presence(path)

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
                with spool.looking():
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
                with spool.looking():
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
                with spool.looking():
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
        return not self._value("SELECT count(*) FROM sqlite_master")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Give up on a file that takes longer to look through than its size explains.

        Raises:
            CorruptSpoolError: it does, or is damaged.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        with (
            translated(self.path),
            deadline(self._connection, _LOOK + size / _LOOK_RATE),
        ):
            yield

    def verify(self) -> None:
        """Look through the whole file for damage.

        Raises:
            CorruptSpoolError: some is found.
        """
        with self.looking():
            found = self._value("PRAGMA quick_check(1)")
            # Each by itself, which SQLite reads from the ends.
            first = self._value("SELECT min(id) FROM events")
            last = self._value("SELECT max(id) FROM events")
        problem = None if found == "ok" else str(found)[:200]
        # No process has numbered so many, and ids must not run out.
        if last is not None and not 0 < first <= last < _MOST_ROWS:
            problem = f"rows {first} to {last} are out of bounds"
        if problem:
            msg = f"{self.path}: {problem}: it is damaged"
            raise schema.CorruptSpoolError(msg)

    def _value(self, query: str) -> Any:
        """Ask for one value."""
        with translated(self.path):
            return self._connection.execute(query).fetchone()[0]

    def close(self) -> None:
        """Close the file; a clean close folds the write-ahead log into it."""
        with translated(self.path):
            self._connection.close()

    def remove(self) -> None:
        """Delete the closed file and what SQLite keeps beside it."""
        self.sweep(self.path)

    @staticmethod
    def sweep(path: Path) -> None:
        """Delete a file that nobody has open, and what SQLite keeps beside it."""
        for suffix in _SIDE_FILES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)

    @staticmethod
    def set_aside(path: Path) -> Path:
        """Rename a closed file so that nobody takes it for a spool; returns where."""
        aside = path.with_suffix(ASIDE)
        for suffix in _SIDE_FILES:
            # A clean close has folded the other two into the first.
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    # Records -----------------------------------------------------------------

    def insert(self, records: Iterable[Record]) -> None:
        """Write records in one transaction."""
        rows = [(*record, zlib.crc32(record.body)) for record in records]
        with self._transaction() as connection:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                connection.execute(
                    f"INSERT INTO events ({_COLUMNS}, checksum) VALUES "
                    + ",".join([_PLACES] * len(part)),
                    [value for row in part for value in row],
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of a block or nothing of it; errors say what to do."""
        with translated(self.path), transaction(self._connection):
            yield self._connection

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
                f"SELECT {_COLUMNS}, checksum FROM events"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, _LAST_ROW if up_to is None else up_to, limit),
            )
            # Row by row: the limit in bytes decides how many are read at all.
            for row in rows:
                record = _read(row)
                total += len(record.body)
                if total > max_bytes and (found or not one_at_least):
                    break
                found.append(record)
        return found

    def quarantine(self, ids: Sequence[int]) -> Amount:
        """Set damaged records aside."""
        with self._suspecting(), self._transaction() as connection:
            connection.executemany(
                "INSERT INTO quarantine SELECT * FROM events WHERE id = ?",
                [(number,) for number in ids],
            )
            return _delete(connection, ids)

    def receive(self, damaged: "SpoolFile", *, renumber: bool) -> tuple[int, int]:
        """Take what can be read of a damaged file into this one, which is empty.

        Args:
            damaged: is not changed.
            renumber: give a number to a row whose own is out of bounds or taken;
                without this it is set aside.

        Returns:
            How many events were taken, and how many were set aside.
        """
        known: set[tuple[Any, Any]] = set()
        taken: set[int] = set()
        bad: list[Sequence[Any]] = []
        strays: list[Sequence[Any]] = []
        with self._transaction() as connection:
            for row in damaged.wreckage():
                number = row[0]
                if (number, row[_INSERT_ID]) in known:
                    continue
                known.add((number, row[_INSERT_ID]))
                if not _read(row).body:
                    bad.append(row)
                elif number in taken or not 0 < number < _MOST_ROWS:
                    strays.append(row)
                else:
                    taken.add(number)
                    connection.execute(_PUT.format("events"), row)
            if renumber:
                first = max(taken, default=0) + 1
                strays = [(n, *row[1:]) for n, row in enumerate(strays, first)]
                connection.executemany(_PUT.format("events"), strays)
                taken.update(range(first, first + len(strays)))
            else:
                bad += strays
            connection.executemany(_PUT.format("quarantine"), bad)
        self._receive_letters(damaged)
        return len(taken), len(bad)

    def _receive_letters(self, damaged: "SpoolFile") -> None:
        """Take dead letters over as far as they can be read."""
        places = ", ".join("?" * _LETTER_WIDTH)
        with contextlib.suppress(StorageError), self._transaction() as connection:
            connection.executemany(
                f"INSERT OR IGNORE INTO dead_letters VALUES ({places})",
                damaged.letters_left(),
            )

    def letters_left(self) -> Iterator[tuple[Any, ...]]:
        """Read the dead letters of a damaged file, as far as that goes."""
        with contextlib.suppress(*READ_FAILURES):
            yield from self._connection.execute("SELECT * FROM dead_letters")

    def wreckage(self) -> Iterator[tuple[Any, ...]]:
        """Read the rows of a damaged file, some of them more than once."""
        return readable_rows(
            self._connection, f"SELECT {_COLUMNS}, checksum FROM events"
        )

    def peek(self) -> Iterator[Record]:
        """Read every record in order and leave damaged ones where they are.

        A damaged record has an empty body.
        """
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, checksum FROM events ORDER BY id"
            )
            for row in rows:
                yield _read(row)

    def delete(self, ids: Iterable[int]) -> Amount:
        """Forget records; says what there was of them."""
        with self._suspecting(), self._transaction() as connection:
            return _delete(connection, ids)

    def sizes(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Say of each of these records that is there how many bytes its body has."""
        places = ",".join("?" * len(ids))
        with translated(self.path):
            return self._connection.execute(
                f"SELECT id, length(body) FROM events WHERE id IN ({places})", ids
            ).fetchall()

    @property
    def reusable(self) -> int:
        """How many bytes can be written before the file grows."""
        pages = self._value("PRAGMA freelist_count")
        return int(pages * self._value("PRAGMA page_size"))

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

    def shrink(self) -> None:
        """Give the disk a little of the free space back, where there is much of it."""
        free = self._value("PRAGMA freelist_count")
        if free < _MUCH_FREE or free * 2 <= self._value("PRAGMA page_count"):
            return
        with translated(self.path):
            steps = self._connection.execute(
                f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})"
            )
            steps.fetchall()  # each step frees a page

    def extent(self) -> Extent:
        """Count the records; rows are 0 where there are none."""
        with translated(self.path):
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0),"
                " coalesce(min(id), 0), coalesce(max(id), 0) FROM events"
            ).fetchone()
        return Extent(*row)

    def quarantined(self) -> int:
        """Count the damaged records that were set aside."""
        return int(self._value("SELECT count(*) FROM quarantine"))

    def oldest(self) -> float | None:
        """When the oldest record was accepted, seconds since the epoch."""
        found = self._value("SELECT min(accepted_at) FROM events")
        return None if found is None else float(found)

    def first_accepted(self) -> float | None:
        """When the first record was accepted; found at once, however many there are."""
        with translated(self.path):
            row = self._connection.execute(
                "SELECT accepted_at FROM events ORDER BY id LIMIT 1"
            ).fetchone()
        # A damaged row may have a value of any type.
        return row[0] if row and isinstance(row[0], float) else None

    # Dead letters ------------------------------------------------------------

    def bury(self, letters: Sequence[DeadLetter], keep: int) -> None:
        """Keep rejected records, the newest so many of them."""
        rows = [
            (
                *letter.record[1:],  # all but the id: a letter gets one of its own
                letter.code,
                letter.message,
                letter.rejected_at,
            )
            for letter in letters
        ]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO dead_letters (body, identity, user_id, device_id,"
                " insert_id, accepted_at, code, message, rejected_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            _keep_newest(connection, keep)

    def inherit(self, other: "SpoolFile", keep: int) -> None:
        """Take over dead letters and damaged records of another file."""
        columns = _COLUMNS.removeprefix("id, ") + ", code, message, rejected_at"
        for table, names in (("dead_letters", columns), ("quarantine", "*")):
            rows = other.read_table(table, names)
            if not rows:
                continue
            # Letters are numbered anew, as rows that are in order of their coming;
            # quarantined rows have no key and keep their numbers.
            into = table if names == "*" else f"{table} ({names})"
            places = ", ".join("?" * len(rows[0]))
            with self._transaction() as connection:
                connection.executemany(f"INSERT INTO {into} VALUES ({places})", rows)
                _keep_newest(connection, keep)
            # Only now: a crash in between doubles them and loses none.
            other.empty_table(table)

    def read_table(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Read a table of this file, in order."""
        with translated(self.path):
            return self._connection.execute(
                f"SELECT {columns} FROM {table} ORDER BY id"
            ).fetchall()

    def empty_table(self, table: str) -> None:
        """Forget everything in a table of this file."""
        with translated(self.path):
            self._connection.execute(f"DELETE FROM {table}")

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected records, oldest first."""
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, code, message, rejected_at FROM dead_letters"
                " ORDER BY id"
            ).fetchall()
        return [DeadLetter.from_row(row) for row in rows]

    def fetch_letters(
        self, after: int, limit: int, max_bytes: int, *, up_to: int
    ) -> list[DeadLetter]:
        """Read dead letters above a number, in order; one at least if any."""
        found: list[DeadLetter] = []
        total = 0
        if not self.buried():
            return found
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, code, message, rejected_at FROM dead_letters"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, up_to, limit),
            )
            for row in rows:
                letter = DeadLetter.from_row(row)
                # As for events: any value may stand in any column of a damaged row.
                if not isinstance(letter.record.body, bytes):
                    letter = letter._replace(record=letter.record._replace(body=b""))
                total += len(letter.record.body)
                if total > max_bytes and found:
                    break
                found.append(letter)
        return found

    def last_letter(self) -> int:
        """Return the number of the newest dead letter; 0 where there is none."""
        if not self.buried():
            return 0
        return int(self._value("SELECT max(id) FROM dead_letters"))

    @property
    def keeps(self) -> bool:
        """True while there is something in the file that a person may want."""
        found = self._value(
            "SELECT EXISTS (SELECT 1 FROM events)"
            " OR EXISTS (SELECT 1 FROM dead_letters)"
            " OR EXISTS (SELECT 1 FROM quarantine)"
        )
        return bool(found)

    def buried(self) -> int:
        """Count the dead letters; a file of version 1 has none."""
        with translated(self.path):
            # One who only looks brings nothing up to date.
            if schema.schema_version(self._connection, self.path) < 2:
                return 0
        return int(self._value("SELECT count(*) FROM dead_letters"))

    def exhume(self, ids: Iterable[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with self._transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM dead_letters WHERE id BETWEEN ? AND ?", _runs(ids)
            )
            return connection.total_changes - before


def _delete(connection: sqlite3.Connection, ids: Iterable[int]) -> Amount:
    count = size = 0
    for run in _runs(ids):
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


def _keep_newest(connection: sqlite3.Connection, keep: int) -> None:
    """Forget all dead letters but so many."""
    connection.execute(
        "DELETE FROM dead_letters WHERE id <= (SELECT max(id) FROM dead_letters) - ?",
        (keep,),
    )


def _runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Fold numbers into runs of neighbours: settled events mostly are."""
    runs: list[tuple[int, int]] = []
    first = last = None
    for number in sorted(set(ids)):
        if last is not None and first is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            runs.append((first, last))
        first = last = number
    if first is not None and last is not None:
        runs.append((first, last))
    return runs


def _read(row: Sequence[Any]) -> Record:
    """Make a record of a row; one that is damaged gets an empty body."""
    record = Record.from_row(row)
    # SQLite puts any value into any column: what a broken disk has left of a row can
    # be of another type as well.
    sound = (
        isinstance(record.body, bytes)
        and zlib.crc32(record.body) == row[-1]
        and isinstance(record.identity, str)
        and isinstance(record.insert_id, str)
        and isinstance(record.accepted_at, float)
        # Bodies are joined by hand into requests: what is not exactly one object could
        # put other things into one, another key for instance.
        and _is_object(record.body)
    )
    if sound:
        return record
    return Record(record.id, b"", "", None, None, str(record.insert_id or ""), 0.0)


def _is_object(body: bytes) -> bool:
    """Say whether bytes are one JSON object and nothing else."""
    try:
        text = body.decode()
        return text[:1] == "{" and _DECODER.raw_decode(text)[1] == len(text)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


# Numbers stay text: nobody asks for them, and to make them takes half of the time.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=str, parse_int=str
)


def _sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
