"""What a run came to: progress while it goes on, a summary for people or as JSON."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from amplitude_async.cli.send.checkpoint import Checkpoint
from amplitude_async.cli.send.sending import Run
from amplitude_async.cli.send.window import Fate
from amplitude_async.cli.terminal import printable

__all__ = ["print_summary", "progress", "summary_json"]

_LONGEST: Final = 400
_BAR: Final = 16


@contextmanager
def progress(console: Console, size: int) -> Iterator[Callable[[Run], None]]:
    """Show how far a run is, on a terminal only, and say once when it gets stuck.

    Yields:
        What to call now and then.
    """
    started = time.monotonic()
    stuck: list[str] = []
    bar = Progress(
        BarColumn(_BAR),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        # In a file or a pipe a bar would be lines of noise.
        disable=not console.is_terminal,
        auto_refresh=False,
        transient=True,
    )
    task = bar.add_task("", total=size or None, told="")

    def show(run: Run) -> None:
        told = f"{run.window.all[Fate.DELIVERED]:,} sent"
        if run.job.rejections.count:
            told += f", {run.job.rejections.count:,} rejected"
        rate = run.window.settled / max(time.monotonic() - started, 0.001)
        bar.update(task, completed=run.position, told=f"{told}, {rate:,.0f}/s")
        bar.refresh()
        if bool(run.trouble) != bool(stuck):
            stuck[:] = [run.trouble] if run.trouble else []
            text = f"waiting: {run.trouble}" if run.trouble else "it goes on"
            console.print(printable(text, _LONGEST), markup=False, highlight=False)

    with bar:
        yield show


def summary_json(run: Run, name: str, seconds: float, code: int) -> dict[str, Any]:
    """Return what a run came to as JSON values."""
    now = run.checkpoint()
    return {
        "input": name,
        "complete": now.complete,
        "exit_code": code,
        "stopped": run.stop.why or None,
        "line": now.line,
        "delivered": now.delivered,
        "rejected": now.rejected,
        "blank": now.blank,
        "delivered_behind_line": run.window.all[Fate.DELIVERED]
        - run.window.counts[Fate.DELIVERED],
        "resumed_after_line": run.job.begun.line,
        "sent_by_this_run": run.taken,
        "seconds": round(seconds, 3),
        "rejections": [one._asdict() for one in sorted(run.job.rejections.first)],
    }


def print_summary(
    run: Run, name: str, seconds: float, *, dry_run: bool, rejected_to: str | None
) -> None:
    """Say on standard output what a run came to, and why lines were rejected."""
    now = run.checkpoint()
    for line in _lines(run, now, name, seconds, dry_run=dry_run):
        typer.echo(printable(line, _LONGEST))
    for one in sorted(run.job.rejections.first):
        code = f"HTTP {one.code}, " if one.code else ""
        typer.echo(f"  line {one.line:,}: {code}{one.reason}")
    more = run.job.rejections.count - len(run.job.rejections.first)
    if more > 0:
        where = f"see {rejected_to}" if rejected_to else "--rejected FILE keeps all"
        typer.echo(printable(f"  and {more:,} more: {where}", _LONGEST))


def _lines(
    run: Run, now: Checkpoint, name: str, seconds: float, *, dry_run: bool
) -> Iterator[str]:
    rate = run.window.settled / max(seconds, 0.001)
    verb = "would be sent" if dry_run else "delivered"
    yield (
        f"{name}: {now.delivered:,} {verb}, {now.rejected:,} rejected, "
        f"{seconds:.1f} s, {rate:,.0f} lines a second"
    )
    if run.job.begun.line:
        line = run.job.begun.line
        yield f"It went on after line {line:,}, and counts what was before."
    if run.stop.why:
        yield f"Stopped: {run.stop.why}"
    if not now.complete:
        yield f"Everything is known up to line {now.line:,}."
        behind = run.window.all[Fate.DELIVERED] - run.window.counts[Fate.DELIVERED]
        if behind:
            yield (
                f"Behind it {behind:,} more were delivered; they go again, with the "
                "same ids."
            )
        if run.job.file is not None:
            yield "The same command goes on there."
    if run.job.rejections.first:
        yield "Rejected:"
