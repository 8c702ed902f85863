"""What mParticle expects of a batch, checked before it is accepted."""

from uuid import uuid4

from amplitude_async.delivery.reporting import Reporter
from amplitude_async.destination import Refusal
from amplitude_async.mparticle.batch import Batch, encode_batch
from amplitude_async.mparticle.endpoint import MAX_BATCH_BYTES
from amplitude_async.storage.base import Record

__all__ = ["MParticleDoor", "identity_of"]


class MParticleDoor:
    """Checks and encodes batches, each exactly once."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def insert_id(self, batch: Batch) -> str:
        """The batch's idempotency key, or a new one."""
        return batch.source_request_id or str(uuid4())

    def admit(self, batch: Batch, record_id: int, wall: float) -> Record | Refusal:
        """Encode a batch that was completed and checked, or say why it cannot go."""
        body = encode_batch(batch)
        if len(body) > MAX_BATCH_BYTES:
            return Refusal(
                f"the batch has {len(body)} bytes, mParticle takes at most "
                f"{MAX_BATCH_BYTES}: send fewer attributes"
            )
        identities = batch.user_identities
        user_id = identities.customer_id if identities is not None else None
        insert_id = self.insert_id(batch)
        return Record(
            record_id,
            body,
            identity_of(batch) or insert_id,
            user_id,
            batch.mp_deviceid,
            insert_id,
            wall,
        )


def identity_of(batch: Batch) -> str | None:
    """Whom a batch is about: batches of one identity reach the server in order."""
    if batch.mpid is not None:
        return str(batch.mpid)
    identities = batch.user_identities
    if identities is not None:
        for value in identities.model_dump(exclude_none=True).values():
            return str(value)
    if batch.mp_deviceid is not None:
        return batch.mp_deviceid
    device = batch.device_info
    if device is None:
        return None
    for name in ("ios_idfv", "ios_advertising_id", "android_advertising_id"):
        value = getattr(device, name)
        if value is not None:
            return str(value)
    return None
