"""A clock for all clients of a test: it stands still, and keeps nobody for ever."""

import asyncio
import logging

import pytest

from amplitude_async import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import SharedClock

__all__: list[str] = []

# Nobody listens there; the retry is due before the deadline, and so it is waited for.
NOBODY: ConfigFields = {
    "server_url": "http://127.0.0.1:9/2/httpapi",
    "retry_base_interval": 0.01,
    "shutdown_timeout": 0.04,
}


@pytest.fixture
def clock() -> SharedClock:
    """Make a clock that stands still for a moment only."""
    return SharedClock(patience=0.01)


async def test_a_test_that_forgets_to_move_time_ends(
    clock: SharedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client is shut down at its deadline, and a line says what was forgotten."""
    make = lambda: clock  # noqa: E731 - the very object ends it
    INTERCEPTION.begin_time(make)
    try:
        async with asyncio.timeout(20):
            client = Amplitude("key", **NOBODY)
            async with client:
                await client.track("Paid", user_id="user-1")
    finally:
        INTERCEPTION.end_time(make)
    stats = client.stats
    assert stats.accepted == stats.dropped == 1
    assert "stood still while a client waited" in caplog.text


async def test_time_stands_still_until_then(emulator: Emulator) -> None:
    """And what is due is due when time is moved, not before."""
    clock = SharedClock()
    make = lambda: clock  # noqa: E731 - the very object ends it
    INTERCEPTION.begin_time(make)
    try:
        client = Amplitude("key", server_url=emulator.httpapi_url)
    finally:
        INTERCEPTION.end_time(make)
    async with client:
        await client.track("Paid", user_id="user-1")
        await clock.settle()
        assert emulator.events == []
        await clock.advance(0.1)
        await emulator.wait_for("Paid", timeout=20)


def test_a_synchronous_test_ends_as_well(
    clock: SharedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said of plugins that block the loop: none does."""
    caplog.set_level(logging.INFO)
    make = lambda: clock  # noqa: E731 - the very object ends it
    INTERCEPTION.begin_time(make)
    try:
        with SyncAmplitude("key", **NOBODY) as client:
            client.track("Paid", user_id="user-1")
    finally:
        INTERCEPTION.end_time(make)
    assert client.stats.dropped == 1
    assert "blocks it" not in caplog.text
