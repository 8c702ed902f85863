"""Whatever a storage does, its engine keeps the law, its deadlines and its session.

Every method raises, stalls, answers late, twice or nonsense, in virtual time.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from amplitude_async import Config, DropReason
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.stats import Stats
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import MemoryStorage, Record, Storage
from amplitude_async.storage.base import DeadLetter
from amplitude_async.testing import FakeClock, ScriptedTransport
from amplitude_async.testing.storage_contract import (
    HOSTILITIES,
    METHODS,
    HostileStorage,
)
from tests.conftest import engine_of

__all__: list[str] = []

STALLING = ("stall", "stubborn", "late")
FAULTS = (
    *HOSTILITIES,
    *(f"at once, {name}" for name in HOSTILITIES),
    *STALLING,
    "after",
    "twice",
    "nonsense",
)
DOWN = Response(503)
BAD = "bad"


class Rows(Storage):
    """A durable storage on a dict."""

    dead_letters = 100

    def __init__(self) -> None:
        self.rows: dict[int, Record] = {}
        self.letters: list[DeadLetter] = []
        self.is_open = False

    async def open(self, _: str, allot: Callable[[int], int]) -> int:
        """Go on with what is there, under new numbers."""
        self.is_open = True
        old, self.rows = list(self.rows.values()), {}
        for record in old:
            number = allot(1)
            self.rows[number] = record._replace(id=number)
        return len(old)

    async def append(self, records: Sequence[Record]) -> None:
        """Keep records."""
        self.rows |= {record.id: record for record in records}

    async def fetch(self, after: int, limit: int, _: int) -> list[Record]:
        """Read on."""
        return [r for n, r in sorted(self.rows.items()) if n > after][:limit]

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records."""
        for number in ids:
            self.rows.pop(number, None)

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters."""
        self.letters += letters

    async def size(self) -> int:
        """Count records."""
        return len(self.rows)

    async def close(self) -> None:
        """Keep all."""
        self.is_open = False


class Rig:
    """An engine between a hostile storage and a server that may be down."""

    def __init__(self, inner: Storage) -> None:
        self.down = False
        self.taken: Counter[str] = Counter()
        self.numbers = itertools.count()
        self.clock = FakeClock()
        self.storage = HostileStorage(inner)
        self.transport = ScriptedTransport(then=self.answer, clock=self.clock)
        config = Config(
            api_key="key",
            server_url="http://server.invalid/",
            max_storage_capacity=10,
            flush_interval=1.0,
            overflow_timeout=0.2,
        )
        self.engine = engine_of(
            config, self.transport, self.clock, storage=self.storage
        )

    def answer(self, body: bytes) -> Response:
        """Take what is not bad, if anything."""
        if self.down:
            return DOWN
        events = json.loads(body)["events"]
        bad = [i for i, event in enumerate(events) if event["user_id"] == BAD]
        if bad:
            answer = {"code": 400, "events_with_invalid_fields": {"user_id": bad}}
            return Response(400, json.dumps(answer).encode())
        self.taken.update(event["insert_id"] for event in events)
        return Response(200)

    async def track(self, count: int, user: str = "ann") -> None:
        """Accept events one after the other; each verb returns in time."""
        for record in self.records(count, user):
            await self.ends(self.engine.intake.accept(record), 2.0)

    def records(self, count: int, user: str = "ann") -> Iterator[Record]:
        """Encode events, each with a number of its own."""
        for number in itertools.islice(self.numbers, count):
            event = {"user_id": user, "insert_id": str(number)}
            body = json.dumps(event).encode()
            wall = self.clock.wall()
            yield Record(0, body, user, user, None, str(number), wall)

    async def ends(self, work: Coroutine[Any, Any, Any], within: float) -> None:
        """Let time pass until something ends, which it must in time."""
        task = asyncio.ensure_future(work)
        begun = self.clock.now()
        await self.clock.settle()
        while not task.done():
            assert self.clock.now() <= begun + within, "it is late"
            await self.advance(min(self.clock.next_timer or 0.05, 0.05))
        task.result()

    async def advance(self, seconds: float) -> None:
        """Let time pass; the account adds up."""
        await self.clock.advance(seconds)
        assert self.engine.stats.balanced, self.engine.stats

    async def shut_down(self) -> Stats:
        """Shut down within the deadline, whatever is stuck; a real second is much."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ending = asyncio.ensure_future(self.engine.shutdown(0.05))
        while not ending.done():
            assert loop.time() - began < 3.0, "it is late"
            await self.clock.advance(0.01)
            await asyncio.sleep(0.001)
        stats = ending.result()
        assert stats.balanced
        assert stats.pending == 0
        assert self.transport.closed
        return stats


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is stuck is given real seconds."""
    monkeypatch.setattr("amplitude_async.delivery.closing.GRACE", 0.01)
    monkeypatch.setattr("amplitude_async.delivery.engine.STOP_TIMEOUT", 0.05)
    monkeypatch.setattr("amplitude_async.delivery.journal.CLOSE_TIMEOUT", 0.01)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "open"])
async def test_whatever_a_method_does_the_law_holds(method: str, fault: str) -> None:
    """Verbs, flush and shutdown end in time, and once it works all is delivered."""
    rig = Rig(Rows())
    await rig.engine.start()
    rig.down = True
    await rig.track(15)
    rig.storage.script = {method: fault}
    await rig.track(5)
    rig.down = False
    await rig.track(3, BAD)
    await rig.advance(70.0)
    await rig.track(3)
    await rig.ends(rig.engine.flush(5.0), 5.1)
    rig.storage.let_go()
    await rig.advance(70.0)
    await rig.track(1)
    await rig.ends(rig.engine.flush(5.0), 5.1)
    stats = rig.engine.stats
    assert (stats.pending, stats.dropped_by_reason.get(DropReason.INTERNAL, 0)) == (
        0,
        0,
    )
    assert (
        stats.delivered
        == len(rig.taken)
        == stats.accepted - stats.rejected - (stats.dropped)
    )
    assert set(rig.taken.values()) == {1}
    await rig.shut_down()

    assert isinstance(rig.storage.inner, Rows)
    assert rig.storage.inner.rows == {}
    assert len({one.record.insert_id for one in rig.storage.inner.letters}) == (
        stats.rejected
    )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "open"])
@pytest.mark.parametrize("inner", [Rows, MemoryStorage])
async def test_whatever_a_method_does_the_end_comes(
    inner: type[Storage], method: str, fault: str
) -> None:
    """A shutdown amidst it says the truth of every event, and leaves nothing open."""
    rig = Rig(inner())
    await rig.engine.start()
    rig.down = True
    await rig.track(4)
    rig.storage.script = {method: fault}
    for record in rig.records(4):
        rig.engine.intake.offer_nowait(record)
    await rig.track(8)
    await rig.advance(31.0)
    await rig.shut_down()
    rig.storage.let_go()
    await rig.clock.settle()


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in (*STALLING, "twice")])
async def test_a_storage_that_does_not_open_says_so(fault: str) -> None:
    """Whatever it raises, the start raises StorageError, and can be tried again."""
    rig = Rig(Rows())
    rig.storage.script = {"open": fault}
    with pytest.raises(StorageError):
        await rig.engine.start()
    rig.storage.script = {}
    await rig.engine.start()
    await rig.track(3)
    await rig.ends(rig.engine.flush(5.0), 5.0)
    assert rig.engine.stats.delivered == 3
    await rig.shut_down()


async def test_what_can_never_be_forgotten_is_sent_once_by_each_process() -> None:
    """As on a disk without a free byte: a delivered event comes again after a start."""

    class Stuck(Rows):
        async def settle(self, _: Sequence[int]) -> None:
            raise StorageError("disk full")

    rows = Stuck()
    first = Rig(rows)
    await first.engine.start()
    first.down = True
    await first.track(30)
    first.down = False
    await first.track(10, "bob")
    await first.advance(100.0)
    assert (await first.shut_down()).delivered == len(first.taken) == 40
    assert set(first.taken.values()) == {1}

    second = Rig(rows)
    await second.engine.start()
    await second.advance(100.0)
    stats = await second.shut_down()
    assert stats.recovered == stats.delivered == 40
    assert second.taken == first.taken  # the same insert_ids


async def test_a_moment_of_slowness_costs_no_later_event() -> None:
    """With memory full nothing else takes them: the storage is asked at once."""
    rig = Rig(Rows())
    await rig.engine.start()
    rig.down = True
    await rig.track(15)
    rig.storage.script = {"append": "late"}
    await rig.track(1)
    rig.storage.let_go()
    rig.storage.script = {}
    slow_until = rig.clock.now()
    await rig.track(5)
    assert rig.clock.now() == slow_until
    assert rig.engine.stats.durable
    rig.down = False
    await rig.advance(70.0)
    stats = rig.engine.stats
    assert (stats.accepted, stats.delivered, stats.dropped) == (21, 20, 1)
    await rig.shut_down()


async def test_a_storage_that_stays_slow_holds_up_nobody_for_long() -> None:
    """After a few times it counts as stuck, and verbs return at once."""
    rig = Rig(Rows())
    await rig.engine.start()
    rig.down = True
    await rig.track(15)
    rig.storage.script = {"append": "late"}
    until = rig.clock.now() + 10.0
    while rig.clock.now() < until:
        await rig.track(1)
        await rig.advance(0.1)
    began = rig.clock.now()
    await rig.track(100)
    assert rig.clock.now() == began
    rig.storage.let_go()
    await rig.shut_down()


# A storage that takes its time to open ------------------------------------------------


async def test_a_slow_opening_holds_up_nobody() -> None:
    """Verbs go on in memory; what was there joins in once the storage is open."""
    rig = Rig(rows := Rows())
    old = next(rig.records(1, "old"))
    rows.rows[7] = old
    rig.storage.script = {"open": "late"}
    await rig.ends(rig.engine.start(), 0.3)
    assert not rig.engine.stats.durable
    await rig.track(3)
    await rig.track(1, BAD)
    await rig.ends(rig.engine.flush(5.0), 1.0)
    assert rig.engine.stats.delivered == 3

    rig.storage.let_go()
    await rig.advance(5.0)
    stats = rig.engine.stats
    assert stats.durable
    assert (stats.recovered, stats.delivered) == (1, 4)
    assert old.insert_id in rig.taken
    assert [letter.record.user_id for letter in rows.letters] == [BAD]
    rig.down = True
    await rig.track(2)
    stats = await rig.shut_down()
    assert stats.stored == len(rows.rows) == 2
    assert not rows.is_open


async def test_who_starts_waits_for_a_slow_opening() -> None:
    """An explicit start hears what became of it, and can be repeated."""
    rig = Rig(Rows())
    rig.storage.script = {"open": "late"}
    await rig.ends(rig.engine.start(), 0.3)
    with pytest.raises(StorageError, match="HostileStorage has not opened within 30 s"):
        await rig.ends(rig.engine.opened(), 30.5)
    rig.storage.let_go()
    await rig.ends(rig.engine.opened(), 0.1)
    assert rig.engine.stats.durable
    await rig.shut_down()


@pytest.mark.parametrize("fault", [f for f in FAULTS if f in HOSTILITIES])
async def test_an_opening_that_fails_late_is_tried_again(fault: str) -> None:
    """Nobody waits for it any more: it is told, and tried by the clock."""

    class Late(Rows):
        async def open(self, name: str, allot: Callable[[int], int]) -> int:
            if rig.clock.now() < begun + 10.0:
                over = asyncio.Event()
                rig.clock.call_later(5.0, over.set)
                await over.wait()
                error = HOSTILITIES[fault]()
                raise error
            return await super().open(name, allot)

    rig = Rig(rows := Late())
    begun = rig.clock.now()
    await rig.ends(rig.engine.start(), 0.3)
    await rig.track(2)
    await rig.advance(10.0)
    assert not rig.engine.stats.durable
    await rig.advance(30.0)
    assert rig.engine.stats.durable
    rig.down = True
    await rig.track(2)
    await rig.shut_down()
    assert len(rows.rows) == 2


@pytest.mark.parametrize("fault", STALLING)
@pytest.mark.parametrize("waits", [True, False])
async def test_what_opens_after_the_end_is_closed(fault: str, *, waits: bool) -> None:
    """A shutdown does not wait for it, and nothing stays open behind it."""
    rig = Rig(rows := Rows())
    rig.storage.script = {"open": fault}
    starting = asyncio.ensure_future(rig.engine.start())
    await rig.clock.settle()
    if waits:
        await rig.advance(0.3)
        await starting
        rig.down = True
        await rig.track(2)
    await rig.shut_down()
    rig.storage.let_go()
    await rig.clock.settle()
    await starting
    assert not rows.is_open
