"""What tests of a fleet play with: logs that fail, clients in virtual time, records."""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import aiohttp

from amplitude_async import Amplitude
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.transport import Transport
from amplitude_async.exceptions import (
    ChunkTooLargeError,
    LogError,
    LogFullError,
    LogUnreachableError,
)
from amplitude_async.fleet.codec import decode, encode
from amplitude_async.fleet.log import Chunk, Letter, Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport

__all__ = [
    "KEY",
    "MemberClient",
    "MoodyLog",
    "chunk_of",
    "chunks_in",
    "contents",
    "letters_in",
    "make_record",
    "names_in",
    "numbers_by_user",
    "until",
    "wall_of",
]

KEY = "0123456789abcdef-secret"
PATIENCE = 60.0
STEP = 0.01


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so; fail where that takes very long."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - anything may change it
                await asyncio.sleep(STEP)
    except TimeoutError:
        raise AssertionError(f"{what} did not come to be") from None


def make_record(number: int, user: str = "user-1", **fields: Any) -> Record:
    """Make an encoded event of a user."""
    event = {"event_type": "E", "user_id": user, "n": number, **fields}
    body = json.dumps(event, separators=(",", ":")).encode()
    return Record(number, body, user, user, None, f"id-{user}-{number}", time.time())


def chunk_of(place: Place, name: str, *records: Record) -> Chunk:
    """Make a chunk of events."""
    return Chunk(name, place, encode(records), len(records))


async def contents(log: MemoryLog, destination: str = "amplitude") -> list[Record]:
    """Read what a log has, place by place, in order; takes nothing away."""
    other = log.handle()
    found: list[Record] = []
    settings = await other.open()
    for number in range(settings.partitions):
        store = other._store  # noqa: SLF001 - its claims would be in the way
        shelf = store.shelves.get(Place(destination, number))
        for stored, _ in () if shelf is None else shelf.chunks.values():
            found += decode(stored.data)
    return found


async def names_in(log: MemoryLog, destination: str = "amplitude") -> list[str]:
    """List the types of events in a log, place by place, in order."""
    found = await contents(log, destination)
    return [json.loads(record.body)["event_type"] for record in found]


def chunks_in(log: MemoryLog, place: Place | None = None) -> int:
    """Count the chunks of a place, or of all, that nobody has acknowledged."""
    shelves = log._store.shelves  # noqa: SLF001 - asked often, and of no open log
    return sum(
        len(shelf.chunks) for at, shelf in shelves.items() if place in {None, at}
    )


def letters_in(log: MemoryLog) -> list[Letter]:
    """List the dead letters that a log keeps, in order."""
    buried = log._store.letters.values()  # noqa: SLF001 - of no open log either
    return [one.letter for one in buried]


def wall_of(log: MemoryLog) -> float:
    """Say what time it is by the log's own clock."""
    return log._store.clock.wall()  # noqa: SLF001 - a producer never learns it


def numbers_by_user(events: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """List the property ``n`` of events, user by user, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event["user_id"]].append(event["event_properties"]["n"])
    return dict(found)


class MoodyLog(MemoryLog):
    """Fails in every way there is, as dice or a list say.

    Args:
        moods: what becomes of each publish in turn: ``"ok"``, ``"full"``, ``"gone"``,
            ``"lost"`` (stored, and the answer lost), ``"broken"`` (not stored, and
            nobody knows), ``"late"`` (stored after other tasks had turns) or ``"hang"``
            (as lost, but only a cancellation ends it). All is well after the last.
        most: more events in a chunk are too many.
    """

    def __init__(
        self,
        moods: Sequence[str] = (),
        *,
        partitions: int = 1,
        most: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__("moody", partitions, clock=clock)
        self.moods = iter(moods)
        self.most = most
        self.published: list[Chunk] = []

    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk, or not."""
        self.published.append(chunk)
        mood = next(self.moods, "ok")
        await self.reach()
        if self.most is not None and chunk.events > self.most:
            raise ChunkTooLargeError("too many events")
        match mood:
            case "ok":
                await super().publish(chunk)
            case "full":
                raise LogFullError("full")
            case "gone":
                raise LogUnreachableError("gone")
            case "broken":
                raise LogError("broken off")
            case "lost":
                await super().publish(chunk)
                raise LogError("the answer was lost")
            case "late":
                for _ in range(5):
                    await asyncio.sleep(0)
                await super().publish(chunk)
            case "hang":
                await super().publish(chunk)
                await asyncio.Event().wait()

    @classmethod
    def of_dice(cls, seed: int, failures: int, **options: Any) -> Self:
        """Make one that fails at random, and so many times at most."""
        dice = random.Random(seed)
        kinds = ["ok", "full", "gone", "broken", "lost", "late"]
        return cls([dice.choice(kinds) for _ in range(failures)], **options)


class MemberClient(Amplitude):
    """A client whose time and network are a test's."""

    time: Clock
    network: ScriptedTransport

    @classmethod
    def at(
        cls, clock: FakeClock, *answers: Any, api_key: str | None = None, **options: Any
    ) -> Self:
        """Make one."""
        scene = {"time": clock, "network": ScriptedTransport(answers, clock=clock)}
        made: Self = type(cls.__name__, (cls,), scene)(api_key, **options)
        return made

    def _make_clock(self) -> Clock:
        return self.time

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        return self.network
