"""One place that a relay has: what of it is in hand, what is to be acknowledged."""

import asyncio
from collections.abc import Collection, Iterable, Mapping

from amplitude_async.fleet.batch import Batch
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Letter, Place

__all__ = ["Tenure"]


class _Letters:
    """Rejected events that the log does not keep as yet, in order."""

    def __init__(self) -> None:
        self.all: list[Letter] = []
        self.events: dict[str, set[int]] = {}
        """Where in which chunk they stand."""

    def __repr__(self) -> str:
        return f"<_Letters {len(self.all)}>"

    def add(self, letters: Iterable[Letter]) -> None:
        """Note some more."""
        for letter in letters:
            self.all.append(letter)
            chunk_id, index = _origin(letter)
            self.events.setdefault(chunk_id, set()).add(index)

    def forget_first(self, count: int) -> None:
        """Forget so many that are kept."""
        for letter in self.all[:count]:
            chunk_id, index = _origin(letter)
            indexes = self.events.get(chunk_id, set())
            indexes.discard(index)
            if not indexes:
                self.events.pop(chunk_id, None)
        del self.all[:count]


def _origin(letter: Letter) -> tuple[str, int]:
    chunk_id, _, index = letter.key.rpartition(".")
    return chunk_id, int(index)


class Tenure:
    """A claim from its first chunk to its last, as the feed sees it.

    Args:
        place: what was claimed.
        lease: how long it is ours for sure.
    """

    def __init__(self, place: Place, lease: Lease) -> None:
        self.place = place
        self._lease = lease
        self.batches: dict[int, Batch] = {}
        """Chunks with undecided events, by the number of the first."""
        self.idle = False
        """True while all that the log has was read."""
        self.leaving = False
        """True once no chunk is begun any more: another relay is to have the place."""
        self.given_up = False
        """True once what was begun is left undone as well."""
        self.lost = False
        """True once another relay has the place, or may have it."""
        self._finished: dict[int, str] = {}
        self._last_begun = 0
        self._letters = _Letters()
        self.stirred = asyncio.Event()
        """Set when a chunk was decided or left."""

    @property
    def valid(self) -> bool:
        """True while no other relay can have the place; never again once it was not.

        What was let go then is not read again by this claim, though a clock be put
        right meanwhile.
        """
        if not self.lost and not self._lease.valid:
            self.lose()
        return not self.lost

    @property
    def owes(self) -> bool:
        """True while decided chunks are not acknowledged, or letters not kept."""
        return bool(self._finished or self._letters.all)

    def leave(self) -> None:
        """Begin no chunk any more, but for those before one that was begun."""
        if not self.leaving:
            begun = [first for first, batch in self.batches.items() if batch.begun]
            self._last_begun = max(begun, default=0)
        self.leaving = True
        self.stirred.set()

    def keeps(self, batch: Batch) -> bool:
        """Tell whether what is undecided of a chunk is still ours to send.

        Of a place that is left, all up to the last chunk that was begun is finished:
        a user's events in that one would overtake the user's earlier ones otherwise.
        """
        if not self.valid or self.given_up:
            return False
        return not self.leaving or batch.first <= self._last_begun

    def give_up(self) -> None:
        """Leave undone what was begun as well."""
        self.given_up = True
        self.stirred.set()

    def lose(self) -> None:
        """Another relay has the place, or may have it."""
        self.lost = True
        self.stirred.set()

    def note_idle(self, *, idle: bool) -> bool:
        """Note whether all was read; returns whether that is new."""
        was, self.idle = self.idle, idle
        return idle and not was

    def take(self, batch: Batch) -> None:
        """Take a chunk in hand."""
        self.batches[batch.first] = batch

    def drop(self, batch: Batch) -> None:
        """Let go a chunk of which nothing is undecided."""
        self.batches.pop(batch.first, None)
        self.stirred.set()

    def finished(self, position: int, chunk_id: str) -> None:
        """Note that a chunk is to be acknowledged."""
        self._finished[position] = chunk_id
        self.stirred.set()

    @property
    def debts(self) -> tuple[list[int], list[Letter]]:
        """Chunks to be acknowledged, and letters that the log is to keep before."""
        return list(self._finished), list(self._letters.all)

    @property
    def owed_events(self) -> Mapping[str, Collection[int]]:
        """Which events of which chunks are letters that the log does not keep yet."""
        return self._letters.events

    @property
    def payable(self) -> list[int]:
        """Chunks that may be acknowledged now: all of their letters are kept."""
        owed = self.owed_events
        return [at for at, chunk_id in self._finished.items() if chunk_id not in owed]

    @property
    def unpaid(self) -> Mapping[int, str]:
        """The ids of chunks that are not acknowledged as yet, by position."""
        return self._finished

    def paid(self, positions: Collection[int] = (), letters: int = 0) -> None:
        """Note what the log has done, of letters the first; until then it is owed."""
        for position in positions:
            self._finished.pop(position, None)
        self._letters.forget_first(letters)

    def inherit(self, unpaid: Mapping[int, str], letters: list[Letter]) -> None:
        """Take over what an earlier claim of ours owes."""
        self._finished.update(unpaid)
        self._letters.add(letters)

    def bury(self, letters: list[Letter]) -> None:
        """Note rejected events, which the log keeps before it forgets their chunks."""
        self._letters.add(letters)
        self.stirred.set()

    def __repr__(self) -> str:
        state = "lost" if not self.valid else "leaving" if self.leaving else "held"
        return f"<Tenure of {self.place} {state}, {len(self.batches)} chunks>"
