"""What happens here, told to those who watch while it happens.

Server-sent events. Nobody is queued for: who reads slowly is told less often, and who
falls behind is put ahead and told what was left out. Nothing is looked at, and nothing
made, while nobody watches.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from aiohttp import hdrs, web

from amplitude_async._version import __version__

from .bell import Bell
from .browsers import OWN_HEADERS
from .entries import entry, request_row
from .ledger import Ledger
from .script import FaultScript
from .turns import in_turns

__all__ = ["Feed"]

MOST_READERS = 20
MOST_BEHIND = 2_000
MOST_ENTRIES = 500
_MOST_REQUESTS = 100
_MOST_FAULTS = 100
_QUIET_SECONDS = 15.0
_WRITE_SECONDS = 10.0
_KIND = "text/event-stream"
_QUIET = b": nothing new\n\n"


class _Made:
    """What was made in this round, once for all who are as far as each other."""

    def __init__(self) -> None:
        self._round = -1
        self._parts: dict[Hashable, Any] = {}

    def of(self, number: int) -> dict[Hashable, Any]:
        """Return what was made in a round; a new one begins with nothing."""
        if number != self._round:
            self._round, self._parts = number, {}
        return self._parts


class _Reader:
    """One who watches: how far it has been told, and how to wake it."""

    def __init__(self, request: web.Request, woken: asyncio.Event, sign: int) -> None:
        self.woken = woken
        self._sign = sign
        self._entry = 0
        self._request_number = 0
        self._told: dict[str, Any] = {}
        self._request = request

    @property
    def is_gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def hang_up(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    def is_behind(self, ledger: Ledger) -> bool:
        return self._entry < ledger.newest[0]

    def begin(self, ledger: Ledger, after: int | None, state: dict[str, Any]) -> None:
        newest, self._request_number = ledger.newest
        # One that is ahead knows another emulator, which was here before.
        self._entry = newest if after is None else after if after <= newest else 0
        self._told = dict(state)

    def signs(self, bell: Bell) -> Iterator[str]:
        for sign, what, details in bell.signs_after(self._sign):
            self._sign = sign
            yield _message(what, json.dumps(details))

    def skip(self, newest: int) -> Iterator[str]:
        """Put it ahead where it is too far behind, and say what it is not told."""
        if newest - self._entry > MOST_BEHIND:
            first, self._entry = self._entry + 1, newest - MOST_ENTRIES
            skipped = {"from": first, "to": self._entry}
            yield _message("skipped", json.dumps(skipped))

    async def entries(self, ledger: Ledger, made: dict[Hashable, Any]) -> str:
        text, self._entry = await _entries(ledger, self._entry, made)
        return text

    def requests(self, ledger: Ledger, made: dict[Hashable, Any]) -> str:
        text, self._request_number = _requests(ledger, self._request_number, made)
        return text

    def changes(self, state: dict[str, Any]) -> Iterator[str]:
        for what, value in state.items():
            if value != self._told.get(what):
                self._told[what] = value
                yield _message(what, json.dumps(value))


class Feed:
    """Answers `GET /_emulator/feed` for as long as a reader stays.

    Args:
        ledger: returns where to read.
        faults: the script to show.
        bell: wakes readers.
        url: returns the emulator's own address.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        faults: FaultScript,
        bell: Bell,
        *,
        url: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._faults = faults
        self._bell = bell
        self._url = url
        self._clock = clock
        self._readers: set[_Reader] = set()
        self._made = _Made()
        # One makes what all are told; together they would hold the loop for long.
        self._busy = asyncio.Lock()
        self._ended = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        return [web.get("/_emulator/feed", self.serve)]

    def begin(self) -> None:
        """Take readers."""
        self._ended = False
        self._busy = asyncio.Lock()

    async def end(self, _: web.Application) -> None:
        """Let all readers go."""
        self._ended = True
        self._bell.wake()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Tell one reader what happens, until one of both ends it."""
        self._let_the_gone_go()
        if len(self._readers) >= MOST_READERS:
            error = f"{MOST_READERS} readers watch already: close a page that is open"
            return web.json_response({"error": error}, status=503, headers=OWN_HEADERS)
        try:
            after = _after(request)
        except ValueError as error:
            return web.json_response(
                {"error": str(error)}, status=400, headers=OWN_HEADERS
            )
        if request.method != hdrs.METH_GET:
            return web.Response(content_type=_KIND, headers=OWN_HEADERS)
        response = web.StreamResponse(headers=OWN_HEADERS)
        response.content_type = _KIND
        response.charset = "utf-8"
        reader = _Reader(request, self._bell.listen(), self._bell.announced)
        self._readers.add(reader)
        try:
            await response.prepare(request)
            await self._tell(reader, response, after)
        except (ConnectionError, TimeoutError):
            # It went away, or reads no more.
            reader.hang_up()
        finally:
            self._readers.discard(reader)
            self._bell.leave(reader.woken)
        return response

    def _let_the_gone_go(self) -> None:
        """Make room: a page that was closed is missed only at the next word to it."""
        for reader in [one for one in self._readers if one.is_gone]:
            self._readers.discard(reader)
            reader.woken.set()

    async def _tell(
        self, reader: _Reader, response: web.StreamResponse, after: int | None
    ) -> None:
        await _write(response, self._hello(reader, after))
        while not self._ended and not reader.is_gone:
            reader.woken.clear()
            async with self._busy:
                news = await self._news(reader)
            if news:
                await _write(response, news.encode())
            if reader.is_behind(self._ledger()):
                # There is more: as soon as others had their turn.
                self._bell.ring()
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await reader.woken.wait()
            except TimeoutError:
                await _write(response, _QUIET)

    def _hello(self, reader: _Reader, after: int | None) -> bytes:
        ledger, state = self._ledger(), self._state()
        reader.begin(ledger, after, state)
        hello = {
            "version": __version__,
            "url": self._url(),
            "now": self._clock(),
            "oldest": ledger.log.oldest,
            "newest": ledger.newest[0],
            **state,
        }
        return _message("hello", json.dumps(hello)).encode()

    async def _news(self, reader: _Reader) -> str:
        """Return all that a reader does not know yet, in the order it happened."""
        ledger, made = self._ledger(), self._made.of(self._bell.rounds)
        if "state" not in made:
            made["state"] = self._state()
        return "".join(
            [
                *reader.signs(self._bell),
                *reader.skip(ledger.newest[0]),
                await reader.entries(ledger, made),
                reader.requests(ledger, made),
                *reader.changes(made["state"]),
            ]
        )

    def _state(self) -> dict[str, Any]:
        stats = asdict(self._ledger().stats)
        return {"stats": stats, "faults": self._faults.describe(_MOST_FAULTS)}


async def _entries(
    ledger: Ledger, after: int, made: dict[Hashable, Any]
) -> tuple[str, int]:
    """Return the message of the next entries, and how far they go."""
    key = "entries", id(ledger), after
    if key not in made:
        found = ledger.log.newest(after, MOST_BEHIND)
        numbers = (
            (seen, number)
            for seen in found
            for number in range(max(seen.number, after + 1), seen.last_number + 1)
        )
        texts, last = [], after
        async for seen, number in in_turns(islice(numbers, MOST_ENTRIES)):
            texts.append(json.dumps(entry(seen, number), separators=(",", ":")))
            last = number
        # What was forgotten meanwhile holds up nobody.
        last = last if found else max(after, ledger.newest[0])
        text = _message("entries", f"[{','.join(texts)}]", last) if texts else ""
        made[key] = text, last
    told: tuple[str, int] = made[key]
    return told


def _requests(ledger: Ledger, after: int, made: dict[Hashable, Any]) -> tuple[str, int]:
    """Return the message of the newest requests, and how far they go."""
    key = "requests", id(ledger), after
    if key not in made:
        found = ledger.requests_after(after, _MOST_REQUESTS)
        rows = json.dumps(list(map(request_row, found)))
        last = found[-1].number if found else after
        made[key] = _message("requests", rows) if found else "", last
    told: tuple[str, int] = made[key]
    return told


def _message(what: str, data: str, number: int | None = None) -> str:
    # JSON as it is written here is one line of ASCII, whatever is in it.
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {what}\ndata: {data}\n\n"


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(data)


def _after(request: web.Request) -> int | None:
    # A browser that comes back says where it was.
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        msg = f"after is {text[:40]!r}: give a whole number, 0 or more"
        raise ValueError(msg)
    return int(text)
