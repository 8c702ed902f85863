"""What real clients hand over while they are captured, seen through the assertions."""

import asyncio
from collections.abc import Iterator

import pytest

from amplitude_async import (
    Amplitude,
    DestinationPlugin,
    DropReason,
    Event,
    Identify,
    Plugin,
    Revenue,
)
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    MParticle,
    MParticleDestination,
    UserIdentities,
)
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import CapturedEvents

__all__: list[str] = []


class Warehouse(DestinationPlugin):
    """Another place that events go to."""

    name = "warehouse"

    async def execute(self, event: Event) -> None:
        """Keep the event."""


@pytest.fixture
def taken(events: CapturedEvents) -> Iterator[CapturedEvents]:
    """Return a collection that every client's events go into."""
    INTERCEPTION.begin(events)
    yield events
    INTERCEPTION.end(events)


async def test_one_event_at_three_destinations_is_one(taken: CapturedEvents) -> None:
    """Whatever verb it came from; what is shown is Amplitude's own view."""
    mparticle = MParticle("key-key-key", "secret-secret", environment="development")
    plugins: list[Plugin] = [MParticleDestination(mparticle), Warehouse()]
    async with Amplitude("key-key-key", plugins=plugins) as client:
        await client.track("Paid", user_id="user-1", event_properties={"total": 9.5})
        await client.revenue(Revenue(price=2, quantity=3), user_id="user-1")
        await client.identify(Identify().set("plan", "pro"), user_id="user-1")
        await client.group_identify("company", "acme", Identify().set("seats", 5))

        found = taken.assert_tracked("Paid", times=1, user_id="user-1", total=9.5)
        assert found.destination == "amplitude"
        assert await taken.wait_for("Paid", 5) is found
        sale = taken.assert_revenue(6, times=1, user_id="user-1")
        assert sale["event_type"] == "revenue_amount"
        taken.assert_identified("user-1", set={"plan": "pro"}, times=1)
        taken.assert_group_identified("company", "acme", set={"seats": 5}, times=1)
        for destination in ("amplitude", "mparticle", "warehouse"):
            taken.assert_tracked("Paid", times=1, destination=destination)
            taken.assert_revenue(6, times=1, destination=destination)
    taken.assert_no_rejections()
    # mParticle has no groups, and nobody lost what was left out on purpose.
    assert [event.reason for event in taken.dropped] == [DropReason.PLUGIN]


async def test_what_the_door_refuses_is_told(taken: CapturedEvents) -> None:
    """With the fields where they could be read, and the reason in any case."""
    async with Amplitude("key-key-key") as client:
        await client.track("Paid", user_id="u", event_properties={"total": 9.5})
        await client.track("Left", user_id="user-1", time="noon")  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match="but REJECTED: user_id 'u' has 1") as paid:
        taken.assert_tracked("Paid", total=9.5)
    assert "rejected 'Left': time='noon'" in str(paid.value)
    with pytest.raises(AssertionError, match="but REJECTED: time='noon'"):
        taken.assert_tracked("Left", user_id="user-1")
    with pytest.raises(AssertionError, match="2 rejected"):
        taken.assert_no_rejections()


async def test_what_comes_too_late_is_no_success(taken: CapturedEvents) -> None:
    """An event after the shutdown is lost, and nobody asked for that."""
    async with Amplitude("key-key-key") as client:
        await client.track("Paid", user_id="user-1")
    await client.track("Late", user_id="user-1")

    with pytest.raises(AssertionError, match=r"dropped \(closed\) 'Late'"):
        taken.assert_no_rejections()


async def test_batches_are_asked_for_alike(taken: CapturedEvents) -> None:
    """Those that somebody sends without Amplitude."""
    async with MParticle("key-key-key", "secret-secret") as client:
        await client.send(
            Batch(
                environment="development",
                user_identities=UserIdentities(customer_id="user-1"),
                user_attributes={"plan": "pro"},
                events=[
                    CustomEvent(event_name="Paid", custom_attributes={"total": 9.5}),
                    CustomEvent(event_name="Left"),
                ],
            )
        )

    taken.assert_tracked("Paid", times=1, user_id="user-1", total=9.5)
    taken.assert_identified("user-1", set={"plan": "pro"}, times=1)
    assert [event.name for event in taken.of_user("user-1")] == ["Paid", "Left"]


@pytest.mark.allow_blocking
def test_a_thread_waits_for_what_a_loop_tracks(taken: CapturedEvents) -> None:
    """No flush, no loop of the test's own."""
    with SyncAmplitude("key-key-key") as client:
        client.track("Paid", user_id="user-1")
        found = taken.wait_for_sync("Paid", 20.0, user_id="user-1")

    assert found["event_type"] == "Paid"


async def test_handlers_at_once_give_one_snapshot(taken: CapturedEvents) -> None:
    """Each user's events in their order, the users sorted."""
    async with Amplitude("key-key-key") as client:

        async def handle(user: str) -> None:
            for step in range(3):
                await client.track(f"Step {step}", user_id=user)
                await asyncio.sleep(0)

        await asyncio.gather(*(handle(f"user-{n}") for n in (3, 1, 2)))

    rows = taken.snapshot()
    assert [(row["user_id"], row["event_type"]) for row in rows] == [
        (f"user-{n}", f"Step {step}") for n in (1, 2, 3) for step in range(3)
    ]
    assert {row["insert_id"] for row in rows} == {"<insert_id>"}
