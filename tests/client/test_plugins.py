"""Plugins that run inside a verb: order, faults, names, copies and re-entrancy."""

import asyncio
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    BeforePlugin,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
    Identify,
    IngestionMetadata,
    Plan,
    Plugin,
    PluginType,
    Revenue,
)
from amplitude_async.client import roster, timeline
from amplitude_async.emulator import Emulator
from amplitude_async.testing import CapturedEvents, capture

__all__: list[str] = []

Connect = Callable[..., Amplitude]


def writer(kind: type[Plugin], mark: str, log: list[str], *, last: bool) -> Plugin:
    """Make a plugin that writes its mark down."""

    class Writer(kind):  # type: ignore[misc, valid-type]
        def execute(self, event: Event) -> Event:
            log.append(mark)
            return event

    plugin: Plugin = Writer()
    plugin.name, plugin.last = mark, last
    return plugin


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Count what the roster and the timeline call, and what calls them back."""
    calls = [0]
    files = (roster.__file__, timeline.__file__)

    def note(frame: FrameType, kind: str, _argument: object) -> None:
        calls[0] += kind in {"call", "c_call"} and frame.f_code.co_filename in files

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """Yield what every client of a test tracks; nothing is sent."""
    with capture() as events:
        yield events


# --- Order and results ---


async def test_order(connect: Connect) -> None:
    """Before, enrichment, last, destination; inside each the order of adding."""
    log: list[str] = []
    async with connect() as client:
        for kind, mark, last in (
            (DestinationPlugin, "destination", False),
            (EnrichmentPlugin, "scrubber", True),
            (BeforePlugin, "last before", True),
            (EnrichmentPlugin, "enrichment 1", False),
            (BeforePlugin, "before 1", False),
            (EnrichmentPlugin, "enrichment 2", False),
            (BeforePlugin, "before 2", False),
        ):
            assert await client.add(writer(kind, mark, log, last=last)) is client
        await client.track("e", user_id="user-1")
        await client.flush()

    assert log == [
        "before 1",
        "before 2",
        "enrichment 1",
        "enrichment 2",
        "scrubber",
        "last before",
        "destination",
    ]


async def test_what_a_plugin_returns_goes_on(
    connect: Connect, events: CapturedEvents
) -> None:
    """The next plugin and the server get the returned event, not the first one."""
    seen: list[str] = []

    def replace(event: Event) -> Event:
        return event.model_copy(update={"event_type": "replaced"})

    async def look(event: Event) -> Event:
        seen.append(event.event_type)
        return event

    async with connect(plugins=[replace, look]) as client:
        await client.track("e", user_id="user-1")

    assert seen == ["replaced"]
    assert events[0]["event_type"] == "replaced"
    assert events[0]["library"].startswith("amplitude-async-python/")


@pytest.mark.parametrize("kind", [BeforePlugin, EnrichmentPlugin])
async def test_none_drops_the_event(
    kind: type[Plugin], connect: Connect, emulator: Emulator
) -> None:
    """No later plugin and no destination sees it; the result names who dropped it."""
    log: list[str] = []
    results: list[Any] = []

    class Filter(kind):  # type: ignore[misc, valid-type]
        name = "filter"

        def execute(self, event: Event) -> Event | None:
            return None if event.event_type == "noise" else event

    plugins = [
        writer(kind, "first", log, last=False),
        Filter(),
        writer(kind, "third", log, last=False),
        writer(DestinationPlugin, "destination", log, last=False),
    ]
    async with connect(plugins=plugins, callback=results.append) as client:
        delivery = await client.track("noise", user_id="user-1")
        nowait = client.track_nowait("noise", user_id="user-1")
        result = await delivery
        assert (result.status, result.reason, result.code) == (
            DeliveryStatus.DROPPED,
            DropReason.PLUGIN,
            0,
        )
        assert result.message == "dropped by plugin 'filter'"
        assert (await nowait).reason is DropReason.PLUGIN
        assert log == ["first", "first"]
        assert client.stats.destinations["destination"].dropped == 2
        assert (await (await client.track("signal", user_id="user-1"))).ok

    assert [one.status for one in results] == ["dropped", "dropped", "delivered"]
    assert emulator.stats.events_ingested == 1


class Raising(EnrichmentPlugin):
    """A plugin with a bug."""

    name = "raising"

    def execute(self, event: Event) -> Event:
        """Change something and fail."""
        event.event_properties = {**(event.event_properties or {}), "before": True}
        raise LookupError("no such thing")


class Scrubber(Raising):
    """A plugin whose failure must not let the event pass."""

    name = "scrubber"
    on_error = "drop"


async def test_a_raising_plugin_keeps_the_event(
    connect: Connect, events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its name, once a minute; later events are unaffected."""
    async with connect(plugins=[Raising()]) as client:
        for name in ("a", "b"):
            assert (await (await client.track(name, user_id="user-1"))).ok
        assert (await client.track_nowait("c", user_id="user-1")).ok

    assert [event["event_type"] for event in events] == ["a", "b", "c"]
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "'raising' raised LookupError: no such thing" in errors[0].getMessage()
    assert errors[0].exc_info


