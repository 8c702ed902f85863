"""Where events go: what every destination offers, and the one with an engine."""

import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amplitude_async.client.inspecting import Inspector
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.courier import Handover
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.handle import CombinedDelivery, Delivery
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.parts import Site
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.transport import Transport
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.plugins import Plugin, PluginType
from amplitude_async.shown import kind_of, shown
from amplitude_async.storage.base import Record, Storage
from amplitude_async.storage.memory import MemoryStorage

__all__ = [
    "Destination",
    "Door",
    "EngineDestination",
    "Reduced",
    "Refusal",
    "engine_destination",
    "verdict_on",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The door's verdict on an event the server would not take."""

    message: str


@dataclass(frozen=True, slots=True)
class Reduced:
    """An event that goes without some of its keys."""

    record: Record
    losses: int
    """How many keys were left out or cut."""


class Door(Protocol):
    """Checks an event as its server would and encodes it once."""

    def admit(
        self, event: Any, record_id: int, wall: float
    ) -> "Record | Reduced | Refusal":
        """Encode an event, or say why the server would refuse it."""

    def insert_id(self, event: Any) -> str:
        """The id of an event that is settled without being encoded."""


class Destination(Protocol):
    """Where events go, as the client sees it."""

    name: str

    @property
    def plugin(self) -> Plugin:
        """What the user installed: the destination itself, or what it stands for."""

    async def accept(self, event: Any) -> Delivery:
        """Accept an event, waiting for room or storage."""

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event for synchronous code, or shed it."""

    def settle(
        self, event: Any, outcome: Outcome, *, must_tell: bool = False
    ) -> Delivery:
        """Accept an event and settle it at once.

        Its callback hears of it if it has room, or if it must.
        """

    async def wait_to_tell(self) -> None:
        """Wait until its callback has room for one more result, but not long."""

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""

    @property
    def pending(self) -> int:
        """Undecided events."""

    async def start(self) -> None:
        """Make ready on the running loop."""

    async def flush(self, timeout: float | None) -> Stats:
        """Bring all that was accepted to an outcome, or return at the deadline."""

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline and settle the rest."""

    async def purge(self, user_id: str | None) -> int:
        """Give up waiting events, all or of one user."""

    def rebind(self) -> None:
        """Move to another loop after the old one was closed."""

    def forget_parent(self) -> None:
        """Start empty in a forked child."""


class EngineDestination(Plugin):
    """A destination with a delivery engine behind it; encodes at the door.

    Args:
        name: told by its handles and in its log lines.
        door: checks and encodes events.
        engine: delivers; given another destination, both feed the engine of that one.
        clock: stamps events.
        strict: what the door refuses raises.
    """

    plugin_type = PluginType.DESTINATION

    def __init__(
        self,
        name: str,
        door: Door,
        engine: "Engine | EngineDestination",
        clock: Clock,
        *,
        strict: bool = False,
    ) -> None:
        self.name = name
        self._door = door
        self._engine: Engine = (
            engine._engine  # noqa: SLF001 - of its own kind
            if isinstance(engine, EngineDestination)
            else engine
        )
        self._clock = clock
        self._strict = strict

    @property
    def plugin(self) -> Plugin:
        """The destination itself: it is what the user installs."""
        return self

    @property
    def plain(self) -> bool:
        """True where accepting an event never needs to await a storage."""
        return self._engine.plain

    @property
    def hands_over(self) -> bool:
        """True where a log is in the place of the server."""
        return self._engine.outbox.has_log

    @property
    def is_watched(self) -> bool:
        """True where a test takes the events, or its guard would reject them."""
        return self._engine.is_watched

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many more events would find places now; from any thread."""
        return self._engine.has_room(events, size)

    @property
    def next_id(self) -> int:
        """The id that a record should have which is offered now."""
        return self._engine.intake.numbers.next

    # Events ------------------------------------------------------------------

    def offer(self, event: Any) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""
        # Asked each time: a storage that failed or came back changes the answer.
        if not self._engine.plain:
            return None
        admitted = self._admit(event)
        if isinstance(admitted, Record):
            return self._engine.intake.offer(admitted)
        return None if self._engine.is_behind else self.settle(event, admitted)

    async def accept(self, event: Any) -> Delivery:
        """Accept an event, waiting for room or storage.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        admitted = self._admit(event)
        if isinstance(admitted, Record):
            return await self._engine.intake.accept(admitted)
        return await self._settle_in_turn(event, admitted)

    async def accept_in(self, connection: Any, event: Any) -> Delivery:
        """Accept an event into a log, within a transaction of the caller's.

        Raises:
            ConfigurationError: there is no log that can do that with this connection.
            LogError: the log does not take it.
        """
        admitted = self._admit(event)
        if isinstance(admitted, Record):
            return await self._engine.outbox.accept(connection, admitted)
        return await self._settle_in_turn(event, admitted)

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event for synchronous code, or shed it.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        admitted = self._admit(event)
        if isinstance(admitted, Record):
            return self._engine.intake.offer_nowait(admitted)
        return self.settle(event, admitted)

    def _admit(self, event: Any) -> Record | Outcome:
        """Let the door judge an event; its outcome where that was the end of it."""
        wall = self._clock.wall()
        record = self._door.admit(event, self._engine.intake.numbers.next, wall)
        if isinstance(record, Refusal):
            return verdict_on(record, strict=self._strict)
        return self._whole(record)

    def _whole(self, record: Record | Reduced) -> Record:
        """Count what an event had to go without, where it had to."""
        if isinstance(record, Reduced):
            self.lose(record.losses)
            return record.record
        return record

    def lose(self, keys: int) -> None:
        """Account for keys that events had to go without."""
        self._engine.lose(keys)

    async def _settle_in_turn(self, event: Any, outcome: Outcome) -> Delivery:
        """Settle an event at once when its result has a place behind the callback."""
        await self.wait_to_tell()
        return self.settle(event, outcome, must_tell=True)

    def settle(
        self, event: Any, outcome: Outcome, *, must_tell: bool = False
    ) -> Delivery:
        """Accept an event and settle it at once; the callback hears of it if it can.

        Or in any case, where it must.
        """
        insert_id = self._door.insert_id(event)
        return self._engine.settle_at_door(
            event, insert_id, outcome, must_tell=must_tell
        )

    async def wait_to_tell(self) -> None:
        """Wait until the callback has room for one more result, but not long."""
        await self._engine.wait_to_tell()

    # Records: events that a vendor's client has encoded itself ---------------

    def offer_record(self, record: Record) -> Delivery | None:
        """Accept an encoded event without suspending; None where there is no room."""
        return self._engine.intake.offer(record)

    def accept_record(self, record: Record) -> Coroutine[Any, Any, Delivery]:
        """Accept an encoded event, waiting for room or storage.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        return self._engine.intake.accept(record)

    def combine(self, deliveries: Sequence[Delivery]) -> Delivery:
        """Give one handle on events that were one to the caller."""
        if len(deliveries) == 1:
            return deliveries[0]
        return CombinedDelivery(self._engine, deliveries)

    # Account and life --------------------------------------------------------

    def feed(self, storage: Storage) -> None:
        """Take events from a storage that others fill; before the start.

        Raises:
            AmplitudeError: it was started.
        """
        self._engine.feed(storage)

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""
        return self._engine.stats

    @property
    def health(self) -> Health:
        """What the last answers say about it."""
        return self._engine.condition.state

    def takes_nothing(self, longer_than: float) -> bool:
        """Say whether it has taken nothing for so many seconds, though it was asked."""
        now = self._clock.now()
        return self._engine.condition.takes_nothing(now, longer_than)

    @property
    def observers(self) -> Observers:
        """Those who hear of each request."""
        return self._engine.observers

    @property
    def pending(self) -> int:
        """Undecided events, wherever they wait."""
        return self._engine.pending

    async def start(self) -> None:
        """Open the storage and start the engine's tasks."""
        self.observers.begin()
        await self._engine.start()

    async def opened(self) -> None:
        """Wait until the storage is open, for half a minute.

        Raises:
            StorageError: the storage cannot be opened, or takes longer.
        """
        await self._engine.opened()

    async def flush(self, timeout: float | None) -> Stats:
        """Bring all that was accepted to an outcome, or return at the deadline."""
        return await self._engine.flush(timeout)

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline and settle the rest."""
        stats = await self._engine.shutdown(timeout)
        await self.observers.finish()
        return stats

    async def purge(self, user_id: str | None) -> int:
        """Give up waiting events, all or of one user."""
        return await self._engine.purge(user_id)

    def rebind(self) -> None:
        """Move to another loop after the old one was closed."""
        self._engine.rebind()

    def forget_parent(self) -> None:
        """Start empty in a forked child."""
        self._engine.forget_parent()


def verdict_on(refusal: Refusal, *, strict: bool) -> Outcome:
    """Turn what the door said into an outcome, or into an error where that is wanted.

    Raises:
        ValueError: the configuration is strict.
    """
    if strict:
        raise ValueError(refusal.message)
    return Outcome.rejected(refusal.message)


def engine_destination(
    config: DeliveryConfig,
    endpoint: Endpoint,
    door: Door,
    *,
    transport: Transport,
    clock: Clock,
    client_id: int,
    handover: Handover | None = None,
) -> EngineDestination:
    """Make a client's own destination, with a storage as the configuration says.

    Raises:
        ConfigurationError: what is to make the storage makes something else.
    """
    storage = _make_storage(config.storage)
    max_age = config.max_event_age
    # What is kept on a disk is there to outlive outages: it may be older by default.
    if "max_event_age" not in config.model_fields_set:
        max_age = storage.default_max_age or max_age
    site = Site.make(
        endpoint,
        config,
        transport=transport,
        clock=clock,
        rng=random.Random(),
        max_age=max_age,
        client_id=client_id,
        handover=handover,
    )
    engine, reporter = Engine(site, storage), site.reporter
    engine.observers.call(Inspector(endpoint.name, clock, reporter))
    return EngineDestination(endpoint.name, door, engine, clock, strict=config.strict)


def _make_storage(given: Any) -> Storage:
    if given is None:
        return MemoryStorage()
    made = given if isinstance(given, Storage) else given()
    if not isinstance(made, Storage):
        msg = (
            f"storage={shown(given)} made a {kind_of(made)}: it must be a Storage "
            "or a callable that returns one"
        )
        raise ConfigurationError(msg)
    return made
