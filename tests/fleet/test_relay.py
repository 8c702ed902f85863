"""Relays deliver what a log has: each event once, in order, and give places back."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.exceptions import (
    AmplitudeError,
    ConfigurationError,
    LogUnreachableError,
)
from amplitude_async.fleet import Relay
from amplitude_async.fleet.codec import decode, partition_of
from amplitude_async.fleet.log import Letter, Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.testing.log_contract import PLACE
from tests.fleet.scene import (
    KEY,
    chunk_of,
    chunks_in,
    letters_in,
    make_record,
    until,
    wall_of,
)

__all__: list[str] = []

# Of these no test waits for the end, but those that kill a relay.
LEASE = 5.0


def deliverer(emulator: Emulator, **options: Any) -> Amplitude:
    """Make a client for a relay, which loses no time."""
    given = {
        "server_url": emulator.httpapi_url,
        "flush_interval": 0.01,
        "retry_base_interval": 0.005,
        "retry_max_interval": 0.02,
        "retry_throttled_interval": 0.02,
        "trust_env": False,
        **options,
    }
    return Amplitude(KEY, **given)


def relay_of(log: MemoryLog, client: Amplitude, *, lease: float = LEASE) -> Relay:
    """Make a relay that has a log of its own, as in another process."""
    return Relay(log.handle(), [client], lease=lease)


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    """Run relays, and stop them all."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
    finally:
        for relay in relays:
            relay.stop()
        await asyncio.gather(*tasks)
    for relay in relays:
        for stats in relay.stats.values():
            assert stats.balanced, stats
            assert stats.pending == 0, stats


async def fill(log: MemoryLog, events: int, users: int, size: int = 20) -> None:
    """Put events of users into a log, in chunks."""
    settings = await log.open()
    lanes: dict[int, list[Any]] = {}
    for number in range(events):
        user = f"user-{number % users:05}"
        record = make_record(number + 1, user, event_properties={"n": number})
        lanes.setdefault(partition_of(user, settings.partitions), []).append(record)
    for lane, records in lanes.items():
        place = Place("amplitude", lane)
        for start in range(0, len(records), size):
            piece = records[start : start + size]
            await log.publish(chunk_of(place, f"c.{lane}.{start}", *piece))


async def put(log: MemoryLog, name: str, *records: Any, partition: int = 0) -> None:
    """Put one chunk into a log."""
    await log.open()
    await log.publish(chunk_of(Place("amplitude", partition), name, *records))


def arrived(emulator: Emulator) -> list[int]:
    """List the numbers of the events that were taken."""
    return [event["n"] for event in emulator.events]


async def drained(log: MemoryLog) -> None:
    """Wait until all is acknowledged."""
    await until(lambda: not chunks_in(log), "the end")


async def drain(log: MemoryLog, client: Amplitude) -> None:
    """Let a relay deliver all that a log has, and stop."""
    async with running(relay_of(log, client)):
        await drained(log)


def has_taken(emulator: Emulator, events: int) -> bool:
    """Say whether the server has so many."""
    return emulator.stats.events_ingested >= events


def check_order(emulator: Emulator, users: int, events: int) -> None:
    """Fail unless each event came once, and those of a user in order."""
    numbers = arrived(emulator)
    assert sorted(numbers) == list(range(1, events + 1))
    for user in range(users):
        mine = [n for n in numbers if (n - 1) % users == user]
        assert mine == sorted(mine)


# Delivering ------------------------------------------------------------------


@pytest.mark.parametrize(("partitions", "relays"), [(1, 1), (1, 3), (4, 1), (4, 3)])
async def test_everything_comes_once_and_in_order(
    emulator: Emulator, partitions: int, relays: int
) -> None:
    """However many relays share however many partitions."""
    log = MemoryLog(partitions=partitions)
    await fill(log, 2_000, 37)
    team = [relay_of(log, deliverer(emulator)) for _ in range(relays)]
    async with running(*team):
        await drained(log)
    check_order(emulator, 37, 2_000)
    assert sum(relay.stats["amplitude"].delivered for relay in team) == 2_000


