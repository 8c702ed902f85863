"""The mParticle client: direct uploads with a result, and a queue that delivers."""

import random
import time
from collections.abc import Iterable, Sequence
from typing import Literal, Self, Unpack
from uuid import uuid4

import aiohttp

from amplitude_async.client import BaseClient
from amplitude_async.config import merge_config, read_environment
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.handle import CombinedDelivery, Delivery
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.destination import Refusal
from amplitude_async.exceptions import ClientClosedError
from amplitude_async.mparticle.batch import Batch, encode_batch, events_of, stamp
from amplitude_async.mparticle.config import MParticleConfig, MParticleConfigFields
from amplitude_async.mparticle.context import BatchContext
from amplitude_async.mparticle.door import MParticleDoor, identity_of
from amplitude_async.mparticle.endpoint import MAX_BATCH_BYTES, MParticleEndpoint
from amplitude_async.mparticle.enums import Pod
from amplitude_async.mparticle.exceptions import BatchError, error_of
from amplitude_async.mparticle.limits import check_limits, truncate_names
from amplitude_async.mparticle.packing import split_batch
from amplitude_async.mparticle.result import UploadResult
from amplitude_async.mparticle.upload import Uploader, pack
from amplitude_async.storage.base import Record

__all__ = ["MParticle"]

DAY_MS = 86_400_000
# mParticle HTTP API documentation, "Historical data": younger events are thrown away.
HISTORICAL_MIN_AGE_MS = 72 * 3_600_000
OLD_EVENT_MS = 30 * DAY_MS


