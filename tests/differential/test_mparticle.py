"""mParticle: the same batches through the official Python SDK and through ours.

Both send to a recorder over a real socket: the official SDK uploads in bulk from a
thread, ours by each of its roads in turn.
"""

import asyncio
import random
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

import mparticle as official
from mparticle.models.user_attribute_change_event import UserAttributeChangeEvent
from pydantic import ValidationError

import amplitude_async.mparticle
from amplitude_async.mparticle import Batch, MParticle
from tests.differential.conftest import (
    ABSENT,
    Difference,
    Json,
    Leaf,
    Recorder,
    compare,
    sort_out,
    table_of,
)

__all__: list[str] = []

FIRST_MS: Final = 1_600_000_000_000
BULK: Final = 100
FLAWED: Final = 50

OFFICIAL_ONLY: Final = {"UserAttributeChangeEvent": UserAttributeChangeEvent}
OUR_NAMES: Final = {"AppEvent": "CustomEvent"}
WIRE_TYPES: Final = {
    "AppEvent": "custom_event",
    "ApplicationStateTransitionEvent": "application_state_transition",
    "BreadcrumbEvent": "breadcrumb",
    "CommerceEvent": "commerce_event",
    "CrashReportEvent": "crash_report",
    "FirstRunEvent": "first_run",
    "NetworkPerformanceEvent": "network_performance",
    "OptOutEvent": "opt_out",
    "ProfileEvent": "profile",
    "PushMessageEvent": "push_message",
    "PushRegistrationEvent": "push_registration",
    "ScreenViewEvent": "screen_view",
    "SessionEndEvent": "session_end",
    "SessionStartEvent": "session_start",
    "UserAttributeChangeEvent": "user_attribute_change",
}
"""Every event that the official SDK has."""


class Model(NamedTuple):
    """An object of a class that both SDKs have, before either has made it."""

    name: str
    """The class of the official SDK."""

    fields: Json
    """By their names on the wire."""

    ours_alone: Json
    """What the official SDK has no place for, and our model needs."""


class Case(NamedTuple):
    """One batch."""

    number: int
    kind: str
    """The road by which ours goes."""

    batch: Model
    events: tuple[Model, ...]
    flaw: str = ""
    """What is wrong with it, so that we refuse it."""

    @property
    def asked(self) -> Json:
        """Everything that was asked for, as a failure shows it."""
        events = [
            {"event_type": WIRE_TYPES[event.name], "data": plain(event)}
            for event in self.events
        ]
        fields: Json = plain(self.batch)
        return {**fields, "events": events} if events else fields


# --- The dice ---


