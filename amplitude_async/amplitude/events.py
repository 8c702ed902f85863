"""Amplitude events as pydantic models.

Field names, meanings and wire spellings follow the Amplitude HTTP V2 API
documentation, section "Keys for the event argument". Attributes are snake_case;
where the wire spells a key otherwise (``productId``), both spellings are accepted.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    TypeAlias,
    TypedDict,
    Unpack,
)
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from amplitude_async.amplitude.fields import (
    ABSENT,
    Context,
    Finite,
    Groups,
    Id,
    OptionalMilliseconds,
    OptionalMoment,
    Properties,
    Text,
    WholeNumber,
    WireModel,
    few_members,
    few_properties,
)

__all__ = [
    "ATTRIBUTE_OF",
    "GROUP_IDENTIFY",
    "IDENTIFY",
    "INPUT_NAMES",
    "REVENUE",
    "Event",
    "EventFields",
    "EventOptionFields",
    "EventOptions",
    "IngestionMetadata",
    "Plan",
    "add_properties",
]

IDENTIFY: Final = "$identify"
"""Event type of user property operations."""

GROUP_IDENTIFY: Final = "$groupidentify"
"""Event type of group property operations; needs no user or device id."""

REVENUE: Final = "revenue_amount"
"""Event type of revenue events."""


class Plan(WireModel):
    """The tracking plan an event belongs to."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            branch: str | None = None,
            source: str | None = None,
            version: str | None = None,
            version_id: str | None = None,
        ) -> None: ...

    branch: Text | None = None
    """Name of the branch of the plan, for example ``main``."""

    source: Text | None = None
    """Where the plan is used, for example ``web``."""

    version: Text | None = None
    """Version of the plan."""

    version_id: Text | None = Field(
        default=None, validation_alias="versionId", serialization_alias="versionId"
    )
    """Identifier of the version; ``versionId`` on the wire."""


class IngestionMetadata(WireModel):
    """What produced the event, where that is not the application itself."""

    if TYPE_CHECKING:

        def __init__(
            self, *, source_name: str | None = None, source_version: str | None = None
        ) -> None: ...

    source_name: Text | None = None
    """Name of the producer, for example ``ampli``."""

    source_version: Text | None = None
    """Version of the producer."""


# --- Typed keyword fields ---

_IdLike: TypeAlias = str | int | UUID
_NumberLike: TypeAlias = float | Decimal
_GroupLike: TypeAlias = _IdLike | Sequence[_IdLike]


class EventOptionFields(TypedDict, total=False):
    """What `EventOptions` takes, for type checkers. See there for the meanings."""

    user_id: _IdLike | None
    device_id: _IdLike | None
    time: int | datetime | None
    insert_id: _IdLike | None
    session_id: int | datetime | None
    event_id: int | None
    app_version: str | None
    version_name: str | None
    platform: str | None
    os_name: str | None
    os_version: str | None
    device_brand: str | None
    device_manufacturer: str | None
    device_model: str | None
    carrier: str | None
    country: str | None
    region: str | None
    city: str | None
    dma: str | None
    language: str | None
    ip: str | None
    location_lat: _NumberLike | None
    location_lng: _NumberLike | None
    user_agent: str | None
    price: _NumberLike | None
    quantity: int | None
    revenue: _NumberLike | None
    product_id: str | None
    revenue_type: str | None
    currency: str | None
    receipt: str | None
    receipt_sig: str | None
    idfa: str | None
    idfv: str | None
    adid: str | None
    android_id: str | None
    android_app_set_id: str | None
    partner_id: str | None
    library: str | None
    plan: Plan | Mapping[str, str] | None
    ingestion_metadata: IngestionMetadata | Mapping[str, str] | None
    skip_user_properties_sync: bool | None
    extra: Mapping[str, Any] | None


class EventFields(EventOptionFields, total=False):
    """What `Event` takes besides its type: the keyword fields of the verbs."""

    event_properties: Mapping[str, Any] | None
    user_properties: Mapping[str, Any] | None
    groups: Mapping[str, _GroupLike] | None
    group_properties: Mapping[str, Any] | None


# --- The models ---


