"""The one encoding of a batch into the bytes that travel, with what it lacks filled in.

Ids and times that are absent are filled into the bytes, not into the caller's batch and
not into a copy of it: copying twenty events costs more than encoding them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from amplitude_async.mparticle.limits import MAX_NAME
from amplitude_async.mparticle.models.batch import (
    Batch,
    encode_head,
    events_of,
    join_batch,
    new_uuid,
)
from amplitude_async.mparticle.models.envelope import Envelope, encode_event

__all__ = ["EncodedBatch", "encode_stamped"]

_ACTION = b'"action_identifier"'

# What encode_event puts behind the members of "data".
_EVENT_END = b"}}"


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch as it is sent: the part about the user, and each event."""

    head: bytes
    """A JSON object without events and without ``source_request_id``."""
    events: Sequence[bytes]
    source_request_id: str
    """The idempotency key; kept over retries, never shared between two batches."""
    surely_within_limits: bool = False
    """True where everything is too short to break a limit, seen from its bytes.

    Names may have 256 characters, values 4,096 and maps 100 entries; only actions of
    push messages may have fewer.
    """

    @property
    def body(self) -> bytes:
        """The whole batch as JSON."""
        key = b',"source_request_id":"%b"}' % self.source_request_id.encode()
        return join_batch(self.head[:-1] + key, self.events)

    def split(
        self, max_bytes: int, new_id: Callable[[], str] = new_uuid
    ) -> "Iterator[EncodedBatch]":
        """Cut into batches of the same user of at most so many bytes, in order.

        Each has an idempotency key of its own.

        Raises:
            ValueError: one event alone is too large.
        """
        # The key member, the events member and their punctuation.
        frame = len(self.head) + len(self.source_request_id) + 40
        room = max_bytes - frame
        piece: list[bytes] = []
        size = 0
        for number, event in enumerate(self.events):
            if len(event) > room:
                msg = (
                    f"event {number} has {len(event)} bytes beside {frame} of the user "
                    f"part, a batch takes at most {max_bytes}: send less with it"
                )
                raise ValueError(msg)
            if piece and size + len(event) + 1 > room:
                yield EncodedBatch(self.head, piece, new_id())
                piece, size = [], 0
            piece.append(event)
            size += len(event) + 1
        yield EncodedBatch(self.head, piece, new_id())


def encode_stamped(
    batch: Batch, *, now_ms: int, new_id: Callable[[], str] = new_uuid
) -> EncodedBatch:
    """Encode a batch once and fill in what is absent.

    Args:
        batch: Not changed.
        now_ms: The time given to events without one.
        new_id: Makes ids: ASCII text that needs no escape in JSON.

    Raises:
        pydantic.ValidationError: Something was appended that is no event.
    """
    key = batch.source_request_id
    if key:
        batch = batch.model_copy(update={"source_request_id": None})
    given = events_of(batch)
    bodies = [encode_event(event) for event in given]
    head = encode_head(batch)
    short = len(head) <= MAX_NAME and all(
        len(body) <= MAX_NAME and _ACTION not in body for body in bodies
    )
    events = [
        _stamped(event, body, now_ms, new_id)
        for event, body in zip(given, bodies, strict=True)
    ]
    return EncodedBatch(head, events, key or new_id(), short)


def _stamped(
    event: Envelope, body: bytes, now_ms: int, new_id: Callable[[], str]
) -> bytes:
    """Fill in what an encoded event lacks."""
    added = []
    if getattr(event, "timestamp_unixtime_ms", None) is None:
        added.append(b'"timestamp_unixtime_ms":%d' % now_ms)
    if not getattr(event, "source_message_id", None):
        added.append(b'"source_message_id":"%b"' % new_id().encode())
    if not added:
        return body
    comma = b"" if body.endswith(b"{}}") else b","
    return body[:-2] + comma + b",".join(added) + _EVENT_END
