"""What a spool file looks like inside, and what is said of one that does not.

Versions are read by those that come after them: a file is brought up to date when it
is taken over, and one from a newer version is left to that one.
"""

# ruff: noqa: S608 - all SQL is put together from constants of this file

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from amplitude_async.exceptions import StorageError, UnstorableError

__all__ = [
    "SCHEMA_VERSION",
    "CorruptSpoolError",
    "StrangeSpoolError",
    "lay_out",
    "migrate",
    "read_label",
    "schema_version",
    "translated",
    "verify_readable",
]

SCHEMA_VERSION = 2

# A file is known by the very text of these: change none, but add a version.
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

# Whose definitions are what decides that the rows can be read.
_VITAL = ("meta", "events")
# SQLite words this one, which has no text of ours, differently from version to version.
_COPY = "quarantine"
_EVENT_COLUMNS = [
    "id",
    "body",
    "identity",
    "user_id",
    "device_id",
    "insert_id",
    "accepted_at",
    "checksum",
]
_COLUMN = re.compile(r'\s*"?(\w+)"?(?:\s+[A-Z]+)?\s*')

# SQLite has one error class for a broken file and a missing right: only its words
# tell which of them a person has to deal with.
_SIGNS_OF_CORRUPTION = (
    "not a database",
    "malformed",
    "no such table",
    "no such column",
    "unsupported file format",
    "interrupted",
    "too big",
)
# What they mean where the words say nothing: CORRUPT, NOTADB, TOOBIG, and reading that
# failed or came to an end too early.
_CODES_OF_CORRUPTION = frozenset({11, 26, 18, 266, 522})


# What SQLite raises where it works, and was given a value that it cannot keep.
_NOT_TAKEN = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.DataError)


class CorruptSpoolError(StorageError):
    """What is in the file is not what a spool has there."""


class StrangeSpoolError(CorruptSpoolError):
    """There is more in the file than a spool has: no disk does that by itself."""


class _Entry(NamedTuple):
    """What a database says of one thing in it."""

    kind: str
    name: str
    table: str
    sql: str


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
    """Read a file's version, once everything in it is what that version has.

    Raises:
        CorruptSpoolError: it names none, or something is missing or different.
        StrangeSpoolError: there is something that no spool has, such as a trigger.
        StorageError: it is from a newer version of this package.
    """
    entries = _entries(connection)
    # Not a word is read from a table that may be a view and never end.
    _require(entries, ("meta",), path)
    label = read_label(connection, "schema") or ""
    # No more digits than a version has: a damaged label may be a long number.
    version = int(label) if re.fullmatch(r"[1-9][0-9]{0,3}", label) else 0
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
    _refuse_strangers(entries, path)
    _require(entries, _tables(version), path)
    return version


def verify_readable(connection: sqlite3.Connection, path: Path) -> None:
    """See that the events of a damaged file are still ours to read.

    Raises:
        CorruptSpoolError: they are not.
    """
    entries = _entries(connection)
    _refuse_strangers(entries, path)
    _require(entries, _VITAL, path)


def _entries(connection: sqlite3.Connection) -> dict[str, _Entry]:
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 50"
    )
    return {str(row[1]): _Entry(*map(str, row)) for row in rows}


def _tables(version: int) -> tuple[str, ...]:
    old = (*_VITAL, _COPY)
    return old if version < 2 else (*old, "dead_letters")


def _refuse_strangers(entries: dict[str, _Entry], path: Path) -> None:
    known = _tables(SCHEMA_VERSION)
    for name, entry in entries.items():
        if name not in known or entry.kind != "table":
            msg = (
                f"{path} holds the {entry.kind[:20]} {name[:40]!r}, which no spool has:"
                " this is no usable spool"
            )
            raise StrangeSpoolError(msg)


def _require(entries: dict[str, _Entry], tables: tuple[str, ...], path: Path) -> None:
    for name in tables:
        entry = entries.get(name)
        if entry is None or not _is_ours(entry):
            msg = f"{path}: its table {name} is not as it was made: no usable spool"
            raise CorruptSpoolError(msg)


def _is_ours(entry: _Entry) -> bool:
    if entry.kind != "table" or entry.table != entry.name:
        return False
    if entry.name == _COPY:
        return _has_columns_only(entry.sql)
    return f"\n{entry.sql};\n" in f"{_SCHEMA}{_DEAD_LETTERS}"


def _has_columns_only(sql: str) -> bool:
    """Say whether the copy of `events` has its columns, and neither check nor default.

    No disk fault is looked for here: what is set aside there is damaged anyway.
    """
    head, _, rest = sql.partition("(")
    columns = [_COLUMN.fullmatch(one) for one in rest.removesuffix(")").split(",")]
    names = [found and found[1] for found in columns]
    return head.strip() == f"CREATE TABLE {_COPY}" and names == _EVENT_COLUMNS


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
    except StorageError:
        raise  # said already
    except sqlite3.Error as error:
        raise _explain(path, error) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}: make the directory writable"
        raise StorageError(msg) from error
    except UnicodeDecodeError as error:
        # The module reads even SQLite's own messages as text, and fails at it where
        # they name what is damaged.
        msg = f"{path}: holds text that is none: this is no usable spool"
        raise CorruptSpoolError(msg) from error
    except (UnicodeEncodeError, OverflowError) as error:
        # Its own text may hold what is not for a log.
        msg = f"{path}: cannot keep a value: {type(error).__name__}"
        raise UnstorableError(msg) from error
    except (ValueError, MemoryError) as error:
        problem = str(error) or type(error).__name__
        msg = f"{path}: {problem}: see whether the file is damaged"
        raise StorageError(msg) from error


def _explain(path: Path, error: sqlite3.Error) -> StorageError:
    problem = str(error)
    lower = problem.lower()
    code = getattr(error, "sqlite_errorcode", 0)
    if (
        code in _CODES_OF_CORRUPTION
        or code & 0xFF in _CODES_OF_CORRUPTION
        or any(sign in lower for sign in _SIGNS_OF_CORRUPTION)
    ):
        return CorruptSpoolError(f"{path}: {problem}: this is no usable spool")
    if isinstance(error, _NOT_TAKEN) or "binding parameter" in lower:
        return UnstorableError(f"{path}: cannot keep a value: {problem}")
    if "full" in lower:
        remedy = "free space on the disk"
    elif "readonly" in lower or "unable to open" in lower:
        remedy = "make the directory writable for this process"
    else:
        remedy = "check the disk and the directory"
    return StorageError(f"{path}: {problem}: {remedy}")
