"""What a log promises who claims a place, and who takes it over."""

# ruff: noqa: S101 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.log import Log, Place
from amplitude_async.testing.log_contract.scene import (
    LONG,
    LOOK,
    MUCH,
    PLACE,
    Fleet,
    cancel,
    collect,
    ids_of,
    in_time,
    make_chunk,
)

__all__ = ["ClaimPromises"]


class ClaimPromises(Fleet):
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
                await in_time(old.wait(0.01))
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

    def test_what_a_holder_notes_the_next_one_has(self, tmp_path: Path) -> None:
        """The last of it, released or dead, through holders that note nothing."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                first = await self.claimed(one, "first")
                assert first.progress == b""
                await first.note_progress(b"early")
                await first.note_progress(b"late \x00\xff" * 10_000)
                await first.release()
                second = await self.claimed(two, "second", lease=self.lease)
                assert second.progress == b"late \x00\xff" * 10_000
                await two.close()
                third = await self.claimed(one, "third")
                assert third.progress == b"late \x00\xff" * 10_000
                await third.note_progress(b"")
                await third.release()
                await two.open()
                assert (await self.claimed(two, "fourth")).progress == b""

        self.run(test())

    def test_who_lost_a_place_notes_nothing(self, tmp_path: Path) -> None:
        """What the holder since then has noted stays."""

        async def test() -> None:
            async with self.fleet(tmp_path, handles=2) as [one, two]:
                old = await self.claimed(one, "old", lease=self.lease)
                await old.note_progress(b"old")
                heir = await self.claimed(two, "heir")
                assert heir.progress == b"old"
                await heir.note_progress(b"heir")
                with suppress(LogError):
                    await old.note_progress(b"zombie")
                await heir.release()
                assert (await self.claimed(one, "third")).progress == b"heir"

        self.run(test())
