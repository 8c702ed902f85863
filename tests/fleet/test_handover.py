"""The way of a client's events into a log: each of them once, in order per identity."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amplitude_async import Amplitude, DeliveryStatus, Identify, Overflow, Revenue
from amplitude_async.exceptions import (
    AmplitudeError,
    ConfigurationError,
    LogError,
    LogFullError,
    LogUnreachableError,
    QueueFullError,
)
from amplitude_async.fleet.codec import partition_of
from amplitude_async.fleet.handover import LogHandover
from amplitude_async.fleet.log import Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.storage import SQLiteStorage
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock
from tests.conftest import examples
from tests.fleet.scene import (
    KEY,
    MemberClient,
    MoodyLog,
    contents,
    make_record,
    names_in,
    until,
)

__all__: list[str] = []

Account = Callable[..., Any]


async def opened(log: MemoryLog, destination: str = "amplitude") -> LogHandover:
    """Make the way of a client to a log."""
    handover = LogHandover(log, destination)
    await handover.open()
    return handover


async def numbers(log: MemoryLog) -> list[int]:
    """List the numbers of the events in a log, place by place, in order."""
    return [json.loads(record.body)["n"] for record in await contents(log)]


def paid() -> Batch:
    """Make an event of mParticle's."""
    event = CustomEvent(event_name="Paid", custom_event_type="transaction")
    return Batch(
        environment="development",
        user_identities={"customer_id": "user-12345"},
        events=[event],
    )


# One chunk, one answer -------------------------------------------------------


async def test_events_are_in_the_partition_of_their_identity() -> None:
    """Each chunk holds events of one partition, in the order they came in."""
    log = MoodyLog(partitions=4)
    handover = await opened(log)
    records = [make_record(n, f"user-{n % 7}") for n in range(1, 50)]

    assert (await handover.hand_over(records)).status == 200

    for chunk in log.published:
        assert chunk.place.destination == "amplitude"
    found = await contents(log)
    assert sorted(record.body for record in found) == sorted(r.body for r in records)
    for record in found:
        mine = [r.body for r in records if r.identity == record.identity]
        assert [r.body for r in found if r.identity == record.identity] == mine
    places = {chunk.place.partition for chunk in log.published}
    assert places == {partition_of(f"user-{n}", 4) for n in range(7)}


@pytest.mark.parametrize("mood", ["lost", "broken"])
async def test_what_is_in_doubt_is_published_again_as_it_was(mood: str) -> None:
    """However the events are cut then: same id, same bytes, and each event once."""
    log = MoodyLog([mood])
    handover = await opened(log)
    records = [make_record(n) for n in range(1, 6)]

    assert (await handover.hand_over(records)).status == 0
    for record in records:  # as a probe asks, one by one
        assert (await handover.hand_over([record])).status == 200
    assert (await handover.hand_over([make_record(6)])).status == 200

    assert await numbers(log) == [1, 2, 3, 4, 5, 6]
    first, again, last = log.published
    assert first == again
    assert last.events == 1


async def test_a_cancelled_publish_is_in_doubt() -> None:
    """The log may have had it: the events are not in it twice."""
    log = MoodyLog(["hang"])
    handover = await opened(log)
    records = [make_record(n) for n in range(1, 4)]
    task = asyncio.create_task(handover.hand_over(records))
    await until(lambda: log.published)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await handover.hand_over([*records[:2], make_record(9)])).status == 200
    assert (await handover.hand_over(records[2:])).status == 200

    assert await numbers(log) == [1, 2, 3, 9]


@pytest.mark.parametrize(
    ("error", "status"),
    [(LogFullError("full"), 507), (LogUnreachableError("gone"), 0)],
)
async def test_a_clear_no_is_no_doubt(error: Any, status: int) -> None:
    """What was surely not stored may be cut in another way at once."""
    log = MoodyLog()
    handover = await opened(log)
    log.refuse(error)
    records = [make_record(n) for n in range(1, 4)]
    response = await handover.hand_over(records)
    assert (response.status, response.sent) == (status, False)

    log.refuse(None)
    assert (await handover.hand_over(records[:1])).status == 200
    assert (await handover.hand_over(records[1:])).status == 200
    assert await numbers(log) == [1, 2, 3]


