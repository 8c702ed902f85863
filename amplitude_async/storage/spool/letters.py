"""The rejected events that one file keeps, for people to look at and send again."""

# ruff: noqa: S608 - all SQL is put together from constants of this package

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter
from amplitude_async.storage.spool.damage import READ_FAILURES
from amplitude_async.storage.spool.database import Database
from amplitude_async.storage.spool.rows import COLUMNS, runs
from amplitude_async.storage.spool.schema import schema_version, translated

__all__ = ["Letters"]

# All but the number: a letter gets one of its own.
_FIELDS = f"{COLUMNS.removeprefix('id, ')}, code, message, rejected_at"
_PUT = f"INSERT INTO dead_letters ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_NUMBERED = "INSERT OR IGNORE INTO dead_letters VALUES (?,?,?,?,?,?,?,?,?,?)"
_SELECT = f"SELECT id, {_FIELDS} FROM dead_letters"


class Letters:
    """The dead letters of one file.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Keeping -----------------------------------------------------------------

    def bury(self, letters: Sequence[DeadLetter], keep: int) -> None:
        """Keep rejected records, the newest so many of them."""
        self._put([_row(letter) for letter in letters], keep)

    def inherit(self, other: "Letters", keep: int) -> None:
        """Take over those of another file, the newest so many of all."""
        rows = other.fields()
        if rows:
            # Numbered anew, as rows that are in order of their coming.
            self._put(rows, keep)
            # Only now: a crash in between doubles them and loses none.
            other.forget_all()

    def _put(self, rows: Sequence[tuple[Any, ...]], keep: int) -> None:
        with self._database.transaction() as connection:
            connection.executemany(_PUT, rows)
            connection.execute(
                "DELETE FROM dead_letters"
                " WHERE id <= (SELECT max(id) FROM dead_letters) - ?",
                (keep,),
            )

    def salvage(self, damaged: "Letters") -> None:
        """Take over those of a damaged file as far as they can be read."""
        transaction = self._database.transaction()
        with contextlib.suppress(StorageError), transaction as connection:
            connection.executemany(_PUT_NUMBERED, damaged.left())

    # Reading -----------------------------------------------------------------

    def fields(self) -> list[tuple[Any, ...]]:
        """Read all that they are but their numbers, in order."""
        return self._database.rows(f"SELECT {_FIELDS} FROM dead_letters ORDER BY id")

    def left(self) -> Iterator[tuple[Any, ...]]:
        """Read the rows of a damaged file, as far as that goes."""
        with contextlib.suppress(*READ_FAILURES):
            yield from self._database.connection.execute("SELECT * FROM dead_letters")

    def read(self) -> list[DeadLetter]:
        """Read the rejected records, oldest first."""
        rows = self._database.rows(f"{_SELECT} ORDER BY id")
        return [DeadLetter.from_row(row) for row in rows]

    def fetch(
        self, after: int, limit: int, max_bytes: int, *, up_to: int
    ) -> list[DeadLetter]:
        """Read dead letters above a number, in order; one at least if any."""
        found: list[DeadLetter] = []
        total = 0
        if not self.count():
            return found
        with translated(self._database.path):
            rows = self._database.connection.execute(
                f"{_SELECT} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, up_to, limit),
            )
            for row in rows:
                letter = DeadLetter.from_row(row)
                # As for events: any value may stand in any column of a damaged row.
                if not isinstance(letter.record.body, bytes):
                    letter = letter._replace(record=letter.record._replace(body=b""))
                total += len(letter.record.body)
                if total > max_bytes and found:
                    break
                found.append(letter)
        return found

    def last(self) -> int:
        """Return the number of the newest dead letter; 0 where there is none."""
        if not self.count():
            return 0
        return int(self._database.value("SELECT max(id) FROM dead_letters"))

    def count(self) -> int:
        """Count the dead letters; a file of version 1 has none."""
        database = self._database
        with translated(database.path):
            # One who only looks brings nothing up to date.
            if schema_version(database.connection, database.path) < 2:
                return 0
        return int(database.value("SELECT count(*) FROM dead_letters"))

    # Forgetting --------------------------------------------------------------

    def exhume(self, ids: Iterable[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with self._database.transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM dead_letters WHERE id BETWEEN ? AND ?", runs(ids)
            )
            return connection.total_changes - before

    def forget_all(self) -> None:
        """Forget each of them."""
        with translated(self._database.path):
            self._database.connection.execute("DELETE FROM dead_letters")


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    return (*letter.record[1:], letter.code, letter.message, letter.rejected_at)
