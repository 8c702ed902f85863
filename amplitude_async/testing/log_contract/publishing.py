"""What a log promises who publishes chunks."""

# ruff: noqa: S101 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
from pathlib import Path

import pytest

from amplitude_async.exceptions import ChunkTooLargeError
from amplitude_async.fleet.log import Log, Place, StoredChunk
from amplitude_async.testing.log_contract.scene import (
    MEBI,
    MUCH,
    Fleet,
    cancel,
    collect,
    ids_of,
    make_chunk,
)

__all__ = ["ChunkPromises"]


class ChunkPromises(Fleet):
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
