"""What is read, in which order, and which file is given up as it cannot be read."""

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import Record
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.mending import Mending
from amplitude_async.storage.spool.source import Source

__all__ = ["Reading"]

logger = logging.getLogger("amplitude_async.storage")

_HIGHEST: Final = 2**63 - 1
_FILES_LOOKED_AT = 8


class _Stretch(NamedTuple):
    """Ids in a row whose records lie in one file."""

    source: Source
    above: int
    up_to: int


class Reading:
    """Reads the files of one spool as if they were one.

    Args:
        custody: has the files.
        mending: sees that they are sound.
    """

    def __init__(self, custody: Custody, mending: Mending) -> None:
        self._custody = custody
        self._mending = mending
        self.oldest: float | None = None
        """When the oldest record was accepted, so far as that was found at once."""

    def look(self) -> None:
        """Find the oldest record again."""
        # It is only a figure: a file that makes trouble says so elsewhere.
        with contextlib.suppress(StorageError):
            self.oldest = self._first_accepted()

    def _first_accepted(self) -> float | None:
        # Of many files that were taken over the first are the oldest.
        files = [source.file for source in self._custody.all()[:_FILES_LOOKED_AT]]
        found = [file.first_accepted() for file in files]
        return min((one for one in found if one is not None), default=None)

    def read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id."""
        found: list[Record] = []
        for source, above, up_to in self._stretches(after):
            if len(found) >= limit or max_bytes <= 0:
                break
            try:
                fetch = partial(
                    SpoolFile.fetch,
                    after=max(above - source.base, 0),
                    limit=limit - len(found),
                    max_bytes=max_bytes,
                    up_to=up_to - source.base,
                    one_at_least=not found,
                )
                rows = self._mending.sound(source, fetch)
            except StorageError as error:
                if found:
                    break  # what was read goes first, and this is read again
                own = self._custody.own
                if source is own or not self._pass_over(source, error):
                    raise
                continue
            source.was_read(well=True)
            max_bytes -= sum([len(record.body) for record in rows])
            damaged = [record.id for record in rows if not record.body]
            if damaged:
                self._quarantine(source, damaged)
            base = source.base
            found += [r._replace(id=r.id + base) for r in rows] if base else rows
        return found

    def _pass_over(self, source: Source, error: StorageError) -> bool:
        """Count a failed reading; True once a file is not read any more."""
        source.was_read(well=False)
        if not source.is_passed_over:
            return False
        amount = source.amount
        self._custody.allowance.let_go(amount)
        logger.error(
            "%s; its %d events stay where they are until the next start",
            error,
            amount.events,
        )
        return True

    def _stretches(self, after: int) -> Iterator[_Stretch]:
        """Cut the ids above one into stretches of one file each, in order."""
        own = self._custody.own
        for source in sorted(self._custody.adopted(), key=lambda one: one.ids.start):
            first, last = source.ids.start, source.ids.stop - 1
            if last <= after:
                continue
            # Ids that were given before a file was adopted are the own file's.
            if own is not None:
                yield _Stretch(own, after, first - 1)
            if not source.is_passed_over:
                yield _Stretch(source, max(after, first - 1), last)
            after = last
        if own is not None:
            yield _Stretch(own, after, _HIGHEST)

    def _quarantine(self, source: Source, rows: list[int]) -> None:
        logger.error(
            "spool file %s: %d damaged events are set aside and not sent",
            source.file.path,
            len(rows),
        )
        # On a full disk they stay where they are until they are settled.
        with contextlib.suppress(StorageError):
            set_aside = partial(SpoolFile.quarantine, ids=rows)
            removed = self._mending.sound(source, set_aside)
            self._custody.count_out(source, removed)
            self._custody.finish(source)
