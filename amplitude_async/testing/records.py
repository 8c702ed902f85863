"""Captured events in a file: written without secrets, read with care, compared."""

import difflib
import json
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.shown import printable, shown
from amplitude_async.testing.captured import MISSING, Arrival, Captured, Missing
from amplitude_async.testing.masks import Mask, looks_personal
from amplitude_async.testing.matching import Difference, differences
from amplitude_async.testing.snapshots import Row, rows_of

__all__ = ["check_recording", "read_recording", "write_recording"]

_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_ROWS: Final = 100_000
_MOST_LINES: Final = 38
_LONGEST_LINE: Final = 240
_MOST_COMPARED: Final = 1_000
_MOST_CHANGES: Final = 4
_DELIVERED: Final = Outcome(DeliveryStatus.DELIVERED)

_Rows = list[dict[str, Any]]


def write_recording(
    path: str | PathLike[str], events: Iterable[Captured], mask: Mask
) -> None:
    """Write events into a file, one line for each, as a whole or not at all.

    Raises:
        ValueError: there are more than a recording may hold.
    """
    target = Path(path)
    lines = [_line(row) for row in _masked_rows(events, mask)]
    # Now, as nobody could read it: who compares with it would be told so instead.
    size = sum(len(line.encode()) for line in lines)
    if len(lines) > _MOST_ROWS or size > _MOST_BYTES:
        raise ValueError(
            f"{len(lines):,} events of {size:,} bytes are no recording: a file holds "
            f"{_MOST_ROWS:,} events and {_MOST_BYTES:,} bytes, record fewer events"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, since a file cannot be moved from one disk to another at once.
    made = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with made.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        made.replace(target)
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise


def read_recording(path: str | PathLike[str]) -> _Rows:
    """Read the rows of a recording.

    Raises:
        ValueError: it is no recording; the message names the line.
        OSError: it cannot be read.
    """
    source = Path(path)
    state = source.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{source} is no file: give the path of a recording")
    with source.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(
            f"{source} has more than {_MOST_BYTES:,} bytes: record fewer events"
        )
    return list(_rows_in(data, source))


def _rows_in(data: bytes, source: Path) -> Iterator[dict[str, Any]]:
    # Not splitlines, which breaks texts at characters that JSON leaves as they are.
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        if number > _MOST_ROWS:
            raise ValueError(f"{source} has more than {_MOST_ROWS:,} lines")
        try:
            row = from_json(line, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError(
                f"{source}, line {number} is no JSON ({error!s:.100}): record anew"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(  # noqa: TRY004 - a file holds what it likes
                f"{source}, line {number} is no JSON object: record anew"
            )
        yield row


def check_recording(
    path: str | PathLike[str], events: Iterable[Captured], mask: Mask
) -> str:
    """Compare events with a recording; gives what differs, in words, or nothing.

    Raises:
        ValueError: the file is no recording.
    """
    source = os.fspath(path)
    anew = f"to record anew: events.write({shown(source, 200)}), or capture(record=...)"
    try:
        recorded = read_recording(path)
    except FileNotFoundError:
        return f"there is no recording {shown(source, 200)}\n{anew}"
    # In the form that the file has: who an event is of may be told by its first id.
    captured = [from_json(_line(row)) for row in _masked_rows(events, mask)]
    lines = list(_compared(recorded, captured))
    if not lines:
        return ""
    if len(lines) > _MOST_LINES - 2:
        more = len(lines) - (_MOST_LINES - 3)
        lines = [*lines[: _MOST_LINES - 3], f"and {more} more lines"]
    headline = (
        f"the events differ from those of {shown(source, 200)} "
        f"({len(recorded)} recorded, {len(captured)} now)"
    )
    told = [headline, *lines, anew]
    return "\n".join(printable(line)[:_LONGEST_LINE] for line in told)


# Masking ---------------------------------------------------------------------


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"


def _masked_rows(events: Iterable[Captured], mask: Mask) -> _Rows:
    rows = rows_of(events, keep=mask.keep)
    names = _pseudonyms(rows, mask)
    made = [
        (names.get(row.identity, row.identity), row.destination, row.members)
        for row in rows
    ]
    made.sort(key=lambda one: one[:2])
    return [mask.masked(_renamed(members, names)) for _, _, members in made]


def _pseudonyms(rows: Sequence[Row], mask: Mask) -> dict[str, str]:
    """Name people anew, in an order that does not depend on what they are called."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.identity, []).append(row)
    hidden = {
        value
        for row in rows
        for value in (row.user_id, row.device_id)
        if value is not None and (mask.pseudonyms or looks_personal(value))
    }
    if not hidden:
        return {}
    blank = dict.fromkeys(hidden, "")
    ordered = sorted(
        groups.values(),
        key=lambda group: "".join(
            _line(mask.masked(_renamed(row.members, blank))) for row in group
        ),
    )
    names: dict[str, str] = {}
    counts = {"user": 0, "device": 0}
    for row in (row for group in ordered for row in group):
        for kind, value in (("user", row.user_id), ("device", row.device_id)):
            if value in hidden and value not in names:
                counts[kind] += 1
                names[str(value)] = f"{kind}-{counts[kind]}"
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if not names:
        return value
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return value


# Comparing -------------------------------------------------------------------


def _compared(recorded: _Rows, captured: _Rows) -> Iterator[str]:
    before, now = _by_identity(recorded), _by_identity(captured)
    for identity in dict.fromkeys((*before, *now)):
        lines = list(_of_identity(before.get(identity, []), now.get(identity, [])))
        if lines:
            yield f"{shown(identity)}:" if identity else "of nobody:"
            yield from lines


def _by_identity(rows: _Rows) -> dict[str, _Rows]:
    groups: dict[str, _Rows] = {}
    for row in rows:
        groups.setdefault(_view(row).identity, []).append(row)
    return groups


def _view(row: dict[str, Any]) -> Captured:
    return Arrival("", None, row, "", _DELIVERED).events[0]


def _of_identity(before: _Rows, now: _Rows) -> Iterator[str]:
    for gone, new in _unlike(before, now):
        left: dict[str, deque[dict[str, Any]]] = {}
        for row in new:
            left.setdefault(_view(row).name, deque()).append(row)
        for row in gone:
            # What has the same name is the same event, as it is now.
            if others := left.get(_view(row).name):
                other = others.popleft()
                yield f"  ~ changed: {_told(other)}"
                yield from _changes(row, other)
            else:
                yield f"  - missing: {_told(row)}"
        for others in left.values():
            yield from (f"  + new: {_told(row)}" for row in others)


def _unlike(before: _Rows, now: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
    """Pair the stretches in which two lists differ."""
    old, new = [_line(row) for row in before], [_line(row) for row in now]
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    before, now, old, new = before[start:], now[start:], old[start:], new[start:]
    # Beyond that the alignment would take long, and the message is cut anyway.
    if max(len(old), len(new)) > _MOST_COMPARED:
        before, now = before[:_MOST_COMPARED], now[:_MOST_COMPARED]
        old, new = old[:_MOST_COMPARED], new[:_MOST_COMPARED]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield before[i1:i2], now[j1:j2]


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    found = [_change(one) for one in differences(before, now, "", whole=True)]
    # Equal to Python, but not in the file: 1 and 1.0.
    found = found or ["      numbers are written otherwise"]
    yield from found[:_MOST_CHANGES]
    if len(found) > _MOST_CHANGES:
        yield f"      and {len(found) - _MOST_CHANGES} more"


def _change(one: Difference) -> str:
    path = one.path.lstrip(".")[:80]
    if isinstance(one.wanted, Missing):
        return f"      {path}: new, is {shown(one.found)}"
    was = f"was {shown(one.wanted)}"
    if isinstance(one.found, Missing):
        return f"      {path}: {was}, is missing"
    return f"      {path}: {was}, is {shown(one.found)}"


def _told(row: dict[str, Any]) -> str:
    event = _view(row)
    return f"{shown(event.name)} {shown(event.properties or MISSING, 100)}".replace(
        " missing", ""
    )
