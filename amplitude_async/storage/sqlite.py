"""A spool that survives the process: one SQLite file per process, locked for its life.

Records are written in write-ahead-log mode by one thread; appends that arrive while a
transaction is being written share the next one (group commit). Files of processes that
are gone are taken over, each record exactly once.
"""

import asyncio
import bisect
import contextlib
import ctypes
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from amplitude_async.exceptions import (
    ConfigurationError,
    StorageError,
    StorageFullError,
)
from amplitude_async.storage.base import DeadLetter, Record, Storage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SUFFIX, SpoolLock, new_spool_path
from amplitude_async.storage.spool.schema import CorruptSpoolError
from amplitude_async.storage.spool.thread import SpoolThread, answer

__all__ = ["SQLiteStorage"]

logger = logging.getLogger("amplitude_async.storage")

T = TypeVar("T")

# Amplitude deduplicates for seven days: a day less leaves room for slow clocks.
SIX_DAYS = 6 * 86400.0


class _Source:
    """One file and the range of ids under which its records are handed out."""

    __slots__ = ("__weakref__", "base", "count", "file", "first", "ids", "last", "lock")

    def __init__(self, file: SpoolFile, lock: SpoolLock) -> None:
        self.file = file
        self.lock = lock
        self.base = 0
        """Added to a row's number to make an id; 0 for the own file."""
        self.ids = range(0)
        """The ids of an adopted file; empty for the own file."""
        self.count = 0
        """Unsettled records of an adopted file."""
        self.first = self.last = 0
        """The rows of an adopted file when it was taken over."""

    def number(self, start: int) -> None:
        """Hand the records out under ids from a given one on."""
        self.base = start - self.first
        self.ids = range(start, start + self.last - self.first + 1)

    def leave(self) -> None:
        """Close the file and free it; delete it where nothing is left in it."""
        try:
            kept = self.file.keeps
            self.file.close()
            if not kept:
                self.file.remove()
        finally:
            self.lock.release(remove=True)


# Records that wait for the next transaction, their bytes, and who waits for them.
_Append = tuple[Sequence[Record], int, "asyncio.Future[None]"]


