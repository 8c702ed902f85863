"""One captured event, in a view that is the same for both vendors."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

from pydantic_core import from_json

from amplitude_async.amplitude.events import ATTRIBUTE_OF, GROUP_IDENTIFY, IDENTIFY
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.encoding import ValuePolicy
from amplitude_async.losses import DROP
from amplitude_async.shown import shown

__all__ = ["AMPLITUDE", "BATCH", "MISSING", "Arrival", "Captured", "Missing"]

BATCH: Final = "batch"
"""Name of an mParticle batch that has no events, and so no name of its own."""

AMPLITUDE: Final = "amplitude"
"""Name of the destination of an Amplitude client itself."""

_LONGEST_VIEW = 120
_WIRE_NAME: Final = {name: wire for wire, name in ATTRIBUTE_OF.items()}
_NAME_IN_DATA: Final = {"custom_event": "event_name", "screen_view": "screen_name"}

# Where mParticle has what Amplitude's fields say; see `mparticle.destination`.
_IN_DATA: Final = {
    "time": ("timestamp_unixtime_ms",),
    "insert_id": ("source_message_id",),
    "event_properties": ("custom_attributes",),
    "location_lat": ("location", "latitude"),
    "location_lng": ("location", "longitude"),
}
_IN_BATCH: Final = {
    "user_properties": ("user_attributes",),
    "ip": ("ip",),
    "app_version": ("application_info", "application_version"),
    "platform": ("device_info", "platform"),
    "os_version": ("device_info", "os_version"),
    "device_brand": ("device_info", "brand"),
    "device_manufacturer": ("device_info", "device_manufacturer"),
    "device_model": ("device_info", "device_model"),
    "carrier": ("device_info", "network_carrier"),
    "country": ("device_info", "device_country"),
    "language": ("device_info", "locale_language"),
    "user_agent": ("device_info", "http_header_user_agent"),
    "idfa": ("device_info", "ios_advertising_id"),
    "idfv": ("device_info", "ios_idfv"),
    "adid": ("device_info", "android_advertising_id"),
    "android_id": ("device_info", "android_uuid"),
}


class Missing:
    """What stands where an event has nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = Missing()
"""The only one of its kind."""