async def test_from_a_client_to_the_server(emulator: Emulator) -> None:
    """Two processes, so to speak: tracked in one, sent by the other."""
    log = MemoryLog(partitions=4)
    relay = relay_of(log, deliverer(emulator))
    async with running(relay), Amplitude(handover=log) as client:
        for number in range(50):
            user = f"user-{number % 5}"
            await client.track("E", user_id=user, event_properties={"n": number})
        await until(lambda: len(emulator.events) == 50)
    for first in range(5):
        mine = [e for e in emulator.events if e["user_id"] == f"user-{first}"]
        numbers = [event["event_properties"]["n"] for event in mine]
        assert numbers == list(range(first, 50, 5))


async def test_a_lone_event_does_not_wait_for_company(emulator: Emulator) -> None:
    """Where nothing more is on its way, nothing is waited for."""
    log = MemoryLog()
    client = deliverer(emulator, flush_interval=600.0, flush_queue_size=1_000)
    async with running(relay_of(log, client)):
        await put(log, "c.1", make_record(1))
        await until(lambda: arrived(emulator) == [1])


async def test_servers_hiccups_change_nothing(emulator: Emulator) -> None:
    """Errors, cut connections, halves: once and in order all the same."""
    log = MemoryLog(partitions=2)
    await fill(log, 600, 11)
    emulator.faults.add(Fault(503, count=5), Fault(413, count=2), Fault(500, count=3))
    relays = [relay_of(log, deliverer(emulator)) for _ in "ab"]
    async with running(*relays):
        await drained(log)
    check_order(emulator, 11, 600)


# What cannot be delivered ----------------------------------------------------


async def test_rejected_events_are_letters_before_their_chunk_is_gone(
    emulator: Emulator,
) -> None:
    """The log keeps them, with the server's words, and the rest goes on."""
    log = MemoryLog()
    seen: list[tuple[int, int]] = []
    handle = log.handle()
    store = log._store  # noqa: SLF001 - watched from the outside of it
    take = store.take

    def watch(shelf: Any, positions: Sequence[int]) -> None:
        seen.append((len(positions), len(store.letters)))
        take(shelf, positions)

    store.take = watch  # type: ignore[method-assign]
    bad = make_record(2, event_properties={"n": 2}, time="never")
    await put(log, "c.1", make_record(1), bad, make_record(3))
    await put(log, "c.2", make_record(4))
    async with running(Relay(handle, [deliverer(emulator)], lease=LEASE)):
        await drained(log)
    assert arrived(emulator) == [1, 3, 4]
    [letter] = letters_in(log)
    assert (letter.code, letter.raw) == (400, False)
    assert (letter.place, letter.key) == (PLACE, "c.1.1")
    assert [record.body for record in decode(letter.data)] == [bad.body]
    assert all(letters == 1 for _, letters in seen)


async def test_a_letter_is_there_once_where_its_chunk_comes_again(
    emulator: Emulator,
) -> None:
    """A relay that died between letter and acknowledgement leaves no second one."""
    log = MemoryLog()
    bad = make_record(1, time="never")
    await put(log, "c.1", bad)
    dying = log.handle()
    bury, kept = dying.bury, asyncio.Event()

    async def bury_and_die(letters: Sequence[Letter]) -> None:
        await bury(letters)
        kept.set()
        dying.stall()  # and never comes to acknowledge

    dying.bury = bury_and_die  # type: ignore[method-assign]
    first = Relay(dying, [deliverer(emulator)], lease=0.3)
    task = asyncio.create_task(first.run())
    await asyncio.wait_for(kept.wait(), 20)
    async with running(relay_of(log, deliverer(emulator), lease=0.3)):
        await drained(log)
    assert len(letters_in(log)) == 1
    dying.go_on()
    first.stop()
    await task


def keep_reluctantly(log: MemoryLog, failures: int) -> Sequence[int]:
    """Let a log keep no letter at first; returns how many came, call by call."""
    bury, calls = log.bury, list[int]()

    async def fail_first(letters: Sequence[Letter]) -> None:
        calls.append(len(letters))
        if len(calls) <= failures:
            raise LogUnreachableError("gone")
        await bury(letters)

    log.bury = fail_first  # type: ignore[method-assign]
    return calls


async def test_a_letter_that_the_log_does_not_take_keeps_its_chunk(
    emulator: Emulator,
) -> None:
    """No rejected event vanishes because the log was away when it was to be kept."""
    log = MemoryLog()
    await put(log, "c.1", make_record(1, time="never"), make_record(2))
    handle = log.handle()
    calls = keep_reluctantly(handle, 1)
    async with running(Relay(handle, [deliverer(emulator)], lease=LEASE)):
        await until(lambda: calls and arrived(emulator) == [2])
        assert chunks_in(log) == 1
        await drained(log)
    assert len(calls) == 2
    assert len(letters_in(log)) == 1


