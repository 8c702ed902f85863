"""What every log of a fleet promises, as tests that anybody can run.

Give the class a way to make your log, and pytest does the rest::

    class TestMyLog(LogContract):
        def make(self, directory: Path) -> Log:
            return MyLog(url, project=project_of(directory))

The tests run their own event loop: no plugin for asyncio is needed. None decides by
timing: what is to come is waited for, with a limit that only a broken log reaches.
"""

# ruff: noqa: S101, ASYNC110 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
import gc
import hashlib
import warnings
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogError,
)
from amplitude_async.fleet.log import (
    Backlog,
    BuriedLetter,
    Chunk,
    Claim,
    Letter,
    Log,
    Place,
    StoredChunk,
)

__all__ = [
    "PLACE",
    "LogContract",
    "collect",
    "ids_of",
    "make_chunk",
    "make_letter",
    "project_of",
    "until",
]

PLACE = Place("amplitude", 0)
"""Where chunks go by default."""
PATIENCE = 15.0
"""Seconds after which what has not come is taken not to come."""
LONG = 60.0
"""A lease that does not run out in a test."""
ROUNDS = 8
"""So often a test tries what depends on who is faster."""
MUCH = 64 * 1024 * 1024
LOOK = 0.02
MEBI = 1024 * 1024


def make_chunk(
    number: int, place: Place = PLACE, *, data: bytes | None = None, boot: str = "boot"
) -> Chunk:
    """Make a chunk whose id and data follow from its number."""
    body = b"data %d of %b" % (number, boot.encode()) if data is None else data
    return Chunk(f"{boot}.{number}.0123456789abcdef", place, body, 5)


def make_letter(number: int, *, data: bytes = b"one event") -> Letter:
    """Make a dead letter; every other one is raw."""
    message = f"rejected: é {number}"
    return Letter(f"key-{number}", PLACE, data, 400, message, raw=bool(number % 2))


def project_of(directory: Path) -> str:
    """Name a project after a test's directory: no two tests share one."""
    return "t" + hashlib.sha256(str(directory).encode()).hexdigest()[:20]


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; a test fails where it never is."""
    async with asyncio.timeout(PATIENCE):
        while not await look():
            await asyncio.sleep(LOOK)


async def collect(
    claim: Claim, count: int, *, max_bytes: int = MUCH
) -> list[StoredChunk]:
    """Read until there are so many chunks, or none have come for long."""
    found: list[StoredChunk] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                chunks = await claim.read(max_bytes)
                found += chunks
                if not chunks:
                    await claim.wait(LOOK)
    return found


def ids_of(chunks: Sequence[StoredChunk | Chunk]) -> list[str]:
    """List the ids of chunks."""
    return [chunk.id for chunk in chunks]


class _Fleet:
    """How a test gets logs, as several processes have them."""

    lease = 0.3
    """Seconds: the shortest that the log keeps well."""
    secrets: Sequence[str] = ()
    """What no repr and no fingerprint may show, such as a password."""

    @abstractmethod
    def make(self, directory: Path) -> Log:
        """Make a log that is not open; those of one directory share a new project.

        Each call stands for another process.
        """

    async def discard(self, log: Log) -> None:
        """Take the project of an open log off its server, where it costs something."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run one test on a loop of its own; none may take long."""
        asyncio.run(asyncio.wait_for(test, 50.0))

    @asynccontextmanager
    async def fleet(
        self, directory: Path, *, handles: int = 1, partitions: int | None = None
    ) -> AsyncIterator[list[Log]]:
        """Set a project up and open it so many times."""
        logs = [self.make(directory) for _ in range(handles)]
        await logs[0].setup(partitions)
        try:
            for log in logs:
                await log.open()
            yield logs
        finally:
            await logs[0].open()
            await self.discard(logs[0])
            for log in logs:
                await log.close()

    async def claimed(
        self, log: Log, holder: str, place: Place = PLACE, *, lease: float = LONG
    ) -> Claim:
        """Claim a place that is free, or soon will be."""
        async with asyncio.timeout(PATIENCE):
            while (claim := await log.claim(place, holder, lease)) is None:
                await asyncio.sleep(LOOK)
        return claim


