"""A relay and a log that raises, hangs or answers late; and how it takes its leave."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.delivery.deciding.schedule import Schedule
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.exceptions import LogError, LogFullError
from amplitude_async.fleet import Relay
from amplitude_async.fleet.log import Backlog, Claim, Letter, Place, StoredChunk
from amplitude_async.fleet.memory import MemoryClaim, MemoryLog
from tests.fleet.scene import KEY, chunk_of, make_record, until

__all__: list[str] = []

PLACES = [Place("amplitude", 0), Place("amplitude", 1)]
EVENTS = 40
# No test waits for its end.
LONG_LEASE = 3_600.0


class FaultyClaim(MemoryClaim):
    """A claim whose every call may fail."""

    _log: "FaultyLog"

    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read on."""
        self._log.stumble("read")
        return await super().read(max_bytes)

    async def wait(self, timeout: float) -> None:
        """Wait."""
        self._log.stumble("wait")
        await super().wait(timeout)

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Acknowledge."""
        self._log.stumble("acknowledge")
        await super().acknowledge(positions)

    async def renew(self) -> bool:
        """Renew."""
        self._log.stumble("renew")
        return await super().renew()

    async def release(self) -> None:
        """Release."""
        self._log.stumble("release")
        await super().release()


class FaultyLog(MemoryLog):
    """A log that raises whatever a test says, where it says.

    Args:
        fails: what fails, and with what.
        times: so many times.
    """

    def __init__(
        self, fails: str = "", fault: BaseException | None = None, times: int = 1
    ) -> None:
        super().__init__(partitions=len(PLACES))
        self.fails = fails
        self.fault = fault
        self.times = times
        self.calls: Counter[str] = Counter()

    def stumble(self, what: str) -> None:
        """Fail, where it is time to."""
        self.calls[what] += 1
        if what == self.fails and self.fault is not None and self.times > 0:
            self.times -= 1
            raise self.fault

    def _make_claim(self, place: Place) -> MemoryClaim:
        return FaultyClaim(self, self._store, place)

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Announce."""
        self.stumble("announce")
        return await super().announce(destination, holder, lease)

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim."""
        self.stumble(f"claim {place.partition}")
        return await super().claim(place, holder, lease)

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Bury."""
        self.stumble("bury")
        await super().bury(letters)

    async def withdraw(self, destination: str, holder: str) -> None:
        """Withdraw."""
        self.stumble("withdraw")
        await super().withdraw(destination, holder)

    async def close(self) -> None:
        """Close."""
        self.stumble("close")
        await super().close()


def deliverer(emulator: Emulator, **options: Any) -> Amplitude:
    """Make a client for a relay."""
    given = {"flush_interval": 0.01, "retry_base_interval": 0.005, **options}
    return Amplitude(KEY, server_url=emulator.httpapi_url, trust_env=False, **given)


