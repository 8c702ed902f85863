"""What every plugin promises to its client, as tests that anybody can run.

Give the class a way to make your plugin, and pytest does the rest::

    class TestNoBots(PluginContract):
        def make(self) -> Plugin:
            return NoBots()

Nothing is sent: the tests capture. They run their own event loop, so that no plugin for
asyncio is needed.
"""

# ruff: noqa: S101 - pytest is built on assert

import asyncio
import copy
import itertools
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.events import GROUP_IDENTIFY, IDENTIFY, REVENUE, Event
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryStatus
from amplitude_async.plugins import (
    DestinationPlugin,
    Plugin,
    PluginType,
    as_plugin,
    call_hook,
    default_name,
)
from amplitude_async.testing.capturing import capture

__all__ = ["DestinationContract", "PluginContract", "sample_events"]

AT_ONCE = 100
USER = "user-1"
# Before a task has begun, and at its first awaits; some loops begin it at once.
STEPS = range(3)
LONGEST = 20.0


def sample_events() -> Iterator[Event]:
    """Make events of every kind, plain and odd, as services track them."""
    yield Event(event_type="Bare", user_id=USER)
    yield Event(event_type="Anonymous", device_id="device-1")
    yield Event(event_type="No properties", event_properties={}, user_id=USER)
    yield Event(
        event_type="Odd values",
        event_properties={
            "none": None,
            "text": "caf\u00e9 \U0001f600 " + "x" * 5_000,
            "number": -(2**60),
            "amount": Decimal("9.5"),
            "list": [1, "two", None, {"three": 3.0}],
            "tree": {"a": {"b": {"c": {"d": "deep"}}}},
            "": "a name that is empty",
        },
        user_id=USER,
    )
    yield Event(
        event_type="Whole",
        device_id="device-1",
        insert_id="insert-1",
        time=1_700_000_000_000,
        user_properties={"plan": "pro"},
        groups={"company": ["Acme", "Other"]},
        user_agent="Mozilla/5.0",
        ip="192.0.2.1",
        price=1.5,
        quantity=2,
        revenue=3.0,
        extra={"of": "the caller"},
        user_id=USER,
    )
    yield Event(
        event_type=IDENTIFY,
        user_properties={"$set": {"email": "a@example.org"}},
        user_id=USER,
    )
    yield Event(
        event_type=GROUP_IDENTIFY,
        groups={"company": "Acme"},
        group_properties={"$set": {"size": 3}},
    )
    yield Event(
        event_type=REVENUE,
        event_properties={"$price": 9.5, "$quantity": 1, "$revenue": 9.5},
        user_id=USER,
    )


