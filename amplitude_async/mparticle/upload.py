"""Direct uploads: a result in hand, with retries and one limiter per client."""

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.deciding.health import JITTER_FLOOR
from amplitude_async.delivery.endpoint import Response, describe_failure, retry_after
from amplitude_async.delivery.interception import (
    CAPTURED,
    HELD_BACK,
    INTERCEPTION,
    Gate,
)
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.sender import Post
from amplitude_async.delivery.transport import AiohttpTransport, Transport
from amplitude_async.mparticle.config import MParticleConfig
from amplitude_async.mparticle.door import Piece
from amplitude_async.mparticle.endpoint import (
    MAX_BATCHES,
    MAX_REQUEST_BYTES,
    MAX_RETRY_AFTER,
    PERCENTAGE_HEADER,
    SCOPE_HEADER,
    MParticleEndpoint,
    parse_errors,
    tell,
)
from amplitude_async.mparticle.exceptions import BatchError
from amplitude_async.mparticle.models.batch import Batch
from amplitude_async.mparticle.result import UploadResult
from amplitude_async.redaction import Body
from amplitude_async.storage.base import Record

__all__ = [
    "OPTED_OUT",
    "Parcel",
    "Uploader",
    "pack",
    "telling_refusals",
    "told_unsent",
]

OPTED_OUT: Final = UploadResult(
    ok=False, status=0, message="opt_out is set", attempts=0
)
"""What an upload gives where the client was told to send nothing."""


class Parcel:
    """The encoded batches of one request."""

    __slots__ = ("bodies", "ids")

    def __init__(self, bodies: Sequence[bytes], ids: Sequence[str]) -> None:
        self.bodies = bodies
        self.ids = tuple(ids)

    def halve(self) -> "tuple[Parcel, Parcel]":
        """Cut in two, in order."""
        middle = (len(self.bodies) + 1) // 2
        return (
            Parcel(self.bodies[:middle], self.ids[:middle]),
            Parcel(self.bodies[middle:], self.ids[middle:]),
        )


def pack(pieces: Sequence[Piece]) -> Iterator[Parcel]:
    """Pack batches in order into requests within the API's limits."""
    bodies: list[bytes] = []
    ids: list[str] = []
    # The brackets round the list; below, the comma of each batch.
    size = 2
    for piece in pieces:
        body = piece.body
        full = size + len(body) + 1 > MAX_REQUEST_BYTES or len(bodies) == MAX_BATCHES
        if bodies and full:
            yield Parcel(bodies, ids)
            bodies, ids, size = [], [], 2
        bodies.append(body)
        ids.append(piece.request_id)
        size += len(body) + 1
    if bodies:
        yield Parcel(bodies, ids)