async def test_a_clear_no_to_what_is_in_doubt_leaves_it_in_doubt() -> None:
    """The earlier attempt may have stored it, so it keeps its id and its cut."""
    log = MoodyLog(["lost", "full", "gone", "full"])
    handover = await opened(log)
    records = [make_record(n) for n in range(1, 4)]
    statuses = [(await handover.hand_over(records[:k])).status for k in (3, 1, 2, 3)]
    assert statuses == [0, 507, 0, 507]

    assert (await handover.hand_over(records)).status == 200
    assert await numbers(log) == [1, 2, 3]
    assert len({chunk.id for chunk in log.published}) == 1


async def test_one_partition_that_fails_costs_the_others_nothing() -> None:
    """What went well elsewhere is not handed over a second time."""
    users = ["user-0", "user-1", "user-2", "user-3"]
    log = MoodyLog(partitions=4)
    failing = partition_of(users[0], 4)
    publish, failed = log.publish, False

    async def fail_once(chunk: Any) -> None:
        nonlocal failed
        if chunk.place.partition == failing and not failed:
            failed = True
            raise LogUnreachableError("gone")
        await publish(chunk)

    log.publish = fail_once  # type: ignore[method-assign]
    handover = await opened(log)
    records = [make_record(n, users[n % 4]) for n in range(1, 21)]
    assert (await handover.hand_over(records)).status == 0
    for start in range(0, 20, 3):
        piece = records[start : start + 3]
        assert (await handover.hand_over(piece)).status == 200

    assert sorted(await numbers(log)) == list(range(1, 21))


async def test_many_partitions_are_begun_a_few_at_a_time() -> None:
    """Others have their turns meanwhile, and one that hangs holds up no other."""
    log = MoodyLog(["ok", "hang"], partitions=500)
    handover = await opened(log)
    records = [make_record(n, f"user-{n}") for n in range(1_000)]
    task = asyncio.create_task(handover.hand_over(records))
    begun = most = 0
    while len(await contents(log)) < len(records):
        most = max(most, len(log.published) - begun)
        begun = len(log.published)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (await handover.hand_over(records)).status == 200
    assert sorted(await numbers(log)) == list(range(1_000))
    assert most < 200


async def test_a_chunk_in_doubt_that_has_become_too_large_loses_no_event() -> None:
    """A server whose limit was lowered: events go in smaller chunks, none is lost."""
    log = MoodyLog(["broken"])
    handover = await opened(log)
    records = [make_record(n) for n in range(1, 5)]
    assert (await handover.hand_over(records)).status == 0
    log.most = 2

    assert (await handover.hand_over(records)).status == 413
    assert (await handover.hand_over(records[:2])).status == 200
    assert (await handover.hand_over(records[2:])).status == 200
    assert await numbers(log) == [1, 2, 3, 4]


