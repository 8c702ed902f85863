"""The command that shows the whole journey on real data."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from rich.console import Console

from amplitude_async.cli.browsing import open_page, start_nearby
from amplitude_async.cli.demo.busy import BUSY_FORECAST
from amplitude_async.cli.demo.chaos import FORECAST
from amplitude_async.cli.demo.crash import run_crash_demo
from amplitude_async.cli.demo.fleet.log_servers import LogServersError
from amplitude_async.cli.demo.fleet.show import FleetReport, run_fleet_demo
from amplitude_async.cli.demo.purchases import (
    Purchase,
    PurchaseLogError,
    read_log,
    sample_log,
)
from amplitude_async.cli.demo.report import Report, print_report
from amplitude_async.cli.demo.run import run_demo
from amplitude_async.cli.demo.service_process import ServiceProcessError
from amplitude_async.cli.demo.stage import Show, Stage
from amplitude_async.cli.stopping import flag_on_signals
from amplitude_async.cli.terminal import refusal
from amplitude_async.emulator import Emulator

__all__ = ["demo"]

_POLL: Final = 0.1


class LogKind(StrEnum):
    """What a log runs on."""

    POSTGRES = "postgres"
    NATS = "nats"


def demo(  # noqa: PLR0913 - each is an option of the command
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Replay only so many purchases; all by default."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Replay this purchase log instead of the one enclosed."),
    ] = None,
    *,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Let the server fail, drop and throttle.")
    ] = False,
    busy: Annotated[
        bool,
        typer.Option("--busy", help="Let the server take a few requests a second."),
    ] = False,
    crash: Annotated[
        bool,
        typer.Option(
            "--crash", help="Kill the service half-way and start it again (SIGKILL)."
        ),
    ] = False,
    mparticle: Annotated[
        bool,
        typer.Option("--mparticle", help="Feed a local mParticle server as well."),
    ] = False,
    fleet: Annotated[
        LogKind | None,
        typer.Option(
            help="Bring up a log, two relays and a producer, and kill one of each."
        ),
    ] = None,
    stay: Annotated[
        bool,
        typer.Option("--open", help="Show the page, and leave it up until Ctrl-C."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON report instead of a table.")
    ] = False,
) -> None:
    """Replay a purchase log through a web service into a local Amplitude server.

    Exit codes: 0 all arrived, 1 a purchase is missing, doubled or changed, 2 wrong
    command or log, 130 interrupted.
    """
    if fleet is not None:
        others = (
            chaos,
            busy,
            crash,
            mparticle,
            stay,
            limit is not None,
            log is not None,
        )
        if any(others):
            raise refusal("--fleet goes with --json alone: leave the rest out")
        raise typer.Exit(0 if _show_fleet(fleet, as_json=as_json).ok else 1)
    if mparticle and crash:
        raise refusal("--mparticle and --crash do not go together: leave one out")
    if busy and (chaos or crash or mparticle):
        raise refusal(
            "--busy goes with --limit, --log, --open and --json: leave the rest out"
        )
    try:
        purchases = (sample_log() if log is None else read_log(log))[:limit]
    except (OSError, PurchaseLogError) as error:
        raise refusal(f"cannot replay the log: {error}") from None
    if chaos and not as_json:
        typer.echo(FORECAST)
    if busy and not as_json:
        typer.echo(BUSY_FORECAST)
    with ExitStack() as stack:
        emulator = _kept(stack, len(purchases)) if stay else None
        stage = _stage(len(purchases), as_json=as_json)
        if crash:
            report = _crash_report(purchases, stage, emulator, chaos=chaos)
        else:
            run = run_demo(
                purchases,
                chaos=chaos,
                busy=busy,
                mparticle=mparticle,
                emulator=emulator,
                stage=stage,
            )
            report = asyncio.run(run)
        if as_json:
            typer.echo(json.dumps(report.as_json(), indent=2))
        else:
            print_report(report, Console())
        if emulator is not None:
            _leave_up(emulator, report)
    raise typer.Exit(0 if report.ok else 1)


def _show_fleet(kind: LogKind, *, as_json: bool) -> FleetReport:
    """Show what a fleet survives, on servers of its own."""
    stage = Show(Console(stderr=as_json), 0)
    with TemporaryDirectory(prefix="amplitude-fleet-") as folder:
        try:
            report = asyncio.run(run_fleet_demo(kind.value, Path(folder), stage))
        except LogServersError as error:
            raise refusal(f"cannot start a log: {error}") from None
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        for line in report.lines():
            typer.echo(line)
    return report


def _stage(total: int, *, as_json: bool) -> Stage:
    """Return where the demo is shown: not where JSON is printed."""
    if not as_json:
        return Show(Console(), total)
    console = Console(stderr=True)
    return Show(console, total) if console.is_terminal else Stage()


def _kept(stack: ExitStack, purchases: int) -> Emulator:
    """Start an emulator that outlives the replay, and show its page."""
    # Room for twice as many as expected, so that doubled events would be seen.
    emulator = start_nearby(stack, None, keep=2 * purchases)
    open_page(emulator.url)
    return emulator


def _leave_up(emulator: Emulator, report: Report) -> None:
    customers = report.server.totals().customers
    with flag_on_signals() as stop:
        typer.echo(
            f"The page stays up: {emulator.url} - {customers:,} customers to browse. "
            "Ctrl-C ends it.",
            err=True,
        )
        while not stop.is_up:
            time.sleep(_POLL)


def _crash_report(
    purchases: Sequence[Purchase],
    stage: Stage,
    emulator: Emulator | None,
    *,
    chaos: bool,
) -> Report:
    with TemporaryDirectory(prefix="amplitude-async-spool-") as spool:
        run = run_crash_demo(
            purchases, Path(spool), chaos=chaos, emulator=emulator, stage=stage
        )
        try:
            return asyncio.run(run)
        except ServiceProcessError as error:
            raise refusal(str(error)) from None
