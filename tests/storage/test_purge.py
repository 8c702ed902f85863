"""A purge excludes reading and shutdown, and remembers what it purged."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from amplitude_async import Config, DeliveryResult, DeliveryStatus, DropReason
from amplitude_async.delivery.endpoint import Response
from amplitude_async.storage import Record, Storage
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []


class Shelf(Storage):
    """A storage on a dict whose reading and forgetting a test can hold up."""

    durable = True

    def __init__(self) -> None:
        self.shelf: dict[int, Record] = {}
        self.reading = asyncio.Event()
        self.readable = asyncio.Event()
        self.readable.set()
        self.forgetful = True

    async def open(self, _: str, __: Callable[[int], int]) -> int:
        """Start empty."""
        return 0

    async def append(self, records: Sequence[Record]) -> None:
        """Put records on the shelf."""
        self.shelf |= {r.id: r for r in records}

    async def fetch(self, after: int, limit: int, _: int) -> list[Record]:
        """Read on, once that is possible."""
        page = [r for n, r in sorted(self.shelf.items()) if n > after][:limit]
        self.reading.set()
        await self.readable.wait()
        return page

    async def settle(self, ids: Sequence[int]) -> None:
        """Take records off the shelf, or fail to."""
        if not self.forgetful:
            raise OSError("read-only file system")
        for number in ids:
            self.shelf.pop(number, None)

    async def size(self) -> int:
        """Count the records."""
        return len(self.shelf)

    async def close(self) -> None:
        """Keep the shelf."""


class Rig:
    """An engine with a spill: memory holds four events, the shelf all."""

    def __init__(self, **options: Any) -> None:
        self.clock, self.shelf = FakeClock(), Shelf()
        self.transport = ScriptedTransport(then=Response(503), clock=self.clock)
        self.heard: list[DeliveryResult] = []
        config = Config(
            api_key="key",
            server_url="http://server.invalid/",
            max_storage_capacity=4,
            callback=self.heard.append,
            **options,
        )
        self.engine = engine_of(config, self.transport, self.clock, storage=self.shelf)

    async def fill(self, count: int) -> None:
        """Start, and accept events of two users in turn."""
        await self.engine.start()
        for number in range(count):
            user = f"user-{number % 2}"
            wall = self.clock.wall()
            record = Record(0, b'{"e":1}', user, user, None, str(number), wall)
            await self.engine.intake.accept(record)

    def check(self) -> None:
        """Hold the account against its law, and each event against its one call."""
        stats = self.engine.stats
        assert stats.balanced, stats
        assert stats.pending >= 0
        told = [result.insert_id for result in self.heard]
        assert len(told) == len(set(told))


async def test_a_page_that_is_being_read_does_not_escape() -> None:
    """What was on its way into memory when the purge began is purged as well."""
    rig = Rig()
    await rig.fill(4)
    await rig.clock.advance(1.0)
    rig.shelf.readable.clear()
    await rig.engine.purge(None)
    for number in range(10, 30):
        wall = rig.clock.wall()
        await rig.engine.intake.accept(
            Record(0, b'{"e":1}', "user-1", "user-1", None, str(number), wall)
        )
    await rig.clock.settle()
    rig.shelf.reading.clear()
    purging = asyncio.ensure_future(rig.engine.purge(None))
    await rig.clock.settle()
    rig.shelf.readable.set()
    await purging
    await rig.clock.settle()

    stats = rig.engine.stats
    assert stats.pending == 0
    assert stats.dropped_by_reason == {DropReason.PURGED: 24}
    rig.check()
    await rig.engine.shutdown(0.0)


async def test_a_purge_whose_events_cannot_be_forgotten_counts_them_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A storage that fails to forget what was purged does not bring it back."""
    caplog.set_level(logging.CRITICAL)
    rig = Rig()
    await rig.fill(20)
    await rig.clock.advance(1.0)
    rig.shelf.forgetful = False
    first = await rig.engine.purge("user-1")
    again = await rig.engine.purge("user-1")
    await rig.clock.advance(120.0)

    assert again == 0
    assert rig.engine.stats.dropped_by_reason == {DropReason.PURGED: first}
    rig.check()
    await rig.engine.shutdown(0.0)


async def test_a_purge_during_a_shutdown_takes_nothing_twice() -> None:
    """Either of them has each event, and `pending` never goes below nothing."""
    rig = Rig()
    await rig.fill(20)
    await rig.clock.advance(1.0)
    rig.shelf.readable.clear()
    purging = asyncio.ensure_future(rig.engine.purge(None))
    await rig.clock.settle()
    ending = asyncio.ensure_future(rig.engine.shutdown(0.0))
    await rig.clock.settle()
    rig.shelf.readable.set()
    await asyncio.gather(purging, ending)
    await rig.engine.purge(None)
    await rig.clock.settle()

    stats = rig.engine.stats
    assert stats.pending == 0
    assert stats.stored + stats.dropped == 20
    rig.check()


async def test_what_is_accepted_too_late_is_told_so() -> None:
    """An append that fails during the shutdown leaves no handle that never ends."""
    rig = Rig()
    await rig.fill(1)
    gate = asyncio.Event()

    async def fail_late(_: Sequence[Record]) -> None:
        await gate.wait()
        raise OSError("no space left on device")

    setattr(rig.shelf, "append", fail_late)  # noqa: B010 - a method, to the type checker
    wall = rig.clock.wall()
    late = asyncio.ensure_future(
        rig.engine.intake.accept(
            Record(0, b'{"e":1}', "user-9", "user-9", None, "9", wall)
        )
    )
    await rig.clock.settle()
    ending = asyncio.ensure_future(rig.engine.shutdown(0.0))
    await rig.clock.settle()
    gate.set()
    delivery = await late
    await ending

    assert delivery.result is not None
    assert delivery.result.status is DeliveryStatus.DROPPED
    assert delivery.result.reason is DropReason.CLOSED
    rig.check()
