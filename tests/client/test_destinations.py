"""Destinations that are plugins: a queue and a worker each, in nobody's way."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from amplitude_async import (
    Amplitude,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
)
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.testing import FakeClock

__all__: list[str] = []

Connect = Callable[..., Amplitude]


class Recorder(DestinationPlugin):
    """A destination that keeps what it gets."""

    name = "recorder"

    def __init__(self, expected: int = 1) -> None:
        self.expected = expected
        self.complete = asyncio.Event()
        self.events: list[Event] = []
        self.log: list[str] = []

    async def execute(self, event: Event) -> None:
        """Keep the event after letting others run."""
        self.log.append(f"begin {event.event_type}")
        await asyncio.sleep(0)
        self.events.append(event)
        self.log.append(f"end {event.event_type}")
        if len(self.events) == self.expected:
            self.complete.set()


class Stuck(DestinationPlugin):
    """A destination that waits until it is released."""

    name = "stuck"

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun = asyncio.Event()

    async def execute(self, _event: Event) -> None:
        """Wait."""
        self.begun.set()
        await self.release.wait()


async def alone(client: Amplitude) -> None:
    """Leave only the plain destinations, so that handles belong to them."""
    await client.remove("amplitude")


async def test_a_plain_destination_gets_each_event_in_order(
    connect: Connect, emulator: Emulator
) -> None:
    """One at a time, outside of the verb, beside the Amplitude destination."""
    recorder = Recorder()
    async with connect(plugins=[recorder]) as client:
        for name in "abc":
            await client.track(name, user_id="user-1")
        assert recorder.events == []
        stats = await client.flush()

    spans = [(f"begin {name}", f"end {name}") for name in "abc"]
    assert recorder.log == [line for span in spans for line in span]
    assert emulator.stats.events_ingested == 3
    assert stats.delivered == stats.destinations["recorder"].delivered == 3


async def test_a_plain_destination_gets_what_the_server_gets(
    connect: Connect, emulator: Emulator
) -> None:
    """Its copy is rebuilt from the encoded event: same ids, same time, JSON values."""
    recorder = Recorder()
    event = Event(
        event_type="e",
        user_id="user-1",
        event_properties={"set": {1}, "lost": object()},
        extra={"request": 1},
    )
    async with connect(plugins=[recorder]) as client:
        delivery = await client.track(event)

    (copy,) = recorder.events
    sent = emulator.events[0]
    assert copy.event_properties == {"set": [1]} == sent["event_properties"]
    for name in ("insert_id", "time", "library"):
        assert getattr(copy, name) == sent[name]
    assert copy.extra is None
    assert delivery.insert_id == copy.insert_id
    assert (event.insert_id, event.time) == (None, None)
    assert copy.event_type == "e"


async def test_changes_in_a_destination_stay_there(
    connect: Connect, emulator: Emulator
) -> None:
    """Each destination has an event of its own, deep down."""

    class Vandal(DestinationPlugin):
        def execute(self, event: Event) -> None:
            assert event.event_properties is not None
            event.event_properties["deep"]["a"] = "changed"
            event.event_type = "changed"

    recorder = Recorder()
    event = Event(event_type="e", user_id="user-1", event_properties={"deep": {"a": 1}})
    async with connect(plugins=[Vandal(), recorder]) as client:
        delivery = await client.track(event)
        result = await delivery

    assert recorder.events[0].event_properties == {"deep": {"a": 1}}
    assert emulator.events[0]["event_properties"] == {"deep": {"a": 1}}
    assert result.event.event_type == event.event_type == "e"


async def test_the_handle_belongs_to_the_engine(connect: Connect) -> None:
    """With the Amplitude destination there, a failing plain one fails no handle."""

    class Broken(DestinationPlugin):
        def execute(self, _event: Event) -> None:
            raise ConnectionError("no route")

    async with connect(plugins=[Broken()]) as client:
        result = await (await client.track("e", user_id="user-1"))
        await client.flush()
        assert (result.destination, result.ok) == ("amplitude", True)
        assert client.stats.destinations["Broken"].rejected == 1


async def test_without_an_engine_the_handle_belongs_to_the_first_plain_one(
    connect: Connect,
) -> None:
    """Returning is DELIVERED; the second destination gets the event as well."""
    first, second = Recorder(), Recorder()
    second.name = "second"
    async with connect(plugins=[first, second]) as client:
        await alone(client)
        delivery = await client.track("e", user_id="user-1")
        assert not delivery.done
        result = await delivery
        nowait = await client.track_nowait("f", user_id="user-1")
        await client.flush()

    assert (result.status, result.destination, result.attempts) == (
        DeliveryStatus.DELIVERED,
        "recorder",
        1,
    )
    assert nowait.destination == "recorder"
    assert result.event == first.events[0]
    assert [event.event_type for event in second.events] == ["e", "f"]


async def test_a_raising_destination(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """REJECTED names the plugin and the error; the next event is tried again."""

    class Moody(Recorder):
        async def execute(self, event: Event) -> None:
            if event.event_type == "bad":
                raise TimeoutError("of its own")
            await super().execute(event)

    moody = Moody()
    async with connect(plugins=[moody]) as client:
        await alone(client)
        bad = await (await client.track("bad", user_id="user-1"))
        good = await (await client.track("good", user_id="user-1"))

    assert bad.status is DeliveryStatus.REJECTED
    assert bad.message == "plugin 'recorder' raised TimeoutError: of its own"
    assert good.ok
    assert [line.name for line in caplog.records if line.levelno == logging.ERROR] == [
        "amplitude_async"
    ]


async def test_a_slow_destination_is_cut_off(connect: Connect) -> None:
    """After connection_timeout it is REJECTED and the next event has its turn."""

    class Slow(Recorder):
        async def execute(self, event: Event) -> None:
            if event.event_type == "slow":
                await asyncio.Event().wait()
            await super().execute(event)

    slow = Slow()
    async with connect(plugins=[slow], connection_timeout=0.02) as client:
        await alone(client)
        first = await client.track("slow", user_id="user-1")
        second = await client.track("quick", user_id="user-1")
        assert (await first).message == "plugin 'recorder' took longer than 0.02 s"
        assert (await first).status is DeliveryStatus.REJECTED
        assert (await second).ok


async def test_a_full_queue_of_a_destination(connect: Connect) -> None:
    """It sheds its own events and delays neither the verb nor another destination."""
    stuck, recorder = Stuck(), Recorder(expected=3)
    async with connect(plugins=[stuck, recorder], max_storage_capacity=2) as client:
        await client.remove("amplitude")
        handles: list[Delivery] = []
        for _ in range(3):
            handles.append(await client.track("e", user_id="user-1"))
            await asyncio.sleep(0)
        await stuck.begun.wait()
        assert (await handles[2]).reason is DropReason.OVERFLOW
        assert "queue of plugin 'stuck' is full" in (await handles[2]).message
        await recorder.complete.wait()
        stuck.release.set()
        stats = await client.flush()

    assert stats.destinations["stuck"].delivered == 2
    assert stats.destinations["stuck"].dropped_by_reason == {DropReason.OVERFLOW: 1}
    assert stats.destinations["recorder"].delivered == 3


async def test_a_stuck_destination_delays_no_other(
    connect: Connect, emulator: Emulator
) -> None:
    """Amplitude and the other plugin get their events while one hangs for ever."""
    stuck, recorder = Stuck(), Recorder()
    async with connect(plugins=[stuck, recorder], shutdown_timeout=0.05) as client:
        assert (await (await client.track("e", user_id="user-1"))).ok
        assert len(recorder.events) == 1
        stats = await client.flush(0.01)
        assert stats.destinations["stuck"].pending == 1

    left = client.stats.destinations["stuck"]
    assert left.dropped_by_reason == {DropReason.SHUTDOWN: 1}
    assert emulator.stats.events_ingested == 1


async def test_a_destination_that_resists_cancelling(connect: Connect) -> None:
    """Even then each event has one outcome when shutdown returns."""
    end = asyncio.Event()

    class Stubborn(DestinationPlugin):
        name = "stubborn"

        async def execute(self, _event: Event) -> None:
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue

    client = connect(plugins=[Stubborn()])
    await client.track("a", user_id="user-1")
    await client.track("b", user_id="user-1")
    stats = (await client.shutdown(0.05)).destinations["stubborn"]
    end.set()
    await FakeClock().settle()  # what resisted has come to its end

    assert (stats.pending, stats.dropped) == (0, 2)
    assert client.stats.destinations["stubborn"] == stats


async def test_flush_and_shutdown_hooks(connect: Connect) -> None:
    """Each reaches a destination once, after its events; they may raise or be async."""

    class Buffering(Recorder):
        async def flush(self) -> None:
            self.log.append("flush")

        def shutdown(self) -> None:
            self.log.append("shutdown")
            raise OSError("cannot close")

        async def teardown(self) -> None:
            self.log.append("teardown")

    plugin = Buffering()
    async with connect(plugins=[plugin]) as client:
        await client.track("e", user_id="user-1")
        await client.flush()
        await client.track("f", user_id="user-1")

    assert plugin.log == [
        "begin e",
        "end e",
        "flush",
        "begin f",
        "end f",
        "shutdown",
        "teardown",
    ]


async def test_a_raising_flush_hook(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the plugin's name and does not escape from flush."""

    class Careless(Recorder):
        def flush(self) -> None:
            raise OSError("cannot write")

    async with connect(plugins=[Careless()]) as client:
        await client.flush()

    assert "recorder: flush raised OSError('cannot write')" in caplog.text


