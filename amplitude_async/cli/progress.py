"""The progress bar of a replay."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs, on a terminal only.

    Yields:
        What to call after each purchase.
    """
    bar = Progress(
        TextColumn("Replaying purchases"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("replay", total=total)
        yield lambda: bar.advance(task)
