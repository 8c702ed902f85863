"""The commands that set a log up, run a relay and say what waits."""

import asyncio
import json
import re
from contextlib import aclosing
from typing import Annotated, Final

import typer
from rich.console import Console

from amplitude_async.cli.relay.access import (
    Address,
    AsJson,
    Project,
    asked_once,
    gate_to,
)
from amplitude_async.cli.relay.dead import dead_app, replay
from amplitude_async.cli.relay.running import (
    Listening,
    clients_of_environment,
    logging_to_stderr,
    run_relay,
)
from amplitude_async.cli.relay.signals import heard_signals
from amplitude_async.cli.relay.tables import Status, print_status, status_json
from amplitude_async.cli.stopping import DONE
from amplitude_async.cli.terminal import printable
from amplitude_async.fleet.letters import letters_after
from amplitude_async.fleet.log import DEFAULT_LEASE, Log
from amplitude_async.fleet.relay import Relay

__all__ = ["relay_app"]

SETUP_PATIENCE: Final = 60.0
# Reading them is the only way to count them.
MOST_COUNTED: Final = 10_000
_WHERE: Final = re.compile(
    r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")

relay_app = typer.Typer(
    name="relay",
    help="Deliver from a fleet's log, and look into it.",
    epilog="Exit codes: 0 done, 1 done in part, 2 nothing done, 3 the log fails.",
    no_args_is_help=True,
)
relay_app.add_typer(dead_app)
relay_app.command()(replay)


def _listening(text: str) -> Listening:
    found = _WHERE.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65_535:
        msg = f"{printable(text)}: write HOST:PORT, such as 127.0.0.1:8080"
        raise typer.BadParameter(msg)
    return Listening(found["six"] or found["host"], int(found["port"]))


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        msg = f"{printable(text)}: use 1 to 80 of A-Z, a-z, 0-9, _ and -"
        raise typer.BadParameter(msg)
    return text


@relay_app.command()
def setup(
    address: Address = None,
    project: Project = "default",
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Of each destination; fixed from then on. 1."),
    ] = None,
) -> None:
    """Make or migrate what the log needs on its server; safe to repeat.

    Exit codes: 0 done, 2 nothing done, 3 the log does not answer.
    """
    gate = gate_to(address, project)

    async def job(log: Log) -> int:
        async with asyncio.timeout(SETUP_PATIENCE):
            done = await log.setup(partitions)
        for line in done:
            typer.echo(printable(line, 1_000))
        if not done:
            typer.echo("nothing had to be done: it is set up")
        return DONE

    asked_once(gate, job, opened=False)


@relay_app.command()
def run(
    address: Address = None,
    *,
    project: Project = "default",
    lease: Annotated[
        float,
        typer.Option(min=0.2, help="Seconds until others have what a dead relay had."),
    ] = DEFAULT_LEASE,
    name: Annotated[
        str | None,
        typer.Option(parser=_name, help="Its name, unique; host and process."),
    ] = None,
    health: Annotated[
        Listening | None,
        typer.Option(
            parser=_listening,
            metavar="HOST:PORT",
            help="Answer /live, /ready and /metrics there; nowhere by default.",
        ),
    ] = None,
) -> None:
    """Deliver from the log until Ctrl-C or SIGTERM, then give everything back.

    Keys come from AMPLITUDE_API_KEY, MPARTICLE_API_KEY and MPARTICLE_API_SECRET.
    Exit codes: 0 stopped and all given back, 2 wrong command or log not set up, 3 the
    log did not answer, 130 or 143 a second signal.
    """
    # First the signals: who stops it while it starts ends it as well.
    with heard_signals() as signals, logging_to_stderr():
        gate = gate_to(address, project)
        with gate.refusing():
            clients = clients_of_environment()

            async def deliver() -> int:
                relay = Relay(gate.log, clients, lease=lease, name=name)
                return await run_relay(relay, gate, signals=signals, listening=health)

            code = asyncio.run(deliver())
    raise typer.Exit(code)


@relay_app.command()
def status(
    address: Address = None,
    project: Project = "default",
    *,
    as_json: AsJson = False,
) -> None:
    """Show what waits in each place, who has it, and how many dead letters there are.

    Exit codes: 0 shown, 2 wrong command or log not set up, 3 the log does not answer.
    """
    gate = gate_to(address, project)

    async def job(log: Log) -> int:
        # Open already: this gives what it said then.
        settings = await log.open()
        backlog = await log.backlog()
        dead, more = await _counted_letters(log)
        found = Status(gate.name, log.project, settings, backlog, dead, more)
        if as_json:
            typer.echo(json.dumps(status_json(found), indent=2))
        else:
            print_status(found, Console())
        return DONE

    asked_once(gate, job)


async def _counted_letters(log: Log) -> tuple[int, bool]:
    """Count dead letters up to a number; returns whether there are more."""
    counted = 0
    async with aclosing(letters_after(log)) as letters:
        async for _ in letters:
            if counted == MOST_COUNTED:
                return MOST_COUNTED, True
            counted += 1
    return counted, False
