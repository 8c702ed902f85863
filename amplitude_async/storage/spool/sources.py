"""The files that one open spool reads from: its own, and those it has taken over.

Everything here runs on the spool's thread, but for what says otherwise.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool.allowance import Allowance
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.forgetting import Forgetting
from amplitude_async.storage.spool.making import make_directory
from amplitude_async.storage.spool.mending import Mending
from amplitude_async.storage.spool.orphans import Orphans
from amplitude_async.storage.spool.reading import Reading
from amplitude_async.storage.spool.source import Source
from amplitude_async.storage.spool.space import DiskReserve
from amplitude_async.storage.spool.strangers import open_to_all
from amplitude_async.storage.spool.told import Told
from amplitude_async.storage.spool.writing import Writing

__all__ = ["Sources"]

logger = logging.getLogger("amplitude_async.storage")


class Sources:
    """Opens and leaves the files of one spool, and has each question's owner.

    Args:
        directory: where they lie; others have files there as well.
        allowance: how much may be in them.
        full_sync: sync the own file to the disk in every transaction.
        dead_letters: keep so many of the newest rejected events.
        min_free_bytes: leave so much of the disk free.
    """

    def __init__(
        self,
        directory: Path,
        allowance: Allowance,
        *,
        full_sync: bool,
        dead_letters: int,
        min_free_bytes: int,
    ) -> None:
        self._told = Told()
        self._reserve = DiskReserve(directory, min_free_bytes)
        self._custody = Custody(directory, allowance, full_sync=full_sync)
        self._mending = Mending(self._custody, dead_letters)
        self._orphans = Orphans(self._custody, self._told, dead_letters)
        self._forgetting = Forgetting(self._custody, self._mending, self._reserve)
        self._reading = Reading(self._custody, self._mending)
        self._writing = Writing(
            self._custody,
            self._mending,
            self._reserve,
            told=self._told,
            dead_letters=dead_letters,
        )

    @property
    def own(self) -> Source | None:
        """The file that this process writes to, while the spool is open."""
        return self._custody.own

    # Making and leaving ------------------------------------------------------

    def open(self, destination: str) -> None:
        """Make the own file, and lock those of processes that are gone.

        Where the disk has no room for an own file, theirs are drained first, and the
        own one is made with the first event that is written.

        Args:
            destination: whose records these are.

        Raises:
            StorageError: the directory cannot be used, and nothing is there to drain.
        """
        custody = self._custody
        directory = custody.directory
        make_directory(directory)
        if open_to_all(directory):
            message = "anybody may delete its files: chmod 700"
            self._told.once(logging.WARNING, directory, message)
        custody.begin(destination)
        problem: StorageError | None = None
        if not self._reserve.is_touched:
            problem = self._try_to_make_own()
        self.claim_orphans()
        if custody.own is None and not custody.claimed:
            custody.make_own()
        if custody.own is None:
            logger.error(
                "the spool %s has no room for a file of its own: events that are left "
                "from before are sent, new ones are in memory only%s",
                directory,
                f": {problem}" if problem is not None else "",
            )

    def _try_to_make_own(self) -> StorageError | None:
        """Make the own file; returns what went wrong."""
        try:
            self._custody.make_own()
        except StorageError as error:
            return error
        return None

    def leave(self) -> None:
        """Close and free every file, and delete those with nothing left.

        Raises:
            StorageError: one of them made trouble; all are free even so.
        """
        # What was deleted meanwhile is written once more: it is called stored.
        problem: StorageError | None = None
        try:
            self.confirm()
        except StorageError as error:
            problem = error
        for source in self._custody.end():
            try:
                source.leave()
            except StorageError as error:
                problem = error
        if problem is not None:
            raise problem

    # Each question has an owner ----------------------------------------------

    def number_claimed(self, allot: Callable[[int], int]) -> int:
        """Give ids to what was claimed; runs on the loop's thread, where ids are.

        Returns:
            How many events were taken over.
        """
        return self._custody.number_claimed(allot)

    def claim_orphans(self) -> None:
        """Lock files of processes that are gone, few at a time."""
        # What is deleted makes room for more.
        self._forgetting.delete_owed()
        self._orphans.claim()

    def confirm(self) -> None:
        """See that all files are still there, and write those again that are not.

        Raises:
            StorageError: one cannot be; what was in it dies with this process.
        """
        self._mending.confirm_all()

    def insert(self, records: Sequence[Record], size: int) -> None:
        """Write records, whose bodies have so many bytes, in one transaction.

        Raises:
            StorageError: nothing was written.
        """
        self._writing.insert(records, size)

    def forget(self, ids: list[int]) -> None:
        """Delete the records with these ids, which are sorted."""
        self._forgetting.forget(ids)

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events in the own file, while the disk has room for them."""
        self._writing.bury(letters)

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events in the own file."""
        return self._writing.dead_letters()

    @property
    def oldest(self) -> float | None:
        """When the oldest record was accepted, as of the last look."""
        return self._reading.oldest

    def look(self) -> None:
        """Find the oldest record again."""
        self._reading.look()

    def read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        return self._reading.read(after, limit, max_bytes)
