"""The commands that look into a spool and change it.

Exit codes: 0 all done; 1 done in part, or not confirmed: the lines on standard error
say what is left, or `doctor` what needs a person; 2 nothing done: the command or the
directory is wrong.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from amplitude_async.cli.spool.doctor import checkup_json, print_checkup
from amplitude_async.cli.spool.tables import (
    export_line,
    item_json,
    print_items,
    print_status,
    status_json,
)
from amplitude_async.cli.terminal import plural, printable, progress_bar, refusal
from amplitude_async.storage.spool.checkup import check_directory
from amplitude_async.storage.spool.directory import (
    Item,
    Purge,
    SpoolDirectory,
    SpoolDirectoryError,
)

__all__ = ["spool_app"]

spool_app = typer.Typer(
    name="spool",
    help="Look into the directory of SQLiteStorage, also while a service runs.",
    epilog="Exit codes: 0 done, 1 done in part or not confirmed, 2 nothing done.",
    no_args_is_help=True,
)

_LONGEST = 1_000
_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d)?")
_SECONDS = {None: 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _age(text: str) -> float:
    found = _AGE.fullmatch(text.strip())
    if found is None:
        msg = f"{text!r}: write seconds, or a number with s, min, h or d, such as 36h"
        raise typer.BadParameter(msg)
    return float(found[1]) * _SECONDS[found[2]]


Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The directory that SQLiteStorage has.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Dead = Annotated[
    bool, typer.Option("--dead", help="Dead letters: events that were rejected.")
]


@spool_app.command()
def status(directory: Directory, *, as_json: AsJson = False) -> None:
    """Show what each file holds, and whether the process it belongs to lives."""
    with _opened(directory) as spool:
        files = spool.status()
        if as_json:
            _print_json(status_json(files, spool.set_aside))
        else:
            print_status(files, spool.set_aside, Console())


@spool_app.command()
def doctor(
    directory: Directory,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Read at most so long in one file.")
    ] = 10.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Check every file, also while a service runs, and say what to do.

    The exit code is 1 where something needs a person. Nothing is changed.
    """
    with _opened(directory) as spool:
        found = check_directory(spool.path, seconds=seconds)
        if as_json:
            checked = list(found)
            well = all(one.well for one in checked)
            _print_json(checkup_json(checked))
        else:
            well = print_checkup(found)
    if not well:
        raise typer.Exit(1)


