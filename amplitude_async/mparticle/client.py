"""The mParticle client: direct uploads with a result, and a queue that delivers."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self, Unpack

import aiohttp
from pydantic import ValidationError

from amplitude_async.client.base import BaseClient
from amplitude_async.client.destination import EngineDestination, Refusal
from amplitude_async.config import merge_config, read_environment, sealed
from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.exceptions import (
    ClientClosedError,
    ConfigurationError,
    QueueFullError,
)
from amplitude_async.mparticle.config import (
    MParticleConfig,
    MParticleConfigFields,
    MParticleFields,
)
from amplitude_async.mparticle.door import MParticleDoor, Piece, check_historical
from amplitude_async.mparticle.endpoint import MAX_BATCH_BYTES, MParticleEndpoint
from amplitude_async.mparticle.exceptions import (
    BatchError,
    MParticleClosedError,
    error_of,
)
from amplitude_async.mparticle.models.batch import Batch
from amplitude_async.mparticle.models.enums import Pod
from amplitude_async.mparticle.result import UploadResult
from amplitude_async.mparticle.upload import (
    OPTED_OUT,
    Uploader,
    pack,
    telling_refusals,
    told_unsent,
)
from amplitude_async.redaction import masked_url, seal
from amplitude_async.storage.base import Record

__all__ = ["MParticle"]

# Of the shutdown's deadline, for direct uploads in flight: the queue needs the rest.
_DIRECT_SHARE: Final = 0.5


class MParticle(BaseClient):
    """Sends batches to the mParticle Events API from asyncio services.

    ``upload`` and its kin send now and give the result in hand; ``send`` queues a batch
    on the delivery engine, with flush, shutdown, callback, stats and storage.

    Args:
        api_key: key of the input.
        api_secret: secret of the input.
        environment: what ``MParticleDestination`` puts into its batches: development or
            production. A batch of your own names its environment itself.
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
    _door: MParticleDoor
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
        # No local variable may hold a key in plain: see `redaction`.
        api_key, api_secret = seal(api_key), seal(api_secret)
        base_url = masked_url(base_url) if isinstance(base_url, str) else base_url
        given = sealed(MParticleConfig, options)
        del options
        named = {
            "api_key": api_key,
            "api_secret": api_secret,
            "environment": environment,
            "pod": pod,
            "base_url": base_url,
        }
        given |= {k: v for k, v in named.items() if v is not None}
        merged = merge_config(MParticleConfig, config, given).handing_over
        endpoint = MParticleEndpoint(merged)
        reporter = Reporter(merged.logger, LoopClock(), endpoint.name, merged.redactor)
        door = MParticleDoor(merged, reporter)
        super().__init__(merged, endpoint, door, session=session)
        self._uploader = Uploader(
            merged,
            endpoint,
            self._transport,
            clock=self._clock,
            rng=random.Random(),
            observers=self._own.observers,
        )

    @property
    def config(self) -> MParticleConfig:
        """The frozen configuration."""
        return self._config

    @classmethod
    def from_env(
        cls,
        *,
        session: aiohttp.ClientSession | None = None,
        **options: Unpack[MParticleFields],
    ) -> Self:
        """Read ``MPARTICLE_API_KEY``, ``MPARTICLE_API_SECRET`` and further options.

        Each field of ``MParticleConfig`` has its variable, for example
        ``MPARTICLE_ENVIRONMENT`` and ``MPARTICLE_POD``; ``options`` win over them.

        Raises:
            ConfigurationError: a variable or option is wrong.
        """
        found = read_environment(MParticleConfig, "MPARTICLE_")
        found |= sealed(MParticleConfig, options)
        del options
        return cls(config=MParticleConfig(**found), session=session)

    # Direct uploads ----------------------------------------------------------

    async def upload(self, batch: Batch) -> UploadResult:
        """Send one batch now, with retries.

        Raises:
            TypeError: it is no Batch.
            BatchError: the batch breaks a rule; nothing was sent.
            AuthError: the server refuses key or secret.
            BadRequestError: the server refuses the content.
            PayloadTooLargeError: the batch is too large for the server.
            RetryExhaustedError: no success within ``flush_max_retries``.
            MParticleClosedError: the client was shut down.
        """
        with telling_refusals(self._own.observers, batch):
            pieces = self._prepare(batch)
            # One result cannot tell of two requests of which one may fail.
            if len(pieces) > 1:
                raise BatchError(_TOO_LARGE)
        await self._open()
        if self._opt_out:
            return told_unsent(self._own.observers, OPTED_OUT, pieces)
        [parcel] = pack(pieces)
        result = await self._uploader.upload("/events", parcel, bulk=False)
        error = error_of(told_unsent(self._own.observers, result, pieces))
        if error is not None:
            raise error
        return result

    async def upload_many(
        self, batches: Iterable[Batch], *, bisect: bool = False
    ) -> list[UploadResult]:
        """Send batches now, in as few requests as the limits allow.

        A request that fails does not stop the others, unless the server refuses key or
        secret: look at each result.

        Args:
            batches: usually of different users; order is kept.
            bisect: after a 400 send the halves apart, to find the batch at fault.

        Returns:
            One result per request, in order.

        Raises:
            TypeError: one of them is no Batch.
            BatchError: a batch breaks a rule; nothing was sent.
            MParticleClosedError: the client was shut down.
        """
        given = _several(batches, "upload_many")
        pieces = [piece for batch in given for piece in self._pack(batch)]
        return await self._upload_all("/bulkevents", pieces, bisect=bisect)

    async def upload_historical(self, batches: Iterable[Batch]) -> list[UploadResult]:
        """Send events that are at least 72 hours old.

        The server throws bad batches away without a word, so that its three rules are
        checked here first.

        Raises:
            TypeError: one of them is no Batch.
            BatchError: a batch has no events, an event has no time, or one is too
                young; nothing was sent.
            MParticleClosedError: the client was shut down.
        """
        # All are checked before any is sent: the server would not say which it dropped.
        given = _several(batches, "upload_historical")
        for number, batch in enumerate(given):
            _check_kind(batch)
            with telling_refusals(self._own.observers, batch):
                check_historical(batch, number, self._clock.wall())
        pieces = [piece for one in given for piece in self._pack(one, old=True)]
        return await self._upload_all("/bulkevents/historical", pieces, bisect=False)

    async def _upload_all(
        self, path: str, pieces: Sequence[Piece], *, bisect: bool
    ) -> list[UploadResult]:
        await self._open()
        results = [OPTED_OUT] if pieces else []
        if not self._opt_out:
            results = await self._uploader.upload_all(path, pieces, bisect=bisect)
        return [told_unsent(self._own.observers, one, pieces) for one in results]

    async def _open(self) -> None:
        if self._is_ending:
            msg = "this client was shut down: construct a new one"
            raise MParticleClosedError(msg)
        if not self._opt_out and not INTERCEPTION.capturing:
            _check_uploads(self._config)
        await self._ready()

    def _prepare(self, batch: Batch, *, old: bool = False) -> list[Piece]:
        _check_kind(batch)
        return self._door.prepare(batch, self._clock.wall(), old=old)

    def _pack(self, batch: Batch, *, old: bool = False) -> list[Piece]:
        with telling_refusals(self._own.observers, batch):
            return self._prepare(batch, old=old)

    # The queue ---------------------------------------------------------------

    async def send(self, batch: Batch, *, via: Any = None) -> Delivery:
        """Queue a batch on the delivery engine.

        A batch larger than the API takes is split by its events, and each part is
        accounted for; the handle tells the first bad result, or that all is well.

        Args:
            via: with ``handover``, a connection to the log's own database: the batch
                commits with the caller's transaction, or not at all.

        Raises:
            TypeError: it is no Batch.
            QueueFullError: no room, and the policy is Overflow.RAISE.
            BatchError: the batch breaks a rule, and the configuration is strict.
            ConfigurationError, LogError: ``via`` a connection; see `Amplitude.track`.
        """
        since = self._clock.now()
        if self._in_one_go <= 0:
            await self._give_turn()
        self._in_one_go -= 1
        try:
            pieces = self._prepare(batch)
        except BatchError as error:
            if self._config.strict:
                raise
            return await self._submit_settled(batch, Outcome.rejected(str(error)))
        deliveries = [await self._enqueue(pieces[0], via)]
        for piece in pieces[1:]:
            try:
                deliveries.append(await self._enqueue(piece, via))
            except QueueFullError as error:
                # Its first part is on its way: the verb must not raise any more.
                full = Outcome.dropped(DropReason.OVERFLOW, str(error))
                deliveries.append(await self._end(piece, full))
        if any(delivery.at_door for delivery in deliveries):
            self._in_one_go = 0
        whole = self._own.combine(deliveries)
        await self._confirm(whole, since)
        return whole

    async def _enqueue(self, piece: Piece, via: Any) -> Delivery:
        if via is None and (delivery := self._offer_encoded(piece)) is not None:
            return delivery
        if not self._is_ending:
            await self._ready()
        if self._roster.is_bare:
            return await self._submit(piece, via=via)  # encoded already
        try:
            batch = piece.to_batch()
        except ValidationError as error:
            return await self._submit_settled(piece, _unsendable(error))
        return await self._submit(batch, via=via)

    def _offer_encoded(self, piece: Piece) -> Delivery | None:
        """Take the short road; None where the long one is needed."""
        own = self._fast
        if own is None or asyncio.get_running_loop() is not self._home.loop:
            return None
        record = self._door.seal(piece, own.next_id, self._clock.wall())
        return own.offer_record(record)

    def _settle(
        self, event: Batch | Piece, outcome: Outcome, *, must_tell: bool = False
    ) -> Delivery:
        source = event.source if isinstance(event, Piece) else event
        return super()._settle(source, outcome, must_tell=must_tell)

    @property
    def _has_key(self) -> bool:
        return self._config.api_key is not None or self._config.handover is not None

    def _moved_in(self) -> None:
        self._uploader.rebind()

    async def _shut_down(self, timeout: float | None) -> None:
        began = self._clock.now()
        share = None if timeout is None else timeout * _DIRECT_SHARE
        await self._uploader.close(share)
        if timeout is not None:
            timeout -= self._clock.now() - began
        await super()._shut_down(timeout)

    @property
    def queue(self) -> EngineDestination:
        """The queue behind ``send``, for destinations that feed this client."""
        return self._own

    @property
    def clock(self) -> Clock:
        """Where this client takes its time from."""
        return self._clock

    @property
    def stopped(self) -> Outcome | None:
        """Why no batch is taken any more, or None."""
        try:
            return self._stopped()
        except ClientClosedError as error:
            return Outcome.dropped(DropReason.CLOSED, str(error))

    def admit(self, batch: Batch, record_id: int, wall: float) -> Record | Refusal:
        """Complete, check and encode a batch."""
        try:
            [piece, *more] = self._door.prepare(batch, wall)
        except BatchError as error:
            return Refusal(str(error))
        if more:
            return Refusal(_TOO_LARGE)
        return self._door.seal(piece, record_id, wall)