class MParticle(BaseClient):
    """Sends batches to the mParticle Events API from asyncio services.

    ``upload`` and its kin send now and give the result in hand; ``send`` queues a batch
    on the delivery engine, with flush, shutdown, callback, stats and storage.

    Args:
        api_key: key of the input.
        api_secret: secret of the input.
        environment: filled into batches that have none: development or production.
        pod: data centre of the workspace; the key's own prefix by default.
        base_url: address before "/events"; wins over ``pod``.
        config: options in one object; the other arguments override it.
        session: an ``aiohttp.ClientSession`` to use instead of an own one.
        options: fields of ``MParticleConfig``.

    Raises:
        ConfigurationError: an option is wrong; field, value and remedy are named.
    """

    event_type = Batch
    _config: MParticleConfig
    _endpoint: MParticleEndpoint

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        *,
        environment: Literal["development", "production"] | None = None,
        pod: Pod | str | None = None,
        base_url: str | None = None,
        config: MParticleConfig | None = None,
        session: aiohttp.ClientSession | None = None,
        **options: Unpack[MParticleConfigFields],
    ) -> None:
        named = {
            "api_key": api_key,
            "api_secret": api_secret,
            "environment": environment,
            "pod": pod,
            "base_url": base_url,
        }
        given = {k: v for k, v in named.items() if v is not None}
        merged = merge_config(MParticleConfig, config, {**options, **given})
        endpoint = MParticleEndpoint(merged)
        reporter = Reporter(merged.logger, LoopClock(), endpoint.name)
        super().__init__(merged, endpoint, MParticleDoor(reporter), session=session)
        self._uploader = Uploader(
            merged,
            endpoint,
            self._transport,
            clock=self._clock,
            rng=random.Random(),
        )

    @property
    def config(self) -> MParticleConfig:
        """The frozen configuration."""
        return self._config

    @classmethod
    def from_env(cls, **options: Unpack[MParticleConfigFields]) -> Self:
        """Read ``MPARTICLE_API_KEY`` and the other ``MPARTICLE_*`` options.

        Raises:
            ConfigurationError: a variable or option is wrong.
        """
        found = read_environment(MParticleConfig, "MPARTICLE_")
        return cls(config=MParticleConfig(**{**found, **options}))

    # Direct uploads ----------------------------------------------------------

    async def upload(self, batch: Batch) -> UploadResult:
        """Send one batch now, with retries.

        Raises:
            BatchError: the batch breaks a rule; nothing was sent.
            AuthError: the server refuses key or secret.
            BadRequestError: the server refuses the content.
            PayloadTooLargeError: the batch is too large for the server.
            RetryExhaustedError: no success within ``flush_max_retries``.
            ClientClosedError: the client was shut down.
        """
        [piece, *more] = self._prepare(batch, now_ms=_now_ms())
        if more:
            msg = (
                f"the batch is larger than {MAX_BATCH_BYTES} bytes: use upload_many, "
                "which splits it by events"
            )
            raise BatchError(msg)
        await self._open()
        if self._opt_out:
            return _OPTED_OUT
        [parcel] = pack([piece])
        result = await self._uploader.upload("/events", parcel, bulk=False)
        error = error_of(result)
        if error is not None:
            raise error
        return result

    async def upload_many(
        self, batches: Iterable[Batch], *, bisect: bool = False
    ) -> list[UploadResult]:
        """Send batches now, in as few requests as the limits allow.

        A request that fails does not stop the others: look at each result.

        Args:
            batches: usually of different users; order is kept.
            bisect: after a 400 send the halves apart, to find the batch at fault.

        Returns:
            One result per request, in order.

        Raises:
            BatchError: a batch breaks a rule; nothing was sent.
            ClientClosedError: the client was shut down.
        """
        now_ms = _now_ms()
        pieces = [p for batch in batches for p in self._prepare(batch, now_ms=now_ms)]
        return await self._upload_all("/bulkevents", pieces, bisect=bisect)

    async def upload_historical(self, batches: Iterable[Batch]) -> list[UploadResult]:
        """Send events that are at least 72 hours old.

        The server throws bad batches away without a word, so that its three rules are
        checked here first.

        Raises:
            BatchError: a batch has no events, an event has no time, or one is too
                young; nothing was sent.
            ClientClosedError: the client was shut down.
        """
        now_ms = _now_ms()
        given = list(batches)
        for number, batch in enumerate(given):
            _check_historical(batch, number, now_ms)
        pieces = [p for b in given for p in self._prepare(b, now_ms=now_ms, old=True)]
        return await self._upload_all("/bulkevents/historical", pieces, bisect=False)

    async def _upload_all(
        self, path: str, pieces: Sequence[Batch], *, bisect: bool
    ) -> list[UploadResult]:
        await self._open()
        if self._opt_out:
            return [_OPTED_OUT] if pieces else []
        results: list[UploadResult] = []
        waiting = list(pack(pieces))[::-1]
        while waiting:
            parcel = waiting.pop()
            result = await self._uploader.upload(path, parcel, bulk=True)
            split = result.status == 413 or (bisect and result.status == 400)
            if split and len(parcel.bodies) > 1:
                left, right = parcel.halves()
                waiting += [right, left]
            else:
                results.append(result)
        return results

    async def _open(self) -> None:
        if self._closing:
            msg = "this client was shut down: construct a new one"
            raise ClientClosedError(msg)
        await self._ready()

    # The queue ---------------------------------------------------------------

    async def send(self, batch: Batch) -> Delivery:
        """Queue a batch on the delivery engine.

        A batch larger than the API takes is split by its events; the handle then tells
        the first bad result, or that all is well.

        Raises:
            TypeError: it is no Batch.
            QueueFullError: no room, and the policy is Overflow.RAISE.
        """
        if not isinstance(batch, Batch):
            msg = f"batch={batch!r:.80} must be a Batch"
            raise TypeError(msg)
        try:
            pieces = self._prepare(batch, now_ms=_now_ms())
        except BatchError as error:
            if self._config.strict:
                raise
            return await self._submit_settled(batch, Outcome.rejected(str(error)))
        deliveries = [
            self._offer(piece) or await self._submit(piece) for piece in pieces
        ]
        if len(deliveries) == 1:
            return deliveries[0]
        return CombinedDelivery(self._own.engine, deliveries)

    # Completing and checking -------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine behind ``send``: for destinations that feed this client."""
        return self._own.engine

    def admit(self, batch: Batch, record_id: int, wall: float) -> Record | Refusal:
        """Complete, check and encode a batch of a destination that feeds us."""
        try:
            [piece, *more] = self._prepare(batch, now_ms=int(wall * 1000))
        except BatchError as error:
            return Refusal(str(error))
        if more:
            return Refusal(f"the batch is larger than {MAX_BATCH_BYTES} bytes")
        return self._door.admit(piece, record_id, wall)

    def _prepare(self, batch: Batch, *, now_ms: int, old: bool = False) -> list[Batch]:
        """Fill in what is absent, check the rules and split what is too large.

        Raises:
            BatchError: the batch breaks a rule.
        """
        config = self._config
        batch = stamp(batch, now_ms=now_ms, new_id=_new_id)
        if config.data_plan is not None and (
            batch.context is None or batch.context.data_plan is None
        ):
            context = batch.context or BatchContext()
            context = context.model_copy(update={"data_plan": config.data_plan})
            batch = batch.model_copy(update={"context": context})
        if config.limits == "truncate":
            batch = truncate_names(batch)
        problems = check_limits(batch, config.limits)
        if problems and config.limits == "error":
            raise BatchError("; ".join(problems))
        if identity_of(batch) is None:
            problem = "the batch names no user and no device: it reaches no profile"
            if config.strict:
                raise BatchError(problem)
            self._reporter.warning("identity", "%s", problem)
        if not old:
            self._warn_of_age(batch, now_ms)
        if len(encode_batch(batch)) <= MAX_BATCH_BYTES:
            return [batch]
        try:
            return split_batch(batch, MAX_BATCH_BYTES)
        except ValueError as error:
            raise BatchError(str(error)) from error

    def _warn_of_age(self, batch: Batch, now_ms: int) -> None:
        for event in events_of(batch):
            time_ms: int | None = getattr(event, "timestamp_unixtime_ms", None)
            if time_ms is not None and now_ms - time_ms > OLD_EVENT_MS:
                self._reporter.warning(
                    "age", "an event is older than 30 days: use upload_historical"
                )
                return


def _check_historical(batch: Batch, number: int, now_ms: int) -> None:
    if not batch.events:
        msg = f"batch {number} has no events: historical batches need at least one"
        raise BatchError(msg)
    for index, event in enumerate(events_of(batch)):
        time_ms: int | None = getattr(event, "timestamp_unixtime_ms", None)
        if time_ms is None:
            msg = (
                f"event {index} of batch {number} has no timestamp_unixtime_ms: set it"
            )
            raise BatchError(msg)
        if now_ms - time_ms < HISTORICAL_MIN_AGE_MS:
            msg = (
                f"event {index} of batch {number} is younger than 72 hours: "
                "use upload_many"
            )
            raise BatchError(msg)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_id() -> str:
    return str(uuid4())


_OPTED_OUT = UploadResult(ok=False, status=0, message="opt_out is set", attempts=0)
