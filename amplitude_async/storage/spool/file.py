"""One file of a spool: its lock, its schema and its rows. Everything here blocks.

Callers run it on a thread of their own.
"""

# ruff: noqa: S608 - all SQL is put together from constants of this file

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record

__all__ = [
    "SCHEMA_VERSION",
    "CorruptSpoolError",
    "SpoolFile",
]

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    identity TEXT NOT NULL,
    user_id TEXT,
    device_id TEXT,
    insert_id TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE quarantine AS SELECT * FROM events WHERE 0;
"""

_DEAD_LETTERS = """
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    identity TEXT NOT NULL,
    user_id TEXT,
    device_id TEXT,
    insert_id TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    code INTEGER NOT NULL,
    message TEXT NOT NULL,
    rejected_at REAL NOT NULL
);
"""

# From the version before to the one named; version 1 had no dead letters.
_MIGRATIONS = {2: _DEAD_LETTERS}

_COLUMNS = "id, body, identity, user_id, device_id, insert_id, accepted_at"
_PLACES = "(?, ?, ?, ?, ?, ?, ?, ?)"
# sqlite3 gives up the interpreter's lock once per statement: a row of its own each
# would cost a busy loop many times what the writing costs.
_ROWS_AT_ONCE = 64
_LAST_ROW = 2**63 - 1
_SIDE_FILES = ("", "-wal", "-shm")
_WAL_LIMIT = 32 * 1024 * 1024
# Give space back to the disk in small steps, and only where much is free.
_MUCH_FREE = 2_048
_PAGES_AT_ONCE = 1_000


class CorruptSpoolError(StorageError):
    """What is in the file is not what a spool has there."""


class SpoolFile:
    """The rows of one spool file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    # Opening and closing -----------------------------------------------------

    @classmethod
    def create(cls, path: Path, destination: str, *, full_sync: bool) -> Self:
        """Make a new, empty file for records of one destination."""
        with _translated(path):
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            spool = cls._connect(path, full_sync=full_sync, new=True)
            try:
                spool.make_tables(destination)
                if full_sync:
                    _sync_directory(path.parent)
            except BaseException:
                spool.close()
                spool.remove()
                raise
            return spool

    def make_tables(self, destination: str) -> None:
        """Lay an empty file out for records of one destination."""
        rows = {"schema": str(SCHEMA_VERSION), "destination": destination}
        # All or nothing: a file without its label could never be drained.
        self._connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}{_DEAD_LETTERS}")
        self._connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        self._connection.execute("COMMIT")

    @classmethod
    def open(cls, path: Path, *, full_sync: bool = False, migrate: bool = True) -> Self:
        """Open an existing file and bring its schema up to date.

        Raises:
            StorageError: it is no spool, is damaged or is from a newer version.
        """
        with _translated(path):
            spool = cls._connect(path, full_sync=full_sync)
            try:
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
        with _translated(path):
            spool = cls(path, _read_only(path))
            try:
                spool._known_version()
            except BaseException:
                spool.close()
                raise
            return spool

    @classmethod
    def _connect(cls, path: Path, *, full_sync: bool, new: bool = False) -> Self:
        connection = sqlite3.connect(
            path, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.text_factory = _text
            if new:  # later it has no effect
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
            cls._set_sync(connection, full_sync=full_sync)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    @staticmethod
    def _set_sync(connection: sqlite3.Connection, *, full_sync: bool) -> None:
        level = "FULL" if full_sync else "NORMAL"
        connection.execute(f"PRAGMA synchronous={level}")

    def _known_version(self) -> int:
        label = self._meta("schema") or ""
        version = int(label) if label.isdecimal() else 0
        if version < 1:
            msg = f"{self.path} names no spool schema: this is no usable spool"
            raise CorruptSpoolError(msg)
        if version > SCHEMA_VERSION:
            msg = (
                f"{self.path} has spool schema {version}, this version knows 1 to "
                f"{SCHEMA_VERSION}: use the version of amplitude_async that wrote it"
            )
            raise StorageError(msg)
        return version

    def migrate(self) -> None:
        """Bring the schema up to date.

        Raises:
            StorageError: the file is from a newer version, or damaged.
        """
        with _translated(self.path):
            self._migrate()

    def _migrate(self) -> None:
        for step in range(self._known_version() + 1, SCHEMA_VERSION + 1):
            self._connection.executescript(
                f"BEGIN;{_MIGRATIONS[step]}"
                f"UPDATE meta SET value='{step}' WHERE key='schema';COMMIT;"
            )

    def _meta(self, key: str) -> str | None:
        row = self._connection.execute(
            "SELECT value FROM meta WHERE key = ?", (key,)
        ).fetchone()
        return row[0] if row else None

    @property
    def destination(self) -> str:
        """Which destination the records are for."""
        with _translated(self.path):
            return self._meta("destination") or ""

    @property
    def blank(self) -> bool:
        """True where the process died while it made the file: nothing is in it."""
        with _translated(self.path):
            row = self._connection.execute(
                "SELECT count(*) FROM sqlite_master"
            ).fetchone()
        return not row[0]

    def close(self) -> None:
        """Close the file; a clean close folds the write-ahead log into it."""
        with _translated(self.path):
            self._connection.close()

    def remove(self) -> None:
        """Delete the closed file and what SQLite keeps beside it."""
        for suffix in _SIDE_FILES:
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    @staticmethod
    def set_aside(path: Path) -> Path:
        """Rename a closed file so that nobody takes it for a spool; returns where."""
        aside = path.with_suffix(".corrupt")
        for suffix in _SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    # Records -----------------------------------------------------------------

    def insert(self, records: Iterable[Record]) -> None:
        """Write records in one transaction."""
        rows = [(*record, zlib.crc32(record.body)) for record in records]
        with _translated(self.path), self._transaction() as connection:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                connection.execute(
                    f"INSERT INTO events ({_COLUMNS}, checksum) VALUES "
                    + ",".join([_PLACES] * len(part)),
                    [value for row in part for value in row],
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

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
        with _translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, checksum FROM events"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, _LAST_ROW if up_to is None else up_to, limit),
            )
            for row in rows:
                record = _read(row)
                total += len(record.body)
                if total > max_bytes and (found or not one_at_least):
                    break
                found.append(record)
        return found

    def quarantine(self, ids: Sequence[int]) -> tuple[int, int]:
        """Set damaged records aside; returns how many there were and their bytes."""
        with _translated(self.path), self._transaction() as connection:
            connection.executemany(
                "INSERT INTO quarantine SELECT * FROM events WHERE id = ?",
                [(number,) for number in ids],
            )
            return self._delete(ids)

    def peek(self) -> Iterator[Record]:
        """Read every record in order and leave damaged ones where they are.

        A damaged record has an empty body.
        """
        with _translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, checksum FROM events ORDER BY id"
            )
            for row in rows:
                yield _read(row)

    def delete(self, ids: Iterable[int]) -> tuple[int, int]:
        """Forget records; returns how many there were and their bytes."""
        with _translated(self.path), self._transaction():
            return self._delete(ids)

    def _delete(self, ids: Iterable[int]) -> tuple[int, int]:
        count = size = 0
        for run in _runs(ids):
            found, found_bytes = self._connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
                " WHERE id BETWEEN ? AND ?",
                run,
            ).fetchone()
            self._connection.execute("DELETE FROM events WHERE id BETWEEN ? AND ?", run)
            count += found
            size += found_bytes
        return count, size

    def shrink(self) -> None:
        """Give the disk a little of the free space back, where there is much of it."""
        with _translated(self.path):
            free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free < _MUCH_FREE:
                return
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
            if free * 2 > pages:
                steps = self._connection.execute(
                    f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})"
                )
                steps.fetchall()  # each step frees a page

    def extent(self) -> tuple[int, int, int, int]:
        """Count the records: (how many, their bytes, first row, last row)."""
        with _translated(self.path):
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0),"
                " coalesce(min(id), 0), coalesce(max(id), 0) FROM events"
            ).fetchone()
        count, size, first, last = row
        return count, size, first, last

    def quarantined(self) -> int:
        """Count the damaged records that were set aside."""
        with _translated(self.path):
            row = self._connection.execute("SELECT count(*) FROM quarantine").fetchone()
        return int(row[0])

    def oldest(self) -> float | None:
        """When the oldest record was accepted, seconds since the epoch."""
        with _translated(self.path):
            row = self._connection.execute(
                "SELECT min(accepted_at) FROM events"
            ).fetchone()
        return None if row[0] is None else float(row[0])

    # Dead letters ------------------------------------------------------------

    def bury(self, letters: Sequence[DeadLetter], keep: int) -> None:
        """Keep rejected records, the newest so many of them."""
        rows = [
            (
                letter.record.body,
                *letter.record[2:],
                letter.code,
                letter.message,
                letter.rejected_at,
            )
            for letter in letters
        ]
        with _translated(self.path), self._transaction() as connection:
            connection.executemany(
                "INSERT INTO dead_letters (body, identity, user_id, device_id,"
                " insert_id, accepted_at, code, message, rejected_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._forget_oldest_letters(keep)

    def inherit(self, other: "SpoolFile", keep: int) -> None:
        """Take over dead letters and damaged records of another file."""
        columns = _COLUMNS.removeprefix("id, ") + ", code, message, rejected_at"
        for table, names in (("dead_letters", columns), ("quarantine", "*")):
            rows = other.read_table(table, names)
            if not rows:
                continue
            into = table if names == "*" else f"{table} ({names})"
            places = ", ".join("?" * len(rows[0]))
            with _translated(self.path), self._transaction() as connection:
                connection.executemany(f"INSERT INTO {into} VALUES ({places})", rows)
                self._forget_oldest_letters(keep)
            # Only now: a crash in between doubles them and loses none.
            other.empty_table(table)

    def read_table(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Read a table of this file, in order."""
        with _translated(self.path):
            return self._connection.execute(
                f"SELECT {columns} FROM {table} ORDER BY id"
            ).fetchall()

    def empty_table(self, table: str) -> None:
        """Forget everything in a table of this file."""
        with _translated(self.path):
            self._connection.execute(f"DELETE FROM {table}")

    def _forget_oldest_letters(self, keep: int) -> None:
        self._connection.execute(
            "DELETE FROM dead_letters WHERE id <="
            " (SELECT max(id) FROM dead_letters) - ?",
            (keep,),
        )

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected records, oldest first."""
        with _translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, code, message, rejected_at FROM dead_letters"
                " ORDER BY id"
            ).fetchall()
        return [DeadLetter(Record(*row[:7]), *row[7:]) for row in rows]

    @property
    def keeps(self) -> bool:
        """True while there is something in the file that a person may want."""
        with _translated(self.path):
            row = self._connection.execute(
                "SELECT EXISTS (SELECT 1 FROM events)"
                " OR EXISTS (SELECT 1 FROM dead_letters)"
                " OR EXISTS (SELECT 1 FROM quarantine)"
            ).fetchone()
        return bool(row[0])

    def buried(self) -> int:
        """Count the dead letters; a file of version 1 has none."""
        with _translated(self.path):
            if self._known_version() < 2:
                return 0
            row = self._connection.execute(
                "SELECT count(*) FROM dead_letters"
            ).fetchone()
        return int(row[0])

    def exhume(self, ids: Iterable[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with _translated(self.path), self._transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM dead_letters WHERE id BETWEEN ? AND ?", _runs(ids)
            )
            return connection.total_changes - before


def _read_only(path: Path) -> sqlite3.Connection:
    """Begin a snapshot of a file."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        return _snapshot(uri)
    except sqlite3.OperationalError:
        # SQLite makes two files beside a journalled one, which a directory that
        # cannot be written forbids; without them nobody is writing.
        if not path.exists() or Path(f"{path}-wal").exists():
            raise
        return _snapshot(f"{uri}&immutable=1")


def _snapshot(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    try:
        connection.text_factory = _text
        connection.execute("BEGIN")
        # Here, and not at BEGIN, is where SQLite takes its snapshot.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


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


def _text(raw: bytes) -> str | None:
    """Read a text column; None where its bytes are no text any more."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _read(row: Sequence[Any]) -> Record:
    """Make a record of a row; one that is damaged gets an empty body."""
    record = Record(*row[:7])
    sound = (
        isinstance(record.body, bytes)
        and zlib.crc32(record.body) == row[7]
        and isinstance(record.identity, str)
        and isinstance(record.insert_id, str)
        and isinstance(record.accepted_at, float)
    )
    if sound:
        return record
    return Record(record.id, b"", "", None, None, str(record.insert_id or ""), 0.0)


def _sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explain(path, str(error)) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: make the directory writable"
        raise StorageError(msg) from error


_SIGNS_OF_CORRUPTION = (
    "not a database",
    "malformed",
    "no such table",
    "no such column",
    "unsupported file format",
)


def _explain(path: Path, problem: str) -> StorageError:
    lower = problem.lower()
    if any(sign in lower for sign in _SIGNS_OF_CORRUPTION):
        return CorruptSpoolError(f"{path}: {problem}: this is no usable spool")
    if "full" in lower:
        remedy = "free space on the disk"
    elif "readonly" in lower or "unable to open" in lower:
        remedy = "make the directory writable for this process"
    else:
        remedy = "check the disk and the directory"
    return StorageError(f"{path}: {problem}: {remedy}")