class Uploader:
    """Sends requests for callers who wait; a rate limit holds all of them back."""

    def __init__(
        self,
        config: MParticleConfig,
        endpoint: MParticleEndpoint,
        transport: Transport,
        *,
        clock: Clock,
        rng: random.Random,
        observers: Observers,
    ) -> None:
        self._config = config
        self._endpoint = endpoint
        self._out = Post(
            transport,
            timeout=config.connection_timeout,
            compress=endpoint.compress,
            observers=observers,
            clock=clock,
        )
        reaches_network = isinstance(transport, AiohttpTransport)
        self._watched = Gate(endpoint.base_url, reaches_network=reaches_network)
        self._clock = clock
        self._rng = rng
        self._closed_until: float | None = None
        self._ending = False
        self.rebind()

    def rebind(self) -> None:
        """Make everything that belongs to one event loop."""
        self._gate = asyncio.Lock()
        self._sleepers: set[asyncio.Event] = set()
        self._active = 0
        self._idle = asyncio.Event()

    # Uploads -----------------------------------------------------------------

    async def upload_all(
        self, path: str, pieces: Sequence[Piece], *, bisect: bool
    ) -> list[UploadResult]:
        """Send batches in as few requests as the limits allow, one after another.

        Once the server refuses key or secret, the rest is not sent: it would be told
        the same.
        """
        results: list[UploadResult] = []
        refused: UploadResult | None = None
        # A stack with the first on top: halves go before what follows them.
        waiting = list(pack(pieces))[::-1]
        while waiting:
            parcel = waiting.pop()
            if refused is not None:
                result = replace(refused, attempts=0, source_request_ids=parcel.ids)
                results.append(result)
                continue
            result = await self.upload(path, parcel, bulk=True)
            at_fault = result.status == 413 or (bisect and result.status == 400)
            if at_fault and len(parcel.bodies) > 1:
                left, right = parcel.halve()
                waiting += [right, left]
                continue
            results.append(result)
            if result.status in {401, 403}:
                refused = result
        return results

    async def upload(self, path: str, parcel: Parcel, *, bulk: bool) -> UploadResult:
        """Send one request until it succeeds, is refused or the retries are spent."""
        if INTERCEPTION.active:
            result = self._intercepted(parcel)
            if result is not None:
                return result
        body = Body(b"[%b]" % b",".join(parcel.bodies) if bulk else parcel.bodies[0])
        self._active += 1
        try:
            return await self._persist(path, body, parcel.ids)
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    def _intercepted(self, parcel: Parcel) -> UploadResult | None:
        """Say what becomes of batches in a test; None: they are sent."""
        if INTERCEPTION.capturing:
            return _captured(parcel)
        verdict = None
        for body, request_id in zip(parcel.bodies, parcel.ids, strict=True):
            record = Record(0, body, "", None, None, request_id, 0.0)
            verdict = self._watched.verdict_on(record)
        return None if verdict is None else _kept_here(parcel, verdict)

    async def _persist(
        self, path: str, body: bytes, ids: tuple[str, ...]
    ) -> UploadResult:
        result = UploadResult(
            ok=False, status=0, message=_CLOSED, attempts=0, source_request_ids=ids
        )
        while True:
            response = await self._send(path, body)
            if response is None:
                return result
            attempts = result.attempts + 1
            result = self._result(response, attempts, ids)
            # What may pass by itself; 0 is no answer at all.
            temporary = result.status in {0, 408, 429} or result.status >= 500
            if not temporary or attempts > self._config.flush_max_retries:
                return result
            pause = max(self._backoff(attempts), result.retry_after or 0.0)
            # A 429 is about every request of this input, a failure about this one.
            if result.status == 429:
                self._close_for(pause)
            else:
                await self._sleep(pause)

    async def _send(self, path: str, body: bytes) -> Response | None:
        """Post a body when the rate limit allows it; None once the client closes."""
        if self._closed_until is None:
            return None if self._ending else await self._post(path, body)
        async with self._gate:
            # One at a time after a 429, so that one request goes first.
            while self._closed_until is not None and not self._ending:
                left = self._closed_until - self._clock.now()
                if left <= 0:
                    break
                await self._sleep(left)
            if self._ending:
                return None
            response = await self._post(path, body)
            if 200 <= response.status < 300:
                self._closed_until = None
            return response

    async def _post(self, path: str, body: bytes) -> Response:
        url = f"{self._endpoint.base_url}{path}"
        response, _ = await self._out.send(url, body, self._endpoint.headers)
        while response.error == HELD_BACK and not self._ending:
            # Begun before somebody captures events: it goes on afterwards.
            over = asyncio.Event()
            if INTERCEPTION.holds_back(over.set):
                await self._woken(over)
            response, _ = await self._out.send(url, body, self._endpoint.headers)
        return response

    def _close_for(self, seconds: float) -> None:
        until = self._clock.now() + seconds
        # Never sooner than another answer has asked for.
        self._closed_until = max(self._closed_until or until, until)

    def _backoff(self, attempt: int) -> float:
        ceiling = self._config.backoff_ceiling(attempt)
        return self._rng.uniform(ceiling * JITTER_FLOOR, ceiling)

    async def _sleep(self, seconds: float) -> None:
        """Wait, at most until the client closes."""
        if self._ending:
            return
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await self._woken(over)
        finally:
            timer.cancel()

    async def _woken(self, over: asyncio.Event) -> None:
        """Wait for something, at most until the client closes."""
        self._sleepers.add(over)
        try:
            await over.wait()
        finally:
            self._sleepers.discard(over)

    def _result(
        self, response: Response, attempts: int, ids: tuple[str, ...]
    ) -> UploadResult:
        ok = 200 <= response.status < 300
        errors = parse_errors(response.body)
        headers = response.headers
        reason = f"HTTP {response.status}: {tell(errors)}" if errors else ""
        return UploadResult(
            ok=ok,
            # An answer that broke off in the middle is none.
            status=response.status if response.error is None or ok else 0,
            message=_QUEUED if ok else reason or describe_failure(response),
            attempts=attempts,
            errors=errors,
            rate_limit_percentage=_number(headers.get(PERCENTAGE_HEADER)),
            retry_after=retry_after(headers, self._clock.wall(), MAX_RETRY_AFTER),
            scope=headers.get(SCOPE_HEADER, "").strip(' "') or None,
            source_request_ids=ids,
        )

    # Closing -----------------------------------------------------------------

    async def close(self, timeout: float | None) -> None:
        """Let requests in flight end, until the deadline; nothing is tried again.

        Callers who wait for their turn or for a retry get their result at once.
        """
        self._ending = True
        for sleeper in self._sleepers:
            sleeper.set()
        if not self._active:
            return
        idle = self._idle
        idle.clear()
        timer = None
        if timeout is not None:
            timer = self._clock.call_later(timeout, idle.set)
        try:
            await idle.wait()
        finally:
            if timer is not None:
                timer.cancel()


