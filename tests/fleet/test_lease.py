"""A claim that is lost, or may be: nothing more is sent, and nothing is sent twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async.delivery.endpoint import Response
from amplitude_async.exceptions import LogUnreachableError
from amplitude_async.fleet import Relay
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Claim, Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.testing import FakeClock
from amplitude_async.testing.clock import FakeTimer
from amplitude_async.testing.log_contract import PLACE
from tests.fleet.scene import (
    KEY,
    MemberClient,
    chunk_of,
    chunks_in,
    letters_in,
    make_record,
    wall_of,
)

__all__: list[str] = []

LEASE = 10.0


class JumpingClock(FakeClock):
    """Tells another clock's time, but for what a test adds to it.

    Timers stay where they were: whoever was asleep sees the jump before they fire.
    """

    def __init__(self, base: FakeClock) -> None:
        super().__init__()
        self._base = base
        self.asleep = 0.0
        """Seconds that this one is ahead of the other."""
        self.wrong = 0.0
        """Seconds that its wall clock is wrong by."""

    def now(self) -> float:
        """Seconds that only grow."""
        return self._base.now() + self.asleep

    def wall(self) -> float:
        """Seconds since the epoch, as this host believes."""
        return self._base.wall() + self.asleep + self.wrong

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        """Set a timer."""
        return self._base.call_later(delay, callback)


class Host:
    """A relay on a machine of its own, with a clock and a network of its own."""

    def __init__(
        self, log: MemoryLog, base: FakeClock, *answers: Any, **options: Any
    ) -> None:
        self.log = log.handle()
        self.clock = JumpingClock(base)
        given = {"flush_interval": 0.01, "trust_env": False, **options}
        self.client = MemberClient.at(self.clock, *answers, api_key=KEY, **given)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("amplitude_async.fleet.relay.LoopClock", lambda: self.clock)
            self.relay = Relay(self.log, [self.client], lease=LEASE)
        self._task: asyncio.Task[None] | None = None

    @property
    def network(self) -> Any:
        """What was sent."""
        return self.client.network

    @property
    def sent(self) -> list[int]:
        """The numbers of the events that were sent, in order."""
        return [event["n"] for event in self.network.events]

    @property
    def stats(self) -> Any:
        """The account."""
        return self.relay.stats["amplitude"]

    def start(self) -> None:
        """Begin to run."""
        self._task = asyncio.create_task(self.relay.run())

    async def stop(self, base: FakeClock) -> None:
        """Give everything back."""
        self.relay.stop()
        self.network.release()
        self.log.go_on()
        while self._task is not None and not self._task.done():
            await base.advance(1.0)
            await asyncio.sleep(0)
        assert self.stats.balanced, self.stats


@asynccontextmanager
async def playing(base: FakeClock, *hosts: Host) -> AsyncIterator[None]:
    """Run hosts, and stop them."""
    for host in hosts:
        host.start()
    await base.advance(0.1)
    try:
        yield
    finally:
        for host in hosts:
            await host.stop(base)


async def put(log: MemoryLog, name: str, *records: Any, partition: int = 0) -> None:
    """Put a chunk into a log."""
    await log.open()
    wall = wall_of(log)
    dated = [record._replace(accepted_at=wall) for record in records]
    await log.publish(chunk_of(Place("amplitude", partition), name, *dated))


def claim_of(log: MemoryLog) -> Any:
    """Return the claim on the place, for a test to meddle with."""
    return log._store.shelves[PLACE].claim  # noqa: SLF001 - a relay shows it to nobody


async def taken_away(log: MemoryLog) -> Claim:
    """Let another relay have the place, as the server sees to it after the lease."""
    other = log.handle()
    await other.open()
    store = log._store  # noqa: SLF001 - the server's own doing
    store.shelves[PLACE].deadline = store.clock.now()
    claim = await other.claim(PLACE, "another", LEASE)
    assert claim is not None
    return claim


@pytest.fixture
def base() -> FakeClock:
    """Return the clock of the log's server."""
    return FakeClock()