async def test_a_raising_scrubber_drops_the_event(
    connect: Connect, emulator: Emulator
) -> None:
    """With on_error = "drop" nothing passes that was not looked at."""
    async with connect(plugins=[Scrubber()]) as client:
        result = await (await client.track("e", user_id="user-1"))

    assert result.reason is DropReason.PLUGIN
    assert "'scrubber' raised LookupError('no such thing')" in result.message
    assert emulator.requests == []


@pytest.mark.parametrize("answer", [True, {"event_type": "e"}, "e", Event])
async def test_a_plugin_that_returns_no_event(
    answer: object, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as a fault of the plugin: the event goes on as it was."""
    async with connect(plugins=[lambda _: answer]) as client:
        assert (await (await client.track("e", user_id="user-1"))).ok

    assert "return the event or None" in caplog.text


async def test_assignments_are_validated(
    connect: Connect, events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin that assigns a bad value fails by itself; the field stays as it was."""

    def bad(event: Event) -> Event:
        event.price = "3.99"  # type: ignore[assignment]
        return event

    async with connect(plugins=[bad]) as client:
        await client.track("e", user_id="user-1", price=2)

    assert events[0]["price"] == 2
    assert "plugin 'bad' raised ValidationError" in caplog.text


async def test_a_plugin_that_blanks_the_type(connect: Connect) -> None:
    """The door looks at what is left after the last plugin."""

    def blank(event: Event) -> Event:
        event.event_type = ""
        return event

    async with connect(plugins=[blank]) as client:
        result = await (await client.track("e", user_id="user-1"))

    assert result.status is DeliveryStatus.REJECTED
    assert "event_type is empty" in result.message


async def test_a_plugin_may_give_the_ids(
    connect: Connect, events: CapturedEvents
) -> None:
    """An event without an id is judged after the plugins, not before."""

    def sign(event: Event) -> Event:
        event.user_id = "user-1"
        return event

    async with connect(plugins=[sign]) as client:
        assert (await (await client.track("e"))).ok

    assert events[0]["user_id"] == "user-1"


async def test_track_nowait_with_an_async_plugin(
    connect: Connect, events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """One that has nothing to wait for runs; one that waits fails and is named."""

    async def quick(event: Event) -> Event:
        event.app_version = "1"
        return event

    async def slow(event: Event) -> Event:
        await asyncio.sleep(0)
        event.platform = "never"
        return event

    async with connect(plugins=[quick, slow]) as client:
        assert (await client.track_nowait("e", user_id="user-1")).ok

    assert events[0]["app_version"] == "1"
    assert "platform" not in events[0].wire
    assert "plugin 'slow' raised RuntimeError" in caplog.text
    assert "use `await track()`" in caplog.text


@pytest.mark.parametrize("end", ["opt out", "shut down"])
async def test_the_client_stops_while_a_plugin_works(
    end: str, connect: Connect, emulator: Emulator
) -> None:
    """An event that was with a plugin then is not sent against the host's will."""
    ready, begun = asyncio.Event(), asyncio.Event()

    async def slow(event: Event) -> Event:
        begun.set()
        await ready.wait()
        return event

    async with connect(plugins=[slow]) as client:
        tracking = asyncio.create_task(client.track("e", user_id="user-1"))
        await begun.wait()
        if end == "opt out":
            client.opt_out = True
        else:
            await client.shutdown()
        ready.set()
        result = await (await tracking)

    closed = end == "shut down"
    assert result.reason is (DropReason.CLOSED if closed else DropReason.OPT_OUT)
    assert emulator.requests == []


# --- Hooks by kind ---


async def test_typed_hooks(connect: Connect, emulator: Emulator) -> None:
    """Each kind of event reaches the hook of its kind, whoever made it."""
    seen: list[tuple[str, str]] = []

    class Hooks(EnrichmentPlugin):
        def track(self, event: Event) -> Event:
            seen.append(("track", event.event_type))
            return event

        async def identify(self, event: Event) -> Event:
            seen.append(("identify", event.event_type))
            return event

        def group_identify(self, event: Event) -> Event:
            seen.append(("group_identify", event.event_type))
            return event

        def revenue(self, event: Event) -> Event | None:
            seen.append(("revenue", event.event_type))
            return None

    async with connect(plugins=[Hooks()]) as client:
        await client.track("e", user_id="user-1")
        await client.identify(Identify().set("a", 1), user_id="user-1")
        await client.set_group("org", "15", user_id="user-1")
        await client.group_identify("org", "15", Identify().set("a", 1))
        await client.revenue(Revenue(price=1), user_id="user-1")
        stats = await client.flush()

    assert seen == [
        ("track", "e"),
        ("identify", "$identify"),
        ("identify", "$identify"),
        ("group_identify", "$groupidentify"),
        ("revenue", "revenue_amount"),
    ]
    assert (stats.delivered, stats.dropped) == (4, 1)


@pytest.mark.parametrize("kind", ["e", "$identify", "$groupidentify", "revenue_amount"])
def test_hooks_return_the_event_by_default(kind: str) -> None:
    """A plugin without hooks changes nothing, not even the object."""
    event = Event(event_type=kind)
    assert EnrichmentPlugin().execute(event) is event


# --- Setup and teardown ---


async def test_setup_and_teardown(connect: Connect) -> None:
    """Both may be plain or async; setup gets the client, once, before the first run."""
    log: list[str] = []

    class Plain(EnrichmentPlugin):
        def setup(self, client: Amplitude) -> Any:
            log.append(f"setup {client is self_client}")

        def execute(self, event: Event) -> Event:
            log.append("execute")
            return event

        def teardown(self) -> Any:
            log.append("teardown")

    class Async(Plain):
        async def setup(self, _client: Amplitude) -> None:
            log.append("async setup")

        async def teardown(self) -> None:
            await asyncio.sleep(0)
            log.append("async teardown")

    self_client = connect(plugins=[Plain(), Async()])
    assert log == []
    async with self_client as client:
        await client.track("e", user_id="user-1")
        await client.remove("Plain")
        await client.track("e", user_id="user-1")

    assert log == [
        "setup True",
        "async setup",
        "execute",
        "execute",
        "teardown",
        "execute",
        "async teardown",
    ]


async def test_a_plugin_does_not_run_before_its_setup_returned(
    connect: Connect,
) -> None:
    """Events tracked meanwhile go without it; remove does not find it yet."""
    ready = asyncio.Event()
    seen: list[str] = []

    class Slow(EnrichmentPlugin):
        async def setup(self, _client: Amplitude) -> None:
            await ready.wait()

        def execute(self, event: Event) -> Event:
            seen.append(event.event_type)
            return event

    async with connect() as client:
        adding = asyncio.create_task(client.add(Slow()))
        await asyncio.sleep(0)
        await client.track("early", user_id="user-1")
        with pytest.raises(ValueError, match="no plugin named 'Slow'"):
            await client.remove("Slow")
        ready.set()
        await adding
        await client.track("late", user_id="user-1")

    assert seen == ["late"]


class Unready(EnrichmentPlugin):
    """A plugin that cannot be set up."""

    name = "unready"

    async def setup(self, _client: Amplitude) -> None:
        """Fail."""
        raise ConnectionError("no database")

    def execute(self, _event: Event) -> Event:
        """Never run."""
        pytest.fail("it was not set up")

    def teardown(self) -> None:
        """Never run."""
        pytest.fail("it was not set up")


async def test_a_plugin_whose_setup_raised(
    connect: Connect, emulator: Emulator
) -> None:
    """`add` raises its error, nothing is installed and the name is free again."""
    async with connect() as client:
        with pytest.raises(ConnectionError, match="no database"):
            await client.add(Unready())
        with pytest.raises(ValueError, match="no plugin named 'unready'"):
            await client.remove("unready")
        assert (await (await client.track("e", user_id="user-1"))).ok
        working = EnrichmentPlugin()
        working.name = "unready"
        await client.add(working)

    assert emulator.stats.events_ingested == 1


async def test_a_given_plugin_whose_setup_raised(connect: Connect) -> None:
    """The start raises its error; removing the plugin lets the client start."""
    client = connect(plugins=[Unready()])
    with pytest.raises(ConnectionError, match="no database"):
        await client.start()
    await client.remove("unready")
    assert (await (await client.track("e", user_id="user-1"))).ok


async def test_a_client_that_cannot_start_leaves_nothing_behind(
    connect: Connect,
) -> None:
    """`async with` raises the plugin's error after closing what was open already."""
    log: list[str] = []

    class Ready(EnrichmentPlugin):
        def teardown(self) -> None:
            log.append("torn down")

    client = connect(plugins=[Ready(), Unready()])
    with pytest.raises(ConnectionError, match="no database"):
        async with client:
            pytest.fail("it started")

    assert log == ["torn down"]
    assert repr(client).startswith("<Amplitude closed")
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert [name for name in names if name.startswith("amplitude_async")] == []


async def test_a_verb_inside_setup(connect: Connect, events: CapturedEvents) -> None:
    """A plugin may track and add others while it is being set up."""

    class Greeting(EnrichmentPlugin):
        async def setup(self, client: Amplitude) -> None:
            await client.track("hello", user_id="user-1")
            await client.add(lambda event: event)

    async with asyncio.timeout(5), connect(plugins=[Greeting()]) as client:
        await client.track("e", user_id="user-1")

    assert [event["event_type"] for event in events] == ["hello", "e"]


async def test_a_raising_teardown(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the plugin's name; the others are still torn down."""
    log: list[str] = []

    class Careless(EnrichmentPlugin):
        name = "careless"

        def teardown(self) -> None:
            raise OSError("cannot close")

    class Careful(EnrichmentPlugin):
        async def teardown(self) -> None:
            log.append("torn down")

    async with connect(plugins=[Careless(), Careful()]):
        pass

    assert log == ["torn down"]
    assert "teardown of plugin 'careless' raised OSError('cannot close')" in caplog.text


async def test_teardown_may_call_shutdown(connect: Connect) -> None:
    """It comes back at once: that shutdown is waiting for this very teardown."""
    log: list[str] = []

    class Closing(EnrichmentPlugin):
        async def setup(self, client: Amplitude) -> None:
            self.client = client

        async def teardown(self) -> None:
            await self.client.shutdown()
            log.append("torn down")

    async with connect(plugins=[Closing()]):
        pass

    assert log == ["torn down"]


# --- Names ---


async def test_a_name_is_given_once(connect: Connect) -> None:
    """A second plugin of a name raises, also while the first is being set up."""
    ready = asyncio.Event()

    class Slow(EnrichmentPlugin):
        name = "slow"

        async def setup(self, _client: Amplitude) -> None:
            await ready.wait()

    async with connect() as client:
        adding = asyncio.create_task(client.add(Slow()))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match=r"name='slow' is taken.*replace=True"):
            await client.add(Slow())
        ready.set()
        await adding
        with pytest.raises(ValueError, match="is taken"):
            await client.add(Slow())
        for taken in ("context", "amplitude"):
            plugin = EnrichmentPlugin()
            plugin.name = taken
            with pytest.raises(ValueError, match="is taken"):
                await client.add(plugin)
    with pytest.raises(ValueError, match="is taken"):
        connect(plugins=[Slow(), Slow()])


async def test_replace(connect: Connect, events: CapturedEvents) -> None:
    """replace=True removes and tears down the plugin that had the name."""
    log: list[str] = []

    class Version(EnrichmentPlugin):
        name = "version"

        def __init__(self, version: str) -> None:
            self.version = version

        def execute(self, event: Event) -> Event:
            event.app_version = self.version
            return event

        def teardown(self) -> None:
            log.append(self.version)

    async with connect(plugins=[Version("1")]) as client:
        await client.add(Version("2"), replace=True)
        assert log == ["1"]
        await client.track("e", user_id="user-1")
    fresh = connect(plugins=[Version("3")])
    await fresh.add(Version("4"), replace=True)
    await fresh.track("e", user_id="user-1")
    await fresh.shutdown()

    assert [event["app_version"] for event in events] == ["2", "4"]
    assert log == ["1", "2", "4"]


class Scrub(EnrichmentPlugin):
    """Takes e-mail addresses out; may fail when it is set up."""

    name = "scrub"

    def __init__(self, mark: str, log: list[str], *, fails: bool = False) -> None:
        self.mark, self.log, self.fails = mark, log, fails

    async def setup(self, _client: Amplitude) -> None:
        """Write down that it began."""
        self.log.append(f"set up {self.mark}")
        await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError(self.mark)

    def execute(self, event: Event) -> Event:
        """Leave the mark in place of the address."""
        event.event_properties = {"email": self.mark}
        return event

    def teardown(self) -> None:
        """Write down that it ended."""
        self.log.append(f"torn down {self.mark}")


@pytest.mark.parametrize("started", [True, False])
async def test_a_successor_that_cannot_be_set_up_replaces_nobody(
    started: bool, connect: Connect, events: CapturedEvents
) -> None:
    """The old one stays and works: no address goes out because of a bad deployment."""
    log: list[str] = []
    client = connect(plugins=[Scrub("old", log)])
    if started:
        await client.start()
    with pytest.raises(RuntimeError, match="new"):
        await client.add(Scrub("new", log, fails=True), replace=True)
    properties = {"email": "a@b"}
    await client.track("e", user_id="user-1", event_properties=properties)
    await client.shutdown()

    assert [event["event_properties"] for event in events] == [{"email": "old"}]
    assert "torn down new" not in log
    assert log.count("torn down old") == 1


async def test_no_event_passes_between_two_plugins(
    connect: Connect, events: CapturedEvents
) -> None:
    """Each event meets the old one or the new one, while one takes over."""
    log: list[str] = []

    async with connect(plugins=[Scrub("old", log)]) as client:
        taking_over = asyncio.create_task(client.add(Scrub("new", log), replace=True))
        while not taking_over.done():
            await client.track("e", user_id="user-1")
            await asyncio.sleep(0)
        await client.track("e", user_id="user-1")

    marks = [event["event_properties"]["email"] for event in events]
    assert marks == sorted(marks, reverse=True)
    assert set(marks) == {"old", "new"}
    assert log[:3] == ["set up old", "set up new", "torn down old"]


async def test_a_successor_has_the_place_of_the_old_one(connect: Connect) -> None:
    """Order and name stay: whoever ran after the old one runs after the new one."""
    log: list[str] = []
    kinds = [EnrichmentPlugin, EnrichmentPlugin, DestinationPlugin, DestinationPlugin]
    plugins = [
        writer(kind, mark, log, last=False)
        for kind, mark in zip(kinds, "abcd", strict=True)
    ]
    async with connect(plugins=plugins) as client:
        for mark, kind in (("a", EnrichmentPlugin), ("c", DestinationPlugin)):
            successor = writer(kind, mark.upper(), log, last=False)
            successor.name = mark
            await client.add(successor, replace=True)
            with pytest.raises(ValueError, match="is taken"):
                await client.add(successor)
        await client.track("e", user_id="user-1")
        await client.flush()
        assert list(client.stats.destinations) == ["c", "d"]
        await client.remove("a")
        await client.add(writer(EnrichmentPlugin, "a", log, last=False))

    assert log[:2] == ["A", "b"]
    assert set(log[2:]) == {"C", "d"}


@pytest.mark.parametrize(
    ("old", "new"),
    [(EnrichmentPlugin, DestinationPlugin), (DestinationPlugin, BeforePlugin)],
)
async def test_a_successor_may_be_of_another_kind(
    old: type[Plugin], new: type[Plugin], connect: Connect
) -> None:
    """Where the place does not fit, it gets one of its own kind."""
    log: list[str] = []
    async with connect(plugins=[writer(old, "p", log, last=False)]) as client:
        successor = writer(new, "new", log, last=False)
        successor.name = "p"
        await client.add(successor, replace=True)
        await client.track("e", user_id="user-1")
        await client.flush()
        assert ("p" in client.stats.destinations) is (new is DestinationPlugin)

    assert log == ["new"]


async def test_a_successor_while_the_old_one_is_set_up(connect: Connect) -> None:
    """Both are set up, one after the other, and only the successor stays."""
    log: list[str] = []
    client = connect(plugins=[Scrub("old", log)])
    starting = asyncio.create_task(client.start())
    await asyncio.sleep(0)
    while not log:  # noqa: ASYNC110 - the setup says so by writing it down
        await asyncio.sleep(0)
    await client.add(Scrub("new", log), replace=True)
    await starting
    assert log == ["set up old", "set up new", "torn down old"]
    await client.shutdown()
    assert log[3:] == ["torn down new"]


async def test_replacing_a_plugin_by_the_name_of_its_class(connect: Connect) -> None:
    """Without a name of its own, a plugin replaces the one of its class."""

    class Stamp(EnrichmentPlugin):
        pass

    first, second = Stamp(), Stamp()
    async with connect(plugins=[first]) as client:
        await client.add(second, replace=True)
        assert second.name == "Stamp"
        with pytest.raises(ValueError, match="a lambda has none"):
            await client.add(lambda event: event, replace=True)


async def test_functions_without_a_name_are_numbered(connect: Connect) -> None:
    """Two lambdas, or two partials, stand side by side."""
    nameless = [lambda event: event, lambda event: event]
    partials = [functools.partial(lambda _n, event: event, n) for n in range(2)]
    async with connect(plugins=[*nameless, *partials]) as client:
        for name in ("lambda", "lambda-2", "partial", "partial-2"):
            await client.remove(name)


class GoStyle(Plugin):
    """A destination as the Go SDK has it: told by its type alone."""

    plugin_type = PluginType.DESTINATION

    def setup(self, _client: Amplitude) -> None:
        """Fail the test: it must not come so far."""
        pytest.fail("was set up")


class Odd(GoStyle):
    """A plugin of a type that there is not."""

    plugin_type = "transform"  # type: ignore[assignment]


class Numbered(GoStyle):
    """A plugin whose name is no text."""

    plugin_type = PluginType.BEFORE
    name = 5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (GoStyle, "GoStyle has plugin_type=DESTINATION.*subclass DestinationPlugin"),
        (Odd, "plugin_type='transform' of plugin Odd"),
        (Numbered, "name=5 of plugin Numbered"),
    ],
)
@pytest.mark.parametrize("replace", [True, False])
async def test_a_plugin_of_no_kind_is_refused_before_its_setup(
    kind: type[Plugin], told: str, replace: bool, connect: Connect
) -> None:
    """The message says what to subclass or to change."""
    async with connect() as client:
        with pytest.raises(TypeError, match=told):
            await client.add(kind(), replace=replace)
    with pytest.raises(TypeError, match=told):
        connect(plugins=[kind()])


