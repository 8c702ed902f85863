"""Examines a spool from outside, changes nothing, and says what a person has to do.

Nothing that lies in the directory is trusted: it may be no spool, or made to harm.
"""

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool import schema
from amplitude_async.storage.spool.directory import FileStatus
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import ASIDE, SUFFIX, SpoolLock

__all__ = ["Checked", "Finding", "Level", "check_directory"]

_LOCK = ".lock"
_SIDES = ("-wal", "-shm", "-journal")
# The lock of a command that changes the spool.
_MAINTENANCE = f"maintenance{_LOCK}"
# Below this a day of events may not fit, and SQLite needs room to delete, too.
_LEAST_FREE = 100 * 1000 * 1000
# A living process adopts orphans within a minute, and a service restarts in ten.
_ORPHANED = 600.0
# What a process has tried to send for so long is not going to pass by itself.
_STUCK = 3600.0
# Events are given up after six days unless somebody says otherwise.
_EXPIRING = 5 * 86400.0
_PROBLEMS = 3
_LARGEST_VALUE = 64 * 1024 * 1024
_SLICE = (500, 4 * 1024 * 1024)
_HOUR, _DAY = 3600.0, 86400.0


class Level(StrEnum):
    """How a finding is to be taken."""

    NOTE = "note"
    """Good to know; nobody has to do anything."""
    TROUBLE = "trouble"
    """It stays as it is until a person does something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was noticed, and what to do about it."""

    level: Level
    text: str
    remedy: str


@dataclass(slots=True)
class Checked:
    """What was found out about the directory or one name in it."""

    name: str
    status: FileStatus | None = None
    """What a spool file holds; None where it is none, or could not be read."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """True where no person has to do anything."""
        return all(one.level is Level.NOTE for one in self.findings)

    def note(self, text: str, remedy: str = "nothing to do") -> None:
        """Add what is good to know."""
        self.findings.append(Finding(Level.NOTE, text, remedy))

    def trouble(self, text: str, remedy: str) -> None:
        """Add what a person has to deal with."""
        self.findings.append(Finding(Level.TROUBLE, text, remedy))


def check_directory(directory: Path, *, seconds: float) -> Iterator[Checked]:
    """Examine a directory and everything in it, one name after another.

    Args:
        directory: the one that ``SQLiteStorage`` has.
        seconds: the most to spend on reading one file.
    """
    names = sorted(one.name for one in directory.iterdir())
    yield from _guarded(str(directory), partial(_directory_itself, directory))
    for name in names:
        examine = partial(_named, directory / name, set(names), seconds)
        yield from _guarded(name, examine)


def _guarded(name: str, examine: Callable[[], Checked | None]) -> Iterator[Checked]:
    """Examine one name; one in trouble hides no other and raises nothing."""
    try:
        checked = examine()
    except FileNotFoundError:
        return  # its owner has finished it meanwhile
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file causes
        checked = Checked(name)
        reason = error.strerror if isinstance(error, OSError) else None
        checked.trouble(
            f"cannot be examined: {reason or error}",
            "run the command as the user the service runs as; if it is no file of a "
            "spool, take it away",
        )
    if checked is not None:
        yield checked


def _directory_itself(directory: Path) -> Checked:
    checked = Checked(str(directory))
    about = directory.stat()
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        checked.trouble(
            f"others may write to it (mode {_mode(about)}): they could plant events",
            f"chmod 700 {directory}",
        )
    free = shutil.disk_usage(directory).free
    if free < _LEAST_FREE:
        checked.trouble(
            f"its disk has {free / 1e6:,.0f} MB left: soon no event can be stored",
            "free space, or move the spool to a larger disk",
        )
    return checked


def _mode(about: os.stat_result) -> str:
    return f"{stat.S_IMODE(about.st_mode):04o}"


def _named(path: Path, names: set[str], seconds: float) -> Checked | None:
    """Examine what has one name; None where another name stands for it."""
    name = path.name
    checked = Checked(name)
    if name.endswith(SUFFIX):
        _spool(path, checked, seconds)
    elif name.endswith(_LOCK):
        if name.removesuffix(_LOCK) + SUFFIX in names:
            return None
        _lone_lock(path, checked)
    elif name.endswith(_SIDES):
        if name.rpartition("-")[0] in names:
            return None
        _lone_side(path, checked)
    elif name.endswith(ASIDE):
        checked.trouble(
            "was damaged and is set aside: what a service could read of it has moved "
            "to a new file, the rest is not sent",
            "see what is left in it (sqlite3 FILE .recover), then delete it",
        )
    else:
        checked.note("is none of a spool's files", "nothing to do, or move it away")
    return checked


def _lone_lock(path: Path, checked: Checked) -> None:
    if path.name == _MAINTENANCE:
        checked.note("is the lock of a command that changes the spool, now or once")
    elif not _is_plain(path, checked):
        return
    elif not SpoolLock.is_held(path):
        checked.note("is a lock without a spool file", "delete it, if you like")
    elif not path.with_suffix(SUFFIX).exists():
        # A file is made after its lock: look twice before saying so.
        checked.trouble(
            "is held by a process whose spool file is gone: it writes to nowhere",
            "restart that process, and see what cleans this directory",
        )


def _lone_side(path: Path, checked: Checked) -> None:
    # Where the owner has just finished, both names are gone by now.
    path.lstat()
    checked.trouble(
        "belongs to a spool file that is gone",
        "see what deletes files here; then delete this one, too",
    )


def _is_plain(path: Path, checked: Checked) -> bool:
    """Say whether a name leads to a file itself: opening a pipe would never end."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return True
    kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
    if stat.S_ISDIR(mode):
        kind = "a directory"
    checked.trouble(f"is {kind}: no spool is made so", "see who made it; take it away")
    return False