@spool_app.command("list")
def list_items(
    directory: Directory,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 100,
    *,
    dead: Dead = False,
    body: Annotated[bool, typer.Option("--body", help="Show the bodies too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List events that wait, or dead letters and why they were rejected."""
    with _opened(directory) as spool:
        items = spool.items(dead=dead)
        shown = list(islice(items, limit))
        # Read to the end, so that files that make trouble are named as well.
        more = sum(1 for _ in items)
        if as_json:
            found = [item_json(one, body=body) for one in shown]
            _print_json({"items": found, "more": more})
        else:
            print_items(shown, Console(), dead=dead, body=body, more=more)


@spool_app.command()
def export(
    directory: Directory,
    output: Annotated[
        Path | None,
        typer.Option(help="A new file to write to; standard output by default."),
    ] = None,
    *,
    dead: Dead = False,
) -> None:
    """Write events or dead letters as lines of JSON; the spool keeps them."""
    with _opened(directory) as spool:
        if output is None:
            out = typer.get_binary_stream("stdout")
            for item in spool.items(dead=dead):
                out.write(export_line(item))
            return
        total = _expected(spool, dead=dead)
        screen = Console(stderr=True)
        with (
            _new_output(output) as out,
            progress_bar(screen, total, "Exporting") as advance,
        ):
            count = _write(spool.items(dead=dead), out, advance)
        typer.echo(f"{count:,} written to {printable(str(output), _LONGEST)}")


@spool_app.command()
def retry(
    directory: Directory,
    insert_id: Annotated[
        list[str] | None,
        typer.Option(help="Only the dead letter with this id; may be repeated."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Turn dead letters back into events, for a service to send again.

    They wait in a new file until a process with the same destination starts or has
    time. Nothing is sent by this command, and no key is needed.
    """
    with _opened(directory) as spool:
        result = spool.retry(insert_id or ())
        spool.problems += [
            f"no dead letter has the insert_id {printable(one)!r}: see list --dead"
            for one in result.missing
        ]
        if as_json:
            _print_json({"moved": result.moved, "files": result.files})
        else:
            typer.echo(f"{_dead_letters(result.moved)} will be sent again")


@spool_app.command()
def purge(
    directory: Directory,
    older_than: Annotated[
        float | None,
        typer.Option(
            parser=_age,
            metavar="AGE",
            help="Only what is older: seconds, or 30min, 36h, 7d.",
        ),
    ] = None,
    *,
    dead: Dead = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the events of processes that are gone, or dead letters, for good.

    Events of a running process are left alone.
    """
    before = None if older_than is None else time.time() - older_than
    with _opened(directory) as spool:
        found = spool.purgeable(dead=dead, before=before)
        if found.count and not yes and not _confirmed(spool, found, dead=dead):
            typer.echo("Nothing was deleted.", err=True)
            raise typer.Exit(1)
        # Once is enough: what cannot be read is found again by the second look.
        spool.problems.clear()
        done = spool.purge(dead=dead, before=before)
        if as_json:
            _print_json(
                {"purged": done.count, "files": done.files, "in_use": done.in_use}
            )
            return
        typer.echo(f"{_counted(done, dead=dead)} deleted")
        if done.in_use:
            typer.echo(f"left alone, in use by a process: {_files(done.in_use)}")


@contextmanager
def _opened(directory: Path) -> Iterator[SpoolDirectory]:
    """Open a spool; afterwards name the files that made trouble.

    Raises:
        typer.Exit: with 2 where nothing could be done, 1 where something could not.
    """
    try:
        spool = SpoolDirectory(directory)
        # A directory may turn out to be unusable in the middle of a command, too.
        yield spool
    except SpoolDirectoryError as error:
        raise refusal(str(error)) from None
    for problem in spool.problems:
        # A name may have anything in it, and so may what SQLite quotes from a file.
        typer.echo(f"Error: {printable(problem, _LONGEST)}", err=True)
    if spool.problems:
        raise typer.Exit(1)


@contextmanager
def _new_output(path: Path) -> Iterator[BinaryIO]:
    """Make a file for this user alone: events tell about people."""
    try:
        # Its mode from the first instant on: a file that is closed to others later has
        # been open to them before.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise refusal(f"--output {path} exists: choose a new name") from None
    except OSError as error:
        reason = error.strerror or error
        raise refusal(f"--output {path} cannot be written: {reason}") from None
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
    except OSError as error:
        reason = error.strerror or error
        raise refusal(f"--output {path} is incomplete: {reason}") from None


def _expected(spool: SpoolDirectory, *, dead: bool) -> int:
    files = spool.status()
    spool.problems.clear()  # the export itself meets them again
    return sum(one.dead_letters if dead else one.events for one in files)


def _write(items: Iterator[Item], out: BinaryIO, advance: Callable[[], None]) -> int:
    count = 0
    for item in items:
        out.write(export_line(item))
        advance()
        count += 1
    return count


def _confirmed(spool: SpoolDirectory, found: Purge, *, dead: bool) -> bool:
    where = printable(str(spool.path), _LONGEST)
    question = f"Delete {_counted(found, dead=dead)} in {where} for good?"
    # On standard error, so that --json stays readable.
    return typer.confirm(question, err=True)


def _counted(found: Purge, *, dead: bool) -> str:
    what = _dead_letters(found.count) if dead else plural(found.count, "event")
    return f"{what} in {_files(found.files)}"


def _dead_letters(count: int) -> str:
    return plural(count, "dead letter")


def _files(count: int) -> str:
    return plural(count, "file")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