async def test_a_fresh_event_keeps_what_the_client_knows(
    connect: Connect, emulator: Emulator
) -> None:
    """Library, plan and metadata go over to it, unless it has its own."""
    constant = Event(event_type="constant", user_id="user-1")

    def fresh(event: Event) -> Event:
        return constant if event.event_type == "e" else event

    def other(event: Event) -> Event:
        if event.event_type == "constant":
            return event
        return Event(event_type="f", user_id="user-1", library="mine/1")

    plan = Plan(branch="main")
    metadata = IngestionMetadata(source_name="ampli")
    known = {"plan": plan, "ingestion_metadata": metadata}
    async with connect(plugins=[fresh, other], **known) as client:
        await client.track("e", user_id="user-1")
        await client.track("x", user_id="user-1")
    async with connect(plugins=[fresh]) as client:
        await client.remove("context")
        await client.track("e", user_id="user-1")

    sent = emulator.events
    assert [event["plan"] for event in sent[:2]] == [{"branch": "main"}] * 2
    assert sent[0]["ingestion_metadata"] == {"source_name": "ampli"}
    assert sent[0]["library"].startswith("amplitude-async")
    assert sent[1]["library"] == "mine/1"
    assert "library" not in sent[2]
    assert constant.plan is None


async def test_thousands_of_plugins_are_added_in_few_steps(connect: Connect) -> None:
    """Each costs the same: names, places and the line of those who wait."""

    class Stamp(EnrichmentPlugin):
        pass

    calls: list[int] = []
    for count in (200, 2_000):
        client = connect(plugins=[Stamp() for _ in range(count)])
        with counted_calls() as made:
            await client.start()
        calls.append(made[0] // count)
        await client.shutdown()

    assert calls[1] <= 1.3 * calls[0] + 1


async def test_unnamed_plugins_get_distinct_names(connect: Connect) -> None:
    """The class name, and a number from the second on."""

    class Stamp(EnrichmentPlugin):
        pass

    stamps = [Stamp(), Stamp(), Stamp()]
    async with connect(plugins=stamps[:2]) as client:
        await client.add(stamps[2])
        assert [stamp.name for stamp in stamps] == ["Stamp", "Stamp-2", "Stamp-3"]
        await client.remove("Stamp-2")
        await client.remove(stamps[0])
        with pytest.raises(ValueError, match=r"no plugin named 'Stamp'.*Stamp-3"):
            await client.remove("Stamp")

    assert repr(stamps[2]) == "<Stamp 'Stamp-3'>"


async def test_functions_are_plugins(connect: Connect, events: CapturedEvents) -> None:
    """A bare function, plain or async, is an enrichment plugin of its name."""

    async def add_version(event: Event) -> Event | None:
        event.app_version = "1"
        return event

    async with connect() as client:
        await client.add(add_version)
        await client.track("e", user_id="user-1")
        await client.remove("add_version")
        await client.track("e", user_id="user-1")

    assert [event.wire.get("app_version") for event in events] == ["1", None]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (EnrichmentPlugin, "EnrichmentPlugin is a class: pass an instance"),
        (5, "plugin=5 is neither a Plugin nor a function"),
        ("context", "plugin='context' is neither"),
    ],
)
async def test_what_is_no_plugin(wrong: Any, hint: str, connect: Connect) -> None:
    """Anything else raises TypeError and says what to pass."""
    async with connect() as client:
        with pytest.raises(TypeError, match=hint):
            await client.add(wrong)
    with pytest.raises(TypeError, match=hint):
        Amplitude("key", plugins=[wrong])


