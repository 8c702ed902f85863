"""The command that prints what arrives at a running emulator, as it arrives."""

import asyncio
import os
from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated, Any, Final

import aiohttp
import typer
from rich.console import Console
from yarl import URL

from amplitude_async.cli.connection import is_local, without_path
from amplitude_async.cli.pipes import nobody_reads, silence, standard_output
from amplitude_async.cli.stopping import DONE, INCOMPLETE, Stop, stop_on_signals
from amplitude_async.cli.tail.entries import Wanted, as_line, as_text
from amplitude_async.cli.tail.stream import FeedError, messages
from amplitude_async.cli.terminal import printable, refusal
from amplitude_async.config import parse_http_url
from amplitude_async.emulator.filtering import Filter

__all__ = ["tail"]

_DEFAULT: Final = "http://127.0.0.1:8080"
_CONNECT: Final = 5.0
# The emulator says something at least every 15 seconds.
_SILENT: Final = 45.0
_TICK: Final = 0.25
_FAULTS: Final = (aiohttp.ClientError, TimeoutError, OSError, FeedError, ValueError)


def tail(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="The emulator, or its port alone; else AMPLITUDE_INSPECT, "
            "AMPLITUDE_SERVER_URL if it is on this machine, or port 8080.",
        ),
    ] = None,
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="Only this type; * stands for any.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Only this user_id or device_id.")
    ] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Only what was rejected or dropped.")
    ] = False,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="As on the page: 'type:Paid total:9.5 -stored'."),
    ] = None,
    last: Annotated[
        int,
        typer.Option("--last", "-n", min=0, max=500, help="Begin with so many."),
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each as a line of JSON.")
    ] = False,
) -> None:
    """Follow a running emulator: each event with what became of it, until Ctrl-C.

    Exit codes: 0 followed until one of both ended, 2 wrong command, 3 no emulator.
    """
    base = _base(url)
    try:
        words = Filter(filter_) if filter_ is not None else None
    except ValueError as error:
        raise refusal(f"--filter: {error}") from None
    wanted = Wanted(name, user, rejected, words)
    console = _Plain(soft_wrap=True, highlight=False)
    try:
        code = asyncio.run(_Following(base, wanted, console, as_json=as_json).run(last))
    except BrokenPipeError:
        silence()
        code = DONE
    raise typer.Exit(code)


class _Plain(Console):
    """A console that leaves it to the command what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _base(url: str | None) -> URL:
    asked = url or os.environ.get("AMPLITUDE_INSPECT") or _from_server_url()
    if asked.isdigit():
        asked = f"127.0.0.1:{asked}"
    if "://" not in asked:
        asked = f"http://{asked}"
    try:
        return parse_http_url(without_path(asked))
    except ValueError as error:
        raise refusal(f"{asked} {error}, such as {_DEFAULT}") from None


def _from_server_url() -> str:
    url = os.environ.get("AMPLITUDE_SERVER_URL", "")
    return url if is_local(url) else _DEFAULT


class _Following:
    """One emulator that is followed."""

    def __init__(
        self, base: URL, wanted: Wanted, console: Console, *, as_json: bool
    ) -> None:
        self._base = base
        self._wanted = wanted
        self._console = console
        self._as_json = as_json
        self._found = False
        self._stop = Stop()

    async def run(self, last: int) -> int:
        """Follow it until one of both ends, and return the exit code."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT, sock_read=_SILENT
        )
        with stop_on_signals(self._stop):
            # No proxy of the environment: an emulator is near.
            async with aiohttp.ClientSession(timeout=timeout) as session:
                following = asyncio.create_task(self._follow(session, last))
                stopping = asyncio.create_task(self._stopped())
                tasks: set[asyncio.Task[Any]] = {following, stopping}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if following.cancelled():
            return DONE
        return self._ended(following.exception())

    def _ended(self, fault: BaseException | None) -> int:
        if fault is None or self._found:
            if isinstance(fault, BrokenPipeError):
                raise fault
            if fault is not None and not isinstance(fault, _FAULTS):
                raise fault
            typer.echo(f"The emulator at {self._base} has gone.", err=True)
            return DONE
        if not isinstance(fault, _FAULTS):
            raise fault
        why = printable(str(fault) or type(fault).__name__, 300)
        typer.echo(
            f"Error: no emulator answers at {self._base} ({why}): start one with "
            "`amplitude-async emulator`, or give its URL",
            err=True,
        )
        return INCOMPLETE

    async def _stopped(self) -> None:
        """Wait for a signal, or until nobody reads what is printed."""
        output = standard_output()
        while not self._stop.asked.is_set() and not nobody_reads(output):
            try:
                async with asyncio.timeout(_TICK):
                    await self._stop.asked.wait()
            except TimeoutError:
                continue

    async def _follow(self, session: aiohttp.ClientSession, last: int) -> None:
        query = {"limit": str(max(last, 1))}
        url = self._base / "_emulator" / "entries"
        async with session.get(url, params=query) as response:
            found = await _entries(response)
        self._found = True
        self._print(reversed(found[:last]))
        after = {"after": str(found[0]["n"] if found else 0)}
        url = self._base / "_emulator" / "feed"
        async with session.get(url, params=after) as response:
            await _good(response)
            async with aclosing(messages(response.content.iter_any())) as feed:
                async for message in feed:
                    self._take(message.what, message.data)

    def _take(self, what: str, data: Any) -> None:
        if what == "entries" and isinstance(data, list):
            self._print(one for one in data if isinstance(one, dict))
        elif what == "skipped" and isinstance(data, dict):
            text = f"({data.get('from')} to {data.get('to')} came too fast to show)"
            self._console.print(printable(text), markup=False, style="yellow")

    def _print(self, entries: Iterable[dict[str, Any]]) -> None:
        for one in entries:
            if self._wanted.holds(one):
                if self._as_json:
                    typer.echo(as_line(one))
                else:
                    self._console.print(as_text(one))
        self._console.file.flush()


async def _good(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        text = (await response.content.read(300)).decode(errors="replace")
        msg = f"HTTP {response.status}: {text}"
        raise FeedError(msg)


async def _entries(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    await _good(response)
    document = await response.json()
    found = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get("n"), int) for one in found
    ):
        msg = "what answers there is no emulator of this version"
        raise FeedError(msg)
    return found
