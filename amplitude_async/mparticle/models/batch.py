"""The batch: all that is sent about one user at once.

A batch and its events are flat in Python. `encode_batch` gives the bytes of the wire
form, and `Batch.model_validate` reads both forms.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Self, TypeAlias

import pydantic_core
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from amplitude_async.mparticle.models.commerce import CommerceEvent
from amplitude_async.mparticle.models.consent import ConsentState
from amplitude_async.mparticle.models.context import (
    ApplicationInformation,
    AttributionInfo,
    BatchContext,
    SourceInformation,
)
from amplitude_async.mparticle.models.device import DeviceInformation
from amplitude_async.mparticle.models.enums import Environment, EventType
from amplitude_async.mparticle.models.envelope import (
    BaseEvent,
    Envelope,
    GenericEvent,
    encode_event,
)
from amplitude_async.mparticle.models.events import (
    BreadcrumbEvent,
    CrashReportEvent,
    CustomEvent,
    NetworkPerformanceEvent,
    OptOutEvent,
    ProfileEvent,
    ScreenViewEvent,
    SessionEndEvent,
    SessionStartEvent,
    UserAttributeChangeEvent,
    UserIdentityChangeEvent,
)
from amplitude_async.mparticle.models.fields import (
    Int64,
    Moment,
    Mpid,
    UserAttributes,
    UuidText,
)
from amplitude_async.mparticle.models.identities import UserIdentities
from amplitude_async.mparticle.models.lifecycle import (
    ApplicationStateTransitionEvent,
    FirstRunEvent,
    PreAttributionEvent,
    PushMessageEvent,
    PushReactionEvent,
    PushRegistrationEvent,
    UninstallEvent,
)
from amplitude_async.wire import Id, WireModel

__all__ = [
    "Batch",
    "Event",
    "decode_batch",
    "encode_batch",
    "encode_head",
    "events_of",
    "join_batch",
    "new_uuid",
    "stamp",
]

_GENERIC: Final = "generic"


def _environment(value: object) -> Environment:
    try:
        return Environment(value)  # type: ignore[arg-type]  # that is what it checks
    except ValueError:
        raise PydanticCustomError(
            "not_an_environment",
            "{value} should be 'development' or 'production': an unknown environment "
            "would mix test data into live data",
            {"value": repr(value)[:80]},
        ) from None


def _tag(value: object) -> str | None:
    """Tell which class reads an event, from its `event_type` alone."""
    if isinstance(value, Mapping):
        kind = value.get("event_type")
    else:
        kind = getattr(value, "event_type", None)
    if not isinstance(kind, str):
        return None
    return str(kind) if kind in _CLASSES else _GENERIC


# Compared with what arrives, which may be anything.
_CLASSES: Final = frozenset(EventType)

Event: TypeAlias = Annotated[
    Annotated[CustomEvent, Tag("custom_event")]
    | Annotated[CommerceEvent, Tag("commerce_event")]
    | Annotated[ScreenViewEvent, Tag("screen_view")]
    | Annotated[SessionStartEvent, Tag("session_start")]
    | Annotated[SessionEndEvent, Tag("session_end")]
    | Annotated[CrashReportEvent, Tag("crash_report")]
    | Annotated[OptOutEvent, Tag("opt_out")]
    | Annotated[FirstRunEvent, Tag("first_run")]
    | Annotated[ApplicationStateTransitionEvent, Tag("application_state_transition")]
    | Annotated[PushMessageEvent, Tag("push_message")]
    | Annotated[PushRegistrationEvent, Tag("push_registration")]
    | Annotated[PushReactionEvent, Tag("push_reaction")]
    | Annotated[NetworkPerformanceEvent, Tag("network_performance")]
    | Annotated[BreadcrumbEvent, Tag("breadcrumb")]
    | Annotated[ProfileEvent, Tag("profile")]
    | Annotated[UserAttributeChangeEvent, Tag("user_attribute_change")]
    | Annotated[UserIdentityChangeEvent, Tag("user_identity_change")]
    | Annotated[UninstallEvent, Tag("uninstall")]
    | Annotated[PreAttributionEvent, Tag("pre_attribution")]
    | Annotated[GenericEvent, Tag(_GENERIC)],
    Discriminator(
        _tag,
        custom_error_type="not_an_event",
        custom_error_message="an event should be an event model or a dict with its "
        "event_type, for example CustomEvent(event_name='signup')",
    ),
]
"""Any event, told apart by its `event_type`; a `GenericEvent` where that is unknown."""

_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(Event)
_NO_EVENTS: Final = {"events"}
_NO_CONSENT: Final = {"events", "consent_state"}

_EnvironmentField: TypeAlias = Annotated[
    Environment | Any,
    PlainValidator(_environment),
    WithJsonSchema({"type": "string", "enum": [str(value) for value in Environment]}),
]


class Batch(WireModel):
    """One user's identities, attributes, device, app, consent and events."""

    # An error that shows the whole input would show the key in it.
    model_config = ConfigDict(hide_input_in_errors=True)

    environment: _EnvironmentField
    """Development or production. There is no default: the server's is production."""

    events: list[Event] = Field(default_factory=list)
    """What happened. May be empty, but not for the historical endpoint."""

    user_identities: UserIdentities | None = None
    """Who the user is. This, `mpid`, `mp_deviceid` or a device id is needed."""

    mpid: Mpid | None = None
    """The mParticle id of the user; decimal text becomes a number."""

    mp_deviceid: UuidText | None = None
    """The device application stamp of mParticle's SDKs."""

    user_attributes: UserAttributes | None = None
    """What is known of the user: scalars or lists of scalars; None is sent as null.

    Names that begin with ``$`` are reserved, for example ``$age`` or ``$zip``.
    """

    deleted_user_attributes: list[str] | None = None
    """Names of attributes to forget."""

    consent_state: ConsentState | None = None
    """What the user has agreed to. Keys of a partner feed cannot change it."""

    device_info: DeviceInformation | None = None
    """The device."""

    application_info: ApplicationInformation | None = None
    """The app."""

    context: BatchContext | None = None
    """Data plan and place."""

    ip: str | None = None
    """Address of the user's device, version 4 or 6."""

    source_request_id: Id | None = None
    """The server drops a second batch with the same one, for 30 days or more.

    Filled in when the batch is sent. Never give it to two different batches.
    """

    integration_attributes: dict[str, dict[str, str]] | None = None
    """Id of an integration, as text, to its own attributes."""

    partner_identity: str | None = None
    """Identity of the partner that sends the feed."""

    partner_identities: dict[str, str] | None = None
    """Names registered with mParticle to identities; others can fail the request."""

    attribution_info: AttributionInfo | None = None
    """To whom the install is credited."""

    api_key: str | None = Field(default=None, repr=False)
    """For intake from a queue. Over HTTP the key goes into a header."""

    api_keys: list[str] | None = Field(default=None, repr=False)
    """The same for several keys."""

    sdk_version: str | None = None
    """Version of the SDK that captured the data."""

    job_id: str | None = None
    """Undocumented."""

    origin_mpid: Mpid | None = None
    """The mParticle user the data first belonged to."""

    source_info: SourceInformation | None = None
    """Filled in by the server. Not for senders."""

    timestamp_unixtime_ms: Moment | None = None
    """Filled in by the server. Moments belong to the events."""

    batch_id: Int64 | None = None
    """Assigned by the server. Take it off before sending a received batch again."""

    schema_version: Int64 | None = None
    """Part of what the server sends out; the published schema forbids it."""

    @model_validator(mode="after")
    def _keeps_or_forgets(self) -> Self:
        if self.deleted_user_attributes and self.user_attributes:
            both = self.user_attributes.keys() & set(self.deleted_user_attributes)
            if both:
                raise ValueError(
                    f"{sorted(both)} in user_attributes and in "
                    "deleted_user_attributes: remove each from one of the two"
                )
        return self

    def to_wire(self) -> dict[str, Any]:
        """Give the batch as it is sent: a new dict."""
        wire: dict[str, Any] = pydantic_core.from_json(encode_batch(self))
        return wire

    @property
    def has_identity(self) -> bool:
        """Whether anything ties the batch to a user or a device."""
        device = self.device_info
        return (
            self.mpid is not None
            or self.mp_deviceid is not None
            or _has_values(self.user_identities)
            or bool(self.partner_identities)
            or (
                device is not None
                and any(getattr(device, name) is not None for name in _DEVICE_IDS)
            )
        )


