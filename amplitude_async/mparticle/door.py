"""What mParticle expects of a batch, checked before it is accepted."""

import asyncio
from typing import Final, NamedTuple

from pydantic import ValidationError

from amplitude_async.client.destination import Refusal
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.encoding import encodable_text, unix_ms
from amplitude_async.mparticle.config import MParticleConfig
from amplitude_async.mparticle.encoder import EncodedBatch, encode_stamped, new_uuid
from amplitude_async.mparticle.endpoint import MAX_BATCH_BYTES
from amplitude_async.mparticle.exceptions import BatchError
from amplitude_async.mparticle.limits import check_limits, truncate_names
from amplitude_async.mparticle.models.batch import (
    Batch,
    checked_batch,
    decode_batch,
    events_of,
)
from amplitude_async.mparticle.models.context import BatchContext
from amplitude_async.shown import kind_of, shown
from amplitude_async.storage.base import Record

__all__ = ["MParticleDoor", "Piece", "check_historical"]

# mParticle HTTP API documentation, "Historical data": younger events are thrown away.
HISTORICAL_MIN_AGE_MS: Final = 72 * 3_600_000
_MAX_LABEL: Final = 80
OLD_EVENT_MS: Final = 30 * 86_400_000


class Piece(NamedTuple):
    """What travels of a batch: all of it, or a part where it is too large."""

    source: Batch
    """The caller's batch; ids and times are filled into the bytes alone."""
    body: bytes
    request_id: str
    """The idempotency key."""

    def to_batch(self) -> Batch:
        """Read the bytes back, as for plugins: a copy that lacks nothing.

        Raises:
            pydantic.ValidationError: what was put into the batch unchecked is wrong.
        """
        return decode_batch(self.body)


class MParticleDoor:
    """Completes, checks and encodes batches."""

    def __init__(self, config: MParticleConfig, reporter: Reporter) -> None:
        self._config = config
        self._reporter = reporter

    def insert_id(self, batch: Batch) -> str:
        """The batch's idempotency key, or a new one."""
        given = batch.__dict__.get("source_request_id")
        return given if type(given) is str and given else new_uuid()

    def prepare(self, batch: Batch, wall: float, *, old: bool = False) -> list[Piece]:
        """Fill in what is absent, check the rules and split what is too large.

        Args:
            batch: not changed.
            wall: seconds since the epoch: the time of events that have none.
            old: True where events are expected to be old.

        Raises:
            BatchError: the batch breaks a rule.
        """
        try:
            return self._prepare(batch, wall, old=old)
        except ValidationError as error:
            raise BatchError(_told(error)) from None
        except BatchError:
            raise
        except (TypeError, ValueError) as error:
            raise BatchError(f"the batch cannot be sent: {error!s:.300}") from error
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
            raise BatchError(_unreadable(error)) from None

    def _prepare(self, batch: Batch, wall: float, *, old: bool) -> list[Piece]:
        # Dicts and lists may have been changed since they were validated.
        batch = self._with_plan(checked_batch(batch))
        self._check_identity(batch)
        if not old:
            self._warn_of_age(batch, unix_ms(wall))
        # Encoded first, judged second: what is short needs no look at each name.
        encoded = encode_stamped(batch, wall=wall)
        # Attributes of the user are looked at in any case: their names may be no text.
        sure = encoded.surely_within_limits and not batch.user_attributes
        if self._config.limits != "off" and not sure:
            short = self._within_limits(batch)
            if short is not batch:
                batch, encoded = short, encode_stamped(short, wall=wall)
        return [_piece(batch, part) for part in encoded.split(MAX_BATCH_BYTES)]

    def _within_limits(self, batch: Batch) -> Batch:
        """Reject, cut or report what exceeds the limits of the service."""
        mode = self._config.limits
        if mode == "truncate":
            batch = truncate_names(batch)
        problems = check_limits(batch, mode)
        if problems and mode == "error":
            raise BatchError("; ".join(problems))
        for problem in problems:
            self._reporter.warning("limits", "%s", problem)
        return batch

    def _with_plan(self, batch: Batch) -> Batch:
        plan = self._config.data_plan
        context = batch.context or BatchContext()
        if plan is None or context.data_plan is not None:
            return batch
        context = context.model_copy(update={"data_plan": plan})
        return batch.model_copy(update={"context": context})

    def _check_identity(self, batch: Batch) -> None:
        if batch.has_identity:
            return
        problem = (
            "the batch names no user and no device and reaches no profile: set "
            "user_identities, mpid or mp_deviceid"
        )
        if self._config.strict:
            raise BatchError(problem)
        self._reporter.warning("identity", "%s", problem)

    def _warn_of_age(self, batch: Batch, now_ms: int) -> None:
        for event in events_of(batch):
            time_ms: int | None = getattr(event, "timestamp_unixtime_ms", None)
            # One warning for a batch: its events are mostly of one age.
            if time_ms is not None and now_ms - time_ms > OLD_EVENT_MS:
                self._reporter.warning(
                    "age", "an event is older than 30 days: use upload_historical"
                )
                return

    def admit(
        self, batch: Batch | Piece, record_id: int, wall: float
    ) -> Record | Refusal:
        """Encode a batch that was checked, or say why it cannot go."""
        if isinstance(batch, Piece):
            return self.seal(batch, record_id, wall)
        # A plugin may have changed it since it was prepared.
        try:
            batch = checked_batch(batch)
            piece = _piece(batch, encode_stamped(batch, wall=wall))
            # A copy that a plugin made is not validated before it is read again.
            piece.to_batch()
        except ValidationError as error:
            return Refusal(_told(error))
        except (TypeError, ValueError) as error:
            return Refusal(f"the batch cannot be sent: {error!s:.300}")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
            return Refusal(_unreadable(error))
        if len(piece.body) > MAX_BATCH_BYTES:
            return Refusal(
                f"the batch has {len(piece.body)} bytes, mParticle takes at most "
                f"{MAX_BATCH_BYTES}: send fewer attributes"
            )
        return self.seal(piece, record_id, wall)

    def seal(self, piece: Piece, record_id: int, wall: float) -> Record:
        """Make the record of an encoded batch."""
        batch, body, request_id = piece
        identities = batch.user_identities
        user_id = identities.customer_id if identities is not None else None
        return Record(
            record_id,
            body,
            encodable_text(batch.identity or request_id),
            user_id,
            batch.mp_deviceid,
            request_id,
            wall,
        )


