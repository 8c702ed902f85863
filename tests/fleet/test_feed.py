"""What a relay has in hand: chunks come in, and are owed once all is decided."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async.exceptions import DamagedChunkError, StorageError
from amplitude_async.fleet.codec import encode
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import StoredChunk
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.fleet.tenure import Tenure
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.testing import FakeClock
from amplitude_async.testing.log_contract import PLACE
from tests.fleet.scene import make_record

__all__: list[str] = []


class Engine:
    """A host that numbers events."""

    def __init__(self) -> None:
        self.next = 1
        self.ahead = 0
        self.looks = 0

    def arrived(self, records: int) -> int:
        """Give numbers."""
        first, self.next = self.next, self.next + records
        return first

    def look_again(self) -> None:
        """Be told to look."""
        self.looks += 1

    def share(self, part: float) -> None:
        """Be told of a part of the rate."""


class Scene:
    """A feed, and one claim."""

    def __init__(self) -> None:
        self.feed = Feed(MemoryLog(), "amplitude")
        self.clock = FakeClock()
        self.feed.listen(Engine())
        self.tenure = self.claim()

    def claim(self) -> Tenure:
        """Claim the place anew."""
        lease = Lease(10.0, self.clock)
        lease.begin(lease.moment())
        tenure = Tenure(PLACE, lease)
        self.feed.begin(tenure)
        return tenure

    def push(self, position: int, *numbers: int) -> None:
        """Let a chunk come."""
        records = [make_record(n, f"user-{n % 3}") for n in numbers]
        chunk = StoredChunk(position, f"c.{position}", encode(records), 1e12)
        self.feed.push(self.tenure, chunk)

    async def fetched(self) -> list[Record]:
        """Read all that is undecided."""
        return await self.feed.fetch(0, 10_000, 10**9)

    @property
    def owed(self) -> list[int]:
        """Chunks that are to be acknowledged."""
        return self.tenure.debts[0]


async def test_a_chunk_is_owed_once_its_last_event_is_decided() -> None:
    """And not before, in whatever order they are decided."""
    scene = Scene()
    scene.push(7, 1, 2, 3)
    records = await scene.fetched()
    await scene.feed.settle([records[2].id])
    await scene.feed.settle([records[0].id, records[0].id, 999])
    assert (scene.owed, await scene.feed.size()) == ([], 1)
    await scene.feed.settle([records[1].id])
    assert (scene.owed, await scene.feed.size()) == ([7], 0)
    assert await scene.fetched() == []


async def test_pages_are_in_order_and_bounded() -> None:
    """By number and by bytes; one event at least."""
    scene = Scene()
    scene.push(1, 1, 2, 3)
    scene.push(2, 4, 5)
    feed = scene.feed
    assert [r.id for r in await feed.fetch(0, 2, 10**9)] == [1, 2]
    assert [r.id for r in await feed.fetch(2, 10, 10**9)] == [3, 4, 5]
    assert [r.id for r in await feed.fetch(3, 10, 1)] == [4]
    await feed.settle([3, 4])
    assert [r.id for r in await feed.fetch(2, 10, 10**9)] == [5]


async def test_a_chunk_without_events_is_owed_at_once() -> None:
    """Nobody would ever decide it."""
    scene = Scene()
    scene.push(3)
    assert scene.owed == [3]


async def test_what_is_damaged_changes_nothing() -> None:
    """It raises, and nothing of it is in hand."""
    scene = Scene()
    with pytest.raises(DamagedChunkError):
        scene.feed.push(scene.tenure, StoredChunk(1, "c", b"AXC", 0.0))
    assert await scene.feed.size() == 0


async def test_an_event_is_not_younger_than_its_chunk() -> None:
    """A producer's clock may be ahead."""
    scene = Scene()
    record = make_record(1)._replace(accepted_at=5_000.0)
    chunk = StoredChunk(1, "c", encode([record]), 4_000.0)
    scene.feed.push(scene.tenure, chunk)
    assert [r.accepted_at for r in await scene.fetched()] == [4_000.0]


