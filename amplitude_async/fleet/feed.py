"""A log as the storage of an engine: others fill it, and others may claim what it has.

What a relay has read of a log is here until the engine has decided it. A chunk is
acknowledged when all of its events are decided, and the rejected ones buried.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from amplitude_async.exceptions import StorageError
from amplitude_async.fleet.batch import Batch, Batches
from amplitude_async.fleet.codec import decode, encode
from amplitude_async.fleet.log import Letter, Log, Place, StoredChunk
from amplitude_async.fleet.progress import Progress
from amplitude_async.fleet.tenure import Tenure
from amplitude_async.storage.base import DeadLetter, Holdings, Host, Record, Storage

__all__ = ["Feed"]

DAY: Final = 86_400.0
# Read ahead of the engine: its own reader takes so many at once.
AHEAD_EVENTS: Final = 5_000
# In hand at most, decided or not: a throttled user keeps so much of others back.
MOST_EVENTS: Final = 80_000
MOST_BYTES: Final = 48 * 1024 * 1024


class Feed(Storage):
    """What one relay has read of a log for one destination.

    Args:
        log: keeps dead letters.
        destination: its name, for letters.
    """

    durable = True
    takes_appends = False
    keeps_given_up = True
    # The log keeps all of them, as it does its chunks.
    dead_letters = sys.maxsize
    default_max_age = 6 * DAY

    def __init__(self, log: Log, destination: str) -> None:
        self._log = log
        self._destination = destination
        self._host: Host | None = None
        self._batches = Batches()
        self._tenures: dict[Place, Tenure] = {}
        self._progress = Progress()
        self._owed: dict[Place, Tenure] = {}

    def __repr__(self) -> str:
        return f"<Feed of {self._destination}: {self._batches!r}>"

    # Filled by a relay -------------------------------------------------------

    @property
    def host(self) -> Host:
        """The engine.

        Raises:
            StorageError: there is none as yet.
        """
        if self._host is None:
            msg = "a feed has no engine before its client was made"
            raise StorageError(msg)
        return self._host

    @property
    def wants_more(self) -> bool:
        """True while the engine has soon read what is here, and there is room."""
        return (
            self.host.ahead < AHEAD_EVENTS
            and self._batches.events < MOST_EVENTS
            and self._batches.size < MOST_BYTES
        )

    def begin(self, tenure: Tenure, progress: bytes = b"") -> None:
        """Let chunks of a place come from now on.

        What an earlier claim of ours could not acknowledge is acknowledged by this one.

        Args:
            progress: what the holder before left.

        Raises:
            ValueError: that cannot be read; the place has begun all the same.
        """
        before = self._owed.pop(tenure.place, None)
        if before is not None:
            tenure.inherit(before.unpaid, before.debts[1])
        self._tenures[tenure.place] = tenure
        self._progress.read(tenure.place, progress)

    def progress_of(self, tenure: Tenure) -> bytes:
        """Say what of a place is decided and not acknowledged, for its next holder.

        Rejected events are decided for others once their letters are kept.
        """
        place, owed = tenure.place, tenure.owed_events
        return self._progress.write(place, tenure.batches.values(), but=owed)

    def end(self, tenure: Tenure) -> None:
        """Let no chunk of a place come any more; nothing of it may be left."""
        if tenure.owes:
            self._owed[tenure.place] = tenure
        if self._tenures.get(tenure.place) is tenure:
            del self._tenures[tenure.place]

    def push(self, tenure: Tenure, chunk: StoredChunk) -> None:
        """Take the events of a chunk in.

        Raises:
            DamagedChunkError: it cannot be read.
            UnknownSchemaError: a newer version has written it.
        """
        found = decode(chunk.data)
        past = self._progress.of(tenure.place, chunk.id)
        indexes: Sequence[int] = range(len(found))
        if past:
            indexes = [index for index in indexes if index not in past]
        if not indexes:
            self._progress.forget(tenure.place, chunk.id)
            tenure.finished(chunk.position, chunk.id)
            return
        first = self.host.arrived(len(indexes))
        latest = chunk.stored_at
        # A host whose clock is ahead makes no event younger than its chunk.
        records = [
            found[index]._replace(
                id=first + number, accepted_at=min(found[index].accepted_at, latest)
            )
            for number, index in enumerate(indexes)
        ]
        batch = Batch(
            tenure.place, chunk, first=first, records=records, indexes=indexes
        )
        if past:
            batch.begin()
        self._batches.add(batch)
        tenure.take(batch)

    def read_all(self, tenure: Tenure) -> None:
        """Note that a claim has read all that the log has of its place.

        What it did not bring again of an earlier claim's is decided by others.
        """
        if tenure.leaving or not tenure.valid:
            return  # what was in hand went back meanwhile, and comes again
        in_hand = {batch.chunk.id for batch in tenure.batches.values()}
        self._progress.keep_only(tenure.place, in_hand.union(tenure.unpaid.values()))

    async def keep(self, letters: Sequence[Letter]) -> None:
        """Keep rejected events in the log.

        Raises:
            LogError: the log does not take them.
        """
        await self._log.bury(letters)

    async def bury_raw(self, place: Place, chunk: StoredChunk, message: str) -> None:
        """Keep a chunk that cannot be read, as it was found.

        Raises:
            LogError: the log does not take it.
        """
        letter = Letter(f"{chunk.id}.raw", place, chunk.data, 0, message, raw=True)
        await self._log.bury([letter])

    # Read by the engine ------------------------------------------------------

    def listen(self, host: Host) -> None:
        """Take note of the engine."""
        self._host = host

    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Nothing is here as yet: a relay brings it."""
        return 0

    async def append(self, records: Sequence[Record]) -> None:
        """Take nothing of the engine's own.

        Raises:
            StorageError: always.
        """
        msg = "a feed takes no events: track on a client with handover=log"
        raise StorageError(msg)

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read undecided events above a number, in order."""
        page: list[Record] = []
        for batch in self._batches.above(after):
            for number, record in batch.left.items():
                if number <= after:
                    continue
                max_bytes -= len(record.body)
                if page and (len(page) >= limit or max_bytes < 0):
                    return page
                page.append(record)
        return page

    def _undecided(self, ids: Sequence[int]) -> Iterator[tuple[int, Batch, Tenure]]:
        """Find chunk and place of each event that is undecided and in hand."""
        for number in ids:
            batch = self._batches.find(number)
            tenure = None if batch is None else self._tenures.get(batch.place)
            if batch is not None and tenure is not None and number in batch.left:
                yield number, batch, tenure

    async def settle(self, ids: Sequence[int]) -> None:
        """Take note that events are decided."""
        for number, batch, tenure in self._undecided(ids):
            batch.begin()
            if not batch.whole:
                # It is lost in part, and comes again.
                index = batch.index_of(number)
                self._progress.note(tenure.place, batch.chunk.id, [index])
            if self._batches.strike(batch, number):
                self._finish(tenure, batch)

    def _finish(self, tenure: Tenure, batch: Batch) -> None:
        self._batches.remove(batch)
        tenure.drop(batch)
        if not batch.whole:
            return
        chunk = batch.chunk
        if chunk.id in tenure.owed_events:
            # Not acknowledged before its letters are kept, which may be long.
            self._progress.note(tenure.place, chunk.id, batch.indexes)
        else:
            self._progress.forget(tenure.place, chunk.id)
        tenure.finished(chunk.position, chunk.id)

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Let the log keep rejected events, however long it is away.

        Their chunks are not acknowledged before that.
        """
        for letter in letters:
            batch = self._batches.find(letter.record.id)
            tenure = None if batch is None else self._tenures.get(batch.place)
            if batch is not None and tenure is not None:
                tenure.bury([self._letter(batch, letter)])

    @staticmethod
    def _letter(batch: Batch, letter: DeadLetter) -> Letter:
        record = letter.record
        return Letter(
            f"{batch.chunk.id}.{batch.index_of(record.id)}",
            batch.place,
            encode([record]),
            letter.code,
            letter.message,
            raw=False,
        )

    async def size(self) -> int:
        """Count the undecided events."""
        return self._batches.events

    def holdings(self) -> Holdings:
        """Say how much is in hand, and since when."""
        first = next(iter(self._batches.all), None)
        oldest = None if first is None else first.chunk.stored_at
        return Holdings(self._batches.size, oldest)

    async def close(self) -> None:
        """Nothing is open here: the log is the relay's."""

    def after_fork(self) -> Storage:
        """Build the feed of a child, which is filled by nobody."""
        return Feed(self._log, self._destination)

    # Claimed by others -------------------------------------------------------

    @property
    def hurried(self) -> bool:
        """True while every place was read to its end."""
        return all(tenure.idle for tenure in self._tenures.values())

    def may_send(self, records: Sequence[Record]) -> bool:
        """Say whether all of them are still this relay's; they are begun then."""
        batches = {
            id(b): b for b in map(self._batches.find, [r.id for r in records]) if b
        }
        for batch in batches.values():
            tenure = self._tenures.get(batch.place)
            if tenure is None or not tenure.keeps(batch):
                self.host.look_again()
                return False
        for batch in batches.values():
            batch.begin()
        return True

    def lapsed(self) -> Sequence[Record]:
        """List what is another relay's by now, or is about to be."""
        gone: list[Record] = []
        for tenure in self._tenures.values():
            if tenure.valid and not tenure.leaving:
                continue
            for batch in tenure.batches.values():
                if not tenure.keeps(batch):
                    gone += batch.left.values()
        return gone

    def take_back(self, ids: Sequence[int]) -> None:
        """Let events go that the engine has let go."""
        for number, batch, tenure in self._undecided(ids):
            if batch.part():
                self._progress.note(tenure.place, batch.chunk.id, batch.decided)
            if self._batches.strike(batch, number):
                self._finish(tenure, batch)