# The lease by itself ---------------------------------------------------------


def test_whichever_clock_went_further_counts(base: FakeClock) -> None:
    """A lease may be taken for lost that is not, and never the other way round."""
    clock = JumpingClock(base)
    lease = Lease(10.0, clock)
    lease.begin(lease.moment())
    assert lease.valid
    clock.wrong = 9.5
    assert not lease.valid
    clock.wrong = -3_600.0
    assert lease.valid
    clock.asleep = 9.5
    assert not lease.valid
    lease.begin(lease.moment())
    assert lease.valid


def test_a_lease_ends_with_us_before_it_ends_with_the_log(base: FakeClock) -> None:
    """There is a margin, and it counts from before the renewal was sent."""
    clock = JumpingClock(base)
    lease = Lease(10.0, clock)
    moment = lease.moment()
    clock.asleep = 5.0  # so long the answer took
    lease.begin(moment)
    assert lease.valid
    clock.asleep = 9.2
    assert not lease.valid


# Zombies ---------------------------------------------------------------------


@pytest.mark.parametrize("way", ["asleep", "wall ahead"])
async def test_who_wakes_up_late_sends_nothing_but_what_was_in_flight(
    base: FakeClock, way: str
) -> None:
    """A process that stood still, or a wall clock that jumped ahead."""
    log = MemoryLog(clock=base)
    host = Host(log, base, max_in_flight=1)
    async with playing(base, host):
        host.network.hang()
        await put(log, "c.1", make_record(1))
        await base.advance(1.0)
        await put(log, "c.2", make_record(2))
        await put(log, "c.3", make_record(3))
        await base.advance(1.0)
        assert host.sent == [1]
        if way == "asleep":
            host.clock.asleep = LEASE + 1.0
        else:
            host.clock.wrong = LEASE + 1.0
        await taken_away(log)
        host.network.release()
        await base.settle()
        assert host.sent == [1]
        assert host.relay.places == []
        assert host.stats.given_back == 2
        assert host.stats.balanced


async def test_a_wall_clock_that_is_set_back_changes_nothing(base: FakeClock) -> None:
    """The claim is as good as before."""
    log = MemoryLog(clock=base)
    host = Host(log, base)
    async with playing(base, host):
        await put(log, "c.1", make_record(1))
        await base.advance(1.0)
        host.clock.wrong = -86_400.0
        for number in range(2, 8):
            await put(log, f"c.{number}", make_record(number))
            await base.advance(LEASE / 2)
        assert host.sent == [1, 2, 3, 4, 5, 6, 7]
        assert host.stats.given_back == 0
    assert chunks_in(log) == 0


async def test_a_claim_that_another_has_by_now(base: FakeClock) -> None:
    """A renewal says so: what waits is the other's, and is sent by the other alone."""
    log = MemoryLog(clock=base)
    host = Host(log, base, max_in_flight=1)
    async with playing(base, host):
        host.network.hang()
        await put(log, "c.1", make_record(1, "a"))
        await base.advance(0.1)
        await put(log, "c.2", make_record(2, "b"))
        await base.advance(0.1)
        assert host.sent == [1]
        claim = await taken_away(log)
        await base.advance(LEASE / 2)
        host.network.release()
        await base.advance(1.0)
        assert host.sent == [1]
        assert host.stats.given_back == 1
        assert host.relay.places == []
        # What was delivered was acknowledged all the same, and harms nobody.
        assert [chunk.id for chunk in await claim.read(10**6)] == ["c.2"]


async def test_a_log_that_is_away_for_longer_than_the_lease(base: FakeClock) -> None:
    """Others may have the place by then: nothing is sent until it is claimed again."""
    log = MemoryLog(clock=base)
    host = Host(log, base, max_in_flight=1, connection_timeout=60.0)
    async with playing(base, host):
        host.network.hang()
        for number in range(1, 4):
            await put(log, f"c.{number}", make_record(number, f"user-{number}"))
            await base.advance(0.1)
        sent = list(host.sent)
        host.log.stall()
        await base.advance(LEASE)
        host.network.release()
        await base.advance(LEASE)
        assert host.sent == sent
        assert host.stats.given_back == 3 - len(sent)
        host.log.go_on()
        await base.advance(2 * LEASE)
        assert sorted(host.sent) == [1, 2, 3]
    assert chunks_in(log) == 0