_DEVICE_IDS: Final = (
    "ios_advertising_id",
    "ios_idfv",
    "android_advertising_id",
    "android_uuid",
    "roku_advertising_id",
    "roku_publisher_id",
    "microsoft_advertising_id",
    "microsoft_publisher_id",
    "fire_advertising_id",
    "amp_id",
)


def _has_values(model: BaseModel | None) -> bool:
    return model is not None and any(
        value is not None for value in model.__dict__.values()
    )


# --- The wire ---


def events_of(batch: Batch) -> list[Envelope]:
    """Give the events of a batch as models.

    Raises:
        pydantic.ValidationError: Something was appended that is no event.
    """
    return [
        event if isinstance(event, Envelope) else _EVENT.validate_python(event)
        for event in batch.events
    ]


def encode_batch(batch: Batch) -> bytes:
    """Encode a batch as it is sent.

    Raises:
        pydantic.ValidationError: Something was appended that is no event.
    """
    return join_batch(encode_head(batch), map(encode_event, events_of(batch)))


def encode_head(batch: Batch) -> bytes:
    """Encode all of a batch but its events."""
    consent = batch.consent_state
    left_out = _NO_CONSENT if consent is not None and consent.is_empty else _NO_EVENTS
    head: bytes = batch.__pydantic_serializer__.to_json(
        batch, exclude=left_out, exclude_none=True, by_alias=True, warnings=False
    )
    return head


