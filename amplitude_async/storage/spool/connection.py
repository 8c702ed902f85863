"""How SQLite is asked to open a spool file: to own it, or to look into it."""

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amplitude_async.exceptions import StorageError

__all__ = ["BUSY_TIMEOUT", "connect", "deadline", "look_into", "transaction"]

# The log is cut back to this once its content is in the file: an outage must not
# leave a second file of its size behind for good.
_WAL_LIMIT = 32 * 1024 * 1024
# How long to wait, in seconds, while another process writes to the file.
BUSY_TIMEOUT = 5.0
# Far above the largest event, and far below what would take a process' memory.
_LONGEST_VALUE = 32 * 1024 * 1024
_LONGEST_STATEMENT = 100_000
# What else SQLite opens by itself beside a database.
_BESIDE = ("-wal", "-shm", "-journal")
# So many steps of SQLite's machine between two looks at the clock: a millisecond.
_STEPS = 10_000


def connect(
    path: Path, *, full_sync: bool, new: bool = False, wait: float = BUSY_TIMEOUT
) -> sqlite3.Connection:
    """Open a file for writing; wait so many seconds where another one writes.

    Raises:
        StorageError: it is a link, a pipe or the like.
    """
    _refuse_links(path)
    connection = _open(str(path), wait=wait)
    try:
        if new:  # later it has no effect
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # A reader from outside sees a snapshot and holds no writer up.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
        level = "FULL" if full_sync else "NORMAL"
        connection.execute(f"PRAGMA synchronous={level}")
    except BaseException:
        connection.close()
        raise
    return connection


def look_into(path: Path) -> sqlite3.Connection:
    """Begin a snapshot of a file; nothing can be written through it.

    Raises:
        StorageError: it is a link, a pipe or the like.
    """
    _refuse_links(path)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        return _snapshot(uri)
    except sqlite3.OperationalError:
        # SQLite makes two files beside a journalled one, which a directory that
        # cannot be written forbids; without them nobody is writing.
        if not path.exists() or Path(f"{path}-wal").exists():
            raise
        return _snapshot(f"{uri}&immutable=1")


def _refuse_links(path: Path) -> None:
    """Let nobody have us read, or write, what lies elsewhere."""
    for name in (path, *(Path(f"{path}{suffix}") for suffix in _BESIDE)):
        try:
            mode = name.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            msg = f"{name} is no regular file: a spool follows no links; remove it"
            raise StorageError(msg)


@contextmanager
def deadline(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """End by an error what reads for longer than that."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _snapshot(uri: str) -> sqlite3.Connection:
    connection = _open(uri, uri=True)
    try:
        connection.execute("BEGIN")
        # Here, and not at BEGIN, is where SQLite takes its snapshot.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _open(
    name: str, *, uri: bool = False, wait: float = BUSY_TIMEOUT
) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name,
        timeout=wait,
        # Transactions are begun by hand: the module's own would lock too late.
        isolation_level=None,
        # A file may pass from thread to thread; callers see to it that one has it.
        check_same_thread=False,
        uri=uri,
    )
    connection.text_factory = _text
    # What lies in the directory may be anybody's work.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_STATEMENT)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _text(raw: bytes) -> str | None:
    """Read a text column; None where its bytes are no text any more."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all of a block or nothing of it."""
    # At once for writing: an upgrade half-way could fail where another one writes.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Where the disk is full, SQLite may have rolled it back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