async def test_a_letter_is_kept_though_nothing_follows(emulator: Emulator) -> None:
    """The log came back, and no further event: the chunk is not stuck for ever."""
    log = MemoryLog()
    await put(log, "c.1", make_record(1, time="never"))
    handle = log.handle()
    keep_reluctantly(handle, 2)
    async with running(Relay(handle, [deliverer(emulator)], lease=LEASE)):
        await drained(log)
    assert len(letters_in(log)) == 1


async def test_a_damaged_chunk_is_set_aside(emulator: Emulator) -> None:
    """Its bytes are kept as they were found, and what is behind it goes on."""
    log = MemoryLog()
    await put(log, "c.1", make_record(1))
    whole = chunk_of(PLACE, "c.2", make_record(2))
    damaged = whole.data[:-1] + b"X"
    await log.publish(whole._replace(data=damaged))
    await put(log, "c.3", make_record(3))
    await drain(log, deliverer(emulator))
    assert arrived(emulator) == [1, 3]
    [letter] = letters_in(log)
    assert (letter.raw, letter.data) == (True, damaged)


async def test_an_unknown_schema_stops_its_place_and_no_other(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before it is delivered, what comes after waits; others go on."""
    log = MemoryLog(partitions=2)
    await put(log, "c.1", make_record(1))
    whole = chunk_of(PLACE, "c.2", make_record(2))
    newer = whole.data[:3] + b"\x63" + whole.data[4:]
    await log.publish(whole._replace(data=newer))
    await put(log, "c.3", make_record(3))
    for number in range(4, 8):
        await put(log, f"d.{number}", make_record(number, "other"), partition=1)
    async with running(relay_of(log, deliverer(emulator))):
        await until(lambda: sorted(arrived(emulator)) == [1, 4, 5, 6, 7])
        await until(lambda: "schema 99" in caplog.text)
        await until(lambda: chunks_in(log, PLACE) == 2)
        await put(log, "d.8", make_record(8, "other"), partition=1)
        await until(lambda: sorted(arrived(emulator)) == [1, 4, 5, 6, 7, 8])
    assert chunks_in(log) == 2


async def test_a_refused_key_consumes_nothing(emulator: Emulator) -> None:
    """All stays in the log until somebody puts the key right."""
    log = MemoryLog()
    await fill(log, 100, 5)
    emulator.faults.add(Fault(401, count=None))
    client = deliverer(emulator)
    async with running(relay_of(log, client)):
        await until(lambda: client.health.name == "REFUSED")
    assert chunks_in(log) == 5
    assert client.stats.rejected == client.stats.dropped == 0
    emulator.faults.clear()
    await drain(log, deliverer(emulator))
    check_order(emulator, 5, 100)


async def test_a_throttled_user_holds_up_nobody_else(emulator: Emulator) -> None:
    """Others of the same chunk go on; the chunk waits for its last event."""
    log = MemoryLog()
    await put(
        log,
        "c.1",
        make_record(1, "slow-user"),
        make_record(2, "other"),
        make_record(3, "slow-user"),
    )
    await put(log, "c.2", make_record(4, "other"))
    emulator.faults.add(Fault.throttle(user_ids=["slow-user"], count=None))
    async with running(relay_of(log, deliverer(emulator))):
        await until(lambda: arrived(emulator) == [2, 4])
        await until(lambda: chunks_in(log) == 1)
        emulator.faults.clear()
        await drained(log)
    assert arrived(emulator) == [2, 4, 1, 3]


def _waits_for_one(emulator: Emulator, client: Amplitude) -> bool:
    return len(arrived(emulator)) == 180 and client.stats.pending == 20


async def test_a_throttled_user_costs_no_doubles(emulator: Emulator) -> None:
    """Relays come and go while chunks wait for one user: others have theirs once."""
    log = MemoryLog()
    await log.open()
    for number in range(20):
        first = 10 * number
        records = [make_record(first + n, f"user-{n}") for n in range(1, 11)]
        await log.publish(chunk_of(PLACE, f"c.{number}", *records))
    throttled = Fault(
        429,
        body=lambda request: {
            "code": 429,
            "throttled_users": {"user-3": 1},
            "throttled_events": [
                index
                for index, event in enumerate(request.events)
                if event["user_id"] == "user-3"
            ],
        },
        when=lambda request: any(e["user_id"] == "user-3" for e in request.events),
        count=None,
    )
    emulator.faults.add(throttled)
    for _ in range(3):
        client = deliverer(emulator, retry_throttled_interval=250.0)
        async with running(relay_of(log, client)):
            await until(partial(_waits_for_one, emulator, client))
    assert chunks_in(log) == 20
    emulator.faults.clear()
    async with running(relay_of(log, deliverer(emulator))):
        await drained(log)
    check_order(emulator, 10, 200)


async def test_a_dead_relays_heir_sends_little_twice(emulator: Emulator) -> None:
    """What the dead had told by its last renewal is not sent again."""
    log = MemoryLog()
    await log.open()
    bad = [make_record(1, "user-1"), make_record(2, "user-2")]
    await log.publish(chunk_of(PLACE, "c.1", *bad))
    emulator.faults.add(
        Fault(
            429,
            body={"code": 429, "throttled_events": [0], "throttled_users": {}},
            count=1,
        )
    )
    handle = log.handle()
    client = deliverer(emulator, retry_throttled_interval=250.0)
    dead = Relay(handle, [client], lease=0.3)
    task = asyncio.create_task(dead.run())
    await until(lambda: arrived(emulator) == [2])
    store = log._store  # noqa: SLF001 - asked often, and by nobody that is open
    await until(lambda: store.shelves[PLACE].progress)
    handle.stall()
    async with running(relay_of(log, deliverer(emulator))):
        await drained(log)
    assert arrived(emulator) == [2, 1]
    dead.stop()
    await task


async def test_nonsense_of_the_holder_before_is_told(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """And costs doubles at the most."""
    log = MemoryLog()
    await put(log, "c.1", make_record(1))
    claim = await log.claim(PLACE, "before", 60.0)
    assert claim is not None
    await claim.note_progress(b"nonsense")
    await claim.release()
    await drain(log, deliverer(emulator))
    assert arrived(emulator) == [1]
    assert "what the holder of amplitude.0 before left cannot be read" in caplog.text


async def test_events_that_are_too_old_end(emulator: Emulator) -> None:
    """Dropped as expired, told, and their chunk is acknowledged."""
    log = MemoryLog()
    now = wall_of(log)
    old = make_record(1)._replace(accepted_at=now - 100.0)
    young = make_record(2)._replace(accepted_at=now)
    await put(log, "c.1", old, young)
    told: list[Any] = []
    client = deliverer(emulator, max_event_age=50.0, callback=told.append)
    await drain(log, client)
    assert arrived(emulator) == [2]
    assert client.stats.dropped_by_reason == {"expired": 1}
    assert sorted(one.status.value for one in told) == ["delivered", "dropped"]


async def test_a_host_from_the_future_makes_no_event_younger(
    emulator: Emulator,
) -> None:
    """An event is no younger than its chunk by the log's clock: it does expire."""
    log = MemoryLog()
    now = wall_of(log)
    await put(log, "c.1", make_record(1)._replace(accepted_at=now + 1e6))
    emulator.faults.add(Fault(503, count=None))
    client = deliverer(emulator, max_event_age=0.05)
    await drain(log, client)
    assert client.stats.dropped_by_reason == {"expired": 1}


# Stopping --------------------------------------------------------------------


async def test_places_are_given_back_without_a_double(emulator: Emulator) -> None:
    """Relays come and go meanwhile: nothing comes twice, nothing out of order."""
    log = MemoryLog(partitions=4)
    await fill(log, 6_000, 101, size=50)
    shift = [relay_of(log, deliverer(emulator)) for _ in range(5)]
    given_back = 0
    for number, relay in enumerate(shift[:-1], 1):
        async with running(relay):
            await until(partial(has_taken, emulator, number * 500))
        stats = relay.stats["amplitude"]
        given_back += stats.given_back
        assert stats.recovered == stats.delivered + stats.given_back
    async with running(shift[-1]):
        await drained(log)
    check_order(emulator, 101, 6_000)
    assert given_back > 0


async def test_a_server_that_hangs_holds_up_a_stop_no_longer_than_so(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of patience its request is cut off, and the next has the place."""
    monkeypatch.setattr("amplitude_async.fleet.relay.LEAVE_PATIENCE", 0.05)
    log = MemoryLog()
    await fill(log, 10, 3)
    emulator.faults.add(Fault(delay=3_600.0, count=None))
    # Its lease is longer than this test's patience: nothing but a release ends it.
    relay = relay_of(log, deliverer(emulator), lease=3_600.0)
    async with asyncio.timeout(20):
        async with running(relay):
            await until(lambda: emulator.stats.requests > 0)
    assert relay.gave_back
    assert relay.stats["amplitude"].given_back == 10
    assert chunks_in(log) == 1
    emulator.faults.clear()
    await drain(log, deliverer(emulator))
    # What was cut off the server may have taken: it comes again, and that is all.
    assert sorted(arrived(emulator)[-10:]) == list(range(1, 11))


@pytest.mark.parametrize("events", [10, 3])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, count=None),
        Fault(status=503, headers={"Retry-After": "250"}, count=None),
        Fault(status=429, body={"throttled_events": [0]}, count=None),
    ],
    ids=["busy", "told to wait", "one user is throttled"],
)
async def test_what_a_server_holds_back_holds_up_no_stop(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, fault: Fault, events: int
) -> None:
    """Where nothing can be sent for longer than the patience, it is not waited for."""
    monkeypatch.setattr("amplitude_async.fleet.relay.LEAVE_PATIENCE", 200.0)
    log = MemoryLog()
    await fill(log, events, 3)
    emulator.faults.add(fault)
    client = deliverer(emulator, retry_throttled_interval=250.0)
    relay = relay_of(log, client, lease=3_600.0)
    async with asyncio.timeout(20):
        async with running(relay):
            await until(lambda: client.stats.requests > 0)
            await until(lambda: client.stats.last_error)
    assert relay.gave_back
    assert relay.stats["amplitude"].given_back == events
    assert chunks_in(log) == 1
    emulator.faults.clear()
    await drain(log, deliverer(emulator))
    check_order(emulator, 3, events)


async def test_a_log_that_hangs_holds_up_a_stop_no_longer_than_so(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the log does not answer has an end."""
    for name in ("relay.LEAVE_PATIENCE", "holding.PATIENCE", "bids.PATIENCE"):
        monkeypatch.setattr(f"amplitude_async.fleet.{name}", 0.05)
    log = MemoryLog()
    await fill(log, 10, 3)
    handle = log.handle()
    relay = Relay(handle, [deliverer(emulator)], lease=0.4)
    async with asyncio.timeout(20):
        async with running(relay):
            await until(lambda: len(emulator.events) == 10)
            handle.stall()
    assert relay.stats["amplitude"].delivered == 10


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34, 60, 120, 300])
async def test_a_run_that_is_cancelled_gives_back(
    emulator: Emulator, turns: int
) -> None:
    """Wherever it was: the account adds up, no task is left, and the next takes all."""
    log = MemoryLog(partitions=2)
    await fill(log, 200, 7)
    relay = relay_of(log, deliverer(emulator), lease=0.5)
    task = asyncio.create_task(relay.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert relay.stats["amplitude"].balanced
    assert relay.places == []
    names = [one.get_name() for one in asyncio.all_tasks()]
    assert [name for name in names if name.startswith("amplitude_async")] == []
    async with running(relay_of(log, deliverer(emulator), lease=0.5)):
        await drained(log)
    check_order(emulator, 7, 200)


async def test_a_run_that_is_cancelled_twice_leaves_no_task(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Impatience leaves nothing running that nobody waits for."""
    monkeypatch.setattr("amplitude_async.fleet.relay.LEAVE_PATIENCE", 0.05)
    log = MemoryLog()
    await fill(log, 20, 3)
    emulator.faults.add(Fault(delay=3_600.0, count=None))
    relay = relay_of(log, deliverer(emulator))
    task = asyncio.create_task(relay.run())
    await until(lambda: emulator.stats.requests > 0)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    names = [one.get_name() for one in asyncio.all_tasks()]
    assert [name for name in names if name.startswith("amplitude_async")] == []
    emulator.faults.clear()


async def test_a_relay_runs_once(emulator: Emulator) -> None:
    """A second run is refused, in whatever way it is begun."""
    log = MemoryLog()
    relay = Relay(log, [deliverer(emulator)])
    async with running(relay):
        await until(lambda: relay.places)
        with pytest.raises(AmplitudeError, match="runs already"):
            await relay.run()
        with pytest.raises(AmplitudeError, match="runs already"):
            await relay.__aenter__()
    with pytest.raises(AmplitudeError, match="construct a new one"):
        await relay.run()


async def test_a_relay_as_a_context(emulator: Emulator) -> None:
    """It runs inside, and has given everything back outside."""
    log = MemoryLog()
    await fill(log, 20, 3)
    async with Relay(log, [deliverer(emulator)]) as relay:
        await drained(log)
        assert relay.ready
        assert relay.places == [PLACE]
    assert relay.places == []
    check_order(emulator, 3, 20)


async def test_a_log_that_was_not_set_up_is_named(emulator: Emulator) -> None:
    """The relay ends with the reason, and leaves nothing open."""
    relay = Relay(MemoryLog(partitions=None), [deliverer(emulator)])
    with pytest.raises(ConfigurationError, match="setup"):
        await relay.run()


async def test_a_relay_waits_for_its_log(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is away at the start is asked again."""
    monkeypatch.setattr("amplitude_async.fleet.relay.OPEN_AGAIN", 0.01)
    log = MemoryLog()
    await fill(log, 5, 1)
    handle = log.handle()
    open_log, tries = handle.open, 0

    async def come_late() -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise LogUnreachableError("gone")
        return await open_log()

    handle.open = come_late  # type: ignore[method-assign]
    async with running(Relay(handle, [deliverer(emulator)])):
        await drained(log)
    assert tries == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log": "postgresql://host"}, "give a Log"),
        ({"to": []}, "give clients"),
        ({"to": "key"}, "give clients"),
        ({"to": None}, "give clients"),
        ({"lease": 0.0}, "lease"),
        ({"lease": math.nan}, "lease"),
        ({"lease": math.inf}, "lease"),
        ({"lease": True}, "lease"),
    ],
)
async def test_wrong_arguments_are_named(change: dict[str, Any], words: str) -> None:
    """Field, value and remedy."""
    given: dict[str, Any] = {"log": MemoryLog(), "to": [Amplitude(KEY)], **change}
    with pytest.raises(ConfigurationError, match=words):
        Relay(given.pop("log"), given.pop("to"), **given)