async def test_leaving_sends_what_was_begun_and_nothing_else() -> None:
    """A chunk of which one event went out is finished; others are left."""
    scene = Scene()
    scene.push(1, 1, 2)
    scene.push(2, 3)
    first = await scene.fetched()
    assert scene.feed.may_send(first[:1])
    scene.tenure.leave()
    assert scene.feed.may_send(first[1:2])
    assert not scene.feed.may_send(first[2:])
    assert [r.id for r in scene.feed.lapsed()] == [3]
    scene.feed.take_back([3])
    assert await scene.feed.size() == 2
    await scene.feed.settle([1, 2])
    assert scene.owed == [1]


async def test_leaving_finishes_what_comes_before_a_begun_chunk() -> None:
    """A user's later events in the begun one would overtake those that were left."""
    scene = Scene()
    scene.push(1, 0)
    scene.push(2, 1, 3)
    scene.push(3, 6)
    waiting, other, same, last = await scene.fetched()
    assert scene.feed.may_send([other])
    scene.tenure.leave()
    assert [r.id for r in scene.feed.lapsed()] == [last.id]
    assert not scene.feed.may_send([last])
    assert scene.feed.may_send([waiting])
    assert scene.feed.may_send([same])
    scene.tenure.leave()
    scene.tenure.give_up()
    assert len(scene.feed.lapsed()) == 4


async def test_a_lost_claim_sends_nothing_and_leaves_all() -> None:
    """And so it stays, though the clock be put right."""
    scene = Scene()
    scene.push(1, 1, 2)
    records = await scene.fetched()
    assert scene.feed.may_send(records)
    await scene.clock.advance(9.5)
    assert not scene.feed.may_send(records)
    assert [r.id for r in scene.feed.lapsed()] == [1, 2]
    scene.feed.take_back([1, 2])
    assert (scene.owed, await scene.feed.size(), scene.tenure.lost) == ([], 0, True)


async def test_a_feed_takes_no_appends() -> None:
    """Events come from the log."""
    with pytest.raises(StorageError, match="handover"):
        await Scene().feed.append([make_record(1)])


@given(st.integers(0, 2**32))
async def test_whatever_happens_each_event_is_decided_once(seed: int) -> None:
    """Claims come and go, chunks come again: none is decided twice, none is forgotten.

    So it is where nobody else has the place meanwhile.
    """
    dice, scene = random.Random(seed), Scene()
    log = {n: range(n * 10, n * 10 + dice.randint(1, 6)) for n in range(1, 8)}
    decided: list[bytes] = []
    while log:
        scene.tenure = scene.claim()
        paid = scene.owed
        for position in scene.owed:
            log.pop(position, None)
        scene.tenure.paid(positions=paid, letters=len(scene.tenure.debts[1]))
        for position, numbers in list(log.items())[: dice.randint(0, 7)]:
            scene.push(position, *numbers)
        records = await scene.fetched()
        dice.shuffle(records)
        for record in records[: dice.randint(0, len(records))]:
            decided.append(record.body)
            if dice.random() < 0.3:
                await scene.feed.bury([DeadLetter(record, 400, "bad", 0.0)])
            await scene.feed.settle([record.id])
        scene.tenure.lose()
        # Some may be in a request, and are decided or taken back after all others.
        gone = list(scene.feed.lapsed())
        dice.shuffle(gone)
        for record in gone:
            if dice.random() < 0.2:
                decided.append(record.body)
                await scene.feed.settle([record.id])
            else:
                scene.feed.take_back([record.id])
        assert await scene.feed.size() == 0
        scene.feed.end(scene.tenure)
    assert len(decided) == len(set(decided))


async def test_letters_have_the_key_of_their_place_in_the_chunk() -> None:
    """Whichever part of the chunk came, and whoever rejects it: the same key."""
    scene = Scene()
    scene.push(4, 1, 2, 3)
    records = await scene.fetched()
    await scene.feed.settle([records[0].id])
    scene.tenure.lose()
    scene.feed.take_back([record.id for record in records[1:]])
    scene.feed.end(scene.tenure)
    scene.tenure = scene.claim()
    scene.push(4, 1, 2, 3)
    again = await scene.fetched()
    assert [r.body for r in again] == [r.body for r in records[1:]]
    await scene.feed.bury([DeadLetter(again[1], 400, "bad", 0.0)])
    await scene.feed.settle([record.id for record in again])
    positions, letters = scene.tenure.debts
    assert (positions, [letter.key for letter in letters]) == ([4], ["c.4.2"])