# One spool file --------------------------------------------------------------


def _spool(path: Path, checked: Checked, seconds: float) -> None:
    if not _is_plain(path, checked):
        return
    _rights(path, checked)
    lock = path.with_suffix(_LOCK)
    if os.path.lexists(lock) and not _is_plain(lock, checked):
        return
    # First: a file whose owner dies meanwhile is called alive, never the reverse.
    alive = SpoolLock.is_held(path)
    at_rest, before = not _log_size(path), path.stat()
    inside = _look_inside(path, alive=alive, at_rest=at_rest, seconds=seconds)
    if at_rest and (_log_size(path) or path.stat().st_mtime_ns != before.st_mtime_ns):
        # Somebody began to write while we read it as a file that nobody changes.
        inside = _look_inside(path, alive=True, at_rest=False, seconds=seconds)
    if not path.exists():
        raise FileNotFoundError(path)
    checked.status = inside.status
    checked.findings += inside.findings
    if inside.status is not None:
        _judge(path, inside.status, checked)


def _log_size(path: Path) -> int:
    """Return the bytes of the log of a file; who only looks leaves an empty one."""
    try:
        return Path(f"{path}-wal").lstat().st_size
    except FileNotFoundError:
        return 0


def _rights(path: Path, checked: Checked) -> None:
    about, above = path.lstat(), path.parent.stat()
    if about.st_uid != above.st_uid:
        checked.trouble(
            f"belongs to user {about.st_uid}, its directory to user {above.st_uid}",
            "if you trust it, give it to the user the service runs as (chown)",
        )
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        checked.trouble(
            f"others may read or write it (mode {_mode(about)}): events tell about "
            "people",
            f"chmod 600 {path}",
        )


def _look_inside(path: Path, *, alive: bool, at_rest: bool, seconds: float) -> Checked:
    checked = Checked(path.name)
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(_reading(path, seconds, at_rest=at_rest))
            if _is_ours(path, connection, checked):
                file = SpoolFile(path, connection)
                _integrity(connection, checked)
                checked.status = _status(file, alive=alive)
                _bodies(file, until, checked)
        except (sqlite3.Error, StorageError) as error:
            if time.monotonic() >= until:
                checked.note(
                    f"could not be read whole in {seconds:g} s",
                    "give it more time (--seconds)",
                )
            # Of a damaged file this says nothing new.
            elif checked.well:
                text = f"cannot be read: {_without(path, error)}"
                checked.trouble(text, _remedy(error))
    return checked


def _remedy(error: sqlite3.Error | StorageError) -> str:
    right = isinstance(error, StorageError | sqlite3.OperationalError)
    if right and not isinstance(error, schema.CorruptSpoolError):
        return "run the command as the user the service runs as, and check the disk"
    return "check the disk; save what can be read (sqlite3 FILE .recover), delete it"


