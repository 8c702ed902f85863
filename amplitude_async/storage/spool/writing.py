"""What is written into the own file, and whether the disk has room for it."""

import logging
from collections.abc import Sequence

from amplitude_async.storage.base import DeadLetter, Record
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.mending import Mending
from amplitude_async.storage.spool.space import DiskReserve
from amplitude_async.storage.spool.told import Told

__all__ = ["Writing"]


class Writing:
    """Writes accepted and rejected events into the file of this process.

    Args:
        custody: has the file.
        mending: sees that it is sound and there.
        reserve: says how much space there is for writing.
        told: says once what is not kept.
        dead_letters: keep so many of the newest rejected events.
    """

    def __init__(
        self,
        custody: Custody,
        mending: Mending,
        reserve: DiskReserve,
        *,
        told: Told,
        dead_letters: int,
    ) -> None:
        self._custody = custody
        self._mending = mending
        self._reserve = reserve
        self._told = told
        self._dead_letters = dead_letters

    def insert(self, records: Sequence[Record], size: int) -> None:
        """Write records into the own file, in one transaction.

        Args:
            records: what to write.
            size: bytes of their bodies.

        Raises:
            StorageError: nothing was written.
        """
        custody = self._custody
        # Once in the log, and once in the file.
        self._reserve.check(2 * size, self._reusable)
        if custody.own is not None:
            self._mending.confirm(custody.own)
        # At the start the disk was full; meanwhile it is not.
        if custody.own is None and custody.destination:
            custody.make_own()
        own = custody.open_own()
        self._mending.sound(own, lambda file: file.insert(records))
        own.grow(len(records), size)

    def _reusable(self) -> int:
        own = self._custody.own
        return 0 if own is None else own.file.pages.reusable

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep rejected events in the own file, while the disk has room for them."""
        if self._reserve.is_touched:
            message = "rejected events are not kept: the disk is nearly full"
            self._told.once(logging.WARNING, self._custody.directory, message)
            return
        own = self._custody.open_own()
        self._mending.sound(
            own, lambda file: file.letters.bury(letters, self._dead_letters)
        )

    def dead_letters(self) -> list[DeadLetter]:
        """Read the rejected events in the own file."""
        return self._custody.open_own().file.letters.read()
