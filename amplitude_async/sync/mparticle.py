"""MParticle without await."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self, Unpack

from amplitude_async.config import sealed
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryResult, Outcome
from amplitude_async.mparticle.client import MParticle
from amplitude_async.mparticle.config import (
    MParticleConfig,
    MParticleConfigFields,
    MParticleFields,
)
from amplitude_async.mparticle.door import Piece
from amplitude_async.mparticle.exceptions import BatchError
from amplitude_async.mparticle.models.batch import Batch
from amplitude_async.mparticle.models.enums import Pod
from amplitude_async.mparticle.result import UploadResult
from amplitude_async.redaction import masked_url, seal
from amplitude_async.sync.base import SyncClient
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.loop import refuse_on_loop
from amplitude_async.sync.seat import SeatedClient

__all__ = ["SyncMParticle"]


class _Pieces(NamedTuple):
    """A batch that was encoded on the caller's thread."""

    batch: Batch
    insert_id: str
    pieces: list[Piece]
    size: int


class _Rejected(NamedTuple):
    """A batch that breaks a rule."""

    batch: Batch
    insert_id: str
    outcome: Outcome
    size: int = 0


_Cargo = _Pieces | _Rejected


class _MParticleSeat(SeatedClient, MParticle):
    """The asyncio client behind the hatch."""

    # On the caller's thread --------------------------------------------------

    def cargo_of(self, batch: Batch) -> _Cargo:
        """Encode a batch.

        Raises:
            TypeError: it is no Batch.
            BatchError: the batch breaks a rule, and the configuration is strict.
        """
        try:
            pieces = self._prepare(batch)
        except BatchError as error:
            if self._config.strict:
                raise
            insert_id = self._door.insert_id(batch)
            batch = batch.model_copy(update={"source_request_id": insert_id})
            return _Rejected(batch, insert_id, Outcome.rejected(str(error)))
        size = sum(len(piece.body) for piece in pieces)
        return _Pieces(batch, pieces[0].request_id, pieces, size)

    # On the loop's thread ----------------------------------------------------

    def _prepare(self, batch: Any, *, old: bool = False) -> list[Piece]:
        # `send` is given what was prepared where it was called.
        if isinstance(batch, _Pieces):
            return batch.pieces
        return super()._prepare(batch, old=old)

    def offer(self, cargo: _Cargo) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""
        if isinstance(cargo, _Rejected) or len(cargo.pieces) > 1:
            return None
        return self._offer_encoded(cargo.pieces[0])

    async def accept(self, cargo: _Cargo) -> Delivery:
        """Accept, waiting for room, plugins or storage."""
        if isinstance(cargo, _Rejected):
            return await self._submit_settled(cargo.batch, cargo.outcome)
        prepared: Any = cargo
        return await self.send(prepared)

    async def give_up(self, cargo: _Cargo, outcome: Outcome) -> Delivery:
        """Settle a batch at once."""
        return await self._end(cargo.batch, outcome)

    def result_of(
        self, cargo: _Cargo, insert_id: str, outcome: Outcome
    ) -> DeliveryResult:
        """Make the result of a batch that this process does not have."""
        return DeliveryResult(
            outcome,
            cargo.batch,
            insert_id=insert_id,
            destination=self._own.name,
            decode=self._endpoint.decode,
        )

    def lane_of(self, cargo: _Cargo) -> str | None:
        """Keep the order of each user's batches where plugins take their time."""
        if self._roster.is_bare or isinstance(cargo, _Rejected):
            return None
        return cargo.batch.identity or ""


class SyncMParticle(SyncClient[_MParticleSeat]):
    """Sends batches to the mParticle Events API from threads and scripts.

    ``upload`` and its kin send now and give the result in hand; ``send`` hands a batch
    to the loop's thread and returns.

    Args:
        api_key: key of the input.
        api_secret: secret of the input.
        environment: as for ``MParticle``.
        pod: data centre of the workspace; the key's own prefix by default.
        base_url: address before "/events"; wins over ``pod``.
        config: options in one object; the other arguments override it.
        options: fields of ``MParticleConfig``.

    Raises:
        ConfigurationError: an option is wrong; field, value and remedy are named.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        *,
        environment: Literal["development", "production"] | None = None,
        pod: Pod | str | None = None,
        base_url: str | None = None,
        config: MParticleConfig | None = None,
        **options: Unpack[MParticleConfigFields],
    ) -> None:
        # No local variable may hold a key in plain: see `redaction`.
        api_key, api_secret = seal(api_key), seal(api_secret)
        base_url = masked_url(base_url) if isinstance(base_url, str) else base_url
        given: Any = sealed(MParticleConfig, options)
        del options
        super().__init__(
            _MParticleSeat(
                api_key,
                api_secret,
                environment=environment,
                pod=pod,
                base_url=base_url,
                config=config,
                **given,
            )
        )

    @classmethod
    def from_env(cls, **options: Unpack[MParticleFields]) -> Self:
        """Read ``MPARTICLE_API_KEY``, ``MPARTICLE_API_SECRET`` and further options.

        Raises:
            ConfigurationError: a variable or option is wrong.
        """
        given: Any = sealed(MParticleConfig, options)
        del options
        made = cls.__new__(cls)
        SyncClient.__init__(made, _MParticleSeat.from_env(**given))
        return made

    @property
    def config(self) -> MParticleConfig:
        """The frozen configuration."""
        return self._seat.config

    def upload(self, batch: Batch) -> UploadResult:
        """Send one batch now, with retries; raises as ``MParticle.upload`` does."""
        return self._way_in().thread.run(self._seat.upload(batch))

    def upload_many(
        self, batches: Iterable[Batch], *, bisect: bool = False
    ) -> list[UploadResult]:
        """Send batches now, in as few requests as the limits allow.

        As ``MParticle.upload_many``: one result per request, in order.
        """
        verb = self._seat.upload_many(batches, bisect=bisect)
        return self._way_in().thread.run(verb)

    def upload_historical(self, batches: Iterable[Batch]) -> list[UploadResult]:
        """Send events that are at least 72 hours old.

        As ``MParticle.upload_historical``: the server's three rules are checked first.
        """
        return self._way_in().thread.run(self._seat.upload_historical(batches))

    def send(self, batch: Batch) -> SyncDelivery:
        """Queue a batch on the delivery engine.

        A batch larger than the API takes is split by its events; the handle tells the
        first bad result, or that all is well.

        Raises:
            TypeError: it is no Batch.
            QueueFullError: no room, and the policy is Overflow.RAISE.
            BatchError: the batch breaks a rule, and the configuration is strict.
            AmplitudeError: an event loop runs on this thread.
        """
        refuse_on_loop(type(self).__name__)
        hatch = self._way_in()
        cargo = self._seat.cargo_of(batch)
        return hatch.hand_over(cargo, cargo.insert_id, cargo.size)