def join_batch(head: bytes, events: Iterable[bytes]) -> bytes:
    """Put encoded events into an encoded head."""
    body = b",".join(events)
    # A head is never an empty object: it has the environment.
    return head[:-1] + b',"events":[' + body + b"]}" if body else head


def decode_batch(body: bytes) -> Batch:
    """Read a batch that was encoded.

    Raises:
        ValueError: It is no JSON, or no batch (a pydantic.ValidationError).
    """
    return Batch.model_validate(pydantic_core.from_json(body))


# --- Filling in ---

# The version, 4, stands in bits 76 to 79, the variant, binary 10, in bits 62 and 63.
_RANDOM_BITS: Final = (1 << 128) - 1 & ~(0xF << 76) & ~(0b11 << 62)
_VERSION_4: Final = 0x4 << 76 | 0b10 << 62


def new_uuid() -> str:
    """Make a random UUID (RFC 9562, version 4) as text, at a third of uuid4's price."""
    bits = random.getrandbits(128) & _RANDOM_BITS | _VERSION_4
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def stamp(batch: Batch, *, now_ms: int, new_id: Callable[[], str] = new_uuid) -> Batch:
    """Fill in ids and times that are absent: done once, before the first attempt.

    The server de-duplicates on these, so a batch has to be stamped before it is
    encoded and never again between retries. Stamping twice changes nothing.

    Args:
        batch: Not changed.
        now_ms: The time given to events without one.
        new_id: Makes ids.

    Returns:
        A copy with ``source_request_id``, and with ``timestamp_unixtime_ms`` and
        ``source_message_id`` in each event.
    """
    filled: dict[str, Any] = {
        "events": [_stamped(event, now_ms, new_id) for event in events_of(batch)]
    }
    if not batch.source_request_id:
        filled["source_request_id"] = new_id()
    return batch.model_copy(update=filled)


def _stamped(event: Envelope, now_ms: int, new_id: Callable[[], str]) -> Envelope:
    if isinstance(event, GenericEvent):
        added: dict[str, Any] = {}
        if event.data.get("timestamp_unixtime_ms") is None:
            added["timestamp_unixtime_ms"] = now_ms
        if not event.data.get("source_message_id"):
            added["source_message_id"] = new_id()
        return event.model_copy(update={"data": {**event.data, **added}})
    if not isinstance(event, BaseEvent):
        return event
    filled: dict[str, Any] = {}
    if event.timestamp_unixtime_ms is None:
        filled["timestamp_unixtime_ms"] = now_ms
    if not event.source_message_id:
        filled["source_message_id"] = new_id()
    return event.model_copy(update=filled) if filled else event
