"""How one file takes over rows of another: a damaged one, or one without an owner."""

# ruff: noqa: S608 - all SQL is put together from constants of this package

from collections.abc import Sequence
from typing import Any

from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.rows import COLUMNS, MOST_ROWS, PLACES, read_row

__all__ = ["inherit", "receive"]

_PUT = f"INSERT INTO {{}} ({COLUMNS}, checksum) VALUES {PLACES}"
_INSERT_ID = 5

Row = Sequence[Any]


def inherit(heir: SpoolFile, other: SpoolFile, keep: int) -> None:
    """Move what is there for people: dead letters, and damaged records.

    Args:
        heir: gets them.
        other: has none of them afterwards.
        keep: so many of the newest dead letters.
    """
    heir.letters.inherit(other.letters, keep)
    rows = other.set_aside_rows()
    if rows:
        # They have no key and keep their numbers.
        with heir.transaction() as connection:
            connection.executemany(_PUT.format("quarantine"), rows)
        # Only now: a crash in between doubles them and loses none.
        other.forget_set_aside()


def receive(file: SpoolFile, damaged: SpoolFile, *, renumber: bool) -> tuple[int, int]:
    """Take what can be read of a damaged file into one that is empty.

    Args:
        file: gets the rows.
        damaged: is not changed.
        renumber: give a number to a row whose own is out of bounds or taken; without
            this it is set aside.

    Returns:
        How many events were taken, and how many were set aside.
    """
    known: set[tuple[Any, Any]] = set()
    taken: set[int] = set()
    bad: list[Row] = []
    strays: list[Row] = []
    with file.transaction() as connection:
        for row in damaged.wreckage():
            number = row[0]
            if (number, row[_INSERT_ID]) in known:
                continue
            known.add((number, row[_INSERT_ID]))
            if not read_row(row).body:
                bad.append(row)
            elif number in taken or not 0 < number < MOST_ROWS:
                strays.append(row)
            else:
                taken.add(number)
                connection.execute(_PUT.format("events"), row)
        if renumber:
            first = max(taken, default=0) + 1
            strays = [(n, *row[1:]) for n, row in enumerate(strays, first)]
            connection.executemany(_PUT.format("events"), strays)
            taken.update(range(first, first + len(strays)))
        else:
            bad += strays
        connection.executemany(_PUT.format("quarantine"), bad)
    file.letters.salvage(damaged.letters)
    return len(taken), len(bad)