class Dice(random.Random):
    """Throws batches: every event, part and field that both SDKs have."""

    def case(self, number: int) -> Case:
        """Throw one batch."""
        kind = ("upload_many", "read", "send")[number % 3]
        events = [self.event() for _ in range(self.choice((0, 1, 2, 4, 6, 8)))]
        flaw = ""
        if number % FLAWED == 0:
            # In turn and not by chance, so that a short run has each of them, too.
            flaw = tuple(FLAWS)[number // FLAWED % len(FLAWS)]
            kind = "send"
            events.append(FLAWS[flaw][1])
        return Case(number, kind, self.batch(number), tuple(events), flaw)

    def batch(self, number: int) -> Model:
        """Throw all of a batch but its events; its number is in the mpid."""
        made = self.model("Batch")
        made.fields["mpid"] = number
        if self.chance(0.7):
            made.fields["source_request_id"] = f"batch#{number}"
        attributes = made.fields.get("user_attributes") or {}
        forgotten = made.fields.get("deleted_user_attributes")
        if forgotten:
            made.fields["deleted_user_attributes"] = [
                name for name in forgotten if name not in attributes
            ]
        return made

    def event(self) -> Model:
        """Throw an event of any kind."""
        name = self.choice(tuple(WIRE_TYPES))
        made = self.model(name, COMMON)
        if name == "CommerceEvent":
            variant, throw = self.choice(VARIANTS)
            made.fields[variant] = throw(self)
        if name == "ProfileEvent":
            ids = {"previous_mpid": self.whole(), "current_mpid": self.whole()}
            return made._replace(ours_alone=ids)
        return made

    def model(self, name: str, more: Mapping[str, Any] | None = None) -> Model:
        """Throw an object: what it needs, and few or many of the other fields."""
        likely = self.choice((0.05, 0.3, 0.9))
        needed = NEEDED.get(name, ())
        fields = {
            field: throw(self)
            for field, throw in {**(more or {}), **SHAPES[name]}.items()
            if field in needed or self.chance(likely)
        }
        return Model(name, fields, {})

    def attributes(self) -> Json:
        """Throw attributes of an event: scalars, null among them."""
        many = self.choice((0, 1, 3, 10))
        return {self.key(): self.scalar() for _ in range(many)}

    def user_attributes(self) -> Json:
        """Throw attributes of a user: lists too."""
        made = self.attributes()
        for _ in range(self.choice((0, 1, 3))):
            made[self.key()] = [self.scalar() for _ in range(self.choice((0, 1, 4)))]
        return made

    def flags(self) -> Json:
        """Throw flags: any JSON."""
        nested = {"a": [1, {"b": None}], "": [], "c": [[1.5]]}
        return {self.key(): self.choice((self.scalar(), nested)) for _ in range(2)}

    def consent(self) -> Model:
        """Throw decisions under one regulation, both or none."""
        fields: Json = {}
        if self.chance(0.6):
            purposes = self.sample(("analytics", "my purpose", "é"), self.randint(1, 3))
            fields["gdpr"] = {p: self.model("GDPRConsentState") for p in purposes}
        if self.chance(0.5):
            fields["ccpa"] = {"data_sale_opt_out": self.model("CCPAConsentState")}
        return Model("ConsentState", fields, {})

    def scalar(self) -> Any:
        """Throw a value that an attribute can have."""
        if self.chance(0.05):
            return None
        return self.choice((self.text(), self.whole(), self.real(), self.flag()))

    def key(self) -> str:
        """Throw a name."""
        return self.choice(("plan", "$age", "clé", 'a "b"', f"k{self.randrange(99)}"))

    def text(self) -> str:
        """Throw a text of any characters that UTF-8 has."""
        usual = ("", "a", "plain text", "naïve café", "日本語", "🙂", "\x00\x1f\x7f")
        return self.choice((*usual, '"\\/\b\n', "</script>", "\u2028", "null", "NaN"))

    def name(self) -> str:
        """Throw a text that is not empty."""
        return self.text() or "Signed Up"

    def whole(self) -> int:
        """Throw an integer of 64 bits."""
        return self.choice((0, 1, -1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)))

    def count(self) -> int:
        """Throw an integer that is not negative, and no point in time."""
        return self.choice((0, 1, 250, 86_400_000))

    def number(self) -> Any:
        """Throw a finite number, now and then as a Decimal."""
        if self.chance(0.01):
            return Decimal(self.randrange(1, 10_000)) / 100
        return self.real()

    def real(self) -> float:
        """Throw a number that JSON has."""
        return self.choice((0.0, 0.1, 19.99, -2.5, 1e-7, 1e21, 5, 0, self.random()))

    def amount(self) -> Any:
        """Throw a number that is not negative."""
        return self.choice((0, 1, 12, 0.5, 2.0))

    def flag(self) -> bool:
        """Throw yes or no."""
        return self.chance(0.5)

    def moment(self) -> Any:
        """Throw a point in time, now and then as a datetime."""
        ms = FIRST_MS + self.randrange(10**11)
        return datetime.fromtimestamp(ms / 1000, UTC) if self.chance(0.02) else ms

    def identifier(self) -> str:
        """Throw a UUID as text."""
        return str(uuid.UUID(int=self.getrandbits(128)))

    def products(self) -> list[Model]:
        """Throw a list of products."""
        return [self.model("Product") for _ in range(self.randint(0, 3))]

    def chance(self, of: float) -> bool:
        """Throw yes or no."""
        return self.random() < of


Throw = Callable[[Dice], Any]


def each(throw: Throw, *names: str) -> dict[str, Throw]:
    """Give fields that are thrown alike."""
    return dict.fromkeys(names, throw)


def one(name: str, **fields: Throw) -> dict[str, Throw]:
    """Give fields that each hold an object of one class."""
    return dict.fromkeys(fields, lambda dice: dice.model(name))


