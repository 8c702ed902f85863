"""Whatever takes the events of a process has them all, and none is sent."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    ConfigurationError,
    DestinationPlugin,
    DropReason,
    Event,
    Identify,
)
from amplitude_async.delivery.interception import CAPTURED, INTERCEPTION
from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.emulator import Emulator
from amplitude_async.mparticle import Batch, MParticle, MParticleDestination
from amplitude_async.mparticle.models.events import CustomEvent
from amplitude_async.storage import SQLiteStorage
from amplitude_async.sync import SyncAmplitude, SyncMParticle

__all__: list[str] = []

Connect = Callable[..., Amplitude]


class Taken:
    """Remembers what it is given, and in which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes | None, Outcome]] = []

    def add(
        self,
        destination: str,
        body: bytes | None,
        source: object,
        *,
        insert_id: str,
        outcome: Outcome,
    ) -> None:
        """Remember it."""
        assert isinstance(insert_id, str)
        assert source is not None
        self.seen.append((destination, body, outcome))

    @property
    def statuses(self) -> list[str]:
        """What became of each."""
        return [str(outcome.status) for _, _, outcome in self.seen]


@pytest.fixture
def taken() -> Iterator[Taken]:
    """Yield what takes every event of the test."""
    taker = Taken()
    INTERCEPTION.begin(taker)
    yield taker
    INTERCEPTION.end(taker)


def batch(name: str = "Paid") -> Batch:
    """Make a batch of one event."""
    return Batch(
        environment="development",
        user_identities={"customer_id": "user-1"},
        events=[CustomEvent(event_name=name, custom_event_type="other")],
    )


async def test_an_event_is_taken_when_its_verb_has_returned(
    taken: Taken, emulator: Emulator, connect: Connect
) -> None:
    """Without a flush; its handle, the callback and the account see a delivery."""
    told: list[Any] = []
    async with connect(callback=told.append) as client:
        delivery = await client.track("Paid", user_id="user-1")
        assert delivery.result is not None
        assert delivery.result.ok
        assert taken.seen[0][2] is CAPTURED
        assert b'"Paid"' in (taken.seen[0][1] or b"")
        await client.identify(Identify().set("plan", "pro"), user_id="user-1")
        client.track_nowait(Event(event_type="Seen", user_id="user-1"))
        assert len(taken.seen) == 3
        assert (await client.flush()).delivered == 3
    stats = client.stats
    assert stats.accepted == stats.delivered == 3
    assert stats.requests == 0
    assert len(told) == 3
    assert emulator.requests == []


async def test_what_is_not_sent_is_taken_with_its_reason(
    taken: Taken, connect: Connect
) -> None:
    """Rejected at the door, dropped by a plugin, opted out, closed."""
    async with connect() as client:
        await client.track("Paid", user_id="me")
        await client.add(lambda _: None)
        await client.track("Paid", user_id="user-1")
        client.opt_out = True
        await client.track("Paid", user_id="user-1")
    await client.track("Paid", user_id="user-1")

    assert taken.statuses == ["rejected", "dropped", "dropped", "dropped"]
    outcomes = [outcome for _, _, outcome in taken.seen]
    assert "user_id 'me' has 2 characters" in outcomes[0].message
    assert [outcome.reason for outcome in outcomes[1:]] == [
        DropReason.PLUGIN,
        DropReason.OPT_OUT,
        DropReason.CLOSED,
    ]


async def test_no_client_needs_a_key(taken: Taken) -> None:
    """Of either vendor; afterwards it sends nothing, and says why."""
    client, other = Amplitude(), MParticle(environment="development")
    async with client, other:
        await client.track("Paid", user_id="user-1")
        await other.send(batch())
        assert (await other.upload(batch())).ok
        assert len(await other.upload_many([batch(), batch()])) == 1
        assert taken.statuses == ["delivered"] * 5
        INTERCEPTION.end(taken)
        result = await (await client.track("Late", user_id="user-1"))
        assert result.status is DeliveryStatus.REJECTED
        assert "without a key inside capture()" in result.message
        assert not (await (await other.send(batch()))).ok
        with pytest.raises(ConfigurationError, match="without a key inside capture"):
            await other.upload(batch())
    assert client.stats.requests == other.stats.requests == 0
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        Amplitude()
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        MParticle()