async def fill(log: MemoryLog, events: int = EVENTS) -> None:
    """Put events into every place, in chunks of ten."""
    await log.open()
    for place in PLACES:
        user = f"user-{place.partition}"
        records = [make_record(n + 1, user) for n in range(events // len(PLACES))]
        for start in range(0, len(records), 10):
            piece = records[start : start + 10]
            await log.publish(chunk_of(place, f"{place}.{start}", *piece))


async def backlog(log: MemoryLog) -> list[Backlog]:
    """Say what is in a log that nobody has open, and who has it."""
    await log.open()
    return await log.backlog()


def ours() -> list[str]:
    """Name the tasks of the package that are alive."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("amplitude_async")]


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    """Run a relay; it ends without an error, and nothing of it is left."""
    task = asyncio.create_task(relay.run())
    try:
        async with asyncio.timeout(20):
            yield
            relay.stop()
            await task
    finally:
        task.cancel()
    assert ours() == []
    for stats in relay.stats.values():
        assert stats.balanced
        assert stats.pending == 0


# What a log raises -----------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [asyncio.CancelledError("of its own"), RuntimeError("a fault"), LogError("away")],
    ids=["CancelledError", "RuntimeError", "LogError"],
)
@pytest.mark.parametrize(
    "call",
    [
        "announce",
        "claim 0",
        "read",
        "wait",
        "renew",
        "acknowledge",
        "release",
        "withdraw",
        "close",
    ],
)
async def test_whatever_a_log_raises_ends_no_task(
    emulator: Emulator, call: str, fault: BaseException
) -> None:
    """What failed is asked again, and the relay ends in good order."""
    log = FaultyLog(call, fault)
    await fill(log)
    relay = Relay(log, [deliverer(emulator)], lease=0.5)
    async with running(relay):
        await until(lambda: len(emulator.events) == EVENTS)
        shelves = log._store.shelves.values()  # noqa: SLF001 - nobody else asks
        await until(lambda: not any(shelf.chunks for shelf in shelves))
        if call == "renew":
            await until(lambda: log.calls[call] > len(PLACES))
    assert log.times == 0
    assert len(emulator.events) == EVENTS


@pytest.mark.parametrize("call", ["read", "wait", "acknowledge"])
@pytest.mark.parametrize("fault", [RuntimeError("a fault"), LogError("away")])
async def test_a_log_that_goes_on_failing_is_asked_with_pauses(
    emulator: Emulator, call: str, fault: BaseException
) -> None:
    """And a place whose reading fails is not claimed again and again."""
    log = FaultyLog(call, fault, times=10**9)
    await fill(log)
    relay = Relay(log, [deliverer(emulator)], lease=0.8)
    async with running(relay):
        await until(lambda: log.calls["announce"] >= 5)
        assert log.calls[call] < 100
        assert log.calls["claim 0"] == log.calls["claim 1"] == 1
        log.times = 0


async def test_a_rate_is_divided_though_a_place_cannot_be_claimed(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay with one place of two sends half of it, and has it told at once."""
    parts: list[float] = []
    monkeypatch.setattr(Schedule, "share", lambda _, part, __: parts.append(part))
    log = FaultyLog("claim 1", LogError("away"), times=10**9)
    relay = Relay(log, [deliverer(emulator, max_events_per_second=10)], lease=0.8)
    async with running(relay):
        await until(lambda: relay.places == [PLACES[0]])
        await until(lambda: log.calls["claim 1"] > 2)
        assert parts[-1] == 1 / 2


class StuckLog(FaultyLog):
    """A log that does not answer a claim of the first place."""

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim, or hang."""
        if place == PLACES[0]:
            await asyncio.Event().wait()
        return await super().claim(place, holder, lease)


async def test_a_place_that_cannot_be_claimed_keeps_no_other_waiting(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is the first that is asked for."""
    monkeypatch.setattr("amplitude_async.fleet.desk.random.shuffle", lambda _: None)
    monkeypatch.setattr("amplitude_async.fleet.bids.PATIENCE", 60.0)
    log = StuckLog()
    await fill(log)
    relay = Relay(log, [deliverer(emulator)], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: len(emulator.events) == EVENTS // 2)
        assert relay.places == PLACES[1:]


# Taking leave ----------------------------------------------------------------


async def full_of_letters(monkeypatch: pytest.MonkeyPatch) -> FaultyLog:
    """Make a log that has no room for letters, and in each place one that is due."""
    monkeypatch.setattr("amplitude_async.fleet.holding.DEBT_PATIENCE", 0.05)
    log = FaultyLog("bury", LogFullError("no room"), times=10**9)
    await fill(log)
    for place in PLACES:
        await log.publish(chunk_of(place, f"{place}.bad", make_record(1, "u")))
    return log


async def test_a_log_without_room_for_letters_holds_up_no_stop(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be set aside stays in its chunk, and the next relay has the place."""
    log = await full_of_letters(monkeypatch)
    relay = Relay(log, [deliverer(emulator)], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: log.calls["bury"] > len(PLACES))
    assert relay.gave_back
    places = await backlog(log)
    assert {place.holder for place in places} == {None}
    assert sum([place.chunks for place in places]) > 0


async def test_a_place_without_room_for_its_letters_can_be_another_relays(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept for ever by who neither reads it nor acknowledges."""
    log = await full_of_letters(monkeypatch)
    relay = Relay(log, [deliverer(emulator)], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: log.calls["bury"] > len(PLACES))
        await log.announce("amplitude", "another", LONG_LEASE)
        await until(lambda: log.calls["release"])
        assert await log.claim(PLACES[0], "another", LONG_LEASE) or await log.claim(
            PLACES[1], "another", LONG_LEASE
        )


class LateLog(FaultyLog):
    """A log that answers a claim when a test lets it, long after it was granted."""

    def __init__(self) -> None:
        super().__init__()
        self.granted = 0
        self.answers = asyncio.Event()

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim, and wait."""
        claim = await super().claim(place, holder, lease)
        self.granted += 1
        await self.answers.wait()
        return claim


async def test_a_place_that_is_claimed_at_the_last_moment_is_given_back(
    emulator: Emulator,
) -> None:
    """Who stops while the log grants a claim waits for the answer."""
    log = LateLog()
    await fill(log)
    relay = Relay(log, [deliverer(emulator)], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: log.granted)
        relay.stop()
        for _ in range(5):
            await asyncio.sleep(0)
        log.answers.set()
    assert relay.gave_back
    assert [place.holder for place in await backlog(log)] == [None, None]


async def test_a_claim_that_was_not_answered_is_not_called_given_back(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have the place after the lease, and the relay says so."""
    monkeypatch.setattr("amplitude_async.fleet.relay.LOOK_PATIENCE", 0.02)
    log = LateLog()
    await fill(log)
    relay = Relay(log, [deliverer(emulator)], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: log.granted)
    assert not relay.gave_back


async def test_a_request_under_way_is_finished_though_the_server_was_sick(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off at the end of patience, and not before: nothing comes twice."""
    monkeypatch.setattr("amplitude_async.fleet.desk.MOMENT", 0.01)
    log = FaultyLog()
    await fill(log)
    emulator.faults.add(Fault(status=503, count=4))
    emulator.faults.add(Fault(delay=0.5, count=None))
    client = deliverer(emulator, retry_max_interval=0.01)
    relay = Relay(log, [client], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: emulator.stats.requests > 4)
    assert relay.gave_back
    assert client.stats.delivered > 0
    emulator.faults.clear()
    async with running(Relay(log, [deliverer(emulator)], lease=LONG_LEASE)):
        await until(lambda: len(emulator.events) >= EVENTS)
    assert len(emulator.events) == EVENTS


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, headers={"Retry-After": "100"}, count=None),
        Fault(status=503, count=None),
    ],
    ids=["told to wait", "backs off"],
)
async def test_what_waits_for_a_sick_server_goes_back_at_once(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Though it could still be sent within the patience."""
    monkeypatch.setattr("amplitude_async.fleet.relay.LEAVE_PATIENCE", 200.0)
    log = FaultyLog()
    await fill(log)
    emulator.faults.add(fault)
    client = deliverer(emulator, retry_base_interval=30.0)
    relay = Relay(log, [client], lease=LONG_LEASE)
    async with running(relay):
        await until(lambda: client.stats.last_error)
    assert relay.gave_back
    assert client.stats.given_back == EVENTS
    assert sum([place.chunks for place in await backlog(log)]) == EVENTS // 10