async def test_two_clients_of_one_destination_are_refused() -> None:
    """Each event is to be delivered once."""
    with pytest.raises(ConfigurationError, match="two clients of amplitude"):
        Relay(MemoryLog(), [Amplitude(KEY), Amplitude(KEY)])


# User code -------------------------------------------------------------------


async def test_user_code_that_raises_stops_nothing(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback, an observer and a logging handler, each of them broken."""

    class Broken(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("a broken handler")

    def callback(result: Any) -> None:
        raise RuntimeError("a broken callback")

    class Observer:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("a broken observer")

    logger = logging.getLogger("of a broken handler")
    broken = Broken()
    logger.addHandler(broken)
    log = MemoryLog(partitions=2)
    await fill(log, 100, 9)
    await put(log, "bad", make_record(101, time="never"))
    client = deliverer(emulator, callback=callback, logger=logger)
    await drain(log, client)
    logger.removeHandler(broken)
    assert sorted(arrived(emulator)) == list(range(1, 101))
    assert len(letters_in(log)) == 1


async def test_a_relays_client_takes_no_events(emulator: Emulator) -> None:
    """It says so: events come from the log."""
    log = MemoryLog()
    client = deliverer(emulator)
    async with running(Relay(log, [client])):
        await until(client.stats.__class__)
        delivery = await client.track("E", user_id="user-1")
        assert not (await delivery).ok
        assert "handover" in (await delivery).message


async def test_a_client_that_was_started_is_refused(emulator: Emulator) -> None:
    """Its events would be in a storage that nobody looks after."""
    async with deliverer(emulator) as client:
        with pytest.raises(AmplitudeError, match="started"):
            Relay(MemoryLog(), [client])


# Bounds ----------------------------------------------------------------------


async def test_a_large_chunk_and_many_identities(emulator: Emulator) -> None:
    """2,000 events in one chunk, and 20,000 identities in all."""
    log = MemoryLog(partitions=2)
    await fill(log, 20_000, 20_000, size=2_000)
    client = deliverer(emulator)
    async with running(relay_of(log, client, lease=30.0)):
        await drained(log)
    assert sorted(arrived(emulator)) == list(range(1, 20_001))