async def test_a_plugin_that_does_not_call_our_init(
    connect: Connect, events: CapturedEvents
) -> None:
    """A constructor of one's own needs no super().__init__(), nor a type set twice."""

    class Counter(EnrichmentPlugin):
        plugin_type = PluginType.BEFORE

        def __init__(self) -> None:
            self.count = 0

        def execute(self, event: Event) -> Event:
            event.event_id, self.count = self.count, self.count + 1
            return event

    async with connect(plugins=[Counter()]) as client:
        for _ in range(3):
            await client.track("e", user_id="user-1")

    assert [event["event_id"] for event in events] == [0, 1, 2]


# --- Built-in plugins ---


async def test_removing_the_context(connect: Connect, events: CapturedEvents) -> None:
    """Without `context` nothing is filled in but what retries depend on."""
    async with connect(plan={"branch": "main"}) as client:
        await client.track("e", user_id="user-1")
        await client.remove("context")
        await client.track("e", user_id="user-1")
        await client.add(lambda event: event)
        await client.track("e", user_id="user-1")

    first, *others = events
    assert {"library", "plan", "time", "insert_id"} < first.wire.keys()
    for event in others:
        assert event.wire.keys() == {"event_type", "user_id", "time", "insert_id"}


async def test_plugins_see_what_the_context_knows(connect: Connect) -> None:
    """The built-in plugin runs first, so that others can read and change it."""
    seen: list[Event] = []

    def look(event: Event) -> Event:
        seen.append(event.model_copy())
        return event

    options: dict[str, Any] = {
        "plan": {"branch": "main"},
        "ingestion_metadata": {"source_name": "ampli"},
    }
    async with connect(plugins=[look], **options) as client:
        await client.track("e", user_id="user-1")
        await client.track("e", user_id="user-1", plan={"version": "2"}, library="x")

    first, second = seen
    assert first.library
    assert first.library.startswith("amplitude-async-python/")
    assert first.plan == client.config.plan
    assert first.ingestion_metadata == client.config.ingestion_metadata
    assert second.library == "x"
    assert second.plan
    assert second.plan.branch is None


