"""What the engine makes of a storage that is slow, full, broken or forgetful."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    Config,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    Overflow,
    QueueFullError,
)
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.outages import TRY_AGAIN_INTERVAL
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.settling import Settler
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.exceptions import StorageError, StorageFullError
from amplitude_async.storage import DeadLetter, Record, SQLiteStorage, Storage
from amplitude_async.testing import FakeClock, ScriptedTransport
from amplitude_async.testing.storage_contract import make_record
from tests.conftest import engine_of

__all__: list[str] = []

Connect = Callable[..., Amplitude]
DOWN = Fault(503, count=None)
SPILLED = 20


class Shelf(Storage):
    """A durable storage on a dict, with everything that can go wrong on demand."""

    durable = True

    def __init__(self) -> None:
        self.shelf: dict[int, Record] = {}
        self.broken: Exception | None = None
        self.unreadable = False
        self.refused = asyncio.Event()
        """Set once somebody wanted to read what cannot be read."""
        self.settled = asyncio.Event()
        """Set once something was taken off."""
        self.slow = asyncio.Event()
        self.slow.set()

    async def open(self, _: str, allot: Callable[[int], int]) -> int:
        """Take over what lies on the shelf under new ids."""
        first = allot(len(self.shelf))
        old = list(self.shelf.values())
        self.shelf = {first + i: r._replace(id=first + i) for i, r in enumerate(old)}
        return len(old)

    async def append(self, records: Sequence[Record]) -> None:
        """Put records on the shelf."""
        await self.slow.wait()
        if self.broken is not None:
            raise self.broken
        self.shelf |= {r.id: r for r in records}

    async def fetch(self, after: int, limit: int, _: int) -> list[Record]:
        """Read on."""
        if self.unreadable:
            self.refused.set()
            raise StorageError("the shelf is dark")
        return [r for n, r in sorted(self.shelf.items()) if n > after][:limit]

    async def settle(self, ids: Sequence[int]) -> None:
        """Take records off the shelf."""
        if isinstance(self.broken, StorageError):
            raise self.broken
        for number in ids:
            self.shelf.pop(number, None)
        self.settled.set()

    async def size(self) -> int:
        """Count the records."""
        return len(self.shelf)

    async def close(self) -> None:
        """Keep the shelf."""


def names(shelf: Shelf) -> list[str]:
    """List what lies on a shelf by the numbers of the events."""
    return [
        record.body.split(b'"n":"')[1].split(b'"')[0].decode()
        for record in shelf.shelf.values()
    ]


async def track(client: Amplitude, *numbers: int) -> list[Any]:
    """Track events of one user."""
    return [
        await client.track("e", user_id="user-1", event_properties={"n": str(number)})
        for number in numbers
    ]


# A storage that fails ---------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageError("the shelf fell"), OSError("oops")])
async def test_a_failure_is_loud_and_honest(
    error: Exception,
    emulator: Emulator,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events go on in memory; what is said to be stored is, and nothing else is."""
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf)
    kept = await track(client, 1, 2)
    assert client.stats.durable
    shelf.broken = error
    lost = await track(client, 3, 4)
    assert not client.stats.durable
    shelf.broken = None
    await client.shutdown(0.1)

    assert [d.result.status for d in kept] == [DeliveryStatus.STORED] * 2
    assert [d.result.reason for d in lost] == [DropReason.SHUTDOWN] * 2
    assert names(shelf) == ["1", "2"]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert sum("do not survive the process" in line for line in errors) == 1


async def test_a_failed_storage_does_not_hinder_delivery(
    emulator: Emulator, connect: Connect
) -> None:
    """What was stored before and what comes after is all delivered."""
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf, max_storage_capacity=4)
    await track(client, *range(10))
    shelf.broken = StorageError("the shelf fell")
    emulator.faults.clear()
    await track(client, 10)
    stats = await client.flush(5.0)

    assert (stats.accepted, stats.delivered) == (11, 11)
    # What could not be forgotten is forgotten once the shelf stands again.
    shelf.broken = None
    await client.shutdown()
    assert shelf.shelf == {}


async def test_memory_keeps_its_own_bounds_after_a_failure(
    emulator: Emulator, connect: Connect
) -> None:
    """Beyond the capacity the policy decides, as without a storage."""
    emulator.faults.add(Fault(500, delay=float("inf"), count=None))
    shelf = Shelf()
    shelf.broken = StorageError("the shelf fell")
    client = connect(storage=shelf, max_storage_capacity=2, overflow_timeout=0.01)
    deliveries = await track(client, 1, 2, 3)

    assert deliveries[2].result.reason is DropReason.OVERFLOW
    assert client.stats.pending == 2


