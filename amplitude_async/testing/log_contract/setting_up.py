"""What a log promises who sets it up, opens it and looks at it."""

# ruff: noqa: S101 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
import gc
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from amplitude_async.exceptions import ConfigurationError, LogError
from amplitude_async.testing.log_contract.scene import (
    LONG,
    MUCH,
    ROUNDS,
    Fleet,
    cancel,
    collect,
    ids_of,
    make_chunk,
    make_letter,
)

__all__ = ["SetupPromises"]


class SetupPromises(Fleet):
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