async def test_a_child_process_knows_nothing_of_its_parents_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A child numbers its events anew: theirs are other events, and are handed over."""
    log = MoodyLog(["lost"], partitions=1)
    handover = await opened(log)
    parents = [make_record(n) for n in range(1, 4)]
    assert (await handover.hand_over(parents)).status == 0
    assert (await handover.hand_over(parents[:1])).status == 200  # 2 and 3 are known

    monkeypatch.setattr(os, "getpid", lambda: 1)
    handover.abandon()
    children = [make_record(n, child=True) for n in range(1, 4)]
    assert (await handover.hand_over(children)).status == 200

    found = [json.loads(record.body).get("child") for record in await contents(log)]
    assert found == [None, None, None, True, True, True]


async def test_on_another_loop_what_was_in_doubt_stays_in_doubt() -> None:
    """The same client goes on with the same events: none is in the log twice."""
    log = MoodyLog(["lost"])
    handover = await opened(log)
    records = [make_record(n) for n in range(1, 4)]
    assert (await handover.hand_over(records)).status == 0
    handover.abandon()
    for record in records:
        assert (await handover.hand_over([record])).status == 200
    assert await numbers(log) == [1, 2, 3]


def test_what_a_closed_loop_was_publishing_is_in_doubt() -> None:
    """Nobody cancelled it, and the log may have had it: no event is there twice."""
    log = MoodyLog(["hang"])
    handover = LogHandover(log, "amplitude")
    records = [make_record(n) for n in range(1, 4)]
    old = asyncio.new_event_loop()
    task = old.create_task(handover.hand_over(records))
    old.run_until_complete(until(lambda: log._store.size))  # noqa: SLF001
    task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001
    old.close()

    async def go_on() -> list[int]:
        handover.abandon()  # as the engine does when it finds itself elsewhere
        for record in [records[1], records[0], records[2], make_record(4)]:
            assert (await handover.hand_over([record])).status == 200
        return await numbers(log)

    assert asyncio.run(go_on()) == [1, 2, 3, 4]


async def test_nothing_is_remembered_of_events_that_are_done() -> None:
    """A client that runs for months keeps no list of what it ever handed over."""
    log = MoodyLog(["lost", "broken", "ok", "lost", "lost"] * 40, partitions=4)
    handover = await opened(log)
    for start in range(1, 400, 20):
        records = [make_record(n, f"user-{n % 9}") for n in range(start, start + 20)]
        while (await handover.hand_over(records)).status != 200:
            pass
    assert len(await numbers(log)) == 400
    assert "0 events in doubt" in repr(handover)
    assert handover._known == set()  # noqa: SLF001 - memory has no other face


@pytest.mark.parametrize("overflow", Overflow)
async def test_nothing_is_remembered_of_events_that_were_given_up(
    overflow: Overflow, accounted: Account
) -> None:
    """An outage of any length takes no more memory than the events that wait."""
    log = MoodyLog(["broken"] * 2_000)
    options: Any = {"retry_base_interval": 0.0001, "retry_max_interval": 0.0001}
    client = accounted(
        Amplitude(
            handover=log,
            confirm=False,
            overflow=overflow,
            max_storage_capacity=50,
            **options,
        )
    )
    await client.start()
    handover = client._own._engine._site.handover  # noqa: SLF001
    for number in range(2_000):
        with suppress(QueueFullError):
            client.track_nowait(f"E{number}", user_id="user-1")
        if number % 20 == 0:
            await asyncio.sleep(0.001)
            assert len(handover._frozen) <= 50  # noqa: SLF001 - it has no other face
    await client.purge()
    await until(lambda: not client.stats.pending)
    assert not handover._frozen  # noqa: SLF001
    assert not handover._known  # noqa: SLF001


async def test_requests_that_share_a_chunk_in_doubt_leave_nothing_behind() -> None:
    """Two requests at once publish it again: both are right, and it is there once."""
    log = MoodyLog(["lost"])
    handover = await opened(log)
    records = [make_record(1, "a"), make_record(2, "b")]
    assert (await handover.hand_over(records)).status == 0
    answers = await asyncio.gather(*(handover.hand_over([one]) for one in records))
    assert [answer.status for answer in answers] == [200, 200]
    assert await numbers(log) == [1, 2]
    assert handover._known == set()  # noqa: SLF001 - memory has no other face


async def test_the_log_is_opened_by_the_first_events_where_it_was_away() -> None:
    """A service starts without its log; a log that was not set up is told of."""
    log = MemoryLog(partitions=None)
    handover = LogHandover(log, "amplitude")
    response = await handover.hand_over([make_record(1)])
    assert response.status == 403
    assert "setup" in str(response.error)
    await log.setup(2)
    assert (await handover.hand_over([make_record(1)])).status == 200


async def test_a_log_that_somebody_closed_is_opened_again(accounted: Account) -> None:
    """As a health check may that looks at the backlog: it costs nobody an event."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log))
    await client.track("E0", user_id="user-1")
    await log.open()
    await log.backlog()
    await log.close()
    await client.track("E1", user_id="user-1")
    await until(lambda: client.stats.handed_over == 2)


