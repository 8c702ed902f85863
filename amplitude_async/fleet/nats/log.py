"""A log in NATS JetStream: one stream of chunks, one pinned consumer for each place."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogError,
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
)
from amplitude_async.fleet.nats.access import read_servers
from amplitude_async.fleet.nats.api import Api
from amplitude_async.fleet.nats.claim import JetStreamClaim
from amplitude_async.fleet.nats.consumer import Consumer
from amplitude_async.fleet.nats.figures import Figures
from amplitude_async.fleet.nats.keeping import Keeper
from amplitude_async.fleet.nats.lease import PlaceLease, Sentinel
from amplitude_async.fleet.nats.letters import Letters
from amplitude_async.fleet.nats.monitoring import durability, read_monitoring
from amplitude_async.fleet.nats.plan import KNOWN_DESTINATIONS, Plan
from amplitude_async.fleet.nats.progress import Bequest
from amplitude_async.fleet.nats.publishing import Publisher
from amplitude_async.fleet.nats.reader import Reader
from amplitude_async.fleet.nats.roster import Roster
from amplitude_async.fleet.nats.wire import Wire
from amplitude_async.fleet.opening import Opening
from amplitude_async.fleet.project import check_partitions, check_project
from amplitude_async.shown import shown

__all__ = ["JetStreamLog"]

MEBIBYTE: Final = 1024 * 1024
# A place has a consumer, and servers let a stream have a thousand.
MOST_PARTITIONS: Final = 1_000 // len(KNOWN_DESTINATIONS)
# Below the megabyte that servers take by default, with room for headers.
MAX_CHUNK_BYTES: Final = 1_000_000
HEADER_BYTES: Final = 4_096
DEFAULT_BYTES: Final = 1024 * MEBIBYTE
DEFAULT_DEAD_BYTES: Final = 128 * MEBIBYTE
READ_AHEAD: Final = 8 * MEBIBYTE
REPLICAS: Final = 3


class JetStreamLog(Log):
    """A log in NATS JetStream: three servers of 2.15 or newer.

    A chunk that is published again later than two minutes after it was stored is
    stored twice: that is how long the servers remember ids.

    Args:
        servers: ``nats://one,two,three``, or a list; user and password may stand before
            the first.
        project: whose events these are: ``[a-z0-9_-]+``, at most 40 characters.
        replicas: how many servers keep each chunk, at least; below 3 the loss of one
            loses it.
        max_bytes: what waiting chunks may take on each server, at least, reserved at
            setup, which never takes any of it back. When it is full, publishing is
            refused.
        dead_max_bytes: the same for dead letters.
        max_chunk_bytes: most bytes of a chunk's data; the servers' ``max_payload`` has
            to be some kilobytes more.
        monitoring: ``http://one:8222,...``: where each server says whether it syncs to
            disk before it acknowledges. Without it nobody knows.
        credentials: path of a ``.creds`` file.
        token: in place of user and password.
        tls: instead of the system's certificates.
    """

    def __init__(  # noqa: PLR0913 - settings, each with a default
        self,
        servers: str | Sequence[str],
        *,
        project: str = DEFAULT_PROJECT,
        replicas: int = REPLICAS,
        max_bytes: int = DEFAULT_BYTES,
        dead_max_bytes: int = DEFAULT_DEAD_BYTES,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
        monitoring: str | Sequence[str] | None = None,
        credentials: str | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        check_project(project)
        if replicas not in (1, 3, 5):
            msg = f"replicas={shown(replicas)} must be 1, 3 or 5: use 3"
            raise ConfigurationError(msg)
        _check_number("max_bytes", max_bytes, MEBIBYTE)
        _check_number("dead_max_bytes", dead_max_bytes, MEBIBYTE)
        _check_number("max_chunk_bytes", max_chunk_bytes, 64 * 1024)
        self.project = project
        self.max_chunk_bytes = max_chunk_bytes
        self._access = read_servers(
            servers, token=token, credentials=credentials, tls=tls
        )
        self._monitoring = read_monitoring(monitoring)
        self._plan = Plan(project, replicas, max_bytes, dead_max_bytes)
        self._settings: Settings | None = None
        self._begin()

    def _begin(self) -> None:
        self._wire = Wire(self._access)
        self._api = Api(self._wire)
        self._sentinel = Sentinel(self._api, self._plan)
        self._claims: set[JetStreamClaim] = set()
        self._opening = Opening(partial(self._give_up, self._wire))

    def __repr__(self) -> str:
        try:
            return f"<JetStreamLog {self.fingerprint()}>"
        except AttributeError:
            # As a traceback of its constructor shows it.
            return "<JetStreamLog half-built>"

    def fingerprint(self) -> str:
        """Name servers and project without a secret."""
        hosts = ",".join(sorted(self._access.hosts))
        return f"nats://{hosts}/{self.project}"

    # Life --------------------------------------------------------------------

    async def setup(self, partitions: int | None = None) -> list[str]:
        """Make or migrate what the log needs on its servers; safe to repeat.

        Args:
            partitions: of each destination; None: 1, or as many as there are.

        Returns:
            What was done, a line for each thing; empty where nothing had to be.

        Raises:
            ConfigurationError: a setting that is there cannot be what was asked for.
            LogError: the servers do not answer.
        """
        check_partitions(partitions, MOST_PARTITIONS)
        # On a connection of its own: nobody has to close a log that was only set up.
        wire = Wire(self._access)
        wire.reopen()
        try:
            return await Keeper(wire, self._plan).setup(partitions)
        finally:
            await wire.close()

    async def open(self) -> Settings:
        """Connect and check every setting; safe to repeat while it is open.

        Raises:
            ConfigurationError: it was not set up, or a setting breaks the promise.
            LogError: the servers do not answer.
        """
        if self._settings is not None:
            return self._settings
        self._wire.reopen()
        async with self._opening.attempt():
            settings = self._settings = await self._check()
        return settings

    async def _give_up(self, wire: Wire) -> None:
        if self._settings is None or wire is not self._wire:
            await wire.close()

    async def _check(self) -> Settings:
        partitions, replicas = await Keeper(self._wire, self._plan).check()
        least = self.max_chunk_bytes + HEADER_BYTES
        if self._wire.max_payload < least:
            msg = (
                f"max_payload={self._wire.max_payload} of the server must be at least "
                f"{least} for max_chunk_bytes={self.max_chunk_bytes}: raise the one, "
                "or lower the other"
            )
            raise ConfigurationError(msg)
        synced, warnings = await durability(self._monitoring, replicas)
        if replicas < REPLICAS:
            warnings.append(
                f"replicas={replicas}: what a server has not handed over is "
                "lost with it; use 3 servers and replicas=3"
            )
        return Settings(partitions, synced, tuple(warnings))

    async def close(self) -> None:
        """End tasks and close the connection; safe to repeat."""
        self._settings = None
        wire, sentinel, claims = self._wire, self._sentinel, self._claims
        self._begin()  # who opens it from here on has a connection of its own
        for claim in claims:
            await claim.end()
        await sentinel.stop()
        await wire.close()

    def abandon(self) -> None:
        """Forget the connection without touching it: of a parent, or a closed loop."""
        self._settings = None
        self._sentinel.abandon()
        self._wire.abandon()
        self._begin()

    # Chunks ------------------------------------------------------------------

    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk; returns when the log has acknowledged it as durable."""
        if len(chunk.data) > self.max_chunk_bytes:
            msg = (
                f"{len(chunk.data)} bytes in a chunk, and max_chunk_bytes="
                f"{self.max_chunk_bytes}: publish less at once"
            )
            raise ChunkTooLargeError(msg)
        await Publisher(self._wire, self._plan).publish(chunk)

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim a place that is free, or whose holder's lease has run out."""
        self._sentinel.begin()
        keeper = Keeper(self._wire, self._plan)
        place_lease = PlaceLease(
            self._api,
            self._plan.held,
            self._plan.lease_subject(place),
            holder=holder,
            length=lease,
        )
        if not await place_lease.take(self._sentinel):
            return None

        async def ready() -> None:
            await keeper.ensure_consumer(place)

        consumer = Consumer(self._wire, self._plan.stream, self._plan.consumer(place))
        reader = Reader(
            self._wire,
            consumer,
            lease=place_lease,
            ready=ready,
            window=max(READ_AHEAD, 2 * self.max_chunk_bytes),
        )
        reader.begin()
        bequest = Bequest(self._api, self._plan, place, place_lease)
        progress = b""
        # The place is ours already: without it some events come twice, and that is all.
        with suppress(LogError):
            progress = await bequest.take()
        claim = JetStreamClaim(
            place,
            place_lease,
            reader=reader,
            consumer=consumer,
            bequest=bequest,
            progress=progress,
        )
        self._claims = {other for other in self._claims if not other.ended} | {claim}
        return claim

    async def backlog(self) -> list[Backlog]:
        """Say what waits in each place that anybody ever used.

        Chunks are counted by the server; events and bytes are estimated from the oldest
        few of a place.
        """
        return await Figures(self._api, self._plan).backlog()

    # Relays ------------------------------------------------------------------

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Say that a relay of a destination lives; returns how many of its do."""
        self._sentinel.begin()
        roster = Roster(self._api, self._plan, self._sentinel)
        return await roster.announce(destination, holder, lease)

    async def withdraw(self, destination: str, holder: str) -> None:
        """Say that a relay of a destination lives no longer."""
        roster = Roster(self._api, self._plan, self._sentinel)
        await roster.withdraw(destination, holder)

    # Dead letters ------------------------------------------------------------

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Keep dead letters; returns when they are durable."""
        await Letters(self._api, self._plan).bury(letters)

    async def letters(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read dead letters above a position, in order."""
        return await Letters(self._api, self._plan).read(after, limit)

    async def forget_letters(self, positions: Sequence[int]) -> None:
        """Take dead letters away for good; unknown ones are no error."""
        await Letters(self._api, self._plan).forget(positions)


def _check_number(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        msg = (
            f"{name}={shown(value)} must be a number of bytes, at least {least}: "
            "raise it"
        )
        raise ConfigurationError(msg)
