"""A spool as seen from outside: read while a service runs, and changed with care.

What a living process has locked is read in snapshots of SQLite, none of which outlives
a slice of rows, and only its dead letters are ever changed. Nothing here needs a key,
so none can be wrong.
"""

import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import ASIDE, SUFFIX, SpoolLock
from amplitude_async.storage.spool.making import make_locked

__all__ = [
    "FileStatus",
    "Item",
    "Purge",
    "Retry",
    "SpoolDirectory",
    "SpoolDirectoryError",
]


# Below the lowest number that SQLite gives a row.
_FIRST = -(2**63)
# Read at once, while a snapshot holds back the log of who writes: a few milliseconds.
_SLICE_ROWS = 500
_SLICE_BYTES = 1024 * 1024


class SpoolDirectoryError(Exception):
    """A directory cannot be worked with; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What one file of a spool holds."""

    name: str
    alive: bool
    """Whether the process it belongs to is running; else it waits for another."""
    destination: str
    """Host and salted hash of the key."""
    events: int
    bytes: int
    """Size of the events' bodies."""
    oldest: float | None
    """When the oldest event was accepted, seconds since the epoch."""
    dead_letters: int
    quarantined: int
    """Damaged records that were set aside."""


class Item(NamedTuple):
    """One event, and where it lies."""

    file: str
    destination: str
    record: Record
    """Its body is empty where the event is damaged."""
    letter: DeadLetter | None
    """The verdict, where it is a dead letter."""

    @property
    def number(self) -> int:
        """Number of the row among its like in the file."""
        return self.record.id


@dataclass(frozen=True, slots=True)
class Retry:
    """What became of dead letters that were to be sent again."""

    moved: int
    files: list[str]
    """The new files, one for each destination."""
    missing: list[str]
    """Ids asked for that no dead letter has."""


@dataclass(slots=True)
class Purge:
    """What was removed, or would be."""

    count: int = 0
    files: int = 0
    """How many files they lie in."""
    in_use: int = 0
    """Files of living processes whose events are left alone."""

    def add(self, count: int | None) -> None:
        """Count what one file had; None where a process lives in it."""
        if count is None:
            self.in_use += 1
        else:
            self.count += count
            self.files += bool(count)


