"""`capture()`: a suite sees every event, and sends none."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from amplitude_async import Amplitude, bound
from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import capture

__all__: list[str] = []


async def fail(client: Amplitude, captured: capture) -> None:
    """Be a test that tracks, and fails."""
    async with captured:
        await client.track("Inside", user_id="user-1")
        raise ZeroDivisionError


async def test_both_ways_of_entering_are_alike() -> None:
    """In a plain test and in an asynchronous one."""
    async with capture() as events, Amplitude() as client:
        await client.track("Paid", user_id="user-1", event_properties={"total": 9.5})
        events.assert_tracked("Paid", user_id="user-1", total=9.5, times=1)
    with capture() as events:
        async with Amplitude() as client:
            await client.track("Seen", user_id="user-2")
        events.assert_tracked("Seen", user_id="user-2", times=1)


def test_a_plain_test_captures_too() -> None:
    """Of the client for threads, which runs its loop elsewhere."""
    with capture() as events, SyncAmplitude() as client:
        with bound(user_id="user-2"):
            client.track("Seen")
        events.assert_tracked("Seen", user_id="user-2", times=1)


async def test_a_recording_is_written_by_a_test_that_passes(tmp_path: Path) -> None:
    """With what is personal masked; one that fails leaves the old one."""
    path = tmp_path / "paid.ndjson"
    async with capture(record=path, mask=["coupon"]) as events, Amplitude() as client:
        properties = {"email": "a@example.org", "coupon": "c-1", "total": 9.5}
        await client.track("Paid", user_id="user-1", event_properties=properties)
    text = path.read_text(encoding="utf-8")
    assert "a@example.org" not in text
    assert "c-1" not in text
    assert "9.5" in text
    await asyncio.to_thread(events.assert_recorded, path, mask=["coupon"])

    async with Amplitude("key", opt_out=True) as client:
        with pytest.raises(ZeroDivisionError):
            await fail(client, capture(record=path))
    assert path.read_text(encoding="utf-8") == text


async def test_an_exception_ends_the_capture(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """What a failed test has captured is its own; the next one's events are sent."""
    async with connect() as client:
        with pytest.raises(ZeroDivisionError):
            await fail(client, capture())
        await client.track("After", user_id="user-1")
    assert [event["event_type"] for event in emulator.events] == ["After"]
