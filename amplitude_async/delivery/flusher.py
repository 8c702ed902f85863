"""The flush task: drains the intake, starts requests, writes down what they bring.

It wakes once per batch and never per event, and it waits for nobody: reading a storage,
settling rows and running the user's callback are tasks of others.
"""

import math
from collections.abc import Callable

from amplitude_async.delivery.adopter import Adopter
from amplitude_async.delivery.courier import HttpCourier, LogCourier
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.endpoint import Accept, Broken, Busy, Refuse, Verdict
from amplitude_async.delivery.hosting import Hosting
from amplitude_async.delivery.outcome import (
    TAKEN,
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.delivery.parts import Parts, Site
from amplitude_async.delivery.reader import Reader
from amplitude_async.delivery.sender import Courier, Post, Sender
from amplitude_async.delivery.stats import Counters
from amplitude_async.storage.base import Record

__all__ = ["Flusher"]

# So many full requests are formed at once; the loop has a turn before the next.
STARTS_PER_TURN = 6


class Flusher:
    """Turns of the flush task, and what happens between them."""

    def __init__(self, site: Site, parts: Parts, is_here: Callable[[], bool]) -> None:
        self._site = site
        self._parts = parts
        self._is_here = is_here
        self._retired = False
        endpoint, books = site.endpoint, parts.books
        self.sender = Sender(
            endpoint,
            _courier(site, books.counters),
            clock=site.clock,
            reporter=site.reporter,
            may_send=parts.journal.claims.may_send,
            decide=self._decide,
            settle=self._carry_out,
            lost=self._lose,
            is_here=self._works_here,
        )
        """The requests under way."""
        self.reader = Reader(
            parts.journal,
            clock=site.clock,
            schedule=parts.schedule,
            left=self._left,
            take_in=self._take_in,
            bring_back=self._bring_back,
            works_here=self._works_here,
        )
        """What fills the room from the storage."""
        self.adopter = Adopter(
            parts.journal,
            clock=site.clock,
            allot=parts.intake.allot,
            recovered=self.recover,
            works_here=self._works_here,
        )
        """What looks for events of processes that are gone."""
        self.hosting = Hosting(site, parts, self.recover)
        """What a storage tells that others fill."""

    async def run(self) -> None:
        """Take turns until the task is cancelled."""
        # A forked child has a copy of this task, and nothing to send with it.
        while self._works_here():
            self._parts.alarm.clear()
            self.turn()
            self.reader.look()
            self._rest()
            self._answer_flushes()
            await self._parts.alarm.wait()

    def _works_here(self) -> bool:
        return not self._retired and self._is_here()

    def retire(self) -> None:
        """Do nothing any more: these are the tasks of another process."""
        self._retired = True

    def turn(self) -> None:
        """Do everything that can be done now."""
        now, wall = self._site.clock.now(), self._parts.ages.wall()
        self._parts.intake.drain()
        self.hosting.recall()
        slots = self._site.config.max_in_flight - self._parts.schedule.in_flight
        eager, callbacks = self._eager, self._parts.books.callbacks
        for _ in range(STARTS_PER_TURN):
            if slots <= 0 or self._paused:
                break
            most = callbacks.free if callbacks is not None else None
            group = self._parts.schedule.next(
                now, wall, slots=slots, eager=eager, most=most
            )
            if group is None:
                self._parts.room.relieve()
                break
            if callbacks is not None:
                callbacks.reserve(group, len(group.piece))
            self.sender.start(group)
            slots -= 1
        self._collect()
        self._reserve()
        self._parts.intake.admit_waiters()

    def _left(self) -> tuple[int, int]:
        """Say how many events and bytes of the storage there is room for."""
        schedule, intake = self._parts.schedule, self._parts.intake
        aside, size = schedule.held, schedule.held_bytes
        if intake.blocked:
            # These wait for what is to be read: it must have room.
            aside, size = aside + intake.fresh, size + intake.fresh_bytes
        return self._parts.room.half_left(aside, size)

    def _reserve(self) -> None:
        """Leave room for what those wait for that are blocked."""
        blocked = self._parts.intake.blocked
        self._parts.room.reserve(*(self._left() if blocked else (0, 0)))

    @property
    def _eager(self) -> bool:
        """True while waiting for company helps nobody."""
        return self._parts.hurried or self._brimful

    @property
    def _brimful(self) -> bool:
        """True where more company is in the storage, and has no room to come."""
        waits = self._parts.journal.ahead > 0 and not self._parts.schedule.in_flight
        return waits and not all(self._left())

    @property
    def _paused(self) -> bool:
        """True while a slow callback or a test holds up sending."""
        callbacks = self._parts.books.callbacks
        slow = callbacks is not None and not callbacks.ready
        return slow or self._parts.held_back

    def _rest(self) -> None:
        """Decide what will wake the flush task."""
        clock, config = self._site.clock, self._site.config
        schedule, intake = self._parts.schedule, self._parts.intake
        blocked = schedule.in_flight >= config.max_in_flight or self._paused
        # Where a verb waits for the log, company would keep it waiting.
        company = 1 if self._parts.confirms else config.flush_queue_size
        missing = company - schedule.waiting
        # A full batch that did not go waits for something else than company.
        held_up = intake.blocked
        more = missing > 0 and not blocked and not held_up
        intake.ring_when_full(missing if more else config.max_storage_capacity)
        wake_at = intake.due_at if intake.fresh and not held_up else math.inf
        if not blocked:
            wall = self._parts.ages.wall()
            due = schedule.next_wake_at(clock.now(), wall, eager=self._eager)
            wake_at = wake_at if due is None else min(wake_at, due)
        self._parts.alarm.ring_at(wake_at)

    def _answer_flushes(self) -> None:
        flushes, now = self._parts.books.flushes, self._site.clock.now()
        if self._parts.holds_all:
            flushes.let_all_go()
        elif flushes and flushes.answer(now, self._next_happening(now)):
            self._parts.alarm.ring_by(now)

    def _next_happening(self, now: float) -> float:
        """Say when the next outcome may come; infinity where none can."""
        schedule, intake = self._parts.schedule, self._parts.intake
        goes = intake.fresh and not intake.blocked
        if schedule.in_flight or goes or self.reader.busy:
            return -math.inf
        if schedule.health.state is Health.REFUSED:
            return math.inf
        if self._paused:
            return -math.inf
        due = schedule.next_request_at(now, eager=True)
        reads_at = self.reader.reads_at
        return reads_at if due is None else min(due, reads_at)

    def recover(self, count: int) -> None:
        """Account for events that were taken over, and read them."""
        self._parts.books.counters.recover(count)
        self.reader.look()

    def _take_in(self, records: list[Record]) -> None:
        """Take records of the storage into memory, as the reader brings them."""
        schedule, journal = self._parts.schedule, self._parts.journal
        whole: list[Record] = []
        for record in self._weigh(records):
            if schedule.passes_over(record):
                journal.reading.set_back(record)
            else:
                whole.append(record)
        self._parts.room.take_in(whole)
        # What came by itself is older, and may have seen the wall clock jump.
        intake, ages = self._parts.intake, self._parts.ages
        intake.drain(below=whole[0].id if whole else math.inf)
        ages.notice(intake.numbers.next)
        # Not all of it where the storage could be read and not written for a while.
        among = intake.take_below(min(whole[-1].id, journal.floor)) if whole else ()
        whole = list(ages.put_right(whole))
        schedule.add(
            sorted([*whole, *among]) if among else whole, self._site.clock.now()
        )
        intake.drain()
        self._reserve()
        self._parts.alarm.ring()

    def _weigh(self, records: list[Record]) -> list[Record]:
        """Account for what the storage has lost or spoilt; returns the others."""
        books = self._parts.books
        missing = self._parts.journal.reading.take_missing()
        if missing:
            books.write_off(missing, _MISSING)
        damaged = [record for record in records if not record.body]
        if not damaged:
            return records
        self._parts.room.take_in(damaged)
        books.settle([(record, _DAMAGED) for record in damaged])
        return [record for record in records if record.body]

    def _bring_back(self, records: list[Record]) -> None:
        """Take events of throttled identities in that had gone back."""
        parts = self._parts
        whole = self._weigh(records)
        parts.room.take_in(whole)
        ages = parts.ages
        ages.notice(parts.intake.numbers.next)
        parts.schedule.bring_back(ages.put_right(whole), self._site.clock.now())
        parts.schedule.catch_up(parts.journal.is_behind)
        parts.alarm.ring()

    def _collect(self) -> None:
        """See to the events that the schedule lets go without an answer."""
        parts = self._parts
        left = parts.schedule.collect_left()
        for record in left:
            # What never came to the storage cannot go back to it.
            if parts.journal.holds(record.id):
                parts.room.free(1, len(record.body))
                parts.journal.reading.set_back(record)
            else:
                parts.schedule.shed(record)
        if left:
            parts.schedule.catch_up(parts.journal.is_behind)
        parts.books.settle_in_shares(parts.schedule.collect())

    # Requests ----------------------------------------------------------------

    def _decide(self, group: Group, verdict: Verdict) -> list[Settlement]:
        if isinstance(verdict, Refuse):
            self._parts.intake.drain()  # what came meanwhile meets the same refusal
        self._release(group)
        schedule = self._parts.schedule
        settled = schedule.apply(group, verdict, self._site.clock.now())
        schedule.give_way(group, self._parts.journal.holds)
        return settled

    def _carry_out(self, verdict: Verdict, settled: list[Settlement]) -> None:
        self._parts.books.settle_in_shares(settled)
        self._collect()
        self._parts.intake.admit_waiters()
        self._parts.alarm.ring()
        if self._site.observers:
            self._tell_ages(settled)
        # A logging handler is user code: all is written down before it runs.
        if not isinstance(verdict, Accept):
            self._explain(verdict, settled)

    def _tell_ages(self, settled: list[Settlement]) -> None:
        """Tell those who observe how old the events were that were delivered."""
        wall = self._parts.ages.wall()
        ages = [
            max(wall - record.accepted_at, 0.0)
            for record, outcome in settled
            if outcome.status in TAKEN
        ]
        if ages:
            self._site.observers.delivered(ages)

    def _release(self, group: Group) -> None:
        callbacks = self._parts.books.callbacks
        if callbacks is not None:
            callbacks.release(group)

    def _explain(self, verdict: Verdict, settled: list[Settlement]) -> None:
        reporter = self._site.reporter
        self._parts.books.counters.note_error(verdict.message)
        if isinstance(verdict, Refuse):
            if not settled:  # else the books have said it, with the number of events
                self._parts.books.report_refusal(verdict.code, verdict.message)
        elif isinstance(verdict, Busy | Broken):
            reporter.warning(
                type(verdict).__name__.lower(),
                "%s; state %s, %d events wait",
                verdict.message,
                self._parts.schedule.health.state,
                self._parts.pending,
                numbers={"status": verdict.code, "pending": self._parts.pending},
            )
        else:
            reporter.warning(
                type(verdict).__name__.lower(),
                "the server answered %s: %s",
                verdict.code,
                verdict.message,
                numbers={"status": verdict.code},
            )

    def _lose(self, group: Group, fault: BaseException | None) -> None:
        """Take a group back whose request ended without an answer."""
        self._release(group)
        self._parts.alarm.ring()
        now = self._site.clock.now()
        if fault is None:  # cancelled from outside: nobody is to blame
            self._parts.schedule.take_back(group, now)
            return
        self._parts.books.settle(self._parts.schedule.crashed(group, now))
        self._site.reporter.error("engine", "sending a batch failed", traceback=fault)


def _courier(site: Site, counters: Counters) -> Courier:
    """Say who carries requests: to the server, or to the log in its place."""
    if site.handover is not None:
        return LogCourier(
            site.handover,
            observers=site.observers,
            clock=site.clock,
            counters=counters,
        )
    post = Post(
        site.transport,
        timeout=site.config.connection_timeout,
        compress=site.endpoint.compress,
        observers=site.observers,
        clock=site.clock,
        counters=counters,
        reporter=site.reporter,
    )
    return HttpCourier(site.endpoint, post, site.clock)


_MISSING = Outcome.dropped(DropReason.INTERNAL, "the storage does not find it any more")

_DAMAGED = Outcome.dropped(
    DropReason.INTERNAL, "its bytes in the storage are damaged: they were set aside"
)
