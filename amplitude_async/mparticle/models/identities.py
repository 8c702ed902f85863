"""Who the user is."""

from typing import Annotated

from pydantic import AliasChoices, Field

from amplitude_async.mparticle.models.enums import IdentityType
from amplitude_async.mparticle.models.fields import Flag, Identity, Known, MomentOrZero
from amplitude_async.wire import WireModel

__all__ = ["UserIdentities", "UserIdentity"]


class UserIdentities(WireModel):
    """The known identities of one user. Ints and UUIDs become text."""

    customer_id: Identity | None = Field(
        default=None, validation_alias=AliasChoices("customer_id", "customerid")
    )
    """Your own id of the user. The old spelling ``customerid`` is read, not sent."""

    email: Identity | None = None
    """Email address."""

    mobile_number: Identity | None = None
    """Mobile telephone number."""

    phone_number_2: Identity | None = None
    """Second telephone number."""

    phone_number_3: Identity | None = None
    """Third telephone number."""

    other: Identity | None = None
    """An identity of any kind."""

    other_id_2: Identity | None = None
    """Another identity of any kind."""

    other_id_3: Identity | None = None
    """Another identity of any kind."""

    other_id_4: Identity | None = None
    """Another identity of any kind."""

    other_id_5: Identity | None = None
    """Another identity of any kind."""

    other_id_6: Identity | None = None
    """Another identity of any kind."""

    other_id_7: Identity | None = None
    """Another identity of any kind."""

    other_id_8: Identity | None = None
    """Another identity of any kind."""

    other_id_9: Identity | None = None
    """Another identity of any kind."""

    other_id_10: Identity | None = None
    """Another identity of any kind."""

    alias: Identity | None = None
    """Another name of the user."""

    facebook: Identity | None = None
    """Facebook id."""

    facebook_custom_audience_id: Identity | None = None
    """Facebook's id of a custom audience."""

    google: Identity | None = None
    """Google id."""

    microsoft: Identity | None = None
    """Microsoft id."""

    twitter: Identity | None = None
    """Twitter id."""

    yahoo: Identity | None = None
    """Yahoo id."""


class UserIdentity(WireModel):
    """One identity inside a `UserIdentityChangeEvent`."""

    identity_type: Annotated[str, Known(IdentityType)]
    """Which identity it is."""

    identity: Identity
    """Its value."""

    timestamp_unixtime_ms: MomentOrZero
    """When it was set; 0, as the Go SDK sends it, where that is unknown."""

    created_this_batch: Flag | None = None
    """Whether this batch brought it."""
