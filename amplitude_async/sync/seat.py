"""The asyncio client behind a hatch: what a hatch asks of it, and what all answer."""

from typing import Any, Protocol

from amplitude_async.client.base import BaseClient
from amplitude_async.client.life import UNSET, Unset
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryResult, Outcome
from amplitude_async.delivery.stats import Stats

__all__ = ["Seat", "SeatedClient"]


class Seat(Protocol):
    """The asyncio client that sits behind a hatch."""

    @property
    def stats(self) -> Stats:
        """The client's account."""

    @property
    def owes_answers(self) -> bool:
        """True where each caller waits until its event is accepted."""

    @property
    def places(self) -> tuple[int, int]:
        """Most undecided events, and most bytes of them."""

    @property
    def patience(self) -> float | None:
        """Seconds that a shutdown takes at most; None: no limit."""

    @property
    def is_watched(self) -> bool:
        """True where a test takes the events, or its guard would reject them."""

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many events would find places now; from any thread."""

    def lane_of(self, cargo: Any) -> object:
        """What must keep its order where plugins take their time; None: nothing."""

    def offer(self, cargo: Any) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""

    async def accept(self, cargo: Any) -> Delivery:
        """Accept, waiting for room, plugins or storage."""

    async def give_up(self, cargo: Any, outcome: Outcome) -> Delivery:
        """Settle an event at once."""

    def result_of(self, cargo: Any, insert_id: str, outcome: Outcome) -> DeliveryResult:
        """Make the result of an event that this process does not have."""

    async def ready(self) -> None:
        """Start where nobody did."""

    async def flush(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Send now and wait."""

    async def purge(self, user_id: str | None = None) -> int:
        """Give up what waits."""

    async def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Drain and end."""


class SeatedClient(BaseClient):
    """What a hatch may ask of any vendor's client, from either thread."""

    @property
    def owes_answers(self) -> bool:
        """True where each caller waits until its event is accepted."""
        return self._config.strict or not self._own.plain

    @property
    def places(self) -> tuple[int, int]:
        """Most undecided events, and most bytes of them."""
        return self._config.max_storage_capacity, self._config.max_storage_bytes

    @property
    def patience(self) -> float | None:
        """Seconds that a shutdown takes at most; None: no limit."""
        return self._config.shutdown_timeout

    @property
    def is_watched(self) -> bool:
        """True where a test takes the events, or its guard would reject them."""
        return self._own.is_watched

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many events would find places now."""
        return self._own.has_room(events, size)

    async def ready(self) -> None:
        """Start where nobody did."""
        await self._ready()
