"""Events of what users do: custom events, screens, sessions, changes of the user."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import (
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from amplitude_async.mparticle.models.enums import (
    CustomEventType,
    MediaAction,
    MediaFormat,
    MediaQuality,
    ProfileEventType,
)
from amplitude_async.mparticle.models.envelope import BaseEvent
from amplitude_async.mparticle.models.fields import (
    Duration,
    Flag,
    Flags,
    Int64,
    Known,
    Mpid,
    Name,
    Number,
    UInt64,
    UserAttribute,
)
from amplitude_async.mparticle.models.identities import UserIdentity
from amplitude_async.wire import WireModel

__all__ = [
    "BreadcrumbEvent",
    "CrashReportEvent",
    "CustomEvent",
    "MediaInfo",
    "NetworkPerformanceEvent",
    "OptOutEvent",
    "ProfileEvent",
    "ScreenViewEvent",
    "SessionEndEvent",
    "SessionStartEvent",
    "UserAttributeChangeEvent",
    "UserIdentityChangeEvent",
]

_ATTRIBUTION: Final = "attribution"
_NO_CHANGE: Final = "new and old are both None: give at least one of them"


class MediaInfo(WireModel):
    """Playback of a custom event about media. Known to the Python SDK alone."""

    action: Annotated[str, Known(MediaAction)] | None = None
    """What happened to the playback."""

    channel: str | None = None
    """Name of the channel."""

    metadata: str | None = None
    """Anything about the medium."""

    timed_metadata: str | None = None
    """Anything about the current position."""

    playback_position: Number | None = None
    """Position in the medium."""

    format: Annotated[str, Known(MediaFormat)] | None = None
    """What is played."""

    quality: Annotated[str, Known(MediaQuality)] | None = None
    """Quality of the stream."""

    playback_rate: Number | None = None
    """Speed; 1 is normal."""


class CustomEvent(BaseEvent):
    """Something with a name of your own happened."""

    positional: ClassVar[tuple[str, ...]] = ("event_name", "custom_event_type")

    event_type: Literal["custom_event"] = Field(default="custom_event", frozen=True)
    """Always ``custom_event``."""

    event_name: Name
    """What happened. The server cuts it to 256 characters."""

    custom_event_type: Annotated[str, Known(CustomEventType)] = "other"
    """Category of the event."""

    custom_flags: Flags | None = None
    """Hints for single integrations: any JSON values."""

    media_info: MediaInfo | None = None
    """Playback; in no published schema."""

    @classmethod
    def attribution_install(
        cls, *, campaign: str, publisher: str, **fields: Any
    ) -> Self:
        """Make the event that credits an install to a campaign of a publisher.

        Args:
            campaign: The campaign credited.
            publisher: The publisher credited.
            **fields: Further fields; ``custom_attributes`` are added to these two.
        """
        credited = {"campaign": campaign, "publisher": publisher}
        return cls._attribution(credited, fields)

    @classmethod
    def attribution_delete(cls, **fields: Any) -> Self:
        """Make the event that takes an attribution back."""
        return cls._attribution({"action": "delete"}, fields)

    @classmethod
    def _attribution(cls, attributes: dict[str, str], fields: dict[str, Any]) -> Self:
        given = fields.pop("custom_attributes", None) or {}
        return cls(
            event_name=_ATTRIBUTION,
            custom_event_type=CustomEventType.ATTRIBUTION,
            custom_attributes={**given, **attributes},
            **fields,
        )


class ScreenViewEvent(BaseEvent):
    """A screen or page was shown."""

    positional: ClassVar[tuple[str, ...]] = ("screen_name",)

    event_type: Literal["screen_view"] = Field(default="screen_view", frozen=True)
    """Always ``screen_view``."""

    screen_name: Name
    """Name of the screen. The server cuts it to 256 characters."""

    activity_type: str | None = None
    """What the activity did, for example ``activity_started`` (Android)."""

    custom_flags: Flags | None = None
    """Hints for single integrations: any JSON values."""


class SessionStartEvent(BaseEvent):
    """A session began. Give its `session_uuid`."""

    event_type: Literal["session_start"] = Field(default="session_start", frozen=True)
    """Always ``session_start``."""


class SessionEndEvent(BaseEvent):
    """A session ended."""

    event_type: Literal["session_end"] = Field(default="session_end", frozen=True)
    """Always ``session_end``."""

    session_duration_ms: Duration
    """How long it lasted: a timedelta or milliseconds, not a point in time."""


class OptOutEvent(BaseEvent):
    """The user opted out of tracking, or back in."""

    event_type: Literal["opt_out"] = Field(default="opt_out", frozen=True)
    """Always ``opt_out``."""

    is_opted_out: Flag
    """True after opting out; False is sent too."""


class BreadcrumbEvent(BaseEvent):
    """A mark on the way, which later crash reports refer to."""

    event_type: Literal["breadcrumb"] = Field(default="breadcrumb", frozen=True)
    """Always ``breadcrumb``."""

    label: Name
    """Text of the mark."""

    session_number: Int64 | None = None
    """Number of the session."""


# Text first: a mark in full is always an object.
_Mark: TypeAlias = Annotated[str | BreadcrumbEvent, Field(union_mode="left_to_right")]


class CrashReportEvent(BaseEvent):
    """The app crashed, or caught an exception."""

    event_type: Literal["crash_report"] = Field(default="crash_report", frozen=True)
    """Always ``crash_report``."""

    severity: Name
    """How bad it was, for example ``error``."""

    message: str
    """Message of the exception."""

    class_name: str | None = None
    """Class of the exception."""

    stack_trace: str | None = None
    """Stack trace, as text."""

    exception_handled: Flag | None = None
    """Whether it was caught; False is sent too."""

    breadcrumbs: list[_Mark] | None = None
    """Marks on the way: breadcrumb events, or texts as the Go SDK has them."""

    topmost_context: str | None = None
    """Topmost screen or context."""

    session_number: Int64 | None = None
    """Number of the session."""

    pl_crash_report_file_base64: str | None = None
    """Report of PLCrashReporter, in base64."""

    ios_image_base_address: UInt64 | None = None
    """Base address of the image (iOS)."""

    ios_image_size: UInt64 | None = None
    """Size of the image (iOS)."""

    @field_serializer("breadcrumbs", when_used="json-unless-none")
    def _wrapped(self, marks: Sequence[str | BreadcrumbEvent]) -> list[Any]:
        return [mark if isinstance(mark, str) else mark.to_wire() for mark in marks]


class NetworkPerformanceEvent(BaseEvent):
    """One HTTP call of the app was measured."""

    event_type: Literal["network_performance"] = Field(
        default="network_performance", frozen=True
    )
    """Always ``network_performance``."""

    url: str
    """What was called."""

    response_code: Int64
    """HTTP status of the answer."""

    http_verb: str | None = None
    """HTTP method."""

    time_elapsed: Duration | None = None
    """How long it took: a timedelta or milliseconds."""

    bytes_in: Int64 | None = None
    """Bytes received."""

    bytes_out: Int64 | None = None
    """Bytes sent."""

    data: str | None = None
    """Body, in base64."""


class ProfileEvent(BaseEvent):
    """A profile was created, changed or deleted, or a user logged in or out.

    Name both users, as the published schema does, or neither, as the Python SDK does.
    """

    event_type: Literal["profile"] = Field(default="profile", frozen=True)
    """Always ``profile``."""

    previous_mpid: Mpid | None = None
    """The mParticle user before."""

    current_mpid: Mpid | None = None
    """The mParticle user now."""

    profile_event_type: Annotated[str, Known(ProfileEventType)]
    """What happened."""

    profile_name: str | None = None
    """Name of the profile. Known to the Python SDK alone, in no published schema."""

    previous_profile_name: str | None = None
    """Name before. Known to the Python SDK alone, in no published schema."""

    # Not where it is made or assigned to, which may be one by one.
    def encode_data(self) -> bytes:
        """Encode the object that stands under ``data``.

        Raises:
            ValueError: One of the two users is missing.
        """
        if (self.previous_mpid is None) != (self.current_mpid is None):
            raise ValueError(
                "one of previous_mpid and current_mpid is missing: give both, or "
                "neither, as mParticle's Python SDK does"
            )
        return super().encode_data()


class UserAttributeChangeEvent(BaseEvent):
    """An attribute of the user was set, changed or removed."""

    explicit_nulls: ClassVar[tuple[str, ...]] = ("new", "old")

    event_type: Literal["user_attribute_change"] = Field(
        default="user_attribute_change", frozen=True
    )
    """Always ``user_attribute_change``."""

    user_attribute_name: Name
    """Name of the attribute."""

    new: UserAttribute = None
    """Value now; None is sent as null."""

    old: UserAttribute = None
    """Value before; None is sent as null."""

    deleted: Flag | None = None
    """True where the attribute was removed."""

    is_new_attribute: Flag | None = None
    """True where there was no value before."""


class UserIdentityChangeEvent(BaseEvent):
    """An identity of the user was added, changed or removed."""

    explicit_nulls: ClassVar[tuple[str, ...]] = ("new", "old")

    event_type: Literal["user_identity_change"] = Field(
        default="user_identity_change", frozen=True
    )
    """Always ``user_identity_change``."""

    new: UserIdentity | None = None
    """The identity now; None, sent as null, where it was removed."""

    old: UserIdentity | None = None
    """The identity before; None, sent as null, where there was none."""

    # Here too and not after the model alone, so that an assignment that raises changes
    # nothing.
    @field_validator("new", "old")
    @classmethod
    def _leaves_something(
        cls, value: UserIdentity | None, info: ValidationInfo
    ) -> UserIdentity | None:
        other = "old" if info.field_name == "new" else "new"
        if value is None and other in info.data and info.data[other] is None:
            raise ValueError(_NO_CHANGE)
        return value

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.new is None and self.old is None:
            raise ValueError(_NO_CHANGE)
        return self
