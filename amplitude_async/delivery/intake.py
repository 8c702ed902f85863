"""The way in: a bounded asyncio.Queue and the overflow policies."""

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from amplitude_async.config import DeliveryConfig, Overflow
from amplitude_async.delivery.ages import Ages
from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.books import Books
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.deciding.schedule import Schedule
from amplitude_async.delivery.fresh import BulkQueue, Numbers
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.interception import INTERCEPTION, Gate
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.outcome import DropReason, Outcome, Settlement
from amplitude_async.delivery.room import Room
from amplitude_async.exceptions import QueueFullError, StorageFullError
from amplitude_async.storage.base import Record

__all__ = ["Intake"]


class Intake:
    """Accepts encoded events; what to do where there is no room is its policy."""

    def __init__(  # noqa: PLR0913 - the rooms it asks or tells, by keyword
        self,
        config: DeliveryConfig,
        room: Room,
        schedule: Schedule,
        *,
        books: Books,
        journal: Journal,
        alarm: Alarm,
        ages: Ages,
        gate: Gate,
        client_id: int,
    ) -> None:
        self._config = config
        self._room = room
        self._schedule = schedule
        self._books = books
        self._journal = journal
        self._alarm = alarm
        self._ages = ages
        self._gate = gate
        self._client_id = client_id
        self._queue = BulkQueue()
        self._full_at = 1
        self.numbers = Numbers()
        """Ids in order of acceptance."""

    @property
    def closing(self) -> bool:
        """True once no event is taken any more."""
        return self._room.closed

    @property
    def fresh(self) -> int:
        """Events in the queue."""
        return self._queue.count()

    @property
    def blocked(self) -> bool:
        """True while what is fresh waits for older events that are unread.

        So it is where a storage can be read and not written: what comes then is in
        memory only, and may not overtake what lies in the storage.
        """
        records = self._queue.records
        return bool(records) and records[0].id >= self._journal.floor

    @property
    def fresh_bytes(self) -> int:
        """Bytes of the events in the queue; counted anew where their number changed."""
        return self._queue.weigh()

    @property
    def due_at(self) -> float:
        """When the first event in the queue has waited long enough for company."""
        return self._queue.since + self._schedule.linger.length

    def ring_when_full(self, events: int) -> None:
        """Ring once so many events are in the queue."""
        self._full_at = events

    def allot(self, count: int) -> int:
        """Reserve ids for events of other processes, at this moment's wall clock."""
        self._ages.notice(self.numbers.next, self._queue.records, self._queue.since)
        self._ages.adopt()
        return self.numbers.allot(count)

    # Taking in ---------------------------------------------------------------

    def offer(self, record: Record) -> Delivery | None:
        """Accept an event without suspending; None where that needs a wait.

        For room, or for a place of its result behind the callback.
        """
        if INTERCEPTION.active:
            verdict = self._gate.verdict_on(record)
            if verdict is not None:
                if self._books.is_behind:
                    return None
                return self._books.settle_record(record, verdict, must_tell=True)
        size = len(record.body)
        if not self._room.take(size):
            return None
        if self._room.closed or self._schedule.health.state is Health.REFUSED:
            if self._books.is_behind:
                self._room.free(1, size)
                return None
            return self._take_in(record, size, must_tell=False)
        return self._number(record)

    def _offer_now(self, record: Record, *, must_tell: bool) -> Delivery | None:
        """Accept an event as ``offer`` does; None only where there is no room."""
        size = len(record.body)
        if not self._room.take(size):
            return None
        return self._take_in(record, size, must_tell=must_tell)

    def _take_in(self, record: Record, size: int, *, must_tell: bool) -> Delivery:
        """Accept an event that has its place."""
        if self._room.closed or self._schedule.health.state is Health.REFUSED:
            # Whoever waited for a storage or for room while the client was shut down
            # comes by here as well.
            verdict = self._room.full if self._room.closed else self._refused()
            if verdict is not None:
                self._room.free(1, size)
                return self._books.settle_record(record, verdict, must_tell=must_tell)
            self._alarm.ring()
        return self._number(record)

    def _number(self, record: Record) -> Delivery:
        """Give an event its number and let it in."""
        number = self.numbers.take()
        if record.id != number:
            record = record._replace(id=number)
        if self._journal.writes:
            self._journal.keep_in_memory(number)
        return self._enter(record)

    def _refused(self) -> Outcome | None:
        """Say what the server that refuses us would say to a new event.

        None where the event at hand is the probe, or where a durable storage keeps it.
        """
        health = self._schedule.health
        if self._journal.durable:
            return None
        alone = self._room.count == 1
        if self._ages.now() >= health.not_before and alone:
            return None
        return Outcome.refusal(health.refusal_message, health.refusal_code)

    def _enter(self, record: Record) -> Delivery:
        queue = self._queue
        queue.add(record)
        fresh = queue.count()
        if fresh == 1:
            queue.begin(self._ages.now())
            self._alarm.ring_by(self.due_at)
        if fresh >= self._full_at:
            self._alarm.ring()
        return self._books.enter(record)

    def accept(self, record: Record) -> Coroutine[Any, Any, Delivery]:
        """Accept an event, waiting for room or for the journal where that is needed.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        if INTERCEPTION.active and self._gate.verdict_on(record) is not None:
            return self._accept_intercepted(record)
        if not self._journal.claims.takes_appends:
            return self._books.settle_in_turn(record, _FED)
        if self._journal.bypassed and not self._asks_again(record):
            return self._accept_in_memory(record)
        return self._accept_durably(record)

    async def _accept_intercepted(self, record: Record) -> Delivery:
        await self._books.wait_to_tell()
        # Whoever took the events may be gone by now: then it is sent.
        verdict = self._gate.verdict_on(record)
        if verdict is None:
            return await self.accept(self._ages.restamp(record))
        return self._books.settle_record(record, verdict, must_tell=True)

    async def _accept_in_memory(self, record: Record) -> Delivery:
        delivery = self.offer(record)
        if delivery is not None:
            return delivery
        if self._may_wait(record):
            return await self._accept_in_turn(record)
        await self._books.wait_to_tell()
        # There may be room by now.
        delivery = self._offer_now(record, must_tell=True)
        return delivery or self._overflow(record, must_tell=True)

    def offer_nowait(self, record: Record) -> Delivery:
        """Accept an event for synchronous code; sheds where there is no room.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        if INTERCEPTION.active:
            verdict = self._gate.verdict_on(record)
            if verdict is not None:
                return self._books.settle_record(record, verdict, must_tell=False)
        if not self._journal.claims.takes_appends:
            return self._books.settle_record(record, _FED, must_tell=False)
        # What is only in the journal was accepted before: do not overtake it.
        delivery = None
        if not self._is_overtaking(record):
            delivery = self._offer_now(record, must_tell=False)
        if delivery is None:
            delivery = self._overflow(record, must_tell=False)
        if delivery.at_door:
            return delivery
        if not self._journal.bypassed:
            self._journal.append_soon(record._replace(id=self.numbers.last))
        return delivery

    def drain(self, *, below: float = math.inf) -> None:
        """Hand to the schedule what is in the queue and waits for nothing older.

        Args:
            below: what has this id or a higher one stays.
        """
        records = self.take_below(min(below, self._journal.floor))
        if records:
            self._schedule.add(records, self._queue.since)

    def take_below(self, limit: float) -> Sequence[Record]:
        """Take out what has a lower id; its times are put right."""
        if not self._queue.count():
            return ()
        records = self._queue.take_below(limit)
        if not records:
            return ()
        self._ages.notice(self.numbers.next, records, self._queue.since)
        return self._ages.put_right_fresh(records, self._queue.since)

    def take_all(self) -> list[Record]:
        """Empty the queue, whatever it waits for."""
        return self._queue.take_below(math.inf)

    def remove(
        self, choose: Callable[[list[Record]], list[Record]] | None
    ) -> list[Record]:
        """Take the chosen ones out of what is blocked; without a choice all."""
        return self._queue.remove(choose)

    # Overflow ----------------------------------------------------------------

    def _overflow(self, record: Record, *, must_tell: bool) -> Delivery:
        # No more company can come: what waits goes now, however little it is.
        self._room.crowd()
        self._alarm.ring()
        policy = self._config.overflow
        if policy is Overflow.RAISE and not self.closing:
            raise QueueFullError(self._room.full.message)
        if policy is Overflow.DROP_OLDEST:
            return self._make_room(record, must_tell=must_tell)
        return self._books.settle_record(record, self._room.full, must_tell=must_tell)

    def _make_room(self, record: Record, *, must_tell: bool) -> Delivery:
        overtakes = self._is_overtaking(record) and not self._journal.bypassed
        if overtakes or not self._room.could_hold(len(record.body)):
            return self._books.settle_record(
                record, self._room.full, must_tell=must_tell
            )
        self.drain()
        delivery = self._offer_now(record, must_tell=must_tell)
        while delivery is None:
            evicted = self._evict_oldest()
            if not evicted:
                return self._books.settle_record(
                    record, self._room.full, must_tell=must_tell
                )
            self._books.settle(evicted, must_tell=must_tell)
            delivery = self._offer_now(record, must_tell=must_tell)
        return delivery

    def _evict_oldest(self) -> list[Settlement]:
        if not self.blocked:
            return self._schedule.evict_oldest()
        # Places that others would leave are the storage's.
        message = "shed to make room for a newer event"
        outcome = Outcome.dropped(DropReason.OVERFLOW, message)
        return [(self._queue.get_nowait(), outcome)]

    # Waiting for room --------------------------------------------------------

    def _may_wait(self, record: Record) -> bool:
        config, health = self._config, self._schedule.health
        return (
            config.overflow is Overflow.WAIT
            and config.overflow_timeout > 0
            and not self.closing
            and self._room.could_hold(len(record.body))
            # A hiccup sheds nothing, and an outage delays nobody.
            and health.state is not Health.REFUSED
            and not health.takes_nothing(self._ages.now(), config.overflow_timeout)
            # What this very code holds up would never make room for it.
            and self._client_id not in inside_user_code.get()
        )

    async def _accept_in_turn(self, record: Record) -> Delivery:
        self._room.crowd()
        self._alarm.ring()
        size = len(record.body)
        has_place = await self._room.wait(size, self._config.overflow_timeout)
        if has_place or self._room.take(size):
            return self._take_in(self._ages.restamp(record), size, must_tell=True)
        if INTERCEPTION.active and self._gate.verdict_on(record) is not None:
            # What had the places waits as well: nothing would ever leave them.
            return await self._accept_intercepted(record)
        return await self._books.settle_in_turn(record, self._room.full)

    def admit_waiters(self) -> None:
        """Let those go on who wait for room, in order, as far as there is any.

        All of them are told to go on where waiting does not help any more.
        """
        refused = self._schedule.health.state is Health.REFUSED
        if refused or self.closing:
            self._room.send_away()
        else:
            self._room.admit()

    # With a durable storage --------------------------------------------------

    async def _accept_durably(self, record: Record) -> Delivery:
        number = self.numbers.take()
        self._ages.notice(number, self._queue.records, self._queue.since)
        if record.id != number:
            record = record._replace(id=number)
        written = full = False
        try:
            written = await self._journal.append(record)
        except StorageFullError:
            full = True
        finally:
            if not written or self.closing:
                self._books.withdraw(number)
        if not written:
            # A failure was reported loudly; events go on in memory.
            record = self._ages.restamp(record)
            return await (
                self._refuse(record) if full else self._accept_in_memory(record)
            )
        if self.closing:
            self._journal.settle_soon([record.id])
            return await self._books.settle_in_turn(record, self._room.full)
        # The wall clock may have jumped meanwhile, before the next id is given.
        self._ages.notice(self.numbers.next, self._queue.records, self._queue.since)
        record = self._ages.redate(record)
        if self._journal.has_passed(record.id):
            # Its append ended behind that of a later one, which is in memory: nobody
            # would find it where it is.
            self._room.take_in((record,))
            return self._enter(record)
        # While anything is unread, all new ones queue behind it in the journal.
        if not self._is_overtaking(record) and self._room.take(len(record.body)):
            self._journal.mark_read(record.id)
            return self._enter(record)
        self._journal.leave_unread(record.id)
        self._alarm.ring()
        return self._books.enter(record)

    def _asks_again(self, record: Record) -> bool:
        """Say whether an event asks a slow storage: memory has no place for it."""
        return self._journal.may_work and not self._room.fits(len(record.body))

    def _is_overtaking(self, record: Record) -> bool:
        """Say whether an event, let in, would overtake what is in the journal only."""
        journal = self._journal
        return journal.unread > 0 and (
            journal.ahead > 0 or journal.is_behind(record.identity)
        )

    async def _refuse(self, record: Record) -> Delivery:
        """Shed an event for which a durable storage has no room of its own."""
        message = "the storage has reached its own limit"
        if self._config.overflow is Overflow.RAISE:
            raise QueueFullError(message)
        outcome = Outcome.dropped(DropReason.OVERFLOW, message)
        return await self._books.settle_in_turn(record, outcome)

    # Lifecycle ---------------------------------------------------------------

    def close(self) -> None:
        """Take no event any more; those who wait for room hear so."""
        self._room.close(_CLOSED)

    def leave(self, outcome: Outcome) -> None:
        """Take no event any more in a forked child; who waits has it from here."""
        self._room.close(outcome)

    def rebind(self) -> None:
        """Forget what belongs to a closed loop; what is blocked goes on."""
        self._queue = self._queue.moved()
        self._room.rebind()

    def __repr__(self) -> str:
        return f"<Intake {self.fresh} fresh, {self.numbers.last} so far>"


_FED = Outcome.rejected(
    "this client delivers what a relay hands it, and takes no events of its own: track "
    "on a client with handover=log"
)
_CLOSED = Outcome.dropped(
    DropReason.CLOSED, "the client was shut down while this event waited to be accepted"
)
