"""The delivery engine of one destination: it alone schedules, sends and counts.

Decisions are the schedule's; this module does what it decides: one flush task drains
the intake and starts requests, a few sender tasks await the server, and a callback task
runs user code that nothing else waits for.
"""

import asyncio
import contextvars
import math
import os
import random
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.batcher import Group
from amplitude_async.delivery.books import Books
from amplitude_async.delivery.callbacks import CallbackRunner, inside_user_code
from amplitude_async.delivery.clock import Clock, Timer
from amplitude_async.delivery.endpoint import (
    Accept,
    Endpoint,
    Pause,
    Refuse,
    Retry,
    Verdict,
)
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.health import HealthState
from amplitude_async.delivery.intake import Intake
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.schedule import Schedule, Settlement
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.transport import GZIP_THRESHOLD, Transport, gzip_body
from amplitude_async.storage.base import Record, Storage

__all__ = ["Engine"]

HASTE = 0.01
RESTART_INTERVAL = 0.1
ADOPT_INTERVAL = 30.0
REREAD_INTERVAL = 1.0
REFILL_EVENTS = 5_000
REFILL_BYTES = 8 * 1024 * 1024
STOP_TIMEOUT = 1.0
LAST_CALL_SHARE = 0.2
LAST_CALL_MOST = 1.0


