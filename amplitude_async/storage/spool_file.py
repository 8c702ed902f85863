"""One file of a spool: its lock, its schema and its rows. Everything here blocks.

Callers run it on a thread of their own.
"""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record

__all__ = ["SCHEMA_VERSION", "SUFFIX", "SpoolFile", "SpoolLock"]

SUFFIX = ".spool"
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
_MIGRATIONS = {
    2: """
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
}

_COLUMNS = "id, body, identity, user_id, device_id, insert_id, accepted_at"


class SpoolLock:
    """An advisory lock beside a spool file; the kernel frees it when we die."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Take the lock of a file; None where a living process has it."""
        lock_path = path.with_suffix(".lock")
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(descriptor), lock_path.stat())
        except OSError:
            os.close(descriptor)
            return None
        if not same:
            os.close(descriptor)  # its owner removed it in between
            return None
        return cls(lock_path, descriptor)

    def release(self, *, remove: bool) -> None:
        """Free the lock; ``remove`` deletes its file where nothing is left to lock."""
        if self._descriptor < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def forget(self) -> None:
        """Close a descriptor inherited through fork: the lock stays the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


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
            spool = cls._connect(path, full_sync=full_sync)
            spool._connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            rows = {"schema": str(SCHEMA_VERSION), "destination": destination}
            with spool._connection as connection:
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            return spool

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
                    spool._migrate()
            except BaseException:
                spool.close()
                raise
            return spool

    @classmethod
    def _connect(cls, path: Path, *, full_sync: bool) -> Self:
        connection = sqlite3.connect(
            path, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        level = "FULL" if full_sync else "NORMAL"
        connection.execute(f"PRAGMA synchronous={level}")
        return cls(path, connection)

    def _migrate(self) -> None:
        version = int(self._meta("schema") or 0)
        if not 0 < version <= SCHEMA_VERSION:
            msg = (
                f"{self.path} has spool schema {version}, this version knows 1 to "
                f"{SCHEMA_VERSION}: use the version of amplitude_async that wrote it"
            )
            raise StorageError(msg)
        for step in range(version + 1, SCHEMA_VERSION + 1):
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

    def close(self) -> None:
        """Close the file; a clean close folds the write-ahead log into it."""
        with _translated(self.path):
            self._connection.close()

    def remove(self) -> None:
        """Delete the closed file and what SQLite keeps beside it."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    # Records -----------------------------------------------------------------

    def insert(self, records: Iterable[Record]) -> None:
        """Write records in one transaction."""
        rows = [(*record, zlib.crc32(record.body)) for record in records]
        with _translated(self.path), self._transaction() as connection:
            connection.executemany(
                f"INSERT INTO events ({_COLUMNS}, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
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

    def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read records above a row number, in order; one at least if any.

        A record whose bytes are damaged comes back with an empty body and its row is
        set aside.
        """
        found: list[Record] = []
        damaged: list[int] = []
        total = 0
        with _translated(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, checksum FROM events WHERE id > ?"
                " ORDER BY id LIMIT ?",
                (after, limit),
            )
            for *values, checksum in rows:
                record = Record(*values)
                if zlib.crc32(record.body) != checksum:
                    damaged.append(record.id)
                    record = record._replace(body=b"")
                total += len(record.body)
                if total > max_bytes and found:
                    break
                found.append(record)
            if damaged:
                self._set_aside(damaged)
        return found

    def _set_aside(self, ids: Sequence[int]) -> None:
        keys = [(number,) for number in ids]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO quarantine SELECT * FROM events WHERE id = ?", keys
            )
            connection.executemany("DELETE FROM events WHERE id = ?", keys)

    def delete(self, ids: Iterable[int]) -> tuple[int, int]:
        """Forget records; returns how many there were and their bytes."""
        count = size = 0
        with _translated(self.path), self._transaction() as connection:
            for run in _runs(ids):
                found, found_bytes = connection.execute(
                    "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
                    " WHERE id BETWEEN ? AND ?",
                    run,
                ).fetchone()
                connection.execute("DELETE FROM events WHERE id BETWEEN ? AND ?", run)
                count += found
                size += found_bytes
        return count, size

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
            connection.execute(
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

    def exhume(self, ids: Iterable[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with _translated(self.path), self._transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM dead_letters WHERE id BETWEEN ? AND ?", _runs(ids)
            )
            return connection.total_changes - before


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


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(_explain(path, str(error))) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: make the directory writable"
        raise StorageError(msg) from error


def _explain(path: Path, problem: str) -> str:
    lower = problem.lower()
    if "full" in lower:
        remedy = "free space on the disk"
    elif "readonly" in lower or "unable to open" in lower:
        remedy = "make the directory writable for this process"
    elif "not a database" in lower or "malformed" in lower or "no such table" in lower:
        remedy = "this is no usable spool: move the file away"
    else:
        remedy = "check the disk and the directory"
    return f"{path}: {problem}: {remedy}"