class SpoolDirectory:
    """The directory that was given to ``SQLiteStorage``.

    A file that cannot be read hinders nothing: it is noted in ``problems``.

    Raises:
        SpoolDirectoryError: it does not exist, cannot be read or is no spool.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        """A sentence for each file that could not be read or changed."""
        names = _names(path)
        spools = [one for one in names if SUFFIX in one or one.endswith(ASIDE)]
        # A lock may outlive its file, and others have lock files as well.
        if not spools and not all(one.endswith(".lock") for one in names):
            msg = f"{path} holds no spool: give the directory that SQLiteStorage has"
            raise SpoolDirectoryError(msg)
        self.set_aside = sorted(one for one in names if one.endswith(ASIDE))
        """Files that a service could not read and renamed."""

    def _paths(self) -> list[Path]:
        return sorted(self.path.glob(f"*{SUFFIX}"))

    @contextmanager
    def _noting(self, path: Path) -> Iterator[None]:
        """Go on with the next file where this one cannot be used."""
        try:
            yield
        # A damaged row may have a value of any type in any column.
        except (StorageError, OSError, ValueError, TypeError) as error:
            # A file that is gone was finished by its owner meanwhile.
            if path.exists():
                self.problems.append(_described(path, error))

    # Reading -----------------------------------------------------------------

    def status(self) -> list[FileStatus]:
        """Look into every file."""
        found = []
        for path in self._paths():
            # Each by itself: one that is in trouble hides no other.
            with self._noting(path):
                found.append(_status(path))
        return found

    def items(self, *, dead: bool) -> Iterator[Item]:
        """Read all events, or all dead letters, file by file in order.

        No file is open while the one who asks looks at an item, however long: a
        snapshot that is held keeps a living process from cutting back its log. What is
        written or deleted meanwhile may be in it or not.
        """
        for path in self._paths():
            with self._noting(path):
                yield from _items(path, dead=dead)

    # Changing ----------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep another command from moving the same dead letters."""
        try:
            # A name without the suffix of spools: services take no notice of it.
            lock = SpoolLock.try_acquire(self.path / "maintenance")
        except OSError as error:
            msg = (
                f"{self.path} cannot be written: {error.strerror or error}: run the "
                "command as the user the service runs as"
            )
            raise SpoolDirectoryError(msg) from None
        if lock is None:
            msg = f"another command is changing {self.path}: wait until it has ended"
            raise SpoolDirectoryError(msg)
        try:
            yield
        finally:
            lock.release(remove=True)

    def retry(self, insert_ids: Collection[str] = ()) -> Retry:
        """Turn dead letters back into events that wait for a process to adopt them.

        They count as accepted now: under their old age they could expire at once.

        Args:
            insert_ids: only these; all, where there is none.
        """
        moved = 0
        wanted = set(insert_ids)
        found: set[str] = set()
        files: dict[str, _NewFile] = {}
        with self._alone(), ExitStack() as stack:
            for path in self._paths():
                with self._noting(path):
                    chosen = _choose(
                        path, lambda one: not wanted or one.record.insert_id in wanted
                    )
                    if not chosen.letters:
                        continue
                    there = chosen.destination
                    if there not in files:
                        new = stack.enter_context(_new_file(self.path, there))
                        files[there] = new
                    # First there and then here: a crash in between doubles an event,
                    # which its insert_id undoes, and loses none.
                    files[there].put(chosen.letters)
                    _exhume(path, chosen.letters)
                    found |= {one.record.insert_id for one in chosen.letters}
                    moved += len(chosen.letters)
        names = [new.file.path.name for new in files.values()]
        return Retry(moved, names, missing=sorted(wanted - found))

    def purgeable(self, *, dead: bool, before: float | None) -> Purge:
        """Count what `purge` would remove."""
        result = Purge()
        for path in self._paths():
            with self._noting(path):
                # Dead letters are nobody's to send; events are their owner's.
                held = not dead and SpoolLock.is_held(path)
                result.add(None if held else _count(path, dead=dead, before=before))
        return result

    def purge(self, *, dead: bool, before: float | None) -> Purge:
        """Remove dead letters, or the events of processes that are gone.

        Args:
            dead: remove dead letters instead of events.
            before: only what was accepted (rejected, if dead) before this moment.
        """
        result = Purge()
        with self._alone():
            for path in self._paths():
                with self._noting(path):
                    if dead:
                        result.add(_exhume(path, _old_letters(path, before)))
                    else:
                        result.add(_purge_events(path, before))
        return result


def _names(path: Path) -> list[str]:
    try:
        return [one.name for one in path.iterdir()]
    except FileNotFoundError:
        reason = "does not exist: give the directory that SQLiteStorage has"
    except NotADirectoryError:
        reason = "is a file: give the directory it lies in"
    except OSError as error:
        reason = (
            f"cannot be read: {error.strerror or error}: run the command as the user "
            "the service runs as"
        )
    msg = f"{path} {reason}"
    raise SpoolDirectoryError(msg)


def _described(path: Path, error: Exception) -> str:
    # A StorageError already says which file it is about, and what to do.
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"{path}: {reason}: run the command as the file's owner"
    return f"{path}: holds what no spool holds: {error}: see spool doctor"


@contextmanager
def _viewed(path: Path) -> Iterator[SpoolFile]:
    """Look into a file, if it is one: a pipe of that name would never answer.

    Raises:
        StorageError: it is no regular file or no spool; the message says why.
    """
    # Links are followed here: what they lead to is what counts.
    if not stat.S_ISREG(path.stat().st_mode):
        msg = f"{path} is no regular file: nothing reads it, so take it away"
        raise StorageError(msg)
    with closing(SpoolFile.view(path)) as file:
        yield file


def _items(path: Path, *, dead: bool) -> Iterator[Item]:
    after, last = _FIRST, None
    while True:
        with _viewed(path) as file:
            if last is None:
                # Or a fast writer would keep the reader busy for ever.
                last = file.letters.last() if dead else file.extent().last
            found = _slice(file, after, last, dead=dead)
        if not found:
            return
        yield from found
        after = found[-1].number


