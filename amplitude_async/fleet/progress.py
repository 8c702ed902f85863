"""Which events are decided of chunks that come again, and how a holder tells the next.

A log forgets whole chunks. One user whom the server throttles keeps back many of which
all other events are decided: without this they would be sent again by the next holder.
"""

import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from amplitude_async.fleet.batch import Batch
from amplitude_async.fleet.log import Place

__all__ = ["Progress"]

_FORMAT: Final = 1
# More is not told: what it leaves out comes twice. It is written on the loop.
MOST_CHUNKS: Final = 1_000
MOST_EVENTS: Final = 20_000
MOST_LOOKED_AT: Final = 10_000
# Read from a log: no more is unpacked, whatever it says.
MOST_BYTES: Final = 1024 * 1024
MOST_DIGITS: Final = 16_384

_Known = dict[str, set[int]]


class Progress:
    """The events that are decided of chunks that are not, by place and chunk."""

    def __init__(self) -> None:
        self._places: dict[Place, _Known] = {}

    def __repr__(self) -> str:
        chunks = sum(map(len, self._places.values()))
        return f"<Progress of {chunks} chunks>"

    def note(self, place: Place, chunk_id: str, indexes: Iterable[int]) -> None:
        """Note events of a chunk that are decided, by where they stand in it."""
        known = self._places.setdefault(place, {})
        known.setdefault(chunk_id, set()).update(indexes)

    def of(self, place: Place, chunk_id: str) -> Collection[int]:
        """Say which events of a chunk are decided."""
        return self._places.get(place, {}).get(chunk_id, ())

    def forget(self, place: Place, chunk_id: str) -> None:
        """Forget a chunk that does not come again."""
        known = self._places.get(place, {})
        known.pop(chunk_id, None)
        if not known:
            self._places.pop(place, None)

    def keep_only(self, place: Place, chunk_ids: Collection[str]) -> None:
        """Forget all chunks of a place but these."""
        for chunk_id in list(self._places.get(place, {})):
            if chunk_id not in chunk_ids:
                self.forget(place, chunk_id)

    # From holder to holder ---------------------------------------------------

    def write(
        self,
        place: Place,
        batches: Iterable[Batch],
        *,
        but: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> bytes:
        """Write down what is known of a place for its next holder.

        Args:
            batches: what of the place is in hand.
            but: events of chunks that are not to be told as decided.

        Returns:
            Nothing where nothing is known.
        """
        known = dict(self._places.get(place, {}))
        left = MOST_EVENTS
        for batch in islice(batches, MOST_LOOKED_AT):
            # Of one that was left to others in part it is noted what is decided: what
            # else is not in hand is undecided.
            told = batch.whole and len(batch.left) < len(batch)
            decided = batch.decided if told else ()
            if decided:
                known[batch.chunk.id] = known.get(batch.chunk.id, set()).union(decided)
            left -= len(decided)
            if left <= 0 or len(known) >= MOST_CHUNKS:
                break
        for chunk_id in known.keys() & but.keys():
            known[chunk_id] = known[chunk_id].difference(but[chunk_id])
        chunks = {
            chunk_id: _digits_of(indexes)
            for chunk_id, indexes in islice(known.items(), MOST_CHUNKS)
            if indexes
        }
        if not chunks:
            return b""
        said = json.dumps({"format": _FORMAT, "chunks": chunks}, separators=(",", ":"))
        return zlib.compress(said.encode(), 1)

    def read(self, place: Place, data: bytes) -> None:
        """Learn what the holder of a place before has written.

        Raises:
            ValueError: it cannot be read: what was decided comes again.
        """
        if not data:
            return
        for chunk_id, found in _unpacked(data).items():
            digits = str(found)
            if len(digits) > MOST_DIGITS:
                msg = "a chunk has too many digits"
                raise ValueError(msg)
            self.note(place, chunk_id, _indexes_in(digits))


def _digits_of(indexes: Collection[int]) -> str:
    """Write numbers down as bits; in steps as many as they are, however high."""
    bits = bytearray(max(indexes) // 8 + 1)
    for index in indexes:
        bits[index >> 3] |= 1 << (index & 7)
    return f"{int.from_bytes(bits, 'little'):x}"


def _indexes_in(digits: str) -> list[int]:
    bits = f"{abs(int(digits, 16)):b}"
    return [index for index, bit in enumerate(reversed(bits)) if bit == "1"]


def _unpacked(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(zlib.decompressobj().decompress(data, MOST_BYTES))
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    match said:
        case {"format": int(number), "chunks": dict(chunks)} if number == _FORMAT:
            return chunks
    msg = "another version has written it"
    raise ValueError(msg)
