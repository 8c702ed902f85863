"""A log in this very process, for tests and demonstrations: it survives nothing.

It keeps every promise of ``Log`` but durability, and can be made to fail.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogError,
    LogFullError,
    LogRefusedError,
)
from amplitude_async.fleet.log import (
    DEFAULT_PROJECT,
    Backlog,
    BuriedLetter,
    Chunk,
    Claim,
    Letter,
    Log,
    Place,
    Settings,
    StoredChunk,
)
from amplitude_async.fleet.project import (
    check_fixed,
    check_partitions,
    check_project,
)
from amplitude_async.shown import shown

__all__ = ["MemoryLog"]

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
MAX_CHUNK_BYTES: Final = 4 * 1024 * 1024
# Who publishes a chunk again does so within seconds; servers remember minutes.
REMEMBERED: Final = 600.0


@dataclass(slots=True)
class _Shelf:
    """One place: its chunks by position, and who has it."""

    chunks: dict[int, tuple[StoredChunk, int]] = field(default_factory=dict)
    claim: "MemoryClaim | None" = None
    holder: str = ""
    deadline: float = 0.0
    progress: bytes = b""
    waiting: set[asyncio.Event] = field(default_factory=set)


class _Store:
    """What processes share: the server, so to speak."""

    def __init__(self, partitions: int | None, max_bytes: int, clock: Clock) -> None:
        self.partitions = partitions
        self.max_bytes = max_bytes
        self.clock = clock
        self.size = 0
        self.shelves: dict[Place, _Shelf] = {}
        self.letters: dict[int, BuriedLetter] = {}
        self.living: dict[tuple[str, str], float] = {}
        self.ids: dict[str, float] = {}
        self._last = 0

    def next_position(self) -> int:
        """Number what is stored."""
        self._last += 1
        return self._last

    def shelf(self, place: Place) -> _Shelf:
        """Find a place, or make it."""
        count = self.partitions or 0
        if not 0 <= place.partition < count:
            msg = f"{place} is no place of a log that has {count} partitions"
            raise LogRefusedError(msg)
        return self.shelves.setdefault(place, _Shelf())

    def put(self, chunk: Chunk) -> None:
        """Store a chunk, unless one of its id was stored lately."""
        shelf = self.shelf(chunk.place)
        now = self.clock.now()
        while self.ids and now - next(iter(self.ids.values())) > REMEMBERED:
            del self.ids[next(iter(self.ids))]
        if chunk.id in self.ids:
            return
        if self.size + len(chunk.data) > self.max_bytes:
            msg = (
                f"the log is full: it has {self.size} of {self.max_bytes} bytes; "
                "start relays, or make it with more max_bytes"
            )
            raise LogFullError(msg)
        self.ids[chunk.id] = now
        self.size += len(chunk.data)
        position = self.next_position()
        stored = StoredChunk(position, chunk.id, chunk.data, self.clock.wall())
        shelf.chunks[position] = stored, chunk.events
        for event in shelf.waiting:
            event.set()

    def take(self, shelf: _Shelf, positions: Sequence[int]) -> None:
        """Forget chunks of a place."""
        for position in positions:
            found = shelf.chunks.pop(position, None)
            if found is not None:
                self.size -= len(found[0].data)

    def bury(self, letters: Sequence[Letter]) -> None:
        """Keep letters whose key no other has."""
        keys = {buried.letter.key for buried in self.letters.values()}
        for letter in letters:
            if letter.key not in keys:
                keys.add(letter.key)
                position = self.next_position()
                wall = self.clock.wall()
                self.letters[position] = BuriedLetter(position, wall, letter)

    def backlog_of(self, place: Place) -> Backlog:
        """Count what waits in a place."""
        shelf = self.shelves[place]
        chunks = [stored for stored, _ in shelf.chunks.values()]
        oldest = self.clock.wall() - chunks[0].stored_at if chunks else None
        held = shelf.claim is not None and shelf.deadline > self.clock.now()
        return Backlog(
            place,
            chunks=len(chunks),
            events=sum([events for _, events in shelf.chunks.values()]),
            size=sum([len(stored.data) for stored in chunks]),
            oldest_age=None if oldest is None else max(oldest, 0.0),
            holder=shelf.holder if held else None,
        )


class MemoryClaim(Claim):
    """A place of a ``MemoryLog`` that one relay has."""

    def __init__(self, log: "MemoryLog", store: _Store, place: Place) -> None:
        self.place = place
        self._log = log
        self._clock = store.clock
        self._store = store
        self._shelf = store.shelf(place)
        self.progress = self._shelf.progress
        self._lease = 0.0
        self._read_up_to = 0

    def __repr__(self) -> str:
        return f"<MemoryClaim {self.place} {'held' if self._current else 'lost'}>"

    @property
    def _current(self) -> bool:
        # A lease that ran out is good for as long as nobody else has claimed.
        return self._shelf.claim is self

    def begin(self, holder: str, lease: float) -> None:
        """Take the place, whoever had it."""
        self._lease = lease
        self._shelf.claim = self
        self._shelf.holder = holder
        self._shelf.deadline = self._clock.now() + lease

    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read the next chunks."""
        await self._log.reach()
        found: list[StoredChunk] = []
        size = 0
        if not self._current:
            return found
        for position, (stored, _) in self._shelf.chunks.items():
            if position <= self._read_up_to:
                continue
            size += len(stored.data)
            if found and size > max_bytes:
                break
            found.append(stored)
        if found:
            self._read_up_to = found[-1].position
        return found

    async def wait(self, timeout: float) -> None:
        """Return when something comes, or after so many seconds."""
        await self._log.reach()
        chunks = self._shelf.chunks
        if self._current and chunks and next(reversed(chunks)) > self._read_up_to:
            return
        event = asyncio.Event()
        timer = self._clock.call_later(timeout, event.set)
        self._shelf.waiting.add(event)
        try:
            await event.wait()
        finally:
            timer.cancel()
            self._shelf.waiting.discard(event)

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Forget chunks, also those that an earlier claim has read."""
        await self._log.reach()
        self._store.take(self._shelf, positions)

    async def renew(self) -> bool:
        """Begin the lease anew."""
        await self._log.reach()
        if self._current:
            self._shelf.deadline = self._clock.now() + self._lease
        return self._current

    async def note_progress(self, data: bytes) -> None:
        """Keep it for the next holder."""
        await self._log.reach()
        if self._current:
            self._shelf.progress = data

    async def release(self) -> None:
        """Give the place back."""
        await self._log.reach()
        if self._current:
            self._shelf.claim = None


class MemoryLog(Log):
    """A log of this process: its handles share what is in it, as processes do.

    One made with a number of partitions is set up already.

    Args:
        project: whose events these are.
        partitions: of each destination; None: none before ``setup``.
        max_bytes: most bytes of all chunks together.
        clock: what leases, and times of storing, are told by.
    """

    def __init__(
        self,
        project: str = DEFAULT_PROJECT,
        partitions: int | None = 1,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        check_project(project)
        check_partitions(partitions)
        self.project = project
        self.max_chunk_bytes = MAX_CHUNK_BYTES
        self._store = _Store(partitions, max_bytes, clock or LoopClock())
        self._open = False
        self._refusal: LogError | None = None
        self._loses = False
        self._stalled: asyncio.Event | None = None

    def __repr__(self) -> str:
        store = self._store
        return (
            f"<MemoryLog {self.project!r}: {store.partitions} partitions, "
            f"{store.size} bytes>"
        )

    def handle(self) -> "MemoryLog":
        """Make another log with the same content, as another process would have it."""
        other = type(self)(self.project, clock=self._store.clock)
        other.max_chunk_bytes = self.max_chunk_bytes
        other._store = self._store  # noqa: SLF001 - its own kind
        return other

    # To make it fail: each handle by itself ----------------------------------

    def refuse(self, error: LogError | None) -> None:
        """Let each publish raise this and store nothing; None: no longer."""
        self._refusal = error

    def lose_answers(self, lose: bool) -> None:  # noqa: FBT001 - a switch
        """Let each publish store, and raise a LogError as if it may have not."""
        self._loses = lose

    def stall(self) -> None:
        """Let nothing be answered until ``go_on``; what is asked waits."""
        if self._stalled is None:
            self._stalled = asyncio.Event()

    def go_on(self) -> None:
        """Answer again, first what was asked meanwhile."""
        if self._stalled is not None:
            self._stalled.set()
            self._stalled = None

    async def reach(self) -> None:
        """Go the way to the server.

        Raises:
            LogError: this handle is not open.
        """
        await asyncio.sleep(0)  # as with a server, others run meanwhile
        if self._stalled is not None:
            await self._stalled.wait()
        if not self._open:
            raise LogError("this log is not open: await its open() first")

    # A log -------------------------------------------------------------------

    async def setup(self, partitions: int | None = None) -> list[str]:
        """Fix the number of partitions, where that was not done."""
        check_partitions(partitions)
        await asyncio.sleep(0)
        there = self._store.partitions
        if there is None:
            self._store.partitions = partitions or 1
            return [f"log {shown(self.project)} made, partitions: {partitions or 1}"]
        check_fixed(self.project, partitions, there)
        return []

    async def open(self) -> Settings:
        """Make ready."""
        partitions = self._store.partitions
        if partitions is None:
            msg = f"log {shown(self.project)} was not set up: await its setup() first"
            raise ConfigurationError(msg)
        self._open = True
        await self.reach()
        return Settings(partitions, synced=False)

    async def close(self) -> None:
        """Let go; what was claimed stays claimed until its lease runs out."""
        self._open = False

    def abandon(self) -> None:
        """Forget that it was open."""
        self._open = False
        self._stalled = None

    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk."""
        await self.reach()
        if self._refusal is not None:
            raise self._refusal
        if len(chunk.data) > self.max_chunk_bytes:
            msg = f"a chunk has {len(chunk.data)} of {self.max_chunk_bytes} bytes"
            raise ChunkTooLargeError(msg)
        self._store.put(chunk)
        if self._loses:
            raise LogError("the answer of the log was lost: it may have the chunk")
        # Who is cancelled here does not know that it was stored.
        await asyncio.sleep(0)

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim a place."""
        await self.reach()
        shelf = self._store.shelf(place)
        free = shelf.claim is None or shelf.deadline <= self._store.clock.now()
        if not free and shelf.holder != holder:
            return None
        claim = self._make_claim(place)
        claim.begin(holder, lease)
        return claim

    def _make_claim(self, place: Place) -> MemoryClaim:
        return MemoryClaim(self, self._store, place)

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Say that a relay lives."""
        await self.reach()
        living, now = self._store.living, self._store.clock.now()
        living[destination, holder] = now + lease
        for name in [name for name, end in living.items() if end <= now]:
            del living[name]
        return len([name for name in living if name[0] == destination])

    async def withdraw(self, destination: str, holder: str) -> None:
        """Say that a relay lives no longer."""
        await self.reach()
        self._store.living.pop((destination, holder), None)

    async def backlog(self) -> list[Backlog]:
        """Say what waits."""
        await self.reach()
        return [self._store.backlog_of(place) for place in sorted(self._store.shelves)]

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Keep dead letters."""
        await self.reach()
        self._store.bury(letters)

    async def letters(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read dead letters."""
        await self.reach()
        found = [one for at, one in self._store.letters.items() if at > after]
        return found[:limit]

    async def forget_letters(self, positions: Sequence[int]) -> None:
        """Take dead letters away."""
        await self.reach()
        for position in positions:
            self._store.letters.pop(position, None)

    def fingerprint(self) -> str:
        """Name the project."""
        return f"memory {self.project}"