def part(name: str) -> Throw:
    """Give what throws an object of one class."""
    return lambda dice: dice.model(name)


def parts(name: str) -> Throw:
    """Give what throws a list of objects of one class."""
    return lambda dice: [dice.model(name) for _ in range(dice.randint(1, 3))]


def any_of(*values: str) -> Throw:
    """Give what throws one of some texts."""
    return lambda dice: dice.choice(values)


COMMON: Final[dict[str, Throw]] = {
    "timestamp_unixtime_ms": Dice.moment,
    "source_message_id": Dice.name,
    "session_id": Dice.whole,
    "event_id": Dice.whole,
    "session_uuid": Dice.identifier,
    "custom_attributes": Dice.attributes,
    "location": part("GeoLocation"),
    "device_current_state": part("DeviceCurrentState"),
}
"""Fields of every event."""

CONSENT: Final[dict[str, Throw]] = {
    "consented": Dice.flag,
    "timestamp_unixtime_ms": Dice.moment,
    **each(Dice.text, "document", "location", "hardware_id"),
}

ORIENTATION: Final = any_of("portrait", "landscape", "FaceUp")

SHAPES: Final[dict[str, dict[str, Throw]]] = {
    "Batch": {
        "environment": any_of("development", "production"),
        "ip": any_of("192.0.2.7", "2001:db8::1"),
        "schema_version": lambda _: 2,
        "device_info": part("DeviceInformation"),
        "application_info": part("ApplicationInformation"),
        "user_attributes": Dice.user_attributes,
        "deleted_user_attributes": lambda dice: [dice.key()],
        "user_identities": part("UserIdentities"),
        "mp_deviceid": Dice.identifier,
        "consent_state": Dice.consent,
        "context": part("BatchContext"),
        "integration_attributes": lambda dice: {"17": {"k": dice.text()}},
    },
    "BatchContext": {"data_plan": part("DataPlanContext")},
    "DataPlanContext": {"plan_id": Dice.name, "plan_version": Dice.count},
    "GDPRConsentState": CONSENT,
    "CCPAConsentState": CONSENT,
    "UserIdentities": {
        **each(Dice.name, "other", "customerid", "facebook", "twitter", "google"),
        **each(Dice.name, "microsoft", "yahoo", "email", "alias"),
        **each(Dice.name, "facebook_custom_audience_id", "mobile_number"),
        **each(Dice.name, "phone_number_2", "phone_number_3"),
        **each(Dice.name, *(f"other_id_{number}" for number in range(2, 11))),
    },
    "ApplicationInformation": each(
        Dice.text,
        *("application_name", "application_version", "install_referrer", "package"),
    ),
    "DeviceInformation": {
        **each(Dice.text, "brand", "product", "device", "device_manufacturer"),
        **each(Dice.text, "os_version", "device_model", "device_country"),
        **each(Dice.text, "locale_language", "locale_country", "network_country"),
        **each(Dice.text, "network_carrier", "network_code", "build_identifier"),
        **each(Dice.text, "network_mobile_country_code", "http_header_user_agent"),
        **each(Dice.text, "push_token", "cpu_architecture", "bluetooth_version"),
        **each(Dice.text, "radio_access_technology", "android_uuid", "amp_id"),
        **each(Dice.whole, "screen_height", "screen_width", "screen_dpi"),
        **each(Dice.whole, "timezone_offset"),
        **each(Dice.flag, "is_tablet", "supports_telephony", "has_nfc"),
        **each(Dice.flag, "bluetooth_enabled", "push_notification_sound_enabled"),
        **each(Dice.flag, "push_notification_vibrate_enabled"),
        **each(Dice.identifier, "ios_advertising_id", "ios_idfv"),
        **each(Dice.identifier, "android_advertising_id", "roku_advertising_id"),
        **each(Dice.identifier, "microsoft_advertising_id", "fire_advertising_id"),
        "roku_publisher_id": Dice.identifier,
        "microsoft_publisher_id": Dice.text,
        "platform": any_of("iOS", "Android", "web", "fire_tv"),
        "att_timestamp_unixtime_ms": Dice.moment,
        "att_authorization_status": any_of("authorized", "denied"),
    },
    "GeoLocation": each(Dice.number, "latitude", "longitude", "accuracy"),
    "DeviceCurrentState": {
        "time_since_start_ms": Dice.count,
        "battery_level": Dice.number,
        "gps_state": Dice.flag,
        "data_connection_type": any_of("wifi", "mobile"),
        "data_connection_type_detail": Dice.text,
        "cpu": Dice.text,
        "total_system_memory_usage_bytes": Dice.count,
        "disk_space_free_bytes": Dice.count,
        "system_memory_available_bytes": Dice.amount,
        "system_memory_low": Dice.flag,
        "system_memory_threshold_bytes": Dice.amount,
        "application_memory_available_bytes": Dice.amount,
        "application_memory_max_bytes": Dice.amount,
        "application_memory_total_bytes": Dice.amount,
        "device_orientation": ORIENTATION,
        "status_bar_orientation": ORIENTATION,
    },
    "MediaInfo": {
        "action": any_of("play", "stop"),
        "format": any_of("audio", "video"),
        "quality": any_of("low", "hd"),
        **each(Dice.text, "channel", "metadata", "timed_metadata"),
        **each(Dice.number, "playback_position", "playback_rate"),
    },
    "Product": {
        **each(Dice.text, "id", "name", "brand", "category", "variant"),
        **each(Dice.number, "price", "total_product_amount"),
        "coupon_code": Dice.text,
        "position": Dice.whole,
        "quantity": Dice.amount,
        "added_to_cart_time_ms": Dice.moment,
        "custom_attributes": lambda dice: {dice.key(): dice.text()},
    },
    "ProductAction": {
        "action": any_of("purchase", "refund", "add_to_cart", "remove_from_wish_list"),
        "products": Dice.products,
        "checkout_step": Dice.whole,
        **each(Dice.text, "checkout_options", "product_action_list", "coupon_code"),
        **each(Dice.text, "product_list_source", "transaction_id", "affiliation"),
        **each(Dice.number, "total_amount", "tax_amount", "shipping_amount"),
    },
    "ProductImpression": {
        "product_impression_list": Dice.text,
        "products": Dice.products,
    },
    "Promotion": each(Dice.text, "id", "name", "creative", "position"),
    "PromotionAction": {
        "action": any_of("view", "click"),
        "promotions": parts("Promotion"),
    },
    "ShoppingCart": {"products": Dice.products},
    # --- Events ---
    "AppEvent": {
        "event_name": Dice.name,
        "custom_event_type": any_of("other", "navigation", "search", "attribution"),
        "custom_flags": Dice.flags,
        "media_info": part("MediaInfo"),
    },
    "ApplicationStateTransitionEvent": {
        "application_transition_type": any_of(
            "application_initialized", "application_background"
        ),
        **each(Dice.flag, "is_first_run", "is_upgrade", "successfully_closed"),
        "push_notification_payload": Dice.text,
    },
    "BreadcrumbEvent": {"label": Dice.name, "session_number": Dice.whole},
    "CommerceEvent": {
        "shopping_cart": part("ShoppingCart"),
        "currency_code": any_of("USD", "eur"),
        "screen_name": Dice.text,
        "is_non_interactive": Dice.flag,
        "custom_flags": Dice.flags,
    },
    "CrashReportEvent": {
        "severity": Dice.name,
        **each(Dice.text, "message", "class_name", "stack_trace", "topmost_context"),
        "exception_handled": Dice.flag,
        "pl_crash_report_file_base64": Dice.text,
        "session_number": Dice.whole,
        **each(Dice.count, "ios_image_base_address", "ios_image_size"),
        "breadcrumbs": parts("BreadcrumbEvent"),
    },
    "FirstRunEvent": {},
    "NetworkPerformanceEvent": {
        **each(Dice.text, "url", "http_verb", "data"),
        **each(Dice.count, "time_elapsed", "bytes_in", "bytes_out", "response_code"),
    },
    "OptOutEvent": {"is_opted_out": Dice.flag},
    "ProfileEvent": {
        "profile_event_type": any_of("signup", "login", "logout", "delete"),
        **each(Dice.text, "profile_name", "previous_profile_name"),
    },
    "PushMessageEvent": {
        **each(Dice.text, "push_message_token", "push_notification_payload"),
        "push_message_type": any_of("sent", "received", "action"),
        "message": Dice.text,
        "network": any_of("fcm", "apn"),
        "application_state": any_of("background", "foreground"),
        "action_identifier": Dice.text,
    },
    "PushRegistrationEvent": {"register": Dice.flag, "registration_token": Dice.text},
    "ScreenViewEvent": {
        "screen_name": Dice.name,
        "activity_type": Dice.text,
        "custom_flags": Dice.flags,
    },
    "SessionEndEvent": {"session_duration_ms": Dice.count},
    "SessionStartEvent": {},
    "UserAttributeChangeEvent": {
        "user_attribute_name": Dice.name,
        **each(Dice.scalar, "new", "old"),
        **each(Dice.flag, "deleted", "is_new_attribute"),
    },
}
"""Class to its fields, and what throws their values."""

NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "Batch": ("environment",),
    "DataPlanContext": ("plan_id",),
    "GDPRConsentState": ("consented", "timestamp_unixtime_ms"),
    "CCPAConsentState": ("consented", "timestamp_unixtime_ms"),
    "GeoLocation": ("latitude", "longitude"),
    "ProductAction": ("action",),
    "ProductImpression": ("product_impression_list", "products"),
    "PromotionAction": ("action",),
    "ShoppingCart": ("products",),
    "AppEvent": ("event_name", "custom_event_type"),
    "ApplicationStateTransitionEvent": ("application_transition_type",),
    "BreadcrumbEvent": ("label",),
    "CrashReportEvent": ("severity", "message"),
    "NetworkPerformanceEvent": ("url", "response_code"),
    "OptOutEvent": ("is_opted_out",),
    "ProfileEvent": ("profile_event_type",),
    "PushMessageEvent": (
        *("push_message_token", "push_message_type", "push_notification_payload"),
    ),
    "PushRegistrationEvent": ("register", "registration_token"),
    "ScreenViewEvent": ("screen_name",),
    "SessionEndEvent": ("session_duration_ms",),
    "UserAttributeChangeEvent": ("user_attribute_name",),
}
"""Fields without which our model cannot be made."""

VARIANTS: Final[tuple[tuple[str, Throw], ...]] = (
    ("product_action", part("ProductAction")),
    ("promotion_action", part("PromotionAction")),
    ("product_impressions", parts("ProductImpression")),
)

