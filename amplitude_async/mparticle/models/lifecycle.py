"""Events of the life of an app: first run, states, push notifications, uninstall."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from amplitude_async.mparticle.models.enums import (
    ApplicationTransitionType,
    PushApplicationState,
    PushMessageBehavior,
    PushMessageType,
    PushNetwork,
)
from amplitude_async.mparticle.models.envelope import BaseEvent, GenericEvent
from amplitude_async.mparticle.models.fields import Flag, Int64, Known

__all__ = [
    "ApplicationStateTransitionEvent",
    "FirstRunEvent",
    "PreAttributionEvent",
    "PushMessageEvent",
    "PushReactionEvent",
    "PushRegistrationEvent",
    "UninstallEvent",
]


class FirstRunEvent(BaseEvent):
    """The user ran the app for the first time."""

    event_type: Literal["first_run"] = Field(default="first_run", frozen=True)
    """Always ``first_run``."""


class UninstallEvent(BaseEvent):
    """The user removed the app."""

    event_type: Literal["uninstall"] = Field(default="uninstall", frozen=True)
    """Always ``uninstall``."""


class ApplicationStateTransitionEvent(BaseEvent):
    """The app started, ended, or went to the front or the background.

    `install`, `upgrade`, `foreground` and `background` make the usual ones.
    """

    event_type: Literal["application_state_transition"] = Field(
        default="application_state_transition", frozen=True
    )
    """Always ``application_state_transition``."""

    application_transition_type: Annotated[str, Known(ApplicationTransitionType)]
    """The step."""

    is_first_run: Flag | None = None
    """True after an install; only where the app was initialised."""

    is_upgrade: Flag | None = None
    """True after an upgrade; only where the app was initialised."""

    successfully_closed: Flag | None = None
    """Whether the session before ended in order; the server assumes False."""

    push_notification_payload: str | None = None
    """The push notification that opened the app, as JSON text."""

    launch_referral: str | None = None
    """The URL that brought the app to the front."""

    @classmethod
    def install(cls, **fields: Any) -> Self:
        """Make the event of a first start after an install."""
        return cls(
            application_transition_type=ApplicationTransitionType.INITIALIZED,
            is_first_run=True,
            is_upgrade=False,
            **fields,
        )

    @classmethod
    def upgrade(cls, **fields: Any) -> Self:
        """Make the event of a first start after an upgrade."""
        return cls(
            application_transition_type=ApplicationTransitionType.INITIALIZED,
            is_first_run=False,
            is_upgrade=True,
            **fields,
        )

    @classmethod
    def foreground(cls, **fields: Any) -> Self:
        """Make the event of an app coming to the front."""
        return cls(
            application_transition_type=ApplicationTransitionType.FOREGROUND, **fields
        )

    @classmethod
    def background(cls, **fields: Any) -> Self:
        """Make the event of an app going to the background."""
        return cls(
            application_transition_type=ApplicationTransitionType.BACKGROUND, **fields
        )


class PushMessageEvent(BaseEvent):
    """A push notification was sent, received or acted on."""

    event_type: Literal["push_message"] = Field(default="push_message", frozen=True)
    """Always ``push_message``."""

    push_message_token: str
    """Token of the device."""

    push_message_type: Annotated[str, Known(PushMessageType)]
    """Stage of the notification."""

    push_notification_payload: str
    """The notification, as JSON text."""

    message: str | None = None
    """Text that was shown."""

    network: Annotated[str, Known(PushNetwork)] | None = None
    """Network that delivered it."""

    application_state: Annotated[str, Known(PushApplicationState)] | None = None
    """What the app was doing when it arrived."""

    action_identifier: str | None = None
    """The action the user chose: at most 100 characters."""

    push_message_behavior: Annotated[str, Known(PushMessageBehavior)] | Int64 | None = (
        None
    )
    """How it was seen or opened: a name, or the documents' bit mask."""


class PushRegistrationEvent(BaseEvent):
    """A device registered for push notifications, or took that back."""

    event_type: Literal["push_registration"] = Field(
        default="push_registration", frozen=True
    )
    """Always ``push_registration``."""

    # Not called register: every pydantic class has a method of that name.
    registered: Flag = Field(
        validation_alias="register", serialization_alias="register"
    )
    """False after unregistering; ``register`` on the wire."""

    registration_token: str
    """Token of the device."""


class PushReactionEvent(GenericEvent):
    """A kind of event that is listed without a published shape: `data` is free."""

    event_type: Literal["push_reaction"] = Field(default="push_reaction", frozen=True)
    """Always ``push_reaction``."""


class PreAttributionEvent(GenericEvent):
    """A kind of event that is listed without a published shape: `data` is free."""

    event_type: Literal["pre_attribution"] = Field(
        default="pre_attribution", frozen=True
    )
    """Always ``pre_attribution``."""