async def test_removing_the_amplitude_destination(
    connect: Connect, emulator: Emulator
) -> None:
    """What it has is delivered first; with no destination events are DROPPED."""
    async with connect() as client:
        waiting = await client.track("e", user_id="user-1")
        await client.remove("amplitude")
        assert (await waiting).ok
        for delivery in (
            await client.track("e", user_id="user-1"),
            client.track_nowait("e", user_id="user-1"),
        ):
            result = await delivery
            assert result.reason is DropReason.NO_DESTINATION
            assert "add one" in result.message
        assert (await client.flush()).dropped == 2

    assert emulator.stats.events_ingested == 1


# --- Copies ---


async def test_plugins_work_on_a_copy(connect: Connect, events: CapturedEvents) -> None:
    """The caller's event, its dicts and the options are what they were."""

    def change(event: Event) -> Event:
        for name in (
            "event_properties",
            "user_properties",
            "groups",
            "group_properties",
            "extra",
        ):
            getattr(event, name)["added"] = "x"
        event.event_type = "changed"
        return event

    event = Event(
        event_type="e",
        user_id="user-1",
        event_properties={"a": 1},
        user_properties={"a": 1},
        groups={"a": "1"},
        group_properties={"a": 1},
        extra={"a": 1},
    )
    before = event.model_copy(deep=True)
    async with connect(plugins=[change]) as client:
        for _ in range(2):
            await client.track(event)

    assert event == before
    assert [one["event_type"] for one in events] == ["changed"] * 2
    assert events[0]["event_properties"] == {"a": 1, "added": "x"}
    assert events[0]["groups"] == {"a": "1", "added": "x"}


