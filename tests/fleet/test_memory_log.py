"""The log in memory keeps what every log promises, and can be made to fail.

The contract can fail as well: each broken log here is caught by the test of its fault.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.exceptions import (
    ConfigurationError,
    LogError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.log import Chunk, Claim, Letter, Log, Place, StoredChunk
from amplitude_async.fleet.memory import MemoryClaim, MemoryLog
from amplitude_async.testing import FakeClock
from amplitude_async.testing.log_contract import (
    PLACE,
    LogContract,
    collect,
    ids_of,
    make_chunk,
    project_of,
    scene,
)

__all__: list[str] = []

MUCH = 1_000_000


class ContractOf(LogContract):
    """The contract, kept by logs in memory of some kind."""

    kind: type[MemoryLog] = MemoryLog

    def make(self, directory: Path) -> Log:
        """Make another handle on what the directory stands for."""
        logs: dict[Path, MemoryLog] = self.__dict__.setdefault("logs", {})
        if directory not in logs:
            logs[directory] = self.kind(project_of(directory), partitions=None)
        return logs[directory].handle()


class TestMemoryLog(ContractOf):
    """The log as it is."""


class FarLog(MemoryLog):
    """Takes a while to answer, as a server does, and longer at times."""

    async def reach(self) -> None:
        """Go a long way."""
        for _ in range(3):
            await asyncio.sleep(0)
        await super().reach()
        await asyncio.sleep(0.0005)


class TestFarLog(ContractOf):
    """The contract asks for nothing that only a log next door can do."""

    kind = FarLog


# Broken ones ----------------------------------------------------------------


class Disordered(MemoryLog):
    """Hands out each page from its end."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Backwards(MemoryClaim):
            async def read(self, max_bytes: int) -> list[StoredChunk]:
                return (await super().read(max_bytes))[::-1]

        return Backwards(self, self._store, place)


class Doubling(MemoryLog):
    """Takes the same id again."""

    async def publish(self, chunk: Chunk) -> None:
        self._store.ids.clear()
        await super().publish(chunk)


class Forgetful(MemoryLog):
    """Takes the same id again once its chunk was acknowledged."""

    async def publish(self, chunk: Chunk) -> None:
        if not any(shelf.chunks for shelf in self._store.shelves.values()):
            self._store.ids.clear()
        await super().publish(chunk)


class Generous(MemoryLog):
    """Gives a place to whoever asks."""

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        self._store.shelf(place).claim = None
        return await super().claim(place, holder, lease)


class Repeating(MemoryLog):
    """Reads from the beginning each time."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Again(MemoryClaim):
            async def read(self, max_bytes: int) -> list[StoredChunk]:
                self._read_up_to = 0
                return await super().read(max_bytes)

        return Again(self, self._store, place)


class Losing(MemoryLog):
    """Takes what was read for delivered when a place is given back."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Careless(MemoryClaim):
            async def release(self) -> None:
                chunks = self._shelf.chunks
                await self.acknowledge([p for p in chunks if p <= self._read_up_to])
                await super().release()

        return Careless(self, self._store, place)


class Vain(MemoryLog):
    """Never tells a holder that its place is another's."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Sure(MemoryClaim):
            async def renew(self) -> bool:
                await super().renew()
                return True

        return Sure(self, self._store, place)


class Undead(MemoryLog):
    """Lets one that lost its place read on."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Zombie(MemoryClaim):
            @property
            def _current(self) -> bool:
                return True

        return Zombie(self, self._store, place)


class Wistful(MemoryLog):
    """Keeps what somebody notes who has lost the place."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Late(MemoryClaim):
            async def note_progress(self, data: bytes) -> None:
                self._shelf.progress = data

        return Late(self, self._store, place)


class Silent(MemoryLog):
    """Keeps nothing of what a holder notes."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Deaf(MemoryClaim):
            async def note_progress(self, data: bytes) -> None:
                del data

        return Deaf(self, self._store, place)


class Snatching(MemoryLog):
    """Lets one that lost its place give it back."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Thief(MemoryClaim):
            async def release(self) -> None:
                await super().release()
                self._shelf.claim = None

        return Thief(self, self._store, place)


class Sweeping(MemoryLog):
    """Takes an acknowledgement for a watermark."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Watermark(MemoryClaim):
            async def acknowledge(self, positions: Sequence[int]) -> None:
                upto = max(positions, default=0)
                below = [p for p in self._shelf.chunks if p <= upto]
                await super().acknowledge(below)

        return Watermark(self, self._store, place)


