"""What commands say to a terminal: refusals, progress, tables, text from elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from amplitude_async.shown import printable as spelt_out

__all__ = [
    "age_in_words",
    "cell",
    "fits",
    "plural",
    "print_plain",
    "printable",
    "progress_bar",
    "refusal",
    "size_in_words",
]

_LONGEST = 1_000
# Wider than any table: what it would take if it could.
_UNBOUNDED = 10_000
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def refusal(message: str) -> typer.Exit:
    """Say on standard error why nothing was done; the exit code is 2."""
    # A name or a value in it may have anything in it.
    shown = "\n".join(printable(line, _LONGEST) for line in message.split("\n"))
    typer.echo(f"Error: {shown}", err=True)
    return typer.Exit(2)


def printable(text: str, longest: int = 80) -> str:
    r"""Keep what others sent from steering the terminal or flooding it.

    Controls, direction marks and line ends are spelt out, as in ``\x1b``.
    """
    shown = spelt_out(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


@contextmanager
def progress_bar(
    console: Console, total: int, title: str = "Replaying purchases"
) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs, on a terminal only.

    Yields:
        What to call after each step.
    """
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        # In a file or a pipe a bar would be lines of noise.
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def age_in_words(age: float | None) -> str:
    """Say how old something is, of so many seconds; a dash where nobody knows."""
    if age is None:
        return "-"
    for seconds, unit in _UNITS:
        if age >= seconds:
            return f"{age / seconds:.1f} {unit}"
    return f"{age:.0f} s"


def size_in_words(count: int) -> str:
    """Say how many bytes there are, in a unit that is easy to read."""
    if count < 1000:
        return f"{count} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:,.1f} GB"


def plural(count: int, what: str) -> str:
    """Count things in words."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def fits(table: Table, console: Console) -> bool:
    """Say whether a table needs to break no cell."""
    options = console.options.update(max_width=_UNBOUNDED)
    return Measurement.get(console, options, table).maximum <= console.width


def print_plain(console: Console, text: str, *, style: str | None = None) -> None:
    """Print text as it is: the terminal breaks it, so that a copied name is whole."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)


def cell(value: object, longest: int = 80) -> Text:
    """Show a value as it is: in a plain string, brackets would be markup."""
    shown = "" if value is None else printable(str(value), longest)
    return Text(shown or "-")
