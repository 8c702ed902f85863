"""The emulator's own pages: what arrived, counters, faults, reset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

from aiohttp import web

from .browsers import OWN_HEADERS, refuse_other_json
from .ledger import Ledger, ReceivedRequest
from .page import PAGE
from .script import FaultScript, parse_faults

__all__ = ["Control"]

_Item = TypeVar("_Item")
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 10_000
# The page is one file: whatever it would load from elsewhere is a mistake.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; "
    # Or another page could lay itself over this one and have its button pressed.
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Control:
    """Answers the requests under `/_emulator` and the page at `/`."""

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
            web.get("/", self._page),
            web.get("/_emulator/events", self._events),
            web.get("/_emulator/batches", self._batches),
            web.get("/_emulator/requests", self._requests),
            web.get("/_emulator/stats", self._stats),
            web.get("/_emulator/faults", self._list_faults),
            web.post("/_emulator/faults", self._add_faults),
            web.delete("/_emulator/faults", self._clear_faults),
            web.post("/_emulator/reset", self._post_reset),
        ]

    async def _page(self, _: web.Request) -> web.Response:
        headers = {**OWN_HEADERS, "Content-Security-Policy": _POLICY}
        return web.Response(text=PAGE, content_type="text/html", headers=headers)

    async def _events(self, request: web.Request) -> web.Response:
        ledger = self._ledger()
        total = ledger.stats.events_ingested
        return _listing(request, "events", ledger.events, total)

    async def _batches(self, request: web.Request) -> web.Response:
        ledger = self._ledger()
        total = ledger.stats.batches_ingested
        return _listing(request, "batches", ledger.batches, total)

    async def _requests(self, request: web.Request) -> web.Response:
        ledger = self._ledger()
        total = ledger.stats.requests
        shown = [_summary(one) for one in ledger.requests]
        return _listing(request, "requests", shown, total)

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(asdict(self._ledger().stats))

    async def _list_faults(self, _: web.Request) -> web.Response:
        return _json({"faults": self._faults.describe()})

    async def _add_faults(self, request: web.Request) -> web.Response:
        refusal = refuse_other_json(request)
        if refusal is not None:
            return refusal
        try:
            faults = parse_faults(json.loads(await request.read()))
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        self._faults.add(*faults)
        return _json({"faults": self._faults.describe()})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return _json({"faults": []})

    async def _post_reset(self, request: web.Request) -> web.Response:
        refusal = refuse_other_json(request)
        if refusal is not None:
            return refusal
        self._reset()
        return _json(asdict(self._ledger().stats))


def _summary(request: ReceivedRequest) -> dict[str, Any]:
    # No headers: they may hold credentials.
    return {
        "path": request.path,
        "status": request.status,
        "events": len(request.events),
        "batches": len(request.batches),
        "body_bytes": request.body_bytes,
        "decoded_bytes": request.decoded_bytes,
        "received_at": request.received_at,
        "fault": request.fault,
        "note": request.note,
    }


def _listing(
    request: web.Request, name: str, kept: Sequence[_Item], total: int
) -> web.Response:
    """Answer the newest items, or those after a number of items already seen."""
    try:
        limit = _number(request, "limit", _DEFAULT_LIMIT)
        after = _number(request, "after", None)
    except ValueError as error:
        return _json({"error": str(error)}, status=400)
    assert limit is not None  # noqa: S101 - it has a default
    limit = min(limit, _MAX_LIMIT)
    # Items older than the kept ones are gone, but they were counted.
    gone = total - len(kept)
    start = max(0, len(kept) - limit if after is None else after - gone)
    return _json({name: list(islice(kept, start, start + limit)), "total": total})


def _number(request: web.Request, name: str, default: int | None) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        msg = f"{name} is {text[:40]!r}: give a whole number, 0 or more"
        raise ValueError(msg)
    return int(text)


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, headers=OWN_HEADERS)
