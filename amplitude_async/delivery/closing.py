"""The last act: what is left when the deadline comes, and who must still hear of it."""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from amplitude_async.delivery.callbacks import CallbackRunner, inside_user_code
from amplitude_async.delivery.outcome import (
    DeliveryStatus,
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.delivery.parts import Parts, Site
from amplitude_async.delivery.reporting import in_words
from amplitude_async.delivery.shares import Drained
from amplitude_async.delivery.tasks import spawn
from amplitude_async.storage.base import Record

__all__ = ["LastAct"]

# A storage gets so long to close when no time is left, and at the most.
GRACE = 0.5
MOST_GRACE = 5.0


class LastAct:
    """Settles what is left and closes what is open; nothing is sent any more."""

    def __init__(self, site: Site, parts: Parts, deadline: float) -> None:
        self._books = parts.books
        self._journal = parts.journal
        self._schedule = parts.schedule
        self._intake = parts.intake
        self._clock = site.clock
        self._reporter = site.reporter
        # A callback that shuts its client down is not waited for: it waits for us.
        self._inside = site.client_id in inside_user_code.get()
        self._deadline = deadline
        self._told = 0

    @property
    def _left(self) -> float | None:
        """Seconds until the deadline; None where there is none."""
        left = self._deadline - self._clock.now()
        return None if math.isinf(left) else max(left, 0.0)

    async def play(self, interrupted: set[int]) -> None:
        """Bring every event to an end.

        Args:
            interrupted: ids of the events whose request was cut off.
        """
        await self._bounded(self._journal.written(), "storage_write")
        await self._bounded(self._journal.confirm(), "storage_lost")
        # Taken out and due to be settled in one go: a last act that is cancelled
        # loses none.
        self._settle(self._schedule.remove_all() + self._intake.take_all(), interrupted)
        await self._books.settled()
        await self._leave_unread()
        self._books.flushes.let_all_go()  # the flush task is gone
        await self._finish_callbacks()
        await self._bounded(self._journal.close(), "storage_close")
        await self._journal.let_go(GRACE)

    async def _bounded(self, work: Coroutine[Any, Any, None], cause: str) -> None:
        """Await a storage until the deadline, and a little longer if that is past.

        In a task of its own, which is left alone where it does not end even when it is
        cancelled: no storage, however slow or broken, holds up a shutdown.
        """
        task = spawn(work, cause)
        left = MOST_GRACE if self._left is None else max(self._left, GRACE)
        await asyncio.wait({task}, timeout=min(left, MOST_GRACE))
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE)
            self._reporter.error(cause, "the storage is stuck; it was left as it is")
        elif task.cancelled():
            self._reporter.error(cause, "the storage raised CancelledError")
        elif error := task.exception():
            self._reporter.error(cause, "%s", in_words(error))

    def _settle(self, leftovers: list[Record], interrupted: set[int]) -> None:
        journal = self._journal
        stored = 0
        if journal.writes:
            stored = sum(journal.holds(record.id) for record in leftovers)
        kept, gone = (_stored(""), _stored(_DOUBT)), (_lost(""), _lost(_DOUBT))

        def fate(record: Record) -> Settlement:
            held = journal.holds(record.id)
            return record, (kept if held else gone)[record.id in interrupted]

        lost = len(leftovers) - stored
        self._books.settle_in_shares(Drained(deque(leftovers), fate))
        self._report("stored", stored + journal.unread)
        self._report("lost", lost)

    def _report(self, fate: str, count: int) -> None:
        if count:
            self._reporter.warning(
                f"shutdown {fate}",
                "shut down with undelivered events: %s",
                fate,
                count=count,
            )

    async def _leave_unread(self) -> None:
        """Settle what is only in the journal as STORED, and tell all who wait."""
        books, journal = self._books, self._journal
        outcome = _stored("") if journal.keeps_unread else _lost("")
        if journal.unread and books.callbacks is not None:
            telling = self._call_back_unread(books.callbacks, outcome)
            await self._bounded(telling, "storage_read")
            if self._told < journal.unread:
                self._reporter.error(
                    "callback_deadline",
                    "shut down before the callback had seen every stored event",
                    count=journal.unread - self._told,
                )
        books.store_rest(journal.reading.abandon(), outcome)

    async def _call_back_unread(self, runner: CallbackRunner, outcome: Outcome) -> None:
        """Hand unread events to the callback until the deadline."""
        if self._inside:
            return
        async with aclosing(self._journal.reading.pages()) as pages:
            async for page in pages:
                for record in page:
                    left = self._left
                    late = left is not None and left <= 0
                    if late or (runner.full and not await runner.drain(left)):
                        return
                    self._books.call_back(record, outcome)
                    self._told += 1

    async def _finish_callbacks(self) -> None:
        runner = self._books.callbacks
        if runner is None or self._inside:
            return
        if not await runner.drain(self._left):
            missed = await runner.stop()
            self._reporter.error(
                "callback_deadline",
                "shut down before the callback had seen every result",
                count=missed,
            )


_DOUBT = "; it was in flight and may have been delivered"


def _stored(doubt: str) -> Outcome:
    message = "kept in the storage for the next process" + doubt
    return Outcome(DeliveryStatus.STORED, 0, message)


def _lost(doubt: str) -> Outcome:
    message = "not delivered before the shutdown deadline" + doubt
    return Outcome.dropped(DropReason.SHUTDOWN, message)
