"""Captured events without a client: encoded as a client encodes them."""

from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import DeliveryStatus, Event, Identify
from amplitude_async.amplitude.encoder import EventDefaults, InsertIds, encode_event
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.encoding import ValuePolicy
from amplitude_async.mparticle import Batch
from amplitude_async.mparticle.destination import to_batch
from amplitude_async.mparticle.encoder import encode_stamped
from amplitude_async.testing import CapturedEvents

__all__: list[str] = []

Track = Callable[..., None]

DELIVERED = Outcome(DeliveryStatus.DELIVERED)


class Captor:
    """Puts events into a collection as the clients' doors do."""

    def __init__(self, events: CapturedEvents) -> None:
        self.events = events
        self._ids = InsertIds()
        self.wall = 1_700_000_000.0

    def stamped(self, event: Event) -> Event:
        """Give an event the ids that all destinations share."""
        missing: dict[str, Any] = {}
        if event.insert_id is None:
            missing["insert_id"] = self._ids()
        self.wall += 1.5
        return event.model_copy(update=missing)

    def track(self, event: Event | str, *destinations: str, **fields: Any) -> None:
        """Track an event, to Amplitude or to the destinations named."""
        event = Event(event, **fields) if isinstance(event, str) else event
        event = self.stamped(event)
        for destination in destinations or ("amplitude",):
            if destination == "mparticle":
                batch = to_batch(event, "development")
                assert batch is not None
                self.upload(batch)
                continue
            body, insert_id, source, _ = encode_event(
                event,
                ValuePolicy(),
                EventDefaults(library="amplitude-async/1.2.3"),
                wall=self.wall,
                insert_id=self._ids,
            )
            self.events.add(destination, body, source, insert_id, DELIVERED)

    def identify(self, identify: Identify, *destinations: str, **fields: Any) -> None:
        """Change properties of a user."""
        event = Event("$identify", user_properties=identify.properties, **fields)
        self.track(event, *destinations)

    def upload(self, batch: Batch) -> None:
        """Queue a batch for mParticle."""
        encoded = encode_stamped(batch, wall=self.wall)
        key = encoded.source_request_id
        self.events.add("mparticle", encoded.body, batch, key, DELIVERED)

    def settle(self, source: object, outcome: Outcome) -> None:
        """Settle what was not even encoded."""
        self.events.add("amplitude", None, source, self._ids(), outcome)


@pytest.fixture
def events() -> CapturedEvents:
    """Return an empty collection."""
    return CapturedEvents()


@pytest.fixture
def captor(events: CapturedEvents) -> Captor:
    """Return what puts events into it."""
    return Captor(events)
