"""The way in: a bounded asyncio.Queue, overflow policies, a fair wait for room."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from amplitude_async.config import DeliveryConfig, Overflow
from amplitude_async.delivery.books import Books
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.handle import Delivery, whole_pages
from amplitude_async.delivery.health import HealthState
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.schedule import Schedule
from amplitude_async.exceptions import QueueFullError
from amplitude_async.storage.base import Record

__all__ = ["BulkQueue", "Intake"]


class BulkQueue(asyncio.Queue[Record]):
    """An asyncio.Queue that is filled by one and emptied by the batch.

    Nobody waits in ``get``, so that nobody need be woken for an event. ``_init``,
    ``_get`` and ``_put`` are the overridable parts of ``asyncio.Queue``.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        self._records: deque[Record] = deque()
        self.add = self._records.append

    def qsize(self) -> int:
        """Count the waiting events."""
        return len(self._records)

    def _get(self) -> Record:
        return self._records.popleft()

    def _put(self, item: Record) -> None:
        self._records.append(item)

    def take_all(self) -> list[Record]:
        """Take every event out, in order."""
        records = list(self._records)
        self._records.clear()
        return records


class Intake:
    """Accepts encoded events, within bounds of count and bytes."""

    def __init__(
        self,
        config: DeliveryConfig,
        schedule: Schedule,
        books: Books,
        journal: Journal,
        *,
        clock: Clock,
        client_id: int,
        wake: Callable[[], None],
        wake_at: Callable[[float], None],
    ) -> None:
        self._config = config
        self._schedule = schedule
        self._books = books
        self._journal = journal
        self._clock = clock
        self._client_id = client_id
        self._wake = wake
        self._set_alarm = wake_at
        self._waiters: deque[tuple[asyncio.Future[bool], int]] = deque()
        self._promised = 0
        self._promised_bytes = 0
        self._queue = BulkQueue()
        self._capacity = config.max_storage_capacity
        self._max_bytes = config.max_storage_bytes
        self.next_id = 1
        """The id of the next event that is accepted."""
        self._since = 0.0
        self.fresh = 0
        """Events in the queue."""
        self.wake_at = 1
        """So many events in the queue wake the flush task."""
        self.closing = False
        self.crowded = False
        """Somebody wanted in and found no room: what waits must go now."""

    @property
    def in_memory(self) -> int:
        """Undecided events in memory: queued, parked, held and in flight."""
        return self.fresh + self._schedule.size

    @property
    def due_at(self) -> float:
        """When the first event in the queue has waited long enough for company."""
        return self._since + self._schedule.linger_for()

    @property
    def last_id(self) -> int:
        """The id of the newest event."""
        return self.next_id - 1

    def allot(self, count: int) -> int:
        """Reserve so many ids; returns the first."""
        first = self.next_id
        self.next_id += count
        return first

    def allot_recovered(self, count: int) -> int:
        """Reserve ids for events of other processes; returns the first.

        They fill whole pages of the ledger: nobody holds a handle on them, and a page
        counts only events whose handle was given out.
        """
        self.next_id = whole_pages(self.last_id) + 1
        first = self.allot(count)
        self.next_id = whole_pages(self.last_id) + 1
        return first

    @property
    def refusal(self) -> Outcome | None:
        """The verdict on every new event while the server refuses us.

        None where the event at hand is the probe, or where a durable storage keeps it.
        """
        health = self._schedule.health
        if health.state is not HealthState.REFUSED or self._journal.durable:
            return None
        if self._clock.now() >= health.not_before and not self.in_memory:
            return None
        return Outcome.rejected(health.refusal_message, health.refusal_code)

    # Taking in ---------------------------------------------------------------

    def offer(self, record: Record) -> Delivery | None:
        """Accept an event without suspending; None where there is no room."""
        size = len(record.body)
        if self._waiters or not self.has_room(size):
            return None
        return self._take_in(record, size)

    def _take_in(self, record: Record, size: int) -> Delivery:
        if self._schedule.health.state is HealthState.REFUSED:
            verdict = self.refusal
            if verdict is not None:
                return self._books.settle_at_door(record, record.insert_id, verdict)
            self._wake()
        number = self.next_id
        if record.id != number:
            record = record._replace(id=number)
        self.next_id = number + 1
        return self._enter(record, size)

    def _enter(self, record: Record, size: int) -> Delivery:
        books = self._books
        books.bytes += size
        self._queue.add(record)
        self.fresh = fresh = self.fresh + 1
        if fresh == 1:
            self._since = now = self._clock.now()
            self._set_alarm(now + self._schedule.linger_for())
        if fresh >= self.wake_at:
            self._wake()
        return books.enter(record)

    def has_room(self, size: int) -> bool:
        """Say whether an event of so many bytes fits within the bounds."""
        count = self.fresh + self._schedule.size + self._promised
        total = self._books.bytes + self._promised_bytes + size
        return count < self._capacity and total <= self._max_bytes

    def accept(self, record: Record) -> Coroutine[Any, Any, Delivery]:
        """Accept an event, waiting for room or for the journal where that is needed.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        if self._journal.bypassed:
            return self._accept_in_memory(record)
        return self._accept_durably(record)

    async def _accept_in_memory(self, record: Record) -> Delivery:
        delivery = self.offer(record)
        if delivery is None and self._may_wait(record):
            size = len(record.body)
            promised = await self._wait_for_room(size)
            return self._accept_after_wait(record, promised=promised)
        return delivery or self._overflow(record)

    def offer_nowait(self, record: Record) -> Delivery:
        """Accept an event for synchronous code; sheds where there is no room.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        # What is only in the journal was accepted before: do not overtake it.
        delivery = None if self._journal.unread else self.offer(record)
        if delivery is None:
            return self._overflow(record)
        if not self._journal.bypassed:
            self._journal.append_soon(record._replace(id=self.last_id))
        return delivery

    def drain(self) -> None:
        """Hand everything in the queue to the schedule."""
        if self.fresh:
            self._schedule.add(self.take_all(), self._since)

    def take_all(self) -> list[Record]:
        """Empty the queue."""
        self.fresh = 0
        return self._queue.take_all()

    # Overflow ----------------------------------------------------------------

    def _ask_for_room(self) -> None:
        """Send what waits, however few: no more company can come."""
        self.crowded = True
        self._wake()

    def _overflow(self, record: Record) -> Delivery:
        self._ask_for_room()
        policy = self._config.overflow
        if policy is Overflow.RAISE:
            raise QueueFullError(self._full_message())
        if policy is Overflow.DROP_OLDEST:
            return self._make_room(record)
        return self._shed(record, self._full_message())

    def _make_room(self, record: Record) -> Delivery:
        if len(record.body) > self._config.max_storage_bytes:
            return self._shed(record, self._full_message())
        self.drain()
        delivery = self.offer(record)
        while delivery is None:
            evicted = self._schedule.evict_oldest()
            if not evicted:
                return self._shed(record, self._full_message())
            self._books.settle(evicted)
            delivery = self.offer(record)
        return delivery

    def _shed(self, record: Record, message: str) -> Delivery:
        outcome = Outcome.dropped(DropReason.OVERFLOW, message)
        return self._books.settle_at_door(record, record.insert_id, outcome)

    def _full_message(self) -> str:
        config = self._config
        return (
            f"the queue is full: {self.in_memory} events of max_storage_capacity="
            f"{config.max_storage_capacity}, {self._books.bytes} bytes of "
            f"max_storage_bytes={config.max_storage_bytes}"
        )

    # Waiting for room --------------------------------------------------------

    def _may_wait(self, record: Record) -> bool:
        config = self._config
        return (
            config.overflow is Overflow.WAIT
            and config.overflow_timeout > 0
            and len(record.body) <= config.max_storage_bytes
            and self._schedule.health.state is HealthState.HEALTHY
            and self._client_id not in inside_user_code.get()
        )

    async def _wait_for_room(self, size: int) -> bool:
        """Wait in line; True where a place is kept for this event."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(
            self._config.overflow_timeout, lambda: _answer(waiter, promised=False)
        )
        entry = (waiter, size)
        self._waiters.append(entry)
        self._ask_for_room()
        try:
            promised = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._redeem(size)
                self.admit_waiters()  # its place goes to the next in line
            raise
        finally:
            timer.cancel()
            if entry in self._waiters:
                self._waiters.remove(entry)
        if promised:
            self._redeem(size)
        return promised

    def _redeem(self, size: int) -> None:
        self._promised -= 1
        self._promised_bytes -= size

    def _accept_after_wait(self, record: Record, *, promised: bool) -> Delivery:
        if self.closing:
            message = "the client was shut down while this event waited for room"
            outcome = Outcome.dropped(DropReason.CLOSED, message)
            return self._books.settle_at_door(record, record.insert_id, outcome)
        size = len(record.body)
        if promised or self.has_room(size):
            return self._take_in(record, size)
        return self._shed(record, self._full_message())

    def admit_waiters(self) -> None:
        """Keep a place for those who wait for room, in order, as far as it goes.

        All of them are told to go on where waiting does not help any more.
        """
        waiters = self._waiters
        unwell = self._schedule.health.state is not HealthState.HEALTHY
        while waiters:
            waiter, size = waiters[0]
            if waiter.done():
                waiters.popleft()
            elif unwell or self.closing:
                waiters.popleft()
                waiter.set_result(False)
            elif self.has_room(size):
                waiters.popleft()
                self._promised += 1
                self._promised_bytes += size
                waiter.set_result(True)
            else:
                return

    # With a durable storage --------------------------------------------------

    async def _accept_durably(self, record: Record) -> Delivery:
        number = self.next_id
        self.next_id = number + 1
        if record.id != number:
            record = record._replace(id=number)
        written = False
        try:
            written = await self._journal.append(record)
        finally:
            if not written or self.closing:
                self._books.withdraw(number)
        if not written:
            # A failure was reported loudly; events go on in memory.
            full = self._journal.durable
            return (
                self._refuse(record) if full else await self._accept_in_memory(record)
            )
        if self.closing:
            self._journal.settle_soon([record.id])
            message = "the client was shut down while this event was being stored"
            outcome = Outcome.dropped(DropReason.CLOSED, message)
            return self._books.settle_at_door(record, record.insert_id, outcome)
        size = len(record.body)
        if not self._journal.unread and self.has_room(size):
            self._journal.mark_read(record.id)
            return self._enter(record, size)
        self._journal.leave_unread()
        self._wake()
        return self._books.enter(record)

    def _refuse(self, record: Record) -> Delivery:
        """Shed an event for which a durable storage has no room of its own."""
        message = "the storage has reached its own limit"
        if self._config.overflow is Overflow.RAISE:
            raise QueueFullError(message)
        return self._shed(record, message)

    # Lifecycle ---------------------------------------------------------------

    def rebind(self) -> None:
        """Forget what belongs to a closed loop; the queue is empty by now."""
        self._queue = BulkQueue()
        self._waiters.clear()
        self._promised = self._promised_bytes = 0


def _answer(waiter: "asyncio.Future[bool]", *, promised: bool) -> None:
    if not waiter.done():
        waiter.set_result(promised)