class Swallowing(MemoryLog):
    """Loses what a cancelled read was about to answer."""

    def _make_claim(self, place: Place) -> MemoryClaim:
        class Hasty(MemoryClaim):
            async def read(self, max_bytes: int) -> list[StoredChunk]:
                found = await super().read(max_bytes)
                await asyncio.sleep(0)
                return found

        return Hasty(self, self._store, place)


class Passing(MemoryLog):
    """Stores behind the answer: what comes late is passed over by readers."""

    async def publish(self, chunk: Chunk) -> None:
        position = self._store.next_position()
        await self.reach()
        for _ in range("abcd".find(chunk.id[0]) * 2):
            await asyncio.sleep(0)
        shelf = self._store.shelf(chunk.place)
        stored = StoredChunk(position, chunk.id, chunk.data, 1e10)
        shelf.chunks[position] = stored, chunk.events
        shelf.chunks = dict(sorted(shelf.chunks.items()))
        for waiting in shelf.waiting:
            waiting.set()


class Immortal(MemoryLog):
    """Never takes a lease for run out."""

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        return await super().claim(place, holder, lease * 1e6)

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        return await super().announce(destination, holder, lease * 1e6)


class Hoarding(MemoryLog):
    """Keeps the same letter twice."""

    async def bury(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            at = len(self._store.letters)
            await super().bury([letter._replace(key=f"{letter.key}-{at}")])


Check = Callable[[ContractOf, Path], None]
BROKEN: list[tuple[type[MemoryLog], Check]] = [
    (Disordered, ContractOf.test_order_is_that_of_publishing),
    (Disordered, ContractOf.test_many_chunks_are_drained_in_order),
    (Doubling, ContractOf.test_an_id_is_stored_once),
    (Doubling, ContractOf.test_a_publish_may_be_cancelled_anywhere),
    (Forgetful, ContractOf.test_an_id_is_stored_once),
    (Generous, ContractOf.test_of_many_one_has_the_place),
    (Generous, ContractOf.test_who_renews_keeps_the_place),
    (Repeating, ContractOf.test_a_chunk_is_read_once_a_claim),
    (Repeating, ContractOf.test_reading_keeps_to_its_bytes),
    (Losing, ContractOf.test_what_is_released_is_free),
    (Vain, ContractOf.test_who_let_a_lease_run_out_does_no_harm),
    (Undead, ContractOf.test_who_let_a_lease_run_out_does_no_harm),
    (Wistful, ContractOf.test_who_lost_a_place_notes_nothing),
    (Silent, ContractOf.test_what_a_holder_notes_the_next_one_has),
    (Snatching, ContractOf.test_who_let_a_lease_run_out_does_no_harm),
    (Sweeping, ContractOf.test_acknowledging_takes_no_order),
    (Swallowing, ContractOf.test_a_read_may_be_cancelled_anywhere),
    (Passing, ContractOf.test_each_producer_keeps_its_order),
    (Immortal, ContractOf.test_the_dead_are_not_counted),
    (Immortal, ContractOf.test_the_place_of_the_dead_is_inherited),
    (Hoarding, ContractOf.test_letters_are_kept_once_and_in_order),
]


@pytest.mark.parametrize(
    ("kind", "check"),
    BROKEN,
    ids=[f"{kind.__name__}-{check.__name__}" for kind, check in BROKEN],
)
def test_the_contract_fails_a_broken_log(
    kind: type[MemoryLog],
    check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each fault is found by the test of what it breaks."""
    monkeypatch.setattr(scene, "PATIENCE", 0.7)  # what is to come never comes

    class Broken(ContractOf):
        pass

    Broken.kind = kind
    with pytest.raises((AssertionError, TimeoutError)):
        check(Broken(), tmp_path)


# What only this one does ----------------------------------------------------


async def test_a_log_that_is_refused_stores_nothing(memory_log: MemoryLog) -> None:
    """Until it is no longer told to."""
    memory_log.refuse(LogUnreachableError("gone"))
    with pytest.raises(LogUnreachableError, match="gone"):
        await memory_log.publish(make_chunk(1))
    memory_log.refuse(None)
    await memory_log.publish(make_chunk(2))

    claim = await memory_log.claim(PLACE, "relay", 5)
    assert claim is not None
    assert ids_of(await claim.read(MUCH)) == ids_of([make_chunk(2)])


async def test_a_lost_answer_leaves_a_chunk(memory_log: MemoryLog) -> None:
    """It is stored, and the error is that of uncertainty."""
    memory_log.lose_answers(True)
    with pytest.raises(LogError) as caught:
        await memory_log.publish(make_chunk(1))
    assert type(caught.value) is LogError
    memory_log.lose_answers(False)
    await memory_log.publish(make_chunk(1))

    [backlog] = await memory_log.backlog()
    assert backlog.chunks == 1


async def test_a_log_that_stalls_answers_nobody(memory_log: MemoryLog) -> None:
    """Of its handles only this one; what was asked meanwhile is done later."""
    claim = await memory_log.claim(PLACE, "relay", 5)
    assert claim is not None
    memory_log.stall()
    reading = asyncio.ensure_future(claim.read(MUCH))
    asked: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(memory_log.publish(make_chunk(1))),
        asyncio.ensure_future(claim.renew()),
        asyncio.ensure_future(memory_log.backlog()),
    ]
    done, _ = await asyncio.wait([reading, *asked], timeout=0.02)
    assert not done
    other = memory_log.handle()
    await other.open()
    assert await other.letters(0, 1) == []

    memory_log.go_on()
    await asyncio.gather(*asked)
    found = await reading + await claim.read(MUCH)
    assert ids_of(found) == ids_of([make_chunk(1)])


async def test_a_full_log_takes_no_more() -> None:
    """What it has already is no new chunk; acknowledging makes room."""
    log = MemoryLog(max_bytes=25)
    await log.open()
    chunks = [make_chunk(n, data=b"x" * 10) for n in range(3)]
    await log.publish(chunks[0])
    await log.publish(chunks[1])
    with pytest.raises(LogFullError, match="20 of 25"):
        await log.publish(chunks[2])
    await log.publish(chunks[0])
    claim = await log.claim(PLACE, "relay", 5)
    assert claim is not None
    [first, _] = await claim.read(MUCH)
    await claim.acknowledge([first.position])
    await log.publish(chunks[2])

    assert ids_of(await collect(claim, 1)) == ids_of([chunks[2]])


async def test_leases_are_told_by_its_clock() -> None:
    """A test moves it, and nobody waits."""
    clock = FakeClock()
    log = MemoryLog(clock=clock)
    await log.open()
    claim = await log.claim(PLACE, "old", 10)
    assert claim is not None
    await clock.advance(9)
    assert await log.claim(PLACE, "heir", 10) is None
    assert await claim.renew()
    await clock.advance(9)
    assert await log.claim(PLACE, "heir", 10) is None
    await clock.advance(2)

    assert await log.claim(PLACE, "heir", 10) is not None
    assert not await claim.renew()


async def test_a_holder_may_claim_again(memory_log: MemoryLog) -> None:
    """Its older claim is nobody's then, and reading begins anew."""
    await memory_log.publish(make_chunk(1))
    old = await memory_log.claim(PLACE, "relay", 5)
    assert old is not None
    assert len(await old.read(MUCH)) == 1
    new = await memory_log.claim(PLACE, "relay", 5)
    assert new is not None

    assert not await old.renew()
    assert len(await new.read(MUCH)) == 1


@pytest.mark.parametrize("project", ["", "Web", "a b", "a.b", "x" * 41, "a\n"])
def test_a_name_that_is_none_is_refused(project: str) -> None:
    """By name, with what may stand in it."""
    with pytest.raises(ConfigurationError, match="project="):
        MemoryLog(project)


@pytest.mark.parametrize("partition", [-1, 1])
async def test_a_place_that_is_not_there_is_refused(
    memory_log: MemoryLog, partition: int
) -> None:
    """Nobody would ever read it."""
    with pytest.raises(LogRefusedError, match="1 partitions"):
        await memory_log.publish(make_chunk(1, Place("amplitude", partition)))


async def test_what_is_not_open_says_so() -> None:
    """And how to open it."""
    with pytest.raises(LogError, match="open"):
        await MemoryLog().publish(make_chunk(1))
