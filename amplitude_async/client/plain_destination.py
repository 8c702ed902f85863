"""A destination that is a plugin: a bounded queue and one worker in front of it."""

import asyncio
import contextvars
import math
import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from amplitude_async.client.destination import Door, Reduced, Refusal, verdict_on
from amplitude_async.client.inspecting import Inspector
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.flushes import Flushes
from amplitude_async.delivery.handle import Delivery, Ledger
from amplitude_async.delivery.interception import CAPTURED, INTERCEPTION
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outcome import (
    QUIET_REASONS,
    DeliveryStatus,
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.delivery.reporting import Reporter, named
from amplitude_async.delivery.shares import Drained, Shares
from amplitude_async.delivery.stats import Counters, Stats
from amplitude_async.delivery.tasks import is_theirs, spawn
from amplitude_async.plugins import DestinationPlugin, call_hook
from amplitude_async.redaction import without_values
from amplitude_async.shown import shown
from amplitude_async.storage.base import Record

__all__ = ["PlainDestination"]

RESTART_INTERVAL = 0.1


class _Backlog:
    """What waits for a plugin, in order, and the one event that is with it."""

    def __init__(self) -> None:
        self.waiting: deque[Record] = deque()
        self.current: Record | None = None
        self.bytes = 0
        self.last_id = 0

    def __len__(self) -> int:
        return len(self.waiting) + (self.current is not None)

    def add(self, record: Record) -> None:
        """Put an event behind all others."""
        self.waiting.append(record)
        self.bytes += len(record.body)
        self.last_id = record.id

    def take(self) -> Record:
        """Make the first event the one that is with the plugin."""
        self.current = record = self.waiting.popleft()
        return record

    def put_back(self) -> None:
        """Let the event that is with the plugin be the first that waits again."""
        if self.current is not None:
            self.waiting.appendleft(self.current)
            self.current = None

    def remove(self, record: Record) -> None:
        """Forget the event that was with the plugin."""
        self.current = None
        self.bytes -= len(record.body)

    def shown(self, pending: int, capacity: int, oldest_age: float | None) -> Stats:
        """Tell what waits, with what is being given up."""
        return Stats(
            pending=pending,
            oldest_age=oldest_age,
            queue_events=pending,
            queue_capacity=capacity,
            queue_bytes=self.bytes,
        )

    def give_up(self, user_id: str | None) -> deque[Record]:
        """Take out what waits, all or of one user; what is with the plugin stays."""
        if user_id is None:
            taken, self.waiting = self.waiting, deque()
            self.bytes = len(self.current.body) if self.current is not None else 0
            return taken
        # Passes that call nothing: to look each event up among the taken would stop
        # the loop for seconds where a queue is long.
        taken = deque([r for r in self.waiting if r.user_id == user_id])
        if taken:
            self.waiting = deque([r for r in self.waiting if r.user_id != user_id])
            self.bytes -= sum([len(record.body) for record in taken])
        return taken


class PlainDestination:
    """A bounded queue and one worker in front of a destination plugin."""

    def __init__(
        self,
        plugin: DestinationPlugin,
        *,
        door: Door,
        config: DeliveryConfig,
        decode: Callable[[bytes], Any],
        clock: Clock,
        client_id: int,
        vendor: str = "amplitude",
    ) -> None:
        self.name = plugin.name
        self.plugin = plugin
        self._door = door
        self._config = config
        self._decode = decode
        self._clock = clock
        self._client_id = client_id
        self._reporter = Reporter(config.logger, clock, plugin.name, config.redactor)
        self._observers = Observers(self._reporter)
        self._observers.call(Inspector(vendor, clock, self._reporter))
        self._counters = Counters()
        self._ledger = Ledger()
        self._backlog = _Backlog()
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        self._flushes = Flushes(clock)
        self._due = Shares(self._settle, f"{self.name} settling")
        self._pid = 0

    # Intake ------------------------------------------------------------------

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event; a full queue sheds it."""
        config, wall = self._config, self._clock.wall()
        record = self._door.admit(event, self._backlog.last_id + 1, wall)
        if isinstance(record, Refusal):
            return self.settle(event, verdict_on(record, strict=config.strict))
        if isinstance(record, Reduced):
            self._counters.lose(record.losses)
            record = record.record
        if INTERCEPTION.capturing:
            return self._end(record.body, record.insert_id, CAPTURED)
        size = self._backlog.bytes + len(record.body)
        if self._closed:
            return self.settle(event, _closed(self.name))
        full = self.pending >= config.max_storage_capacity
        if full or size > config.max_storage_bytes:
            return self.settle(event, _full(self.name))
        page = self._ledger.enter(record.id, self._clock.now())
        self._counters.accept()
        self._backlog.add(record)
        self.ensure_running()
        return Delivery(self, record, page)

    async def accept(self, event: Any) -> Delivery:
        """Accept an event; a full queue sheds it: a slow plugin delays nobody."""
        return self.offer_nowait(event)

    async def wait_to_tell(self) -> None:
        """Nobody is told: a plain destination has no callback."""

    def settle(
        self,
        event: Any,
        outcome: Outcome,
        *,
        must_tell: bool = False,  # noqa: ARG002 - as above
    ) -> Delivery:
        """Accept an event and settle it at once."""
        return self._end(event, self._door.insert_id(event), outcome)

    def _end(self, source: object, insert_id: str, outcome: Outcome) -> Delivery:
        self._counters.accept()
        self._counters.count(outcome)
        if INTERCEPTION.capturing:
            INTERCEPTION.tell(self.name, source, insert_id=insert_id, outcome=outcome)
        if outcome.reason is DropReason.OVERFLOW:  # others are told by the engine
            self._observers.tell([source], outcome)
        _report(self._reporter, outcome, 1)
        return Delivery.settled(self, source, insert_id, outcome)

    # What a handle needs -----------------------------------------------------

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""
        return self._decode(body)

    def hasten(self) -> None:
        """Nothing to bring forward: the worker never lingers."""
        if self._pid not in {0, os.getpid()}:
            self.forget_parent()  # a child awaits a handle of its parent's
        else:
            self.ensure_running()  # it may have ended with the loop that it ran on

    def __repr__(self) -> str:
        return f"<PlainDestination {shown(self.name)} {self.pending} waiting>"

    @property
    def pending(self) -> int:
        """Undecided events, the one with the plugin included."""
        return len(self._backlog) + len(self._due)

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""
        age = self._ledger.oldest_age(self._clock.now())
        capacity = self._config.max_storage_capacity
        waiting = self._backlog.shown(self.pending, capacity, age)
        return self._counters.snapshot(waiting)

    # The worker --------------------------------------------------------------

    def ensure_running(self) -> None:
        """Start the worker where events wait without one."""
        idle = self._worker is None or self._worker.done()
        if idle and self._backlog.waiting and not self._is_held_back():
            # An empty one: a trace or request of the host must not leak in here.
            context = contextvars.Context()
            context.run(inside_user_code.set, self._mark())
            self._worker = spawn(self._work(os.getpid()), self.name, context)
            self._worker.add_done_callback(self._ended, context=contextvars.Context())

    async def _work(self, pid: int) -> None:
        backlog = self._backlog
        # A forked child has a copy of this task; its events are the parent's.
        while backlog.waiting and os.getpid() == pid and not self._is_held_back():
            record = backlog.take()
            try:
                outcome = await self._execute(record)
            except BaseException:
                # Cancelled from outside, not by shutdown: the next worker does it.
                if backlog.current is record:
                    backlog.put_back()
                raise
            if backlog.current is not record:
                return  # a plugin that resists cancelling: given up at shutdown
            backlog.remove(record)
            self._settle([(record, outcome)])

    def _is_held_back(self) -> bool:
        """Say whether a test captures events: what came before waits for its end."""
        held = INTERCEPTION.active and INTERCEPTION.holds_back(self._resume)
        if held:
            self._flushes.let_all_go()
        return held

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._worker is task and task.cancelled() and not self._closed:
            # Somebody may wait. Later, not at once: a loop that is closing cancels
            # every task and must not get a new one for it.
            self._clock.call_later(RESTART_INTERVAL, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self.ensure_running()

    async def _execute(self, record: Record) -> Outcome:
        limit = self._config.connection_timeout
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                await call_hook(self.plugin.execute, self._decode(record.body))
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            if timer.expired() and isinstance(error, TimeoutError):
                message = f"plugin {shown(self.name)} took longer than {limit:g} s"
                return Outcome.rejected(message, attempts=1)
            message = f"plugin {shown(self.name)} raised {named(error)}"
            message = self._reporter.redact(message)
            self._reporter.error("plugin", "execute raised %r", error, traceback=error)
            return Outcome.rejected(message[:300], attempts=1)
        return _taken(self.name)

    def _settle(self, settlements: list[Settlement]) -> None:
        """Write down what became of events that are in the backlog no more."""
        for record, outcome in settlements:
            self._ledger.settle(record.id, outcome)
        tally = Counter(outcome for _, outcome in settlements)
        for outcome, count in tally.items():
            self._counters.count(outcome, count)
        if self._flushes:
            self._flushes.settled([record.id for record, _ in settlements])
        if self._observers.hear_ends:
            self._observers.all_ended(settlements)
        # A logging handler is user code: all is written down before it runs.
        for outcome, count in tally.items():
            _report(self._reporter, outcome, count)

    # Lifecycle ---------------------------------------------------------------

    async def start(self) -> None:
        """Nothing to open; the worker starts with the first event."""
        self._pid = os.getpid()
        self._observers.begin()
        self.ensure_running()

    async def flush(self, timeout: float | None) -> Stats:
        """Wait until the plugin has had all that was accepted; call its flush."""
        if self._inside:
            return self.stats  # it waits for this very plugin
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        await self._drain(timeout)
        await self._call(self.plugin.flush, deadline - self._clock.now())
        return self.stats

    @property
    def _inside(self) -> bool:
        """True where the plugin itself is calling."""
        return id(self.plugin) in inside_user_code.get()

    def _mark(self) -> frozenset[int]:
        return frozenset({self._client_id, id(self.plugin)})

    async def _drain(self, timeout: float | None) -> None:
        if not self.pending or self._is_held_back():
            return
        # A host may have cancelled the worker, and then nobody would answer.
        self.ensure_running()
        await self._flushes.wait(self._backlog.last_id, self.pending, timeout)

    async def _call(self, hook: Callable[[], Any], left: float) -> None:
        token = inside_user_code.set(inside_user_code.get() | self._mark())
        try:
            # Even without time left a hook gets a moment: it may have a file to close.
            async with asyncio.timeout(None if math.isinf(left) else max(left, 0.05)):
                await call_hook(hook)
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._reporter.error(
                "plugin", "%s raised %r", hook.__name__, error, traceback=error
            )
        finally:
            inside_user_code.reset(token)

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline, drop the rest and call the plugin's shutdown."""
        if self._closed:
            return self.stats
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        # A plugin that shuts its own client down would wait for itself.
        if not self._inside:
            await self._drain(timeout)
            await self._stop_worker()
        self._closed = True
        await self._give_up(None, _too_late(self.name))
        await self._call(self.plugin.shutdown, deadline - self._clock.now())
        await self._observers.finish()
        return self.stats

    async def _stop_worker(self) -> None:
        self._closed = True
        if self._worker is None:
            return
        self._worker.cancel()
        await asyncio.wait({self._worker}, timeout=1.0)
        # A plugin that resists cancelling still has it: that one is given up here.
        record = self._backlog.current
        if record is not None:
            self._backlog.remove(record)
            self._settle([(record, _too_late(self.name, at_work=True))])

    async def purge(self, user_id: str | None) -> int:
        """Give up waiting events, all or of one user."""
        return await self._give_up(user_id, _PURGED)

    async def _give_up(self, user_id: str | None, outcome: Outcome) -> int:
        """Settle what waits, all or of one user, without the plugin."""
        taken = self._backlog.give_up(user_id)
        count = len(taken)
        self._due.add(Drained(taken, lambda record: (record, outcome)))
        await self._due.done()
        return count

    def rebind(self) -> None:
        """Move to another loop; the event that was with the plugin is done again."""
        self._backlog.put_back()
        self._worker = None
        self._due.rebind()
        self._flushes.clear()

    def forget_parent(self) -> None:
        """Start empty in a forked child; inherited handles settle as DROPPED fork."""
        self._backlog.put_back()
        self._backlog.give_up(None)
        # The old ledger still knows the handles that the parent gave out.
        ledger = self._ledger
        self._counters = Counters()
        self._ledger = Ledger()
        self._due = Shares(self._settle, f"{self.name} settling")
        self.rebind()
        ledger.settle_rest(_FORKED)


_PURGED: Final = Outcome.dropped(DropReason.PURGED, "purged by the client")
_FORKED: Final = Outcome.dropped(
    DropReason.FORK, "accepted before os.fork(): the parent process has it"
)


def _closed(name: str) -> Outcome:
    message = f"plugin {shown(name)} was shut down before"
    return Outcome.dropped(DropReason.CLOSED, message)


def _full(name: str) -> Outcome:
    message = f"the queue of plugin {shown(name)} is full"
    return Outcome.dropped(DropReason.OVERFLOW, message)


def _taken(name: str) -> Outcome:
    message = f"plugin {shown(name)} returned"
    return Outcome(DeliveryStatus.DELIVERED, 0, message, None, 1)


def _too_late(name: str, *, at_work: bool = False) -> Outcome:
    message = f"plugin {shown(name)} did not take it before the deadline"
    if not at_work:
        return Outcome.dropped(DropReason.SHUTDOWN, message)
    message = f"{message}; it was at work on it"
    return Outcome.dropped(DropReason.SHUTDOWN, message, attempts=1)


def _report(reporter: Reporter, outcome: Outcome, count: int) -> None:
    if outcome.reason in QUIET_REASONS:
        reporter.debug("%d events: %s", count, outcome.message)
    elif outcome.status is not DeliveryStatus.DELIVERED:
        at_door = outcome.status is DeliveryStatus.REJECTED and not outcome.attempts
        text = without_values(outcome.message) if at_door else outcome.message
        reporter.warning(outcome.status, "%s", text, count=count)
