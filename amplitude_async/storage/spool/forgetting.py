"""How events are deleted whose fate is decided, also where the disk is nearly full."""

import bisect
import logging
from functools import partial

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.spool.custody import Custody
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.mending import Mending
from amplitude_async.storage.spool.source import Source
from amplitude_async.storage.spool.space import DiskReserve

__all__ = ["Forgetting"]

logger = logging.getLogger("amplitude_async.storage")

# What one transaction deletes: each page of it goes through the log. The less, the
# less space it takes of a disk that has little.
_ROWS_AT_ONCE = 2_000
_FEW_ROWS = 200
_FEW_BYTES = 512 * 1024


class Forgetting:
    """Deletes events from the files that they lie in.

    Args:
        custody: has the files.
        mending: sees that they are sound.
        reserve: says how much space there is for deleting.
    """

    def __init__(
        self, custody: Custody, mending: Mending, reserve: DiskReserve
    ) -> None:
        self._custody = custody
        self._mending = mending
        self._reserve = reserve

    def forget(self, ids: list[int]) -> None:
        """Delete the records with these ids, which are sorted."""
        for source in self._custody.adopted():
            start = bisect.bisect_left(ids, source.ids.start)
            stop = bisect.bisect_left(ids, source.ids.stop)
            source.owe([number - source.base for number in ids[start:stop]])
            del ids[start:stop]
        try:
            # What belongs to none of the others is the own file's.
            own = self._custody.own
            if ids and own is not None:
                self._delete(own, ids)
                own.file.pages.shrink()
        finally:
            self.delete_owed()

    def delete_owed(self) -> None:
        """Delete what is to be forgotten in files of others; each fails by itself."""
        for source in self._custody.adopted():
            path = source.file.path
            if not source.owed or not source.deletions.is_due(path):
                continue
            try:
                self._delete(source, list(source.owed))
            except StorageError as error:
                if source.deletions.failed(path):
                    logger.warning(
                        "%s; its delivered events are deleted later, or sent again "
                        "after a restart, under the same insert_id",
                        error,
                    )
            else:
                source.pay()
                source.deletions.worked(path)

    def _delete(self, source: Source, rows: list[int]) -> None:
        is_tight = self._reserve.is_tight
        step = _FEW_ROWS if is_tight else _ROWS_AT_ONCE
        sound = self._mending.sound
        for start in range(0, len(rows), step):
            parts = [rows[start : start + step]]
            if is_tight:
                weigh = partial(SpoolFile.sizes, ids=parts[0])
                parts = _light_parts(sound(source, weigh))
            for part in parts:
                removed = sound(source, partial(SpoolFile.delete, ids=part))
                self._custody.count_out(source, removed)
        self._custody.finish(source)


def _light_parts(sizes: list[tuple[int, int]]) -> list[list[int]]:
    """Cut rows, of which the sizes are known, into parts of few bytes each."""
    parts: list[list[int]] = [[]]
    total = 0
    for row, size in sizes:
        if parts[-1] and total + size > _FEW_BYTES:
            parts.append([])
            total = 0
        parts[-1].append(row)
        total += size
    return parts
