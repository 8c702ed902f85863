"""One place that a relay has: what of it is in hand, what is to be acknowledged."""

import asyncio

from amplitude_async.fleet.batch import Batch
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Letter, Place

__all__ = ["Tenure"]


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
        self.doubtful: set[int] = set()
        """Positions of chunks of which events were left to others."""
        self.idle = False
        """True while all that the log has was read."""
        self.leaving = False
        """True once no chunk is begun any more: another relay is to have the place."""
        self.given_up = False
        """True once what was begun is left undone as well."""
        self.lost = False
        """True once another relay has the place, or may have it."""
        self._finished: list[int] = []
        self._letters: list[Letter] = []
        self.stirred = asyncio.Event()
        """Set when a chunk was decided or left."""

    @property
    def valid(self) -> bool:
        """True while no other relay can have the place."""
        return not self.lost and self._lease.valid

    @property
    def owes(self) -> bool:
        """True while decided chunks are not acknowledged, or letters not kept."""
        return bool(self._finished or self._letters)

    def leave(self) -> None:
        """Begin no chunk any more."""
        self.leaving = True
        self.stirred.set()

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

    def finished(self, position: int) -> None:
        """Note that a chunk is to be acknowledged."""
        self._finished.append(position)
        self.stirred.set()

    def take_finished(self) -> list[int]:
        """Hand over what is to be acknowledged."""
        finished, self._finished = self._finished, []
        return finished

    def owe_again(self, positions: list[int]) -> None:
        """Put back what could not be acknowledged."""
        self._finished = [*positions, *self._finished]

    def bury(self, letters: list[Letter]) -> None:
        """Note rejected events, which the log keeps before it forgets their chunks."""
        self._letters += letters
        self.stirred.set()

    def take_letters(self) -> list[Letter]:
        """Hand over what the log is to keep."""
        letters, self._letters = self._letters, []
        return letters

    def bury_again(self, letters: list[Letter]) -> None:
        """Put back what the log did not take."""
        self._letters = [*letters, *self._letters]

    def __repr__(self) -> str:
        state = "lost" if not self.valid else "leaving" if self.leaving else "held"
        return f"<Tenure of {self.place} {state}, {len(self.batches)} chunks>"
