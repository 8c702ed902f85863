"""Runs a command beside an emulator that it sends to."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console

from amplitude_async.cli.browsing import open_page, start_nearby
from amplitude_async.cli.dev.child import Child
from amplitude_async.cli.dev.variables import opted_out, variables_for
from amplitude_async.cli.news import Ticker, describe_stats
from amplitude_async.cli.terminal import printable

__all__ = ["dev"]

_POLL: Final = 0.05
_KEEP: Final = 100_000
_NOT_FOUND: Final = 127
_NOT_STARTED: Final = 126


def dev(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="What to run.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the emulator; 8080 or the next free one."
        ),
    ] = None,
    *,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Open no browser.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Print each event, to standard error.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds to end in, when told to, before a kill."),
    ] = 10.0,
) -> None:
    """Run a command with an emulator beside it: what it tracks shows on a page.

    Exit codes: 2 wrong command line or a port that is taken, 126 the command cannot
    be started, 127 it was not found; else its own.
    """
    with ExitStack() as stack:
        emulator = start_nearby(stack, port, keep=_KEEP)
        if opted_out(os.environ):
            _say("AMPLITUDE_OPT_OUT is set: the command will send nothing, unset it")
        child = Child(command, variables_for(emulator, os.environ), grace)
        ticker = Ticker(emulator, Console(stderr=True)) if events else None
        _say(f"Emulator on {emulator.url} - open it in a browser to watch.")
        code = _run(child, command[0], ticker, None if no_open else emulator.url)
        if child.was_killed:
            _say(f"The command did not end within {grace:g} s: it was killed.")
        _say(describe_stats(emulator.stats))
    raise typer.Exit(code)


def _run(child: Child, name: str, ticker: Ticker | None, page: str | None) -> int:
    """Run the command to its end, and return its exit code."""
    with _passed_on(child), ExitStack() as stack:
        try:
            stack.enter_context(child)
        except (OSError, ValueError) as error:
            raise _not_started(name, error) from None
        if page is not None:
            open_page(page)
        while (code := child.poll()) is None:
            time.sleep(_POLL)
            if ticker is not None:
                ticker.print_news()
    if ticker is not None:
        ticker.print_news()
    return code


def _not_started(name: str, error: Exception) -> typer.Exit:
    why = getattr(error, "strerror", None) or str(error)
    remedy = "give a program that can be run, as in `dev -- uvicorn app:app`"
    _say(f"Error: cannot start {printable(name)!r} ({why}): {remedy}")
    missing = isinstance(error, FileNotFoundError)
    return typer.Exit(_NOT_FOUND if missing else _NOT_STARTED)


@contextlib.contextmanager
def _passed_on(child: Child) -> Iterator[None]:
    """Let the command have the signals that this process gets."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        child.pass_on(number)

    before = {number: signal.getsignal(number) for number in _signals()}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    found = [signal.SIGINT, signal.SIGTERM]
    # Windows has none; and where a terminal that goes away is to change nothing
    # (nohup), it does not.
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


def _say(text: str) -> None:
    # Nobody has to read it: it must not end the command.
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)
