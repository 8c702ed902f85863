"""A spool that survives the process: one SQLite file per process, locked for its life.

Records are written in write-ahead-log mode by one thread; appends that arrive while a
transaction is being written share the next one (group commit). Files of processes that
are gone are taken over, each record exactly once.
"""

import asyncio
import ctypes
import heapq
import logging
import os
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from amplitude_async.exceptions import (
    ConfigurationError,
    StorageError,
    StorageFullError,
)
from amplitude_async.storage.base import DeadLetter, Record, Storage
from amplitude_async.storage.spool_file import SUFFIX, SpoolFile, SpoolLock

__all__ = ["SQLiteStorage"]

logger = logging.getLogger("amplitude_async.storage")

T = TypeVar("T")

# Amplitude deduplicates for seven days: a day less leaves room for slow clocks.
SIX_DAYS = 6 * 86400.0


class _Source:
    """One file and the range of ids under which its records are handed out."""

    __slots__ = ("base", "count", "file", "ids", "lock")

    def __init__(self, file: SpoolFile, lock: SpoolLock) -> None:
        self.file = file
        self.lock = lock
        self.base = 0
        """Added to a row's number to make an id; 0 for the own file."""
        self.ids = range(0)
        """The ids of an adopted file; empty for the own file."""
        self.count = 0
        """Unsettled records."""

    def drop(self, *, keep_file: bool) -> None:
        """Close the file and free it; delete it where nothing is left in it."""
        self.file.close()
        if not keep_file:
            self.file.remove()
        self.lock.release(remove=not keep_file)


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
            if number < least:
                msg = f"{name}={number!r}: must be at least {least}"
                raise ConfigurationError(msg)
        self.directory = Path(directory)
        self.default_max_age = age
        self.dead_letters = dead_letters
        self._synchronous = synchronous
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._destination = ""
        self._executor: ThreadPoolExecutor | None = None
        self._own: _Source | None = None
        self._adopted: list[_Source] = []
        self._count = 0
        self._bytes = 0
        self._pending: list[Record] = []
        self._group: asyncio.Future[None] | None = None
        self._committer: asyncio.Task[None] | None = None
        self._told: set[Path] = set()

    def __repr__(self) -> str:
        return f"<SQLiteStorage {str(self.directory)!r} {self._count} events>"

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        executor = self._executor
        if executor is None:
            msg = f"the spool {self.directory} is not open"
            raise StorageError(msg)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, function, *args)

    # Opening -----------------------------------------------------------------

    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Make the own file and take over those of processes that are gone.

        Raises:
            StorageError: the directory cannot be used; the message says why.
        """
        if self._executor is not None:
            msg = (
                f"the spool {self.directory} is open already: give each client its "
                "own SQLiteStorage (they may share the directory)"
            )
            raise StorageError(msg)
        self._destination = destination
        self._executor = ThreadPoolExecutor(1, "amplitude_async-spool")
        try:
            self._own = await self._run(self._create)
        except BaseException:
            self._stop_thread()
            raise
        _close_lock_in_children(self._own.lock)
        return await self.adopt(allot)

    def _create(self) -> _Source:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = (
                f"the spool directory {self.directory} cannot be made: "
                f"{error.strerror or error}: choose another or make it writable"
            )
            raise StorageError(msg) from error
        stamp = time.time_ns() // 1_000_000
        name = f"{stamp:013d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        path = self.directory / name
        try:
            lock = SpoolLock.try_acquire(path)
        except OSError as error:
            msg = (
                f"the spool directory {self.directory} is not writable: "
                f"{error.strerror or error}: choose another or change its permissions"
            )
            raise StorageError(msg) from error
        if lock is None:
            msg = f"the spool file {path} is locked though it is new: try again"
            raise StorageError(msg)
        full = self._synchronous == "full"
        try:
            file = SpoolFile.create(path, self._destination, full_sync=full)
        except BaseException:
            lock.release(remove=True)
            raise
        return _Source(file, lock)

    # Taking over -------------------------------------------------------------

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over the files of processes that are gone."""
        taken = 0
        for source, first, last in await self._run(self._claim_orphans):
            _close_lock_in_children(source.lock)
            start = allot(last - first + 1)
            source.base = start - first
            source.ids = range(start, start + last - first + 1)
            self._adopted.append(source)
            taken += source.count
        return taken

    def _claim_orphans(self) -> list[tuple[_Source, int, int]]:
        mine = {source.file.path for source in self._sources()}
        claimed = []
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path not in mine:
                found = self._claim(path)
                if found is not None:
                    claimed.append(found)
        return claimed

    def _claim(self, path: Path) -> tuple[_Source, int, int] | None:
        lock = SpoolLock.try_acquire(path)
        if lock is None:
            return None
        if not path.exists():
            lock.release(remove=True)
            return None
        try:
            file = SpoolFile.open(path)
            if file.destination != self._destination:
                self._tell(path, "belongs to another destination: left alone")
                file.close()
                lock.release(remove=False)
                return None
            count, size, first, last = file.extent()
            source = _Source(file, lock)
            if not count:
                kept = bool(file.dead_letters()) or bool(file.quarantined())
                source.drop(keep_file=kept)
                return None
        except StorageError as error:
            self._set_file_aside(path, error)
            lock.release(remove=True)
            return None
        source.count = count
        self._count += count
        self._bytes += size
        return source, first, last

    def _set_file_aside(self, path: Path, error: StorageError) -> None:
        aside = path.with_suffix(".corrupt")
        path.rename(aside)
        logger.error("%s; moved to %s, its events are not sent", error, aside)

    def _tell(self, path: Path, message: str) -> None:
        if path not in self._told:
            self._told.add(path)
            logger.warning("spool file %s %s", path, message)

    def _sources(self) -> list[_Source]:
        own = [self._own] if self._own is not None else []
        return [*own, *self._adopted]

    # Writing -----------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> Awaitable[None]:
        """Write records; appends at the same time share one transaction.

        Raises:
            StorageFullError: ``max_events`` or ``max_bytes`` is reached.
        """
        size = sum(len(record.body) for record in records)
        if self._count + len(records) > self._max_events:
            msg = (
                f"the spool {self.directory} holds {self._count} events of max_events="
                f"{self._max_events}"
            )
            raise StorageFullError(msg)
        if self._bytes + size > self._max_bytes:
            msg = (
                f"the spool {self.directory} holds {self._bytes} bytes of max_bytes="
                f"{self._max_bytes}"
            )
            raise StorageFullError(msg)
        self._count += len(records)
        self._bytes += size
        self._pending += records
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
        if self._committer is None or self._committer.done():
            self._committer = asyncio.get_running_loop().create_task(
                self._commit(), name="amplitude_async spool"
            )
        return self._group

    async def _commit(self) -> None:
        while self._pending and self._group is not None and self._own is not None:
            records, self._pending = self._pending, []
            group, self._group = self._group, None
            try:
                await self._run(self._own.file.insert, records)
            except Exception as error:  # noqa: BLE001 - handed to those who wait
                self._count -= len(records)
                self._bytes -= sum(len(record.body) for record in records)
                group.set_exception(_as_storage_error(error))
                group.exception()  # a waiter that was cancelled does not ask
            else:
                self._own.count += len(records)
                if not group.cancelled():
                    group.set_result(None)

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records whose fate is decided."""
        adopted = self._adopted
        own = [i for i in ids if not any(i in source.ids for source in adopted)]
        if own and self._own is not None:
            await self._forget(self._own, own)
        for source in list(adopted):
            rows = [i - source.base for i in ids if i in source.ids]
            if rows:
                await self._forget(source, rows)

    async def _forget(self, source: _Source, rows: list[int]) -> None:
        count, size = await self._run(source.file.delete, rows)
        source.count -= count
        self._count -= count
        self._bytes -= size
        if source is not self._own and source.count <= 0:
            self._adopted.remove(source)
            await self._run(self._finish, source)

    def _finish(self, source: _Source) -> None:
        kept = bool(source.file.dead_letters()) or bool(source.file.quarantined())
        source.drop(keep_file=kept)

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events, the newest ``dead_letters`` of them."""
        if self.dead_letters and self._own is not None:
            await self._run(self._own.file.bury, letters, self.dead_letters)

    # Reading -----------------------------------------------------------------

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        pages = []
        for source in self._sources():
            base = source.base
            rows = await self._run(
                source.file.fetch, max(after - base, 0), limit, max_bytes
            )
            pages.append([r._replace(id=r.id + base) if base else r for r in rows])
            damaged = sum(not r.body for r in rows)
            source.count -= damaged
            self._count -= damaged
        return _cut(list(heapq.merge(*pages)), limit, max_bytes)

    async def size(self) -> int:
        """Count the unsettled records."""
        return self._count

    # Closing -----------------------------------------------------------------

    async def close(self) -> None:
        """Finish writing, free the files and delete those with nothing left."""
        if self._committer is not None and not self._committer.done():
            await asyncio.wait({self._committer})
        try:
            for source in self._sources():
                await self._run(self._leave, source)
        finally:
            self._own = None
            self._adopted = []
            self._stop_thread()

    def _leave(self, source: _Source) -> None:
        file = source.file
        kept = bool(file.extent()[0] or file.dead_letters() or file.quarantined())
        source.drop(keep_file=kept)

    def _stop_thread(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def after_fork(self) -> "SQLiteStorage":
        """Build the child's own spool in the same directory."""
        for source in self._sources():
            # Closing SQLite's connection here would meddle with the parent's file.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(source.file))
        return SQLiteStorage(
            self.directory,
            synchronous=self._synchronous,
            max_events=self._max_events,
            max_bytes=self._max_bytes,
            max_age=self.default_max_age or SIX_DAYS,
            dead_letters=self.dead_letters,
        )


def _close_lock_in_children(lock: SpoolLock) -> None:
    """A forked child shares the lock and would keep it beyond the parent's death."""
    weak = weakref.ref(lock)

    def forget() -> None:
        held = weak()
        if held is not None:
            held.forget()

    os.register_at_fork(after_in_child=forget)


def _cut(records: list[Record], limit: int, max_bytes: int) -> list[Record]:
    total = 0
    for index, record in enumerate(records[:limit]):
        total += len(record.body)
        if total > max_bytes and index:
            return records[:index]
    return records[:limit]


def _as_storage_error(error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    return StorageError(f"the spool cannot be written: {error!r}")
