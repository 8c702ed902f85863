"""The delivery engine of one destination: it alone schedules, sends and counts.

This module builds the rooms of an engine, starts and ends their tasks, and has the
verbs that a destination calls. What happens to an event happens in the rooms.
"""

import asyncio
import math
import os
from typing import Any

from amplitude_async.delivery.closing import LastAct
from amplitude_async.delivery.deciding.health import Condition
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.flusher import Flusher
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outbox import Outbox
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.parts import Parts, Site
from amplitude_async.delivery.purging import purge
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import Keepers
from amplitude_async.exceptions import AmplitudeError
from amplitude_async.storage.base import Storage

__all__ = ["Engine"]

HASTE = 0.01
STOP_TIMEOUT = 1.0
LAST_CALL_SHARE = 0.2
LAST_CALL_MOST = 1.0


class Engine:
    """Takes encoded events in and brings each to exactly one outcome."""

    def __init__(self, site: Site, storage: Storage) -> None:
        self._site = site
        self._closed = self._ended = False
        self._interrupted: set[int] = set()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._build(storage)

    def _build(self, storage: Storage) -> None:
        """Make everything that belongs to one process and starts out empty."""
        self._parts = Parts.build(self._site, storage, principal=self)
        self.intake = self._parts.intake
        """The way in."""
        self.outbox = Outbox(self._site, self._parts)
        """The way into a log within a transaction of the caller's."""
        self._flusher = Flusher(self._site, self._parts, self._is_here)
        self._keepers = Keepers(
            self.name,
            clock=self._site.clock,
            reporter=self._site.reporter,
            backoff=self._site.config.backoff_ceiling,
        )
        self._parts.journal.claims.listen(self._flusher.hosting)
        self._flush_keeper = self._keepers.add("flush", self._flusher.run)
        if self._parts.journal.writes:
            self._keepers.add("reader", self._flusher.reader.run)
            self._keepers.add("adopter", self._flusher.adopter.run)

    def feed(self, storage: Storage) -> None:
        """Take events from a storage that others fill; before the start.

        Raises:
            AmplitudeError: the engine was started.
        """
        if self._pid:
            msg = "this client was started: give it to a Relay before its first verb"
            raise AmplitudeError(msg)
        self._site = self._site.fed_by(storage)
        self._build(storage)

    def _is_here(self) -> bool:
        """Say whether this is the process that the engine was started in."""
        return self._pid == os.getpid()

    # Reading -----------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the destination."""
        return self._site.endpoint.name

    @property
    def endpoint(self) -> Endpoint:
        """The vendor's API."""
        return self._site.endpoint

    @property
    def pending(self) -> int:
        """Undecided events, wherever they wait."""
        return self._parts.pending

    @property
    def observers(self) -> Observers:
        """Those who hear of each request."""
        return self._site.observers

    @property
    def condition(self) -> Condition:
        """What the last answers say about the destination."""
        return self._parts.schedule.health

    @property
    def plain(self) -> bool:
        """True where accepting an event never needs to await a storage."""
        return not self._parts.journal.writes and self._flush_keeper.running

    @property
    def is_watched(self) -> bool:
        """True where a test takes the events, or its guard would reject them."""
        return self._site.gate.is_watched

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many more events would find places now; from any thread."""
        return self._parts.room.has_room(events, size)

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""
        return self._parts.stats(self._site.clock.wall())

    def lose(self, keys: int) -> None:
        """Account for keys that events had to go without."""
        self._parts.books.counters.lose(keys)

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""
        return self.endpoint.decode(body)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._parts.schedule.health.state
        return (
            f"<Engine {self.name} {state}: {self._parts.schedule.in_flight} out, "
            f"{self.pending} pending, {self._parts.schedule.held} held>"
        )

    # Lifecycle ---------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal and start the flush task; safe to repeat.

        A storage that takes longer than ``overflow_timeout`` is waited for no longer:
        it joins in when it is open.

        Raises:
            StorageError: the storage cannot be opened.
        """
        if self._closed:
            return
        self._pid, self._loop = os.getpid(), asyncio.get_running_loop()
        await self._parts.journal.open(self.intake.allot, self._flusher.recover)
        self.ensure_running()

    async def opened(self) -> None:
        """Wait until the storage is open, for half a minute.

        Raises:
            StorageError: the storage cannot be opened, or takes longer.
            ConfigurationError: the log, where it hands over, breaks its promise.
        """
        await self._parts.journal.opened()
        await self._site.open_log()

    def ensure_running(self) -> None:
        """Start the tasks that do not run, as after a cancellation."""
        if self._closed:
            return
        self._keepers.ensure_running()
        if self._parts.books.callbacks is not None:
            self._parts.books.callbacks.ensure_running()

    def rebind(self) -> None:
        """Move to another event loop after the old one was closed.

        Waiting events go on; requests that were in flight are sent again.
        """
        self.intake.drain()
        self._take_back_all()
        self._site.abandon()
        self._parts.books.rebind()
        self.intake.rebind()
        self._parts.journal.rebind()
        self._flusher.reader.rebind()
        self._flusher.adopter.rebind()
        self._parts.alarm.rebind()
        self._keepers.rebind()

    def _take_back_all(self) -> None:
        now = self._site.clock.now()
        for group in self._flusher.sender.abandon():
            self._parts.schedule.take_back(group, now)

    def forget_parent(self) -> None:
        """Start empty in a forked child: the parent still owns everything.

        Inherited handles settle as DROPPED fork, uncounted.
        """
        inherited, intake = self._parts.books, self.intake
        self._take_back_all()
        # Where the child goes on with the same loop, it has copies of all our tasks.
        self._flusher.retire()
        self._keepers.retire()
        if inherited.callbacks is not None:
            inherited.callbacks.retire()
        self._site.abandon()
        self._build(self._parts.journal.after_fork())
        message = "accepted before os.fork(): the parent process has it"
        outcome = Outcome.dropped(DropReason.FORK, message)
        inherited.settle_handles(outcome)
        intake.leave(outcome)  # copies of the parent's verbs still wait there

    # Intake ------------------------------------------------------------------

    def settle_at_door(
        self,
        source: object,
        insert_id: str,
        outcome: Outcome,
        *,
        must_tell: bool = False,
    ) -> Delivery:
        """Accept an event and settle it at once.

        The callback hears of it, if it must or if it has room.
        """
        return self._parts.books.settle_at_door(
            source, insert_id, outcome, must_tell=must_tell
        )

    @property
    def is_behind(self) -> bool:
        """True while a slow callback has no room for the result of one more event."""
        return self._parts.books.is_behind

    async def wait_to_tell(self) -> None:
        """Wait until the callback has room for one more result, but not long."""
        await self._parts.books.wait_to_tell()

    def hasten(self) -> None:
        """Bring the next flush forward; haste within 10 ms is one haste.

        Raises:
            AmplitudeError: somebody waits, but the loop that sends is closed.
        """
        if self._pid and not self._is_here():
            self.forget_parent()  # a child awaits a handle of its parent's
        elif not self._closed:
            if self._loop is not None and self._loop.is_closed():
                msg = "this client's event loop was closed: call one of its verbs first"
                raise AmplitudeError(msg)
            self._give_way()
            soon = self._site.clock.now() + HASTE
            self.intake.drain()
            self._parts.schedule.linger.hasten(soon)
            self._parts.alarm.ring_by(soon)

    def _give_way(self) -> None:
        """See to it that who begins to wait for outcomes does not wait for itself."""
        if self._parts.books.callbacks is not None:
            self._parts.books.callbacks.give_way()

    # Flush, purge, shutdown --------------------------------------------------

    async def flush(self, timeout: float | None) -> Stats:
        """Send now; return when all accepted so far is decided, or at the deadline."""
        await self._wait_for_outcomes(timeout)
        return self.stats

    async def _wait_for_outcomes(self, timeout: float | None) -> None:
        # Those that are being appended may be accepted before their own id is told.
        pending = self.pending + self._parts.journal.appending
        if pending and not self._closed:
            self.ensure_running()
            self._give_way()
            self._parts.alarm.ring()
            await self._parts.books.flushes.wait(
                self.intake.numbers.last, pending, timeout
            )

    async def purge(self, user_id: str | None) -> int:
        """Give up waiting events, all or of one user; those in flight go on."""
        return await purge(self._parts, user_id)

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline, then settle what is left; never raises.

        Whoever is cancelled here may call again: that goes on where this one was.
        """
        if self._ended:
            return self.stats
        self.intake.close()
        deadline = math.inf if timeout is None else self._site.clock.now() + timeout
        if timeout is not None:
            timeout -= min(timeout * LAST_CALL_SHARE, LAST_CALL_MOST)
        await self._wait_for_outcomes(timeout)
        await self._call_last(deadline)
        await self._stop()
        self._flusher.hosting.recall()  # what was out may be somebody else's by now
        try:
            await LastAct(self._site, self._parts, deadline).play(self._interrupted)
        finally:
            await self._site.close()
        self._ended = True
        return self.stats

    async def _call_last(self, deadline: float) -> None:
        """Give what still waits one request of its own, whatever holds it back."""
        now = self._site.clock.now()
        # What is in memory only goes now or never, also where older ones are unread.
        self._parts.schedule.add(self.intake.take_below(math.inf), now)
        if self._parts.room.count and self._parts.schedule.last_call(now):
            left = None if math.isinf(deadline) else max(deadline - now, 0.0)
            await self._wait_for_outcomes(left)

    async def _stop(self) -> None:
        """Cancel every task; note which events were in flight."""
        self._closed = True
        parts = self._parts
        # First who starts requests, then the requests.
        await self._keepers.stop(STOP_TIMEOUT)
        parts.alarm.stop()
        self._flusher.reader.stop()
        self._flusher.adopter.stop()
        sender = self._flusher.sender
        for group in sender.halt():
            self._interrupted.update(record.id for record in group.piece)
            parts.schedule.take_back(group, self._site.clock.now())
        await sender.gone(STOP_TIMEOUT)
