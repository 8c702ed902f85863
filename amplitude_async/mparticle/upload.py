"""Direct uploads: a result in hand, with retries and one limiter per client."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.endpoint import Response, describe_failure, retry_after
from amplitude_async.delivery.health import JITTER_FLOOR
from amplitude_async.delivery.transport import Transport
from amplitude_async.mparticle.batch import Batch, encode_batch
from amplitude_async.mparticle.config import MParticleConfig
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
from amplitude_async.mparticle.result import UploadResult

__all__ = ["Parcel", "Uploader", "pack"]


class Parcel:
    """The encoded batches of one request."""

    __slots__ = ("bodies", "ids")

    def __init__(self, bodies: Sequence[bytes], ids: Sequence[str]) -> None:
        self.bodies = bodies
        self.ids = tuple(ids)

    def halves(self) -> "tuple[Parcel, Parcel]":
        """Cut in two, in order."""
        middle = (len(self.bodies) + 1) // 2
        return (
            Parcel(self.bodies[:middle], self.ids[:middle]),
            Parcel(self.bodies[middle:], self.ids[middle:]),
        )


def pack(batches: Sequence[Batch]) -> Iterator[Parcel]:
    """Pack batches in order into requests within the API's limits."""
    bodies: list[bytes] = []
    ids: list[str] = []
    size = 2
    for batch in batches:
        body = encode_batch(batch)
        full = size + len(body) + 1 > MAX_REQUEST_BYTES or len(bodies) == MAX_BATCHES
        if bodies and full:
            yield Parcel(bodies, ids)
            bodies, ids, size = [], [], 2
        bodies.append(body)
        ids.append(batch.source_request_id or "")
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
    ) -> None:
        self._config = config
        self._endpoint = endpoint
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._closed_until: float | None = None
        self._gate = asyncio.Lock()

    async def upload(self, path: str, parcel: Parcel, *, bulk: bool) -> UploadResult:
        """Send one request until it succeeds, is refused or the retries are spent."""
        body = b"[%b]" % b",".join(parcel.bodies) if bulk else parcel.bodies[0]
        attempt = 0
        while True:
            attempt += 1
            response = await self._send(path, body)
            result = self._result(response, attempt, parcel.ids)
            temporary = result.status in {0, 408, 429} or result.status >= 500
            if not temporary or attempt > self._config.flush_max_retries:
                return result
            pause = max(self._backoff(attempt), result.retry_after or 0.0)
            if result.status == 429:
                self._close_for(pause)
            else:
                await self._sleep(pause)

    async def _send(self, path: str, body: bytes) -> Response:
        if self._closed_until is None:
            return await self._post(path, body)
        async with self._gate:
            # One at a time after a 429, so that one request goes first.
            while self._closed_until is not None:
                left = self._closed_until - self._clock.now()
                if left <= 0:
                    break
                await self._sleep(left)
            response = await self._post(path, body)
            if 200 <= response.status < 300:
                self._closed_until = None
            return response

    async def _post(self, path: str, body: bytes) -> Response:
        return await self._transport.send(
            f"{self._endpoint.base_url}{path}",
            body,
            self._endpoint.headers,
            self._config.connection_timeout,
        )

    def _close_for(self, seconds: float) -> None:
        until = self._clock.now() + seconds
        self._closed_until = max(self._closed_until or until, until)

    def _backoff(self, attempt: int) -> float:
        ceiling = self._config.backoff_ceiling(attempt)
        return self._rng.uniform(ceiling * JITTER_FLOOR, ceiling)

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _result(
        self, response: Response, attempt: int, ids: tuple[str, ...]
    ) -> UploadResult:
        ok = 200 <= response.status < 300
        errors = parse_errors(response.body)
        headers = response.headers
        reason = f"HTTP {response.status}: {tell(errors)}" if errors else ""
        scope = headers.get(SCOPE_HEADER, "").strip(' "') or None
        result = UploadResult(
            ok=ok,
            status=response.status if response.error is None or ok else 0,
            message="queued by mParticle"
            if ok
            else reason or describe_failure(response),
            attempts=attempt,
            errors=errors,
            rate_limit_percentage=_number(headers.get(PERCENTAGE_HEADER)),
            scope=scope,
            source_request_ids=ids,
        )
        wait = retry_after(headers, self._clock.wall(), MAX_RETRY_AFTER)
        return replace(result, retry_after=wait)


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").strip(' "'))
    except ValueError:
        return None