async def test_a_log_that_fails_at_once_is_not_asked_in_a_hurry(
    base: FakeClock,
) -> None:
    """Claim lost, log away: it is looked at twice a second, and not without end."""
    log = MemoryLog(clock=base)
    host = Host(log, base)
    async with playing(base, host):
        await base.advance(1.0)
        assert host.relay.places == [PLACE]
        reach, asked = host.log.reach, 0

        async def fail() -> None:
            nonlocal asked
            asked += 1
            await reach()
            raise LogUnreachableError("gone")

        host.log.reach = fail  # type: ignore[method-assign]
        await base.advance(LEASE)  # the claim is lost on the way
        asked = 0
        await base.advance(10.0)
        assert asked <= 30
        assert not host.relay.ready
        host.log.reach = reach  # type: ignore[method-assign]
        await base.advance(2.0)
        assert host.relay.ready
        assert host.relay.places == [PLACE]


async def test_a_slow_renewal_is_waited_for_after_one_that_failed(
    base: FakeClock,
) -> None:
    """A log that takes a second to answer keeps its relays, whatever failed before."""
    log = MemoryLog(clock=base)
    host = Host(log, base)
    async with playing(base, host):
        await base.advance(1.0)
        claim = claim_of(log)
        renew, failed = claim.renew, False

        async def slow() -> bool:
            nonlocal failed
            if not failed:
                failed = True
                raise LogUnreachableError("gone")
            over = asyncio.Event()
            base.call_later(1.0, over.set)
            await over.wait()
            kept: bool = await renew()
            return kept

        claim.renew = slow
        await base.advance(5 * LEASE)
        assert failed
        assert claim_of(log) is claim


# The place comes back --------------------------------------------------------


def throttled(body: bytes) -> Response:
    """Answer as for a user whose events are too many."""
    users = {event["user_id"] for event in json.loads(body)["events"]}
    if "slow-user" not in users:
        return Response(200)
    told = {"code": 429, "throttled_users": {"slow-user": 20}, "throttled_events": [0]}
    return Response(429, body=json.dumps(told).encode())


async def test_decided_events_of_a_chunk_that_comes_back_are_not_sent_again(
    base: FakeClock,
) -> None:
    """The relay that had it before knows which of its events are done."""
    log = MemoryLog(clock=base)
    host = Host(log, base, throttled, Response(200), retry_throttled_interval=4 * LEASE)
    async with playing(base, host):
        await put(
            log,
            "c.1",
            make_record(1, "slow-user"),
            *(make_record(n, "other") for n in (2, 3)),
        )
        await base.advance(1.0)
        assert sorted(host.sent[3:]) == [2, 3]
        assert host.stats.delivered == 2
        host.clock.wrong = LEASE  # for a moment: the claim may be lost
        await base.advance(0.5)
        host.clock.wrong = 0.0
        assert host.stats.given_back == 1
        await base.advance(5 * LEASE)
        assert sorted(host.sent[5:]) == [1]
        assert host.stats.delivered == 3
    assert chunks_in(log) == 0
    assert host.stats.recovered == 4


async def test_chunks_whose_acknowledgement_failed_are_not_sent_again(
    base: FakeClock,
) -> None:
    """The next claim of the same relay acknowledges them before it reads."""
    log = MemoryLog(clock=base)
    host = Host(log, base)
    async with playing(base, host):
        await base.advance(1.0)
        claim = claim_of(log)

        async def fail(_: Any) -> None:
            raise LogUnreachableError("gone")

        claim.acknowledge = fail
        await put(log, "c.1", make_record(1), make_record(2))
        await put(log, "c.2", make_record(3))
        await base.advance(1.0)
        assert host.sent == [1, 2, 3]
        host.clock.wrong = LEASE  # for a moment: the claim may be lost
        await base.advance(4.0)
        host.clock.wrong = 0.0
        await put(log, "c.3", make_record(4))
        await base.advance(2 * LEASE)
        assert host.sent == [1, 2, 3, 4]
    assert chunks_in(log) == 0