async def test_extra_reaches_every_plugin(
    connect: Connect, events: CapturedEvents
) -> None:
    """It is the same object in each of them and never on the wire."""
    marker = object()
    seen: list[object] = []

    def look(event: Event) -> Event:
        seen.append((event.extra or {}).get("marker"))
        return event

    async def look_again(event: Event) -> Event:
        return look(event)

    async with connect(plugins=[look, look_again]) as client:
        await client.track("e", user_id="user-1", extra={"marker": marker})

    assert seen == [marker, marker]
    assert "extra" not in events[0].wire


# --- Re-entrancy ---


async def test_a_plugin_that_tracks(connect: Connect, events: CapturedEvents) -> None:
    """Such an event skips every plugin already on the stack, and no other."""
    log: list[str] = []

    class Echo(EnrichmentPlugin):
        def __init__(self, name: str) -> None:
            self.name = name

        async def execute(self, event: Event) -> Event:
            log.append(f"{self.name} {event.event_type}")
            if len(event.event_type) < 3:
                await client.track(event.event_type + self.name, user_id="user-1")
            return event

    async with (
        asyncio.timeout(5),
        connect(plugins=[Echo("a"), Echo("b")]) as client,
    ):
        await client.track("-", user_id="user-1")

    assert log == ["a -", "b -a", "b -", "a -b"]
    kinds = [event["event_type"] for event in events]
    assert kinds == ["-ab", "-a", "-ba", "-b", "-"]