class EventOptions(WireModel):
    """Every field of an event but its type and its properties.

    Unset fields are None and stay off the wire.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[EventOptionFields]) -> None: ...

    user_id: Id | None = None
    """The user. This or `device_id` is required; int and UUID become text."""

    device_id: Id | None = None
    """The device. Absent, the server derives one from the user id."""

    time: OptionalMoment = ABSENT
    """When it happened: milliseconds since the epoch, or an aware datetime.

    Absent, it is filled in when the event is accepted.
    """

    insert_id: Id | None = None
    """The server drops a second event of a device with the same value.

    Absent, it is filled in when the event is accepted.
    """

    session_id: OptionalMilliseconds = ABSENT
    """Start of the session in milliseconds since the epoch; -1 is no session."""

    event_id: WholeNumber | None = None
    """A counter that tells apart events of the same user and time."""

    app_version: Text | None = None
    """Version of the application."""

    version_name: Text | None = None
    """Name of the version of the application."""

    platform: Text | None = None
    """Platform of the device, for example ``Web`` or ``iOS``."""

    os_name: Text | None = None
    """Name of the operating system."""

    os_version: Text | None = None
    """Version of the operating system."""

    device_brand: Text | None = None
    """Brand of the device."""

    device_manufacturer: Text | None = None
    """Manufacturer of the device."""

    device_model: Text | None = None
    """Model of the device."""

    carrier: Text | None = None
    """Mobile carrier."""

    country: Text | None = None
    """Country of the user; given alone it resets region, city and dma."""

    region: Text | None = None
    """Region of the user."""

    city: Text | None = None
    """City of the user."""

    dma: Text | None = None
    """Designated market area of the user."""

    language: Text | None = None
    """Language of the user."""

    ip: Text | None = None
    """Address of the user; ``$remote`` takes the address of the request."""

    location_lat: Finite | None = None
    """Latitude of the user."""

    location_lng: Finite | None = None
    """Longitude of the user."""

    user_agent: Text | None = None
    """Raw user agent, from which the server derives device and system."""

    price: Finite | None = None
    """Price of one item; negative for a refund."""

    quantity: WholeNumber | None = None
    """Number of items; the server assumes 1."""

    revenue: Finite | None = None
    """Revenue; `price` times `quantity` wins where all three are given."""

    product_id: Text | None = Field(
        default=None, validation_alias="productId", serialization_alias="productId"
    )
    """Identifier of the product; ``productId`` on the wire."""

    revenue_type: Text | None = Field(
        default=None, validation_alias="revenueType", serialization_alias="revenueType"
    )
    """Kind of revenue, for example ``tax``; ``revenueType`` on the wire."""

    currency: Text | None = None
    """Currency as three capital letters, ISO 4217."""

    receipt: Text | None = None
    """Receipt of the purchase, for verification."""

    receipt_sig: Text | None = Field(
        default=None, validation_alias="receiptSig", serialization_alias="receiptSig"
    )
    """Signature of the receipt; ``receiptSig`` on the wire."""

    idfa: Text | None = None
    """Identifier for advertisers (iOS)."""

    idfv: Text | None = None
    """Identifier for vendors (iOS)."""

    adid: Text | None = None
    """Advertising id (Google Play services)."""

    android_id: Text | None = None
    """Android id, not the advertising id."""

    android_app_set_id: Text | None = None
    """App set id (Android)."""

    partner_id: Text | None = None
    """Identifier of the partner that sends the event."""

    library: Text | None = None
    """Name and version of the sending library; filled in where absent."""

    plan: Annotated[Plan, BeforeValidator(few_members)] | None = None
    """Tracking plan; the client's own where absent."""

    ingestion_metadata: (
        Annotated[IngestionMetadata, BeforeValidator(few_members)] | None
    ) = None
    """Producer of the event; the client's own where absent."""

    skip_user_properties_sync: bool | None = Field(
        default=None,
        strict=True,
        validation_alias="$skip_user_properties_sync",
        serialization_alias="$skip_user_properties_sync",
    )
    """True keeps the user's properties out of the event, for backfills.

    ``$skip_user_properties_sync`` on the wire.
    """

    extra: Context | None = Field(default=None, exclude=True)
    """Context for plugins of this process. Never sent."""


class Event(EventOptions):
    """One event: its type, its properties and the fields of `EventOptions`.

    Property values may be anything; what has no JSON form loses its own key when
    the event is encoded.
    """

    if TYPE_CHECKING:

        def __init__(self, event_type: str, **fields: Unpack[EventFields]) -> None: ...

    _by_place: ClassVar = ("event_type",)

    event_type: str
    """What happened, for example ``Button Clicked``."""

    event_properties: Properties | None = None
    """What is known of this event."""

    user_properties: Properties | None = None
    """What is known of the user; operations only where the type is ``$identify``."""

    groups: Groups | None = None
    """Group type to group name or names; at most 5 types and 10 names in all."""

    group_properties: Properties | None = None
    """Properties of a group, where the type is ``$groupidentify``."""

    def to_wire(self) -> dict[str, Any]:
        """Give the event as it goes on the wire, but for what a client fills in.

        Raises:
            pydantic.ValidationError: A value is bad, and the event cannot do without.
        """
        # Not above: the encoder makes bytes of these models.
        from amplitude_async.amplitude.encoder import to_wire  # noqa: PLC0415

        return to_wire(self)


def add_properties(fields: EventFields, own: Mapping[str, Any]) -> None:
    """Put properties into the fields of an event; they win over those that are there.

    What is there and no mapping stays, for the model to refuse.
    """
    given = fields.get("event_properties")
    try:
        read = {} if given is None else few_properties(given)
    except ValueError:
        return
    if isinstance(read, dict):
        fields["event_properties"] = {**read, **own}


def _wire_names(model: type[BaseModel]) -> dict[str, str]:
    """Map each wire spelling that differs to its attribute."""
    return {
        info.serialization_alias: name
        for name, info in model.model_fields.items()
        if info.serialization_alias is not None
    }


ATTRIBUTE_OF: Final = _wire_names(Event)
"""The attribute behind each wire spelling that is not its name."""

_FIELD_NAMES: Final = frozenset(Event.model_fields) - {"event_type"}

INPUT_NAMES: Final = _FIELD_NAMES | ATTRIBUTE_OF.keys()
"""All names that a keyword field may have, in both spellings."""
