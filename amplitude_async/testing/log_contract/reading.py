"""What a log promises who reads what was published."""

# ruff: noqa: S101 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
from pathlib import Path

from amplitude_async.fleet.log import StoredChunk
from amplitude_async.testing.log_contract.scene import (
    LONG,
    LOOK,
    MUCH,
    Fleet,
    cancel,
    collect,
    ids_of,
    in_time,
    make_chunk,
)

__all__ = ["ReadingPromises"]


class ReadingPromises(Fleet):
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
                await in_time(claim.wait(0.01))
                for number in range(3):
                    waiting = asyncio.ensure_future(claim.wait(LONG))
                    await asyncio.sleep(LOOK)
                    await two.publish(make_chunk(number))
                    await in_time(waiting)
                    assert len(await collect(claim, 1)) == 1
                waiting = asyncio.ensure_future(claim.wait(LONG))
                await asyncio.sleep(LOOK)
                await cancel(waiting)
                await two.publish(make_chunk(3))
                # It is there already.
                await in_time(claim.wait(LONG))
                assert len(await collect(claim, 1)) == 1

        self.run(test())