class FaultyLog(MemoryLog):
    """A log of somebody else's: what is asked of it fails with what is no LogError."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.openings: list[BaseException] = []
        self.publishes: list[BaseException] = []

    async def open(self) -> Any:
        """Fail, or open."""
        if self.openings:
            raise self.openings.pop()
        return await super().open()

    async def publish(self, chunk: Any) -> None:
        """Store a chunk, and fail all the same."""
        await super().publish(chunk)
        if self.publishes:
            raise self.publishes.pop()


FAULTS = [ValueError("a fault"), asyncio.CancelledError(), ConfigurationError("no")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_whatever_a_log_raises_costs_time_and_no_event(
    accounted: Account, fault: BaseException
) -> None:
    """Its faults are not ours: nothing is given up, and nothing is there twice."""
    log = FaultyLog()
    log.publishes = [fault] * 7
    options: Any = {"retry_base_interval": 0.001, "retry_max_interval": 0.001}
    client = accounted(Amplitude(handover=log, confirm=False, **options))
    deliveries = [await client.track(f"E{n}", user_id="user-1") for n in range(5)]
    for delivery in deliveries:
        assert (await delivery).status is DeliveryStatus.HANDED_OVER
    assert await names_in(log) == [f"E{n}" for n in range(5)]


async def test_a_log_that_cannot_be_opened_for_a_fault_costs_no_event(
    accounted: Account,
) -> None:
    """It is opened by the first events here, and fails at that."""
    log = FaultyLog()
    log.openings = [ValueError("a fault")] * 7
    options: Any = {"retry_base_interval": 0.001, "retry_max_interval": 0.001}
    client = accounted(Amplitude(handover=log, **options))
    delivery = await client.track("E", user_id="user-1")
    assert (await delivery).status is DeliveryStatus.HANDED_OVER


async def test_a_log_that_hangs_when_it_is_closed_ends_no_later_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shutdown returns."""
    monkeypatch.setattr("amplitude_async.fleet.handover.CLOSE_PATIENCE", 0.01)

    class Sticky(MemoryLog):
        async def close(self) -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    client = Amplitude(handover=Sticky())
    await client.track("E", user_id="user-1")
    async with asyncio.timeout(20):
        stats = await client.shutdown()
    assert stats.handed_over == 1


def test_clients_that_share_a_log_move_to_another_loop_together() -> None:
    """The second to come there finds the log as the first has opened it."""
    log = MemoryLog()
    one, other = LogHandover(log, "amplitude"), LogHandover(log, "mparticle")

    async def begin() -> None:
        await log.setup()
        await one.open()
        await other.open()

    async def go_on() -> None:
        for handover in (one, other):
            handover.abandon()  # as the engine does when it finds itself elsewhere
            assert (await handover.hand_over([make_record(1)])).status == 200
        assert (await one.hand_over([make_record(2)])).status == 200
        await one.close()
        assert (await other.hand_over([make_record(2)])).status == 200
        await other.close()
        with pytest.raises(LogError):
            await log.backlog()

    asyncio.run(begin())
    asyncio.run(go_on())


