"""What a log is: a durable, partitioned queue of chunks that many processes share.

A producer publishes chunks, a relay claims places and reads them. Whatever engine is
behind it promises the same; ``amplitude_async.testing.log_contract`` holds it to that.
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from amplitude_async.exceptions import ConfigurationError

if TYPE_CHECKING:
    from amplitude_async.fleet.handover import LogHandover

__all__ = [
    "DEFAULT_LEASE",
    "DEFAULT_PROJECT",
    "Backlog",
    "BuriedLetter",
    "Chunk",
    "Claim",
    "Letter",
    "Log",
    "Place",
    "Settings",
    "StoredChunk",
]

# Ids and marks of an event beside its body: doors refuse longer ids.
IDS_BYTES = 32 * 1024
DEFAULT_LEASE = 10.0
DEFAULT_PROJECT = "default"


class Place(NamedTuple):
    """One partition of one destination: at most one relay reads it at a time."""

    destination: str
    """``"amplitude"`` or ``"mparticle"``; a destination's name is ``[a-z0-9_-]+``."""
    partition: int

    def __str__(self) -> str:
        return f"{self.destination}.{self.partition}"


class Chunk(NamedTuple):
    """Events of one place, encoded once, on the way to the log."""

    id: str
    """The same chunk published again has the same id: the log keeps one of them."""
    place: Place
    data: bytes
    events: int
    """How many are in it: for figures only."""


class StoredChunk(NamedTuple):
    """A chunk as the log hands it out."""

    position: int
    """Where it stands; positions ascend in each place."""
    id: str
    data: bytes
    stored_at: float
    """When the log took it by the log's own clock, seconds since the epoch."""


class Letter(NamedTuple):
    """What could not be delivered, kept for people."""

    key: str
    """The same letter buried again has the same key: the log keeps one of them."""
    place: Place
    data: bytes
    """A chunk of one event; of a damaged chunk the bytes as they were found."""
    code: int
    """HTTP status of the verdict; 0 where there was none."""
    message: str
    raw: bool
    """True for a chunk that cannot be read."""


class BuriedLetter(NamedTuple):
    """A letter as the log hands it out."""

    position: int
    """Where it stands among the dead letters of the project."""
    buried_at: float
    """By the log's own clock, seconds since the epoch."""
    letter: Letter


@dataclass(frozen=True, slots=True)
class Settings:
    """What a log says of itself when it is opened."""

    partitions: int
    """Of each destination; fixed when the log was set up."""
    synced: bool
    """True where an acknowledged chunk is on disk, and not in memory only."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """What an operator should know: settings that weaken the promise, in words."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in one place."""

    place: Place
    chunks: int
    events: int
    """Estimated where the log keeps no such number."""
    size: int
    """Bytes."""
    oldest_age: float | None
    """Seconds since the oldest chunk was stored; None where nothing waits."""
    holder: str | None
    """The relay that has the place; None where nobody has."""


class Claim(ABC):
    """A place that one relay has, until it is released or its lease runs out.

    Methods raise ``LogError`` where the log does not answer; the claim stays as it is.
    """

    place: Place
    progress: bytes = b""
    """What the holder before has noted; empty where nobody did."""

    @abstractmethod
    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read the next chunks of the place in order, each of them once a claim.

        The first read of a claim begins with the oldest chunk that is not
        acknowledged. One chunk at least where there is any, whatever its size.

        Returns:
            Nothing where all was read, or where the place is somebody else's by now.
        """

    @abstractmethod
    async def wait(self, timeout: float) -> None:
        """Return when there may be something new to read, or after so many seconds."""

    @abstractmethod
    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Forget chunks whose every event is decided; unknown ones are no error."""

    @abstractmethod
    async def renew(self) -> bool:
        """Begin the lease anew; False where the place is somebody else's by now."""

    @abstractmethod
    async def note_progress(self, data: bytes) -> None:
        """Keep bytes for the next holder, whether this one releases or dies.

        They say which events are decided of chunks that are not acknowledged: others
        come twice. Nothing is kept of a claim that is somebody else's by now.

        Args:
            data: 64 KiB as a rule, half a megabyte at the most.
        """

    @abstractmethod
    async def release(self) -> None:
        """Give the place back: another relay may claim it at once.

        What was read and not acknowledged is read again by the next, in order.
        """