async def test_a_plugin_never_waits_for_room(connect: Connect) -> None:
    """A plugin that tracks into a full queue sheds instead of waiting for itself."""
    shed: list[Any] = []

    async def echo(event: Event) -> Event:
        shed.append(await client.track("echo", user_id="user-1"))
        return event

    small = {"max_storage_capacity": 1, "overflow_timeout": 60.0}
    async with asyncio.timeout(5), connect(**small) as client:
        await client.track("first", user_id="user-1")
        await client.add(echo)
        nowait = asyncio.create_task(client.track("second", user_id="user-1"))
        await asyncio.sleep(0)
        assert (await shed[0]).reason is DropReason.OVERFLOW
        await nowait


async def test_ten_plugins_deep(connect: Connect, events: CapturedEvents) -> None:
    """Ten plugins that each track once all complete, whatever the nesting."""

    def plugin(number: int) -> EnrichmentPlugin:
        class Nested(EnrichmentPlugin):
            name = f"nested-{number}"

            async def execute(self, event: Event) -> Event:
                if event.event_type == f"level-{number}":
                    await client.track(f"level-{number + 1}", user_id="user-1")
                return event

        return Nested()

    plugins = [plugin(number) for number in range(10)]
    async with asyncio.timeout(5), connect(plugins=plugins) as client:
        await client.track("level-0", user_id="user-1")

    expected = [f"level-{number}" for number in reversed(range(11))]
    assert [event["event_type"] for event in events] == expected