async def test_clients_that_share_a_log_are_forked_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the child each of them notices by itself, one after the other."""
    log = MemoryLog()
    one, other = await opened(log), await opened(log, "mparticle")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    for handover in (one, other, one):
        assert (await handover.hand_over([make_record(1)])).status == 200
    await one.close()
    assert (await other.hand_over([make_record(2)])).status == 200
    await other.close()
    with pytest.raises(LogError):
        await log.backlog()


async def test_a_log_in_use_on_a_loop_that_is_alive_is_refused_on_another() -> None:
    """Its connections would answer nobody there."""
    log = MemoryLog()
    handover = await opened(log)

    def elsewhere() -> None:
        asyncio.run(LogHandover(log, "mparticle").open())

    with pytest.raises(ConfigurationError, match="one MemoryLog for each loop"):
        await asyncio.to_thread(elsewhere)
    assert (await handover.hand_over([make_record(1)])).status == 200
    await handover.close()
    await asyncio.to_thread(elsewhere)


async def test_a_log_is_closed_when_the_last_client_has_left_it() -> None:
    """Two clients share one object: who goes first takes nothing from the other."""
    log = MemoryLog()
    first, second = await opened(log), await opened(log, "mparticle")
    await first.close()
    await first.close()
    assert (await second.hand_over([make_record(1)])).status == 200
    await second.close()
    assert not log._open  # noqa: SLF001 - whether it is shut shows nowhere else


# Whole clients ---------------------------------------------------------------


async def test_no_key_is_needed_and_none_is_stored(accounted: Account) -> None:
    """A producer knows no key; one that is given all the same gets into no byte."""
    log = MemoryLog(partitions=2)
    bare = accounted(Amplitude(handover=log))
    keyed = accounted(Amplitude(KEY, handover=log), KEY)
    vendor = accounted(MParticle(handover=log))
    other = accounted(MParticle(KEY, "the-secret-of-it", handover=log), KEY)
    for client in (bare, keyed):
        delivery = await client.track("Paid", user_id="user-12345")
        assert (await delivery).status is DeliveryStatus.HANDED_OVER
        assert (await delivery).ok
    for client in (vendor, other):
        delivery = await client.send(paid())
        assert (await delivery).status is DeliveryStatus.HANDED_OVER

    store = log._store  # noqa: SLF001 - every byte, not only those that are events
    shelves = store.shelves.items()
    data = b"".join(
        repr(place).encode() + stored.data + stored.id.encode()
        for place, shelf in shelves
        for stored, _ in shelf.chunks.values()
    )
    assert b"Paid" in data
    assert KEY.encode() not in data
    assert b"the-secret-of-it" not in data
    assert {place.destination for place, _ in shelves} == {"amplitude", "mparticle"}
    for client in (bare, keyed, vendor, other):
        stats = await client.shutdown()
        assert stats.balanced
        assert (stats.accepted, stats.handed_over, stats.delivered) == (1, 1, 0)


async def test_every_verb_hands_over(accounted: Account) -> None:
    """Identify, group, revenue, page of a user: all of them are events of the log."""
    log = MemoryLog()
    client = accounted(Amplitude(handover=log))
    deliveries = [
        await client.track("A", user_id="user-1"),
        await client.identify(Identify().set("plan", "pro"), user_id="user-1"),
        await client.set_group("org", "acme", user_id="user-1"),
        await client.revenue(Revenue(price=3.0), user_id="user-1"),
    ]
    for delivery in deliveries:
        assert (await delivery).status is DeliveryStatus.HANDED_OVER
    assert await names_in(log) == ["A", "$identify", "$identify", "revenue_amount"]


async def test_upload_refuses(accounted: Account) -> None:
    """A request of one's own has no server to go to."""
    client = accounted(MParticle(handover=MemoryLog()))
    with pytest.raises(AmplitudeError, match="hands over"):
        await client.upload(paid())
    with pytest.raises(AmplitudeError, match="hands over"):
        await client.upload_many([paid()])


async def test_what_is_no_log_is_refused_by_name() -> None:
    """Field, value and remedy are in the words."""
    with pytest.raises(ConfigurationError, match=r"handover.*Log"):
        Amplitude(handover="postgresql://host/db")
    with pytest.raises(ConfigurationError, match=r"handover.*Log"):
        Amplitude(handover=MemoryLog)


@pytest.mark.parametrize("overflow", list(Overflow))
async def test_a_log_that_is_down_for_ten_minutes_with_memory(
    overflow: Overflow,
) -> None:
    """Memory is bounded: the rest is shed and told; what is left comes in order."""
    clock = FakeClock()
    log = MoodyLog(clock=clock)
    told: list[Any] = []
    client = MemberClient.at(
        clock,
        handover=log,
        confirm=False,
        overflow=overflow,
        overflow_timeout=0.0,
        max_storage_capacity=100,
        callback=told.append,
    )
    async with client:
        log.refuse(LogUnreachableError("gone"))
        raised = 0
        for number in range(600):
            try:
                await client.track(f"E{number:03}", user_id="user-1")
            except AmplitudeError:
                raised += 1
            await clock.advance(1.0)
        assert client.stats.pending == 100
        log.refuse(None)
        await clock.advance(60.0)
        names = await names_in(log)
        stats = client.stats
        assert stats.balanced
        assert stats.pending == 0
        assert len(names) == 100 == stats.handed_over
        assert names == sorted(names)
        assert stats.dropped + raised == 500
        assert len([one for one in told if not one.ok]) == stats.dropped


