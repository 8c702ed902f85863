"""The batch: all that is sent about one user at once.

A batch and its events are flat in Python. `encode_batch` gives the bytes of the wire
form, and `Batch.model_validate` reads both forms.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import pydantic_core
from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from amplitude_async.encoding import with_members
from amplitude_async.mparticle.models.changes import checked, under
from amplitude_async.mparticle.models.commerce import CommerceEvent
from amplitude_async.mparticle.models.consent import ConsentState
from amplitude_async.mparticle.models.context import (
    ApplicationInformation,
    AttributionInfo,
    BatchContext,
    SourceInformation,
)
from amplitude_async.mparticle.models.device import DEVICE_IDS, DeviceInformation
from amplitude_async.mparticle.models.enums import Environment, EventType
from amplitude_async.mparticle.models.envelope import (
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
    FilledId,
    Given,
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
from amplitude_async.shown import shown
from amplitude_async.wire import WireModel

__all__ = [
    "Batch",
    "Event",
    "checked_batch",
    "decode_batch",
    "encode_batch",
    "encode_head",
    "events_of",
    "group_events",
    "join_batch",
]

_GENERIC: Final = "generic"
_NOBODY: Final = (None, "")


def _environment(value: object) -> Environment:
    try:
        return Environment(value)  # type: ignore[arg-type]  # that is what it checks
    except ValueError:
        raise PydanticCustomError(
            "not_an_environment",
            "{value} should be 'development' or 'production': an unknown environment "
            "would mix test data into live data",
            {"value": shown(value)},
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
_OPPOSITES: Final = {
    "user_attributes": "deleted_user_attributes",
    "deleted_user_attributes": "user_attributes",
}

_EnvironmentField: TypeAlias = Annotated[
    Environment | Any,
    PlainValidator(_environment),
    WithJsonSchema({"type": "string", "enum": [str(value) for value in Environment]}),
]


if TYPE_CHECKING:
    # A list of one kind of event is no list of all kinds, to a type checker.
    _Events: TypeAlias = list[Event] | Any
else:
    _Events = list[Event]


class Batch(WireModel):
    """One user's identities, attributes, device, app, consent and events."""

    # An error that shows the whole input would show the key in it.
    model_config = ConfigDict(hide_input_in_errors=True)

    environment: _EnvironmentField
    """Development or production. There is no default: the server's is production."""

    events: _Events = Field(default_factory=list)
    """What happened. May be empty, but not for the historical endpoint."""

    user_identities: Given[UserIdentities] | None = None
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

    consent_state: Given[ConsentState] | None = None
    """What the user has agreed to. Keys of a partner feed cannot change it."""

    device_info: Given[DeviceInformation] | None = None
    """The device."""

    application_info: Given[ApplicationInformation] | None = None
    """The app."""

    context: Given[BatchContext] | None = None
    """Data plan and place."""

    ip: str | None = None
    """Address of the user's device, version 4 or 6."""

    source_request_id: FilledId | None = None
    """The server drops a second batch with the same one, for 30 days or more.

    Filled in when the batch is sent. Never give it to two different batches.
    """

    integration_attributes: dict[str, dict[str, str]] | None = None
    """Id of an integration, as text, to its own attributes."""

    partner_identity: str | None = None
    """Identity of the partner that sends the feed."""

    partner_identities: dict[str, str] | None = None
    """Names registered with mParticle to identities; others can fail the request."""

    attribution_info: Given[AttributionInfo] | None = None
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

    # Here and not after the model, so that an assignment that raises changes nothing.
    @field_validator("user_attributes", "deleted_user_attributes")
    @classmethod
    def _keeps_or_forgets(cls, value: Any, info: ValidationInfo) -> Any:
        # The server does not say which of the two it would do.
        other = _OPPOSITES[str(info.field_name)]
        both = {*(value or ())} & {*(info.data.get(other) or ())}
        if both:
            raise ValueError(
                f"{sorted(both)} in user_attributes and in "
                "deleted_user_attributes: remove each from one of the two"
            )
        return value

    def to_wire(self) -> dict[str, Any]:
        """Give the batch as it is sent: a new dict."""
        wire: dict[str, Any] = pydantic_core.from_json(encode_batch(self))
        return wire

    @property
    def identity(self) -> str | None:
        """Whom the batch is about; None where nothing ties it to a user or a device.

        Queued batches of one identity reach the server in order.
        """
        given = self._identities()
        return next((str(one) for one in given if one not in _NOBODY), None)

    @property
    def has_identity(self) -> bool:
        """Whether anything ties the batch to a user or a device."""
        return self.identity is not None

    def _identities(self) -> Iterator[object]:
        # What names the user for certain comes first, what mParticle shares last.
        yield self.mpid
        if self.user_identities is not None:
            yield from self.user_identities.__dict__.values()
        yield self.mp_deviceid
        if self.device_info is not None:
            yield from (getattr(self.device_info, name) for name in DEVICE_IDS)
        yield from (self.partner_identities or {}).values()


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


