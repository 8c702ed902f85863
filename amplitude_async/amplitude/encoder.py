"""The one encoding of an event into the bytes that travel, and the way back.

Everything that leaves as an event is made here, once: aliases, absent fields, property
values by the policy, and what is filled in where the event is silent.
"""

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json

from amplitude_async.amplitude.events import (
    INPUT_NAMES,
    Event,
    IngestionMetadata,
    Plan,
)
from amplitude_async.encoding import (
    DROP,
    Loss,
    ValuePolicy,
    is_encodable_text,
    to_json,
    unix_ms,
    with_members,
)

__all__ = [
    "EncodedEvent",
    "EventDefaults",
    "InsertIds",
    "decode_event",
    "encode_event",
    "encode_fields",
]

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class EncodedEvent(NamedTuple):
    """An event as it goes on the wire."""

    body: bytes
    """A JSON object."""

    insert_id: str
    """The event's own, or the one that was filled in."""

    losses: tuple[Loss, ...] = ()
    """Keys and fields that could not be sent as they were.

    Where ``user_id`` or ``device_id`` is among the paths, the body lacks that id.
    """


# Without slots: what is cached needs a place.
@dataclass(frozen=True)
class EventDefaults:
    """What events get that lack it, each encoded once."""

    library: str | None = None
    plan: Plan | None = None
    ingestion_metadata: IngestionMetadata | None = None

    @cached_property
    def members(self) -> bytes:
        """All of them as JSON members, each after a comma."""
        return b"".join(self._each)

    @cached_property
    def _each(self) -> tuple[bytes, bytes, bytes]:
        return (
            _member("library", self.library),
            _member("plan", self.plan),
            _member("ingestion_metadata", self.ingestion_metadata),
        )

    def missing_from(self, event: Event) -> bytes:
        """Give the JSON members that an event lacks, each after a comma."""
        given = (event.library, event.plan, event.ingestion_metadata)
        if given == _NOTHING_GIVEN:
            return self.members
        missing = zip(self._each, given, strict=True)
        return b"".join(member for member, own in missing if own is None)


_NOTHING_GIVEN: Final = (None, None, None)


def _member(key: str, value: str | BaseModel | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, BaseModel):
        body = value.__pydantic_serializer__.to_json(
            value, by_alias=True, exclude_none=True
        )
    else:
        body = to_json(value)
    return b',"%b":%b' % (key.encode(), body)


# The exact types that the model would take unchanged, and that need no other spelling
# on the wire. A test holds this equal to what the model makes of the same fields.
_SHORT_ROAD: Final[Mapping[str, type]] = {
    **dict.fromkeys(
        (
            "user_id",
            "device_id",
            "app_version",
            "version_name",
            "platform",
            "os_name",
            "os_version",
            "device_brand",
            "device_manufacturer",
            "device_model",
            "carrier",
            "country",
            "region",
            "city",
            "dma",
            "language",
            "ip",
            "user_agent",
            "currency",
            "partner_id",
        ),
        str,
    ),
    **dict.fromkeys(("time", "session_id", "event_id", "quantity"), int),
    **dict.fromkeys(("event_properties", "user_properties", "group_properties"), dict),
}


def encode_fields(
    event_type: str, fields: Mapping[str, Any], policy: ValuePolicy
) -> bytes | None:
    """Encode keyword fields without building a model, where both come to the same.

    Returns:
        A JSON object, or None where the model has to look at the fields.
    """
    members: dict[str, Any] = {"event_type": event_type}
    longest = policy.max_bytes
    if len(event_type) > longest:
        return None
    for name, value in fields.items():
        kind = _SHORT_ROAD.get(name)
        # Exact types alone: a bool is an int, and a subclass is the model's affair.
        if type(value) is not kind:
            return None
        if type(value) is str:
            if len(value) > longest:
                return None
        elif kind is dict and not policy.is_json(value):
            return None
        members[name] = value
    try:
        return to_json(members)
    except PydanticSerializationError:
        return None


class InsertIds:
    """Makes ``insert_id`` values: 80 random bits of its own, then a count.

    Random text does not compress; what all ids of a process share does. A forked child
    needs a generator of its own.
    """

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(10)
        self._count = itertools.count(1)

    def __call__(self) -> str:
        """Make an id that nobody else makes."""
        return f"{self._prefix}-{next(self._count):x}"


