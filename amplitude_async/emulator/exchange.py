"""The life of one request: read, judged, disturbed by a fault, answered, recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aiohttp import hdrs, web

from .amplitude_api import error_body
from .browsers import ingestion_headers, preflight
from .faults import Fault
from .judgement import Arrival, JsonObject, Judgement, Vendor
from .ledger import Ledger
from .naming import named_problems
from .reading import weigh
from .records import ReceivedRequest
from .script import FaultScript, Turn
from .wire import Answer, Body, Pause, encode, hang_up, read_body, send

__all__ = ["Exchange", "find_vendor"]

_NO_BODY = frozenset({204, 304})


class Exchange:
    """Takes requests to the vendors' paths and to paths nobody knows.

    Args:
        vendors: the first whose API knows a path judges it.
        ledger: returns where to record, since a reset replaces it.
        faults: the script to consult.
        clock: seconds since the epoch.
        pause: waits, and returns True when the emulator is stopping.
    """

    def __init__(
        self,
        *,
        vendors: Sequence[Vendor],
        ledger: Callable[[], Ledger],
        faults: FaultScript,
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        self._vendors = vendors
        self._ledger = ledger
        self._faults = faults
        self._clock = clock
        self._pause = pause

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Answer one request to any path but the emulator's own."""
        found = find_vendor(self._vendors, request.path)
        if found is None:
            body = error_body(404, "Invalid request path")
            return self._turn_away(request, 404, body)
        granted = preflight(request)
        if granted is not None:
            return granted
        vendor, limit = found
        if request.method != hdrs.METH_POST:
            body = vendor.api.error_body(405, "Method not allowed")
            response = self._turn_away(request, 405, body)
            response.headers[hdrs.ALLOW] = hdrs.METH_POST
            response.headers.update(ingestion_headers(request))
            return response
        return await self._serve(request, vendor, limit)

    def _turn_away(
        self, request: web.Request, status: int, body: JsonObject
    ) -> web.Response:
        head = self._draft(request)
        self._ledger().record(replace(head, status=status))
        return web.json_response(body, status=status)

    async def _serve(
        self, request: web.Request, vendor: Vendor, limit: int
    ) -> web.StreamResponse:
        with self._faults.turn() as turn:
            return await self._take(request, vendor, limit, turn)

    async def _take(
        self, request: web.Request, vendor: Vendor, limit: int, turn: Turn
    ) -> web.StreamResponse:
        head = self._draft(request)
        fault = turn.before_reading(head)
        if fault is not None:
            return await self._drop(request, fault, head)
        try:
            body = await read_body(request, limit)
        except (ConnectionError, web.RequestPayloadError):
            # The client went away: there is nothing to judge and no one to tell.
            return hang_up(request)
        judgement = vendor.api.judge(_arrival(head, body))
        draft = _complete(head, judgement, body)
        fault = turn.after_reading(draft)
        stored: Judgement | None = None
        if fault is None or fault.stores():
            judgement = stored = self._metered(vendor, judgement, draft)
            draft = replace(
                draft,
                status=judgement.status,
                note=judgement.note,
                problems=judgement.problems,
            )
        if fault is None:
            self._ledger().record(draft, stored)
            return _respond(judgement, ingestion_headers(request))
        if fault.hang_up in ("before", "after"):
            return await self._drop(request, fault, draft, stored)
        answer = _disturbed(fault, draft, judgement, vendor)
        usual = ingestion_headers(request)
        answer = replace(answer, headers=_merged(usual, "", answer.headers))
        return await self._disturb(request, fault, draft, answer=answer, stored=stored)

    def _draft(self, request: web.Request) -> ReceivedRequest:
        return ReceivedRequest(
            path=request.path,
            status=0,
            headers=request.headers,
            received_at=self._clock(),
        )

    def _metered(
        self, vendor: Vendor, judgement: Judgement, draft: ReceivedRequest
    ) -> Judgement:
        if judgement.accepted and vendor.meter is not None:
            now = draft.received_at
            return vendor.api.judge_rate(judgement, vendor.meter, now)
        return judgement

    async def _drop(
        self,
        request: web.Request,
        fault: Fault,
        draft: ReceivedRequest,
        stored: Judgement | None = None,
    ) -> web.StreamResponse:
        """Close the connection without a word."""
        draft = replace(draft, status=0, fault=fault.label)
        self._ledger().record(draft, stored, dropped=1)
        await self._pause(fault.delay)
        return hang_up(request)

    async def _disturb(
        self,
        request: web.Request,
        fault: Fault,
        draft: ReceivedRequest,
        *,
        answer: Answer,
        stored: Judgement | None,
    ) -> web.StreamResponse:
        """Answer as the fault says instead of as judged."""
        # What never gets its answer has none.
        status = 0 if fault.delay == math.inf else answer.status
        draft = replace(draft, status=status, fault=fault.label)
        if stored is None:
            named = named_problems(answer.document, draft.events)
            draft = replace(draft, problems={**draft.problems, **named})
        self._ledger().record(draft, stored, dropped=int(answer.cut))
        if fault.delay and await self._pause(fault.delay):
            return hang_up(request)
        return await send(request, answer, self._pause)


