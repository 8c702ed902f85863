"""What happens here, told to those who watch while it happens.

Server-sent events. Nobody is queued for: who reads slowly is told less often, and who
falls behind is put ahead and told what was left out. Nothing is looked at, and nothing
made, while nobody watches.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

from aiohttp import web

from amplitude_async._version import __version__

from .bell import Bell
from .browsers import OWN_HEADERS
from .entries import entry, request_row
from .ledger import Ledger
from .script import FaultScript
from .seen import Seen
from .turns import in_turns

__all__ = ["Feed"]

MOST_READERS = 20
MOST_BEHIND = 2_000
MOST_ENTRIES = 500
_MOST_REQUESTS = 100
_MOST_FAULTS = 100
# Of a reader who is ahead of what was: the entries that were made for another one.
_MOST_TEXTS = 3_000
_QUIET_SECONDS = 15.0
_WRITE_SECONDS = 10.0
_QUIET = b": nothing new\n\n"


class _Reader:
    """One who watches: how far it has been told, and how to wake it."""

    def __init__(self, request: web.Request, woken: asyncio.Event, sign: int) -> None:
        self.woken = woken
        self.sign = sign
        self.entry = 0
        self.request = 0
        self.stats: dict[str, Any] | None = None
        self.faults: list[dict[str, Any]] | None = None
        self._request = request

    @property
    def is_gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def hang_up(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class _Texts:
    """Entries as JSON, made once for all who watch."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, seen: Seen, number: int) -> str:
        text = self._known.get(number)
        if text is None:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            text = json.dumps(entry(seen, number), separators=(",", ":"))
            self._known[number] = text
        return text

    def forget(self) -> None:
        self._known.clear()


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
        self._texts = _Texts()
        self._ended = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        return [web.get("/_emulator/feed", self.serve)]

    def begin(self) -> None:
        """Take readers."""
        self._ended = False

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
        response = web.StreamResponse(headers=OWN_HEADERS)
        response.content_type = "text/event-stream"
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
            if not self._readers:
                self._texts.forget()
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
            news = "".join([part async for part in self._news(reader)])
            if news:
                await _write(response, news.encode())
            if reader.entry < self._ledger().newest[0]:
                # There is more: as soon as others had their turn.
                self._bell.ring()
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await reader.woken.wait()
            except TimeoutError:
                await _write(response, _QUIET)

    def _hello(self, reader: _Reader, after: int | None) -> bytes:
        ledger = self._ledger()
        newest, reader.request = ledger.newest
        reader.entry = newest if after is None else after
        if reader.entry > newest:
            # It knows another emulator, which was here before.
            reader.entry = 0
        reader.stats, reader.faults = self._stats(ledger), self._armed()
        hello = {
            "version": __version__,
            "url": self._url(),
            "now": self._clock(),
            "oldest": ledger.log.oldest,
            "newest": newest,
            "stats": reader.stats,
            "faults": reader.faults,
        }
        return _message("hello", json.dumps(hello)).encode()

    async def _news(self, reader: _Reader) -> AsyncIterator[str]:
        for sign, what, details in self._bell.signs_after(reader.sign):
            reader.sign = sign
            yield _message(what, json.dumps(details))
        ledger = self._ledger()
        skipped = _skip(reader, ledger.newest[0])
        if skipped:
            yield _message("skipped", json.dumps(skipped))
        texts = [text async for text in self._entries(reader, ledger)]
        if texts:
            yield _message("entries", f"[{','.join(texts)}]", reader.entry)
        rows = ledger.requests_after(reader.request, _MOST_REQUESTS)
        if rows:
            reader.request = rows[-1].number
            yield _message("requests", json.dumps(list(map(request_row, rows))))
        stats, faults = self._stats(ledger), self._armed()
        if stats != reader.stats:
            reader.stats = stats
            yield _message("stats", json.dumps(stats))
        if faults != reader.faults:
            reader.faults = faults
            yield _message("faults", json.dumps(faults))

    async def _entries(self, reader: _Reader, ledger: Ledger) -> AsyncIterator[str]:
        """Yield the next entries as JSON, and note how far they go."""
        after = reader.entry
        found = ledger.log.newest(after, MOST_BEHIND)
        numbers = (
            (seen, number)
            for seen in found
            for number in range(max(seen.number, after + 1), seen.last_number + 1)
        )
        async for seen, number in in_turns(islice(numbers, MOST_ENTRIES)):
            reader.entry = number
            yield self._texts.of(seen, number)
        if not found:
            reader.entry = max(reader.entry, ledger.newest[0])

    @staticmethod
    def _stats(ledger: Ledger) -> dict[str, Any]:
        return asdict(ledger.stats)

    def _armed(self) -> list[dict[str, Any]]:
        return self._faults.describe(_MOST_FAULTS)


def _skip(reader: _Reader, newest: int) -> dict[str, int] | None:
    """Put a reader ahead who is too far behind; return what it is not told."""
    if newest - reader.entry <= MOST_BEHIND:
        return None
    first, reader.entry = reader.entry + 1, newest - MOST_ENTRIES
    return {"from": first, "to": reader.entry}


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
