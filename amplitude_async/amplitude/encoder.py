"""The one encoding of an event into the bytes that travel, and the way back.

Everything that leaves as an event is made here, once: aliases, absent fields, property
values by the policy, and what is filled in where the event is silent.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any, Final, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    GROUP_IDENTIFY,
    IDENTIFY,
    INPUT_NAMES,
    Event,
    IngestionMetadata,
    Plan,
)
from amplitude_async.amplitude.fields import INT64_MAX, INT64_MIN, MS_MAX, MS_MIN
from amplitude_async.amplitude.leniency import culprit, sound, unusable
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
    "to_wire",
]

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class EncodedEvent(NamedTuple):
    """An event as it goes on the wire."""

    body: bytes
    """A JSON object."""

    insert_id: str
    """The event's own, or the one that was filled in."""

    event: Event
    """The event that was encoded: the one given, or a copy whose values are sound."""

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
        if kind is int and not _is_in_range(name, cast("int", value)):
            return None
        # An id that is empty is none.
        if not value and name in {"user_id", "device_id"}:
            return None
        members[name] = value
    try:
        return to_json(members)
    except PydanticSerializationError:
        return None


def _is_in_range(name: str, value: int) -> bool:
    if name == "time":
        return MS_MIN < value < MS_MAX
    return INT64_MIN <= value <= INT64_MAX


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

    Raises:
        pydantic.ValidationError: A value is bad, and the event cannot do without it.
    """
    losses: tuple[Loss, ...] = ()
    body = _encode_json(event, policy)
    if body is None:
        event, body, losses = _made_json(event, policy)
    event_id, members = event.insert_id, defaults.missing_from(event)
    if event.time is None:
        members = b',"time":%d%b' % (unix_ms(wall), members)
    if event_id is None:
        event_id = insert_id()
        members = b',"insert_id":"%b"%b' % (event_id.encode(), members)
    if type(event) is not Event and _writes_itself(type(event)):
        body, event_id = _filled_in(body, members, event_id)
    else:
        body = with_members(body, members)
    return EncodedEvent(body, event_id, event, losses)


def to_wire(event: Event) -> dict[str, Any]:
    """Give an event as JSON values, without what a client would fill in."""
    policy = ValuePolicy()
    body = _encode_json(event, policy)
    if body is None:
        _, body, _ = _made_json(event, policy)
    wire: dict[str, Any] = from_json(body)
    return wire


def decode_event(body: bytes) -> Event:
    """Rebuild an event from its encoded form; keys it has no field for are left out."""
    members = from_json(body)
    known = {k: v for k, v in members.items() if k in INPUT_NAMES}
    event_type = members.get("event_type", "")
    try:
        return Event(event_type=event_type, **known)
    except ValidationError as error:
        # It was accepted so, by an older version perhaps: shown as it is.
        bad = {str(item["loc"][0]) for item in error.errors(include_url=False)}
        good = {name: value for name, value in known.items() if name not in bad}
        event = Event(event_type=str(event_type), **good)
        named = {ATTRIBUTE_OF.get(n, n): v for n, v in known.items() if n in bad}
        return event.model_copy(update=named)


def _writes_itself(kind: type[Event]) -> bool:
    """Tell whether a subclass decides itself which keys there are."""
    has_serializer = bool(kind.__pydantic_decorators__.model_serializers)
    return has_serializer or bool(kind.model_computed_fields)


def _filled_in(body: bytes, members: bytes, event_id: str) -> tuple[bytes, str]:
    """Add members to an object that may have them, and find the id it has then."""
    own = from_json(body)
    whole = {**from_json(b"{%b}" % members[1:]), **own}
    found = whole["insert_id"] = whole.get("insert_id", event_id)
    return to_json(whole), found if isinstance(found, str) else event_id


def _serialise(event: Event) -> bytes | None:
    """Write an event down; None where a value is not what its field says."""
    exact = _is_exact(event)
    # Without a type it could be written down, as fields that are None are left out.
    if not exact and event.__dict__.get("event_type") is None:
        return None
    try:
        # The event's own serializer: a subclass may declare a key we do not know yet.
        body = event.__pydantic_serializer__.to_json(
            event,
            by_alias=True,
            exclude_none=True,
            warnings=False if exact else "error",
        )
    except (Exception, asyncio.CancelledError):  # noqa: BLE001  # code of a subclass
        return None
    # NaN is null to the serializer, and null may also stand in a property.
    if exact or not (b":null" in body and _has_nan(event.__dict__)):
        return body if body.startswith(b"{") else None
    return None


def _is_exact(event: Event) -> bool:
    """Tell whether all that was set is of the type that its field holds.

    The usual answer, and cheaper than the serializer's own look at each field.
    """
    fields = event.__dict__
    for name in event.__pydantic_fields_set__:
        value, kind = fields.get(name), _HELD.get(name)
        if value is not None and (
            type(value) is not kind or (kind is float and not isfinite(fields[name]))
        ):
            return False
    return fields.get("event_type") is not None


def _has_nan(fields: Mapping[str, Any]) -> bool:
    given = (fields.get(name) for name in _FINITE_FIELDS)
    return any(isinstance(value, float) and not isfinite(value) for value in given)


def _encode_json(event: Event, policy: ValuePolicy) -> bytes | None:
    """Encode an event whose values are JSON already; None if they are not."""
    fields = event.__dict__
    # `del event.ip` is a way to say that there is none.
    if len(fields) < _FIELDS:
        return None
    for name in _PROPERTY_FIELDS:
        value = fields[name]
        if value is not None and not policy.is_json(value):
            return None
    groups = fields["groups"]
    if groups is not None and not _are_names(groups):
        return None
    # What fits into no request would take long to encode.
    longest = policy.max_bytes
    for name in event.__pydantic_fields_set__:
        value = fields.get(name)
        if type(value) is str and len(value) > longest:
            return None
    # Empty counts as absent, which the serializer does not know.
    if "" in (fields["user_id"], fields["device_id"], fields["insert_id"]):
        return None
    return _serialise(event)


def _are_names(groups: Any) -> bool:
    """Tell whether groups are what the model makes of them, and JSON as they are."""
    if type(groups) is not dict or not _GROUP_POLICY.is_json(groups):
        return False
    names = (
        name
        for value in groups.values()
        for name in (value if type(value) is list else (value,))
    )
    return all(type(name) is str for name in names)


_FIELDS: Final = len(Event.model_fields)
_FINITE_FIELDS: Final = ("price", "revenue", "location_lat", "location_lng")
# What a validated field holds; a key of a subclass is none of these.
_HELD: Final[Mapping[str, type]] = {
    **dict.fromkeys(Event.model_fields, str),
    **dict.fromkeys(("price", "revenue", "location_lat", "location_lng"), float),
    **dict.fromkeys(("time", "session_id", "event_id", "quantity"), int),
    **dict.fromkeys(("event_properties", "user_properties", "group_properties"), dict),
    **dict.fromkeys(("groups", "extra"), dict),
    "plan": Plan,
    "ingestion_metadata": IngestionMetadata,
    "skip_user_properties_sync": bool,
}
_OPERATIONS: Final = frozenset({IDENTIFY, GROUP_IDENTIFY})
_PROPERTY_FIELDS: Final = ("event_properties", "user_properties", "group_properties")

# Group names are identities, never cut.
_GROUP_POLICY: Final = ValuePolicy()


def _made_json(
    event: Event, policy: ValuePolicy
) -> tuple[Event, bytes, tuple[Loss, ...]]:
    """Encode a copy of an event with everything that has no JSON form taken out."""
    losses: list[Loss] = []
    made = _converted(event, policy, losses)
    body = None if made is None else _serialise(made)
    if made is None or body is None:
        losses.clear()
        made = _converted(sound(event, losses), policy, losses) or event
        body = _serialise(made)
    if body is None:
        raise _culprit(made)
    return made, body, tuple(losses)


def _converted(event: Event, policy: ValuePolicy, losses: list[Loss]) -> Event | None:
    """Copy an event with its properties made JSON; None where it holds none."""
    fields = event.__dict__
    if len(fields) < _FIELDS:
        return None
    changes: dict[str, Any] = {}
    for name in _PROPERTY_FIELDS:
        value = fields.get(name)
        if value is not None:
            before = len(losses)
            converted = policy.convert(value, name, losses)
            changes[name] = None if converted is DROP else converted
            is_less = len(losses) > before and converted is not DROP
            if is_less and fields.get("event_type") in _OPERATIONS:
                changes[name] = _with_operations(name, value, converted)
    groups = fields.get("groups")
    if groups is not None:
        if not isinstance(groups, dict):
            return None
        converted = _GROUP_POLICY.convert(groups, "groups", losses)
        if converted is not DROP and not _are_names(converted):
            return None
        changes["groups"] = None if converted is DROP else converted
    for name in ("user_id", "device_id", "insert_id"):
        if fields.get(name) == "":
            changes[name] = None
    copy = event.model_copy(update=changes)
    return _without_bad_text(copy, "", policy.max_bytes, losses)


def _with_operations(name: str, given: Any, made: Any) -> Any:
    """Take out operations that lost all their keys.

    Raises:
        pydantic.ValidationError: None is left: there is nothing to say any more.
    """
    if not isinstance(made, dict) or not made:
        return made
    left = {operation: keys for operation, keys in made.items() if keys != {}}
    if left:
        return left
    problem = "nothing that can be sent is left: give values that have a JSON form"
    raise unusable(Event, name, given, problem)


def _culprit(event: Event) -> ValidationError:
    """Find out which field of a subclass cannot be written down."""
    written = event.__pydantic_serializer__
    return culprit(
        event,
        lambda name: written.to_json(
            event, include={name}, by_alias=True, exclude_none=True, warnings=False
        ),
    )


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
