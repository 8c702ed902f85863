"""A spool that survives the process: one SQLite file per process, locked for its life.

Records are written in write-ahead-log mode by one thread; appends that arrive while a
transaction is being written share the next one (group commit). Files of processes that
are gone are taken over, each record exactly once.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from amplitude_async.exceptions import (
    ConfigurationError,
    StorageError,
    StorageFullError,
)
from amplitude_async.storage.base import DeadLetter, Holdings, Record, Storage
from amplitude_async.storage.spool.sources import Sources, Tally
from amplitude_async.storage.spool.thread import SpoolThread, answer

__all__ = ["SQLiteStorage"]

T = TypeVar("T")

# Amplitude deduplicates for seven days: a day less leaves room for slow clocks.
SIX_DAYS = 6 * 86400.0


class _Append(NamedTuple):
    """Records that wait for the next transaction."""

    records: Sequence[Record]
    size: int
    """Bytes of their bodies."""
    written: "asyncio.Future[None]"


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
        self._thread: SpoolThread | None = None
        self._sources = Sources(
            self.directory,
            full_sync=synchronous == "full",
            dead_letters=dead_letters,
        )
        # Two counts and not one, since each is changed by a thread of its own: this by
        # the loop's, the other by the spool's.
        self._appended = Tally()
        self._pending: deque[_Append] = deque()
        self._posting: asyncio.AbstractEventLoop | None = None
        self._oldest: float | None = None

    def __repr__(self) -> str:
        return f"<SQLiteStorage {str(self.directory)!r} {self._count} events>"

    @property
    def _count(self) -> int:
        return self._appended.events - self._sources.settled.events

    @property
    def _bytes(self) -> int:
        return self._appended.size - self._sources.settled.size

    def _run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call on the spool's thread, after all that was asked of it before."""
        if self._thread is None:
            msg = f"the spool {self.directory} is not open"
            raise StorageError(msg)
        # What was appended in this turn of the loop is not posted yet.
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
        # What a last time left in the directory is counted when it is adopted again.
        self._appended.clear()
        self._sources.settled.clear()
        self._thread = SpoolThread()
        try:
            await self._run(self._sources.create, destination)
            return await self.adopt(allot)
        except BaseException:
            # A waiter that was cancelled leaves no file behind that nobody can adopt.
            self._thread.post(self._sources.leave)
            self._stop_thread()
            raise

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over the files of processes that are gone."""
        await self._run(self._sources.claim_orphans)
        self._look_soon()
        return self._sources.number_claimed(allot)

    # Writing -----------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Write records; appends at the same time share one transaction.

        Raises:
            StorageFullError: ``max_events`` or ``max_bytes`` is reached.
        """
        count, size = len(records), 0
        for record in records:
            size += len(record.body)
        # Without a lock: at worst a limit is felt a moment early or late.
        appended, settled = self._appended, self._sources.settled
        events = appended.events + count
        total = appended.size + size
        if (
            events - settled.events > self._max_events
            or total - settled.size > self._max_bytes
            or self._thread is None
        ):
            raise self._no_room()
        appended.add(count, size)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._pending.append(_Append(records, size, future))
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
        error: StorageError | None = None
        try:
            self._sources.insert(
                [record for one in group for record in one.records],
                sum([one.size for one in group]),
            )
            if self._oldest is None:
                self._look()
        except StorageError as caught:
            error = caught
        # The first of them may belong to a loop that is closed by now.
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for one in group:
            waiting.setdefault(one.written.get_loop(), []).append(one.written)
        for loop, futures in waiting.items():
            answer(loop, partial(_end, futures, error))

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records whose fate is decided."""
        forgotten = self._run(self._sources.forget, sorted(ids))
        self._look_soon()
        await forgotten

    # Counting ----------------------------------------------------------------

    def holdings(self) -> Holdings:
        """Say how much is stored and how old it is, as of the last write."""
        if not self._count:
            return Holdings()
        return Holdings(self._bytes, self._oldest)

    def _look_soon(self) -> None:
        """Find the oldest record again, after what was asked for before."""
        if self._thread is not None:
            self._thread.post(self._look)

    def _look(self) -> None:
        # It is only a figure: a file that makes trouble says so elsewhere.
        with contextlib.suppress(StorageError):
            self._oldest = self._sources.oldest()

    # Dead letters ------------------------------------------------------------

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events, the newest ``dead_letters`` of them."""
        if self.dead_letters and self._sources.own is not None:
            await self._run(self._sources.bury, letters)

    async def list_dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events that are kept, oldest first."""
        if self._sources.own is None:
            return []
        return await self._run(self._sources.dead_letters)

    # Reading -----------------------------------------------------------------

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        return await self._run(self._sources.read, after, limit, max_bytes)

    async def size(self) -> int:
        """Count the unsettled records."""
        return self._count

    # Closing -----------------------------------------------------------------

    async def close(self) -> None:
        """Finish writing, free the files and delete those with nothing left."""
        if self._thread is None:
            return
        try:
            # Behind all that is queued: what was appended is written before the end.
            await self._run(self._sources.leave)
        finally:
            self._stop_thread()

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


def _end(futures: list["asyncio.Future[None]"], error: StorageError | None) -> None:
    """Tell everybody whose records were in one transaction."""
    for future in futures:
        # A waiter that was cancelled settles its records itself.
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
