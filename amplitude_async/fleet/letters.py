"""Dead letters of a log: read in pages, found by position, sent once more."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from amplitude_async.exceptions import DamagedChunkError, UnknownSchemaError
from amplitude_async.fleet.codec import decode, encode
from amplitude_async.fleet.log import BuriedLetter, Chunk, Letter, Log, Place
from amplitude_async.storage.base import Record

__all__ = [
    "Resend",
    "event_of",
    "first_letters",
    "letters_after",
    "letters_at",
    "send_again",
]

PAGE: Final = 500
# A letter has a megabyte at most: five hundred of them are no answer of a few seconds.
PAGE_BYTES: Final = 8 * 1024 * 1024
FIRST_PAGE: Final = 16
DIGEST_BYTES: Final = 12


@dataclass(slots=True)
class Resend:
    """What became of dead letters that were to be sent again."""

    sent: int = 0
    """Published again, and forgotten."""
    skipped: list[tuple[int, str]] = field(default_factory=list)
    """Positions of those that stay, and why."""

    def count(self, letters: int) -> None:
        """Enter letters that were sent."""
        self.sent += letters

    def skip(self, position: int, why: str) -> None:
        """Enter a letter that stays."""
        self.skipped.append((position, why))


def event_of(letter: Letter) -> Record:
    """Read the event of a letter.

    Raises:
        DamagedChunkError: it has none that can be read, or more than one.
        UnknownSchemaError: a newer version has written it.
    """
    if letter.raw:
        raise DamagedChunkError("a damaged chunk: nobody knows its events")
    records = decode(letter.data)
    if len(records) != 1:
        msg = f"{len(records)} events, where there should be one"
        raise DamagedChunkError(msg)
    return records[0]


async def letters_after(log: Log, after: int = 0) -> AsyncGenerator[BuriedLetter, None]:
    """Read all dead letters above a position, in order."""
    limit = FIRST_PAGE
    while page := await log.letters(after, limit):
        for one in page:
            yield one
        after = page[-1].position
        size = sum(len(one.letter.data) + len(one.letter.message) for one in page)
        # As many as fit if the next are as large; they may be larger, so no leap.
        fit = PAGE_BYTES * len(page) // max(size, 1)
        limit = max(1, min(fit, 4 * limit, PAGE))


async def first_letters(log: Log, after: int, most: int) -> list[BuriedLetter]:
    """Read the first dead letters above a position, page by page."""
    found: list[BuriedLetter] = []
    async with aclosing(letters_after(log, after)) as letters:
        async for one in letters:
            found.append(one)
            if len(found) >= most:
                break
    return found


async def letters_at(log: Log, positions: Iterable[int]) -> AsyncIterator[BuriedLetter]:
    """Read the dead letters that stand at these positions, in order."""
    for position in sorted(set(positions)):
        found = await log.letters(position - 1, 1)
        if found and found[0].position == position:
            yield found[0]


async def send_again(
    log: Log, letters: AsyncIterator[BuriedLetter], result: Resend
) -> None:
    """Publish dead letters as chunks of their places, and then forget them.

    In this order: who is killed in between sends them twice, under the same insert_id.
    A letter that this very call has brought about is not sent again by it.

    Args:
        log: open.
        letters: in order.
        result: is kept up to date, also where an error ends it.

    Raises:
        LogError: the log does not take them; those that were not forgotten stay.
    """
    published: set[str] = set()
    waiting: dict[Place, _Bundle] = {}
    async for one in letters:
        if one.letter.key.rpartition(".")[0] in published:
            continue
        record = _event_or_skip(one, result)
        if record is None:
            continue
        place = one.letter.place
        bundle = waiting.setdefault(place, _Bundle(place))
        if not bundle.has_room(record, log.max_chunk_bytes):
            published.add(await bundle.send(log, result))
            bundle = waiting[place] = _Bundle(place)
        bundle.add(one, record)
    for bundle in waiting.values():
        await bundle.send(log, result)


class _Bundle:
    """Letters of one place that become one chunk."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._letters: list[BuriedLetter] = []
        self._records: list[Record] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<_Bundle of {self._place}: {len(self._letters)} letters>"

    def has_room(self, record: Record, most: int) -> bool:
        """Say whether one more event fits into a chunk; the first always does."""
        if not self._records:
            return True
        # Ids of an event may need as much again as its body.
        size = self._size + _size_of(record)
        return len(self._records) < PAGE and size <= most // 2

    def add(self, letter: BuriedLetter, record: Record) -> None:
        """Take one more."""
        self._letters.append(letter)
        # Its age counts anew: relays give up on what is days old.
        self._records.append(record._replace(accepted_at=time.time()))
        self._size += _size_of(record)

    async def send(self, log: Log, result: Resend) -> str:
        """Publish and forget; returns the id of the chunk."""
        name = _chunk_name(self._letters)
        data = encode(self._records)
        await log.publish(Chunk(name, self._place, data, len(self._records)))
        await log.forget_letters([one.position for one in self._letters])
        result.count(len(self._letters))
        return name


def _size_of(record: Record) -> int:
    ids = (record.identity, record.user_id, record.device_id, record.insert_id)
    return len(record.body) + sum(len(one or "") for one in ids)


def _event_or_skip(one: BuriedLetter, result: Resend) -> Record | None:
    try:
        return event_of(one.letter)
    except (DamagedChunkError, UnknownSchemaError) as error:
        result.skip(one.position, str(error))
        return None


def _chunk_name(letters: Sequence[BuriedLetter]) -> str:
    """Name a chunk so that the same letters, sent once more, have the same name."""
    keys = "\n".join(f"{one.position} {one.letter.key}" for one in letters)
    digest = blake2b(keys.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    return f"again.{digest.hexdigest()}"
