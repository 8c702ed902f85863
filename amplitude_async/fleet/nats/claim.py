"""A place that one relay has: its lease, and what is read under it."""

from collections.abc import Sequence

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.log import Claim, Place, StoredChunk
from amplitude_async.fleet.nats.consumer import Consumer
from amplitude_async.fleet.nats.lease import PlaceLease
from amplitude_async.fleet.nats.progress import Bequest
from amplitude_async.fleet.nats.reader import Reader

__all__ = ["JetStreamClaim"]


class JetStreamClaim(Claim):
    """The claim that ``JetStreamLog.claim`` gives.

    Args:
        place: what is claimed.
        lease: tells whose it is.
        reader: reads it; it has begun.
        consumer: of the place.
        bequest: leaves word for the next holder.
        progress: what the holder before has noted.
    """

    def __init__(
        self,
        place: Place,
        lease: PlaceLease,
        *,
        reader: Reader,
        consumer: Consumer,
        bequest: Bequest,
        progress: bytes,
    ) -> None:
        self.place = place
        self.progress = progress
        self._bequest = bequest
        self._lease = lease
        self._reader = reader
        self._consumer = consumer

    def __repr__(self) -> str:
        return f"<JetStreamClaim of {self.place}: {self._lease!r}, {self._reader!r}>"

    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read the next chunks of the place in order, each of them once a claim."""
        if not await self._lease.valid():
            return []
        await self._reader.settle(max_bytes)
        # Waiting may have taken longer than the lease is long.
        return self._reader.take(max_bytes) if await self._lease.valid() else []

    async def wait(self, timeout: float) -> None:
        """Return when there may be something new to read, or after so many seconds."""
        await self._reader.arrived(timeout)

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Forget chunks whose every event is decided; unknown ones are no error."""
        try:
            await self._reader.acknowledge(positions, confirm=not self._lease.lost)
        except LogError:
            # A heir may have them by now, and the log tells only who has them.
            if await self._lease.confirmed():
                raise

    async def renew(self) -> bool:
        """Begin the lease anew; False where the place is somebody else's by now."""
        kept = await self._lease.renew()
        if not kept:
            await self._reader.end()
        return kept

    async def note_progress(self, data: bytes) -> None:
        """Keep it beside the lease, while that is this claim's."""
        await self._bequest.leave(data)

    async def release(self) -> None:
        """Give the place back: another relay may claim it at once."""
        await self._reader.end()
        await self._lease.free()

    async def end(self) -> None:
        """Stop reading and leave the lease as it is: the log is closed."""
        await self._reader.end()

    @property
    def ended(self) -> bool:
        """True where nothing is read under it any more."""
        return self._reader.ended

    @property
    def resets(self) -> int:
        """How often the consumer was reset for this claim."""
        return self._consumer.resets
