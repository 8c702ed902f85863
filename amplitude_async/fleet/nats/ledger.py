"""What one claim was given and has not acknowledged: each chunk is handed out once."""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from amplitude_async.fleet.log import StoredChunk
from amplitude_async.fleet.nats.plan import NANOSECONDS
from amplitude_async.fleet.nats.wire import Message

__all__ = ["Arrival", "Ledger", "arrival_of"]

# $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>;
# newer servers may put a domain and an account in front of the stream.
_SHORT: Final = 9
_SHORT_START: Final = 4
_LONG_START: Final = 6


class Arrival(NamedTuple):
    """What the subject to acknowledge to says of a message."""

    position: int
    number: int
    """Counts the deliveries of the consumer since it was reset."""
    stored_at: float
    pending: int
    """How many more the consumer had to deliver after this one."""


def arrival_of(reply: str) -> Arrival | None:
    """Read it; None where it is no message of a consumer."""
    parts = reply.split(".")
    if not reply.startswith("$JS.ACK.") or len(parts) < _SHORT:
        return None
    start = _SHORT_START if len(parts) == _SHORT else _LONG_START
    _, position, number, nanoseconds, pending = map(int, parts[start : start + 5])
    return Arrival(position, number, nanoseconds / NANOSECONDS, pending)


class Ledger:
    """Chunks that came, in order, and where each is to be acknowledged."""

    def __init__(self) -> None:
        self._ready: deque[StoredChunk] = deque()
        self._due: dict[int, str] = {}
        self._decided: set[int] = set()
        self.last = 0
        """Position of the newest chunk that ever came."""
        self.size = 0
        """Bytes that nobody has read yet."""

    def __repr__(self) -> str:
        return f"{len(self._ready)} chunks to read, {len(self._due)} to acknowledge"

    @property
    def due(self) -> list[str]:
        """Where the chunks that came and are not acknowledged are kept alive."""
        return list(self._due.values())

    @property
    def ready(self) -> bool:
        """True where something can be read."""
        return bool(self._ready)

    def came(self, arrival: Arrival, message: Message) -> str | None:
        """Take a chunk in.

        Returns:
            Where to acknowledge it at once: it was decided, and the log does not know.
        """
        position = arrival.position
        if position <= self.last:
            if position not in self._due:
                return message.reply
            self._due[position] = message.reply
            return None
        self.last = position
        if position in self._decided:
            self._decided.discard(position)
            return message.reply
        self._due[position] = message.reply
        name = message.headers.get("Nats-Msg-Id", "")
        chunk = StoredChunk(position, name, message.data, arrival.stored_at)
        self._ready.append(chunk)
        self.size += len(chunk.data)
        return None

    def take(self, max_bytes: int) -> list[StoredChunk]:
        """Hand out what can be read: one chunk at least, where there is any."""
        taken: list[StoredChunk] = []
        room = max_bytes
        while self._ready and (not taken or len(self._ready[0].data) <= room):
            chunk = self._ready.popleft()
            taken.append(chunk)
            room -= len(chunk.data)
            self.size -= len(chunk.data)
        return taken

    def subjects(self, positions: Sequence[int]) -> list[str]:
        """Give the subjects where chunks are to be acknowledged."""
        found = (self._due.get(position) for position in positions)
        return [subject for subject in found if subject is not None]

    def finish(self, positions: Sequence[int]) -> None:
        """Note that chunks are decided.

        An earlier claim of the same relay may have read those that have not come yet.
        """
        for position in positions:
            self._due.pop(position, None)
            if position > self.last:
                self._decided.add(position)
        done = set(positions)
        if self._ready and max(done, default=0) >= self._ready[0].position:
            left = [chunk for chunk in self._ready if chunk.position not in done]
            self._ready = deque(left)
            self.size = sum(len(chunk.data) for chunk in left)

    def clear(self) -> None:
        """Forget what nobody has read: it is somebody else's."""
        self._ready.clear()
        self.size = 0
