"""What all events share: their common fields and the envelope round them.

In Python an event is flat. On the wire its fields lie inside ``data``, beside the
``event_type`` (mParticle JSON reference, section Events). Both forms can be read.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

import pydantic_core
from pydantic import Field, field_validator

from amplitude_async.encoding import with_members
from amplitude_async.mparticle.models.context import (
    EventSystemNotificationInfo,
    GeoLocation,
)
from amplitude_async.mparticle.models.device import DeviceCurrentState
from amplitude_async.mparticle.models.enums import DataConnectionType, EventType
from amplitude_async.mparticle.models.fields import (
    Attributes,
    FilledId,
    Flag,
    Flags,
    Given,
    Int64,
    Known,
    LifetimeValue,
    Moment,
    MomentOrZero,
    Name,
    UuidText,
    moment_or_zero,
)
from amplitude_async.shown import shown
from amplitude_async.wire import WireModel

__all__ = [
    "BaseEvent",
    "Envelope",
    "GenericEvent",
    "enclose",
    "encode_event",
]

_ENVELOPE_KEYS: Final = frozenset({"event_type", "data"})
_NOT_DATA: Final = {"event_type"}
_NOTHING: Final = (None, "")
_TIME: Final = "timestamp_unixtime_ms"

# Listed event types whose shape no document gives.
_UNSHAPED: Final = frozenset({EventType.PUSH_REACTION, EventType.PRE_ATTRIBUTION})
_SHAPED: Final = frozenset(EventType) - _UNSHAPED


class Envelope(WireModel):
    """An event of any kind: it has a type and knows its form on the wire."""

    event_type: Name = Field(frozen=True)
    """The kind of event, which says what its data looks like."""

    def to_wire(self) -> dict[str, Any]:
        """Give the event as it is sent: a new ``{"event_type", "data"}``."""
        wire: dict[str, Any] = pydantic_core.from_json(encode_event(self))
        return wire

    def missing(self, names: Sequence[str]) -> list[str]:
        """Name those under which the data has nothing, or empty text."""
        return [name for name in names if getattr(self, name, None) in _NOTHING]

    def without(self, names: Sequence[str]) -> Self:
        """Give the event with nothing at all under names of its data."""
        # What is None stays off the wire anyway.
        there = [name for name in names if getattr(self, name, None) is not None]
        return self.model_copy(update=dict.fromkeys(there)) if there else self

    @abstractmethod
    def encode_data(self) -> bytes:
        """Encode the object that stands under ``data``."""


class BaseEvent(Envelope):
    """Fields that events of every published kind have. Unset ones stay off the wire."""

    explicit_nulls: ClassVar[tuple[str, ...]] = ()
    """Fields that are sent as null where they are None."""

    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that may be given without their name, in this order."""

    if not TYPE_CHECKING:

        def __init__(self, /, *values: Any, **fields: Any) -> None:
            __tracebackhide__ = True
            if values:
                fields = self._with_names(values, fields)
            # One event has a text field called data: the envelope's is an object.
            inner = fields.get("data")
            if isinstance(inner, Mapping) and fields.keys() <= _ENVELOPE_KEYS:
                outer = fields
                fields = dict(inner)
                if "event_type" in outer:
                    fields.setdefault("event_type", outer["event_type"])
            super().__init__(**fields)

        @classmethod
        def _with_names(
            cls, values: tuple[Any, ...], fields: dict[str, Any]
        ) -> dict[str, Any]:
            named = dict(zip(cls.positional, values, strict=False))
            twice = sorted(named.keys() & fields.keys())
            if twice or len(values) > len(named):
                own = cls.positional or tuple(
                    name for name, one in cls.model_fields.items() if one.is_required()
                )
                usage = ", ".join(f"{name}=..." for name in own or ("name",))
                raise TypeError(
                    f"{twice[0]} is given twice: give it once"
                    if twice
                    else f"{cls.__name__} takes its fields by name: "
                    f"{cls.__name__}({usage})"
                )
            return {**named, **fields}

    timestamp_unixtime_ms: Moment | None = None
    """When it happened; absent, it is filled in when the batch is sent."""

    source_message_id: FilledId | None = None
    """Identifier for de-duplication downstream; filled in when the batch is sent."""

    session_uuid: UuidText | None = None
    """The session: the same UUID in each of its events."""

    session_id: Int64 | None = None
    """The session as a number. The server derives it from `session_uuid`."""

    session_start_unixtime_ms: MomentOrZero | None = None
    """When the session started; 0 where there is none."""

    event_start_unixtime_ms: MomentOrZero | None = None
    """When an event with a duration started; 0 where there is none."""

    custom_attributes: Attributes | None = None
    """What is known of the event: text, numbers, bools and None, never lists.

    At most 100; names up to 256 characters, values up to 4,096.
    """

    location: Given[GeoLocation] | None = None
    """Where it happened."""

    device_current_state: Given[DeviceCurrentState] | None = None
    """Readings of the device at that moment."""

    event_id: Int64 | None = None
    """Assigned by the server. Not for senders."""

    event_num: Int64 | None = None
    """Position in the session, from 0."""

    is_goal_defined: Flag | None = None
    """Internal to mParticle."""

    lifetime_value_change: LifetimeValue | None = None
    """Change of the user's lifetime value."""

    lifetime_value_attribute_name: str | None = None
    """Attribute that holds the lifetime value."""

    data_connection_type: Annotated[str, Known(DataConnectionType)] | None = None
    """How the device was connected."""

    view_controller: str | None = None
    """View controller that was on the screen (iOS)."""

    is_main_thread: Flag | None = None
    """Whether it was logged on the main thread."""

    canonical_name: str | None = None
    """Class of the activity (Android)."""

    event_system_notification_info: EventSystemNotificationInfo | None = None
    """A mark of the server. Not for senders."""

    def encode_data(self) -> bytes:
        """Encode the object that stands under ``data``."""
        data: bytes = self.__pydantic_serializer__.to_json(
            self, exclude=_NOT_DATA, exclude_none=True, by_alias=True, warnings=False
        )
        # Left out with all other Nones: what they say is that there was nothing.
        nulls = [key for key in self.explicit_nulls if getattr(self, key) is None]
        if not nulls:
            return data
        return with_members(data, "".join(f',"{key}":null' for key in nulls).encode())