async def heir_of(scene: Scene, written: bytes | None) -> Feed:
    """Make the feed of another relay, which has read what was left."""
    assert written is not None
    heir = Feed(MemoryLog(), "amplitude")
    heir.listen(Engine())
    lease = Lease(10.0, scene.clock)
    tenure = Tenure(PLACE, lease)
    heir.begin(tenure, written)
    records = [make_record(n, f"user-{n % 3}") for n in (1, 2, 3)]
    heir.push(tenure, StoredChunk(1, "c.1", encode(records), 1e12))
    return heir


async def test_what_was_left_to_others_is_not_told_as_decided() -> None:
    """Though another event of its chunk is in a request as yet that nobody answers."""
    scene = Scene()
    scene.push(1, 1, 2, 3)
    one, two, three = await scene.fetched()
    assert scene.feed.may_send([two])
    await scene.feed.settle([one.id])
    scene.tenure.leave()
    scene.tenure.give_up()
    scene.feed.take_back([three.id])
    heir = await heir_of(scene, scene.feed.progress_of(scene.tenure))
    left = [record.body for record in await heir.fetch(0, 10, 10**9)]
    assert left == [two.body, three.body]
    await scene.feed.settle([two.id])
    heir = await heir_of(scene, scene.feed.progress_of(scene.tenure))
    assert [r.body for r in await heir.fetch(0, 10, 10**9)] == [three.body]


async def test_a_letter_keeps_back_no_chunk_but_its_own() -> None:
    """While there is no room for it; and its chunk is told to the next holder."""
    scene = Scene()
    scene.push(1, 1, 2, 3)
    scene.push(2, 4)
    one, bad, three, other = await scene.fetched()
    await scene.feed.bury([DeadLetter(bad, 400, "bad", 0.0)])
    await scene.feed.settle([one.id, bad.id, three.id, other.id])
    assert (scene.owed, scene.tenure.payable) == ([1, 2], [2])
    scene.feed.read_all(scene.tenure)
    written = scene.feed.progress_of(scene.tenure)
    heir = await heir_of(scene, written)
    assert [r.body for r in await heir.fetch(0, 10, 10**9)] == [bad.body]
    scene.tenure.paid(letters=1)
    assert scene.tenure.payable == [1, 2]


async def test_a_claim_that_comes_again_still_owes_its_letters() -> None:
    """Its chunk is not acknowledged before they are kept, nor its event told."""
    scene = Scene()
    scene.push(1, 1, 2, 3)
    one, bad, three = await scene.fetched()
    await scene.feed.bury([DeadLetter(bad, 400, "bad", 0.0)])
    await scene.feed.settle([one.id, bad.id])
    scene.tenure.lose()
    scene.feed.take_back([three.id])
    scene.feed.end(scene.tenure)
    scene.tenure = scene.claim()
    scene.push(1, 1, 2, 3)
    [again] = await scene.fetched()
    assert again.body == three.body
    await scene.feed.settle([again.id])
    assert (scene.owed, scene.tenure.payable) == ([1], [])
    heir = await heir_of(scene, scene.feed.progress_of(scene.tenure))
    assert [r.body for r in await heir.fetch(0, 10, 10**9)] == [bad.body]


async def test_a_last_look_at_a_place_that_is_left_forgets_nothing() -> None:
    """It was under way when what was in hand went back."""
    scene = Scene()
    scene.push(1, 1, 2, 3)
    one, two, three = await scene.fetched()
    await scene.feed.settle([one.id])
    scene.tenure.leave()
    scene.tenure.give_up()
    scene.feed.take_back([two.id, three.id])
    scene.feed.read_all(scene.tenure)
    heir = await heir_of(scene, scene.feed.progress_of(scene.tenure))
    left = [record.body for record in await heir.fetch(0, 10, 10**9)]
    assert left == [two.body, three.body]