def _told(error: ValidationError) -> str:
    """Say where a batch is wrong; not the whole of it, which would repeat the event."""
    item = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part)[:_MAX_LABEL] for part in item["loc"])
    return f"the batch cannot be sent, {where}: {item['msg']:.300}"


def _unreadable(error: BaseException) -> str:
    """Say of what was put in unchecked, or has code of its own, that it raised."""
    return (
        f"the batch cannot be sent, looking at it raised {kind_of(error)}: assign to "
        "its fields, which checks the value, or make it with Batch(...)"
    )


def _piece(batch: Batch, encoded: EncodedBatch) -> Piece:
    """Make what travels of a batch.

    Raises:
        ValueError: An id is no text, as a copy that nobody has validated may have it.
    """
    customer = batch.user_identities and batch.user_identities.customer_id
    for name, value in (
        ("source_request_id", batch.source_request_id),
        ("mp_deviceid", batch.mp_deviceid),
        ("user_identities.customer_id", customer),
    ):
        if value is not None and not isinstance(value, str):
            msg = f"{name}={shown(value)} should be text: convert it with str()"
            raise ValueError(msg)
    return Piece(batch, encoded.body, encoded.source_request_id)


def check_historical(batch: Batch, number: int, wall: float) -> None:
    """Check what the historical endpoint throws away without a word.

    Raises:
        BatchError: no events, an event without time, or one that is too young; or the
            batch cannot be sent at all.
    """
    try:
        batch = checked_batch(batch)
    except ValidationError as error:
        raise BatchError(_told(error)) from None
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
        raise BatchError(_unreadable(error)) from None
    if not batch.events:
        msg = f"batch {number} has no events: historical batches need at least one"
        raise BatchError(msg)
    latest = unix_ms(wall) - HISTORICAL_MIN_AGE_MS
    for index, event in enumerate(events_of(batch)):
        time_ms: int | None = getattr(event, "timestamp_unixtime_ms", None)
        if time_ms is None:
            msg = (
                f"event {index} of batch {number} has no timestamp_unixtime_ms: set it"
            )
            raise BatchError(msg)
        if time_ms > latest:
            msg = (
                f"event {index} of batch {number} is younger than 72 hours: "
                "use upload_many"
            )
            raise BatchError(msg)
