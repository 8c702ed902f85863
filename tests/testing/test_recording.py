"""The recording client: real but for the network."""

import pytest

from amplitude_async import DeliveryStatus, Event
from amplitude_async.testing import RecordingAmplitude


async def test_what_was_tracked_can_be_looked_at() -> None:
    """Events appear as they look on the wire, in order."""
    async with RecordingAmplitude() as client:
        await client.track("Opened", user_id="user-1", event_properties={"n": 1})
        await client.track("Closed", user_id="user-1")
        stats = await client.flush()
        assert [event["event_type"] for event in client.events] == ["Opened", "Closed"]
        assert client.named("Opened")[0]["event_properties"] == {"n": 1}
        assert stats.delivered == 2
        assert stats.balanced


async def test_a_fitting_event_is_found() -> None:
    """The properties asked for must be there; others may be."""
    async with RecordingAmplitude() as client:
        properties = {"plan": "pro", "seats": 3}
        await client.track("Paid", user_id="user-1", event_properties=properties)
        await client.flush()
        found = client.assert_tracked("Paid", plan="pro")
        assert found["user_id"] == "user-1"


@pytest.mark.parametrize("plan", [None, "free"])
async def test_a_missing_event_is_told_beside_what_was_tracked(
    plan: str | None,
) -> None:
    """The message of the failure shows what there is."""
    async with RecordingAmplitude() as client:
        if plan:
            properties = {"plan": plan}
            await client.track("Paid", user_id="user-1", event_properties=properties)
        await client.flush()
        with pytest.raises(AssertionError, match="free" if plan else "none"):
            client.assert_tracked("Paid", plan="pro")


async def test_everything_but_the_network_is_real() -> None:
    """Plugins run and bad events are rejected."""

    async def upper(event: Event) -> Event:
        event.event_type = event.event_type.upper()
        return event

    async with RecordingAmplitude(plugins=[upper]) as client:
        await client.track("loud", user_id="user-1")
        bad = await client.track("nobody")
        await client.flush()
        assert client.named("LOUD")
        assert bad.result is not None
        assert bad.result.status is DeliveryStatus.REJECTED
        client.clear()
        assert client.events == []