async def test_letters_of_a_lost_claim_are_kept_by_the_next(base: FakeClock) -> None:
    """A rejected event is decided: its letter is owed like an acknowledgement."""
    log = MemoryLog(clock=base)
    refusal = {"code": 400, "error": "bad", "events_with_invalid_fields": {"time": [0]}}
    host = Host(log, base, Response(400, body=json.dumps(refusal).encode()))
    bury, away = host.log.bury, True

    async def fail(letters: Any) -> None:
        if away:
            raise LogUnreachableError("gone")
        await bury(letters)

    host.log.bury = fail  # type: ignore[method-assign]
    async with playing(base, host):
        await put(log, "c.1", make_record(1), make_record(2))
        await base.advance(1.0)
        assert host.stats.rejected == 1
        host.clock.wrong = LEASE
        await base.advance(4.0)
        host.clock.wrong = 0.0
        assert chunks_in(log) == 1
        away = False
        await base.advance(2 * LEASE)
    assert chunks_in(log) == 0
    assert host.sent == [1, 2, 2]
    assert [letter.key for letter in letters_in(log)] == ["c.1.0"]


# Many relays -----------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 4, 5])
async def test_places_are_divided_evenly(base: FakeClock, partitions: int) -> None:
    """At most ceil(P/live) each, all of them held, and nobody changes once it is so."""
    log = MemoryLog(partitions=partitions, clock=base)
    hosts = [Host(log, base) for _ in range(3)]
    async with playing(base, hosts[0]):
        await base.advance(2.0)
        assert len(hosts[0].relay.places) == partitions
        async with playing(base, *hosts[1:]):
            await base.advance(20.0)
            most = -(-partitions // 3)
            held = [set(host.relay.places) for host in hosts]
            assert sum(map(len, held)) == partitions == len(set().union(*held))
            assert max(map(len, held)) <= most
            await base.advance(60.0)
            assert [set(host.relay.places) for host in hosts] == held
        await base.advance(3.0)
        assert len(hosts[0].relay.places) == partitions


async def test_the_heir_of_a_dead_relay_has_its_place_within_a_lease(
    base: FakeClock,
) -> None:
    """And a second: from the last renewal of the one that died."""
    log = MemoryLog(clock=base)
    first, second = Host(log, base), Host(log, base)
    first.start()
    await base.advance(1.0)
    assert first.relay.places == [PLACE]
    first.log.stall()  # as good as dead
    async with playing(base, second):
        await put(log, "c.1", make_record(1))
        await base.advance(LEASE + 1.0)
        assert second.sent == [1]
        assert second.relay.places == [PLACE]
        assert first.relay.places == []
    first.log.go_on()
    await first.stop(base)
    assert first.sent == []


async def test_a_rate_is_shared_by_those_who_live(base: FakeClock) -> None:
    """All relays together keep to the rate that each of them was given."""
    log = MemoryLog(partitions=4, clock=base)
    hosts = [Host(log, base, max_events_per_second=100.0) for _ in range(2)]
    async with playing(base, *hosts):
        await base.advance(5.0)
        assert [len(host.relay.places) for host in hosts] == [2, 2]
        for partition in range(4):
            records = [make_record(n, f"u{partition}") for n in range(1, 1_001)]
            await put(log, f"c.{partition}", *records, partition=partition)
        await base.advance(10.0)
        counts = [len(host.sent) for host in hosts]
        assert 900 <= sum(counts) <= 1_150
        assert max(counts) <= 600
        # One goes, and the other has the whole rate.
        await hosts[1].stop(base)
        before = len(hosts[0].sent)
        await base.advance(10.0)
        assert 850 <= len(hosts[0].sent) - before <= 1_200
