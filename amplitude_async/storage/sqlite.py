"""A spool that survives the process: one SQLite file per process, locked for its life.

Records are written in write-ahead-log mode by one thread; appends that arrive while a
transaction is being written share the next one (group commit). Files of processes that
are gone are taken over, each record exactly once.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from amplitude_async.exceptions import (
    ConfigurationError,
    StorageError,
    StorageFullError,
)
from amplitude_async.storage.base import DeadLetter, Holdings, Record, Storage
from amplitude_async.storage.spool.allowance import Allowance
from amplitude_async.storage.spool.sources import Sources
from amplitude_async.storage.spool.thread import SpoolThread, answer

__all__ = ["SQLiteStorage"]

T = TypeVar("T")

# Amplitude deduplicates for seven days: a day less leaves room for slow clocks.
SIX_DAYS = 6 * 86400.0
# So many seconds a transaction that failed may take to find out whose fault it was.
_ONE_BY_ONE = 1.0


class _Append(NamedTuple):
    """Records that wait for the next transaction."""

    records: Sequence[Record]
    size: int
    """Bytes of their bodies."""
    written: "asyncio.Future[None]"


_Ended: TypeAlias = "tuple[asyncio.Future[None], StorageError | None]"


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
        min_free_bytes: write nothing where less than this (or than a quarter of a small
            disk) would be left free, so that what was delivered can be deleted.

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
        min_free_bytes: int = 32 * 1024**2,
    ) -> None:
        if synchronous not in {"normal", "full"}:
            msg = f"synchronous={synchronous!r}: use 'normal' or 'full'"
            raise ConfigurationError(msg)
        age = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
        for name, number, least in (
            ("max_events", max_events, 1),
            ("max_bytes", max_bytes, 1),
            ("dead_letters", dead_letters, 0),
            ("min_free_bytes", min_free_bytes, 0),
            ("max_age", age, 1),
        ):
            if not number >= least:
                msg = f"{name}={number!r}: must be at least {least}"
                raise ConfigurationError(msg)
        self.directory = Path(directory)
        self.default_max_age = age
        self.dead_letters = dead_letters
        self._synchronous = synchronous
        self._min_free_bytes = min_free_bytes
        self._thread: SpoolThread | None = None
        self._allowance = Allowance(max_events, max_bytes)
        self._sources = Sources(
            self.directory,
            self._allowance,
            full_sync=synchronous == "full",
            dead_letters=dead_letters,
            min_free_bytes=min_free_bytes,
        )
        self._pending: deque[_Append] = deque()
        self._posting: asyncio.AbstractEventLoop | None = None
        self._oldest: float | None = None

    def __repr__(self) -> str:
        return (
            f"<SQLiteStorage {str(self.directory)!r} {self._allowance.events} events>"
        )

    def __del__(self) -> None:
        # Nobody closed it: its files are free for others, and its thread ends.
        thread = getattr(self, "_thread", None)
        if thread is not None:
            thread.post(self._sources.leave)

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
            StorageError: the directory cannot be used, or the disk is full and has
                nothing to deliver first; the message says what to do.
        """
        if self._thread is not None:
            msg = (
                f"the spool {self.directory} is open already: give each client its "
                "own SQLiteStorage (they may share the directory)"
            )
            raise StorageError(msg)
        # What a last time left in the directory is counted when it is adopted again.
        self._allowance.begin()
        thread = self._thread = SpoolThread()
        try:
            await self._run(self._sources.open, destination)
        except BaseException:
            # A waiter that was cancelled leaves no file behind that nobody can adopt.
            thread.post(self._sources.leave)
            self._stop_thread()
            raise
        if self._thread is not thread:
            msg = f"the spool {self.directory} was closed while it was being opened"
            raise StorageError(msg)
        self._look_soon()
        return self._sources.number_claimed(allot)

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over files of processes that are gone, a few at a time.

        No more than a quarter of ``max_events`` and ``max_bytes``, unless that is in
        one file; the rest when there is room again.
        """
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
        if self._thread is None or not self._allowance.take(count, size):
            raise self._no_room()
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
        held = self._allowance
        return StorageFullError(
            f"the spool {self.directory} holds {held.events} events of max_events="
            f"{held.max_events} and {held.size} bytes of max_bytes="
            f"{held.max_bytes}: raise the limit, or see why they are not delivered"
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
        errors = self._write(group)
        if self._oldest is None:
            self._look()
        # The first of them may belong to a loop that is closed by now.
        waiting: dict[asyncio.AbstractEventLoop, list[_Ended]] = {}
        for one, error in zip(group, errors, strict=True):
            loop = one.written.get_loop()
            waiting.setdefault(loop, []).append((one.written, error))
        for loop, ended in waiting.items():
            answer(loop, partial(_end, ended))

    def _write(self, group: list[_Append]) -> list[StorageError | None]:
        """Write appends together, or one by one where one of them spoils it for all.

        Returns:
            What went wrong with each; None where it is written.
        """
        give_up_at = time.monotonic() + _ONE_BY_ONE
        error = _insert(self._sources, group)
        if error is None:
            return [None] * len(group)
        errors: list[StorageError | None] = []
        for one in group:
            # A disk that takes long to say no is not asked for each of them.
            if len(group) > 1 and time.monotonic() < give_up_at:
                errors.append(_insert(self._sources, [one]))
            else:
                errors.append(error)
        for one, left_out in zip(group, errors, strict=True):
            if left_out is not None:
                self._allowance.give_back(len(one.records), one.size)
        return errors

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records whose fate is decided."""
        forgotten = self._run(self._sources.forget, sorted(ids))
        self._look_soon()
        await forgotten

    # Counting ----------------------------------------------------------------

    def holdings(self) -> Holdings:
        """Say how much is stored and how old it is, as of the last write."""
        if not self._allowance.events:
            return Holdings()
        return Holdings(self._allowance.size, self._oldest)

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
        return self._allowance.events

    # Closing -----------------------------------------------------------------

    async def confirm(self) -> None:
        """See that what was written is still there; else it is written once more.

        Raises:
            StorageError: that failed; events of this spool die with the process.
        """
        if self._thread is not None:
            await self._run(self._sources.confirm)

    async def close(self) -> None:
        """Finish writing, free the files and delete those with nothing left."""
        if self._thread is None:
            return
        # Behind all that is queued: what was appended is written before the end.
        left = self._run(self._sources.leave)
        self._stop_thread()
        await left

    def _stop_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def after_fork(self) -> "SQLiteStorage":
        """Build the child's own spool in the same directory."""
        return SQLiteStorage(
            self.directory,
            synchronous=self._synchronous,
            max_events=self._allowance.max_events,
            max_bytes=self._allowance.max_bytes,
            max_age=self.default_max_age or SIX_DAYS,
            dead_letters=self.dead_letters,
            min_free_bytes=self._min_free_bytes,
        )


def _insert(sources: Sources, group: list[_Append]) -> StorageError | None:
    """Write appends in one transaction; returns why nothing was written."""
    records = [record for one in group for record in one.records]
    try:
        sources.insert(records, sum([one.size for one in group]))
    except StorageError as error:
        return error
    except BaseException as error:  # noqa: BLE001 - nobody may wait for ever
        # Without its text, which may hold an id.
        problem = StorageError(
            f"the spool cannot write an event: {type(error).__name__}"
        )
        problem.__cause__ = error
        return problem
    return None


def _end(group: list[_Ended]) -> None:
    """Tell everybody whose records were in one transaction."""
    for future, error in group:
        # A waiter that was cancelled settles its records itself.
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
