"""A log shown to people as tables, and to machines as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amplitude_async.cli.spool.contents import event_type, json_value, moment
from amplitude_async.cli.terminal import (
    age_in_words,
    cell,
    fits,
    plural,
    print_plain,
    printable,
    size_in_words,
)
from amplitude_async.exceptions import DamagedChunkError, UnknownSchemaError
from amplitude_async.fleet.letters import event_of
from amplitude_async.fleet.log import Backlog, BuriedLetter, Settings
from amplitude_async.storage.base import Record

__all__ = ["Status", "letter_json", "print_letters", "print_status", "status_json"]


class Status(NamedTuple):
    """What a log says of itself."""

    name: str
    project: str
    settings: Settings
    backlog: Sequence[Backlog]
    dead_letters: int
    more_dead_letters: bool
    """True where counting them was given up."""


# Status ----------------------------------------------------------------------


def status_json(status: Status) -> dict[str, Any]:
    """Return it as JSON values."""
    return {
        "log": status.name,
        "project": status.project,
        "partitions": status.settings.partitions,
        "synced": status.settings.synced,
        "warnings": list(status.settings.warnings),
        "places": [
            {
                "destination": one.place.destination,
                "partition": one.place.partition,
                "chunks": one.chunks,
                "events": one.events,
                "bytes": one.size,
                "oldest_age": one.oldest_age,
                "holder": one.holder,
            }
            for one in status.backlog
        ],
        "total": {
            "chunks": sum(one.chunks for one in status.backlog),
            "events": sum(one.events for one in status.backlog),
            "bytes": sum(one.size for one in status.backlog),
            "oldest_age": _oldest(status.backlog),
        },
        "dead_letters": status.dead_letters,
        "more_dead_letters": status.more_dead_letters,
    }


def print_status(status: Status, console: Console) -> None:
    """Print a row for each place, and what is to be said of all."""
    partitions = plural(status.settings.partitions, "partition")
    synced = "on disk" if status.settings.synced else "in memory"
    print_plain(
        console,
        f"{status.name}, project {printable(status.project)}, {partitions} of each "
        f"destination; what is acknowledged is {synced}",
    )
    for warning in status.settings.warnings:
        print_plain(console, f"Warning: {printable(warning, 1_000)}", style="yellow")
    if not status.backlog:
        print_plain(console, "Nothing waits, and no place was used yet.")
    elif fits(table := _status_table(status.backlog), console):
        console.print(table)
    else:
        _print_paragraphs(status.backlog, console)
    print_plain(console, _dead_letters(status))


def _dead_letters(status: Status) -> str:
    if not status.dead_letters:
        return "No dead letters."
    counted = plural(status.dead_letters, "dead letter")
    more = "more than " if status.more_dead_letters else ""
    return f"{more}{counted}: amplitude-async relay dead list"


def _status_table(backlog: Sequence[Backlog]) -> Table:
    several = len(backlog) > 1
    table = Table(title="Backlog", title_justify="left", show_footer=several)
    table.add_column("place", "sum", overflow="fold")
    for name, total in (
        ("chunks", f"{sum(one.chunks for one in backlog):,}"),
        ("events", f"{sum(one.events for one in backlog):,}"),
        ("size", size_in_words(sum(one.size for one in backlog))),
        ("oldest", age_in_words(_oldest(backlog))),
    ):
        table.add_column(name, total, justify="right")
    table.add_column("holder", "", overflow="fold")
    for one in backlog:
        table.add_row(
            cell(one.place),
            f"{one.chunks:,}",
            f"{one.events:,}",
            size_in_words(one.size),
            age_in_words(one.oldest_age),
            cell(one.holder),
        )
    return table


def _print_paragraphs(backlog: Sequence[Backlog], console: Console) -> None:
    """Print the same as the table where there is no room for one."""
    for one in backlog:
        held = f"held by {printable(one.holder)}" if one.holder else "held by nobody"
        print_plain(console, f"{printable(str(one.place))}, {held}")
        print_plain(
            console,
            f"  {plural(one.events, 'event')} in {plural(one.chunks, 'chunk')}, "
            f"{size_in_words(one.size)}, oldest {age_in_words(one.oldest_age)}",
        )


def _oldest(backlog: Sequence[Backlog]) -> float | None:
    ages = [one.oldest_age for one in backlog if one.oldest_age is not None]
    return max(ages, default=None)


# Dead letters ----------------------------------------------------------------


def letter_json(one: BuriedLetter, *, body: bool) -> dict[str, Any]:
    """Return a dead letter as JSON values."""
    record = _event_or_none(one)
    shown = {
        "position": one.position,
        "buried_at": moment(one.buried_at),
        "destination": one.letter.place.destination,
        "partition": one.letter.place.partition,
        "code": one.letter.code,
        "reason": one.letter.message,
        "raw": one.letter.raw,
        "event_type": event_type(record.body) if record else None,
        "insert_id": record.insert_id if record else None,
        "user_id": record.user_id if record else None,
        "device_id": record.device_id if record else None,
        "bytes": len(record.body) if record else len(one.letter.data),
    }
    if body:
        shown["body"] = json_value(record.body) if record else None
    return shown


def print_letters(
    letters: Sequence[BuriedLetter], console: Console, *, body: bool, more: bool
) -> None:
    """Print a row for each dead letter; bodies only where asked for."""
    if not letters:
        console.print("No dead letters.")
        return
    console.print(_letters_table(letters, body=body))
    if more:
        console.print(f"and more: use --after {letters[-1].position}, or --limit")


def _letters_table(letters: Sequence[BuriedLetter], *, body: bool) -> Table:
    table = Table(title="Dead letters", title_justify="left")
    table.add_column("position", justify="right", no_wrap=True)
    table.add_column("buried", no_wrap=True)
    table.add_column("place", overflow="fold")
    table.add_column("code", justify="right")
    table.add_column("reason", overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("insert_id", overflow="fold")
    table.add_column("user", overflow="fold")
    table.add_column("body" if body else "bytes", overflow="fold")
    for one in letters:
        table.add_row(*_cells(one, body=body))
    return table


def _cells(one: BuriedLetter, *, body: bool) -> Iterable[Text]:
    letter, record = one.letter, _event_or_none(one)
    yield Text(str(one.position))
    yield cell(moment(one.buried_at))
    yield cell(letter.place)
    yield cell(letter.code or None)
    yield cell(letter.message, 200)
    if record is None:
        yield from (Text("damaged"), Text("-"), Text("-"))
        yield Text(f"{len(letter.data):,}")
        return
    yield cell(event_type(record.body))
    yield cell(record.insert_id)
    yield cell(record.user_id or record.device_id)
    if body:
        yield cell(record.body.decode(errors="replace"), 2_000)
    else:
        yield Text(f"{len(record.body):,}")


def _event_or_none(one: BuriedLetter) -> Record | None:
    try:
        return event_of(one.letter)
    except (DamagedChunkError, UnknownSchemaError):
        return None
