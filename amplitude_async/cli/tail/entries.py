"""Entries of an emulator: which of them are wanted, and how they are shown."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from rich.text import Text

from amplitude_async.cli.terminal import printable
from amplitude_async.emulator.filtering import Filter

__all__ = ["Wanted", "as_line", "as_text"]

_STYLES: Final[Mapping[str, str]] = {
    "stored": "green",
    "duplicate": "yellow",
    "dropped": "yellow",
    "rejected": "red",
}
_LONGEST: Final = 300


class Wanted(NamedTuple):
    """Which entries are shown; each that is given must hold."""

    name: str | None = None
    """A glob of the event type."""
    user: str | None = None
    """A user_id or device_id."""
    rejected: bool = False
    """Only what was not taken."""
    words: Filter | None = None
    """A filter as the page takes it."""

    def holds(self, entry: Mapping[str, Any]) -> bool:
        """Say whether an entry is shown."""
        if self.rejected and entry.get("state") not in {"rejected", "dropped"}:
            return False
        name = str(entry.get("name") or "")
        if self.name is not None and not fnmatchcase(name, self.name):
            return False
        if self.user is not None and self.user not in {
            entry.get("user"),
            entry.get("device"),
        }:
            return False
        return self.words is None or self.words.holds(entry)


def as_line(entry: Mapping[str, Any]) -> str:
    """Show an entry as one line of JSON, in ASCII: nothing in it can do anything."""
    return json.dumps(entry)


def as_text(entry: Mapping[str, Any], width: int | None = None) -> Text:
    """Show an entry as one line for people.

    Args:
        entry: as an emulator tells it.
        width: leave properties out where the line would not fit; what became of the
            event is always shown.
    """
    line = Text(_time(entry.get("at")), style="dim")
    line.append(f"  {_of(entry, 'name') or '-'}", style="bold")
    line.append(f"  {_of(entry, 'user') or _of(entry, 'device') or '-'}", style="cyan")
    verdict = _verdict(entry)
    room = None if width is None else width - line.cell_len - verdict.cell_len
    for name, value in _preview(entry):
        pair = Text.assemble((f"  {name}=", "dim"), value)
        if room is not None:
            room -= pair.cell_len
            if room < 0:
                break
        line.append_text(pair)
    return line.append_text(verdict)


def _verdict(entry: Mapping[str, Any]) -> Text:
    state = _of(entry, "state")
    style = _STYLES.get(state, "")
    line = Text().append(f"  {state}", style=style)
    if entry.get("local"):
        line.append(" locally")
    reason = printable(str(entry.get("reason") or ""), _LONGEST)
    if reason:
        line.append(f": {reason}", style=style)
    return line


def _time(at: object) -> str:
    try:
        moment = datetime.fromtimestamp(float(str(at))).astimezone()
    except (ValueError, OverflowError, OSError):
        return "--:--:--"
    return f"{moment:%H:%M:%S}"


def _of(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return "" if value is None else printable(str(value))


def _preview(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in _pairs(entry):
        yield printable(name, 40), printable(value, 60)


def _pairs(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    preview = entry.get("preview")
    for pair in preview if isinstance(preview, list) else ():
        if isinstance(pair, list) and len(pair) == 2:
            yield str(pair[0]), str(pair[1])