class GenericEvent(Envelope):
    """An event of a kind this package has no class for: its data goes out as it is."""

    data: Flags
    """The object that stands under ``data``: any JSON values."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Name those under which the data has nothing, or empty text."""
        return [name for name in names if self.data.get(name) in _NOTHING]

    def without(self, names: Sequence[str]) -> Self:
        """Give the event with nothing at all under names of its data."""
        data = {key: value for key, value in self.data.items() if key not in names}
        return self.model_copy(update={"data": data})

    @property
    def timestamp_unixtime_ms(self) -> int | None:
        """When it happened, where `data` says so in whole milliseconds."""
        moment = self.data.get(_TIME)
        # Nobody has checked what stands there.
        return moment if type(moment) is int else None

    @property
    def source_message_id(self) -> str | None:
        """Identifier for de-duplication, where `data` has one."""
        given = self.data.get("source_message_id")
        return given if isinstance(given, str) else None

    @field_validator("data", mode="before")
    @classmethod
    def _tells_its_time(cls, data: Any) -> Any:
        # All else is sent as it is, but a moment means the same in every event.
        moment = data.get(_TIME) if isinstance(data, Mapping) else None
        if type(moment) is float and moment.is_integer():
            moment = int(moment)
        if isinstance(moment, bool) or not isinstance(moment, (datetime, int, float)):
            return data
        return {**data, _TIME: moment_or_zero(moment)}

    @field_validator("event_type")
    @classmethod
    def _has_no_class(cls, event_type: str) -> str:
        if event_type in _SHAPED:
            raise ValueError(
                f"{shown(event_type)} has a class of its own: use it, it checks "
                "the fields"
            )
        return event_type

    def encode_data(self) -> bytes:
        """Encode the object that stands under ``data``."""
        return pydantic_core.to_json(self.data)


def encode_event(event: Envelope) -> bytes:
    """Encode an event as it is sent: ``{"event_type": ..., "data": {...}}``."""
    return enclose(event, event.encode_data())


def enclose(event: Envelope, data: bytes) -> bytes:
    """Put an event's encoded data into its envelope."""
    kind = pydantic_core.to_json(event.event_type)
    return b'{"event_type":%b,"data":%b}' % (kind, data)