def _slice(file: SpoolFile, after: int, up_to: int, *, dead: bool) -> list[Item]:
    """Read the next few events or dead letters, one at least if any."""
    place = (file.path.name, str(file.destination))
    bounds = (after, _SLICE_ROWS, _SLICE_BYTES)
    if dead:
        letters = file.letters.fetch(*bounds, up_to=up_to)
        return [Item(*place, letter.record, letter) for letter in letters]
    records = file.fetch(*bounds, up_to=up_to)
    return [Item(*place, record, None) for record in records]


def _status(path: Path) -> FileStatus:
    # First: a file whose owner dies meanwhile is called alive, never the reverse.
    alive = SpoolLock.is_held(path)
    with _viewed(path) as file:
        held = file.extent()
        return FileStatus(
            name=path.name,
            alive=alive,
            destination=str(file.destination),
            events=held.events,
            bytes=held.size,
            oldest=file.oldest(),
            dead_letters=file.letters.count(),
            quarantined=file.quarantined(),
        )


class _NewFile:
    """A file for events that are to be sent again, locked while it is written."""

    def __init__(self, file: SpoolFile) -> None:
        self.file = file
        self._rows = 0

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Write rejected records as fresh events."""
        now = time.time()
        first = self._rows + 1
        self.file.insert(
            letter.record._replace(id=number, accepted_at=now)
            for number, letter in enumerate(letters, first)
        )
        self._rows += len(letters)


@contextmanager
def _new_file(directory: Path, destination: str) -> Iterator[_NewFile]:
    # Power loss must not take what the old file no longer has.
    file, lock = make_locked(directory, destination, full_sync=True)
    try:
        with closing(file):
            yield _NewFile(file)
    finally:
        lock.release(remove=True)


class _Chosen(NamedTuple):
    """Some of a file's dead letters."""

    destination: str
    letters: list[DeadLetter]


def _choose(path: Path, wanted: Callable[[DeadLetter], bool]) -> _Chosen:
    with _viewed(path) as file:
        letters = file.letters.read() if file.letters.count() else []
        return _Chosen(file.destination, [one for one in letters if wanted(one)])


def _exhume(path: Path, letters: Sequence[DeadLetter]) -> int:
    """Remove dead letters; SQLite keeps this apart from what the owner writes."""
    if not letters:
        return 0
    with closing(SpoolFile.open(path, migrate=False)) as file:
        count = file.letters.exhume(one.record.id for one in letters)
    _tidy(path)
    return count


def _old_letters(path: Path, before: float | None) -> list[DeadLetter]:
    chosen = _choose(path, lambda one: before is None or one.rejected_at < before)
    return chosen.letters


def _old_events(file: SpoolFile, before: float | None) -> Iterator[int]:
    return (one.id for one in file.peek() if before is None or one.accepted_at < before)


def _count(path: Path, *, dead: bool, before: float | None) -> int:
    if dead:
        return len(_old_letters(path, before))
    with _viewed(path) as file:
        return sum(1 for _ in _old_events(file, before))


def _purge_events(path: Path, before: float | None) -> int | None:
    """Remove events under the lock of their file; None where a process has it."""
    with _claimed(path) as file:
        if file is None:
            return None if path.exists() else 0
        # All ids first: what is being read must not be deleted meanwhile.
        return file.delete(list(_old_events(file, before))).events


@contextmanager
def _claimed(path: Path) -> Iterator[SpoolFile | None]:
    """Lock and open a file, and delete it if nothing is left in it afterwards.

    Yields:
        None where a process lives in the file, or where it is gone.
    """
    lock = SpoolLock.try_acquire(path)
    if lock is None:
        yield None
        return
    try:
        # Without this SQLite would make the file that its last owner removed.
        if not path.exists():
            yield None
            return
        with closing(SpoolFile.open(path)) as file:
            yield file
            kept = file.keeps
        if not kept:
            file.remove()
    finally:
        lock.release(remove=True)


def _tidy(path: Path) -> None:
    """Delete a file in which nothing is left, unless a process lives in it."""
    with _claimed(path):
        pass
