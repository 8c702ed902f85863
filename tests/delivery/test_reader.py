"""What comes out of a storage, when, and who waits for whom: in virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async import Config
from amplitude_async.delivery.endpoint import Response
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import Record, Storage
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

DOWN = Response(503)
HOUR = 3_600.0


class Pile(Storage):
    """A durable storage on a dict; others may leave something beside it."""

    def __init__(self) -> None:
        self.pile: dict[int, Record] = {}
        self.left: list[list[Record]] = []
        """What dead neighbours left, in portions of one adoption each."""
        self.looked: list[float] = []
        """When somebody looked for it."""
        self.now: Callable[[], float] = float

    async def open(self, _: str, allot: Callable[[int], int]) -> int:
        """Number what is there."""
        old, self.pile = list(self.pile.values()), {}
        return self._number(old, allot)

    def _number(self, records: list[Record], allot: Callable[[int], int]) -> int:
        if records:
            first = allot(len(records))
            self.pile |= {
                first + i: r._replace(id=first + i) for i, r in enumerate(records)
            }
        return len(records)

    async def append(self, records: Sequence[Record]) -> None:
        """Keep records."""
        self.pile |= {record.id: record for record in records}

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read on, within both bounds."""
        page: list[Record] = []
        for number in sorted(n for n in self.pile if n > after)[:limit]:
            max_bytes -= len(self.pile[number].body)
            if page and max_bytes < 0:
                break
            page.append(self.pile[number])
        return page

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records."""
        for number in ids:
            self.pile.pop(number, None)

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over one portion."""
        self.looked.append(self.now())
        return self._number(self.left.pop(0), allot) if self.left else 0

    async def size(self) -> int:
        """Count the records."""
        return len(self.pile)

    async def close(self) -> None:
        """Keep the pile."""


class Server:
    """Takes events, is down, or throttles some users; remembers what it took."""

    def __init__(self) -> None:
        self.down = False
        self.most = 10**6
        """After so many events it is down."""
        self.slow: set[str] = set()
        self.asked: set[str] = set()
        """Whose events it was sent."""
        self.taken: list[str] = []

    def __call__(self, body: bytes) -> Response:
        """Answer a request."""
        events = json.loads(body)["events"]
        self.asked.update(event["user_id"] for event in events)
        if self.down or len(self.taken) >= self.most:
            return DOWN
        slow = [i for i, event in enumerate(events) if event["user_id"] in self.slow]
        if slow:
            throttled = {"code": 429, "throttled_events": slow}
            return Response(429, json.dumps(throttled).encode())
        self.taken += [event["insert_id"] for event in events]
        return Response(200)

    def of(self, user: str) -> list[int]:
        """List the numbers of a user's events, as they came."""
        names = [name.split("-") for name in self.taken]
        return [int(number) for owner, number in names if owner == user]


def record(user: str, number: int, size: int = 0) -> Record:
    """Return an encoded event."""
    event = {"user_id": user, "insert_id": f"{user}-{number}", "x": "x" * size}
    body = json.dumps(event).encode()
    wall = FakeClock().wall()
    return Record(0, body, user, user, None, f"{user}-{number}", wall)


class Rig:
    """An engine between a pile, a server and a clock."""

    def __init__(self, pile: Pile, **options: Any) -> None:
        self.pile, self.server, self.clock = pile, Server(), FakeClock()
        pile.now = self.clock.now
        config = Config(api_key="key", server_url="http://server.invalid/", **options)
        self.engine = engine_of(
            config,
            ScriptedTransport(then=self.server, clock=self.clock),
            self.clock,
            storage=pile,
        )

    async def track(self, user: str, *numbers: int, size: int = 0) -> None:
        """Accept events of a user."""
        for number in numbers:
            await self.engine.intake.accept(record(user, number, size))

    async def advance(self, seconds: float) -> None:
        """Let time pass; the account must add up."""
        await self.clock.advance(seconds)
        assert self.engine.stats.balanced, self.engine.stats


@asynccontextmanager
async def running(pile: Pile | None = None, **options: Any) -> AsyncIterator[Rig]:
    """Run an engine and leave nothing behind."""
    rig = Rig(pile or Pile(), **options)
    await rig.engine.start()
    await rig.clock.settle()
    try:
        yield rig
    finally:
        await rig.engine.shutdown(0.0)


