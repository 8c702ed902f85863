"""Amplitude events as pydantic models, and their one encoding into bytes.

Field names, meanings and wire spellings follow the Amplitude HTTP V2 API
documentation, section "Keys for the event argument". Attributes are snake_case;
where the wire spells a key otherwise (``productId``), both spellings are accepted.
"""

import difflib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import (
    CoreSchema,
    InitErrorDetails,
    PydanticCustomError,
    PydanticSerializationError,
    core_schema,
    from_json,
)

from amplitude_async.encoding import (
    DROP,
    Loss,
    ValuePolicy,
    is_encodable_text,
    to_json,
)

__all__ = [
    "GROUP_IDENTIFY",
    "IDENTIFY",
    "REVENUE",
    "EncodedEvent",
    "Event",
    "EventDefaults",
    "EventFields",
    "EventOptionFields",
    "EventOptions",
    "Finite",
    "IngestionMetadata",
    "Plan",
    "TypedEvent",
    "WireModel",
    "build_event",
    "check_field_names",
    "decode_event",
    "encode_event",
    "merge_options",
    "near_miss",
    "new_insert_id",
    "unix_ms",
]

IDENTIFY: Final = "$identify"
"""Event type of user property operations."""

GROUP_IDENTIFY: Final = "$groupidentify"
"""Event type of group property operations; needs no user or device id."""

REVENUE: Final = "revenue_amount"
"""Event type of revenue events."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def near_miss(name: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that a misspelt name probably meant, or None."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else None


# --- Types of fields: decided in Rust for what is usual, in Python for the rest ---


def _ms_of(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    return (moment - _EPOCH) // _MILLISECOND


# Compared by identity: typing hashes annotations, and schemas have no hash.
@dataclass(frozen=True, slots=True, eq=False)
class _Lenient:
    """A field that takes related Python types and holds one plain type.

    A union built by hand: the first choice costs no more than the bare type, and
    one message covers all the choices.
    """

    choices: tuple[CoreSchema, ...]
    message: str
    serializer: Literal["str", "float", "int", "any"]
    json_schema: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.union_schema(
            list(self.choices),
            mode="left_to_right",
            custom_error_type="unusable_value",
            custom_error_message=self.message,
            # Without it the serializer would try each choice in turn.
            serialization=core_schema.simple_ser_schema(self.serializer),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.json_schema


def _from_instance(kind: type, convert: Callable[[Any], Any]) -> CoreSchema:
    return core_schema.no_info_after_validator_function(
        convert, core_schema.is_instance_schema(kind)
    )


def _finite(number: Decimal) -> float:
    as_float = float(number)
    if not isfinite(as_float):
        raise ValueError("not finite")
    return as_float


_ID_CHOICES: Final = (
    core_schema.str_schema(),
    core_schema.no_info_after_validator_function(
        str, core_schema.int_schema(strict=True)
    ),
    _from_instance(UUID, str),
)

_Id: TypeAlias = Annotated[
    str,
    _Lenient(
        _ID_CHOICES,
        "an id should be text, an int or a UUID: convert it with str()",
        "str",
        {"type": "string"},
    ),
]

_GroupName: TypeAlias = Annotated[
    str | list[str],
    _Lenient(
        (
            *_ID_CHOICES,
            core_schema.list_schema(core_schema.union_schema(list(_ID_CHOICES))),
        ),
        "a group name should be text, an int or a UUID, or a list of these",
        "any",
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
]

Finite: TypeAlias = Annotated[
    float,
    _Lenient(
        (
            core_schema.float_schema(strict=True, allow_inf_nan=False),
            _from_instance(Decimal, _finite),
        ),
        "should be a finite number (int, float or Decimal): convert it with float()",
        "float",
        {"type": "number"},
    ),
]
"""A finite float; int and Decimal become one, bool and text are refused."""

_Milliseconds: TypeAlias = Annotated[
    int,
    _Lenient(
        (core_schema.int_schema(strict=True), _from_instance(datetime, _ms_of)),
        "should be whole milliseconds since the epoch or an aware datetime: use "
        "int(seconds * 1000) or datetime.now(UTC)",
        "int",
        {"type": "integer"},
    ),
]

_WholeNumber: TypeAlias = Annotated[int, Field(strict=True)]

# Property values are looked at when the event is encoded, not here: that way one
# bad value loses its key and not the event. The same goes for keys.
_Properties: TypeAlias = dict[Any, Any]


class WireModel(BaseModel):
    """Base of what goes on the wire: unknown names are refused with a hint."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            # Stands in for pydantic's own: hints without a validator in Python,
            # which would cost every event.
            __tracebackhide__ = True
            try:
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                raise _with_hints(error, type(self)) from None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Forty fields that are None would hide the three that are not.
        return [pair for pair in super().__repr_args__() if pair[1] is not None]