class _SetupPromises(_Fleet):
    """Set up once, opened by many."""

    def test_setup_is_safe_to_repeat(self, tmp_path: Path) -> None:
        """It says what it did, and nothing where nothing was to be done."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                assert await log.setup() == []
                assert await log.setup(1) == []
                assert (await log.open()).partitions == 1
            other = self.make(tmp_path / "other")
            assert await other.setup(3)
            assert await self.make(tmp_path / "other").setup() == []
            assert (await other.open()).partitions == 3
            await self.discard(other)
            await other.close()

        self.run(test())

    def test_many_may_set_up_at_once(self, tmp_path: Path) -> None:
        """As the hosts of a deployment do."""

        async def test() -> None:
            logs = [self.make(tmp_path) for _ in range(4)]
            await asyncio.gather(*(log.setup(2) for log in logs))
            for log in logs:
                assert (await log.open()).partitions == 2
            await self.discard(logs[0])
            for log in logs:
                await log.close()

        self.run(test())

    def test_a_log_that_was_not_set_up_is_refused(self, tmp_path: Path) -> None:
        """The error says what to do, and it works once that was done."""

        async def test() -> None:
            log = self.make(tmp_path)
            with pytest.raises(ConfigurationError, match=r"(?i)set.?up"):
                await log.open()
            await log.setup()
            await log.open()
            await self.discard(log)
            await log.close()

        self.run(test())

    def test_who_gives_up_opening_shuts_it_on_nobody(self, tmp_path: Path) -> None:
        """Several clients of a process open one log at once, and one is cancelled."""

        async def test() -> None:
            async with self.fleet(tmp_path):
                for number in range(ROUNDS):
                    log = self.make(tmp_path)
                    entering = [asyncio.create_task(log.enter()) for _ in range(2)]
                    entered, late = await asyncio.wait(
                        entering, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in late:
                        await cancel(task)
                    await log.publish(make_chunk(number))
                    for _ in entered:
                        await log.leave()

        self.run(test())

    def test_who_leaves_shuts_it_on_nobody(self, tmp_path: Path) -> None:
        """One client ends while the next one begins."""

        async def test() -> None:
            async with self.fleet(tmp_path):
                for number in range(ROUNDS):
                    log = self.make(tmp_path)
                    await log.enter()
                    leaving = asyncio.create_task(log.leave())
                    for _ in range(number):
                        await asyncio.sleep(0)
                    await log.enter()
                    await log.publish(make_chunk(number))
                    await leaving
                    await log.publish(make_chunk(number + ROUNDS))
                    await log.leave()

        self.run(test())

    def test_the_number_of_partitions_is_fixed(self, tmp_path: Path) -> None:
        """Another one is refused by name, and changes nothing."""

        async def test() -> None:
            async with self.fleet(tmp_path, partitions=2) as [log]:
                with pytest.raises(ConfigurationError, match=r"(?s)partitions.*3"):
                    await self.make(tmp_path).setup(3)
                assert (await log.open()).partitions == 2

        self.run(test())

    def test_there_is_one_partition_at_least(self, tmp_path: Path) -> None:
        """Numbers that cannot be are refused by name."""

        async def test() -> None:
            for number in (0, -1):
                with pytest.raises(ConfigurationError, match="partitions"):
                    await self.make(tmp_path).setup(number)

        self.run(test())

    def test_it_may_be_closed_twice_and_opened_again(self, tmp_path: Path) -> None:
        """What is asked of a closed log fails by name, or opens it."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [log, other]:
                await log.open()
                await log.publish(make_chunk(1))
                await log.close()
                await log.close()
                with suppress(LogError):
                    await log.publish(make_chunk(1))
                await log.open()
                await log.publish(make_chunk(2))
                claim = await self.claimed(other, "relay")
                expected = ids_of([make_chunk(n) for n in (1, 2)])
                assert ids_of(await collect(claim, 2)) == expected

        self.run(test())

    def test_it_outlives_its_loop(self, tmp_path: Path) -> None:
        """What was not closed is abandoned, and opened again on another loop."""
        log = self.make(tmp_path)

        async def begin() -> None:
            await log.setup()
            await log.open()
            await log.publish(make_chunk(1))

        async def go_on() -> None:
            await log.open()
            await log.publish(make_chunk(2))
            claim = await self.claimed(log, "relay")
            expected = ids_of([make_chunk(n) for n in (1, 2)])
            assert ids_of(await collect(claim, 2)) == expected
            await self.discard(log)
            await log.close()

        # Sockets of a loop that has ended are closed by the collector, and say so.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.run(begin())
            log.abandon()
            self.run(go_on())
            gc.collect()

    def test_projects_share_nothing(self, tmp_path: Path) -> None:
        """Nor do they look alike to a spool; two processes of one do."""

        async def test() -> None:
            async with (
                self.fleet(tmp_path / "one", handles=2) as [log, twin],
                self.fleet(tmp_path / "two") as [other],
            ):
                assert log.fingerprint() == twin.fingerprint()
                assert log.fingerprint() != other.fingerprint()
                await log.publish(make_chunk(1))
                await log.bury([make_letter(1)])
                claim = await self.claimed(other, "relay")
                assert await claim.read(MUCH) == []
                assert await other.letters(0, 10) == []
                assert await other.announce("amplitude", "a", LONG) == 1
                assert await log.announce("amplitude", "b", LONG) == 1

        self.run(test())

    def test_nothing_secret_is_shown(self, tmp_path: Path) -> None:
        """Neither data nor a password stands in a repr or a fingerprint."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                await log.publish(make_chunk(1, data=b"somebody@example.org"))
                claim = await self.claimed(log, "relay")
                await collect(claim, 1)
                shown = f"{log!r} {claim!r} {log.fingerprint()}"
                for secret in ("somebody", *self.secrets):
                    assert secret not in shown

        self.run(test())


class _ChunkPromises(_Fleet):
    """What is stored comes out, once and in order."""

    def test_bytes_come_out_as_they_went_in(self, tmp_path: Path) -> None:
        """Whatever they are and however many."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [producer, relay]:
                most = min(MEBI, producer.max_chunk_bytes)
                every = bytes(range(256))
                datas = [b"", b"\0", every, every * (most // 256), b"{}\r\n\r\n"]
                chunks = [make_chunk(n, data=data) for n, data in enumerate(datas)]
                for chunk in chunks:
                    await producer.publish(chunk)
                claim = await self.claimed(relay, "relay")
                found = await collect(claim, len(chunks))
                assert [(c.id, c.data) for c in found] == [
                    (c.id, c.data) for c in chunks
                ]
                positions = [chunk.position for chunk in found]
                assert positions == sorted(set(positions))
                times = [chunk.stored_at for chunk in found]
                assert times == sorted(times)
                assert times[0] > 1e9
                await claim.acknowledge(positions)
                await claim.release()
                heir = await self.claimed(producer, "heir")
                assert await heir.read(MUCH) == []

        self.run(test())

    def test_a_chunk_may_be_as_large_as_it_says(self, tmp_path: Path) -> None:
        """One byte more is refused by name, and was not stored."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                most = log.max_chunk_bytes
                if most > MUCH // 2:
                    pytest.skip("so much memory is not a test's")
                with pytest.raises(ChunkTooLargeError):
                    await log.publish(make_chunk(1, data=b"x" * (most + 1)))
                await log.publish(make_chunk(2, data=b"x" * most))
                claim = await self.claimed(log, "relay")
                found = await collect(claim, 1)
                assert ids_of(found) == ids_of([make_chunk(2)])
                assert len(found[0].data) == most

        self.run(test())

    def test_order_is_that_of_publishing(self, tmp_path: Path) -> None:
        """Also where several processes publish in turn."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=3) as [one, two, relay]:
                chunks = [make_chunk(n) for n in range(60)]
                for chunk, log in zip(chunks, [one, two, two] * 20, strict=True):
                    await log.publish(chunk)
                claim = await self.claimed(relay, "relay")
                assert ids_of(await collect(claim, 60)) == ids_of(chunks)

        self.run(test())

    def test_each_producer_keeps_its_order(self, tmp_path: Path) -> None:
        """While they publish at once and a relay reads; nothing is passed over."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=3) as [one, two, relay]:
                claim = await self.claimed(relay, "relay")

                async def produce(log: Log, boot: str) -> None:
                    for number in range(50):
                        await log.publish(make_chunk(number, boot=boot))

                reading = asyncio.create_task(collect(claim, 200))
                await asyncio.gather(
                    *(produce(one, boot) for boot in "ab"),
                    *(produce(two, boot) for boot in "cd"),
                )
                found = await reading
                assert len(found) == 200
                for boot in "abcd":
                    mine = [c.id for c in found if c.id.startswith(boot)]
                    chunks = [make_chunk(n, boot=boot) for n in range(50)]
                    assert mine == ids_of(chunks)

        self.run(test())

    def test_many_chunks_are_drained_in_order(self, tmp_path: Path) -> None:
        """Two thousand of one place, acknowledged as they are read."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [producer, relay]:
                for start in range(0, 2_000, 100):
                    chunks = [make_chunk(n) for n in range(start, start + 100)]
                    await asyncio.gather(*map(producer.publish, chunks))
                claim = await self.claimed(relay, "relay")
                found: list[StoredChunk] = []
                while len(found) < 2_000:
                    more = await collect(claim, 1, max_bytes=2_000)
                    assert more, f"{len(found)} of 2000 came"
                    found += more
                    await claim.acknowledge([chunk.position for chunk in more])
                numbers = [int(chunk.id.split(".")[1]) for chunk in found]
                # Those of a hundred were published at once, in no order.
                hundreds = [number // 100 for number in numbers]
                assert hundreds == sorted(hundreds)
                assert sorted(numbers) == list(range(2_000))
                assert await claim.read(MUCH) == []

        self.run(test())

    def test_places_are_independent(self, tmp_path: Path) -> None:
        """Each has its own holder, chunks and order."""

        async def test() -> None:
            places = [Place("amplitude", n) for n in range(2)]
            places += [Place("mparticle", n) for n in range(2)]
            async with self.fleet(tmp_path, handles=2, partitions=2) as [one, two]:
                for number in range(20):
                    place = places[number % 4]
                    await one.publish(make_chunk(number, place))
                for index, place in enumerate(places):
                    claim = await self.claimed((one, two)[index % 2], f"{place}", place)
                    assert claim.place == place
                    numbers = range(index, 20, 4)
                    found = await collect(claim, 5)
                    assert ids_of(found) == ids_of([make_chunk(n) for n in numbers])
                    assert await claim.read(MUCH) == []

        self.run(test())

    def test_an_id_is_stored_once(self, tmp_path: Path) -> None:
        """By whomever, at once or later, and also after it was acknowledged."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                claim = await self.claimed(one, "relay")
                first, second = make_chunk(1), make_chunk(2)
                await one.publish(first)
                await one.publish(first)
                await two.publish(first)
                await asyncio.gather(
                    *((one, two)[n % 2].publish(second) for n in range(6))
                )
                await one.publish(first)
                found = await collect(claim, 2)
                assert ids_of(found) == ids_of([first, second])
                await claim.acknowledge([chunk.position for chunk in found])
                await two.publish(first)
                await one.publish(second)
                await two.publish(make_chunk(3))
                assert ids_of(await collect(claim, 1)) == ids_of([make_chunk(3)])
                assert await claim.read(MUCH) == []

        self.run(test())

    def test_a_publish_may_be_cancelled_anywhere(self, tmp_path: Path) -> None:
        """Published again under its id, the chunk is there once and in its order."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [producer, relay]:
                delays = [0.0] * 12 + [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016]
                chunks = [make_chunk(n) for n in range(len(delays))]
                for ticks, (chunk, delay) in enumerate(
                    zip(chunks, delays, strict=True)
                ):
                    task = asyncio.ensure_future(producer.publish(chunk))
                    for _ in range(ticks):
                        await asyncio.sleep(0)
                    await asyncio.sleep(delay)
                    await cancel(task)
                    await producer.publish(chunk)
                claim = await self.claimed(relay, "relay")
                found = await collect(claim, len(chunks))
                assert ids_of(found) == ids_of(chunks)
                assert await claim.read(MUCH) == []

        self.run(test())


class _ReadingPromises(_Fleet):
    """What a claim hands out."""

    def test_a_chunk_is_read_once_a_claim(self, tmp_path: Path) -> None:
        """Reading goes on with what is new."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                claim = await self.claimed(log, "relay")
                assert await claim.read(MUCH) == []
                for start in (0, 3, 6):
                    chunks = [make_chunk(n) for n in range(start, start + 3)]
                    for chunk in chunks:
                        await log.publish(chunk)
                    assert ids_of(await collect(claim, 3)) == ids_of(chunks)
                    assert await claim.read(MUCH) == []

        self.run(test())

    def test_reading_keeps_to_its_bytes(self, tmp_path: Path) -> None:
        """But one chunk is read at least, where there is one."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                chunks = [make_chunk(n, data=b"x" * 1_000) for n in range(8)]
                for chunk in chunks:
                    await log.publish(chunk)
                claim = await self.claimed(log, "relay")
                found: list[StoredChunk] = []
                for limit in (1, 2_500, 2_500, 999, 1_000):
                    page = await collect(claim, 1, max_bytes=limit)
                    assert page
                    assert len(page) == 1 or sum(len(c.data) for c in page) <= limit
                    found += page
                found += await collect(claim, 8 - len(found))
                assert ids_of(found) == ids_of(chunks)

        self.run(test())

    def test_a_read_may_be_cancelled_anywhere(self, tmp_path: Path) -> None:
        """What it would have read is read by the next, and nothing is skipped."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [producer, relay]:
                chunks = [make_chunk(n) for n in range(40)]
                for chunk in chunks:
                    await producer.publish(chunk)
                claim = await self.claimed(relay, "relay")
                found: list[StoredChunk] = []
                for ticks, delay in enumerate([0.0] * 8 + [0.0005, 0.001, 0.003]):
                    task = asyncio.ensure_future(claim.read(30))
                    for _ in range(ticks):
                        await asyncio.sleep(0)
                    await asyncio.sleep(delay)
                    await cancel(task)
                    if not task.cancelled():
                        found += task.result()
                found += await collect(claim, len(chunks) - len(found))
                assert ids_of(found) == ids_of(chunks)

        self.run(test())

    def test_acknowledging_takes_no_order(self, tmp_path: Path) -> None:
        """Repeated or unknown is no error; the heir reads the rest, then the new."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                for number in range(8):
                    await one.publish(make_chunk(number))
                claim = await self.claimed(one, "relay")
                places = [c.position for c in await collect(claim, 6, max_bytes=1)]
                await claim.acknowledge([places[4], places[1]])
                await claim.acknowledge([])
                await claim.acknowledge([places[1], places[3], places[3], 10**12])
                await claim.release()
                await one.publish(make_chunk(8))
                heir = await self.claimed(two, "heir")
                left = [make_chunk(n) for n in (0, 2, 5, 6, 7, 8)]
                assert ids_of(await collect(heir, 6)) == ids_of(left)
                assert await heir.read(MUCH) == []

        self.run(test())

    def test_a_later_claim_acknowledges_for_an_earlier(self, tmp_path: Path) -> None:
        """What was decided meanwhile does not come again."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                for number in range(4):
                    await one.publish(make_chunk(number))
                claim = await self.claimed(one, "relay")
                places = [chunk.position for chunk in await collect(claim, 4)]
                await claim.release()
                again = await self.claimed(two, "heir")
                await again.acknowledge([places[0], places[2]])
                left = [make_chunk(n) for n in (1, 3)]
                assert ids_of(await collect(again, 2)) == ids_of(left)
                assert await again.read(MUCH) == []

        self.run(test())

    def test_waiting_ends(self, tmp_path: Path) -> None:
        """When something comes, and when the time is over."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                claim = await self.claimed(one, "relay")
                await asyncio.wait_for(claim.wait(0.01), PATIENCE)
                for number in range(3):
                    waiting = asyncio.ensure_future(claim.wait(LONG))
                    await asyncio.sleep(LOOK)
                    await two.publish(make_chunk(number))
                    await asyncio.wait_for(waiting, PATIENCE)
                    assert len(await collect(claim, 1)) == 1
                waiting = asyncio.ensure_future(claim.wait(LONG))
                await asyncio.sleep(LOOK)
                await cancel(waiting)
                await two.publish(make_chunk(3))
                # It is there already.
                await asyncio.wait_for(claim.wait(LONG), PATIENCE)
                assert len(await collect(claim, 1)) == 1

        self.run(test())


class _ClaimPromises(_Fleet):
    """A place has one holder at most."""

    def test_of_many_one_has_the_place(self, tmp_path: Path) -> None:
        """However many claim it at once."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=4, partitions=3) as logs:
                for number in range(3):
                    place = Place("amplitude", number)
                    claims = await asyncio.gather(
                        *(log.claim(place, f"{n}", LONG) for n, log in enumerate(logs))
                    )
                    held = [claim for claim in claims if claim is not None]
                    # Where none of them won at once, the next to ask does.
                    held = held or [await self.claimed(logs[0], "late", place)]
                    assert len(held) == 1
                    assert await held[0].renew()
                    assert await logs[1].claim(place, "other", LONG) is None

        self.run(test())

    def test_who_renews_keeps_the_place(self, tmp_path: Path) -> None:
        """For longer than a lease, whoever asks for it."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                for times in (1, 4, 16):
                    lease = self.lease * times
                    if await self._keep(one, two, lease):
                        return
                pytest.skip("this machine is too busy to renew a lease in time")

        self.run(test())

    async def _keep(self, one: Log, two: Log, lease: float) -> bool:
        """Renew for three leases; False where we were too late ourselves."""
        loop = asyncio.get_running_loop()
        began = renewed = loop.time()
        claim = await self.claimed(one, "holder", lease=lease)
        while loop.time() - began < lease * 3:
            asked = await two.claim(PLACE, "other", lease)
            now = loop.time()
            kept = await claim.renew()
            if loop.time() - renewed > lease * 0.8:
                await claim.release()
                if asked is not None:
                    await asked.release()
                return False
            renewed = now
            assert asked is None
            assert kept
            await asyncio.sleep(LOOK)
        await claim.release()
        return True

    def test_what_is_released_is_free(self, tmp_path: Path) -> None:
        """At once; the heir reads all that was not acknowledged, in order."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                chunks = [make_chunk(n) for n in range(6)]
                for chunk in chunks:
                    await one.publish(chunk)
                for number, log in enumerate([one, two, one, two]):
                    claim = await self.claimed(log, f"relay-{number}")
                    found = await collect(claim, 6 - number)
                    assert ids_of(found) == ids_of(chunks[number:])
                    await claim.acknowledge([found[0].position])
                    await claim.release()
                    await claim.release()

        self.run(test())

    def test_who_let_a_lease_run_out_does_no_harm(self, tmp_path: Path) -> None:
        """It learns that it lost the place, and takes nothing from the heir."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=3) as [one, two, three]:
                for number in range(6):
                    await one.publish(make_chunk(number))
                old = await self.claimed(one, "old", lease=self.lease)
                read = await collect(old, 3, max_bytes=1)
                heir = await self.claimed(two, "heir")
                assert not await old.renew()
                assert await old.read(MUCH) == []
                await asyncio.wait_for(old.wait(0.01), PATIENCE)
                assert await one.claim(PLACE, "old", LONG) is None
                # It has delivered the first: it may come again or not, but no other
                # may be gone.
                await old.acknowledge([read[0].position])
                await old.release()
                assert await three.claim(PLACE, "third", LONG) is None
                assert await heir.renew()
                first = await collect(heir, 1, max_bytes=1)
                left = [make_chunk(n) for n in range(6)]
                if ids_of(first) != ids_of(left[:1]):
                    left = left[1:]
                found = first + await collect(heir, len(left) - len(first))
                assert ids_of(found) == ids_of(left)
                assert await heir.read(MUCH) == []
                await heir.acknowledge([chunk.position for chunk in found])
                await heir.release()
                last = await self.claimed(three, "last")
                assert await last.read(MUCH) == []

        self.run(test())

    def test_the_place_of_the_dead_is_inherited(self, tmp_path: Path) -> None:
        """With all that they had not acknowledged, in order."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                chunks = [make_chunk(n) for n in range(5)]
                for chunk in chunks:
                    await two.publish(chunk)
                old = await self.claimed(one, "old", lease=self.lease)
                found = await collect(old, 5)
                await old.acknowledge([found[1].position])
                await one.close()
                heir = await self.claimed(two, "heir")
                await two.publish(make_chunk(5))
                left = [chunks[0], *chunks[2:], make_chunk(5)]
                assert ids_of(await collect(heir, 5)) == ids_of(left)

        self.run(test())

    def test_a_cancelled_claim_blocks_a_place_for_a_lease(self, tmp_path: Path) -> None:
        """Whether it was made or not: then another has it, and reads everything."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                await one.publish(make_chunk(1))
                for ticks in range(4):
                    claiming = one.claim(PLACE, f"gone-{ticks}", self.lease)
                    task = asyncio.ensure_future(claiming)
                    for _ in range(ticks):
                        await asyncio.sleep(0)
                    await cancel(task)
                    heir = await self.claimed(two, f"heir-{ticks}")
                    assert ids_of(await collect(heir, 1)) == ids_of([make_chunk(1)])
                    await heir.release()

        self.run(test())


class _KeepingPromises(_Fleet):
    """Who lives, what waits, and what could not be delivered."""

    def test_the_living_are_counted(self, tmp_path: Path) -> None:
        """For each destination, until they withdraw."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                assert await one.announce("amplitude", "a", LONG) == 1
                assert await two.announce("amplitude", "b", LONG) == 2
                assert await one.announce("amplitude", "a", LONG) == 2
                assert await one.announce("mparticle", "a", LONG) == 1
                await two.withdraw("amplitude", "b")
                await two.withdraw("amplitude", "nobody")
                assert await one.announce("amplitude", "a", LONG) == 1
                assert await two.announce("mparticle", "b", LONG) == 2

        self.run(test())

    def test_the_dead_are_not_counted(self, tmp_path: Path) -> None:
        """Who has not been heard of for its lease is dead."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                await two.announce("amplitude", "dead", self.lease)

                async def alone() -> bool:
                    return await one.announce("amplitude", "a", LONG) == 1

                await until(alone)
                assert await two.announce("amplitude", "dead", LONG) == 2

        self.run(test())

    def test_the_backlog_says_what_waits(self, tmp_path: Path) -> None:
        """How much, for how long, and who has the place."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2, partitions=2) as [one, two]:
                assert await waiting_in(one, PLACE) is None
                chunks = [make_chunk(n, data=b"x" * 1_000) for n in range(3)]
                for chunk in chunks:
                    await one.publish(chunk)
                await one.publish(make_chunk(9, Place("mparticle", 1)))

                async def seen(chunks: int, holder: str | None) -> bool:
                    found = await waiting_in(two, PLACE)
                    return (
                        (found.chunks, found.holder) == (chunks, holder)
                        if found
                        else (chunks, holder) == (0, None)
                    )

                await until(lambda: seen(3, None))
                claim = await self.claimed(one, "relay")
                await until(lambda: seen(3, "relay"))
                found = await waiting_in(two, PLACE)
                assert found is not None
                assert found.events >= 1
                assert found.size >= 3_000
                assert found.oldest_age is not None
                assert 0 <= found.oldest_age < 3_600
                other = await waiting_in(two, Place("mparticle", 1))
                assert other is not None
                assert (other.chunks, other.holder) == (1, None)
                got = await collect(claim, 3)
                await claim.acknowledge([chunk.position for chunk in got])
                await until(lambda: seen(0, "relay"))
                empty = await waiting_in(two, PLACE)
                assert empty is None or empty.oldest_age is None
                await claim.release()
                await until(lambda: seen(0, None))

        self.run(test())

    def test_letters_are_kept_once_and_in_order(self, tmp_path: Path) -> None:
        """Every field of them, for whoever asks, page by page."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                assert await one.letters(0, 10) == []
                letters = [make_letter(n, data=bytes(range(256))) for n in range(7)]
                await one.bury([])
                await one.bury(letters[:3])
                await two.bury(letters[2:5])
                await asyncio.gather(one.bury(letters[5:]), two.bury(letters[:5]))
                await one.bury(letters)
                found: list[BuriedLetter] = []
                while page := await two.letters(found[-1].position if found else 0, 3):
                    assert len(page) <= 3
                    found += page
                assert sorted(one.letter for one in found) == sorted(letters)
                assert [b.letter for b in found[:5]] == letters[:5]
                positions = [buried.position for buried in found]
                assert positions == sorted(set(positions))
                assert all(buried.buried_at > 1e9 for buried in found)

        self.run(test())

    def test_letters_may_be_forgotten(self, tmp_path: Path) -> None:
        """Those that are named and no others."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                await log.bury([make_letter(n) for n in range(4)])
                positions = [b.position for b in await log.letters(0, 10)]
                await log.forget_letters([])
                await log.forget_letters([positions[1], positions[2], 10**12])
                await log.forget_letters([positions[1]])
                left = await log.letters(0, 10)
                assert [b.position for b in left] == [positions[0], positions[3]]
                assert await log.letters(positions[0], 10) == left[1:]

        self.run(test())

    def test_a_letter_may_be_as_large_as_a_chunk(self, tmp_path: Path) -> None:
        """A damaged chunk is kept as it was found."""

        async def test() -> None:
            async with self.fleet(tmp_path) as [log]:
                if log.max_chunk_bytes > MUCH // 2:
                    pytest.skip("so much memory is not a test's")
                letter = make_letter(1, data=b"\xff" * log.max_chunk_bytes)
                await log.bury([letter])
                assert [b.letter for b in await log.letters(0, 1)] == [letter]

        self.run(test())


class LogContract(
    _SetupPromises, _ChunkPromises, _ReadingPromises, _ClaimPromises, _KeepingPromises
):
    """Subclass it under a name that begins with ``Test`` and define ``make``."""


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it has ended, in whatever way but an error."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def waiting_in(log: Log, place: Place) -> Backlog | None:
    """Find what waits in a place; None where nobody ever used it."""
    found = [one for one in await log.backlog() if one.place == place]
    assert len(found) <= 1
    if found and not found[0].chunks and found[0].holder is None:
        return None
    return found[0] if found else None
