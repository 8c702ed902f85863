"""The one encoding of a batch into the bytes that travel, with what it lacks filled in.

Ids and times that are absent are filled into the bytes, not into the caller's batch and
not into a copy of it: copying twenty events costs more than encoding them. It is done
once, before the first attempt, because the server de-duplicates on these ids.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from pydantic_core import from_json

from amplitude_async.encoding import to_json, unix_ms, with_members
from amplitude_async.mparticle.limits import MAX_NAME
from amplitude_async.mparticle.models.batch import (
    Batch,
    encode_head,
    events_of,
    join_batch,
)
from amplitude_async.mparticle.models.envelope import enclose

__all__ = ["EncodedBatch", "encode_stamped", "new_uuid"]

_ACTION: Final = b'"action_identifier"'

# What joins a head and its events.
_FRAME: Final = len(b',"events":[]')

# The version, 4, stands in bits 76 to 79, the variant, binary 10, in bits 62 and 63.
_RANDOM_BITS: Final = (1 << 128) - 1 & ~(0xF << 76) & ~(0b11 << 62)
_VERSION_4: Final = 0x4 << 76 | 0b10 << 62

# Names the keys of parts: a UUID of our own, so that nobody else derives the same.
_PARTS: Final = UUID("6d5f8f0e-0c7b-4f0a-9b1c-2f8f5f3f7a13")

# What the server de-duplicates and dates by, beside the key of the batch.
_FILLED_IN: Final = ("timestamp_unixtime_ms", "source_message_id")


def new_uuid() -> str:
    """Make a random UUID (RFC 9562, version 4) as text, at half of uuid4's price."""
    # Not from a generator: a seed set for a test, or a fork, would repeat its ids.
    bits = int.from_bytes(os.urandom(16)) & _RANDOM_BITS | _VERSION_4
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
        # The caller's key may be any text: its quotes need escapes.
        key = b',"source_request_id":%b' % to_json(self.source_request_id)
        return join_batch(with_members(self.head, key), self.events)

    def split(self, max_bytes: int) -> "list[EncodedBatch]":
        """Spread the events over as many batches of the same user as their size needs.

        The order of the events stays. Each part has an idempotency key of its own, made
        of the batch's and of the numbers of its events: the same batch, uploaded again,
        has the same parts with the same keys.

        Args:
            max_bytes: The most that a part may have.

        Returns:
            The batch itself where it fits.

        Raises:
            ValueError: One event, or the rest of the batch, is too large by itself.
        """
        if len(self.body) <= max_bytes:
            return [self]
        head = _without_batch_id(self.head)
        parts: list[EncodedBatch] = []
        start = 0
        # Once in any case: the head alone may be what is too large.
        while start < len(self.events) or not parts:
            empty = EncodedBatch(head, (), self._part_key(0, 0))
            room = max_bytes - len(empty.body) - _FRAME
            stop = self._last_that_fits(start, room)
            if stop == start:
                raise ValueError(self._why_nothing_fits(start, max_bytes, room))
            part = self.events[start:stop]
            parts.append(EncodedBatch(head, part, self._part_key(start, stop)))
            start = stop
        return parts

    def _part_key(self, start: int, stop: int) -> str:
        # Both ends: cut elsewhere, a part is another one and must not be taken for it.
        return str(uuid5(_PARTS, f"{start}-{stop} {self.source_request_id}"))

    def _last_that_fits(self, start: int, room: int) -> int:
        """Give the end of the longest run of events that has room."""
        used = -1  # no comma stands before the first
        for index in range(start, len(self.events)):
            used += len(self.events[index]) + 1
            if used > room:
                return index
        return len(self.events)

    def _why_nothing_fits(self, number: int, max_bytes: int, room: int) -> str:
        beside = max_bytes - room
        if room <= 0 or not self.events:
            return (
                f"the batch has {beside} bytes without its events, the limit is "
                f"{max_bytes}: send fewer user attributes"
            )
        return (
            f"event {number} has {len(self.events[number])} bytes beside {beside} of "
            f"the user part, a batch takes at most {max_bytes}: send less with it"
        )


def _without_batch_id(head: bytes) -> bytes:
    """Leave out the server's own id, for which it would drop all parts but one."""
    members = from_json(head)
    # The head as it was, unless it has one: nothing is encoded twice for nothing.
    if members.pop("batch_id", None) is None:
        return head
    return to_json(members)


def encode_stamped(
    batch: Batch, *, wall: float, new_id: Callable[[], str] = new_uuid
) -> EncodedBatch:
    """Encode a batch once and fill in what is absent.

    Args:
        batch: Checked by `checked_batch`. Not changed.
        wall: Seconds since the epoch: the time of events that have none.
        new_id: Makes ids.
    """
    given = events_of(batch)
    missing = [event.missing(_FILLED_IN) for event in given]
    # Taken out first what only says that there is nothing: no name may come twice.
    data = [
        event.without(names).encode_data()
        for event, names in zip(given, missing, strict=True)
    ]
    head = encode_head(batch, but="source_request_id")
    # Before anything is filled in, which would make nearly every event too long.
    short = len(head) <= MAX_NAME and all(
        len(one) <= MAX_NAME and _ACTION not in one for one in data
    )
    time = b',"timestamp_unixtime_ms":%d' % unix_ms(wall)
    events = [
        enclose(event, with_members(one, _members(names, time, new_id)))
        for event, one, names in zip(given, data, missing, strict=True)
    ]
    key = batch.source_request_id or new_id()
    return EncodedBatch(head, events, key, short)


def _members(names: Sequence[str], time: bytes, new_id: Callable[[], str]) -> bytes:
    """Give the members that an event's data lacks, each after a comma."""
    members = time if "timestamp_unixtime_ms" in names else b""
    if "source_message_id" in names:
        members += b',"source_message_id":%b' % to_json(new_id())
    return members
