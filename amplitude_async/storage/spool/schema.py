"""What a spool file looks like inside, and what is said of one that does not.

Versions are read by those that come after them: a file is brought up to date when it
is taken over, and one from a newer version is left to that one.
"""

# ruff: noqa: S608 - all SQL is put together from constants of this file

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amplitude_async.exceptions import StorageError

__all__ = [
    "SCHEMA_VERSION",
    "CorruptSpoolError",
    "lay_out",
    "migrate",
    "read_label",
    "schema_version",
    "translated",
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

# SQLite has one error class for a broken file and a missing right: only its words
# tell which of them a person has to deal with.
_SIGNS_OF_CORRUPTION = (
    "not a database",
    "malformed",
    "no such table",
    "no such column",
    "unsupported file format",
)


class CorruptSpoolError(StorageError):
    """What is in the file is not what a spool has there."""


def lay_out(connection: sqlite3.Connection, destination: str) -> None:
    """Make the tables of an empty file for records of one destination."""
    rows = {"schema": str(SCHEMA_VERSION), "destination": destination}
    # All or nothing: a file without its label could never be drained.
    connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}{_DEAD_LETTERS}")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
    connection.execute("COMMIT")


def read_label(connection: sqlite3.Connection, key: str) -> str | None:
    """Read what a file says of itself under one key; None where it does not."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Read a file's version.

    Raises:
        CorruptSpoolError: it names none.
        StorageError: it is from a newer version of this package.
    """
    label = read_label(connection, "schema") or ""
    version = int(label) if label.isdecimal() else 0
    if version < 1:
        msg = f"{path} names no spool schema: this is no usable spool"
        raise CorruptSpoolError(msg)
    # Not called corrupt: its owner's successor reads it well.
    if version > SCHEMA_VERSION:
        msg = (
            f"{path} has spool schema {version}, this version knows 1 to "
            f"{SCHEMA_VERSION}: use the version of amplitude_async that wrote it"
        )
        raise StorageError(msg)
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file up to date, one version after another.

    Raises:
        StorageError: the file is from a newer version, or damaged.
    """
    for step in range(schema_version(connection, path) + 1, SCHEMA_VERSION + 1):
        # With its number in one transaction: a step that was cut short is repeated
        # whole, and one that was done never is.
        connection.executescript(
            f"BEGIN;{_MIGRATIONS[step]}"
            f"UPDATE meta SET value='{step}' WHERE key='schema';COMMIT;"
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explain(path, str(error)) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: make the directory writable"
        raise StorageError(msg) from error


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
