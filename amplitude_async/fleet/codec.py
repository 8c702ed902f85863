"""The form of a chunk: events and what the engine knows of them, in one piece.

``AXC``, a schema byte, the CRC-32 of all that follows, the length of the index, the
index, the bodies. The index is JSON: lengths of bodies, identities (null where it is
the user id), user ids, device ids, insert ids and times of acceptance, a list for each:
so every loop over events is one of C. A later schema keeps the first four bytes.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise, repeat
from typing import Any, Final
from zlib import crc32

from amplitude_async.exceptions import DamagedChunkError, UnknownSchemaError
from amplitude_async.storage.base import Record

__all__ = ["chunk_id", "decode", "encode", "partition_of"]

MAGIC: Final = b"AXC"
SCHEMA: Final = 1
CRC_AT: Final = 4
INDEX_LENGTH_AT: Final = 8
INDEX_AT: Final = 12
DIGEST_BYTES: Final = 8
# Ages are differences of these: no number may be so large that one overflows.
LAST_TIME: Final = 1e15

_TEXT: Final = frozenset({str})
_TEXT_OR_NONE: Final = frozenset({str, type(None)})
_WHOLE: Final = frozenset({int})
_NUMBER: Final = frozenset({int, float})
# In this order in the index.
_TYPES: Final = (_WHOLE, _TEXT_OR_NONE, _TEXT_OR_NONE, _TEXT_OR_NONE, _TEXT, _NUMBER)


def _refuse(constant: str) -> float:
    msg = f"{constant} is no number"
    raise ValueError(msg)


_write_json: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), check_circular=False
).encode
_read_json: Final = json.JSONDecoder(parse_constant=_refuse).decode


def encode(records: Sequence[Record]) -> bytes:
    """Join events to the data of a chunk; their numbers are not in it."""
    columns = tuple(zip(*records, strict=True)) or ((),) * len(Record._fields)
    _, bodies, identities, users, devices, insert_ids, times = columns
    index = [
        list(map(len, bodies)),
        [
            None if identity == user else identity
            for identity, user in zip(identities, users, strict=True)
        ],
        users,
        devices,
        insert_ids,
        times,
    ]
    # Half of a character, which no UTF-8 has, is somebody's id all the same.
    head = _write_json(index).encode("utf-8", "surrogatepass")
    rest = b"".join([len(head).to_bytes(4, "big"), head, *bodies])
    return b"%b%c%b%b" % (MAGIC, SCHEMA, crc32(rest).to_bytes(4, "big"), rest)


def decode(data: bytes) -> list[Record]:
    """Take the data of a chunk apart; every number is 0.

    Whatever the bytes are, it takes time and memory in proportion to them, and raises
    nothing else than this.

    Raises:
        DamagedChunkError: the bytes are not what was encoded.
        UnknownSchemaError: a newer version has written them.
    """
    bodies_at = _check_frame(data)
    try:
        head = data[INDEX_AT:bodies_at].decode("utf-8", "surrogatepass")
        index = _read_json(head)
    except (ValueError, RecursionError) as error:
        # Not the error's text: it may quote an id.
        msg = f"the index of a chunk cannot be read: {type(error).__name__}"
        raise DamagedChunkError(msg) from None
    _check_index(index, len(data) - bodies_at)
    lengths, identities, users, devices, insert_ids, times = index
    ends = list(accumulate(lengths, initial=bodies_at))
    bodies = [data[start:end] for start, end in pairwise(ends)]
    identities = [
        user if identity is None else identity
        for identity, user in zip(identities, users, strict=True)
    ]
    if None in identities:
        raise DamagedChunkError("an event of a chunk has no identity")
    rows = zip(
        repeat(0), bodies, identities, users, devices, insert_ids, times, strict=False
    )
    # What Record._make does, without a call in Python for each.
    return list(map(tuple.__new__, repeat(Record), rows))


def _check_frame(data: bytes) -> int:
    """Say where the bodies begin, if length and checksum are right."""
    if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
        raise DamagedChunkError("these bytes are no chunk: they begin otherwise")
    schema = data[len(MAGIC)]
    if schema != SCHEMA:
        msg = (
            f"a chunk has schema {schema}, and this version knows {SCHEMA} only: "
            "upgrade relays before producers"
        )
        raise UnknownSchemaError(msg)
    if len(data) < INDEX_AT:
        raise DamagedChunkError("a chunk is cut off in its first bytes")
    stored = int.from_bytes(data[CRC_AT:INDEX_LENGTH_AT], "big")
    if crc32(memoryview(data)[INDEX_LENGTH_AT:]) != stored:
        raise DamagedChunkError("the checksum of a chunk is wrong")
    bodies_at = INDEX_AT + int.from_bytes(data[INDEX_LENGTH_AT:INDEX_AT], "big")
    if bodies_at > len(data):
        raise DamagedChunkError("the index of a chunk is longer than the chunk")
    return bodies_at


def _check_index(index: Any, size: int) -> None:
    """Let nothing pass that could not have been encoded.

    Args:
        size: bytes of all bodies.
    """
    if type(index) is not list or list(map(type, index)) != [list] * len(_TYPES):
        raise DamagedChunkError("the index of a chunk is no table of its columns")
    if len(set(map(len, index))) != 1:
        raise DamagedChunkError("the columns of a chunk differ in length")
    if not all(
        types.issuperset(map(type, column))
        for types, column in zip(_TYPES, index, strict=True)
    ):
        raise DamagedChunkError("the index of a chunk has a value of a wrong type")
    lengths, times = index[0], index[-1]
    if min(lengths, default=0) < 0 or sum(lengths) != size:
        raise DamagedChunkError("the lengths of a chunk's events do not add up")
    if not -LAST_TIME <= min(times, default=0) <= max(times, default=0) <= LAST_TIME:
        raise DamagedChunkError("an event of a chunk is from no time at all")


def chunk_id(boot: str, records: Sequence[Record]) -> str:
    """Name a chunk: the same events, cut again in the same way, have the same name.

    Args:
        boot: names the client that numbers the events.
        records: one at least.
    """
    bodies = b"\n".join([record.body for record in records])
    digest = blake2b(bodies, digest_size=DIGEST_BYTES).hexdigest()
    return f"{boot}.{records[0].id}.{digest}"


def partition_of(identity: str, partitions: int) -> int:
    """Say in which partition the events of an identity are, today and for ever."""
    return crc32(identity.encode("utf-8", "surrogatepass")) % partitions
