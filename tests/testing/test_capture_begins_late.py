"""What was accepted before a capture: it is sent afterwards, and is nobody's fault."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DestinationPlugin,
    EnrichmentPlugin,
    Event,
)
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import Batch, MParticle, UserIdentities
from amplitude_async.storage import SQLiteStorage
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import capture

__all__: list[str] = []


class Slow(EnrichmentPlugin):
    """Takes its time, so that events wait in a line."""

    name = "slow"

    async def execute(self, event: Event) -> Event:
        """Give the loop a turn or two."""
        await asyncio.sleep(0.01)
        return event


def names(emulator: Emulator) -> list[str]:
    """Name what was stored, in order of arrival."""
    return [event["event_type"] for event in emulator.events]


@pytest.mark.parametrize("retries", [None, 0, 2])
async def test_a_capture_is_no_failure(retries: int | None) -> None:
    """However few the user allows; nothing of it is counted or told."""
    limit: Any = {} if retries is None else {"flush_max_retries": retries}
    async with (
        Emulator() as emulator,
        Amplitude("test-key", server_url=emulator.httpapi_url, **limit) as client,
    ):
        before = await client.track("Before", user_id="user-1")
        with capture() as events:
            # Neither waits for what cannot happen.
            for timeout in (5.0, None):
                async with asyncio.timeout(2):
                    stats = await client.flush(timeout)
                assert (stats.pending, stats.requests, stats.retries) == (1, 0, 0)
                assert stats.last_error is None
            await client.track("Inside", user_id="user-1")
            assert client.health is Health.HEALTHY
        after = await client.track("After", user_id="user-1")
        results = [await handle for handle in (before, after)]

        assert [(one.ok, one.attempts) for one in results] == [(True, 1)] * 2
        assert names(emulator) == ["Before", "After"]
        assert [event.name for event in events] == ["Inside"]


async def test_what_waits_goes_when_the_last_capture_ends() -> None:
    """By itself: nobody has to track or flush."""
    async with (
        Emulator() as emulator,
        Amplitude("test-key", server_url=emulator.httpapi_url) as client,
    ):
        outer = capture()
        async with outer:
            with capture():
                before = await client.track("Before", user_id="user-1")
                assert before.done
            await client.flush()
        kept = await client.track("Kept", user_id="user-1")
        with capture():
            await client.flush()
            assert not kept.done
        assert (await emulator.wait_for("Kept", timeout=5.0))[0]["user_id"] == "user-1"


async def test_a_spool_is_neither_sent_nor_lost(tmp_path: Path) -> None:
    """Events of an earlier process wait in it as those of this one do."""
    async with Emulator() as emulator:
        dark = Amplitude(
            "test-key",
            server_url=emulator.httpapi_url,
            storage=SQLiteStorage(tmp_path),
            shutdown_timeout=0.0,
        )
        await dark.track("Old", user_id="user-1")
        await dark.shutdown()
        async with Amplitude(
            "test-key",
            server_url=emulator.httpapi_url,
            storage=SQLiteStorage(tmp_path),
        ) as client:
            with capture() as events:
                await client.flush()
                await client.track("Inside", user_id="user-1")
                assert len(events) == 1
                assert emulator.stats.requests == 0
            await client.track("After", user_id="user-1")
            await client.flush()
        assert names(emulator) == ["Old", "After"]


@pytest.mark.allow_blocking
@pytest.mark.parametrize("slow", [False, True])
def test_a_thread_has_tracked_before(*, slow: bool) -> None:
    """Its verb had returned, wherever the event was when the capture began."""
    plugins = [Slow()] if slow else []
    with Emulator() as emulator:
        url = emulator.httpapi_url
        with SyncAmplitude("test-key", server_url=url, plugins=plugins) as client:
            client.track("Start", user_id="user-1").result(5.0)
            for number in range(20):
                client.track(f"Before {number}", user_id="user-1")
            with capture() as events:
                client.track("Inside", user_id="user-1")
                assert [event.name for event in events] == ["Inside"]
            client.track("After", user_id="user-1")
            client.flush()

        before = [f"Before {number}" for number in range(20)]
        assert names(emulator) == ["Start", *before, "After"]


async def test_a_capture_ends_while_verbs_wait_for_a_slow_callback() -> None:
    """Each event is captured or sent, and none of them neither."""

    async def told(_: DeliveryResult) -> None:
        await asyncio.sleep(0.005)

    async with (
        Emulator() as emulator,
        Amplitude(
            "test-key",
            server_url=emulator.httpapi_url,
            callback=told,
            max_storage_capacity=3,
            flush_queue_size=2,
            max_batch_size=2,
        ) as client,
    ):
        with capture() as events:
            tracking = asyncio.gather(
                *(client.track(f"E{n}", user_id="user-1") for n in range(10))
            )
            await events.wait_for("E0", timeout=5)
        assert len(events) < 10
        for handle in await tracking:
            assert (await handle).ok
        captured = [event.name for event in events]
        assert sorted(captured + names(emulator)) == [f"E{n}" for n in range(10)]


async def test_who_waits_for_room_that_a_capture_keeps_is_captured() -> None:
    """Nothing that was there before leaves its place: no event is shed for that."""
    async with (
        Emulator() as emulator,
        Amplitude(
            "test-key",
            server_url=emulator.httpapi_url,
            max_storage_capacity=2,
            overflow_timeout=0.05,
        ) as client,
    ):
        before = [await client.track(f"B{n}", user_id="user-1") for n in range(2)]
        waits = asyncio.create_task(client.track("Waited", user_id="user-1"))
        await asyncio.sleep(0)
        with capture() as events:
            assert (await (await waits)).ok
            events.assert_no_rejections()
            events.assert_tracked("Waited", times=1)
            assert not any(one.done for one in before)
        await client.flush()
        assert names(emulator) == ["B0", "B1"]


async def test_one_capture_is_not_entered_twice() -> None:
    """Its inner end would be that of the outer one, and what follows be sent."""
    one = capture()
    with one as events:
        with pytest.raises(RuntimeError, match="for one inside of it"):
            one.__enter__()
        async with Amplitude() as client:
            await client.track("Inside", user_id="user-1")
    with one as again:
        assert again is events
        events.assert_tracked("Inside", times=1)


class Warehouse(DestinationPlugin):
    """Another place that events go to, one after another."""

    name = "warehouse"

    def __init__(self) -> None:
        self.got: list[str] = []

    async def execute(self, event: Event) -> None:
        """Keep the name of the event."""
        await asyncio.sleep(0)
        self.got.append(event.event_type)


async def test_a_destination_plugin_gets_nothing_while_a_capture_lasts() -> None:
    """Nor does who flushes wait for it; it has what came before afterwards."""
    warehouse = Warehouse()
    async with (
        Emulator() as emulator,
        Amplitude(
            "test-key", server_url=emulator.httpapi_url, plugins=[warehouse]
        ) as client,
    ):
        before = [f"Before {number}" for number in range(5)]
        for name in before:
            await client.track(name, user_id="user-1")
        with capture() as events:
            begun = len(warehouse.got) + 1  # one may be with it already
            await client.track("Inside", user_id="user-1")
            for timeout in (5.0, None):
                async with asyncio.timeout(2):
                    await client.flush(timeout)
            await asyncio.sleep(0.02)
            assert len(warehouse.got) <= begun
            events.assert_tracked("Inside", destination="warehouse")
        await client.track("After", user_id="user-1")
        await client.flush()
        assert warehouse.got == [*before, "After"]


async def test_an_upload_under_way_goes_on_afterwards() -> None:
    """A capture is no attempt of it, however few there are."""
    async with Emulator() as emulator:
        emulator.faults.add(Fault(status=503))
        async with MParticle(
            "test-key",
            "test-secret",
            base_url=emulator.mparticle_url,
            flush_max_retries=1,
            retry_base_interval=0.01,
        ) as client:
            user = UserIdentities(customer_id="user-1")
            batch = Batch(environment="development", user_identities=user)
            upload = asyncio.create_task(client.upload(batch))
            while emulator.stats.requests < 1:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.001)
            with capture() as events:
                await asyncio.sleep(0.04)
                assert not upload.done()
                assert emulator.stats.requests == 1
            result = await upload
            assert (result.ok, result.attempts, len(events)) == (True, 2, 0)