LIST: Final = {"k": [1]}
BUY: Final = Model("ProductAction", {"action": "purchase"}, {})
VIEW: Final = Model("PromotionAction", {"action": "view"}, {})
FLAWS: Final[dict[str, tuple[str, Model]]] = {
    "seconds for milliseconds": (
        "the event would lie in 1970: the batch is refused here",
        Model("SessionStartEvent", {"timestamp_unixtime_ms": 1_700_000_000}, {}),
    ),
    "an empty name": (
        "it names no screen, event or mark: refused here",
        Model("ScreenViewEvent", {"screen_name": ""}, {}),
    ),
    "a list among an event's attributes": (
        "mParticle takes scalars there: refused here, and by the other SDK on some",
        Model("OptOutEvent", {"is_opted_out": True, "custom_attributes": LIST}, {}),
    ),
    "a value beyond the limits": (
        "mParticle may fail the whole request for it: refused here",
        Model("FirstRunEvent", {"custom_attributes": {"k": "x" * 4097}}, {}),
    ),
    "two kinds of commerce in one event": (
        "mParticle's documentation wants exactly one: refused here",
        Model("CommerceEvent", {"product_action": BUY, "promotion_action": VIEW}, {}),
    ),
}
"""What is wrong with an event, why its batch is refused, and the event."""


# --- The two roads ---


