"""An outage that memory cannot hold lies on the disk, and all of it is delivered."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

EVENTS = 50_000
USERS = 50
CAPACITY = 1_000
# More than one of these events takes, and less than two.
LARGEST = 400


@pytest.mark.long
async def test_an_outage_of_many_events_is_survived(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """Memory stays bounded, everything arrives, each user's events in their order."""
    emulator.faults.add(Fault(503, count=None))
    # Other tests kill processes in the middle of their writes: a disk may be slow.
    client = connect(
        max_storage_capacity=CAPACITY, retry_max_interval=0.02, overflow_timeout=60.0
    )
    highest = 0

    async def track(user: int) -> None:
        nonlocal highest
        for number in range(EVENTS // USERS):
            await client.track(
                "e", user_id=f"user-{user}", event_properties={"n": number}
            )
            highest = max(highest, client.stats.queue_bytes)

    await asyncio.gather(*map(track, range(USERS)))
    assert client.stats.pending == EVENTS
    emulator.faults.clear()
    flushing = asyncio.ensure_future(client.flush(None))
    refilled = 0
    while not flushing.done():
        await asyncio.sleep(0.001)
        refilled = max(refilled, client.stats.queue_bytes)
    stats = await flushing

    assert (stats.delivered, stats.pending, stats.dropped) == (EVENTS, 0, 0)
    assert highest <= CAPACITY * LARGEST
    assert refilled <= CAPACITY * LARGEST
    order: dict[str, list[Any]] = defaultdict(list)
    for event in emulator.events:
        order[event["user_id"]].append(event["event_properties"]["n"])
    assert len(order) == USERS
    assert all(found == list(range(EVENTS // USERS)) for found in order.values())


async def test_order_holds_while_the_server_comes_and_goes(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """New events of a user wait behind those of his that lie on the disk."""
    client = connect(max_storage_capacity=20)
    for number in range(600):
        if number % 100 == 0:
            emulator.faults.add(Fault(503, count=5))
        await client.track(
            "e", user_id=f"user-{number % 3}", event_properties={"n": number}
        )
    stats = await client.flush(None)

    assert stats.delivered == 600
    for user in range(3):
        numbers = [
            event["event_properties"]["n"]
            for event in emulator.events
            if event["user_id"] == f"user-{user}"
        ]
        assert numbers == list(range(user, 600, 3))


async def test_what_expires_on_the_disk_is_given_up(
    emulator: Emulator, connect: Callable[..., Amplitude], tmp_path: Any
) -> None:
    """An age limit holds for events that were never in memory."""
    emulator.faults.add(Fault(503, count=None))
    storage = SQLiteStorage(tmp_path / "spool", max_age=1.0)
    client = connect(storage=storage, max_storage_capacity=2, max_event_age=0.05)
    for _ in range(20):
        await client.track("e", user_id="user-1")
    stats = await client.flush(5.0)

    assert stats.dropped_by_reason == {"expired": 20}
    await client.shutdown()
    assert await storage.size() == 0


async def test_dead_letters_say_why_and_when(
    emulator: Emulator, connect: Callable[..., Amplitude], tmp_path: Any
) -> None:
    """Events that the server rejected are kept, the newest of them."""
    storage = SQLiteStorage(tmp_path / "spool", dead_letters=3)
    client = connect(storage=storage)
    silenced = Fault(
        400,
        body=lambda request: {
            "code": 400,
            "error": "Request missing required field",
            "events_with_missing_fields": {"city": list(range(len(request.events)))},
        },
        count=None,
    )
    emulator.faults.add(silenced)
    for number in range(5):
        await client.track("e", user_id="user-1", event_properties={"n": number})
    await client.flush(5.0)
    await client.flush(5.0)
    assert client.stats.rejected == 5
    await client.purge()  # which waits for what is being written to the disk
    letters = await storage.list_dead_letters()

    bodies = [json.loads(one.record.body) for one in letters]
    assert [body["event_properties"]["n"] for body in bodies] == [2, 3, 4]
    assert {one.code for one in letters} == {400}
    assert all("city" in one.message for one in letters)
    assert all(one.rejected_at >= one.record.accepted_at for one in letters)