async def test_each_destination_is_taken_for_itself(
    taken: Taken, connect: Connect
) -> None:
    """A plugin of the application's own gets nothing: it might send."""
    called: list[Event] = []

    class Own(DestinationPlugin):
        name = "own"

        async def execute(self, event: Event) -> None:
            called.append(event)

    mparticle = MParticle(environment="development")
    async with connect(plugins=[MParticleDestination(mparticle), Own()]) as client:
        await client.track("Paid", user_id="user-1")
        await client.flush()

    assert sorted(name for name, _, _ in taken.seen) == [
        "amplitude",
        "mparticle",
        "own",
    ]
    assert taken.statuses == ["delivered"] * 3
    assert called == []


async def test_clients_made_before_are_taken_as_well_and_go_on_afterwards(
    emulator: Emulator, connect: Connect
) -> None:
    """What waits for its request is held back meanwhile, and not lost."""
    async with connect(flush_interval=3600.0) as client:
        before = await client.track("Before", user_id="user-1")
        taker = Taken()
        INTERCEPTION.begin(taker)
        try:
            await client.track("Inside", user_id="user-1")
            await client.flush(0.05)
            assert not before.done
        finally:
            INTERCEPTION.end(taker)
        await client.track("After", user_id="user-1")
        assert (await before).ok
    assert [event["event_type"] for event in emulator.events] == ["Before", "After"]
    assert len(taker.seen) == 1
    stats = client.stats
    assert stats.accepted == stats.delivered == 3


async def test_a_storage_is_given_nothing(
    taken: Taken, connect: Connect, tmp_path: Any
) -> None:
    """What is captured in a test is not sent by the next run of the service."""
    async with connect(storage=SQLiteStorage(tmp_path)) as client:
        await client.track("Paid", user_id="user-1")
        assert client.stats.spool_events == 0
    assert len(taken.seen) == 1


def test_synchronous_clients_and_threads_are_taken_as_well(taken: Taken) -> None:
    """A verb without await returns when its event is taken."""
    with SyncAmplitude() as client, SyncMParticle() as other:

        def pay(number: int) -> None:
            client.track("Paid", user_id=f"user-{number}")
            assert any(
                f"user-{number}".encode() in (b or b"") for _, b, _ in taken.seen
            )

        threads = [threading.Thread(target=pay, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.send(batch())
        assert other.upload(batch()).ok
        assert len(taken.seen) == 22
        INTERCEPTION.end(taken)
        assert (
            "without a key" in client.track("Late", user_id="user-1").result(5).message
        )
    stats = client.stats
    assert stats.accepted == stats.delivered + stats.rejected == 21


async def test_captures_may_overlap(connect: Connect) -> None:
    """Each takes every event, and one that ends ends no other."""
    first, second = Taken(), Taken()
    async with connect() as client:
        INTERCEPTION.begin(first)
        INTERCEPTION.begin(second)
        await client.track("Both", user_id="user-1")
        INTERCEPTION.end(first)
        await client.track("One", user_id="user-1")
        INTERCEPTION.end(second)
    assert (len(first.seen), len(second.seen)) == (1, 2)
    assert not INTERCEPTION.capturing


async def test_a_loop_that_is_captured_gives_others_turns(
    taken: Taken, connect: Connect
) -> None:
    """At least once in a hundred events, as at any door."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.ensure_future(other())
    async with connect() as client:
        turns = 0
        for _ in range(1_000):
            await client.track("Paid", user_id="user-1")
        assert turns >= 9
    task.cancel()
    assert len(taken.seen) == 1_000
