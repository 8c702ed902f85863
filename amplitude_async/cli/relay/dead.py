"""The commands that look after dead letters: list them, send them again, drop them."""

import json
from collections.abc import AsyncIterator
from itertools import count
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
from amplitude_async.cli.relay.tables import letter_json, print_letters
from amplitude_async.cli.send.moments import milliseconds
from amplitude_async.cli.stopping import DONE, IN_PART, INCOMPLETE
from amplitude_async.cli.terminal import plural, printable, refusal
from amplitude_async.exceptions import LogError
from amplitude_async.fleet.letters import (
    Resend,
    first_letters,
    letters_after,
    letters_at,
    send_again,
)
from amplitude_async.fleet.log import BuriedLetter, Log

__all__ = ["dead_app", "replay"]

_LONGEST: Final = 1_000
_MOST_SKIPPED: Final = 20
_MOST_SHOWN: Final = 1_000_000
# What a log counts with.
_HIGHEST: Final = 2**63 - 1

dead_app = typer.Typer(
    name="dead",
    help="Look after dead letters: events that were rejected.",
    epilog="Exit codes: 0 done, 1 done in part, 2 nothing done, 3 the log fails.",
    no_args_is_help=True,
)

Positions = Annotated[
    list[int] | None,
    typer.Argument(
        metavar="[POSITION]...", min=1, max=_HIGHEST, help="Where letters stand."
    ),
]


def _moment(text: str) -> float:
    try:
        return milliseconds(text) / 1000
    except ValueError as error:
        msg = f"{printable(text)} {error}"
        raise typer.BadParameter(msg) from None


@dead_app.command("list")
def list_letters(
    address: Address = None,
    project: Project = "default",
    limit: Annotated[
        int, typer.Option(min=1, max=_MOST_SHOWN, help="Show at most so many.")
    ] = 100,
    after: Annotated[
        int, typer.Option(min=0, max=_HIGHEST, help="Begin behind this position.")
    ] = 0,
    *,
    body: Annotated[bool, typer.Option("--body", help="Show the bodies too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters: what was rejected, when and why."""
    gate = gate_to(address, project)

    async def job(log: Log) -> int:
        found = await first_letters(log, after, limit + 1)
        shown, more = found[:limit], len(found) > limit
        if as_json:
            letters = [letter_json(one, body=body) for one in shown]
            _print_json({"letters": letters, "more": more})
        else:
            print_letters(shown, Console(), body=body, more=more)
        return DONE

    asked_once(gate, job)


@dead_app.command()
def send(
    positions: Positions = None,
    address: Address = None,
    project: Project = "default",
    since: Annotated[
        float | None,
        typer.Option(
            parser=_moment,
            metavar="TIME",
            help="Only those rejected since; ISO 8601, UTC.",
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back into the log, for relays to send again.

    First they are published, then forgotten: after a kill in between they are sent
    twice, under the same insert_id.
    """
    if not (positions or every or since is not None):
        raise refusal("say which: their positions, --since TIME or --all")
    if positions and every:
        raise refusal("positions and --all do not go together: leave one out")
    _send(address, project, positions, since=since, as_json=as_json)


def replay(
    since: Annotated[
        float,
        typer.Option(
            parser=_moment,
            metavar="TIME",
            help="Those rejected since; ISO 8601, UTC.",
        ),
    ],
    address: Address = None,
    project: Project = "default",
    *,
    as_json: AsJson = False,
) -> None:
    """Send dead letters since a time again; of what was delivered the log has nothing.

    Exit codes: 0 done, 1 some cannot be sent, 2 nothing done, 3 the log fails.
    """
    _send(address, project, None, since=since, as_json=as_json)


@dead_app.command()
def drop(
    positions: Annotated[
        list[int],
        typer.Argument(
            metavar="POSITION...", min=1, max=_HIGHEST, help="Where they stand."
        ),
    ],
    address: Address = None,
    project: Project = "default",
    *,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good."""
    gate = gate_to(address, project)

    async def job(log: Log) -> int:
        found = [one.position async for one in letters_at(log, positions)]
        await log.forget_letters(found)
        missing = sorted(set(positions) - set(found))
        if as_json:
            _print_json({"dropped": len(found), "missing": missing})
        else:
            typer.echo(f"{plural(len(found), 'dead letter')} deleted")
            _tell_missing(missing)
        return IN_PART if missing else DONE

    asked_once(gate, job)


def _send(
    address: str | None,
    project: str,
    positions: list[int] | None,
    *,
    since: float | None,
    as_json: bool,
) -> None:
    gate = gate_to(address, project)

    async def job(log: Log) -> int:
        result, found = Resend(), set[int]()
        letters = letters_at(log, positions) if positions else letters_after(log)
        code = DONE
        try:
            await send_again(log, _noted(letters, found, since), result)
        except (LogError, OSError) as error:
            code = gate.unreachable(error).exit_code
        missing = sorted(set(positions or ()) - found)
        if code == DONE and (missing or result.skipped):
            code = IN_PART
        if as_json:
            _print_json(_resend_json(result, missing, complete=code != INCOMPLETE))
            return code
        typer.echo(f"{plural(result.sent, 'dead letter')} will be sent again")
        for number, (position, why) in zip(count(), result.skipped, strict=False):
            if number == _MOST_SKIPPED:
                rest = len(result.skipped) - number
                typer.echo(f"and {rest:,} more that cannot be sent", err=True)
                break
            text = f"{position} cannot be sent: {printable(why, _LONGEST)}"
            typer.echo(text, err=True)
        _tell_missing(missing)
        return code

    asked_once(gate, job)


async def _noted(
    letters: AsyncIterator[BuriedLetter], found: set[int], since: float | None
) -> AsyncIterator[BuriedLetter]:
    """Pass on those since a time, and note which were found."""
    async for one in letters:
        found.add(one.position)
        if since is None or one.buried_at >= since:
            yield one


def _resend_json(
    result: Resend, missing: list[int], *, complete: bool
) -> dict[str, object]:
    skipped = [{"position": at, "reason": why} for at, why in result.skipped]
    return {
        "sent": result.sent,
        "skipped": skipped,
        "missing": missing,
        "complete": complete,
    }


def _tell_missing(missing: list[int]) -> None:
    for position in missing[:_MOST_SKIPPED]:
        typer.echo(f"no dead letter stands at {position}: see dead list", err=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