def _with_hints(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """Reword "extra inputs are not permitted" so that it names the likely field."""
    details = error.errors(include_url=False)
    if all(detail["type"] != "extra_forbidden" for detail in details):
        return error
    lines: list[InitErrorDetails] = []
    for detail in details:
        kind, message = detail["type"], detail["msg"]
        if kind == "extra_forbidden" and len(detail["loc"]) == 1:
            message = _unknown_field(str(detail["loc"][0]), model)
        lines.append(
            InitErrorDetails(
                # An instance, since our own error types have no template.
                type=PydanticCustomError(kind, "{message}", {"message": message}),
                loc=detail["loc"],
                input=detail["input"],
            )
        )
    return ValidationError.from_exception_data(error.title, lines)


def _unknown_field(name: str, model: type[BaseModel]) -> str:
    hint = near_miss(name, model.model_fields)
    if hint is not None:
        return f"unknown field {name!r}: did you mean {hint!r}?"
    if "event_properties" in model.model_fields:
        return f"unknown field {name!r}: properties go in event_properties"
    return f"unknown field {name!r}: see the fields of {model.__name__}"


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

    branch: str | None = None
    """Name of the branch of the plan, for example ``main``."""

    source: str | None = None
    """Where the plan is used, for example ``web``."""

    version: str | None = None
    """Version of the plan."""

    version_id: str | None = Field(
        None, validation_alias="versionId", serialization_alias="versionId"
    )
    """Identifier of the version; ``versionId`` on the wire."""


class IngestionMetadata(WireModel):
    """What produced the event, where that is not the application itself."""

    if TYPE_CHECKING:

        def __init__(
            self, *, source_name: str | None = None, source_version: str | None = None
        ) -> None: ...

    source_name: str | None = None
    """Name of the producer, for example ``ampli``."""

    source_version: str | None = None
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

    user_id: _Id | None = None
    """The user. This or `device_id` is required; int and UUID become text."""

    device_id: _Id | None = None
    """The device. Absent, the server derives one from the user id."""

    time: _Milliseconds | None = None
    """When it happened: milliseconds since the epoch, or an aware datetime.

    Absent, it is filled in when the event is accepted.
    """

    insert_id: _Id | None = None
    """The server drops a second event of a device with the same value.

    Absent, it is filled in when the event is accepted.
    """

    session_id: _Milliseconds | None = None
    """Start of the session in milliseconds since the epoch; -1 is no session."""

    event_id: _WholeNumber | None = None
    """A counter that tells apart events of the same user and time."""

    app_version: str | None = None
    """Version of the application."""

    version_name: str | None = None
    """Name of the version of the application."""

    platform: str | None = None
    """Platform of the device, for example ``Web`` or ``iOS``."""

    os_name: str | None = None
    """Name of the operating system."""

    os_version: str | None = None
    """Version of the operating system."""

    device_brand: str | None = None
    """Brand of the device."""

    device_manufacturer: str | None = None
    """Manufacturer of the device."""

    device_model: str | None = None
    """Model of the device."""

    carrier: str | None = None
    """Mobile carrier."""

    country: str | None = None
    """Country of the user; given alone it resets region, city and dma."""

    region: str | None = None
    """Region of the user."""

    city: str | None = None
    """City of the user."""

    dma: str | None = None
    """Designated market area of the user."""

    language: str | None = None
    """Language of the user."""

    ip: str | None = None
    """Address of the user; ``$remote`` takes the address of the request."""

    location_lat: Finite | None = None
    """Latitude of the user."""

    location_lng: Finite | None = None
    """Longitude of the user."""

    user_agent: str | None = None
    """Raw user agent, from which the server derives device and system."""

    price: Finite | None = None
    """Price of one item; negative for a refund."""

    quantity: _WholeNumber | None = None
    """Number of items; the server assumes 1."""

    revenue: Finite | None = None
    """Revenue; `price` times `quantity` wins where all three are given."""

    product_id: str | None = Field(
        None, validation_alias="productId", serialization_alias="productId"
    )
    """Identifier of the product; ``productId`` on the wire."""

    revenue_type: str | None = Field(
        None, validation_alias="revenueType", serialization_alias="revenueType"
    )
    """Kind of revenue, for example ``tax``; ``revenueType`` on the wire."""

    currency: str | None = None
    """Currency as three capital letters, ISO 4217."""

    receipt: str | None = None
    """Receipt of the purchase, for verification."""

    receipt_sig: str | None = Field(
        None, validation_alias="receiptSig", serialization_alias="receiptSig"
    )
    """Signature of the receipt; ``receiptSig`` on the wire."""

    idfa: str | None = None
    """Identifier for advertisers (iOS)."""

    idfv: str | None = None
    """Identifier for vendors (iOS)."""

    adid: str | None = None
    """Advertising id (Google Play services)."""

    android_id: str | None = None
    """Android id, not the advertising id."""

    android_app_set_id: str | None = None
    """App set id (Android)."""

    partner_id: str | None = None
    """Identifier of the partner that sends the event."""

    library: str | None = None
    """Name and version of the sending library; filled in where absent."""

    plan: Plan | None = None
    """Tracking plan; the client's own where absent."""

    ingestion_metadata: IngestionMetadata | None = None
    """Producer of the event; the client's own where absent."""

    skip_user_properties_sync: bool | None = Field(
        None,
        strict=True,
        validation_alias="$skip_user_properties_sync",
        serialization_alias="$skip_user_properties_sync",
    )
    """True keeps the user's properties out of the event, for backfills.

    ``$skip_user_properties_sync`` on the wire.
    """

    extra: dict[str, Any] | None = Field(None, exclude=True)
    """Context for plugins of this process. Never sent."""


class Event(EventOptions):
    """One event: its type, its properties and the fields of `EventOptions`.

    Property values may be anything; what has no JSON form loses its own key when
    the event is encoded.
    """

    if TYPE_CHECKING:

        def __init__(
            self, *, event_type: str, **fields: Unpack[EventFields]
        ) -> None: ...

    event_type: str
    """What happened, for example ``Button Clicked``."""

    event_properties: _Properties | None = None
    """What is known of this event."""

    user_properties: _Properties | None = None
    """What is known of the user; operations only where the type is ``$identify``."""

    groups: dict[str, _GroupName] | None = None
    """Group type to group name or names; at most 5 types and 10 names in all."""

    group_properties: _Properties | None = None
    """Properties of a group, where the type is ``$groupidentify``."""


class TypedEvent(BaseModel):
    """Base of events described by a class: its fields are the event properties.

    The event type is the class name in words, unless the class gives its own:
    ``class CheckoutCompleted(TypedEvent)`` sends "Checkout Completed".
    """

    event_type: ClassVar[str] = ""
    """The type on the wire; set from the class name where a class gives none."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "event_type" in cls.model_fields:
            raise TypeError(
                f"{cls.__name__}.event_type is a field, so it would be sent as a "
                "property: declare it as event_type: ClassVar[str] = ..."
            )
        is_parametrised = cls.__pydantic_generic_metadata__["origin"] is not None
        if "event_type" not in cls.__dict__ and not is_parametrised:
            cls.event_type = _WORD_START.sub(" ", cls.__name__).strip()

    def properties(self) -> dict[str, Any]:
        """Give the event properties: the fields under their aliases, None left out.

        Nested values stay Python values; the encoder's policy decides on them.
        """
        return self.model_dump(
            mode="python", by_alias=True, exclude_none=True, warnings=False
        )

    def to_event(self, **fields: Unpack[EventFields]) -> Event:
        """Make the event to send.

        Args:
            **fields: Further fields; ``event_properties`` are added to the class's
                own, which win.
        """
        given = fields.get("event_properties") or {}
        fields["event_properties"] = {**given, **self.properties()}
        return Event(event_type=self.event_type, **fields)


def _wire_names(model: type[BaseModel]) -> dict[str, str]:
    """Map each wire spelling that differs to its attribute."""
    return {
        info.serialization_alias: name
        for name, info in model.model_fields.items()
        if info.serialization_alias is not None
    }


_ATTRIBUTE_OF: Final = _wire_names(Event)
_OPTION_NAMES: Final = frozenset(EventOptions.model_fields)
_FIELD_NAMES: Final = frozenset(Event.model_fields) - {"event_type"}
_INPUT_NAMES: Final = _FIELD_NAMES | _ATTRIBUTE_OF.keys()


# --- Building and merging ---


def check_field_names(fields: Mapping[str, Any]) -> None:
    """Refuse names that no event field has.

    Raises:
        TypeError: Names the unknown field and the one probably meant.
    """
    if fields.keys() <= _INPUT_NAMES:
        return
    unknown = next(name for name in fields if name not in _INPUT_NAMES)
    if unknown == "event_type":
        raise TypeError("event_type is the first argument, not a keyword field")
    raise TypeError(_unknown_field(unknown, Event))


def build_event(
    event_type: str, options: EventOptions | None, fields: Mapping[str, Any]
) -> Event:
    """Make an event from its type; explicit fields win over options.

    Raises:
        TypeError: A field name is unknown.
        pydantic.ValidationError: A value is bad.
    """
    check_field_names(fields)
    event = Event(event_type=event_type, **fields)
    if options is not None:
        own = event.__dict__
        _fill(event, {k: v for k, v in _given(options) if own[k] is None})
    return event


def merge_options(
    event: Event, options: EventOptions | None, fields: Mapping[str, Any]
) -> Event:
    """Lay options, and over them explicit fields, over an event.

    Fields that are None overwrite nothing. The arguments are not changed; without
    options and fields the event itself comes back, otherwise a shallow copy.

    Raises:
        TypeError: A field name is unknown.
        pydantic.ValidationError: A value is bad.
    """
    if options is None and not fields:
        return event
    check_field_names(fields)
    merged = event.model_copy()
    if options is not None:
        _fill(merged, dict(_given(options)))
    for name, value in fields.items():
        if value is not None:
            setattr(merged, _ATTRIBUTE_OF.get(name, name), value)
    return merged


def _given(options: EventOptions) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in options.__dict__.items()
        if value is not None and name in _OPTION_NAMES
    ]


def _fill(event: Event, values: Mapping[str, Any]) -> None:
    # The values come out of a validated model: validating again would triple the cost.
    event.__dict__.update(values)
    event.__pydantic_fields_set__.update(values)


# --- Encoding ---


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


@dataclass(frozen=True, slots=True)
class EventDefaults:
    """What events get that lack it, encoded once."""

    library: str | None = None
    plan: Plan | None = None
    ingestion_metadata: IngestionMetadata | None = None
    _library: bytes = field(init=False, repr=False)
    _plan: bytes = field(init=False, repr=False)
    _metadata: bytes = field(init=False, repr=False)
    _all: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = {
            "_library": _member("library", self.library),
            "_plan": _member("plan", self.plan),
            "_metadata": _member("ingestion_metadata", self.ingestion_metadata),
        }
        for name, part in parts.items():
            object.__setattr__(self, name, part)
        object.__setattr__(self, "_all", b"".join(parts.values()))

    def missing_from(self, event: Event) -> bytes:
        """Give the JSON members that an event lacks, each after a comma."""
        library = event.library is None
        plan = event.plan is None
        metadata = event.ingestion_metadata is None
        if library and plan and metadata:
            return self._all
        return b"".join(
            (
                self._library if library else b"",
                self._plan if plan else b"",
                self._metadata if metadata else b"",
            )
        )


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


def new_insert_id() -> str:
    """Make an insert id: 32 random hexadecimal digits."""
    return os.urandom(16).hex()


def unix_ms() -> int:
    """Give the time in whole milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def encode_event(
    event: Event,
    policy: ValuePolicy,
    defaults: EventDefaults,
    *,
    insert_id: Callable[[], str] = new_insert_id,
    now_ms: Callable[[], int] = unix_ms,
) -> EncodedEvent:
    """Encode an event once and for all; the event itself is not changed.

    Args:
        event: None fields are left out; None inside properties stays null.
        policy: How property values become JSON.
        defaults: Filled in where the event has none.
        insert_id: Called where the event has none; gives ASCII text that needs no
            escape in JSON.
        now_ms: Called where the event has no time.
    """
    losses: tuple[Loss, ...] = ()
    body = _encode_plain(event, policy)
    if body is None:
        event, losses = _made_plain(event, policy)
        body = _serialise(event)
    given_id, members = event.insert_id, defaults.missing_from(event)
    if event.time is None:
        members = b',"time":%d%b' % (now_ms(), members)
    if given_id is not None:
        # A JSON object with at least one member ends in a brace: open it again.
        return EncodedEvent(b"%b%b}" % (body[:-1], members), given_id, losses)
    new_id = insert_id()
    body = b'%b,"insert_id":"%b"%b}' % (body[:-1], new_id.encode(), members)
    return EncodedEvent(body, new_id, losses)


def decode_event(body: bytes) -> Event:
    """Rebuild an event from its encoded form; keys it has no field for are left out."""
    members = from_json(body)
    known = {k: v for k, v in members.items() if k in _INPUT_NAMES}
    return Event(event_type=members.get("event_type", ""), **known)


def _serialise(event: Event) -> bytes:
    # The event's own serializer: a subclass may declare a key we do not know yet.
    return event.__pydantic_serializer__.to_json(
        event, by_alias=True, exclude_none=True, warnings=False
    )


def _encode_plain(event: Event, policy: ValuePolicy) -> bytes | None:
    """Encode an event whose values are JSON already; None if they are not."""
    fields = event.__dict__
    for name in _PROPERTY_FIELDS:
        value = fields[name]
        if value is not None and not policy.is_plain(value):
            return None
    groups = fields["groups"]
    if groups is not None and not _GROUP_POLICY.is_plain(groups):
        return None
    if fields["insert_id"] == "":
        return None
    try:
        return _serialise(event)
    except PydanticSerializationError:
        return None


_PROPERTY_FIELDS: Final = ("event_properties", "user_properties", "group_properties")

# Group names are identities, never cut.
_GROUP_POLICY: Final = ValuePolicy()


def _made_plain(event: Event, policy: ValuePolicy) -> tuple[Event, tuple[Loss, ...]]:
    """Copy an event with everything that has no JSON form taken out."""
    losses: list[Loss] = []
    changes: dict[str, Any] = {}
    for name in (*_PROPERTY_FIELDS, "groups"):
        value = getattr(event, name)
        if value is not None:
            rules = _GROUP_POLICY if name == "groups" else policy
            plain = rules.convert(value, name, losses)
            changes[name] = None if plain is DROP else plain
    if event.insert_id == "":
        changes["insert_id"] = None
    plain_event = event.model_copy(update=changes)
    return _without_bad_text(plain_event, "", losses), tuple(losses)


def _without_bad_text(model: _ModelT, prefix: str, losses: list[Loss]) -> _ModelT:
    changes: dict[str, Any] = {}
    for name, value in model.__dict__.items():
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            changes[name] = _without_bad_text(value, f"{path}.", losses)
        elif isinstance(value, str) and not is_encodable_text(value):
            # The type is all that an event cannot do without.
            is_type = path == "event_type"
            changes[name] = value.encode(errors="replace").decode() if is_type else None
            losses.append(Loss(path, "holds a lone surrogate, which is not text"))
    return model.model_copy(update=changes) if changes else model
