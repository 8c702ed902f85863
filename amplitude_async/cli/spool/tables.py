"""A spool shown to people as tables, and to machines as JSON."""

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amplitude_async.cli.spool.contents import Facts, json_of, json_value, moment
from amplitude_async.cli.terminal import (
    age_in_words,
    cell,
    fits,
    plural,
    print_plain,
    printable,
    size_in_words,
)
from amplitude_async.storage.spool.directory import FileStatus, Item

__all__ = [
    "export_line",
    "file_json",
    "holdings",
    "item_json",
    "owner",
    "print_items",
    "print_status",
    "status_json",
]

_SUMMED = {
    "events": "events",
    "bytes": "size",
    "dead_letters": "dead",
    "quarantined": "damaged",
}


def status_json(files: Sequence[FileStatus], set_aside: Sequence[str]) -> Any:
    """Return what the files hold as JSON values; times in ISO 8601, UTC."""
    return {
        "files": [file_json(one) for one in files],
        "set_aside": list(set_aside),
        "total": {
            "files": len(files),
            "alive": sum(one.alive for one in files),
            **{name: _sum(files, name) for name in _SUMMED},
            "oldest": moment(_oldest(files)),
        },
    }


def file_json(one: FileStatus) -> dict[str, Any]:
    """Return what a file holds as JSON values."""
    return {**asdict(one), "oldest": moment(one.oldest)}


def _sum(files: Sequence[FileStatus], name: str) -> int:
    return sum(getattr(one, name) for one in files)


def _oldest(files: Sequence[FileStatus]) -> float | None:
    return min((one.oldest for one in files if one.oldest is not None), default=None)


def print_status(
    files: Sequence[FileStatus], set_aside: Sequence[str], console: Console
) -> None:
    """Print a row for each file, and a sum where there are several."""
    if not files:
        console.print("The spool is empty: nothing waits in it.")
    elif fits(table := _status_table(files), console):
        console.print(table)
    else:
        _print_paragraphs(files, console)
    for name in set_aside:
        console.print(
            f"{printable(name)} was damaged and is set aside: nothing reads it.",
            style="yellow",
            markup=False,
            highlight=False,
        )


def _print_paragraphs(files: Sequence[FileStatus], console: Console) -> None:
    """Print the same as the table where there is no room for one."""
    for one in files:
        print_plain(console, printable(one.name))
        print_plain(console, f"  {owner(one)}, for {printable(one.destination)}")
        for line in holdings([one]):
            print_plain(console, f"  {line}")
    if len(files) > 1:
        print_plain(console, f"sum of {len(files):,} files")
        for line in holdings(files):
            print_plain(console, f"  {line}")


def holdings(files: Sequence[FileStatus]) -> Iterable[str]:
    """Say in short lines what files hold together."""
    size, oldest = size_in_words(_sum(files, "bytes")), _age(_oldest(files))
    yield f"{plural(_sum(files, 'events'), 'event')}, {size}, oldest {oldest}"
    dead = plural(_sum(files, "dead_letters"), "dead letter")
    yield f"{dead}, {_sum(files, 'quarantined'):,} damaged"


def owner(one: FileStatus) -> str:
    """Say in a word whether the process of a file lives."""
    return "alive" if one.alive else "orphan"


def _status_table(files: Sequence[FileStatus]) -> Table:
    table = Table(title="Spool", title_justify="left", show_footer=len(files) > 1)
    table.add_column("file", "sum", overflow="fold")
    table.add_column("owner", "")
    table.add_column("destination", "", overflow="fold")
    for name, heading in _SUMMED.items():
        total = _sum(files, name)
        footer = size_in_words(total) if name == "bytes" else f"{total:,}"
        table.add_column(heading, footer, justify="right")
    table.add_column("oldest", _age(_oldest(files)), justify="right")
    for one in files:
        table.add_row(
            cell(one.name),
            owner(one),
            cell(one.destination),
            f"{one.events:,}",
            size_in_words(one.bytes),
            f"{one.dead_letters:,}",
            f"{one.quarantined:,}",
            _age(one.oldest),
        )
    return table


def print_items(
    items: Sequence[Item], console: Console, *, dead: bool, body: bool, more: int
) -> None:
    """Print a row for each event or dead letter; bodies only where asked for."""
    if not items:
        console.print("No dead letters." if dead else "No events wait.")
        return
    console.print(_items_table(items, dead=dead, body=body))
    if more:
        console.print(f"and {more:,} more: use --limit, or spool export")


def _items_table(items: Sequence[Item], *, dead: bool, body: bool) -> Table:
    title = "Dead letters" if dead else "Events"
    table = Table(title=title, title_justify="left")
    table.add_column("rejected" if dead else "accepted", no_wrap=True)
    if dead:
        table.add_column("code", justify="right")
        table.add_column("reason", overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("insert_id", overflow="fold")
    table.add_column("user", overflow="fold")
    table.add_column("body" if body else "bytes", overflow="fold")
    for item in items:
        table.add_row(*_cells(item, body=body))
    return table


def _cells(item: Item, *, body: bool) -> Iterable[Text]:
    facts = Facts.of(item)
    if item.letter is None:
        yield cell(facts.accepted_at)
    else:
        yield cell(facts.rejected_at)
        yield cell(facts.code or None)
        yield cell(facts.reason, 200)
    yield cell(facts.event_type)
    yield cell(facts.insert_id)
    yield cell(facts.user_id or facts.device_id)
    if not facts.bytes:
        yield Text("damaged")
    elif body:
        yield cell(item.record.body.decode(errors="replace"), 2_000)
    else:
        yield Text(f"{facts.bytes:,}")


def item_json(item: Item, *, body: bool) -> dict[str, Any]:
    """Return an event or a dead letter as JSON values."""
    shown = _facts(item)
    if body:
        shown["body"] = json_value(item.record.body)
    return shown


def export_line(item: Item) -> bytes:
    """Return an event or a dead letter as one line of JSON.

    The body stands there as it goes on the wire, so that no number loses a digit; only
    what could steer a terminal is escaped.
    """
    facts = json.dumps(_facts(item))[:-1].encode()
    return b'%b, "body": %b}\n' % (facts, json_of(item.record.body))


def _facts(item: Item) -> dict[str, Any]:
    facts = Facts.of(item)._asdict()
    verdict = {name: facts.pop(name) for name in ("code", "reason", "rejected_at")}
    facts |= {"file": item.file, "destination": item.destination}
    return facts if item.letter is None else facts | verdict


def _age(since: float | None) -> str:
    if since is None or not math.isfinite(since):
        return age_in_words(None)
    # A clock that was set back makes no negative age.
    return age_in_words(max(time.time() - since, 0.0))
