"""The life of one request: read, judged, disturbed by a fault, answered, recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aiohttp import hdrs, web

from .amplitude_api import error_body
from .faults import Fault
from .judgement import Api, Arrival, JsonObject, Judgement
from .ledger import Ledger, ReceivedRequest
from .rates import RateMeter
from .script import FaultScript
from .wire import Answer, Body, Pause, encode, hang_up, read_body, send

__all__ = ["Exchange"]

_NO_BODY = frozenset({204, 304})


class Exchange:
    """Takes requests to the vendors' paths and to paths nobody knows.

    Args:
        apis: the vendors' judges; the first that knows a path judges it.
        ledger: returns where to record, since a reset replaces it.
        faults: the script to consult.
        meter: refuses identities that send too fast, None to let them.
        clock: seconds since the epoch.
        pause: waits, and returns True when the emulator is stopping.
    """

    def __init__(
        self,
        *,
        apis: Sequence[Api],
        ledger: Callable[[], Ledger],
        faults: FaultScript,
        meter: RateMeter | None,
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        self._apis = apis
        self._ledger = ledger
        self._faults = faults
        self._meter = meter
        self._clock = clock
        self._pause = pause

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Answer one request to any path but the emulator's own."""
        path = request.path
        for api in self._apis:
            limit = api.body_limit(path)
            if limit is not None:
                break
        else:
            return self._turn_away(request, 404, "Invalid request path")
        if request.method != hdrs.METH_POST:
            response = self._turn_away(request, 405, "Method not allowed")
            response.headers[hdrs.ALLOW] = hdrs.METH_POST
            return response
        return await self._serve(request, api, limit)

    def _turn_away(self, request: web.Request, status: int, error: str) -> web.Response:
        head = self._draft(request)
        self._ledger().record(replace(head, status=status))
        return web.json_response(error_body(status, error), status=status)

    async def _serve(
        self, request: web.Request, api: Api, limit: int
    ) -> web.StreamResponse:
        head = self._draft(request)
        turn = self._faults.turn()
        fault = turn.before_reading(head)
        if fault is not None:
            return await self._drop(request, fault, head)
        try:
            body = await read_body(request, limit)
        except (ConnectionError, web.RequestPayloadError):
            # The client went away: there is nothing to judge and no one to tell.
            return hang_up(request)
        judgement = api.judge(_arrival(head, body))
        draft = _complete(head, judgement, body)
        fault = turn.after_reading(draft)
        if fault is None or fault.stores():
            judgement = self._store(api, judgement, draft.received_at)
            draft = replace(draft, status=judgement.status)
        if fault is None:
            self._ledger().record(draft)
            return _respond(judgement)
        if fault.hang_up in ("before", "after"):
            return await self._drop(request, fault, draft)
        return await self._disturb(request, fault, draft, judgement.body)

    def _draft(self, request: web.Request) -> ReceivedRequest:
        return ReceivedRequest(
            path=request.path,
            status=0,
            headers=request.headers,
            received_at=self._clock(),
        )

    def _store(self, api: Api, judgement: Judgement, now: float) -> Judgement:
        if judgement.accepted and self._meter is not None:
            judgement = api.judge_rate(judgement, self._meter, now)
        self._ledger().ingest(judgement, now)
        return judgement

    async def _drop(
        self, request: web.Request, fault: Fault, draft: ReceivedRequest
    ) -> web.StreamResponse:
        """Close the connection without a word."""
        self._ledger().record(replace(draft, status=0, fault=fault.label))
        self._ledger().connections_dropped += 1
        await self._pause(fault.delay)
        return hang_up(request)

    async def _disturb(
        self,
        request: web.Request,
        fault: Fault,
        draft: ReceivedRequest,
        judged: JsonObject,
    ) -> web.StreamResponse:
        """Answer as the fault says instead of as judged."""
        status = draft.status if fault.status is None else fault.status
        payload, content_type = encode(fault.answer(draft, judged))
        answer = Answer(
            status=status,
            payload=b"" if status in _NO_BODY else payload,
            headers=_merged(content_type, fault),
            cut=fault.hang_up == "during",
            trickle=fault.trickle,
            endless=fault.endless,
        )
        self._ledger().record(replace(draft, status=status, fault=fault.label))
        self._ledger().connections_dropped += answer.cut
        if fault.delay and await self._pause(fault.delay):
            return hang_up(request)
        return await send(request, answer, self._pause)


def _arrival(head: ReceivedRequest, body: Body) -> Arrival:
    return Arrival(
        path=head.path,
        received_at=head.received_at,
        headers=head.headers,
        body=body.data,
        too_large=body.too_large,
    )


def _complete(
    head: ReceivedRequest, judgement: Judgement, body: Body
) -> ReceivedRequest:
    return replace(
        head,
        status=judgement.status,
        events=judgement.events,
        api_key_ok=judgement.api_key_ok,
        body_bytes=body.wire_bytes,
        decoded_bytes=body.decoded_bytes,
        options=judgement.options,
        client_upload_time=judgement.client_upload_time,
        note=judgement.note,
    )


def _respond(judgement: Judgement) -> web.Response:
    payload, content_type = encode(judgement.body)
    headers = {hdrs.CONTENT_TYPE: content_type}
    return web.Response(status=judgement.status, body=payload, headers=headers)


def _merged(content_type: str, fault: Fault) -> dict[str, str]:
    given = {name.lower() for name in fault.headers}
    headers = dict(fault.headers)
    if "content-type" not in given:
        headers[hdrs.CONTENT_TYPE] = content_type
    return headers