# Small rooms ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"max_storage_capacity": 1}, {"max_storage_bytes": 1}],
    ids=["one event", "one byte"],
)
async def test_the_smallest_room_reads_one_event_at_a_time(
    options: dict[str, int],
) -> None:
    """However small memory is, what lies in the storage comes out, in order."""
    async with running(None, **options) as rig:
        rig.server.down = True
        await rig.track("ann", *range(20))
        assert rig.engine.stats.pending == 20
        rig.server.down = False
        await rig.advance(120.0)

        assert rig.server.of("ann") == list(range(20))
        assert rig.pile.pile == {}


async def test_a_small_room_is_refilled_as_soon_as_there_is_room() -> None:
    """Nothing waits for company that has no room to come."""
    async with running(max_storage_capacity=100, flush_interval=10.0) as rig:
        rig.server.down = True
        await rig.track("ann", *range(1_000))
        await rig.advance(60.0)
        rig.server.down = False
        await rig.advance(90.0)

        assert rig.server.of("ann") == list(range(1_000))


# Looking around ---------------------------------------------------------------------


async def test_a_busy_process_takes_over_by_the_clock() -> None:
    """Whatever the load: who dies leaves its events to those who live."""
    pile = Pile()
    async with running(pile) as rig:
        for second in range(100):
            await rig.track("ann", second)
            await rig.advance(1.0)
            if second == 40:
                pile.left = [[record("bob", 1)], [record("bob", 2)]]
        await rig.advance(30.0)

        # Where something was found there may be more: it looks again in a second.
        assert pile.looked == pytest.approx([30.0, 60.0, 61.0, 62.0, 92.0, 122.0])
        assert rig.server.of("bob") == [1, 2]
        assert rig.engine.stats.recovered == 2


async def test_looking_around_does_not_keep_from_reading() -> None:
    """One's own come first, before an adoption that takes for ever."""

    class Lost(Pile):
        async def adopt(self, _: Callable[[int], int]) -> int:
            await asyncio.Event().wait()
            return 0

    async with running(Lost(), max_storage_capacity=4) as rig:
        rig.server.down = True
        await rig.track("ann", *range(20))
        await rig.advance(100.0)
        rig.server.down = False
        await rig.advance(120.0)

        assert rig.server.of("ann") == list(range(20))


# Throttled users --------------------------------------------------------------------


async def outage(rig: Rig, users: dict[str, int]) -> None:
    """Track each user's events in turn while the server is down."""
    rig.server.down = True
    for number in range(max(users.values())):
        for user, count in users.items():
            if number < count:
                await rig.track(user, number)
    await rig.advance(30.0)
    rig.server.down = False


async def test_a_throttled_user_stops_nobody_else() -> None:
    """After an outage: an hour of throttling, and all others are delivered meanwhile.

    What memory cannot hold of that user goes back to the storage, nothing is lost, and
    everybody's order holds.
    """
    async with running(max_storage_capacity=100, flush_interval=1.0) as rig:
        rig.server.slow = {"ann"}
        users = {"ann": 1_000, "bob": 300, "cid": 300}
        await outage(rig, users)
        await rig.advance(300.0)
        assert rig.server.of("bob") == rig.server.of("cid") == list(range(300))
        assert rig.server.of("ann") == []

        for minute in range(60):
            await rig.track("ann", 1_000 + minute)
            await rig.track("bob", 300 + minute)
            await rig.advance(60.0)
            assert rig.server.of("bob")[-1] == 300 + minute
        stats = rig.engine.stats
        assert (stats.dropped, stats.rejected, stats.pending) == (0, 0, 1_060)
        assert stats.held <= 50

        rig.server.slow = set()
        await rig.advance(300.0)
        assert rig.server.of("ann") == list(range(1_060))
        assert rig.engine.stats.pending == 0
        assert rig.pile.pile == {}


async def test_many_throttled_users_stop_nobody_else() -> None:
    """Not even where each of them alone could fill what may be held."""
    async with running(max_storage_capacity=100, flush_interval=1.0) as rig:
        slow = [f"slow{number}" for number in range(20)]
        rig.server.slow = set(slow)
        await outage(rig, dict.fromkeys(slow, 100) | {"bob": 200})
        await rig.advance(600.0)
        assert rig.server.of("bob") == list(range(200))

        rig.server.slow = set()
        await rig.advance(900.0)
        assert all(rig.server.of(user) == list(range(100)) for user in slow)
        assert rig.engine.stats.dropped == 0
        assert rig.pile.pile == {}