def find_vendor(vendors: Sequence[Vendor], path: str) -> tuple[Vendor, int] | None:
    """Return whose path it is and the most bytes a body may have there."""
    for vendor in vendors:
        limit = vendor.api.body_limit(path)
        if limit is not None:
            return vendor, limit
    return None


def _arrival(head: ReceivedRequest, body: Body) -> Arrival:
    return Arrival(
        path=head.path,
        received_at=head.received_at,
        headers=head.headers,
        body=body.data,
        too_large=body.too_large,
        note=body.note,
    )


def _complete(
    head: ReceivedRequest, judgement: Judgement, body: Body
) -> ReceivedRequest:
    return replace(
        head,
        status=judgement.status,
        events=judgement.events if judgement.unit == "event" else (),
        batches=judgement.events if judgement.unit == "batch" else (),
        api_key_ok=judgement.api_key_ok,
        body_bytes=body.wire_bytes,
        decoded_bytes=body.decoded_bytes,
        options=judgement.options,
        client_upload_time=judgement.client_upload_time,
        note=judgement.note,
        problems=judgement.problems,
        weight=_weight_kept(judgement, body),
    )


def _weight_kept(judgement: Judgement, body: Body) -> int:
    keeps = judgement.events or judgement.options or judgement.client_upload_time
    return weigh(body.data) if keeps and body.data is not None else 0


def _respond(judgement: Judgement, usual: Mapping[str, str]) -> web.Response:
    payload, content_type = encode(judgement.body)
    headers = _merged(judgement.headers, content_type, usual)
    return web.Response(status=judgement.status, body=payload, headers=headers)


def _disturbed(
    fault: Fault, draft: ReceivedRequest, judgement: Judgement, vendor: Vendor
) -> Answer:
    status = draft.status if fault.status is None else fault.status
    judged = judgement.headers if status == draft.status else {}
    body = fault.answer(draft, judgement.body, vendor.api.error_body)
    payload, content_type = encode(body)
    return Answer(
        status=status,
        payload=b"" if status in _NO_BODY else payload,
        headers=_merged(judged, content_type, fault.headers),
        cut=fault.hang_up == "during",
        trickle=fault.trickle,
        endless=fault.endless,
        document=body,
    )


def _merged(
    judged: Mapping[str, str], content_type: str, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the judge's headers and the type, unless the fault has given them."""
    headers = dict(judged)
    if content_type:
        headers[hdrs.CONTENT_TYPE] = content_type
    replaced = {name.lower() for name in given}
    kept = {
        name: text for name, text in headers.items() if name.lower() not in replaced
    }
    return {**kept, **given}
