"""Which files are ours: the own one, those taken over, and those that wait for ids."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.allowance import Allowance
from amplitude_async.storage.spool.file import Amount
from amplitude_async.storage.spool.making import make_locked
from amplitude_async.storage.spool.source import Source, keep_from_children

__all__ = ["Custody"]


class Custody:
    """Holds the files of one open spool, and counts what is in them.

    Args:
        directory: where they lie; others have files there as well.
        allowance: what may be in them.
        full_sync: sync what is written to the disk in every transaction.
    """

    def __init__(
        self, directory: Path, allowance: Allowance, *, full_sync: bool
    ) -> None:
        self.directory = directory
        self.allowance = allowance
        self.full_sync = full_sync
        self.destination = ""
        """Whose records these are; empty while the spool is closed."""
        self.own: Source | None = None
        """The file that this process writes to, while the spool is open."""
        # Handed from thread to thread: what is claimed waits here for its ids, which
        # only the loop's thread can give.
        self._claimed: deque[Source] = deque()
        self._adopted: list[Source] = []

    def __repr__(self) -> str:
        return f"<Custody {len(self.all())} files of {str(self.directory)!r}>"

    def begin(self, destination: str) -> None:
        """Hold files of one destination from now on."""
        self.destination = destination

    def end(self) -> list[Source]:
        """Hold nothing any more; returns what is to be left."""
        sources = self.all()
        self.own = None
        self.destination = ""
        self._adopted = []
        self._claimed.clear()
        self.allowance.hold_nothing()
        return sources

    # Looking -----------------------------------------------------------------

    def all(self) -> list[Source]:
        """Return the own file, then the others in the order of their coming."""
        own = [self.own] if self.own is not None else []
        return [*own, *self._adopted, *self._claimed]

    def adopted(self) -> list[Source]:
        """Return the files that have ids; a copy, since what is finished leaves."""
        return list(self._adopted)

    @property
    def claimed(self) -> int:
        """How many files wait for their ids."""
        return len(self._claimed)

    def open_own(self) -> Source:
        """Return the own file.

        Raises:
            StorageError: there is none.
        """
        if self.own is None:
            msg = f"the spool {self.directory} is not open"
            raise StorageError(msg)
        return self.own

    # Coming and going --------------------------------------------------------

    def make_own(self) -> None:
        """Make and lock a file of this process.

        Raises:
            StorageError: the directory cannot be used; the message says why.
        """
        made = make_locked(self.directory, self.destination, full_sync=self.full_sync)
        self.own = Source(*made)
        keep_from_children(self.own)

    def claim(self, source: Source) -> None:
        """Hold a file of another process."""
        keep_from_children(source)
        self.allowance.take_over(source.amount)
        self._claimed.append(source)

    def number_claimed(self, allot: Callable[[int], int]) -> int:
        """Give ids to what was claimed; runs on the loop's thread, where ids are.

        Returns:
            How many events were taken over.
        """
        taken = 0
        # Also those that an adoption claimed whose waiter was cancelled.
        while self._claimed:
            source = self._claimed.popleft()
            taken += source.number(allot)
            self._adopted.append(source)
        return taken

    def count_out(self, source: Source, removed: Amount) -> None:
        """Count what is in a file no more."""
        self.allowance.give_back(*removed)
        source.reduce(removed)
        if source is not self.own and not source.is_passed_over:
            self.allowance.let_go(removed)

    def finish(self, source: Source) -> None:
        """Leave an adopted file in which nothing is left."""
        if source is not self.own and source.amount.events <= 0:
            self._adopted.remove(source)
            source.pay()
            source.leave()

    def give_up(self, source: Source) -> None:
        """Hold a file no more that another process has taken over."""
        self.count_out(source, source.amount)
        source.abandon()
        if source is self.own:
            self.own = None
        elif source in self._adopted:
            self._adopted.remove(source)
