"""How the commands come to the log: its address, its errors, its secrets."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final, TypeAlias
from urllib.parse import unquote

import typer

from amplitude_async.cli.stopping import DONE, INCOMPLETE
from amplitude_async.cli.terminal import printable, refusal
from amplitude_async.exceptions import ConfigurationError, LogError
from amplitude_async.fleet.addresses import log_at
from amplitude_async.fleet.log import DEFAULT_PROJECT, Log
from amplitude_async.redaction import Redactor, seal

__all__ = ["Address", "AsJson", "Gate", "Project", "asked_once", "gate_to"]

OPEN_PATIENCE: Final = 10.0
CLOSE_PATIENCE: Final = 2.0
_LONGEST: Final = 1_000
_USERINFO: Final = re.compile(r"(?://|,)([^/@,?]*)@")
_IN_QUERY: Final = re.compile(r"[?&](?:\w*password|token)=([^&#]*)", re.IGNORECASE)

Address = Annotated[
    str | None,
    typer.Option(
        "--log",
        envvar="AMPLITUDE_LOG",
        # What stands in the variable may have a password in it.
        show_envvar=False,
        help="postgresql://host/db or nats://a,b,c. Others see it in ps: "
        "AMPLITUDE_LOG is better.",
    ),
]
Project = Annotated[str, typer.Option("--project", help="Whose events they are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

Job: TypeAlias = Callable[[Log], Awaitable[int]]


class Gate:
    """The way to one log, and what is said where it is closed."""

    def __init__(self, address: str, project: str) -> None:
        self._redact = Redactor(
            f(p) for p in _passwords_of(address) for f in (str, unquote)
        )
        with self.refusing():
            self.log = log_at(seal(address), project=project)
            """The log, which is not open."""

    def __repr__(self) -> str:
        return f"<Gate to {self.log!r}>"

    @property
    def name(self) -> str:
        """Server and project, without a secret."""
        return printable(self._redact(self.log.fingerprint()), _LONGEST)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what a setting is to blame for into a message and exit code 2."""
        try:
            yield
        except ConfigurationError as error:
            raise refusal(self._redact(str(error))) from None

    def unreachable(self, error: BaseException) -> typer.Exit:
        """Say on standard error that the log does not do as it should; code 3."""
        why = str(error) or "it does not answer"
        text = printable(self._redact(why), _LONGEST)
        typer.echo(f"Error: the log {self.name}: {text}", err=True)
        return typer.Exit(INCOMPLETE)


def gate_to(address: str | None, project: str = DEFAULT_PROJECT) -> Gate:
    """Find the way to the log that was named.

    Raises:
        typer.Exit: with 2 where none was, or where there cannot be such a one.
    """
    if not address or not address.strip():
        raise refusal(
            "there is no log: set AMPLITUDE_LOG, or give --log postgresql://host/db "
            "or --log nats://a,b,c"
        )
    return Gate(address.strip(), project)


def asked_once(gate: Gate, job: Job, *, opened: bool = True) -> None:
    """Do one thing with the log, and end with the exit code that it returns.

    Args:
        gate: the way to it.
        job: what is to be done.
        opened: False for what does its own opening.

    Raises:
        typer.Exit: unless it was done; with 2 where a setting is to blame, 3 where the
            log does not answer.
    """

    async def run() -> int:
        log = gate.log
        try:
            if opened:
                async with asyncio.timeout(OPEN_PATIENCE):
                    await log.open()
            return await job(log)
        finally:
            await _closed(log)

    with gate.refusing():
        try:
            code = asyncio.run(run())
        except (LogError, OSError) as error:
            raise gate.unreachable(error) from None
    if code != DONE:
        raise typer.Exit(code)


async def _closed(log: Log) -> None:
    """Close a log, which is not worth a wait: the process ends."""
    try:
        async with asyncio.timeout(CLOSE_PATIENCE):
            await log.close()
    except (LogError, OSError):
        log.abandon()


def _passwords_of(address: str) -> Iterator[str]:
    """Name what is secret in an address; a user's name is not, and helps people."""
    for userinfo in _USERINFO.findall(address):
        user, _, password = userinfo.partition(":")
        # Alone it is a token of NATS; databases have users without a password.
        alone = user if address.startswith(("nats:", "tls:")) else ""
        yield from (one for one in (password or alone,) if one)
    yield from _IN_QUERY.findall(address)