async def test_throttled_users_do_not_wait_for_each_other() -> None:
    """Whoever is not throttled any more comes back, while the others still are."""
    async with running(max_storage_capacity=100, flush_interval=1.0) as rig:
        slow = [f"slow{number}" for number in range(20)]
        rig.server.slow = set(slow)
        await outage(rig, dict.fromkeys(slow, 100))
        await rig.advance(600.0)
        rig.server.asked.clear()
        await rig.advance(60.0)
        # Of whom something is in memory, and goes on being throttled.
        rig.server.slow = set(sorted(rig.server.asked)[:10])
        await rig.advance(1_800.0)
        free = [user for user in slow if user not in rig.server.slow]
        assert len(free) == 10
        assert all(rig.server.of(user) == list(range(100)) for user in free)
        assert rig.engine.stats.held <= 50

        rig.server.slow = set()
        await rig.advance(900.0)
        assert all(rig.server.of(user) == list(range(100)) for user in slow)
        assert rig.engine.stats.dropped == 0
        assert rig.pile.pile == {}


async def test_large_events_of_a_throttled_user_stop_nobody_else() -> None:
    """Bytes count as events do."""
    options = {"max_storage_bytes": 100_000, "flush_interval": 1.0}
    async with running(None, **options) as rig:
        rig.server.slow = {"ann"}
        rig.server.down = True
        for number in range(100):
            await rig.track("ann", number, size=9_000)
            await rig.track("bob", number, size=9_000)
        rig.server.down = False
        await rig.advance(600.0)
        assert rig.server.of("bob") == list(range(100))
        assert rig.engine.stats.queue_bytes <= 60_000

        rig.server.slow = set()
        await rig.advance(300.0)
        assert rig.server.of("ann") == list(range(100))


async def test_what_went_back_is_stored_at_the_end() -> None:
    """It is the next process's, in its order, and nothing of it was sent before."""
    async with running(max_storage_capacity=20, flush_interval=1.0) as rig:
        rig.server.slow = {"ann"}
        await outage(rig, {"ann": 200, "bob": 50})
        await rig.advance(300.0)
        await rig.engine.shutdown(0.0)
        assert rig.engine.stats.stored == 200
    async with running(rig.pile, max_storage_capacity=20, flush_interval=1.0) as rig:
        await rig.advance(300.0)

        assert rig.server.of("ann") == list(range(200))


async def test_a_last_call_lets_nothing_overtake_what_went_back() -> None:
    """Once more for what memory has; the rest stays behind it."""
    async with running(max_storage_capacity=20, flush_interval=1.0) as rig:
        rig.server.slow = {"ann"}
        await outage(rig, {"ann": 200, "bob": 50})
        await rig.advance(300.0)
        rig.server.slow = set()
        ending = asyncio.ensure_future(rig.engine.shutdown(5.0))
        await rig.advance(10.0)
        await ending
        first = rig.server.of("ann")
        assert first == list(range(len(first)))
        assert rig.engine.stats.stored == 200 - len(first)


@pytest.mark.parametrize("user", ["ann", None])
async def test_a_purge_reaches_what_went_back(user: str | None) -> None:
    """Nothing of it is sent, and its user goes on with what comes later."""
    async with running(max_storage_capacity=20, flush_interval=1.0) as rig:
        rig.server.slow = {"ann"}
        await outage(rig, {"ann": 200, "bob": 50})
        await rig.advance(300.0)
        assert await rig.engine.purge(user) == 200
        assert rig.engine.stats.pending == 0
        rig.server.slow = set()
        await rig.track("ann", 200)
        await rig.advance(60.0)

        assert rig.server.of("ann") == [200]
        assert rig.pile.pile == {}


# Order while writing fails ----------------------------------------------------------


