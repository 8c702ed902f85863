"""A chunk in a relay's hands: which of its events are undecided."""

from collections.abc import Sequence

from amplitude_async.fleet.log import Place, StoredChunk
from amplitude_async.storage.base import Record

__all__ = ["Batch", "Batches"]


class Batch:
    """The undecided events of one chunk, numbered as the engine knows them.

    Args:
        place: whose chunk it is.
        chunk: where they come from.
        first: the number of the first of them; theirs follow each other.
        records: they themselves, in order.
        indexes: where in the chunk each of them stands.
    """

    __slots__ = ("begun", "chunk", "first", "indexes", "left", "place", "size", "whole")

    def __init__(
        self,
        place: Place,
        chunk: StoredChunk,
        *,
        first: int,
        records: Sequence[Record],
        indexes: Sequence[int],
    ) -> None:
        self.place = place
        self.chunk = chunk
        self.first = first
        self.indexes = indexes
        self.left = {record.id: record for record in records}
        """Those that are undecided, by number."""
        self.begun = False
        """True once one of them went out, or was decided."""
        self.whole = True
        """False once some of them were left to another relay."""
        self.size = len(chunk.data)

    def __len__(self) -> int:
        return len(self.indexes)

    def __repr__(self) -> str:
        return f"<Batch {self.chunk.id}: {len(self.left)} of {len(self)} undecided>"

    def begin(self) -> None:
        """Note that one of its events went out, or was decided."""
        self.begun = True

    def part(self) -> bool:
        """Note that some of it is left to others; returns whether that is new."""
        was, self.whole = self.whole, False
        return was

    def index_of(self, number: int) -> int:
        """Say where in the chunk an event stands."""
        return self.indexes[number - self.first]

    @property
    def decided(self) -> list[int]:
        """Where in the chunk those stand that are not undecided any more."""
        left = self.left
        return [
            index
            for number, index in enumerate(self.indexes, self.first)
            if number not in left
        ]


class Batches:
    """Batches in order of their numbers; finds the one of an event."""

    def __init__(self) -> None:
        self._all: dict[int, Batch] = {}
        self._by_page: dict[int, list[Batch]] = {}
        self.events = 0
        """Undecided events of all of them."""
        self.size = 0
        """Bytes of their chunks."""

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"<Batches {len(self._all)} with {self.events} undecided events>"

    @property
    def all(self) -> list[Batch]:
        """Every batch, in order of numbers."""
        return list(self._all.values())

    def add(self, batch: Batch) -> None:
        """Take a batch in, whose numbers are above all others."""
        self._all[batch.first] = batch
        for page in _pages(batch):
            self._by_page.setdefault(page, []).append(batch)
        self.events += len(batch.left)
        self.size += batch.size

    def find(self, number: int) -> Batch | None:
        """Find the batch of an event; None where it is there no longer."""
        for batch in self._by_page.get(number >> _PAGE_BITS, ()):
            if batch.first <= number < batch.first + len(batch):
                return batch
        return None

    def strike(self, batch: Batch, number: int) -> bool:
        """Note that an event of a batch is decided or gone; True where none is left."""
        if batch.left.pop(number, None) is not None:
            self.events -= 1
        return not batch.left

    def remove(self, batch: Batch) -> None:
        """Forget a batch; unknown ones are no error."""
        if self._all.pop(batch.first, None) is None:
            return
        for page in _pages(batch):
            neighbours = self._by_page[page]
            neighbours.remove(batch)
            if not neighbours:
                del self._by_page[page]
        self.events -= len(batch.left)
        self.size -= batch.size

    def above(self, number: int) -> list[Batch]:
        """List the batches that may have events with a higher number, in order."""
        found: list[Batch] = []
        # From the newest on: who reads on wants the last few of many thousands.
        for batch in reversed(self._all.values()):
            if batch.first + len(batch) <= number + 1:
                break
            found.append(batch)
        found.reverse()
        return found


_PAGE_BITS = 10


def _pages(batch: Batch) -> range:
    last = batch.first + max(len(batch), 1) - 1
    return range(batch.first >> _PAGE_BITS, (last >> _PAGE_BITS) + 1)
