"""How a record is a row of a table, and how it is read back from a disk in trouble."""

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from amplitude_async.storage.base import Record

__all__ = ["COLUMNS", "MOST_ROWS", "PLACES", "read_row", "row_of", "runs"]

# In the order of the fields of a record.
COLUMNS = "id, body, identity, user_id, device_id, insert_id, accepted_at"
PLACES = "(?, ?, ?, ?, ?, ?, ?, ?)"
"""For those and a checksum."""
MOST_ROWS = 2**40
"""Rows are numbered in order of acceptance: no process has come so far."""


def row_of(record: Record) -> tuple[Any, ...]:
    """Make a row of a record: its fields and a checksum."""
    return (*record, zlib.crc32(record.body))


def read_row(row: Sequence[Any]) -> Record:
    """Make a record of a row; one that is damaged gets an empty body."""
    record = Record.from_row(row)
    # SQLite puts any value into any column: what a broken disk has left of a row can
    # be of another type as well.
    sound = (
        isinstance(record.body, bytes)
        and zlib.crc32(record.body) == row[-1]
        and isinstance(record.identity, str)
        and isinstance(record.insert_id, str)
        and isinstance(record.accepted_at, float)
        # Bodies are joined by hand into requests: what is not exactly one object could
        # put other things into one, another key for instance.
        and _is_object(record.body)
    )
    if sound:
        return record
    return Record(record.id, b"", "", None, None, str(record.insert_id or ""), 0.0)


def _is_object(body: bytes) -> bool:
    """Say whether bytes are one JSON object and nothing else."""
    try:
        text = body.decode()
        return text[:1] == "{" and _DECODER.raw_decode(text)[1] == len(text)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


# Numbers stay text: nobody asks for them, and to make them takes half of the time.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=str, parse_int=str
)


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Fold numbers into runs of neighbours: settled events mostly are."""
    found: list[tuple[int, int]] = []
    first = last = None
    for number in sorted(set(ids)):
        if last is not None and first is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            found.append((first, last))
        first = last = number
    if first is not None and last is not None:
        found.append((first, last))
    return found