async def test_a_storage_that_works_again_is_used_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a while one event finds out; what came in between was never stored."""
    clock, shelf = FakeClock(), Shelf()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    assert await journal.append(make_record(1))
    shelf.broken = StorageError("the shelf fell")
    assert not await journal.append(make_record(2))
    assert (journal.durable, journal.bypassed) == (False, True)
    assert not await journal.append(make_record(3))
    for number in (2, 3, 4):
        journal.keep_in_memory(number)

    await clock.advance(TRY_AGAIN_INTERVAL)
    assert (journal.durable, journal.bypassed) == (False, False)
    assert not await journal.append(make_record(4))
    assert journal.bypassed

    shelf.broken = None
    await clock.advance(TRY_AGAIN_INTERVAL)
    assert await journal.append(make_record(5))
    assert (journal.durable, journal.bypassed) == (True, False)
    assert [journal.holds(number) for number in (1, 2, 4, 5, 6)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert "the storage works again" in caplog.text
    journal.settle_soon([1, 3, 5])
    await journal.close()
    assert shelf.shelf == {}


class Stubborn(Shelf):
    """A shelf whose appends do not mind being cancelled."""

    async def append(self, records: Sequence[Record]) -> None:
        """Put records on the shelf, whoever gave up waiting."""
        while not self.slow.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.slow.wait()
        await super().append(records)


class InLine(Shelf):
    """A shelf that takes its calls one after the other, as a thread does."""

    def append(  # type: ignore[override] # as the contract allows
        self, records: Sequence[Record]
    ) -> "asyncio.Future[None]":
        """Put records on the shelf when it is their turn, even if nobody waits."""
        future = asyncio.get_running_loop().create_future()
        self.line = asyncio.ensure_future(self._put(records, future))
        return future

    async def _put(
        self, records: Sequence[Record], future: "asyncio.Future[None]"
    ) -> None:
        await super().append(records)
        if not future.done():
            future.set_result(None)

    async def settle(self, ids: Sequence[int]) -> None:
        """Take records off the shelf when it is their turn."""
        await self.line
        await super().settle(ids)


@pytest.mark.parametrize("kind", [Shelf, Stubborn, InLine])
async def test_an_append_that_stalls_is_waited_for_no_longer_than_for_room(
    kind: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    """The event goes on in memory; what is written late is not left behind."""
    clock, shelf = FakeClock(), kind()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    shelf.slow.clear()
    first = asyncio.ensure_future(journal.append(make_record(1)))
    await clock.advance(0.5)
    second = asyncio.ensure_future(journal.append(make_record(2)))
    await clock.advance(0.4)
    assert (first.done(), journal.durable) == (False, True)
    await clock.advance(0.2)
    assert (first.done(), second.done(), journal.durable) == (True, False, False)
    await clock.advance(0.5)
    assert (await first, await second) == (False, False)
    assert journal.bypassed
    assert caplog.text.count("takes longer than the overflow_timeout of 1 s") == 1

    shelf.slow.set()
    await clock.advance(TRY_AGAIN_INTERVAL)
    assert await journal.append(make_record(3))
    assert journal.durable
    await journal.settled()
    assert list(shelf.shelf) == [3]
    await journal.close()


async def test_a_copy_of_a_verb_that_waited_at_a_fork_ends_as_forked() -> None:
    """The parent has the event: the child neither sends nor counts it, nor hangs."""
    clock, shelf = FakeClock(), Shelf()
    config = Config(api_key="key", server_url="http://server.invalid/")
    engine = engine_of(config, ScriptedTransport(clock=clock), clock, storage=shelf)
    await engine.start()
    shelf.slow.clear()
    verb = asyncio.ensure_future(engine.intake.accept(make_record(0)))
    await clock.advance(0.5)
    engine.forget_parent()
    await clock.advance(1.0)
    result = (await verb).result

    assert result is not None
    assert result.reason is DropReason.FORK
    assert (engine.stats.accepted, engine.stats.dropped) == (0, 0)
    await engine.shutdown(0.0)


async def test_what_is_gone_from_the_storage_is_not_called_stored(
    connect: Connect, emulator: Emulator
) -> None:
    """The storage is asked before it is said, for what is in memory and what is not."""

    class Emptied(Shelf):
        async def confirm(self) -> None:
            raise StorageError("the shelf is gone")

    emulator.faults.add(DOWN)
    client = connect(storage=Emptied(), max_storage_capacity=10)
    deliveries = [await client.track("e", user_id=f"user-{n}") for n in range(SPILLED)]
    stats = await client.shutdown(0.0)

    assert (stats.stored, stats.dropped) == (0, SPILLED)
    assert {d.result and d.result.reason for d in deliveries} == {DropReason.SHUTDOWN}


async def test_what_is_in_memory_only_is_not_called_stored() -> None:
    """Not even where an append that began before it ends well after it."""
    clock, shelf = FakeClock(), InLine()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    shelf.slow.clear()
    first = asyncio.ensure_future(journal.append(make_record(1)))
    await clock.advance(0.5)
    second = asyncio.ensure_future(journal.append(make_record(2)))
    await clock.advance(0.6)
    assert not await first
    journal.keep_in_memory(3)
    shelf.slow.set()
    assert await second

    assert [journal.holds(number) for number in (2, 3)] == [True, False]
    assert journal.durable
    await journal.settled()
    assert list(shelf.shelf) == [2]
    await journal.close()


async def test_what_synchronous_code_tracks_does_not_pile_up_before_a_storage() -> None:
    """Nobody waits for it, but somebody must hold it."""
    clock, shelf = FakeClock(), Shelf()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    shelf.slow.clear()
    journal.append_soon(make_record(1))
    await clock.advance(2.0)
    journal.append_soon(make_record(2))
    assert (journal.durable, journal.bypassed) == (False, True)

    shelf.slow.set()
    await journal.written()
    assert list(shelf.shelf) == [1]
    assert [journal.holds(number) for number in (1, 2)] == [True, False]
    await journal.close()


async def test_a_cancelled_error_of_a_storage_is_an_error_like_any_other() -> None:
    """It cancels neither the verb nor the task that forgets records."""

    class Cancelling(Shelf):
        cancels = True

        async def append(self, records: Sequence[Record]) -> None:
            await super().append(records)
            if self.cancels:
                raise asyncio.CancelledError

        async def settle(self, ids: Sequence[int]) -> None:
            if self.cancels:
                raise asyncio.CancelledError
            await super().settle(ids)

    clock, shelf = FakeClock(), Cancelling()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    assert not await journal.append(make_record(1))
    assert not journal.durable
    await journal.settled()
    shelf.cancels = False
    journal.settle_soon([])
    await journal.settled()

    assert shelf.shelf == {}
    await journal.close()


async def test_a_stuck_storage_keeps_nothing_of_a_request_alive() -> None:
    """What a verb's context holds may go when the request is over."""

    class Request:
        pass

    variable: contextvars.ContextVar[Request] = contextvars.ContextVar("request")
    clock, shelf = FakeClock(), Shelf()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    shelf.slow.clear()
    request = Request()
    gone = weakref.ref(request)
    context = contextvars.copy_context()
    context.run(variable.set, request)
    context.run(journal.append_soon, make_record(1))
    del request, context
    gc.collect()

    assert gone() is None
    shelf.slow.set()
    await journal.written()
    await journal.close()


