"""The contract lets good plugins pass, and tells what is wrong with each bad one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    BeforePlugin,
    DestinationPlugin,
    EnrichmentPlugin,
    Event,
    Plugin,
)
from amplitude_async.testing.plugin_contract import DestinationContract, PluginContract

__all__: list[str] = []


class Scrubber(EnrichmentPlugin):
    """Takes addresses out, as the page of plugins shows it."""

    last = True

    async def execute(self, event: Event) -> Event:
        """Replace the properties by clean ones."""
        await asyncio.sleep(0)
        properties = event.event_properties or {}
        event.event_properties = {k: v for k, v in properties.items() if k != "email"}
        return event


class TestScrubber(PluginContract):
    """A plugin that keeps nothing."""

    def make(self) -> Plugin:
        """Make one."""
        return Scrubber()


def no_bots(event: Event) -> Event | None:
    """Drop what robots do."""
    return None if "Mozilla" in (event.user_agent or "") else event


class TestFunction(PluginContract):
    """A bare function is a plugin too."""

    def make(self) -> Callable[[Event], Event | None]:
        """Give the function; a client wraps it."""
        return no_bots


class Shelf(DestinationPlugin):
    """Keeps what it gets."""

    name = "shelf"

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def execute(self, event: Event) -> None:
        """Keep an event."""
        await asyncio.sleep(0)
        self.kept.append(event.event_type)


class TestShelf(DestinationContract):
    """A destination of an application's own."""

    def make(self) -> DestinationPlugin:
        """Make one."""
        return Shelf()


# Bad ones ----------------------------------------------------------------------------


class Unnamed(BeforePlugin):
    """Has another name each time."""

    count = 0

    def __init__(self) -> None:
        Unnamed.count += 1
        self.name = f"unnamed-{Unnamed.count}"


class Once(EnrichmentPlugin):
    """Can be set up once in a process."""

    done = False

    def setup(self, client: Any) -> None:
        """Take what there is one of."""
        assert client is not None
        if Once.done:
            msg = "set up already"
            raise RuntimeError(msg)
        Once.done = True


class Hasty(EnrichmentPlugin):
    """Believes that every event has properties."""

    def execute(self, event: Event) -> Event:
        """Read a property."""
        assert event.event_properties is not None
        event.event_properties["seen"] = True
        return event


class Mute(EnrichmentPlugin):
    """Says True where it means the event."""

    def execute(self, event: Event) -> Any:
        """Answer with something else."""
        return bool(event)


class Rough(EnrichmentPlugin):
    """Changes nested values in place."""

    def execute(self, event: Event) -> Event:
        """Empty a tree of the caller's."""
        tree = (event.event_properties or {}).get("tree")
        if isinstance(tree, dict):
            tree.clear()
        return event


class Spoiler(EnrichmentPlugin):
    """Makes ids that the server refuses."""

    def execute(self, event: Event) -> Event:
        """Shorten the user's id."""
        event.user_id = event.device_id = "x"
        return event


class Renamer(EnrichmentPlugin):
    """Gives every event an id of its own."""

    def execute(self, event: Event) -> Event:
        """Replace what was given."""
        event.insert_id = "mine"
        return event


class Mixer(EnrichmentPlugin):
    """Keeps an event in itself across an await."""

    def __init__(self) -> None:
        self.event: Event | None = None

    async def execute(self, event: Event) -> Event | None:
        """Forget whose turn it is."""
        self.event = event
        await asyncio.sleep(0)
        return self.event


class Stubborn(DestinationPlugin):
    """Turns being cancelled into an error of its own."""

    name = "stubborn"

    async def execute(self, event: Event) -> None:
        """Take a while."""
        assert event
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            msg = "must not be disturbed"
            raise RuntimeError(msg) from None


class Brittle(DestinationPlugin):
    """Can be shut down once."""

    name = "brittle"

    def __init__(self) -> None:
        self.file: list[int] | None = []

    def execute(self, event: Event) -> None:
        """Take an event."""
        assert event

    def shutdown(self) -> None:
        """Close what is closed already."""
        assert self.file is not None, "closed twice"
        self.file = None


@pytest.mark.parametrize(
    ("bad", "test", "message"),
    [
        (Unnamed, "it_has_one_name", "its name changes"),
        (Hasty, "it_takes_every_event", "assert"),
        (Mute, "it_takes_every_event", "execute returned bool"),
        (Rough, "the_callers_event_stays_as_it_is", "'Odd values' was changed"),
        (Spoiler, "the_server_takes_what_it_makes", "'Bare' is rejected"),
        (Renamer, "insert_ids_stay", "the insert_id was replaced"),
        (Mixer, "events_at_once_do_not_mix", "an event came out twice"),
    ],
)
def test_a_bad_plugin_is_found(bad: type[Plugin], test: str, message: str) -> None:
    """By the test whose promise it breaks."""

    class Contract(PluginContract):
        def make(self) -> Plugin:
            return bad()

    with pytest.raises(AssertionError, match=message):
        getattr(Contract(), f"test_{test}")()


def test_a_plugin_that_can_be_set_up_once_is_found() -> None:
    """The error of its setup is the test's."""

    class Contract(PluginContract):
        def make(self) -> Plugin:
            return Once()

    Once.done = False
    with pytest.raises(RuntimeError, match="set up already"):
        Contract().test_two_clients_may_have_one_each()


@pytest.mark.parametrize(
    ("bad", "test", "error"),
    [
        (Stubborn, "it_may_be_cut_off", pytest.fail.Exception),
        (Brittle, "it_can_be_flushed_and_shut_down_at_any_time", AssertionError),
    ],
)
def test_a_bad_destination_is_found(
    bad: type[DestinationPlugin], test: str, error: type[BaseException]
) -> None:
    """By the test whose promise it breaks."""

    class Contract(DestinationContract):
        def make(self) -> DestinationPlugin:
            return bad()

    with pytest.raises(error):
        getattr(Contract(), f"test_{test}")()


def test_the_same_object_twice_is_no_way_to_make_one() -> None:
    """A second client would share what the first has set up."""
    plugin = Scrubber()

    class Contract(PluginContract):
        def make(self) -> Plugin:
            return plugin

    with pytest.raises(AssertionError, match="make another"):
        Contract().test_it_has_one_name()