@contextmanager
def _reading(
    path: Path, seconds: float, *, at_rest: bool
) -> Iterator[sqlite3.Connection]:
    """Open a file so that nothing in it is run and nothing takes longer than that."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if at_rest:
        uri += "&immutable=1"  # or SQLite would leave two more files beside it
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False
    )
    with closing(connection):
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        # Also where SQLite is busy in one long step, as a check of all pages is.
        timer = threading.Timer(seconds, connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield connection
        finally:
            timer.cancel()
            timer.join()


def _is_ours(path: Path, connection: sqlite3.Connection, checked: Checked) -> bool:
    """Say whether a file has the tables of a spool, of a version that we know."""
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            checked.note("is empty: its process died as it made it")
            return False
        schema.schema_version(connection, path)
    except schema.StrangeSpoolError as error:
        checked.trouble(
            _without(path, error), "see who made it; no service sends from it"
        )
    except schema.CorruptSpoolError as error:
        checked.trouble(
            _without(path, error),
            "check the disk; a service sends what can still be read",
        )
    except StorageError as error:
        checked.trouble(_without(path, error), "let that version send what is in it")
    else:
        return True
    return False


def _without(path: Path, error: Exception) -> str:
    """Return what is wrong with a file whose name stands there already."""
    return str(error).removeprefix(f"{path}").removeprefix(":").strip()


def _integrity(connection: sqlite3.Connection, checked: Checked) -> None:
    try:
        rows = connection.execute(f"PRAGMA integrity_check({_PROBLEMS})").fetchall()
    except sqlite3.OperationalError:
        raise  # out of time, or no right to read
    except sqlite3.DatabaseError as error:
        rows = [(error,)]
    # One row may hold several lines.
    found = [line for row in rows for line in str(row[0]).splitlines()]
    if found != ["ok"]:
        checked.trouble(
            f"is damaged: {'; '.join(found[:_PROBLEMS])}",
            "check the disk; a service sends what can still be read",
        )


def _status(file: SpoolFile, *, alive: bool) -> FileStatus:
    held = file.extent()
    oldest = None
    with contextlib.suppress(ValueError):  # a damaged row may have any text there
        oldest = file.oldest()
    return FileStatus(
        name=file.path.name,
        alive=alive,
        destination=str(file.destination),
        events=held.events,
        bytes=held.size,
        oldest=oldest,
        dead_letters=file.letters.count(),
        quarantined=file.quarantined(),
    )


def _bodies(file: SpoolFile, until: float, checked: Checked) -> None:
    """Compare every event with its checksum, in slices."""
    after, damaged = -(2**63), 0
    while page := file.fetch(after, *_SLICE):
        damaged += sum(not one.body for one in page)
        after = page[-1].id
        if time.monotonic() >= until:
            raise StorageError
    if damaged:
        checked.trouble(
            f"{_events(damaged)} damaged: no service can send them",
            "check the disk; a service sets them aside and sends the others",
        )


def _judge(path: Path, status: FileStatus, checked: Checked) -> None:
    """Say what is to be done about what a file holds."""
    now = time.time()
    age = max(now - status.oldest, 0.0) if status.events and status.oldest else 0.0
    if not status.destination:
        checked.trouble(
            "does not say for whom its events are: no process sends them",
            "spool export them",
        )
    if status.events and not status.alive:
        changed = path.stat().st_mtime
        if _log_size(path):
            changed = max(changed, Path(f"{path}-wal").stat().st_mtime)
        if now - changed > _ORPHANED:
            checked.trouble(
                f"{_events(status.events)} waiting to be adopted by a process, since "
                f"{_long(now - changed)}",
                "start a service with this destination, or spool export and purge",
            )
        else:
            checked.note(
                f"{_events(status.events)} waiting to be adopted by a process",
                "look again in some minutes",
            )
    elif age > _STUCK:
        checked.trouble(
            f"its process has not got rid of its oldest event for {_long(age)}",
            "see that service's log for what its destination answers",
        )
    if age > _EXPIRING:
        checked.trouble(
            f"its oldest event is {_long(age)} old: after six days events are given up",
            "spool export them, or raise max_event_age",
        )
    if status.quarantined:
        checked.trouble(
            f"{_events(status.quarantined)} damaged and set aside inside it",
            "check the disk; delete the file once nothing else is in it",
        )
    if status.dead_letters:
        checked.note(
            f"dead letters: {status.dead_letters:,}",
            "spool list --dead; then spool retry or purge --dead",
        )


def _events(count: int) -> str:
    return "1 event is" if count == 1 else f"{count:,} events are"


def _long(seconds: float) -> str:
    if seconds >= _DAY:
        return f"{seconds / _DAY:.1f} days"
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} hours"
    return f"{seconds / 60:.0f} minutes"