def encode_event(
    event: Event,
    policy: ValuePolicy,
    defaults: EventDefaults,
    *,
    wall: float,
    insert_id: Callable[[], str],
) -> EncodedEvent:
    """Encode an event once and for all; the event itself is not changed.

    Args:
        event: None fields are left out; None inside properties stays null.
        policy: How property values become JSON.
        defaults: Filled in where the event has none.
        wall: When it was accepted, in seconds since the epoch: its time where it has
            none.
        insert_id: Called where the event has none; gives ASCII text that needs no
            escape in JSON.
    """
    losses: tuple[Loss, ...] = ()
    body = _encode_json(event, policy)
    if body is None:
        event, losses = _made_json(event, policy)
        body = _serialise(event)
    event_id, members = event.insert_id, defaults.missing_from(event)
    if event.time is None:
        members = b',"time":%d%b' % (unix_ms(wall), members)
    if event_id is None:
        event_id = insert_id()
        members = b',"insert_id":"%b"%b' % (event_id.encode(), members)
    return EncodedEvent(with_members(body, members), event_id, losses)


def decode_event(body: bytes) -> Event:
    """Rebuild an event from its encoded form; keys it has no field for are left out."""
    members = from_json(body)
    known = {k: v for k, v in members.items() if k in INPUT_NAMES}
    return Event(event_type=members.get("event_type", ""), **known)


def _serialise(event: Event) -> bytes:
    # The event's own serializer: a subclass may declare a key we do not know yet.
    return event.__pydantic_serializer__.to_json(
        event, by_alias=True, exclude_none=True, warnings=False
    )


def _encode_json(event: Event, policy: ValuePolicy) -> bytes | None:
    """Encode an event whose values are JSON already; None if they are not."""
    fields = event.__dict__
    for name in _PROPERTY_FIELDS:
        value = fields[name]
        if value is not None and not policy.is_json(value):
            return None
    groups = fields["groups"]
    if groups is not None and not _GROUP_POLICY.is_json(groups):
        return None
    # What fits into no request would take long to encode.
    longest = policy.max_bytes
    for name in event.__pydantic_fields_set__:
        value = fields[name]
        if type(value) is str and len(value) > longest:
            return None
    # Empty counts as absent, which the serializer does not know.
    if fields["insert_id"] == "":
        return None
    try:
        return _serialise(event)
    except PydanticSerializationError:
        return None


_PROPERTY_FIELDS: Final = ("event_properties", "user_properties", "group_properties")

# Group names are identities, never cut.
_GROUP_POLICY: Final = ValuePolicy()


def _made_json(event: Event, policy: ValuePolicy) -> tuple[Event, tuple[Loss, ...]]:
    """Copy an event with everything that has no JSON form taken out."""
    losses: list[Loss] = []
    changes: dict[str, Any] = {}
    for name in (*_PROPERTY_FIELDS, "groups"):
        value = getattr(event, name)
        if value is not None:
            rules = _GROUP_POLICY if name == "groups" else policy
            converted = rules.convert(value, name, losses)
            changes[name] = None if converted is DROP else converted
    if event.insert_id == "":
        changes["insert_id"] = None
    copy = event.model_copy(update=changes)
    longest = policy.max_bytes
    return _without_bad_text(copy, "", longest, losses), tuple(losses)


def _without_bad_text(
    model: _ModelT, prefix: str, longest: int, losses: list[Loss]
) -> _ModelT:
    changes: dict[str, Any] = {}
    for name, value in model.__dict__.items():
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            changes[name] = _without_bad_text(value, f"{path}.", longest, losses)
        elif isinstance(value, str) and len(value) > longest:
            changes[name] = value[:80] if path == "event_type" else None
            reason = f"has {len(value):,} characters"
            losses.append(Loss(path, reason, too_large=True))
        elif isinstance(value, str) and not is_encodable_text(value):
            # The type is all that an event cannot do without.
            is_type = path == "event_type"
            changes[name] = value.encode(errors="replace").decode() if is_type else None
            losses.append(Loss(path, "holds a lone surrogate, which is not text"))
    return model.model_copy(update=changes) if changes else model
