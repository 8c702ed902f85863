"""What an engine is made of: the site it stands on, and its rooms in one process."""

import random
from dataclasses import dataclass, replace
from functools import cached_property

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.ages import Ages
from amplitude_async.delivery.alarm import Alarm
from amplitude_async.delivery.books import Books
from amplitude_async.delivery.callbacks import CallbackRunner
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.courier import Handover
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.deciding.schedule import Schedule
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.handle import Principal
from amplitude_async.delivery.intake import Intake
from amplitude_async.delivery.interception import INTERCEPTION, Gate
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.room import Room
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.transport import AiohttpTransport, Transport
from amplitude_async.exceptions import LogError
from amplitude_async.storage.base import Holdings, Storage

__all__ = ["Parts", "Site"]


@dataclass(frozen=True)
class Site:
    """What an engine stands on, in a forked child as well."""

    endpoint: Endpoint
    config: DeliveryConfig
    transport: Transport
    clock: Clock
    reporter: Reporter
    rng: random.Random
    max_age: float
    client_id: int
    handover: Handover | None = None
    """The log that stands in the place of the server, if one does."""

    @classmethod
    def make(
        cls,
        endpoint: Endpoint,
        config: DeliveryConfig,
        *,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        max_age: float,
        client_id: int,
        handover: Handover | None = None,
    ) -> "Site":
        """Make a site with a reporter of its own."""
        reporter = Reporter(config.logger, clock, endpoint.name, config.redactor)
        return cls(
            endpoint,
            config,
            transport,
            clock,
            reporter,
            rng,
            max_age,
            client_id,
            handover,
        )

    def fed_by(self, storage: Storage) -> "Site":
        """Make the same site for another storage, which may say how old events get."""
        if "max_event_age" in self.config.model_fields_set:
            return self
        return replace(self, max_age=storage.default_max_age or self.max_age)

    async def open_log(self) -> None:
        """See that the log is as it should be, where events are handed over.

        Raises:
            ConfigurationError: it is not set up, or a setting breaks its promise.
        """
        if self.handover is None:
            return
        try:
            warnings = await self.handover.open()
        except LogError as error:
            # An outage of the log keeps no service from starting.
            self.reporter.warning("log", "%s", in_words(error))
        else:
            for warning in warnings:
                self.reporter.warning("log", "%s", warning)

    @cached_property
    def gate(self) -> Gate:
        """Where events may be intercepted."""
        over_http = isinstance(self.transport, AiohttpTransport)
        reaches_network = over_http and self.handover is None
        return Gate(self.endpoint.url, reaches_network=reaches_network)

    @cached_property
    def observers(self) -> Observers:
        """Those who hear of each request."""
        made = Observers(self.reporter)
        if self.handover is not None:
            made.follow(self.handover.ended)
        return made

    async def close(self) -> None:
        """Close the connections that the engine opened itself."""
        try:
            await self.transport.close()
        finally:
            if self.handover is not None:
                await self.handover.close()

    def abandon(self) -> None:
        """Forget connections without touching them."""
        self.transport.abandon()
        if self.handover is not None:
            self.handover.abandon()


@dataclass(frozen=True)
class Parts:
    """The rooms of one engine in one process: each starts out empty."""

    alarm: Alarm
    ages: Ages
    room: Room
    journal: Journal
    schedule: Schedule
    books: Books
    intake: Intake
    hands_over: bool = False
    """True where a log is in the place of the server."""
    confirms: bool = False
    """True where verbs wait until it has their event."""

    @classmethod
    def build(cls, site: Site, storage: Storage, principal: Principal) -> "Parts":
        """Build the rooms, each with those that it asks or tells."""
        endpoint, config, clock = site.endpoint, site.config, site.clock
        alarm, ages = Alarm(clock), Ages(clock)
        room = Room(config.max_storage_capacity, config.max_storage_bytes, clock)
        journal = Journal(
            storage,
            endpoint.fingerprint(),
            site.reporter,
            clock,
            patience=config.overflow_timeout,
        )
        schedule = Schedule(
            config,
            max_events=endpoint.max_events,
            max_bytes=endpoint.max_bytes - endpoint.frame_bytes,
            max_age=site.max_age,
            durable=journal.writes,
            rng=site.rng,
        )
        books = Books(
            endpoint,
            site.reporter,
            journal,
            room,
            principal=principal,
            clock=clock,
            callbacks=_callbacks(site, alarm),
            observers=site.observers,
        )
        intake = Intake(
            config,
            room,
            schedule,
            books=books,
            journal=journal,
            alarm=alarm,
            ages=ages,
            gate=site.gate,
            client_id=site.client_id,
        )
        hands_over = site.handover is not None
        return cls(
            alarm,
            ages,
            room,
            journal,
            schedule,
            books,
            intake,
            hands_over=hands_over,
            confirms=hands_over and config.confirm,
        )

    @property
    def pending(self) -> int:
        """Undecided events, wherever they wait."""
        return self.room.count + self.journal.unread

    @property
    def hurried(self) -> bool:
        """True where what waits has no company to wait for: it goes at once."""
        return (
            self.hands_over
            or self.room.crowded
            or bool(self.books.flushes)
            or self.journal.claims.hurried
        )

    @property
    def held_back(self) -> bool:
        """True while a test captures events: what came before waits for its end."""
        return INTERCEPTION.active and INTERCEPTION.holds_back(self.alarm.ring)

    @property
    def holds_all(self) -> bool:
        """True where nothing can happen until then, which who flushes may hold up."""
        return not self.schedule.in_flight and self.held_back

    @property
    def _log_has_all(self) -> bool:
        """True while a verb returns once a log has its event."""
        health = self.schedule.health
        answers = health.state is Health.HEALTHY and health.taken > 0
        return self.confirms and answers

    def stats(self, wall: float) -> Stats:
        """Freeze the account, at a time in seconds since the epoch."""
        spool = self.journal.holdings
        waiting = Stats(
            pending=self.pending,
            held=self.schedule.held,
            retries=self.schedule.retries,
            oldest_age=self._oldest_age(spool),
            queue_events=self.room.count,
            queue_capacity=self.room.capacity,
            queue_bytes=self.room.bytes,
            spool_events=self.journal.count(self.pending),
            spool_bytes=spool.size,
            spool_oldest_age=spool.age(wall),
            durable=self.journal.durable or self._log_has_all,
        )
        return self.books.counters.snapshot(waiting)

    def _oldest_age(self, spool: Holdings) -> float | None:
        """Say how old the oldest undecided event is, wherever it waits.

        What came by a verb is in the ledger; what was taken over is in the storage
        alone, which knows when the oldest of all it has was accepted.
        """
        if not self.pending:
            return None
        own = self.books.oldest_age
        if self.books.is_more(self.pending):
            return max(own or 0.0, self.ages.of_adopted(spool.oldest))
        return own


def _callbacks(site: Site, alarm: Alarm) -> CallbackRunner | None:
    config = site.config
    if config.callback is None:
        return None
    return CallbackRunner(
        config.callback,
        capacity=config.max_storage_capacity,
        clock=site.clock,
        reporter=site.reporter,
        client_id=site.client_id,
        on_room=alarm.ring,
        patience=config.overflow_timeout,
    )