async def test_removing_a_destination_drains_it(connect: Connect) -> None:
    """It gets what was accepted for it, is torn down and forgotten by the stats."""
    recorder = Recorder()
    async with connect(plugins=[recorder]) as client:
        for name in "abc":
            await client.track(name, user_id="user-1")
        await client.remove(recorder)
        assert len(recorder.events) == 3
        assert client.stats.destinations == {}
        await client.track("d", user_id="user-1")
        await client.add(Recorder())

    assert len(recorder.events) == 3


async def test_a_destination_that_is_set_up_late(connect: Connect) -> None:
    """A setup that raises installs nothing; one that succeeds gets later events."""

    class Connecting(Recorder):
        attempts = 0

        async def setup(self, _client: Amplitude) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise ConnectionError("not yet")

    plugin = Connecting()
    async with connect() as client:
        with pytest.raises(ConnectionError):
            await client.add(plugin)
        await client.track("a", user_id="user-1")
        await client.add(plugin)
        await client.track("b", user_id="user-1")

    assert [event.event_type for event in plugin.events] == ["b"]


async def test_purge_reaches_every_destination(connect: Connect) -> None:
    """Waiting events of a user are given up everywhere, each copy counted."""
    recorder = Recorder()
    async with connect(plugins=[recorder]) as client:
        await client.track("a", user_id="user-1")
        await client.track("b", user_id="user-2")
        assert await client.purge("user-1") == 2

    assert [event.user_id for event in recorder.events] == ["user-2"]


