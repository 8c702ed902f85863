"""How to read what a damaged file still has: all rows that SQLite can get at.

SQLite stops at the first page that it cannot read. Here it is asked again from the
other end, then behind that page, and at last row by row.
"""

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["READ_FAILURES", "readable_rows"]

READ_FAILURES = (sqlite3.Error, ValueError, OverflowError, MemoryError)
"""What reading a damaged row may raise: text that is none, and numbers beyond all."""

# The rest is given up when nothing new was found for so long, in seconds.
_PATIENCE = 5.0
# So many numbers in a row are tried closely, and then with growing steps: an inner page
# that is lost hides a few thousand rows.
_CLOSELY = 20_000
# So many numbers that reading in order has passed over are asked for one by one.
_SINGLY = 200_000
# So many steps of SQLite's machine between two looks at the clock.
_STEPS = 10_000
_LAST_ROW = 2**63 - 1


def readable_rows(
    connection: sqlite3.Connection, select: str
) -> Iterator[tuple[Any, ...]]:
    """Read every row that can be read, some of them more than once.

    Args:
        connection: to the damaged database; nothing is written to it.
        select: a statement without conditions whose first column is ``id``.
    """
    reading = _Reading(connection, select)
    # A page that points back to one before it could go on for ever.
    connection.set_progress_handler(reading.is_tired, _STEPS)
    try:
        yield from reading.rows()
    finally:
        connection.set_progress_handler(None, 0)


class _Reading:
    """One passage through a damaged table."""

    def __init__(self, connection: sqlite3.Connection, select: str) -> None:
        self._connection = connection
        self._select = select
        self._seen: set[Any] = set()
        self._broken = False
        self._news = time.monotonic()

    def is_tired(self) -> bool:
        """Say whether nothing new was found for long."""
        return time.monotonic() > self._news + _PATIENCE

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Read on by every way there is, the quick ones first."""
        low, high = 0, _LAST_ROW
        for row in self._scan("ORDER BY id"):
            low = max(low, row[0])
            yield row
        if not self._broken:
            return
        for row in self._scan("ORDER BY id DESC"):
            high = min(high, row[0])
            yield row
        # A damaged number may lie anywhere: then only asking for each is of use.
        yield from self._between(low + 1, high)
        yield from self._singly()

    def _scan(self, rest: str, *values: int) -> Iterator[tuple[Any, ...]]:
        """Read until the end or the first damage; the first column is a number."""
        self._broken = False
        try:
            for row in self._connection.execute(f"{self._select} {rest}", values):
                fresh = row[0] not in self._seen
                self._seen.add(row[0])
                yield row
                # After the row was dealt with, which takes time as well.
                if fresh:
                    self._news = time.monotonic()
        except READ_FAILURES:
            self._broken = True

    def _between(self, start: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Read on behind each damage, up to what was read from the other end."""
        missed = 0
        while start < end and not self.is_tired():
            before = start
            for row in self._scan("WHERE id >= ? AND id < ? ORDER BY id", start, end):
                start = max(start, row[0] + 1)
                yield row
            if not self._broken:
                return
            missed = missed + 1 if start == before else 0
            if start == before:
                # Some versions of the module ask for the next row before they hand one
                # out: the last before a damage is had alone only.
                yield from self._scan("WHERE id = ?", start)
                start += 2 ** max(0, missed - _CLOSELY)

    def _singly(self) -> Iterator[tuple[Any, ...]]:
        """Ask for each number that was passed over, where few were first."""
        numbers = sorted(number for number in self._seen if 0 < number < _LAST_ROW)
        gaps = [
            range(before + 1, number)
            for before, number in zip([0, *numbers], numbers, strict=False)
            if number > before + 1
        ]
        left = _SINGLY
        for gap in sorted(gaps, key=len):
            for number in gap[:left]:
                if self.is_tired():
                    return
                yield from self._scan("WHERE id = ?", number)
            left -= min(len(gap), left)
