"""What programs ask of the emulator: what was stored, counters, faults, reset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

from aiohttp import web

from .browsers import OWN_HEADERS, refuse_other_json
from .ledger import Ledger
from .script import FaultScript, parse_faults
from .seen import Seen

__all__ = ["Control", "number_of"]

_Item = TypeVar("_Item")
_Default = TypeVar("_Default", bound=int | None)
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 10_000
_MAX_ANSWER = 8_000_000
_MOST_FAULTS = 1_000


class Control:
    """Answers requests under `/_emulator` for what was stored, counters and faults."""

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        faults: FaultScript,
        reset: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._faults = faults
        self._reset = reset

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""
        return [
            web.get("/_emulator/events", self._events),
            web.get("/_emulator/batches", self._batches),
            web.get("/_emulator/stats", self._stats),
            web.get("/_emulator/faults", self._list_faults),
            web.post("/_emulator/faults", self._add_faults),
            web.delete("/_emulator/faults", self._clear_faults),
            web.delete(r"/_emulator/faults/{number:\d{1,15}}", self._remove_fault),
            web.post("/_emulator/reset", self._post_reset),
        ]

    async def _events(self, request: web.Request) -> web.Response:
        ledger = self._ledger()
        total = ledger.stats.events_ingested
        kept = ledger.stored("event")
        return _listing(request, "events", kept, total, show=_as_sent)

    async def _batches(self, request: web.Request) -> web.Response:
        ledger = self._ledger()
        total = ledger.stats.batches_ingested
        kept = ledger.stored("batch")
        return _listing(request, "batches", kept, total, show=_as_sent)

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(asdict(self._ledger().stats))

    async def _list_faults(self, _: web.Request) -> web.Response:
        return _json({"faults": self._faults.describe()})

    async def _add_faults(self, request: web.Request) -> web.Response:
        refusal = refuse_other_json(request)
        if refusal is not None:
            return refusal
        try:
            faults = parse_faults(_document(await request.read()))
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        if len(self._faults.pending) + len(faults) > _MOST_FAULTS:
            full = f"more than {_MOST_FAULTS:,} faults are armed: remove some first"
            return _json({"error": full}, status=400)
        self._faults.add(*faults)
        return _json({"faults": self._faults.describe()})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return _json({"faults": []})

    async def _remove_fault(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if not self._faults.remove(number):
            error = f"fault {number} is armed no more: GET /_emulator/faults has ids"
            return _json({"error": error}, status=404)
        return _json({"faults": self._faults.describe()})

    async def _post_reset(self, request: web.Request) -> web.Response:
        refusal = refuse_other_json(request)
        if refusal is not None:
            return refusal
        self._reset()
        return _json(asdict(self._ledger().stats))


def _as_sent(seen: Seen) -> object:
    return seen.event


def _listing(
    request: web.Request,
    name: str,
    kept: Sequence[_Item],
    total: int,
    *,
    show: Callable[[_Item], object],
) -> web.Response:
    """Answer the newest items, or those after a number of items already seen."""
    try:
        limit = number_of(request, "limit", _DEFAULT_LIMIT)
        after = number_of(request, "after", None)
    except ValueError as error:
        return _json({"error": str(error)}, status=400)
    limit = min(limit, _MAX_LIMIT)
    if after is None:
        shown = _shown(map(show, islice(reversed(kept), limit)))[::-1]
    else:
        # Items older than the kept ones are gone, but they were counted.
        start = max(0, after - (total - len(kept)))
        shown = _shown(map(show, islice(kept, start, start + limit)))
    items = ", ".join(shown)
    text = f'{{{json.dumps(name)}: [{items}], "total": {json.dumps(total)}}}'
    return web.Response(text=text, content_type="application/json", headers=OWN_HEADERS)


def _shown(items: Iterable[object]) -> list[str]:
    """Return items as JSON, up to so much as a page can show."""
    shown: list[str] = []
    size = 0
    for item in items:
        text = _text(item)
        size += len(text)
        if shown and size > _MAX_ANSWER:
            break
        if len(text) > _MAX_ANSWER:
            text = json.dumps({"not_shown": f"{len(text):,} characters of JSON"})
        shown.append(text)
    return shown


def _text(item: object) -> str:
    try:
        return json.dumps(item)
    except RecursionError:
        # It could be read only just: writing it takes a little more.
        return json.dumps({"not_shown": "nested too deep"})


def number_of(request: web.Request, name: str, default: _Default) -> int | _Default:
    """Read a whole number of a query.

    Raises:
        ValueError: it is none; the message names it.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        msg = f"{name} is {text[:40]!r}: give a whole number, 0 or more"
        raise ValueError(msg)
    return int(text)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        msg = 'body is nested too deep: send a fault such as {"status": 503}'
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f'body is no JSON ({error}): send a fault such as {{"status": 503}}'
        raise ValueError(msg) from None


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, headers=OWN_HEADERS)