class Fleet:
    """Relays one after the other that die, leave and note at random, and their log."""

    def __init__(self, seed: int, *, dies: bool) -> None:
        self.dice = random.Random(seed)
        self.dies = dies
        self.chunks = {n: range(n * 10, n * 10 + n % 5 + 1) for n in range(1, 7)}
        self.everything = {n for numbers in self.chunks.values() for n in numbers}
        self.note = b""
        self.letters: set[str] = set()
        self.delivered: list[int] = []
        self.scene = Scene()

    async def decide(self, records: list[Record]) -> None:
        """Deliver events, or reject them."""
        for record in records:
            if self.dice.random() < 0.2:
                await self.scene.feed.bury([DeadLetter(record, 400, "bad", 0.0)])
            else:
                self.delivered.append(json.loads(record.body)["n"])
            await self.scene.feed.settle([record.id])

    def pay(self, *, letters: bool) -> None:
        """Keep letters, where there is room, and forget chunks."""
        tenure = self.scene.tenure
        if letters:
            owed = tenure.debts[1]
            self.letters.update(letter.key for letter in owed)
            tenure.paid(letters=len(owed))
        for position in tenure.payable:
            self.chunks.pop(position, None)
        tenure.paid(tenure.payable)

    def tell(self) -> None:
        """Note what the next is to know."""
        self.note = self.scene.feed.progress_of(self.scene.tenure)

    async def life(self) -> None:
        """Let a relay claim the place, work, and leave or die at any moment."""
        scene, dice = self.scene, self.dice
        scene.tenure = Tenure(PLACE, Lease(10.0, scene.clock))
        scene.feed.begin(scene.tenure, self.note)
        if scene.tenure.owes:
            self.pay(letters=True)
        for position, numbers in list(self.chunks.items()):
            scene.push(position, *numbers)
        leaves, flight = False, list[Record]()
        for _ in range(dice.randint(0, 12)):
            if self.dies and dice.random() < 0.05:
                self.scene = Scene()
                return
            waiting = [r for r in await scene.fetched() if r not in flight]
            match dice.randrange(6):
                case 0:
                    self.pay(letters=dice.random() < 0.5)
                case 1:
                    self.tell()
                case 2:
                    scene.feed.read_all(scene.tenure)
                case 3 if waiting and not leaves:
                    flight.append(dice.choice(waiting))
                    assert scene.feed.may_send(flight[-1:])
                case 4 if flight:
                    await self.decide([flight.pop(dice.randrange(len(flight)))])
                case 5 if dice.random() < 0.4:
                    leaves = True
                    scene.tenure.leave()
                    scene.tenure.give_up()
                    scene.feed.take_back([r.id for r in waiting if dice.random() < 0.7])
        await self.decide(flight)
        scene.tenure.leave()
        scene.tenure.give_up()
        scene.feed.take_back([record.id for record in scene.feed.lapsed()])
        self.pay(letters=dice.random() < 0.5)
        self.tell()
        scene.feed.end(scene.tenure)
        self.scene = Scene()


@given(st.integers(0, 2**32), st.booleans())
async def test_whatever_becomes_of_relays_nothing_is_told_that_is_not_so(
    seed: int,
    dies: bool,
) -> None:
    """Each event is delivered or a kept letter, and comes once where no relay dies."""
    fleet = Fleet(seed, dies=dies)
    for _ in range(6):
        await fleet.life()
    scene = fleet.scene
    scene.feed.begin(scene.tenure, fleet.note)
    for position, numbers in list(fleet.chunks.items()):
        scene.push(position, *numbers)
    await fleet.decide(await scene.fetched())
    fleet.pay(letters=True)
    assert not fleet.chunks
    rejected = {int(c) * 10 + int(i) for _, c, i in map(split, fleet.letters)}
    assert {*fleet.delivered, *rejected} == fleet.everything
    if not dies:
        assert len(fleet.delivered) == len(set(fleet.delivered))
        assert not rejected & set(fleet.delivered)


def split(key: str) -> list[str]:
    """Take a letter's key apart."""
    return key.split(".")