async def test_a_client_whose_disk_stalls_goes_on_and_says_so(
    emulator: Emulator, connect: Connect
) -> None:
    """`track` returns, the event is delivered, and `stats.durable` tells the truth."""
    shelf = Shelf()
    client = connect(storage=shelf, overflow_timeout=0.1)
    await client.start()
    assert client.stats.durable
    shelf.slow.clear()
    async with asyncio.timeout(5.0):
        [delivery] = await track(client, 1)
        assert not client.stats.durable
        assert (await delivery).ok
    shelf.slow.set()
    await client.shutdown()

    assert len(emulator.events) == 1
    assert shelf.shelf == {}


def reporter(clock: FakeClock) -> Reporter:
    """Make a reporter that logs where caplog looks."""
    return Reporter(logging.getLogger("amplitude_async"), clock, "test")


async def test_nothing_is_adopted_while_the_storage_is_broken() -> None:
    """Who cannot write cannot take over what others wrote."""
    clock, shelf = FakeClock(), Shelf()
    journal = Journal(shelf, "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)
    shelf.broken = StorageError("the shelf fell")
    await journal.append(make_record(1))

    assert await journal.adopt(lambda _: 1) == 0
    await journal.close()


async def test_a_storage_that_cannot_look_around_is_used_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A failed adoption is a warning and nothing more."""

    class Blind(Shelf):
        async def adopt(self, _: Callable[[int], int]) -> int:
            raise StorageError("it is too dark")

    clock = FakeClock()
    journal = Journal(Blind(), "here", reporter(clock), clock, patience=1.0)
    await journal.open(lambda _: 1, lambda _: None)

    assert await journal.adopt(lambda _: 1) == 0
    assert journal.durable
    assert "it is too dark" in caplog.text


@pytest.mark.parametrize("method", ["append", "fetch", "settle", "close"])
@pytest.mark.parametrize("fault", ["stalls", "raises", "cancels"])
async def test_no_fault_of_a_storage_holds_up_flush_or_shutdown(
    method: str,
    fault: str,
    emulator: Emulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deadlines are the waiter's own: what a storage does or does not do is its own."""

    async def broken(*_: object) -> Any:
        if fault == "stalls":
            await asyncio.Event().wait()
        raise asyncio.CancelledError if fault == "cancels" else ConnectionError("gone")

    monkeypatch.setattr("amplitude_async.delivery.closing.GRACE", 0.01)
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf, max_storage_capacity=4, overflow_timeout=0.01)
    await track(client, *range(8))
    setattr(shelf, method, broken)
    began = asyncio.get_running_loop().time()
    await client.flush(0.05)
    stats = await client.shutdown(0.05)

    # Generous for a busy machine, and far below the seconds that a storage may take.
    assert asyncio.get_running_loop().time() - began < 3.0
    assert stats.balanced
    assert stats.pending == 0


