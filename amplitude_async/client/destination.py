"""Where events go: what every destination offers, and the one with an engine."""

from dataclasses import dataclass
from typing import Any, Protocol

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.stats import Stats
from amplitude_async.plugins import Plugin, PluginType
from amplitude_async.storage.base import Record

__all__ = ["Destination", "Door", "EngineDestination", "Refusal", "verdict_on"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The door's verdict on an event the server would not take."""

    message: str


class Door(Protocol):
    """Checks an event as its server would and encodes it once."""

    def admit(self, event: Any, record_id: int, wall: float) -> "Record | Refusal":
        """Encode an event, or say why the server would refuse it."""

    def insert_id(self, event: Any) -> str:
        """The id of an event that is settled without being encoded."""


class Destination(Protocol):
    """Where events go, as the client sees it."""

    name: str

    def offer(self, event: Any) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""

    async def accept(self, event: Any) -> Delivery:
        """Accept an event, waiting for room or storage."""

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event for synchronous code, or shed it."""

    def settle(self, event: Any, outcome: Outcome) -> Delivery:
        """Accept an event and settle it at once."""

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""

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
    """A destination with its own delivery engine; encodes at the door."""

    plugin_type = PluginType.DESTINATION

    def __init__(
        self,
        name: str,
        door: Door,
        engine: Engine,
        clock: Clock,
        *,
        strict: bool = False,
    ) -> None:
        self.name = name
        self._door = door
        self._engine = engine
        self._clock = clock
        self._strict = strict

    @property
    def engine(self) -> Engine:
        """The engine that delivers."""
        return self._engine

    def offer(self, event: Any) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""
        engine = self._engine
        if not engine.plain:
            return None
        intake = engine.intake
        record = self._door.admit(event, intake.next_id, self._clock.wall())
        if isinstance(record, Refusal):
            return self.settle(event, verdict_on(record, strict=self._strict))
        return intake.offer(record)

    async def accept(self, event: Any) -> Delivery:
        """Accept an event, waiting for room or storage.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        record = self._door.admit(
            event, self._engine.intake.next_id, self._clock.wall()
        )
        if isinstance(record, Refusal):
            return self.settle(event, verdict_on(record, strict=self._strict))
        return await self._engine.accept(record)

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event for synchronous code, or shed it.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        record = self._door.admit(
            event, self._engine.intake.next_id, self._clock.wall()
        )
        if isinstance(record, Refusal):
            return self.settle(event, verdict_on(record, strict=self._strict))
        return self._engine.offer_nowait(record)

    def settle(self, event: Any, outcome: Outcome) -> Delivery:
        """Accept an event and settle it at once."""
        insert_id = self._door.insert_id(event)
        return self._engine.settle_at_door(event, insert_id, outcome)

    @property
    def stats(self) -> Stats:
        """Snapshot of the account."""
        return self._engine.stats

    async def start(self) -> None:
        """Open the storage and start the engine's tasks."""
        await self._engine.start()

    async def flush(self, timeout: float | None) -> Stats:
        """Bring all that was accepted to an outcome, or return at the deadline."""
        return await self._engine.flush(timeout)

    async def shutdown(self, timeout: float | None) -> Stats:
        """Drain until the deadline and settle the rest."""
        return await self._engine.shutdown(timeout)

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