class Engine:
    """Takes encoded events in and brings each to exactly one outcome."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: DeliveryConfig,
        *,
        storage: Storage,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        max_age: float,
        client_id: int,
    ) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self._client_id = client_id
        self._config = config
        self._clock = clock
        self._rng = rng
        self._max_age = max_age
        self._transport = transport
        self._reporter = Reporter(config.logger, clock, endpoint.name)
        self._closed = False
        self._pid = 0
        self._build(storage)

    def _build(self, storage: Storage) -> None:
        """Make everything that belongs to one process and starts out empty."""
        config = self._config
        fingerprint = self.endpoint.fingerprint()
        self._journal = Journal(storage, fingerprint, self._reporter, self._clock)
        self._schedule = Schedule(
            config,
            max_events=self.endpoint.max_events,
            max_bytes=self.endpoint.max_bytes - self.endpoint.frame_bytes,
            max_age=self._max_age,
            durable=self._journal.durable,
            rng=self._rng,
        )
        self._books = Books(
            self.endpoint,
            self._reporter,
            self._journal,
            principal=self,
            clock=self._clock,
        )
        self.intake = Intake(
            config,
            self._schedule,
            self._books,
            self._journal,
            clock=self._clock,
            client_id=self._client_id,
            wake=self._nudge,
            wake_at=self._set_alarm,
        )
        self._bind()

    def _bind(self) -> None:
        """Make everything that belongs to one event loop."""
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._task: asyncio.Task[None] | None = None
        self._senders: dict[asyncio.Task[None], Group] = {}
        self._adopt_at = self._clock.now() + ADOPT_INTERVAL
        if self._config.callback is not None and self._books.callbacks is None:
            self._books.callbacks = CallbackRunner(
                self._config.callback,
                capacity=self._config.max_storage_capacity,
                reporter=self._reporter,
                client_id=self._client_id,
                on_room=self._nudge,
            )

    # Reading -----------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Undecided events, wherever they wait."""
        return self.intake.in_memory + self._journal.unread

    @property
    def plain(self) -> bool:
        """True where accepting an event never needs to await a storage."""
        return not self._journal.writes and self._task is not None

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""
        counters = self._books.counters
        counters.retries = self._schedule.retries
        return counters.snapshot(
            pending=self.pending,
            held=self._schedule.held,
            queue_bytes=self._books.bytes,
            durable=self._journal.durable,
        )

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""
        return self.endpoint.decode(body)

    # Lifecycle ---------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal and start the flush task; safe to repeat.

        Raises:
            StorageError: the storage cannot be opened.
        """
        if self._closed:
            return
        self._pid = os.getpid()
        recovered = await self._journal.open(self.intake.allot_recovered)
        self._books.counters.recovered += recovered
        self.ensure_running()

    def ensure_running(self) -> None:
        """Start the flush task where it does not run, as after a cancellation."""
        if self._task is None and not self._closed:
            self._task = self._spawn(self._supervise(), "flush")
            self._task.add_done_callback(self._task_ended)
        if self._books.callbacks is not None:
            self._books.callbacks.ensure_running()

    def _spawn(
        self, coroutine: Coroutine[Any, Any, None], kind: str
    ) -> "asyncio.Task[None]":
        # An empty context: a trace or request of the host must not leak in here.
        return asyncio.get_running_loop().create_task(
            coroutine,
            name=f"amplitude_async {self.name} {kind}",
            context=contextvars.Context(),
        )

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if self._task is task:
            self._task = None
            if not self._closed:
                # Cancelled from outside. Later, not at once: a loop that is closing
                # cancels every task and must not get a new one for it.
                self._clock.call_later(RESTART_INTERVAL, self.ensure_running)

    def rebind(self) -> None:
        """Move to another event loop after the old one was closed.

        Waiting events go on; requests that were in flight are sent again.
        """
        now = self._clock.now()
        self.intake.drain()
        for group in self._senders.values():
            self._schedule.take_back(group, now)
        self._transport.abandon()
        self._books.flushes.clear()
        if self._books.callbacks is not None:
            self._books.callbacks.rebind()
        self.intake.rebind()
        self._journal.rebind()
        self._bind()

    def forget_parent(self) -> None:
        """Start empty in a forked child: the parent still owns everything.

        Inherited handles settle as DROPPED fork, uncounted.
        """
        now = self._clock.now()
        for group in self._senders.values():
            self._schedule.take_back(group, now)
        books = self._books
        self._transport.abandon()
        self._build(self._journal.after_fork())
        message = "accepted before os.fork(): the parent process has it"
        books.settle_handles(Outcome.dropped(DropReason.FORK, message))

    # Intake ------------------------------------------------------------------

    def offer(self, record: Record) -> Delivery | None:
        """Accept an event without suspending; None where there is no room."""
        return self.intake.offer(record)

    def offer_nowait(self, record: Record) -> Delivery:
        """Accept an event for synchronous code; sheds where there is no room.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        return self.intake.offer_nowait(record)

    async def accept(self, record: Record) -> Delivery:
        """Accept an event, waiting for room or for the journal where that is needed.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        return await self.intake.accept(record)

    def settle_at_door(
        self, source: object, insert_id: str, outcome: Outcome
    ) -> Delivery:
        """Accept an event and settle it at once."""
        return self._books.settle_at_door(source, insert_id, outcome)

    def hasten(self) -> None:
        """Bring the next flush forward; haste within 10 ms is one haste."""
        if self._pid not in {0, os.getpid()}:
            self.forget_parent()  # a child awaits a handle of its parent's
        elif not self._closed:
            now = self._clock.now()
            self.intake.drain()
            self._schedule.hasten(now + HASTE)
            self._set_alarm(now + HASTE)

    # The flush task ----------------------------------------------------------

    async def _supervise(self) -> None:
        """Run the flush task; after a fault of ours, log once and go on."""
        crashes = 0
        while True:
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001 - our own fault, logged
                crashes += 1
                self._reporter.error(
                    "engine", "the flush task failed; restarting", traceback=error
                )
                pause = asyncio.Event()
                self._clock.call_later(self._config.backoff_ceiling(crashes), pause.set)
                await pause.wait()
            else:
                return

    async def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            self._turn()
            if self._journal.writes:
                await self._read_on()
            self._answer_flushes()
            self._rest()
            await self._wake.wait()

    def _turn(self) -> None:
        """Do everything that can be done now."""
        now, wall = self._clock.now(), self._clock.wall()
        self.intake.drain()
        slots = self._config.max_in_flight - self._schedule.in_flight
        eager = self._eager
        while slots > 0 and not self._paused:
            group = self._schedule.next(now, wall, slots=slots, eager=eager)
            if group is None:
                self.intake.crowded = False
                break
            task = self._spawn(self._send(group), "request")
            self._senders[task] = group
            task.add_done_callback(self._sender_ended)
            slots -= 1
        self._books.settle(self._schedule.collect())
        self.intake.admit_waiters()

    @property
    def _eager(self) -> bool:
        """True while waiting for company helps nobody."""
        return bool(self._books.flushes) or self.intake.crowded

    @property
    def _paused(self) -> bool:
        """True while a slow callback holds up sending."""
        return self._books.callbacks is not None and self._books.callbacks.full

    async def _read_on(self) -> None:
        """Take records into memory that are only in the journal so far."""
        journal, config = self._journal, self._config
        if not self.pending and self._clock.now() >= self._adopt_at:
            self._adopt_at = self._clock.now() + ADOPT_INTERVAL
            self._books.counters.recovered += await journal.adopt(
                self.intake.allot_recovered
            )
        while journal.unread:
            room = config.max_storage_capacity // 2 - self.intake.in_memory
            spare = config.max_storage_bytes // 2 - self._books.bytes
            if room <= 0 or spare <= 0:
                return
            records = await journal.read_on(
                min(room, REFILL_EVENTS), min(spare, REFILL_BYTES)
            )
            missing = journal.take_missing()
            if missing:
                self._books.write_off(missing, _MISSING)
            if not records:
                return
            self._books.bytes += sum(len(record.body) for record in records)
            damaged = [(r, _DAMAGED) for r in records if not r.body]
            self._books.settle(damaged)
            whole = [record for record in records if record.body]
            self._schedule.add(whole, self._clock.now())
            self._turn()

    def _rest(self) -> None:
        """Decide what will wake the flush task."""
        now, wall = self._clock.now(), self._clock.wall()
        schedule = self._schedule
        blocked = schedule.in_flight >= self._config.max_in_flight or self._paused
        missing = self._config.flush_queue_size - schedule.waiting
        # A full batch that did not go waits for something else than company.
        more = missing > 0 and not blocked
        self.intake.wake_at = missing if more else self._config.max_storage_capacity
        times = [self._books.next_deadline]
        if not blocked:
            due = schedule.next_wake_at(now, wall, eager=self._eager)
            times += [due] if due is not None else []
        if self.intake.fresh:
            times.append(self.intake.due_at)
        elif self._journal.writes and not self.intake.in_memory:
            # Nothing else wakes us for what is only in the storage.
            times.append(
                now + REREAD_INTERVAL if self._journal.unread else self._adopt_at
            )
        self._set_alarm(min(times), replace=True)

    def _set_alarm(self, when: float, *, replace: bool = False) -> None:
        """Wake the flush task at a time, unless it wakes before that anyway."""
        if when >= self._timer_at and not replace:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = when
        if when < math.inf:
            delay = max(when - self._clock.now(), 0.0)
            self._timer = self._clock.call_later(delay, self._ring)

    def _nudge(self) -> None:
        self._wake.set()

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._wake.set()

    # Requests ----------------------------------------------------------------

    async def _send(self, group: Group) -> None:
        records = group.pieces[-1]
        body = self.endpoint.frame([r.body for r in records], self._clock.wall())
        headers = self.endpoint.headers
        if self.endpoint.compress and len(body) > GZIP_THRESHOLD:
            body = await gzip_body(body)
            headers = {**headers, "Content-Encoding": "gzip"}
        started = self._clock.now()
        self._books.counters.requests += 1
        self._books.counters.bytes_sent += len(body)
        response = await self._transport.send(
            self.endpoint.url, body, headers, self._config.connection_timeout
        )
        if self._closed:
            return
        verdict = self.endpoint.interpret(response, records, self._clock.wall())
        self._reporter.debug(
            "upload of %d events, %d bytes: %s %s in %.0f ms",
            len(records),
            len(body),
            response.status or "no answer",
            type(verdict).__name__.lower(),
            (self._clock.now() - started) * 1000,
        )
        self._carry_out(group, verdict)

    def _carry_out(self, group: Group, verdict: Verdict) -> None:
        if isinstance(verdict, Refuse):
            self.intake.drain()  # what came meanwhile meets the same refusal
        settled = self._schedule.apply(group, verdict, self._clock.now())
        # From here on the group may be in flight again, with another task.
        task = asyncio.current_task()
        if task is not None:
            self._senders.pop(task, None)
        self._explain(verdict)
        self._books.settle(settled)
        self._books.settle(self._schedule.collect())
        self.intake.admit_waiters()

    def _explain(self, verdict: Verdict) -> None:
        if isinstance(verdict, Accept):
            return
        self._books.counters.last_error = verdict.message
        if isinstance(verdict, Refuse):
            self._reporter.error(
                "refused",
                "the server refuses us (%s %s): check key, zone and URL",
                verdict.code,
                verdict.message,
            )
        elif isinstance(verdict, Retry | Pause):
            self._reporter.warning(
                "retry" if isinstance(verdict, Retry) else "throttle",
                "%s; state %s, %d events wait",
                verdict.message,
                self._schedule.health.state,
                self.pending,
            )
        else:
            self._reporter.warning(
                type(verdict).__name__.lower(),
                "the server answered %s: %s",
                verdict.code,
                verdict.message,
            )

    def _sender_ended(self, task: "asyncio.Task[None]") -> None:
        group = self._senders.pop(task, None)
        self._wake.set()
        if group is None:
            return
        if task.cancelled():  # from outside: nobody is to blame
            self._schedule.take_back(group, self._clock.now())
            return
        self._reporter.error(
            "engine", "sending a batch failed", traceback=task.exception()
        )
        self._books.settle(self._schedule.crashed(group, self._clock.now()))

    # Flush, purge, shutdown --------------------------------------------------

    async def flush(self, timeout: float | None) -> Stats:
        """Send now; return when all accepted so far is decided, or at the deadline."""
        await self._wait_for_outcomes(timeout)
        return self.stats

    async def _wait_for_outcomes(self, timeout: float | None) -> None:
        # Those that are being appended may be accepted before their own id is told.
        pending = self.pending + self._journal.appending
        if not pending or self._closed:
            return
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        flush = self._books.open_flush(self.intake.last_id, pending, deadline)
        self.ensure_running()
        self._wake.set()
        try:
            await flush.future
        finally:
            if flush in self._books.flushes:
                self._books.flushes.remove(flush)

    def _answer_flushes(self) -> None:
        if not self._books.flushes:
            return
        now = self._clock.now()
        for flush in self._books.flushes:
            done = flush.remaining <= 0 or now >= flush.deadline
            if done or not self._something_happens_by(flush.deadline, now):
                flush.finish()

    def _something_happens_by(self, deadline: float, now: float) -> bool:
        if self._schedule.in_flight or self.intake.fresh:
            return True
        if self._schedule.health.state is HealthState.REFUSED:
            return False
        if self._paused:
            return True
        due = self._schedule.next_request_at(now, eager=True)
        return due is not None and due <= deadline

    async def purge(self, user_id: str | None) -> int:
        """Give up waiting events, all or of one user; those in flight go on."""
        self.intake.drain()

        def chosen(record: Record) -> bool:
            return user_id is None or record.user_id == user_id

        settled = self._schedule.purge(chosen)
        self._books.settle(settled)
        outcome = Outcome.dropped(DropReason.PURGED, "purged by the client")

        def settle(found: list[Record]) -> None:
            self._books.bytes += sum(len(record.body) for record in found)
            self._books.settle([(record, outcome) for record in found])

        count = len(settled) + await self._journal.purge(chosen, settle)
        await self._journal.settled()
        self.intake.admit_waiters()
        self._wake.set()
        return count

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline, then settle what is left; never raises."""
        if self._closed:
            return self.stats
        self.intake.closing = True
        self.intake.admit_waiters()
        now = self._clock.now()
        deadline = math.inf if timeout is None else now + timeout
        reserve = 0.0
        if timeout is not None:
            reserve = min(timeout * LAST_CALL_SHARE, LAST_CALL_MOST)
        await self._wait_for_outcomes(None if timeout is None else timeout - reserve)
        self.intake.drain()
        if self.intake.in_memory and self._schedule.last_call(self._clock.now()):
            left = deadline - self._clock.now()
            await self._wait_for_outcomes(None if timeout is None else max(left, 0.0))
        interrupted = await self._stop_tasks()
        await self._journal.written()
        self._settle_leftovers(interrupted)
        await self._leave_unread(deadline)
        for flush in self._books.flushes:
            flush.finish()  # nobody else will: the flush task is gone
        if self._books.callbacks is not None:
            await self._finish_callbacks(deadline)
        await self._journal.close()
        await self._transport.close()
        return self.stats

    async def _stop_tasks(self) -> set[int]:
        """Cancel every task; returns the ids of the events that were in flight."""
        self._closed = True
        self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
        current = asyncio.current_task()
        tasks = {t for t in (self._task, *self._senders) if t and t is not current}
        senders, self._senders = self._senders, {}
        interrupted: set[int] = set()
        for group in senders.values():
            interrupted.update(record.id for record in group.pieces[-1])
            self._schedule.take_back(group, self._clock.now())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
        return interrupted

    def _settle_leftovers(self, interrupted: set[int]) -> None:
        leftovers = self._schedule.remove_all() + self.intake.take_all()
        held: list[Settlement] = []
        lost: list[Settlement] = []
        for record in leftovers:
            doubt = _DOUBT if record.id in interrupted else ""
            kept = self._journal.holds(record.id)
            (held if kept else lost).append(
                (record, self._leftover(doubt, is_held=kept))
            )
        self._books.settle(held + lost)
        self._report_leftovers("stored", len(held) + self._journal.unread)
        self._report_leftovers("lost", len(lost))

    def _report_leftovers(self, fate: str, count: int) -> None:
        if count:
            self._reporter.warning(
                f"shutdown {fate}",
                "shut down with undelivered events: %s",
                fate,
                count=count,
            )

    async def _leave_unread(self, deadline: float) -> None:
        """Settle what is only in the journal as STORED, and tell all who wait."""
        books, journal = self._books, self._journal
        outcome = self._leftover("", is_held=True)
        if journal.unread and books.callbacks is not None:
            told = await self._call_back_unread(books.callbacks, outcome, deadline)
            if told < journal.unread:
                self._reporter.error(
                    "callback_deadline",
                    "shut down before the callback had seen every stored event",
                    count=journal.unread - told,
                )
        books.settle_handles(outcome)
        books.counters.stored += journal.abandon_unread()

    async def _call_back_unread(
        self, runner: CallbackRunner, outcome: Outcome, deadline: float
    ) -> int:
        """Hand unread events to the callback until the deadline; returns how many."""
        told = 0
        if self._client_id in inside_user_code.get():
            return told
        async with aclosing(self._journal.pages()) as pages:
            async for page in pages:
                for record in page:
                    left = deadline - self._clock.now()
                    if left <= 0 or (
                        runner.full
                        and not await runner.drain(left if left < math.inf else None)
                    ):
                        return told
                    self._books.call_back(record, outcome)
                    told += 1
        return told

    def _leftover(self, doubt: str, *, is_held: bool) -> Outcome:
        if is_held:
            message = "kept in the storage for the next process" + doubt
            return Outcome(DeliveryStatus.STORED, 0, message)
        message = "not delivered before the shutdown deadline" + doubt
        return Outcome.dropped(DropReason.SHUTDOWN, message)

    async def _finish_callbacks(self, deadline: float) -> None:
        runner = self._books.callbacks
        if runner is None or self._client_id in inside_user_code.get():
            return
        left = deadline - self._clock.now()
        timeout = None if math.isinf(left) else max(left, 0.0)
        if not await runner.drain(timeout):
            missed = await runner.stop()
            self._reporter.error(
                "callback_deadline",
                "shut down before the callback had seen every result",
                count=missed,
            )


_QUIET_REASONS = frozenset({DropReason.OPT_OUT, DropReason.PLUGIN, DropReason.PURGED})


_DOUBT = "; it was in flight and may have been delivered"

_MISSING = Outcome.dropped(DropReason.INTERNAL, "the storage does not find it any more")

_DAMAGED = Outcome.dropped(
    DropReason.INTERNAL, "its bytes in the storage are damaged: they were set aside"
)