class Captured:
    """One event that a client accepted while it was captured.

    ``captured["ip"]`` reads a key of ``wire``.
    """

    def __init__(
        self,
        arrival: "Arrival",
        wire: dict[str, Any],
        batch: dict[str, Any] | None = None,
        number: int = 0,
    ) -> None:
        self._outcome = arrival.outcome
        self._accepted_as = arrival.insert_id
        self._number = number
        self.destination = arrival.destination
        """Name of the destination that took it: ``amplitude``, ``mparticle``, ..."""
        self.wire = wire
        """The event as it would be on the wire.

        What was settled before it was encoded shows what it had.
        """
        self.batch = batch
        """The whole mParticle batch that the event is of; None for Amplitude's."""
        self.name = self._named()
        """The event type; for mParticle the name of a custom event or a screen.

        Other mParticle events have the name of their type, and a batch without events
        is called ``batch``.
        """

    # What it says ------------------------------------------------------------

    @property
    def data(self) -> dict[str, Any]:
        """What the event itself says: ``wire``, or what mParticle has in its data."""
        if self.batch is None:
            return self.wire
        # One that was rejected may have been shown in its flat form.
        inner = self.wire.get("data")
        return inner if isinstance(inner, dict) else self.wire

    @property
    def user_id(self) -> str | None:
        """The user; for mParticle the customer id."""
        return _text(self._identity("user_id", "customer_id"))

    @property
    def device_id(self) -> str | None:
        """The device; for mParticle its device stamp, or the identity ``other``."""
        if self.batch is None:
            return _text(self.wire.get("device_id"))
        stamp = _text(self.batch.get("mp_deviceid"))
        return stamp or _text(self._identity("device_id", "other"))

    @property
    def properties(self) -> dict[str, Any]:
        """The event properties, or mParticle's custom attributes."""
        name = "event_properties" if self.batch is None else "custom_attributes"
        found = self.data.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def insert_id(self) -> str:
        """What the server tells a second copy of the event by."""
        name = "insert_id" if self.batch is None else "source_message_id"
        return _text(self.data.get(name)) or self._accepted_as

    @property
    def key(self) -> str:
        """What is the same at each destination that an event went to."""
        if self.batch is None or self.insert_id != self._accepted_as:
            return self.insert_id
        return f"{self.insert_id}/{self._number}"

    @property
    def rank(self) -> int:
        """Which to show of those that several destinations had: the least."""
        if self.batch is not None:
            return 2
        return 0 if self.destination == AMPLITUDE else 1

    @property
    def identity(self) -> str:
        """Whose event it is; empty where nothing says so."""
        return self.user_id or self.device_id or self._other_identity()

    def field(self, name: str) -> Any:
        """Give a field of an Amplitude event, in either spelling, or ``MISSING``.

        Of an mParticle event it is what ``MParticleDestination`` makes of that field.
        """
        if self.batch is None:
            return self.wire.get(_WIRE_NAME.get(name, name), MISSING)
        name = ATTRIBUTE_OF.get(name, name)
        if name == "user_id":
            return MISSING if self.user_id is None else self.user_id
        if name == "device_id":
            return MISSING if self.device_id is None else self.device_id
        if name in _IN_DATA:
            return _at(self.data, _IN_DATA[name])
        return _at(self.batch, _IN_BATCH[name]) if name in _IN_BATCH else MISSING

    def property_named(self, name: str) -> Any:
        """Give an event property, or ``MISSING``.

        Of an mParticle event also what stands beside its attributes, such as
        ``product_action``.
        """
        found = self.properties.get(name, MISSING)
        if isinstance(found, Missing) and self.batch is not None:
            return self.data.get(name, MISSING)
        return found

    @cached_property
    def operations(self) -> dict[str, Any] | None:
        """What it changes of a user or a group, as ``Identify`` has it on the wire."""
        if self.batch is not None:
            return self._attribute_changes() if self._number == 0 else None
        if self.name == IDENTIFY:
            return _mapping(self.wire.get("user_properties"))
        if self.name == GROUP_IDENTIFY:
            return _mapping(self.wire.get("group_properties"))
        return None

    # What became of it -------------------------------------------------------

    @property
    def status(self) -> DeliveryStatus:
        """DELIVERED, which here means that it would have been sent, or why not."""
        return self._outcome.status

    @property
    def reason(self) -> DropReason | None:
        """Why it was dropped; None unless it was."""
        return self._outcome.reason

    @property
    def message(self) -> str:
        """What is wrong with it, in words."""
        return self._outcome.message

    def __getitem__(self, name: str) -> Any:
        return self.wire[name]

    def __repr__(self) -> str:
        return f"<Captured {self.told()}>"

    def told(self) -> str:
        """Tell of it on one line."""
        parts = [shown(self.name)]
        parts += [
            f"{name}={shown(value, 40)}"
            for name, value in (
                ("user_id", self.user_id),
                ("device_id", self.device_id),
            )
            if value is not None
        ]
        if self.properties:
            parts.append(shown(self.properties, _LONGEST_VIEW))
        if self.operations:
            parts.append(shown(self.operations, _LONGEST_VIEW))
        if (action := self.data.get("product_action")) is not None:
            parts.append(shown(action, _LONGEST_VIEW))
        if self.destination != AMPLITUDE:
            parts.append(f"at {shown(self.destination, 40)}")
        if self.status is not DeliveryStatus.DELIVERED:
            parts.append(f"{self.status}: {shown(self.message, _LONGEST_VIEW)}")
        return " ".join(parts)

    # Inside ------------------------------------------------------------------

    def _named(self) -> str:
        kind = _text(self.wire.get("event_type")) or ""
        if self.batch is None:
            return kind
        if not kind:
            return BATCH
        return _text(self.data.get(_NAME_IN_DATA.get(kind, ""))) or kind

    def _identity(self, amplitude: str, mparticle: str) -> object:
        if self.batch is None:
            return self.wire.get(amplitude)
        return _mapping(self.batch.get("user_identities")).get(mparticle)

    def _other_identity(self) -> str:
        if self.batch is None:
            groups = _mapping(self.wire.get("groups"))
            return "/".join(f"{kind}:{name}" for kind, name in sorted(groups.items()))
        others = _mapping(self.batch.get("user_identities")).values()
        known = (self.batch.get("mpid"), *others)
        return next((str(one) for one in known if one), "")

    def _attribute_changes(self) -> dict[str, Any] | None:
        batch = self.batch or {}
        changes: dict[str, Any] = {}
        if isinstance(found := batch.get("user_attributes"), dict):
            changes["$set"] = found
        if isinstance(gone := batch.get("deleted_user_attributes"), list):
            changes["$unset"] = {str(name): "-" for name in gone}
        return changes or None


