"""The commands and their options; what they do stands in modules of their own."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from amplitude_async import __version__
from amplitude_async.cli.demo.busy import BUSY_FORECAST
from amplitude_async.cli.demo.chaos import FORECAST
from amplitude_async.cli.demo.crash import run_crash_demo
from amplitude_async.cli.demo.purchases import (
    Purchase,
    PurchaseLogError,
    read_log,
    sample_log,
)
from amplitude_async.cli.demo.report import Report, print_report
from amplitude_async.cli.demo.run import run_demo
from amplitude_async.cli.demo.service_process import ServiceProcessError
from amplitude_async.cli.dev.command import dev
from amplitude_async.cli.doctor.command import doctor
from amplitude_async.cli.emulator import serve
from amplitude_async.cli.send.command import send
from amplitude_async.cli.tail.command import tail
from amplitude_async.cli.terminal import progress_bar, refusal
from amplitude_async.emulator import Emulator

__all__ = ["app"]

app = typer.Typer(
    name="amplitude-async",
    help="A local server, events by hand or from files, and a look into spools.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback with the values of locals could show a key.
    pretty_exceptions_enable=False,
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=lambda wanted: _print_version(wanted=wanted),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command()
def emulator(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on, 0: any free one.")
    ] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    *,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines connect.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name by which its pages may be read; may be repeated."
        ),
    ] = None,
    requests: Annotated[
        bool, typer.Option("--requests", help="Print each request as well.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print lines of JSON.")
    ] = False,
) -> None:
    """Run a local server until Ctrl-C or SIGTERM; print each event and its verdict.

    Exit codes: 0 stopped, 2 wrong command or a port that is taken.
    """
    try:
        server = Emulator(
            host, port, allow_remote=allow_remote, allowed_hosts=allowed_host or ()
        )
    except ValueError:
        raise refusal(
            f"--host {host} can be reached by other machines: use 127.0.0.1, or add "
            "--allow-remote if that is wanted"
        ) from None
    try:
        serve(server, Console(), requests=requests, as_json=as_json)
    except OSError as error:
        raise refusal(
            f"cannot listen on {host} port {port} ({error.strerror or error}): "
            "choose another --port (0 takes any free one) or --host"
        ) from None


@app.command()
def demo(
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON report instead of a table.")
    ] = False,
) -> None:
    """Replay a purchase log through a web service into a local Amplitude server.

    Exits with 1 if a single purchase is missing, doubled or changed.
    """
    if mparticle and crash:
        raise refusal("--mparticle and --crash do not go together: leave one out")
    if busy and (chaos or crash or mparticle):
        raise refusal("--busy goes with --limit, --log and --json: leave the rest out")
    try:
        purchases = (sample_log() if log is None else read_log(log))[:limit]
    except (OSError, PurchaseLogError) as error:
        raise refusal(f"cannot replay the log: {error}") from None
    if chaos and not as_json:
        typer.echo(FORECAST)
    if busy and not as_json:
        typer.echo(BUSY_FORECAST)
    with progress_bar(Console(stderr=True), len(purchases)) as advance:
        if crash:
            report = _crash_report(purchases, advance, chaos=chaos)
        else:
            run = run_demo(
                purchases, advance, chaos=chaos, busy=busy, mparticle=mparticle
            )
            report = asyncio.run(run)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report, Console())
    raise typer.Exit(0 if report.ok else 1)


def _crash_report(
    purchases: Sequence[Purchase], advance: Callable[[], None], *, chaos: bool
) -> Report:
    with TemporaryDirectory(prefix="amplitude-async-spool-") as spool:
        run = run_crash_demo(purchases, Path(spool), advance, chaos=chaos)
        try:
            return asyncio.run(run)
        except ServiceProcessError as error:
            raise refusal(str(error)) from None


# What stands behind the command's name is the command's.
app.command(context_settings={"allow_interspersed_args": False})(dev)
app.command()(send)
app.command()(tail)
app.command()(doctor)

if sys.platform != "win32":
    # Spools rest on file locks that Windows does not have.
    from amplitude_async.cli.spool.commands import spool_app

    app.add_typer(spool_app)