class Log(ABC):
    """One project's log. One object serves one event loop and many clients."""

    project: str
    """Whose events these are: ``[a-z0-9_-]+``, at most 40 characters."""
    max_chunk_bytes: int
    """Most bytes of a chunk's data."""
    _users: int = 0
    _home: tuple[int, asyncio.AbstractEventLoop] | None = None

    @property
    def max_event_bytes(self) -> int:
        """Most bytes of one encoded event, which travels with its ids in a chunk."""
        return self.max_chunk_bytes - IDS_BYTES

    async def enter(self) -> Settings:
        """Open the log for one more client or relay; see ``open``.

        In a forked child, or on a loop after one that was closed, the first to come
        abandons what was open there, and the others find the log as that one left it.

        Raises:
            ConfigurationError: it is not set up, a setting breaks the promise, or it is
                in use on another event loop.
            LogError: it does not answer.
        """
        self._move_in()
        # Counted first: who leaves meanwhile does not close what is being opened.
        self._users += 1
        try:
            return await self.open()
        except GeneratorExit:
            raise  # its loop is gone: who moves in counts anew
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Close the log where nobody else has it open who entered."""
        self._users -= 1
        if self._users <= 0:
            self._users = 0
            await self.close()

    def _move_in(self) -> None:
        """Begin anew where a parent, or a closed loop, had it open.

        Raises:
            ConfigurationError: it is in use on a loop that is alive.
        """
        pid, loop = os.getpid(), asyncio.get_running_loop()
        home, self._home = self._home, (pid, loop)
        if home is None or home == self._home:
            return
        if self._users and home[0] == pid and not home[1].is_closed():
            self._home = home
            msg = (
                "this log is in use on another event loop that is still alive: make "
                f"one {type(self).__name__} for each loop"
            )
            raise ConfigurationError(msg)
        if self._users:
            self._users = 0
            self.abandon()

    def handover_to(self, destination: str) -> "LogHandover":
        """Make the way of one client to this log, as ``handover=`` asks for it."""
        from amplitude_async.fleet.handover import LogHandover  # noqa: PLC0415 - a ring

        return LogHandover(self, destination)

    @abstractmethod
    async def setup(self, partitions: int | None = None) -> list[str]:
        """Make or migrate what the log needs on its server; safe to repeat.

        Args:
            partitions: of each destination; None: 1, or as many as there are. The
                number is fixed once it was set up.

        Returns:
            What was done, a line for each thing; empty where nothing had to be.

        Raises:
            ConfigurationError: a setting that is there cannot be what was asked for.
            LogError: the server does not answer.
        """

    @abstractmethod
    async def open(self) -> Settings:
        """Connect and check the server's settings; safe to repeat while it is open.

        Several may do so at once: one that fails, or that is cancelled, shuts the log
        on none of the others.

        Raises:
            ConfigurationError: it was not set up, its version is another, or a setting
                breaks the promise; setting, value and remedy are named.
            LogError: the server does not answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections; safe to repeat."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget connections without touching them: of a parent, or a closed loop."""

    @abstractmethod
    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk; returns when the log has acknowledged it as durable.

        One that is cancelled, or that fails with any other error than those below, may
        have been stored or not: publish it again under its id.

        Raises:
            LogFullError: the log is full; the chunk was not stored.
            ChunkTooLargeError: not stored: publish less at once.
            LogUnreachableError: nobody answers; not stored.
            LogRefusedError: no right to do so, or not set up; not stored.
            LogError: it is not known whether it was stored.
        """

    @abstractmethod
    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim a place that is free, or whose holder's lease has run out.

        Args:
            holder: names the relay; unique among those that live.
            lease: seconds from the last renewal after which others may claim it.

        Returns:
            None where another holder has it, and always once it was claimed by another:
            a holder that comes back has to claim again.
        """

    @abstractmethod
    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Say that a relay of a destination lives; returns how many of its do.

        One that has not been heard of for its lease does not count.
        """

    @abstractmethod
    async def withdraw(self, destination: str, holder: str) -> None:
        """Say that a relay of a destination lives no longer."""

    @abstractmethod
    async def backlog(self) -> list[Backlog]:
        """Say what waits in each place that anybody ever used."""

    @abstractmethod
    async def bury(self, letters: Sequence[Letter]) -> None:
        """Keep dead letters; returns when they are durable."""

    @abstractmethod
    async def letters(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read dead letters above a position, in order."""

    @abstractmethod
    async def forget_letters(self, positions: Sequence[int]) -> None:
        """Take dead letters away for good; unknown ones are no error."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name server and project without a secret, for spools to tell them apart."""