class Arrival:
    """What was handed to a capture at once: an event, or an mParticle batch of some.

    Bytes are read when somebody looks; what may be changed later is read here.
    """

    __slots__ = ("_events", "_read", "destination", "insert_id", "outcome")

    def __init__(  # noqa: PLR0917 - what the client hands over, in its order
        self,
        destination: str,
        body: bytes | None,
        source: object,
        insert_id: str,
        outcome: Outcome,
    ) -> None:
        self.destination = destination
        self.insert_id = insert_id
        self.outcome = outcome
        self._events: tuple[Captured, ...] | None = None
        self._read: bytes | dict[str, Any] = _read(source) if body is None else body

    @property
    def events(self) -> tuple[Captured, ...]:
        """The events; always the same objects."""
        # Made by two threads at once they are equal, and the first are kept.
        made = self._events or tuple(self._made())
        self._events = self._events or made
        return self._events

    def _made(self) -> Iterator[Captured]:
        read = self._read
        whole = _decoded(read) if isinstance(read, bytes) else read
        given = whole.get("events")
        listed = given if isinstance(given, list) else []
        # An event of Amplitude's has its type at the top, a batch has none.
        if "event_type" in whole or ("environment" not in whole and not listed):
            yield Captured(self, whole)
            return
        events = [event for event in listed if isinstance(event, dict)]
        for number, event in enumerate(events or [{}]):
            yield Captured(self, event, whole, number)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return _mapping(from_json(body))
    except ValueError:
        return {}


def _read(source: Any) -> bytes | dict[str, Any]:
    """Show what can be shown of an event that was settled unencoded."""
    for read in (_body_of, _wire_of, _fields_of):
        # Values of theirs, and classes.
        with suppress(Exception, asyncio.CancelledError):
            return read(source)
    return {}


def _body_of(source: Any) -> bytes:
    """Give the bytes of an mParticle batch that was encoded all the same."""
    body = source.body
    if not isinstance(body, bytes):
        raise TypeError("no bytes")
    return body


def _wire_of(source: Any) -> dict[str, Any]:
    wire = source.to_wire()
    if not isinstance(wire, dict):
        raise TypeError("no fields")
    return wire


def _fields_of(source: Any) -> dict[str, Any]:
    fields = source if isinstance(source, dict) else source.__dict__
    policy = ValuePolicy()
    wire: dict[str, Any] = {}
    for name, value in list(fields.items()):
        if value is None or not isinstance(name, str):
            continue
        made = policy.convert(value, name, [])
        wire[_WIRE_NAME.get(name, name)] = shown(value) if made is DROP else made
    return wire


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = values
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return MISSING
        found = found[name]
    return found


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