async def test_settled_events_count_for_every_destination(connect: Connect) -> None:
    """An opted-out or invalid event is one for each destination's account."""
    async with connect(plugins=[Recorder()]) as client:
        await client.track("invalid")
        client.opt_out = True
        await client.track("opted out", user_id="user-1")
        own, other = client.stats, client.stats.destinations["recorder"]

    assert (own.accepted, own.rejected, own.dropped) == (2, 1, 1)
    assert (other.accepted, other.rejected, other.dropped) == (2, 1, 1)


async def test_strict_with_a_destination(connect: Connect) -> None:
    """A verb that raises was accepted by nobody."""
    async with connect(plugins=[Recorder()], strict=True) as client:
        with pytest.raises(ValueError, match="pass one of them"):
            await client.track("e")
        stats = client.stats

    assert stats.accepted == stats.destinations["recorder"].accepted == 0


async def test_a_destination_that_tracks(connect: Connect, emulator: Emulator) -> None:
    """Its own event goes to the others and never comes back to it."""

    class Auditing(Recorder):
        async def execute(self, event: Event) -> None:
            await super().execute(event)
            self.handle = await client.track("audited", user_id="user-1")

    auditing = Auditing()
    async with asyncio.timeout(5), connect(plugins=[auditing]) as client:
        await client.track("e", user_id="user-1")
        await client.flush()

    assert [event.event_type for event in auditing.events] == ["e"]
    kinds = [event["event_type"] for event in emulator.events]
    assert kinds == ["e", "audited"]
    assert (await auditing.handle).destination == "amplitude"


