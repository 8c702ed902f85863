"""A loop of verbs lets others run, whatever becomes of its events."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DestinationPlugin,
    Event,
    Overflow,
)
from amplitude_async.delivery.transport import Transport
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.testing.transport import ScriptedTransport

__all__: list[str] = []

VERBS = 1_000


class Offline(Amplitude):
    """A client whose requests get no answer until its network is released."""

    network: ScriptedTransport

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        self.network = ScriptedTransport()
        self.network.hang()
        return self.network


async def turns_of(verb: Callable[[], Awaitable[Any]]) -> int:
    """Call a verb many times in a loop, and count the turns that others had."""
    turns, going = 0, True

    async def count() -> None:
        nonlocal turns
        while going:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    before = turns
    for _ in range(VERBS):
        await verb()
    had = turns - before
    going = False
    await counting
    return had


async def test_a_loop_of_verbs_gives_one_turn_in_a_hundred() -> None:
    """Where there is room a verb suspends so often and no more."""
    async with Offline("key", shutdown_timeout=0.0) as client:
        turns = await turns_of(lambda: client.track("e", user_id="user-1"))

    assert VERBS // 100 - 1 <= turns <= VERBS // 100 + 1


async def test_an_event_object_takes_part_in_the_count() -> None:
    """The other form of the verb, with a plugin on the road as well."""

    def mark(event: Event) -> Event:
        return event

    event = Event(event_type="e", user_id="user-1")
    async with Offline("key", plugins=[mark], shutdown_timeout=0.0) as client:
        turns = await turns_of(lambda: client.track(event))

    assert VERBS // 100 - 1 <= turns <= VERBS // 100 + 1


@pytest.mark.parametrize("fate", ["shed", "opted out", "invalid", "dropped", "closed"])
async def test_an_event_settled_at_the_door_costs_a_turn(fate: str) -> None:
    """A loop that is shed cannot keep the engine from its work."""
    plugins = [lambda _: None] if fate == "dropped" else []
    client = Offline(
        "key",
        plugins=plugins,
        max_storage_capacity=1,
        overflow=Overflow.DROP_NEWEST,
        shutdown_timeout=0.0,
    )
    async with client:
        await client.track("first", user_id="user-1")
        client.opt_out = fate == "opted out"
        if fate == "closed":
            await client.shutdown()
        user = None if fate == "invalid" else "user-1"
        turns = await turns_of(lambda: client.track("e", user_id=user))

    assert turns >= VERBS - 1


async def test_a_destination_that_is_full_costs_a_turn() -> None:
    """Its worker is on the loop too, though the handle is another destination's."""

    class Stuck(DestinationPlugin):
        async def execute(self, _event: Event) -> None:
            await asyncio.Event().wait()

    client = Offline(
        "key",
        plugins=[Stuck()],
        max_storage_capacity=200,
        flush_queue_size=1,
        shutdown_timeout=0.0,
    )
    client.network.release()
    async with client:
        turns = await turns_of(lambda: client.track("e", user_id="user-1"))
        # The engine has delivered what the plugin had no place for.
        assert client.stats.dropped == 0
        shed = client.stats.destinations["Stuck"].dropped

    assert shed >= VERBS - 202
    assert turns >= shed


async def test_who_is_cancelled_in_a_turn_has_accepted_nothing() -> None:
    """The turn comes before the event."""
    async with Offline("key", shutdown_timeout=0.0) as client:
        for _ in range(100):
            await client.track("e", user_id="user-1")
        # Not by the loop, whose factory may start it at once.
        task = asyncio.Task(client.track("e", user_id="user-1"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert client.stats.accepted == 100


@pytest.mark.parametrize("fate", ["taken", "opted out"])
async def test_the_other_vendor_gives_turns_too(fate: str) -> None:
    """A loop of `send` is a loop of verbs like any other."""

    class OfflineMParticle(MParticle):
        def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
            del session
            network = ScriptedTransport()
            network.hang()
            return network

    batch = Batch(
        environment="development",
        user_identities={"customer_id": "1"},
        events=[CustomEvent(event_name="e", custom_event_type="other")],
    )
    client = OfflineMParticle("us1-key", "secret", shutdown_timeout=0.0)
    async with client:
        client.opt_out = fate == "opted out"
        turns = await turns_of(lambda: client.send(batch))

    assert turns >= (VERBS // 100 - 1 if fate == "taken" else VERBS - 1)


@pytest.mark.parametrize("fate", ["opted out", "invalid", "refused", "dropped"])
async def test_whoever_settles_at_the_door_waits_until_it_can_be_told(
    fate: str,
) -> None:
    """The callback hears of each event that an async verb accepted, however slow."""
    gate, heard = asyncio.Event(), 0

    async def slow(_: DeliveryResult) -> None:
        nonlocal heard
        await gate.wait()
        heard += 1

    client = Offline(
        "key",
        plugins=[lambda _: None] if fate == "dropped" else [],
        callback=slow,
        max_storage_capacity=2,
        overflow_timeout=60.0,
        shutdown_timeout=5.0,
    )
    fields: dict[str, Any] = {"user_id": "user-1"}
    if fate == "invalid":
        fields["time"] = "yesterday"
    if fate == "refused":
        fields["user_id"] = "1"
    async with client:
        client.opt_out = fate == "opted out"
        verbs = [asyncio.create_task(client.track("e", **fields)) for _ in range(10)]
        await asyncio.sleep(0.01)
        # One is with the callback, and its queue is full.
        assert client.stats.accepted < 6
        gate.set()
        await asyncio.gather(*verbs)

    assert heard == client.stats.accepted == 10


async def test_a_callback_that_tracks_does_not_wait_for_itself() -> None:
    """What it settles at the door is told later, however many wait."""
    heard: list[str] = []
    all_heard = asyncio.Event()

    async def again(result: DeliveryResult) -> None:
        heard.append(result.event.event_type)
        if len(heard) == 6:
            all_heard.set()
        if result.event.event_type == "e":
            await client.track("from the callback", time=cast("Any", "yesterday"))

    client = Offline(
        "key", callback=again, max_storage_capacity=1, overflow_timeout=60.0
    )
    async with asyncio.timeout(5.0), client:
        client.opt_out = True
        for _ in range(3):
            await client.track("e", user_id="user-1")
        await all_heard.wait()

    assert client.stats.accepted == 6