def official_of(value: Any) -> Any:
    """Make of a thrown value what the official SDK takes."""
    if isinstance(value, dict):
        return {key: official_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [official_of(item) for item in value]
    if not isinstance(value, Model):
        return value
    fields = {name: official_of(item) for name, item in value.fields.items()}
    kind = OFFICIAL_ONLY.get(value.name) or getattr(official, value.name)
    if value.name != "ConsentState":
        return kind(**fields)
    # Its constructor takes nothing.
    made = kind()
    for name, item in fields.items():
        setattr(made, name, item)
    return made


def ours_of(value: Any) -> Any:
    """Make of a thrown value what ours takes."""
    if isinstance(value, dict):
        return {key: ours_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [ours_of(item) for item in value]
    if not isinstance(value, Model):
        return value
    kind = getattr(amplitude_async.mparticle, OUR_NAMES.get(value.name, value.name))
    fields = {name: ours_of(item) for name, item in value.fields.items()}
    return kind(**fields, **value.ours_alone)


def plain(value: Any, *, ours: bool = False) -> Any:
    """Make of a thrown value dictionaries with the names of the wire."""
    if isinstance(value, dict):
        return {key: plain(item, ours=ours) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, ours=ours) for item in value]
    if not isinstance(value, Model):
        return value
    fields = {name: plain(item, ours=ours) for name, item in value.fields.items()}
    return {**fields, **value.ours_alone} if ours else fields


def send_official(cases: list[Case], url: str) -> None:
    """Upload every batch with the official SDK."""
    configuration = official.Configuration()
    configuration.host = url
    configuration.api_key = configuration.api_secret = "key"
    api = official.EventsApi(configuration)
    for first in range(0, len(cases), BULK):
        batches = []
        for case in cases[first : first + BULK]:
            batch = official_of(case.batch)
            # By assignment, or the events would go without their types.
            batch.events = [official_of(event) for event in case.events]
            batches.append(batch)
        api.bulk_upload_events(batches)
    api.api_client.rest_client.pool_manager.clear()


async def send_ours(cases: list[Case], url: str) -> dict[int, str]:
    """Send every batch with our client; give what it said of those it refuses."""
    refused: dict[int, str] = {}
    many: list[Batch] = []
    async with MParticle("key", "secret", base_url=url, trust_env=False) as client:
        for case in cases:
            try:
                batch = our_batch(case)
            except ValidationError as error:
                refused[case.number] = str(error)
                continue
            if case.kind != "send":
                many.append(batch)
                continue
            delivery = await client.send(batch)
            if delivery.result is not None:
                refused[case.number] = delivery.result.message
        results = await client.upload_many(many)
        stats = await client.flush(60)
    assert all(result.ok for result in results)
    assert stats.balanced
    assert stats.pending == 0
    return refused


def our_batch(case: Case) -> Batch:
    """Make a batch of models, or read it as it is on the wire."""
    if case.kind == "read":
        events = [
            {"event_type": WIRE_TYPES[event.name], "data": plain(event, ours=True)}
            for event in case.events
        ]
        return Batch.model_validate({**plain(case.batch), "events": events})
    batch: Batch = ours_of(case.batch)
    batch.events = [ours_of(event) for event in case.events]
    return batch


# --- What differs, and why ---


def _at(leaf: Leaf, *path: str) -> bool:
    """Tell whether a leaf lies at a path; a star is any one step."""
    return len(leaf.path) == len(path) and all(
        wanted in ("*", step) for wanted, step in zip(path, leaf.path, strict=True)
    )


def _is_filled_in(leaf: Leaf) -> bool:
    if leaf.theirs is not ABSENT:
        return False
    return (
        _at(leaf, "source_request_id")
        or _at(leaf, "events", "*", "data", "source_message_id")
        or _at(leaf, "events", "*", "data", "timestamp_unixtime_ms")
    )


def _is_crash_report(leaf: Leaf) -> bool:
    return (
        _at(leaf, "events", "*", "event_type")
        and leaf.theirs == "commerce_event"
        and leaf.ours == "crash_report"
    )


def _is_decimal(leaf: Leaf) -> bool:
    theirs, ours = leaf.theirs, leaf.ours
    if not isinstance(theirs, str) or not isinstance(ours, int | float):
        return False
    return re.fullmatch(r"\d+(\.\d+)?", theirs) is not None and float(theirs) == ours


def _is_datetime(leaf: Leaf) -> bool:
    if not isinstance(leaf.theirs, str) or not str(leaf.path[-1]).endswith("_ms"):
        return False
    moment = datetime.fromisoformat(leaf.theirs) - datetime.fromtimestamp(0, UTC)
    ms = moment // timedelta(milliseconds=1)
    return bool(leaf.ours == ms)


def _is_empty_consent(leaf: Leaf) -> bool:
    theirs = leaf.theirs
    empty: Json = {"ccpa": {}, "gdpr": {}}
    return leaf.ours is ABSENT and (
        (_at(leaf, "consent_state") and theirs == empty)
        or (_at(leaf, "consent_state", "*") and theirs == {})
    )


def _is_null_of_a_change(leaf: Leaf) -> bool:
    if leaf.theirs is not ABSENT or leaf.ours is not None:
        return False
    return any(_at(leaf, "events", "*", "data", name) for name in ("new", "old"))


def _is_refused(flaw: str, leaf: Leaf) -> bool:
    return not leaf.path and leaf.ours is ABSENT and leaf.case.flaw == flaw


CLASSES: Final = {
    "an id or a time that was not given": Difference(
        "ids let mParticle tell a repeated upload, and a time says when it happened: "
        "both are filled in",
        _is_filled_in,
    ),
    "no events": Difference(
        "an empty list says nothing, and is left out",
        lambda leaf: _at(leaf, "events") and leaf.theirs == [] and leaf.ours is ABSENT,
    ),
    "a crash report": Difference(
        "it is one: the other SDK calls it a `commerce_event`", _is_crash_report
    ),
    "breadcrumbs of a crash report": Difference(
        "each is an event and has its type, like the events of the batch",
        lambda leaf: leaf.path[3:4] == ("breadcrumbs",),
    ),
    "`customerid`": Difference(
        "the documented name is `customer_id`; the old one is read",
        lambda leaf: any(
            _at(leaf, "user_identities", name) for name in ("customerid", "customer_id")
        ),
    ),
    "ids of a profile event": Difference(
        "mParticle's documentation requires both: the other SDK has no place for them",
        lambda leaf: any(
            _at(leaf, "events", "*", "data", name) and leaf.theirs is ABSENT
            for name in ("previous_mpid", "current_mpid")
        ),
    ),
    "no consent under a regulation": Difference(
        "there is nothing to say: the other SDK sends `{}`", _is_empty_consent
    ),
    "an attribute that had or has no value": Difference(
        "`old` and `new` are sent as null, which the published schema requires",
        _is_null_of_a_change,
    ),
    "a Decimal": Difference(
        "it is a number: the other SDK sends text, which the schema refuses",
        _is_decimal,
    ),
    "a datetime as a time": Difference(
        "it becomes milliseconds: the other SDK sends ISO 8601, which the schema "
        "refuses",
        _is_datetime,
    ),
    **{
        flaw: Difference(reason, partial(_is_refused, flaw))
        for flaw, (reason, _) in FLAWS.items()
    },
}


# --- The runs ---


def batches_of(recorder: Recorder) -> dict[int, Json]:
    """Give what arrived by the number in it."""
    batches: dict[int, Json] = {}
    for path, body in recorder.take():
        assert path in {"/v2/events", "/v2/bulkevents"}
        for batch in body if isinstance(body, list) else [body]:
            assert batch["mpid"] not in batches
            batches[batch["mpid"]] = batch
    return batches


async def test_the_batches_are_those_of_the_official_sdk(
    recorder: Recorder, seed: int, events_wanted: int
) -> None:
    """Clean data is the same JSON; what differs is of a class with a reason."""
    dice = Dice(f"{seed} mparticle")
    cases: list[Case] = []
    events = 0
    while events < events_wanted:
        cases.append(dice.case(len(cases) + 1))
        events += 0 if cases[-1].flaw else len(cases[-1].events)
    url = f"{recorder.url}/v2"
    await asyncio.to_thread(send_official, cases, url)
    theirs = batches_of(recorder)
    refused = await send_ours(cases, url)
    ours = batches_of(recorder)
    assert [refused[n] for n in refused if not cases[n - 1].flaw] == []

    leaves: list[Leaf] = []
    for case in cases:
        pair = theirs.get(case.number, ABSENT), ours.get(case.number, ABSENT)
        leaves += compare(case, *pair)
    sort_out(leaves, CLASSES, seed=seed, events=events_wanted)


def test_the_page_gives_the_reason_of_each_class() -> None:
    """The documentation lists the same classes with the same reasons."""
    told = {name: difference.reason for name, difference in CLASSES.items()}
    assert table_of("mParticle") == told