async def test_waiting_without_a_limit(connect: Connect) -> None:
    """With timeout=None flush and shutdown end with the last event."""
    recorder = Recorder()
    async with connect(plugins=[recorder]) as client:
        await client.track("a", user_id="user-1")
        assert (await client.flush(None)).destinations["recorder"].delivered == 1
        await client.track("b", user_id="user-1")
        await client.shutdown(None)

    assert len(recorder.events) == 2


@pytest.mark.parametrize("call", ["flush", "shutdown"])
async def test_a_destination_that_waits_for_itself(call: str, connect: Connect) -> None:
    """A destination may call flush and shutdown: they do not wait for that call."""

    class Impatient(Recorder):
        async def execute(self, event: Event) -> None:
            await getattr(client, call)()
            await super().execute(event)

    impatient = Impatient()
    client = connect(plugins=[impatient])
    async with asyncio.timeout(2):
        await client.track("e", user_id="user-1")
        await impatient.complete.wait()
        await client.shutdown()

    assert client.stats.destinations["recorder"].delivered == 1


async def test_a_plain_destination_calls_no_callback(
    connect: Connect, emulator: Emulator
) -> None:
    """Results go to it from the engine only, each once."""
    results: list[DeliveryResult] = []
    emulator.faults.add(Fault(400))
    async with connect(plugins=[Recorder()], callback=results.append) as client:
        await client.track("e", user_id="user-1")

    assert [one.destination for one in results] == ["amplitude"]
    assert results[0].status is DeliveryStatus.REJECTED


# --- The two examples of the Amplitude Go documentation, section "Plugins" ---


async def test_the_enrichment_example(connect: Connect, emulator: Emulator) -> None:
    """A counter that numbers the events."""

    class EventIdPlugin(EnrichmentPlugin):
        name = "event_id"

        def __init__(self) -> None:
            self.next_id = 0

        async def execute(self, event: Event) -> Event:
            event.event_id = self.next_id
            self.next_id += 1
            return event

    async with connect() as client:
        await client.add(EventIdPlugin())
        for _ in range(3):
            await client.track("Button Clicked", user_id="user-1")

    assert [event["event_id"] for event in emulator.events] == [0, 1, 2]


async def test_the_destination_example(connect: Connect, emulator: Emulator) -> None:
    """A destination that posts each event to another server of its own."""

    class PostPlugin(DestinationPlugin):
        name = "post"

        def __init__(self, url: str) -> None:
            self.url = url

        async def setup(self, _client: Amplitude) -> None:
            self.session = aiohttp.ClientSession()

        async def execute(self, event: Event) -> None:
            body: dict[str, Any] = {
                "api_key": "another",
                "events": [event.model_dump(by_alias=True, exclude_none=True)],
            }
            async with self.session.post(self.url, json=body) as response:
                response.raise_for_status()

        async def teardown(self) -> None:
            await self.session.close()

    async with Emulator(api_keys=["another"]) as other, connect() as client:
        await client.add(PostPlugin(other.httpapi_url))
        await client.track("Button Clicked", user_id="user-1")
        stats = await client.flush()
        assert stats.destinations["post"].delivered == 1
        assert other.events[0]["event_type"] == "Button Clicked"
        assert other.events[0]["insert_id"] == emulator.events[0]["insert_id"]
        await client.remove("post")