def _unsendable(error: ValidationError) -> Outcome:
    return Outcome.rejected(f"the batch cannot be sent: {error!s:.300}")


def _check_uploads(config: MParticleConfig) -> None:
    """Raises ConfigurationError where there is nothing to upload with."""
    if config.handover is not None:
        msg = "a client that hands over uploads nothing itself: use send(batch)"
        raise ConfigurationError(msg)
    if config.api_key is None:
        msg = "this client was made without a key inside capture(): make another"
        raise ConfigurationError(msg)


def _check_kind(batch: object) -> None:
    if not isinstance(batch, Batch):
        # Not the value: a dict of a batch could hold a key.
        remedy = ""
        if isinstance(batch, Mapping):
            remedy = ", read by Batch.model_validate"
        elif isinstance(batch, (list, tuple)):
            remedy = ", and upload_many takes several"
        msg = f"batch is a {type(batch).__name__}: it must be a Batch{remedy}"
        raise TypeError(msg)


def _several(batches: Iterable[Batch], verb: str) -> list[Batch]:
    # One batch can be iterated over too, field by field.
    if isinstance(batches, (Batch, Mapping)):
        msg = f"{verb} takes several batches: pass a list, {verb}([batch])"
        raise TypeError(msg)
    return list(batches)


_TOO_LARGE: Final = (
    f"the batch is larger than {MAX_BATCH_BYTES} bytes: upload_many and send split it "
    "by its events"
)
