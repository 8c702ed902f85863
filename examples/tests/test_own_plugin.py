"""Plugins of one's own, and the tests that they inherit.

Run them with ``python -m pytest examples/tests/test_own_plugin.py``.
"""

from collections.abc import Sequence

from amplitude_async import DestinationPlugin, EnrichmentPlugin, Event
from amplitude_async.testing import capture
from amplitude_async.testing.plugin_contract import (
    DestinationContract,
    PluginContract,
    sample_events,
)

__all__: list[str] = []


class Scrubber(EnrichmentPlugin):
    """Takes addresses of mail out of the properties."""

    name = "scrubber"
    last = True
    on_error = "drop"

    def execute(self, event: Event) -> Event:
        """Assign new properties: those that are there are the caller's."""
        if event.event_properties:
            kept = {k: v for k, v in event.event_properties.items() if k != "email"}
            event.event_properties = kept
        return event


class TestScrubber(PluginContract):
    """What every plugin promises, kept by this one."""

    def make(self) -> EnrichmentPlugin:
        """Make one that is not set up yet, alike each time."""
        return Scrubber()

    def samples(self) -> Sequence[Event]:
        """Add what this plugin is about to the events that are tried."""
        address = {"email": "a@example.org", "plan": "pro"}
        mine = Event(event_type="Joined", user_id="user-1", event_properties=address)
        return [*sample_events(), mine]

    def test_no_address_passes(self) -> None:
        """What this plugin promises beyond."""

        async def test() -> None:
            async with capture() as events, self.client() as client:
                for event in self.samples():
                    await client.track(event)
            assert all("email" not in event.properties for event in events)

        self.run(test())


class Shelf(DestinationPlugin):
    """Keeps the names of events."""

    name = "shelf"

    def __init__(self) -> None:
        self.kept: list[str] = []

    def execute(self, event: Event) -> None:
        """Keep one."""
        self.kept.append(event.event_type)


class TestShelf(DestinationContract):
    """What every destination promises, kept by this one."""

    def make(self) -> DestinationPlugin:
        """Make one, with a place that a test may send to."""
        return Shelf()