# A storage that is full -------------------------------------------------------------


async def test_a_full_storage_sheds(emulator: Emulator, connect: Connect) -> None:
    """Its limits are limits: the event is DROPPED, and the storage goes on."""
    shelf = Shelf()
    client = connect(storage=shelf)
    shelf.broken = StorageFullError("the shelf is full")
    (delivery,) = await track(client, 1)

    assert delivery.result.reason is DropReason.OVERFLOW
    assert "the storage has reached its own limit" in delivery.result.message
    assert client.stats.durable
    shelf.broken = None
    (delivery,) = await track(client, 2)
    assert (await delivery).ok


async def test_a_full_storage_raises_where_that_is_wanted(
    emulator: Emulator, connect: Connect
) -> None:
    """With Overflow.RAISE nothing was accepted."""
    shelf = Shelf()
    client = connect(storage=shelf, overflow=Overflow.RAISE)
    shelf.broken = StorageFullError("the shelf is full")
    with pytest.raises(QueueFullError, match="the storage has reached its own limit"):
        await track(client, 1)

    assert client.stats.accepted == 0


# Verbs that end otherwise -----------------------------------------------------------


async def test_a_cancelled_verb_accepted_nothing(
    emulator: Emulator, connect: Connect
) -> None:
    """What it had appended is undone, whether it was written or not."""
    shelf = Shelf()
    client = connect(storage=shelf)
    await client.start()
    shelf.slow.clear()
    tasks = [asyncio.ensure_future(track(client, number)) for number in (1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    shelf.slow.set()
    await tasks[1]
    stats = await client.flush(5.0)

    assert (stats.accepted, stats.delivered) == (1, 1)
    assert [e["event_properties"]["n"] for e in emulator.events] == ["2"]


async def test_cancelling_many_verbs_of_a_real_spool(
    emulator: Emulator, connect: Connect
) -> None:
    """However they end, only accepted events are sent, each once."""
    emulator.faults.add(DOWN)
    client = connect(max_storage_capacity=10)
    await client.start()
    tasks = [asyncio.ensure_future(track(client, number)) for number in range(300)]
    for turn in range(300):
        if turn % 3 == 0:
            tasks[turn].cancel()
        if turn % 50 == 0:
            await asyncio.sleep(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    accepted = {str(n) for n, end in enumerate(ended) if isinstance(end, list)}
    emulator.faults.clear()
    stats = await client.flush(None)

    assert len(accepted) == stats.accepted == stats.delivered > 100
    assert {e["event_properties"]["n"] for e in emulator.events} == accepted


async def test_a_flush_waits_for_all_that_was_accepted(
    emulator: Emulator, connect: Connect
) -> None:
    """Events whose append ends later, or never, neither shorten nor prolong it."""
    shelf = Shelf()
    client = connect(storage=shelf)
    await track(client, 1)
    shelf.slow.clear()
    late = asyncio.ensure_future(track(client, 2))
    gone = asyncio.ensure_future(track(client, 3))
    await asyncio.sleep(0)
    flushing = asyncio.ensure_future(client.flush(5.0))
    await asyncio.sleep(0)
    gone.cancel()
    shelf.slow.set()
    await late
    stats = await asyncio.wait_for(flushing, 2.0)

    assert (stats.accepted, stats.delivered) == (2, 2)
    with contextlib.suppress(asyncio.CancelledError):
        await gone


async def test_shutting_down_while_verbs_are_at_it(
    emulator: Emulator, connect: Connect
) -> None:
    """What is being stored when the client ends is told so, and is not stored."""
    shelf = Shelf()
    client = connect(storage=shelf)
    await track(client, 1)
    shelf.slow.clear()
    late = asyncio.ensure_future(track(client, 2))
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(client.shutdown(0.2))
    await asyncio.sleep(0)
    # The other event is through: the end has come to those that are being stored.
    await asyncio.wait_for(shelf.settled.wait(), 5.0)
    shelf.slow.set()
    (delivery,) = await late
    stats = await ending

    assert delivery.result.reason is DropReason.CLOSED
    assert (stats.delivered, stats.pending) == (1, 0)
    assert shelf.shelf == {}


# track_nowait -----------------------------------------------------------------------


async def test_what_synchronous_code_tracks_is_stored_soon(
    emulator: Emulator, connect: Connect
) -> None:
    """It promises no durability, and is STORED all the same at the end."""
    emulator.faults.add(DOWN)
    client = connect()
    await client.start()
    deliveries = [client.track_nowait("e", user_id="user-1") for _ in range(5)]
    await track(client, 5)
    await client.shutdown(0.1)
    assert {d.result and d.result.status for d in deliveries} == {DeliveryStatus.STORED}

    emulator.faults.clear()
    client = connect()
    await client.start()
    stats = await client.flush(5.0)
    assert (stats.recovered, stats.delivered) == (6, 6)


@pytest.mark.parametrize(
    "error", [StorageError("the shelf fell"), StorageFullError("the shelf is full")]
)
async def test_what_could_not_be_stored_soon_is_not_called_so(
    error: StorageError, emulator: Emulator, connect: Connect
) -> None:
    """At the end it is DROPPED, as it would be without a storage."""
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf)
    await client.start()
    shelf.broken = error
    delivery = client.track_nowait("e", user_id="user-1")
    await client.shutdown(0.05)

    assert delivery.result is not None
    assert delivery.result.reason is DropReason.SHUTDOWN


async def test_a_full_spool_takes_what_synchronous_code_tracks_in_memory(
    emulator: Emulator, tmp_path: Path, connect: Connect
) -> None:
    """A limit of the spool is no reason to lose what promised nothing."""
    client = connect(storage=SQLiteStorage(tmp_path / "small", max_events=1))
    await client.start()
    for _ in range(3):
        client.track_nowait("e", user_id="user-1")
    stats = await client.flush(5.0)

    assert stats.delivered == 3
    assert stats.durable


async def test_a_spill_is_not_mixed_up_with_what_is_in_memory(
    emulator: Emulator, connect: Connect
) -> None:
    """Records that memory has already are passed over when the spill is read."""
    emulator.faults.add(DOWN)
    client = connect(max_storage_capacity=4, flush_queue_size=2)
    await client.start()
    for number in range(12):
        if number % 3 == 0:
            with contextlib.suppress(QueueFullError):
                client.track_nowait("e", user_id=f"user-{number}")
        else:
            await track(client, number)
    emulator.faults.clear()
    stats = await client.flush(None)

    assert stats.accepted == stats.delivered + stats.dropped
    assert len(emulator.events) == stats.delivered >= 8


# The end of a process ---------------------------------------------------------------


async def test_spilled_events_hear_that_they_are_stored(
    emulator: Emulator, connect: Connect
) -> None:
    """Handles, listeners and the callback, each event once, in memory or not."""
    emulator.faults.add(DOWN)
    results: list[DeliveryResult] = []
    listeners: list[Any] = []
    client = connect(callback=results.append, max_storage_capacity=4)
    deliveries = await track(client, *range(SPILLED))
    for delivery in deliveries:
        delivery.add_done_callback(listeners.append)
    waiting = asyncio.ensure_future(wait_for(deliveries[-1]))
    stats = await client.shutdown(1.0)

    assert (stats.stored, stats.pending) == (SPILLED, 0)
    assert {d.result.status for d in deliveries} == {DeliveryStatus.STORED}
    assert (await waiting).status is DeliveryStatus.STORED
    calls = Counter(result.insert_id for result in results)
    assert len(calls) == SPILLED
    assert set(calls.values()) == {1}
    assert {result.event.event_properties["n"] for result in results} == {
        str(number) for number in range(SPILLED)
    }
    assert len(listeners) == SPILLED


async def wait_for(delivery: Delivery) -> DeliveryResult:
    """Await a handle, as a coroutine that a task can run."""
    return await delivery


async def test_a_slow_callback_hears_what_time_allows(
    emulator: Emulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The deadline ends the calls, and a line says how many are missing."""
    emulator.faults.add(DOWN)

    async def never(_: DeliveryResult) -> None:
        await asyncio.Event().wait()

    client = connect(callback=never, max_storage_capacity=4)
    deliveries = await track(client, *range(SPILLED))
    await client.shutdown(0.05)

    assert {d.result.status for d in deliveries} == {DeliveryStatus.STORED}
    assert "before the callback had seen every" in caplog.text


async def test_a_storage_that_cannot_be_read_at_the_end(
    emulator: Emulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The handles hear all the same; a line says what the callback missed."""
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf, callback=lambda _: None, max_storage_capacity=4)
    deliveries = await track(client, *range(SPILLED))
    shelf.unreadable = True
    await client.shutdown(0.2)

    assert {d.result.status for d in deliveries} == {DeliveryStatus.STORED}
    assert "the shelf is dark" in caplog.text
    assert "had seen every stored event" in caplog.text


# Reading on -------------------------------------------------------------------------


async def test_a_storage_that_cannot_be_read_for_a_while(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, without anything else happening."""
    monkeypatch.setattr("amplitude_async.delivery.reader.REREAD_INTERVAL", 0.01)
    shelf = Shelf()
    shelf.shelf = {n: make_record(n) for n in range(1, 4)}
    shelf.unreadable = True
    client = connect(storage=shelf)
    await client.start()
    await asyncio.wait_for(shelf.refused.wait(), 5.0)
    assert client.stats.pending == 3
    shelf.unreadable = False
    stats = await client.flush(5.0)

    assert (stats.pending, stats.delivered) == (0, 3)


async def test_events_that_a_storage_lost_are_written_off(
    emulator: Emulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """They are DROPPED internal, loudly, and block nothing behind them."""
    emulator.faults.add(DOWN)
    shelf = Shelf()
    client = connect(storage=shelf, max_storage_capacity=4)
    await track(client, *range(10))
    shelf.shelf = {}
    emulator.faults.clear()
    assert (await client.flush(5.0)).pending == 0
    (delivery,) = await track(client, 10)

    assert (await delivery).ok
    assert client.stats.dropped_by_reason[DropReason.INTERNAL] >= 1
    assert "does not find" in caplog.text


async def test_a_damaged_record_is_dropped_and_blocks_nothing(
    emulator: Emulator, connect: Connect
) -> None:
    """DROPPED internal, and not deleted; those beside it are delivered."""
    shelf = Shelf()
    shelf.shelf = {n: make_record(n) for n in range(1, 4)}
    shelf.shelf[2] = shelf.shelf[2]._replace(body=b"")
    client = connect(storage=shelf)
    await client.start()
    stats = await client.flush(5.0)

    assert (stats.recovered, stats.delivered) == (3, 2)
    assert stats.dropped_by_reason == {DropReason.INTERNAL: 1}
    await client.shutdown()
    assert [record.insert_id for record in shelf.shelf.values()] == ["i-2"]


async def test_a_batch_that_we_fail_at_stays_on_the_disk(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DROPPED internal after three faults of ours at each start; one day it is sent.

    Three times a start and no more: it neither keeps us busy nor holds up the others.
    """
    faults: list[None] = []
    frame = AmplitudeEndpoint.frame

    def fail(
        self: AmplitudeEndpoint, bodies: Sequence[bytes], *args: Any, **others: Any
    ) -> bytes:
        if any(b"poison" in body for body in bodies):
            faults.append(None)
            raise RuntimeError("a fault of ours")
        return frame(self, bodies, *args, **others)

    with monkeypatch.context() as patched:
        patched.setattr(AmplitudeEndpoint, "frame", fail)
        async with connect() as client:
            result = await (await client.track("poison", user_id="user-1"))
            assert result.reason is DropReason.INTERNAL
            await client.track("e-0", user_id="user-1")
            assert (await client.flush()).delivered == 1
        for start in (1, 2):
            async with connect() as client:
                assert client.stats.recovered == 1
                stats = await client.flush()
                assert stats.dropped_by_reason == {DropReason.INTERNAL: 1}
                await client.track(f"e-{start}", user_id="user-1")
                assert (await client.flush()).delivered == 1
            assert client.stats.balanced
    assert len(faults) == 9

    async with connect() as client:
        assert (await client.flush()).delivered == 1
    names = [event["event_type"] for event in emulator.events]
    assert names == ["e-0", "e-1", "e-2", "poison"]
    async with connect() as client:
        assert client.stats.recovered == 0


# Purging ----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["user-1", None])
async def test_a_purge_reaches_what_is_only_in_the_storage(
    user: str | None, emulator: Emulator, connect: Connect
) -> None:
    """Waiting events of a user are PURGED wherever they lie, and never sent."""
    emulator.faults.add(DOWN)
    client = connect(max_storage_capacity=4)
    for number in range(30):
        await client.track("e", user_id=f"user-{number % 2}")
    count = await client.purge(user)
    emulator.faults.clear()
    stats = await client.flush(None)

    # As many as memory holds may have been in flight at that moment.
    assert stats.dropped_by_reason == {DropReason.PURGED: count}
    assert count >= (11 if user else 26)
    assert stats.delivered == 30 - count
    left = connect()
    await client.shutdown()
    await left.start()
    assert left.stats.recovered == 0


# Another loop -----------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [4, 20_000], ids=["spilled", "in memory"])
def test_a_client_goes_on_with_its_spool_on_another_loop(
    capacity: int, tmp_path: Path
) -> None:
    """What one loop accepted the next one sends; what was cut off was not accepted."""

    async def first() -> Amplitude:
        # Nothing listens there: events wait.
        client = Amplitude(
            "key",
            server_url="http://127.0.0.1:9/",
            storage=SQLiteStorage(tmp_path),
            max_storage_capacity=capacity,
            trust_env=False,
        )
        await track(client, *range(10))
        for number in range(5):
            asyncio.ensure_future(track(client, 100 + number))  # noqa: RUF006 - cut off
        await asyncio.sleep(0)
        return client

    async def second(client: Amplitude) -> None:
        await track(client, 10)
        stats = await client.shutdown(0.05)
        assert stats.balanced
        assert (stats.accepted, stats.stored) == (11, 11)

    async def third() -> None:
        storage = SQLiteStorage(tmp_path)
        engine_ids = iter(range(1, 10**6, 1_000))
        destination = client._endpoint.fingerprint()  # noqa: SLF001 - its own label
        assert await storage.open(destination, lambda _: next(engine_ids)) == 11
        await storage.close()

    client = asyncio.run(first())
    asyncio.run(second(client))
    asyncio.run(third())


async def test_a_settling_that_is_cut_off_forgets_nothing_of_it() -> None:
    """What was rejected is kept and forgotten with the next, like all others."""

    class Slow(Shelf):
        dead_letters = 10

        def __init__(self) -> None:
            super().__init__()
            self.told: list[object] = []

        async def settle(self, ids: Sequence[int]) -> None:
            await self.slow.wait()
            self.told.append(list(ids))

        async def bury(self, letters: Sequence[DeadLetter]) -> None:
            self.told.append([letter.record.id for letter in letters])

    shelf, clock = Slow(), FakeClock()
    reporter = Reporter(logging.getLogger("amplitude_async"), clock, "test")
    settler = Settler(shelf, reporter, clock)
    shelf.slow.clear()
    settler.bury([DeadLetter(make_record(2), 400, "bad", 0.0)])
    settler.settle([1, 2, 3])
    for _ in range(3):  # its task has begun, and so has the storage's
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)

    shelf.slow.set()
    settler.settle([4])
    await settler.wait(5.0)
    assert shelf.told == [[1, 3, 4], [2], [2]]