def _captured(parcel: Parcel) -> UploadResult:
    """Hand batches to a test, which takes them in the network's place."""
    for body, request_id in zip(parcel.bodies, parcel.ids, strict=True):
        INTERCEPTION.tell("mparticle", body, insert_id=request_id, outcome=CAPTURED)
    return UploadResult(
        ok=True,
        status=202,
        message=CAPTURED.message,
        attempts=1,
        source_request_ids=parcel.ids,
    )


def _kept_here(parcel: Parcel, verdict: Outcome) -> UploadResult:
    """Fail at once: trying again would change nothing."""
    return UploadResult(
        ok=False,
        status=0,
        message=verdict.message,
        attempts=0,
        source_request_ids=parcel.ids,
    )


# For a person who watches ----------------------------------------------------


@contextmanager
def telling_refusals(observers: Observers, batch: Batch) -> Iterator[None]:
    """Tell who watches of a batch that is refused inside."""
    try:
        yield
    except BatchError as error:
        observers.tell([batch], Outcome.rejected(str(error)))
        raise


def told_unsent(
    observers: Observers, result: UploadResult, pieces: Sequence[Piece]
) -> UploadResult:
    """Tell who watches of batches that no server answered; return the result."""
    if not result.ok and not (result.status and result.attempts):
        own = frozenset(result.source_request_ids)
        gone = [one.source for one in pieces if not own or one.request_id in own]
        observers.tell(gone, _end_of(result))
    return result


def _end_of(result: UploadResult) -> Outcome:
    """Say what became of batches that were not sent, as of those in the queue."""
    if result.status:
        return Outcome.rejected(result.message)
    attempted = DropReason.RETRIES if result.attempts else DropReason.CLOSED
    reason = DropReason.OPT_OUT if result is OPTED_OUT else attempted
    return Outcome.dropped(reason, result.message)


_QUEUED = "queued by mParticle"
_CLOSED = "the client was shut down before it was sent"


def _number(text: str | None) -> float | None:
    try:
        number = float((text or "").strip(' "'))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