class _Tally:
    """A count that only one thread changes, so that it needs no lock."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events = 0
        self.size = 0

    def add(self, events: int, size: int) -> None:
        """Count so many events and bytes more, or less."""
        self.events += events
        self.size += size


class SQLiteStorage(Storage):
    """Keeps accepted events in a directory until their fate is decided.

    Args:
        directory: made where it is missing, for this user only (0700).
        synchronous: "normal" survives the death of the process, "full" that of the
            machine too, at the price of a disk sync per transaction.
        max_events: most events in the spool.
        max_bytes: most encoded bytes of events in the spool.
        max_age: seconds or timedelta after which a waiting event is given up, unless
            ``Config.max_event_age`` says otherwise. Amplitude deduplicates for seven
            days, so older needs an explicit choice.
        dead_letters: keep so many of the newest rejected events; 0 keeps none.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    durable = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        synchronous: Literal["normal", "full"] = "normal",
        max_events: int = 1_000_000,
        max_bytes: int = 2 * 1024**3,
        max_age: float | timedelta = SIX_DAYS,
        dead_letters: int = 0,
    ) -> None:
        if synchronous not in {"normal", "full"}:
            msg = f"synchronous={synchronous!r}: use 'normal' or 'full'"
            raise ConfigurationError(msg)
        age = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
        for name, number, least in (
            ("max_events", max_events, 1),
            ("max_bytes", max_bytes, 1),
            ("dead_letters", dead_letters, 0),
            ("max_age", age, 1),
        ):
            if not number >= least:
                msg = f"{name}={number!r}: must be at least {least}"
                raise ConfigurationError(msg)
        self.directory = Path(directory)
        self.default_max_age = age
        self.dead_letters = dead_letters
        self._synchronous = synchronous
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._destination = ""
        self._thread: SpoolThread | None = None
        self._own: _Source | None = None
        self._claimed: deque[_Source] = deque()
        self._adopted: list[_Source] = []
        self._appended = _Tally()
        self._settled = _Tally()
        self._pending: deque[_Append] = deque()
        self._posting: asyncio.AbstractEventLoop | None = None
        self._told: set[Path] = set()

    def __repr__(self) -> str:
        return f"<SQLiteStorage {str(self.directory)!r} {self._count} events>"

    @property
    def _count(self) -> int:
        return self._appended.events - self._settled.events

    @property
    def _bytes(self) -> int:
        return self._appended.size - self._settled.size

    def _run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call on the spool's thread, after all that was asked of it before."""
        if self._thread is None:
            msg = f"the spool {self.directory} is not open"
            raise StorageError(msg)
        if self._pending:
            self._post()
        return self._thread.run(function, *args)

    # Opening -----------------------------------------------------------------

    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Make the own file and take over those of processes that are gone.

        Raises:
            StorageError: the directory cannot be used; the message says why.
        """
        if self._thread is not None:
            msg = (
                f"the spool {self.directory} is open already: give each client its "
                "own SQLiteStorage (they may share the directory)"
            )
            raise StorageError(msg)
        self._destination = destination
        self._appended, self._settled = _Tally(), _Tally()
        self._thread = SpoolThread()
        try:
            await self._run(self._create)
            return await self.adopt(allot)
        except BaseException:
            # A waiter that was cancelled leaves no file behind that nobody can adopt.
            self._thread.post(self._leave_all)
            self._stop_thread()
            raise

    def _create(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = (
                f"the spool directory {self.directory} cannot be made: "
                f"{error.strerror or error}: choose another or make it writable"
            )
            raise StorageError(msg) from error
        path = new_spool_path(self.directory)
        try:
            lock = SpoolLock.try_acquire(path)
        except OSError as error:
            msg = (
                f"the spool directory {self.directory} is not writable: "
                f"{error.strerror or error}: choose another or change its permissions"
            )
            raise StorageError(msg) from error
        if lock is None:
            msg = (
                f"the spool directory {self.directory} cannot lock files: choose one "
                "on a local disk"
            )
            raise StorageError(msg)
        full = self._synchronous == "full"
        try:
            file = SpoolFile.create(path, self._destination, full_sync=full)
        except BaseException:
            lock.release(remove=True)
            raise
        self._own = _Source(file, lock)
        _keep_from_children(self._own)

    # Taking over -------------------------------------------------------------

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over the files of processes that are gone."""
        await self._run(self._claim_orphans)
        taken = 0
        # Also those that an adoption claimed whose waiter was cancelled.
        while self._claimed:
            source = self._claimed.popleft()
            source.number(allot(source.last - source.first + 1))
            self._adopted.append(source)
            taken += source.count
        return taken

    def _claim_orphans(self) -> None:
        mine = {source.file.path for source in self._sources()}
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path not in mine:
                self._claim(path)

    def _claim(self, path: Path) -> None:
        lock = SpoolLock.try_acquire(path)
        if lock is None:
            return
        source = None
        try:
            if path.exists():
                source = self._take_over(path, lock)
        except CorruptSpoolError as error:
            aside = SpoolFile.set_aside(path)
            # Our own message says it all, without a traceback.
            logger.error(  # noqa: TRY400
                "%s; moved to %s, its events are not sent", error, aside
            )
        except StorageError as error:
            self._tell(logging.ERROR, path, str(error))
        finally:
            if source is None:
                lock.release(remove=True)
        if source is not None:
            _keep_from_children(source)
            self._claimed.append(source)

    def _take_over(self, path: Path, lock: SpoolLock) -> _Source | None:
        file = SpoolFile.open(path, migrate=False)
        source = None
        kept = True
        try:
            if file.blank:
                kept = False
            elif file.destination != self._destination:
                message = "belongs to another destination: it is left alone"
                self._tell(logging.WARNING, path, message)
            else:
                file.migrate()
                source = self._measure(file, lock)
                kept = file.keeps
        finally:
            if source is None:
                file.close()
        if not kept:
            file.remove()
        return source

    def _measure(self, file: SpoolFile, lock: SpoolLock) -> _Source | None:
        """Make a source of a file; None where it has no events."""
        count, size, first, last = file.extent()
        if self.dead_letters and self._own is not None:
            # Where that cannot be, they stay with the file.
            with contextlib.suppress(StorageError):
                self._own.file.inherit(file, self.dead_letters)
        if not count:
            return None
        source = _Source(file, lock)
        source.count, source.first, source.last = count, first, last
        self._settled.add(-count, -size)
        return source

    def _tell(self, level: int, path: Path, message: str) -> None:
        """Log once about a file that is left where it is."""
        if path not in self._told:
            self._told.add(path)
            logger.log(level, "spool file %s: %s", path, message)

    def _sources(self) -> list[_Source]:
        own = [self._own] if self._own is not None else []
        return [*own, *self._adopted, *self._claimed]

    # Writing -----------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Write records; appends at the same time share one transaction.

        Raises:
            StorageFullError: ``max_events`` or ``max_bytes`` is reached.
        """
        count, size = len(records), 0
        for record in records:
            size += len(record.body)
        appended, settled = self._appended, self._settled
        events = appended.events + count
        total = appended.size + size
        if (
            events - settled.events > self._max_events
            or total - settled.size > self._max_bytes
            or self._thread is None
        ):
            raise self._no_room()
        appended.events, appended.size = events, total
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._pending.append((records, size, future))
        if self._posting is not loop:
            # Not at once: what else appends in this turn of the loop comes along.
            self._posting = loop
            loop.call_soon(self._post)
        return future

    def _no_room(self) -> StorageError:
        if self._thread is None:
            return StorageError(f"the spool {self.directory} is not open")
        return StorageFullError(
            f"the spool {self.directory} holds {self._count} events of max_events="
            f"{self._max_events} and {self._bytes} bytes of max_bytes="
            f"{self._max_bytes}: raise the limit, or see why they are not delivered"
        )

    def _post(self) -> None:
        self._posting = None
        if self._thread is not None:
            self._thread.post(self._commit)

    def _commit(self) -> None:
        """Write what is pending in one transaction; runs on the spool's thread."""
        group: list[_Append] = []
        with contextlib.suppress(IndexError):
            while True:
                group.append(self._pending.popleft())
        if not group:
            return
        own = self._own
        records = [record for appended, _, _ in group for record in appended]
        error: StorageError | None = None
        try:
            if own is not None:
                own.file.insert(records)
            else:
                error = StorageError(f"the spool {self.directory} is not open")
        except StorageError as caught:
            error = caught
        if error is not None:
            self._settled.add(len(records), sum([size for _, size, _ in group]))
        # The first of them may belong to a loop that is closed by now.
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for _, _, future in group:
            waiting.setdefault(future.get_loop(), []).append(future)
        for loop, futures in waiting.items():
            answer(loop, partial(_end, futures, error))

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records whose fate is decided."""
        await self._run(self._forget, sorted(ids))

    def _forget(self, ids: list[int]) -> None:
        for source in list(self._adopted):
            start = bisect.bisect_left(ids, source.ids.start)
            stop = bisect.bisect_left(ids, source.ids.stop)
            if start < stop:
                rows = [number - source.base for number in ids[start:stop]]
                del ids[start:stop]
                self._delete(source, rows)
        if ids and self._own is not None:
            self._delete(self._own, ids)
            self._own.file.shrink()

    def _delete(self, source: _Source, rows: list[int]) -> None:
        events, size = source.file.delete(rows)
        self._settled.add(events, size)
        self._reduce(source, events)

    def _reduce(self, source: _Source, events: int) -> None:
        """Count an adopted file down, and be done with it at the end."""
        if source is self._own:
            return
        source.count -= events
        if source.count <= 0:
            self._adopted.remove(source)
            source.leave()

    # Dead letters ------------------------------------------------------------

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events, the newest ``dead_letters`` of them."""
        if self.dead_letters and self._own is not None:
            await self._run(self._own.file.bury, letters, self.dead_letters)

    async def list_dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events that are kept, oldest first."""
        if self._own is None:
            return []
        return await self._run(self._own.file.dead_letters)

    # Reading -----------------------------------------------------------------

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        return await self._run(self._read, after, limit, max_bytes)

    def _read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        found: list[Record] = []
        for source, above, up_to in self._stretches(after):
            if len(found) >= limit or max_bytes <= 0:
                break
            rows = source.file.fetch(
                max(above - source.base, 0),
                limit - len(found),
                max_bytes,
                up_to=up_to - source.base,
                one_at_least=not found,
            )
            max_bytes -= sum([len(record.body) for record in rows])
            damaged = [record.id for record in rows if not record.body]
            if damaged:
                self._quarantine(source, damaged)
            base = source.base
            found += [r._replace(id=r.id + base) for r in rows] if base else rows
        return found

    def _stretches(self, after: int) -> Iterator[tuple[_Source, int, int]]:
        """Cut the ids above one into stretches of one file each, in order."""
        own = self._own
        for source in sorted(self._adopted, key=lambda one: one.ids.start):
            first, last = source.ids.start, source.ids.stop - 1
            if last <= after:
                continue
            if own is not None:
                yield own, after, first - 1
            yield source, max(after, first - 1), last
            after = last
        if own is not None:
            yield own, after, _HIGHEST

    def _quarantine(self, source: _Source, rows: list[int]) -> None:
        logger.error(
            "spool file %s: %d damaged events are set aside and not sent",
            source.file.path,
            len(rows),
        )
        # On a full disk they stay where they are until they are settled.
        with contextlib.suppress(StorageError):
            events, size = source.file.quarantine(rows)
            self._settled.add(events, size)
            self._reduce(source, events)

    async def size(self) -> int:
        """Count the unsettled records."""
        return self._count

    # Closing -----------------------------------------------------------------

    async def close(self) -> None:
        """Finish writing, free the files and delete those with nothing left."""
        if self._thread is None:
            return
        try:
            await self._run(self._leave_all)
        finally:
            self._stop_thread()

    def _leave_all(self) -> None:
        sources = self._sources()
        self._own = None
        self._adopted = []
        self._claimed.clear()
        problem: StorageError | None = None
        for source in sources:
            try:
                source.leave()
            except StorageError as error:
                problem = error
        if problem is not None:
            raise problem

    def _stop_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def after_fork(self) -> "SQLiteStorage":
        """Build the child's own spool in the same directory."""
        return SQLiteStorage(
            self.directory,
            synchronous=self._synchronous,
            max_events=self._max_events,
            max_bytes=self._max_bytes,
            max_age=self.default_max_age or SIX_DAYS,
            dead_letters=self.dead_letters,
        )


_HIGHEST = 2**63 - 1


def _end(futures: list["asyncio.Future[None]"], error: StorageError | None) -> None:
    """Tell everybody whose records were in one transaction."""
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _keep_from_children(source: _Source) -> None:
    """Let a forked child neither hold the lock nor touch the database.

    The child shares the lock's descriptor and would keep the lock beyond the parent's
    death. Its copy of the connection is never closed: closing it would fold away a log
    that the parent is writing.
    """
    weak = weakref.ref(source)

    def forget() -> None:
        held = weak()
        if held is not None:
            held.lock.forget()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held.file))

    os.register_at_fork(after_in_child=forget)
