"""What a log keeps beside chunks: who lives, what waits, dead letters."""

# ruff: noqa: S101 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
from pathlib import Path

import pytest

from amplitude_async.fleet.log import BuriedLetter, Place
from amplitude_async.testing.log_contract.scene import (
    LONG,
    MUCH,
    PLACE,
    Fleet,
    collect,
    make_chunk,
    make_letter,
    until,
    waiting_in,
)

__all__ = ["KeepingPromises"]


class KeepingPromises(Fleet):
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