def checked_batch(batch: Batch) -> Batch:
    """Check what was changed in place since the batch and its events were made.

    Returns:
        The batch itself where all is as it should be, otherwise a copy.

    Raises:
        pydantic.ValidationError: Something cannot be sent; the error says where.
    """
    head = checked(batch, attributes="user_attributes", but="events")
    events: list[Envelope] = []
    as_given = True
    try:
        for given in batch.events:
            if isinstance(given, Envelope):
                event = checked(given, attributes="custom_attributes")
                as_given = as_given and event is given
            else:
                event = _EVENT.validate_python(given)
                as_given = False
            events.append(event)
    except ValidationError as error:
        raise under(error, "events", len(events)) from None
    return head if as_given else head.model_copy(update={"events": events})


def encode_batch(batch: Batch) -> bytes:
    """Encode a batch as it is sent.

    Raises:
        pydantic.ValidationError: Something was put into it that cannot be sent.
    """
    batch = checked_batch(batch)
    return join_batch(encode_head(batch), map(encode_event, events_of(batch)))


def encode_head(batch: Batch, *, but: str | None = None) -> bytes:
    """Encode all of a batch but its events.

    Args:
        batch: Checked by `checked_batch`.
        but: A further field to leave out.
    """
    consent = batch.consent_state
    left_out: dict[str, Any] = {"events": True}
    if but is not None:
        left_out[but] = True
    if consent is not None:
        left_out["consent_state"] = consent.is_empty or consent.empty_maps
    head: bytes = batch.__pydantic_serializer__.to_json(
        batch, exclude=left_out, exclude_none=True, by_alias=True, warnings=False
    )
    return head


def join_batch(head: bytes, events: Iterable[bytes]) -> bytes:
    """Put encoded events into an encoded head."""
    body = b",".join(events)
    # The server takes an empty list too; without one there is less to send.
    return with_members(head, b',"events":[%b]' % body) if body else head


def decode_batch(body: bytes) -> Batch:
    """Read a batch that was encoded.

    Raises:
        ValueError: It is no JSON, or no batch (a pydantic.ValidationError).
    """
    return Batch.model_validate(pydantic_core.from_json(body))


# --- Many users ---


def group_events(
    events: Iterable[tuple[UserIdentities | Mapping[str, Any], Envelope]],
    *,
    environment: Environment | str,
    **shared: Any,
) -> list[Batch]:
    """Sort the events of many users into one batch for each user.

    Users come in the order of their first event, and their events in the order given.

    Args:
        events: Pairs of a user's identities and one of the user's events. Pairs with
            equal identities belong to the same user.
        environment: Goes into each batch.
        **shared: Further fields of `Batch` that go into each of them.
    """
    groups: dict[frozenset[tuple[str, str]], tuple[UserIdentities, list[Envelope]]] = {}
    for given, event in events:
        identities = UserIdentities.model_validate(given)
        # Not the model itself, which can be changed and so has no hash.
        key = frozenset(identities.model_dump(exclude_none=True).items())
        groups.setdefault(key, (identities, []))[1].append(event)
    return [
        Batch.model_validate(
            {
                **shared,
                "environment": environment,
                "user_identities": identities,
                "events": own,
            }
        )
        for identities, own in groups.values()
    ]