class PluginContract:
    """Subclass it under a name that begins with ``Test`` and define ``make``."""

    @abstractmethod
    def make(self) -> Plugin | Callable[[Any], Any]:
        """Make a plugin that is not set up yet, alike each time."""

    def samples(self) -> Sequence[Event]:
        """Make the events to try; add those that your plugin is about."""
        return list(sample_events())

    # Helpers -----------------------------------------------------------------

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run one test on a loop of its own; none may take long."""
        asyncio.run(asyncio.wait_for(test, LONGEST))

    def made(self) -> Plugin:
        """Make the plugin that a client would make of it."""
        return as_plugin(self.make())

    def client(self, *plugins: Plugin | Callable[[Any], Any]) -> Amplitude:
        """Make a client of the plugin; it is not started yet."""
        return Amplitude("contract", plugins=plugins or (self.make(),))

    async def cut_off(self, working: "asyncio.Future[Any]", steps: int) -> None:
        """Cancel a task after so many steps, and wait for its end."""
        for _ in range(steps):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working])

    # What holds for every plugin ---------------------------------------------

    def test_it_has_one_name(self) -> None:
        """Another of its kind can take its place, and it can be removed by name."""
        first, second = self.made(), self.made()
        assert first is not second, "make() gave the same plugin twice: make another"
        assert first.name == second.name, "its name changes from one to the next"
        PluginType(first.plugin_type)

    def test_it_can_be_added_replaced_and_removed(self) -> None:
        """Also while events pass, and without having seen one."""

        async def test() -> None:
            with capture():
                async with self.client() as client:
                    name = self.made().name or default_name(self.made())
                    await client.track(self.samples()[0])
                    await client.add(self.make(), replace=True)
                    await client.track(self.samples()[0])
                    await client.remove(name)
                    await client.add(self.make())

        self.run(test())

    def test_two_clients_may_have_one_each(self) -> None:
        """What one has in common with another of its kind disturbs neither."""

        async def test() -> None:
            with capture():
                async with self.client() as one, self.client() as other:
                    for event in self.samples():
                        await one.track(event)
                        await other.track(event)
                async with self.client() as again:
                    await again.track(self.samples()[0])

        self.run(test())

    def test_it_takes_every_event(self) -> None:
        """It raises for none, whatever is in it, and answers with an event or None."""

        async def test() -> None:
            plugin = self.made()
            with capture():
                # It is called here, so that what it raises is not logged, but shown.
                async with self.client(lambda event: event) as client:
                    await call_hook(plugin.setup, client)
                    for event in self.samples():
                        answer = await call_hook(plugin.execute, event)
                        self.check_answer(event, answer)
                    await call_hook(plugin.teardown)

        self.run(test())

    def check_answer(self, event: Event, answer: object) -> None:
        """See that the answer to an event is one."""
        assert answer is None or isinstance(answer, Event), (
            f"{event.event_type!r}: execute returned {type(answer).__name__}, "
            "it must return an Event, or None to drop it"
        )

    def test_the_callers_event_stays_as_it_is(self) -> None:
        """It assigns to fields and replaces values; it changes none in place."""

        async def test() -> None:
            with capture():
                async with self.client() as client:
                    for event in self.samples():
                        before = copy.deepcopy(event)
                        await client.track(event)
                        assert event == before, f"{event.event_type!r} was changed"

        self.run(test())

    def test_the_server_takes_what_it_makes(self) -> None:
        """No event is rejected that would have been taken without it."""

        async def test() -> None:
            async with self.client() as client, self.client(lambda e: e) as plain:
                for event in self.samples():
                    with capture():
                        as_it_was = await self.outcome(await plain.track(event))
                        made = await self.outcome(await client.track(event))
                    assert made != DeliveryStatus.REJECTED or made == as_it_was, (
                        f"{event.event_type!r} is rejected after the plugin"
                    )

        self.run(test())

    async def outcome(self, delivery: Delivery) -> DeliveryStatus:
        """Wait for what became of an event."""
        return (await delivery).status

    def test_insert_ids_stay(self) -> None:
        """An event that a caller tracks twice counts once: its id is not replaced."""

        async def test() -> None:
            with capture() as events:
                async with self.client() as client:
                    for number, event in enumerate(self.samples()):
                        event.insert_id = f"given-{number}"
                        await client.track(event)
            replaced = {one.name for one in events if one.insert_id[:6] != "given-"}
            assert not replaced, f"the insert_id was replaced of {replaced}"

        self.run(test())

    def test_events_at_once_do_not_mix(self) -> None:
        """Each of many that pass at the same time comes out, or is dropped, once."""

        async def test() -> None:
            with capture() as events:
                async with self.client() as client:
                    deliveries = await asyncio.gather(
                        *(
                            client.track(
                                Event(
                                    event_type="Many",
                                    user_id=f"user-{number}",
                                    insert_id=f"many-{number}",
                                )
                            )
                            for number in range(AT_ONCE)
                        )
                    )
                    results = [await delivery for delivery in deliveries]
            passed = [result.insert_id for result in results if result.ok]
            assert len(set(passed)) == len(passed), "an event came out twice"
            assert {one.insert_id for one in events} == set(passed)
            dropped = {one.insert_id for one in events.dropped}
            assert len(passed) + len(dropped) == AT_ONCE, "an event was lost"

        self.run(test())

    def test_a_cancelled_verb_harms_no_later_one(self) -> None:
        """Who tracks may go away while the plugin works."""

        async def test() -> None:
            with capture():
                async with self.client() as client:
                    for event, steps in itertools.product(self.samples(), STEPS):
                        tracking = asyncio.ensure_future(client.track(event))
                        await self.cut_off(tracking, steps)
                    tracked = await client.track(self.samples()[0])
                    assert tracked.done

        self.run(test())


class DestinationContract(PluginContract):
    """As ``PluginContract``, for a ``DestinationPlugin``.

    Its ``execute`` is called: let ``make`` give it a place that a test may send to.
    """

    @abstractmethod
    def make(self) -> DestinationPlugin:
        """Make a destination that is not set up yet, alike each time."""

    def check_answer(self, event: Event, answer: object) -> None:
        """Whatever a destination returns, the event is delivered."""

    def test_it_can_be_flushed_and_shut_down_at_any_time(self) -> None:
        """Before the first event, twice, and by a client that has gone on."""

        async def test() -> None:
            plugin = self.made()
            assert isinstance(plugin, DestinationPlugin)
            async with self.client(lambda event: event) as client:
                await call_hook(plugin.setup, client)
                await call_hook(plugin.flush)
                for event in self.samples():
                    await call_hook(plugin.execute, event)
                await call_hook(plugin.flush)
                await call_hook(plugin.flush)
                await call_hook(plugin.shutdown)
                await call_hook(plugin.shutdown)
                await call_hook(plugin.teardown)

        self.run(test())

    def test_it_may_be_cut_off(self) -> None:
        """Cancelled in the middle of an event, as by a timeout, it takes the next."""

        async def test() -> None:
            plugin = self.made()
            assert isinstance(plugin, DestinationPlugin)
            async with self.client(lambda event: event) as client:
                await call_hook(plugin.setup, client)
                for event, steps in itertools.product(self.samples(), STEPS):
                    working = asyncio.ensure_future(call_hook(plugin.execute, event))
                    await self.cut_off(working, steps)
                    if not working.cancelled() and working.exception() is not None:
                        pytest.fail(f"cancelled, it raised {working.exception()!r}")
                await call_hook(plugin.execute, self.samples()[0])
                await call_hook(plugin.shutdown)
                await call_hook(plugin.teardown)

        self.run(test())
