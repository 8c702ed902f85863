"""The user's device: what it is, and its state when an event happened."""

from typing import Annotated, Final

from amplitude_async.mparticle.models.enums import (
    ATTAuthorizationStatus,
    DataConnectionType,
    DeviceOrientation,
    Platform,
)
from amplitude_async.mparticle.models.fields import (
    Duration,
    Flag,
    Int64,
    Known,
    Moment,
    Number,
    UuidText,
)
from amplitude_async.wire import WireModel

__all__ = ["DEVICE_IDS", "DeviceCurrentState", "DeviceInformation"]

DEVICE_IDS: Final = (
    "ios_idfv",
    "ios_advertising_id",
    "android_advertising_id",
    "android_uuid",
    "roku_advertising_id",
    "roku_publisher_id",
    "microsoft_advertising_id",
    "microsoft_publisher_id",
    "fire_advertising_id",
    "amp_id",
)
"""Fields of `DeviceInformation` that tell one device from all others.

The vendor's own id of an iOS device comes first: users can reset the advertising id.
"""


class DeviceInformation(WireModel):
    """Hardware, system, network and advertising ids of a device.

    Advertising ids are UUIDs and become hyphenated text; leave out what is unknown.
    """

    brand: str | None = None
    """Brand of the device."""

    product: str | None = None
    """Name of the product."""

    device: str | None = None
    """Name the owner gave the device."""

    android_uuid: str | None = None
    """Android id of the old kind."""

    device_manufacturer: str | None = None
    """Who made it."""

    platform: Annotated[str, Known(Platform)] | None = None
    """Platform of the device."""

    os_version: str | None = None
    """Version of the operating system, for example ``7.1.1``."""

    device_model: str | None = None
    """Code of the model."""

    screen_height: Int64 | None = None
    """Pixels."""

    screen_width: Int64 | None = None
    """Pixels."""

    screen_dpi: Int64 | None = None
    """Pixels per inch (Android)."""

    device_country: str | None = None
    """Country the device is set to (Android)."""

    locale_language: str | None = None
    """Language the device is set to."""

    locale_country: str | None = None
    """Country of the locale."""

    network_country: str | None = None
    """Country of the mobile network."""

    network_carrier: str | None = None
    """Mobile carrier."""

    network_code: str | None = None
    """Mobile network code, as text: leading zeros count."""

    network_mobile_country_code: str | None = None
    """Mobile country code, as text."""

    timezone_offset: Int64 | None = None
    """Hours from UTC; 0 is sent."""

    build_identifier: str | None = None
    """Identifier of the system's build."""

    http_header_user_agent: str | None = None
    """User agent of the user's own browser or app."""

    ios_advertising_id: UuidText | None = None
    """Identifier for advertisers (iOS)."""

    push_token: str | None = None
    """Token under which the device is registered for push notifications."""

    cpu_architecture: str | None = None
    """Architecture of the processor (Apple)."""

    is_tablet: Flag | None = None
    """Whether it is a tablet."""

    push_notification_sound_enabled: Flag | None = None
    """Whether push notifications make a sound (Android)."""

    push_notification_vibrate_enabled: Flag | None = None
    """Whether push notifications vibrate (Android)."""

    radio_access_technology: str | None = None
    """Radio technology, for example ``LTE``."""

    supports_telephony: Flag | None = None
    """Whether it can make calls (Android)."""

    has_nfc: Flag | None = None
    """Whether it has near-field communication (Android)."""

    bluetooth_enabled: Flag | None = None
    """Whether Bluetooth is on (Android)."""

    bluetooth_version: str | None = None
    """Version of Bluetooth (Android)."""

    att_timestamp_unixtime_ms: Moment | None = None
    """When the user first answered the App Tracking Transparency prompt."""

    att_authorization_status: Annotated[str, Known(ATTAuthorizationStatus)] | None = (
        None
    )
    """The user's answer to that prompt."""

    ios_idfv: UuidText | None = None
    """Identifier for vendors (iOS)."""

    android_advertising_id: UuidText | None = None
    """Advertising id (Google Play services)."""

    build_version_release: str | None = None
    """Release of the system's build."""

    limit_ad_tracking: Flag | None = None
    """Whether the user limits ad tracking."""

    amp_id: str | None = None
    """Client id of an AMP page."""

    is_dst: Flag | None = None
    """Whether daylight saving time is on."""

    roku_advertising_id: UuidText | None = None
    """Advertising id of Roku."""

    roku_publisher_id: UuidText | None = None
    """Publisher id of Roku."""

    microsoft_advertising_id: str | None = None
    """Advertising id of Windows."""

    microsoft_publisher_id: str | None = None
    """Publisher id of Windows."""

    fire_advertising_id: UuidText | None = None
    """Advertising id of Fire OS."""


class DeviceCurrentState(WireModel):
    """Readings of a device at the time of an event."""

    time_since_start_ms: Duration | None = None
    """Time since the app was loaded."""

    battery_level: Number | None = None
    """From 0 to 1; -1 is unknown."""

    data_connection_type: Annotated[str, Known(DataConnectionType)] | None = None
    """How the device is connected."""

    data_connection_type_detail: str | None = None
    """Detail of the connection."""

    gps_state: Flag | None = None
    """Whether positioning is on."""

    total_system_memory_usage_bytes: Int64 | None = None
    """Memory in use."""

    disk_space_free_bytes: Int64 | None = None
    """Free space."""

    external_disk_space_free_bytes: Int64 | None = None
    """Free space on the external medium (Android)."""

    cpu: str | None = None
    """Use of the processor, as text."""

    system_memory_available_bytes: Number | None = None
    """Free memory of the system."""

    system_memory_low: Flag | None = None
    """Whether the system is short of memory."""

    system_memory_threshold_bytes: Number | None = None
    """Free memory below which the system is short of it (Android)."""

    application_memory_available_bytes: Number | None = None
    """Memory the app could still take."""

    application_memory_max_bytes: Number | None = None
    """Most memory the app can take."""

    application_memory_total_bytes: Number | None = None
    """Memory the app has taken."""

    device_orientation: Annotated[str, Known(DeviceOrientation)] | None = None
    """How the device is held."""

    status_bar_orientation: Annotated[str, Known(DeviceOrientation)] | None = None
    """Where the status bar is (iOS)."""
