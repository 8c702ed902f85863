"""A spool that survives the process: one SQLite file per process, locked for its life.

Records are written in write-ahead-log mode by one thread; appends that arrive while a
transaction is being written share the next one (group commit). Files of processes that
are gone are taken over, each record exactly once.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from amplitude_async.exceptions import (
    ConfigurationError,
    StorageError,
    StorageFullError,
)
from amplitude_async.shown import shown
from amplitude_async.storage.base import DeadLetter, Holdings, Record, Storage
from amplitude_async.storage.spool.allowance import Allowance
from amplitude_async.storage.spool.group_commit import GroupCommit
from amplitude_async.storage.spool.sources import Sources
from amplitude_async.storage.spool.thread import SpoolThread

__all__ = ["SQLiteStorage"]

T = TypeVar("T")

# Amplitude deduplicates for seven days: a day less leaves room for slow clocks.
SIX_DAYS = 6 * 86400.0


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
            msg = f"synchronous={shown(synchronous)}: use 'normal' or 'full'"
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
                msg = f"{name}={shown(number)}: must be at least {least}"
                raise ConfigurationError(msg)
        self.directory = Path(directory)
        self.default_max_age = age
        self.dead_letters = dead_letters
        self._synchronous = synchronous
        self._min_free_bytes = min_free_bytes
        self._allowance = Allowance(max_events, max_bytes)
        self._sources = Sources(
            self.directory,
            self._allowance,
            full_sync=synchronous == "full",
            dead_letters=dead_letters,
            min_free_bytes=min_free_bytes,
        )
        self._commits: GroupCommit | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "_allowance"):
            return "<SQLiteStorage half-built>"  # a traceback of its constructor
        return (
            f"<SQLiteStorage {str(self.directory)!r} {self._allowance.events} events>"
        )

    def __del__(self) -> None:
        # Nobody closed it: its files are free for others, and its thread ends.
        commits = getattr(self, "_commits", None)
        if commits is not None:
            commits.post(self._sources.leave)

    def _run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call on the spool's thread, after all that was asked of it before."""
        if self._commits is None:
            raise self._not_open()
        return self._commits.run(function, *args)

    def _not_open(self) -> StorageError:
        return StorageError(f"the spool {self.directory} is not open")

    # Opening -----------------------------------------------------------------

    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Make the own file and take over those of processes that are gone.

        Raises:
            StorageError: the directory cannot be used, or the disk is full and has
                nothing to deliver first; the message says what to do.
        """
        if self._commits is not None:
            msg = (
                f"the spool {self.directory} is open already: give each client its "
                "own SQLiteStorage (they may share the directory)"
            )
            raise StorageError(msg)
        # What a last time left in the directory is counted when it is adopted again.
        self._allowance.begin()
        commits = GroupCommit(SpoolThread(), self._sources, self._allowance)
        self._commits = commits
        try:
            await commits.run(self._sources.open, destination)
        except BaseException:
            # A waiter that was cancelled leaves no file behind that nobody can adopt.
            commits.post(self._sources.leave)
            commits.stop()
            if self._commits is commits:
                self._commits = None
            raise
        if self._commits is not commits:
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
        size = sum([len(record.body) for record in records])
        commits = self._commits
        if commits is None:
            raise self._not_open()
        if not self._allowance.take(len(records), size):
            raise self._no_room()
        return commits.append(records, size)

    def _no_room(self) -> StorageFullError:
        held = self._allowance
        return StorageFullError(
            f"the spool {self.directory} holds {held.events} events of max_events="
            f"{held.max_events} and {held.size} bytes of max_bytes="
            f"{held.max_bytes}: raise the limit, or see why they are not delivered"
        )

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
        return Holdings(self._allowance.size, self._sources.oldest)

    def _look_soon(self) -> None:
        """Find the oldest record again, after what was asked for before."""
        if self._commits is not None:
            self._commits.post(self._sources.look)

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
        if self._commits is not None:
            await self._run(self._sources.confirm)

    async def close(self) -> None:
        """Finish writing, free the files and delete those with nothing left."""
        commits, self._commits = self._commits, None
        if commits is None:
            return
        # Behind all that is queued: what was appended is written before the end.
        left = commits.run(self._sources.leave)
        commits.stop()
        await left

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
