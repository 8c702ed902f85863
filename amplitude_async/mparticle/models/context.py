"""What surrounds the events of a batch: data plan, application, source, place."""

from typing import Annotated

from amplitude_async.mparticle.models.enums import (
    ApplicationOS,
    SourceChannel,
    SystemNotificationType,
)
from amplitude_async.mparticle.models.fields import Flag, Int64, Known, Name, Number
from amplitude_async.wire import WireModel

__all__ = [
    "ApplicationInformation",
    "AttributionInfo",
    "BatchContext",
    "BatchLocation",
    "BatchingContext",
    "DataPlanContext",
    "EventSystemNotificationInfo",
    "GeoLocation",
    "SourceInformation",
]


class DataPlanContext(WireModel):
    """The data plan a batch is checked against."""

    plan_id: Name
    """Identifier of the plan in the workspace."""

    plan_version: Int64 | None = None
    """Version of the plan; absent, the newest one active in the environment."""


class BatchingContext(WireModel):
    """Hints the Go SDK can send and no document describes. Best left alone."""

    bypass: Flag | None = None
    """Skip batching on the server."""

    partition_key: str | None = None
    """Key by which the server partitions."""

    request_ids: list[str] | None = None
    """Identifiers of requests."""


class BatchLocation(WireModel):
    """Where the user is, by place or by coordinates."""

    country_code: str | None = None
    """Country, ISO 3166-1 alpha-2."""

    region_code: str | None = None
    """Region: the part of ISO 3166-2 after the country."""

    city_name: str | None = None
    """City."""

    postal_code: str | None = None
    """Postal code."""

    dma_code: Int64 | None = None
    """Designated market area."""

    location_source: str | None = None
    """How the place is known: ``unknown``, ``ip_lookup`` or ``lat_long``."""

    latitude: Number | None = None
    """Degrees north."""

    longitude: Number | None = None
    """Degrees east."""

    accuracy: Number | None = None
    """Metres."""


class BatchContext(WireModel):
    """How a batch is to be processed."""

    data_plan: DataPlanContext | None = None
    """The data plan; needed in every batch that is to be checked."""

    location: BatchLocation | None = None
    """Where the user is."""

    batching: BatchingContext | None = None
    """Undocumented hints."""


class ApplicationInformation(WireModel):
    """The app the data comes from."""

    application_name: str | None = None
    """Name of the app."""

    application_version: str | None = None
    """Version of the app."""

    application_build_number: str | None = None
    """Build number, as text."""

    install_referrer: str | None = None
    """Referrer string of the Google Play store."""

    package: str | None = None
    """Package name or bundle identifier."""

    os: Annotated[str, Known(ApplicationOS)] | None = None
    """Operating system; spelt unlike `DeviceInformation.platform`."""

    apple_search_ads_attributes: dict[str, dict[str, str]] | None = None
    """Attribution by Apple: its version, for example ``Version3.1``, to attributes."""


class SourceInformation(WireModel):
    """How a batch came to mParticle. The server fills it in; senders need not."""

    channel: Annotated[str, Known(SourceChannel)]
    """The way it came."""

    partner: str | None = None
    """Name of the partner feed."""

    replay_request_id: str | None = None
    """Identifier of the replayed request."""

    replay_job_id: str | None = None
    """Identifier of the replay job."""

    is_historical: Flag | None = None
    """True where it came through the historical endpoint."""


class AttributionInfo(WireModel):
    """To whom the install of the app is credited."""

    service_provider: str
    """Who attributes."""

    publisher: str
    """The publisher credited."""

    campaign: str
    """The campaign credited."""


class GeoLocation(WireModel):
    """Where an event happened."""

    latitude: Number
    """Degrees north."""

    longitude: Number
    """Degrees east."""

    accuracy: Number | None = None
    """Metres."""


class EventSystemNotificationInfo(WireModel):
    """A mark the server leaves on events when consent changed. Not for senders."""

    type: Annotated[str, Known(SystemNotificationType)]
    """What changed."""