class Halting(Pile):
    """A pile that cannot be written while it is full, or read while it is dark."""

    full = False
    dark = False

    async def append(self, records: Sequence[Record]) -> None:
        """Keep records, or fail."""
        if self.full:
            raise StorageError("no space left")
        await super().append(records)

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read on, or fail."""
        if self.dark:
            raise StorageError("too dark")
        return await super().fetch(after, limit, max_bytes)


async def spill(rig: Rig, count: int) -> None:
    """Track events while the server is down; it took some, so that memory has room."""
    rig.server.down = True
    await rig.track("ann", *range(count))
    rig.server.most, rig.server.down = 1, False
    await rig.advance(30.0)
    assert rig.server.taken
    assert rig.engine.stats.pending > 40


@pytest.mark.parametrize("recovers", [True, False])
async def test_order_holds_while_writing_fails_with_a_spill_unread(
    *, recovers: bool
) -> None:
    """What is in memory only waits for what lies in the storage; nothing is lost."""
    pile = Halting()
    async with running(pile, max_storage_capacity=40, flush_interval=1.0) as rig:
        await spill(rig, 200)
        pile.full = True
        await rig.track("ann", *range(200, 210))
        await rig.advance(1.0)
        rig.server.most = 10**6
        if recovers:
            pile.full = False
            await rig.advance(0.0)
        numbers = iter(range(210, 1_000))
        for _ in range(60):
            await rig.track("ann", next(numbers))
            await rig.advance(2.0)
        await rig.advance(60.0)

        assert rig.server.of("ann") == list(range(next(numbers)))
        assert rig.engine.stats.dropped == 0
        assert rig.engine.stats.pending == 0


async def test_what_cannot_be_read_blocks_nothing_that_is_in_memory() -> None:
    """Order is given up where the older ones may never come."""
    pile = Halting()
    async with running(pile, max_storage_capacity=40, flush_interval=1.0) as rig:
        await spill(rig, 100)
        pile.full = pile.dark = True
        await rig.track("bob", *range(5))
        rig.server.most = 10**6
        await rig.advance(60.0)
        assert rig.server.of("bob") == list(range(5))
        pile.full = pile.dark = False
        await rig.advance(60.0)
        assert rig.server.of("ann") == list(range(100))


async def test_only_what_comes_while_nothing_works_overtakes() -> None:
    """Order is given up for these, which lie nowhere else; all others keep theirs."""
    pile = Halting()
    async with running(pile, max_storage_capacity=40, flush_interval=1.0) as rig:
        await spill(rig, 100)
        pile.full = pile.dark = True
        await rig.track("ann", *range(100, 105))
        rig.server.most = 10**6
        await rig.advance(60.0)
        pile.full = pile.dark = False
        await rig.track("ann", *range(105, 110))
        await rig.advance(120.0)

        order = rig.server.of("ann")
        assert order.index(100) < order.index(99)
        others = [number for number in order if number not in range(100, 105)]
        assert others == [*range(100), *range(105, 110)]
        assert rig.engine.stats.dropped == 0


async def test_a_last_call_sends_what_lies_in_memory_only() -> None:
    """It would be lost; what lies in the storage is behind it then, in its order."""
    pile = Halting()
    async with running(pile, max_storage_capacity=40, flush_interval=1.0) as rig:
        await spill(rig, 100)
        pile.full = pile.dark = True
        await rig.track("ann", *range(100, 105))
        ending = asyncio.ensure_future(rig.engine.shutdown(5.0))
        rig.server.most = 10**6
        await rig.advance(10.0)
        stats = await ending
        first = rig.server.of("ann")
        assert set(range(100, 105)) <= set(first)
        assert (stats.dropped, stats.stored) == (0, 105 - len(first))
        pile.full = pile.dark = False
    async with running(pile, flush_interval=1.0) as rig:
        await rig.advance(60.0)
        rest = rig.server.of("ann")
        assert sorted(first + rest) == list(range(105))
        assert rest == sorted(rest)


async def test_a_purge_reaches_what_waits_for_the_storage() -> None:
    """It is nowhere sent, and nothing else is harmed."""
    pile = Halting()
    async with running(pile, max_storage_capacity=40, flush_interval=1.0) as rig:
        await spill(rig, 100)
        pile.full = True
        await rig.track("bob", *range(5))
        await rig.track("ann", 100)
        assert await rig.engine.purge("bob") == 5
        rig.server.most = 10**6
        await rig.advance(60.0)

        assert rig.server.of("bob") == []
        assert rig.server.of("ann") == list(range(101))


async def test_orphans_are_taken_over_while_writing_fails() -> None:
    """To take over is to read; what is delivered makes room on a full disk."""
    pile = Halting()
    async with running(pile) as rig:
        pile.full = True
        pile.left = [[record("bob", 1)], [record("bob", 2)]]
        for number in range(10):
            await rig.track("ann", number)
            await rig.advance(4.0)
        assert not rig.engine.stats.durable

        assert rig.server.of("bob") == [1, 2]
        assert rig.engine.stats.recovered == 2
