"""What the tests of the contract have in common: chunks, letters, logs, patience."""

# ruff: noqa: S101, ASYNC110 - pytest is built on assert; no event of ours tells what
# happens on a server

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from amplitude_async.fleet.log import (
    Backlog,
    Chunk,
    Claim,
    Letter,
    Log,
    Place,
    StoredChunk,
)

__all__ = [
    "LONG",
    "LOOK",
    "MEBI",
    "MUCH",
    "PATIENCE",
    "PLACE",
    "ROUNDS",
    "Fleet",
    "cancel",
    "collect",
    "ids_of",
    "in_time",
    "make_chunk",
    "make_letter",
    "project_of",
    "until",
    "waiting_in",
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


async def in_time(work: Awaitable[object]) -> None:
    """Wait for something that ends soon; a test fails where it does not."""
    await asyncio.wait_for(work, PATIENCE)


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


class Fleet:
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