async def test_a_log_that_is_down_for_ten_minutes_with_a_spool(tmp_path: Any) -> None:
    """Nothing is lost; memory is small, the disk has it, and order is kept."""
    clock = FakeClock()
    log = MoodyLog(clock=clock)
    client = MemberClient.at(
        clock,
        handover=log,
        confirm=False,
        storage=SQLiteStorage(tmp_path / "spool"),
        max_storage_capacity=50,
    )
    async with client:
        log.refuse(LogUnreachableError("gone"))
        for number in range(300):
            await client.track(f"E{number:03}", user_id=f"user-{number % 3}")
            await clock.advance(2.0)
        assert client.stats.pending == 300
        log.refuse(None)
        for _ in range(2_000):
            if not client.stats.pending:
                break
            await clock.advance(0.5)
            await asyncio.sleep(0.002)  # the spool has a thread, and real time
        names = await names_in(log)
    assert len(names) == 300
    assert names == sorted(names)
    assert client.stats.balanced
    assert client.stats.dropped == 0


async def test_a_spool_hands_over_after_a_restart(tmp_path: Any) -> None:
    """What a process left in its spool is the next one's, in order and once."""
    log = MemoryLog()
    handle = log.handle()
    handle.refuse(LogUnreachableError("gone"))
    storage = tmp_path / "spool"
    first = Amplitude(handover=handle, confirm=False, storage=SQLiteStorage(storage))
    async with first:
        for number in range(20):
            await first.track(f"E{number:02}", user_id="user-1")
        stats = await first.shutdown(0.2)
    assert stats.stored == 20
    assert stats.balanced
    async with Amplitude(handover=log, storage=SQLiteStorage(storage)) as second:
        await second.track("E20", user_id="user-1")
        await until(lambda: not second.stats.pending)
        stats = second.stats
    assert await names_in(log) == [f"E{number:02}" for number in range(21)]
    assert (stats.recovered, stats.accepted, stats.handed_over) == (20, 1, 21)


# Dice ------------------------------------------------------------------------


class Step:
    """What an engine may do to a hand-over."""

    CUTS = (1, 2, 3, 7, 50)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.sampled_from([None, 3, 10]),
    st.integers(0, 25),
)
def test_whatever_a_log_does_each_event_is_in_it_once_and_in_order(
    seed: int, partitions: int, most: int | None, failures: int
) -> None:
    """Requests of any cut, as the engine makes them: an identity's one by one."""
    import random  # noqa: PLC0415 - each example has dice of its own

    dice = random.Random(seed)
    log = MoodyLog.of_dice(seed, failures, partitions=partitions, most=most)
    records = [make_record(n, f"user-{dice.randrange(6)}") for n in range(1, 60)]

    async def play() -> None:
        handover = await opened(log)
        waiting = list(records)
        while waiting:
            requests = _cut(dice, waiting)
            work: list[Coroutine[Any, Any, Any]] = [
                handover.hand_over(one) for one in requests
            ]
            tasks = [asyncio.ensure_future(one) for one in work]
            if dice.random() < 0.15:
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                dice.choice(tasks).cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            if dice.random() < 0.05:
                handover.abandon()
            for request, answer in zip(requests, answers, strict=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, asyncio.CancelledError)
                elif answer.status == 200:
                    done = {record.id for record in request}
                    waiting = [one for one in waiting if one.id not in done]
        by_user: dict[str, list[int]] = defaultdict(list)
        for record in await contents(log):
            by_user[record.identity].append(json.loads(record.body)["n"])
        assert dict(by_user) == _by_user(records)
        assert handover._frozen == {}  # noqa: SLF001 - memory has no other face

    asyncio.run(play())


def _cut(dice: Any, waiting: list[Record]) -> list[list[Record]]:
    """Make requests as an engine does: no identity is in two of them."""
    size = dice.choice(Step.CUTS)
    requests: list[list[Record]] = []
    taken: set[str] = set()
    for _ in range(dice.randint(1, 3)):
        piece = [record for record in waiting if record.identity not in taken][:size]
        if piece:
            requests.append(piece)
            taken.update(record.identity for record in piece)
    return requests


def _by_user(records: list[Record]) -> dict[str, list[int]]:
    by_user: dict[str, list[int]] = defaultdict(list)
    for record in records:
        by_user[record.identity].append(record.id)
    return dict(by_user)


async def test_a_place_is_named_after_its_destination() -> None:
    """Each vendor has its own bytes."""
    log = MoodyLog()
    handover = await opened(log, "mparticle")
    await handover.hand_over([make_record(1)])
    assert log.published[0].place == Place("mparticle", 0)
