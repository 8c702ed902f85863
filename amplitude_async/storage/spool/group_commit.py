"""Appends that share a transaction: what comes while one is written waits for the next.

They are gathered on the loop's thread, and written on the spool's.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import Record
from amplitude_async.storage.spool.allowance import Allowance
from amplitude_async.storage.spool.sources import Sources
from amplitude_async.storage.spool.thread import SpoolThread, answer

__all__ = ["GroupCommit"]

T = TypeVar("T")

# So many seconds a transaction that failed may take to find out whose fault it was.
_ONE_BY_ONE = 1.0


class _Append(NamedTuple):
    """Records that wait for the next transaction."""

    records: Sequence[Record]
    size: int
    """Bytes of their bodies."""
    written: "asyncio.Future[None]"


_Ended: TypeAlias = "tuple[asyncio.Future[None], StorageError | None]"


class GroupCommit:
    """Queues what is asked of an open spool; appends of one turn go together.

    Args:
        thread: does, in order, what is queued.
        sources: where records are written.
        allowance: gets back what could not be written.
    """

    def __init__(
        self, thread: SpoolThread, sources: Sources, allowance: Allowance
    ) -> None:
        self._thread = thread
        self._sources = sources
        self._allowance = allowance
        self._pending: deque[_Append] = deque()
        self._posting: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<GroupCommit {len(self._pending)} waiting>"

    # On the loop's thread ----------------------------------------------------

    def append(self, records: Sequence[Record], size: int) -> "asyncio.Future[None]":
        """Write records, whose bodies have so many bytes, with what else comes now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._pending.append(_Append(records, size, future))
        if self._posting is not loop:
            # Not at once: what else appends in this turn of the loop comes along.
            self._posting = loop
            loop.call_soon(self._post_pending)
        return future

    def run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call on the spool's thread, after all that was asked of it before."""
        # What was appended in this turn of the loop is not posted yet.
        self._post_pending()
        return self._thread.run(function, *args)

    def post(self, job: Callable[[], object]) -> None:
        """Queue a job, which does not raise, after all that was asked for before."""
        self._post_pending()
        self._thread.post(job)

    def stop(self) -> None:
        """End the thread after what is queued."""
        self._thread.stop()

    def _post_pending(self) -> None:
        self._posting = None
        if self._pending:
            self._thread.post(self._commit)

    # On the spool's thread ---------------------------------------------------

    def _commit(self) -> None:
        """Write what is pending in one transaction."""
        group: list[_Append] = []
        with contextlib.suppress(IndexError):
            while True:
                group.append(self._pending.popleft())
        if not group:
            return
        errors = self._write(group)
        if self._sources.oldest is None:
            self._sources.look()
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
