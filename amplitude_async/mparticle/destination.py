"""Feeds an mParticle client from an Amplitude client: one ``track``, two vendors.

What becomes of what, unless a function of the user's decides otherwise:

| Amplitude | mParticle |
|---|---|
| ``user_id`` | ``user_identities.customer_id`` |
| ``device_id`` | ``mp_deviceid`` where it is a UUID, else ``user_identities.other`` |
| ``ip`` | ``ip``, unless it is ``$remote`` |
| ``idfa``, ``idfv``, ``adid``, ``android_id`` | the ids in ``device_info`` |
| ``device_brand`` and the other device, OS and network fields | ``device_info`` |
| ``app_version`` | ``application_info.application_version`` |
| ``location_lat``, ``location_lng`` | ``location`` of the event |
| ``time``, ``insert_id`` | ``timestamp_unixtime_ms``, ``source_message_id`` |
| an ordinary event | a custom event of type ``other`` with its properties |
| ``revenue_amount`` | a commerce event: purchase, or refund where negative |
| ``groups`` of an event | custom attributes named like the group type |
| ``user_properties``, ``$set`` in ``$identify`` | ``user_attributes`` |
| ``$unset`` | ``deleted_user_attributes`` |
| groups of ``$identify`` | user attributes named like the group type |
| ``$groupidentify`` and other operations | nothing: mParticle has no such thing |

Properties that are lists or objects become JSON text: custom attributes are scalars.
Integers beyond 64 bits become text too, and a property without a name is left out.
"""

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from amplitude_async.amplitude.events import (
    GROUP_IDENTIFY,
    IDENTIFY,
    REVENUE,
    Event,
)
from amplitude_async.client.destination import EngineDestination, Refusal
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.reporting import Reporter, named
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.encoding import Dropped, Loss, ValuePolicy
from amplitude_async.exceptions import QueueFullError
from amplitude_async.mparticle.client import MParticle
from amplitude_async.mparticle.encoder import new_uuid
from amplitude_async.mparticle.models.batch import Batch
from amplitude_async.mparticle.models.commerce import (
    CommerceEvent,
    Product,
    ProductAction,
)
from amplitude_async.mparticle.models.context import ApplicationInformation, GeoLocation
from amplitude_async.mparticle.models.device import DeviceInformation
from amplitude_async.mparticle.models.enums import Platform
from amplitude_async.mparticle.models.events import CustomEvent
from amplitude_async.mparticle.models.identities import UserIdentities
from amplitude_async.shown import shown
from amplitude_async.storage.base import Record

__all__ = ["MParticleDestination", "Mapper", "to_batch"]

Mapper = Callable[[Event], Batch | None]
"""Turns an event into a batch, or into None where mParticle is not to have it."""

_DEVICE_FIELDS: Final = {
    "device_brand": "brand",
    "device_manufacturer": "device_manufacturer",
    "device_model": "device_model",
    "os_version": "os_version",
    "carrier": "network_carrier",
    "country": "device_country",
    "language": "locale_language",
    "user_agent": "http_header_user_agent",
    "android_id": "android_uuid",
}
_ADVERTISING_IDS: Final = {
    "idfa": "ios_advertising_id",
    "idfv": "ios_idfv",
    "adid": "android_advertising_id",
}
_PLATFORMS: Final = {str(platform).lower(): platform for platform in Platform}

# Amplitude Identify API documentation, "user_properties": all but two of them build
# on what the server has, and mParticle's server has nothing like that. To set what was
# meant to be set once would overwrite it every time.
_OPERATIONS: Final = frozenset(
    {
        "$set",
        "$setOnce",
        "$unset",
        "$add",
        "$append",
        "$prepend",
        "$preInsert",
        "$postInsert",
        "$remove",
        "$clearAll",
    }
)
_TRANSLATED: Final = frozenset({"$set", "$unset"})
_POLICY: Final = ValuePolicy()
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1


class MParticleDestination(EngineDestination):
    """Sends what an Amplitude client tracks to mParticle as well.

    Each vendor has its own queue and engine: a stuck one does not delay the other.
    Where mParticle's queue is full, its copy of an event is shed at once, whatever the
    policy, or goes to its durable storage. ``flush`` and ``shutdown`` of the Amplitude
    client include the mParticle client.

    Args:
        mparticle: a client with an environment.
        mapping: turns an event into a batch, or into None to leave it out; the table
            of this module by default. It gets a copy of the event.

    Raises:
        ValueError: the client has no environment and the default mapping needs one.
    """

    def __init__(self, mparticle: MParticle, *, mapping: Mapper | None = None) -> None:
        environment = mparticle.config.environment
        if mapping is None and environment is None:
            msg = "mparticle has no environment: construct it with environment='...'"
            raise ValueError(msg)
        self._client = mparticle
        self._was_started = False
        reporter = Reporter(
            mparticle.config.logger,
            mparticle.clock,
            "mparticle",
            mparticle.config.redactor,
        )
        mapper = mapping or _DefaultMapping(environment or "", reporter)
        door = _MappingDoor(mparticle, mapper, reporter)
        super().__init__("mparticle", door, mparticle.queue, mparticle.clock)

    def offer(self, event: Any) -> Delivery | None:  # noqa: ARG002
        """Never take the short road: the client behind may have been shut down."""
        return None

    async def accept(self, event: Any) -> Delivery:
        """Accept an event; it waits for a durable storage, never for room."""
        admitted = self._admit(event)
        if isinstance(admitted, Outcome):
            return await self._settle_in_turn(event, admitted)
        try:
            if self._engine.plain:
                return self._engine.intake.offer_nowait(admitted)
            return await self._engine.intake.accept(admitted)
        except QueueFullError as error:
            return await self._settle_in_turn(event, _overflow(error))

    def offer_nowait(self, event: Any) -> Delivery:
        """Accept an event, or shed it."""
        admitted = self._admit(event)
        if isinstance(admitted, Outcome):
            return self.settle(event, admitted)
        try:
            return self._engine.intake.offer_nowait(admitted)
        except QueueFullError as error:
            return self.settle(event, _overflow(error))

    def _admit(self, event: Any) -> Record | Outcome:
        stopped = self._client.stopped
        if stopped is not None:
            return stopped
        record = self._door.admit(
            event, self._engine.intake.numbers.next, self._clock.wall()
        )
        if isinstance(record, _LeftOut):
            return Outcome.dropped(DropReason.PLUGIN, record.message)
        if isinstance(record, Refusal):
            return Outcome.rejected(record.message)
        return self._whole(record)

    async def start(self) -> None:
        """Start the mParticle client."""
        # Shut down by itself meanwhile, it must not keep the Amplitude client from
        # starting on another loop.
        if not self._was_started or self._client.stopped is None:
            await self._client.start()
        self._was_started = True

    async def shutdown(self, timeout: float | None) -> Stats:
        """Shut the mParticle client down."""
        return await self._client.shutdown(timeout)

    def rebind(self) -> None:
        """The mParticle client notices another loop by itself when it starts."""

    def forget_parent(self) -> None:
        """The mParticle client notices a fork by itself when it starts."""


class _LeftOut(Refusal):
    """The mapping's decision that mParticle is not to have an event."""


class _MappingDoor:
    """Maps an event to a batch and lets the mParticle door check it."""

    def __init__(self, client: MParticle, mapping: Mapper, reporter: Reporter) -> None:
        self._client = client
        self._mapping = mapping
        self._reporter = reporter

    def insert_id(self, event: Event) -> str:
        """The event's own insert_id, or a new one."""
        return event.insert_id or new_uuid()

    def admit(self, event: Event, record_id: int, wall: float) -> Record | Refusal:
        """Encode the batch that an event becomes, or say why there is none."""
        try:
            batch = self._mapping(_copy(event))
        except ValueError as error:
            return Refusal(f"the event has no mParticle form: {error!s:.300}")
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._reporter.error(
                "mapping", "the mapping raised %r", error, traceback=error
            )
            return Refusal(f"the mapping raised {named(error):.300}")
        if batch is None:
            return _LeftOut(f"the mapping leaves {shown(event.event_type)} out")
        if not isinstance(batch, Batch):
            kind = type(batch).__name__
            return Refusal(f"the mapping returned a {kind}: return a Batch or None")
        return self._client.admit(batch, record_id, wall)


def _copy(event: Event) -> Event:
    """Copy so far that a mapping may change it: others get the event too."""
    copy = event.model_copy()
    values = copy.__dict__
    values.update({n: dict(v) for n, v in values.items() if isinstance(v, dict)})
    return copy


def _overflow(error: QueueFullError) -> Outcome:
    return Outcome.dropped(DropReason.OVERFLOW, str(error))


# The default mapping ---------------------------------------------------------


class _DefaultMapping:
    """The table of this module; says what it leaves out."""

    def __init__(self, environment: str, reporter: Reporter) -> None:
        self._environment = environment
        self._reporter = reporter

    def __call__(self, event: Event) -> Batch | None:
        operations = _OPERATIONS - _TRANSLATED
        for name in operations.intersection(event.user_properties or ()):
            self._reporter.warning(
                f"left out {name}", "mParticle has nothing like %s: left out", name
            )
        for field in ("event_properties", "user_properties", "groups"):
            if "" in (getattr(event, field) or ()):
                self._reporter.warning(
                    f"unnamed in {field}",
                    "%s has a key without a name, which mParticle refuses: left out",
                    field,
                )
        return to_batch(event, self._environment)


def to_batch(event: Event, environment: str) -> Batch | None:
    """Turn an Amplitude event into a batch by the table of this module.

    Args:
        event: not changed.
        environment: development or production.

    Returns:
        None for an event that mParticle has nothing like.

    Raises:
        pydantic.ValidationError: a value that mParticle does not take.
    """
    if event.event_type == GROUP_IDENTIFY:
        return None
    user = _user(event)
    if event.event_type == IDENTIFY:
        return Batch(**_given(_who(event, environment) | user)) if user else None
    common = _common(event)
    made: CustomEvent | CommerceEvent
    if event.event_type == REVENUE:
        made = _commerce(event, common)
    else:
        attributes = _attributes(event, event.event_properties or {})
        made = CustomEvent(
            event_name=event.event_type, custom_attributes=attributes, **common
        )
    return Batch(**_given(_who(event, environment) | user), events=[made])


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _who(event: Event, environment: str) -> dict[str, Any]:
    """Say who, on which device, with which app."""
    device_id = event.device_id or None
    device_uuid = _uuid(device_id)
    identities = _given(
        {
            "customer_id": event.user_id or None,
            "other": None if device_uuid else device_id,
        }
    )
    app = _given({"application_version": event.app_version})
    return {
        "environment": environment,
        "ip": None if event.ip == "$remote" else event.ip,
        "user_identities": UserIdentities(**identities) if identities else None,
        "mp_deviceid": device_uuid,
        "device_info": _device(event),
        "application_info": ApplicationInformation(**app) if app else None,
    }


def _uuid(text: str | None) -> str | None:
    with contextlib.suppress(ValueError):
        return str(UUID(text)) if text else None
    return None


def _device(event: Event) -> DeviceInformation | None:
    fields = {new: getattr(event, old) or None for old, new in _DEVICE_FIELDS.items()}
    for old, new in _ADVERTISING_IDS.items():
        fields[new] = _uuid(getattr(event, old))
    fields["platform"] = _PLATFORMS.get((event.platform or "").lower())
    given = _given(fields)
    return DeviceInformation(**given) if given else None


def _common(event: Event) -> dict[str, Any]:
    location = None
    if event.location_lat is not None and event.location_lng is not None:
        location = GeoLocation(
            latitude=event.location_lat, longitude=event.location_lng
        )
    return _given(
        {
            "timestamp_unixtime_ms": event.time,
            "source_message_id": event.insert_id or None,
            "location": location,
        }
    )


def _json(values: Mapping[Any, Any], path: str) -> dict[str, Any]:
    """Convert to JSON; what is lost on the way, Amplitude's own encoder reports."""
    losses: list[Loss] = []
    converted = _POLICY.convert(values, path, losses)
    found = converted if isinstance(converted, dict) else {}
    return {name: value for name, value in found.items() if name}


def _attributes(event: Event, properties: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Make custom attributes of properties and groups, of which properties win."""
    named = {**(event.groups or {}), **properties}
    values = _json(named, "event_properties")
    return {name: _scalar(value) for name, value in values.items()} or None


def _scalar(value: Any) -> Any:
    if isinstance(value, list | dict):
        return _text(value)
    too_big = type(value) is int and not _INT64_MIN <= value <= _INT64_MAX
    return str(value) if too_big else value


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _user(event: Event) -> dict[str, Any]:
    """Say what becomes known of the user; empty where nothing does."""
    properties = event.user_properties or {}
    to_set = {k: v for k, v in properties.items() if k not in _OPERATIONS}
    given = properties.get("$set")
    to_set |= given if isinstance(given, Mapping) else {}
    if event.event_type == IDENTIFY:
        to_set = {**(event.groups or {}), **to_set}
    values = _json(to_set, "user_properties")
    removed = [name for name in _unset(properties) if name and name not in values]
    changes = {
        "user_attributes": {name: _user_value(v) for name, v in values.items()} or None,
        "deleted_user_attributes": removed or None,
    }
    return _given(changes)


def _unset(properties: Mapping[str, Any]) -> list[str]:
    names = properties.get("$unset")
    if not isinstance(names, Mapping | list | tuple):
        return []
    return [name for name in names if isinstance(name, str)]


def _user_value(value: Any) -> Any:
    """User attributes may be lists of scalars."""
    return list(map(_scalar, value)) if isinstance(value, list) else _scalar(value)


def _commerce(event: Event, common: dict[str, Any]) -> CommerceEvent:
    properties = dict(event.event_properties or {})
    price = _number(properties.pop("$price", None))
    quantity = _number(properties.pop("$quantity", 1))
    amount = _number(properties.pop("$revenue", None))
    if price is None and amount is None:
        # Not a sale of nothing, which would be counted.
        msg = "it has no amount that is a number: set $price or $revenue to one"
        raise ValueError(msg)
    pieces = 1 if quantity is None else quantity
    total = amount if amount is not None else (price or 0) * pieces
    product = {
        "id": _id(properties.pop("$productId", None)),
        "price": None if price is None else abs(price),
        "quantity": None if quantity is None else abs(quantity),
        "total_product_amount": abs(total),
    }
    action = ProductAction(
        action="refund" if total < 0 else "purchase",
        transaction_id=_id(properties.pop("$receipt", None)) or event.insert_id,
        total_amount=abs(total),
        products=[Product(**_given(product))],
    )
    return CommerceEvent(
        product_action=action,
        currency_code=_currency(properties.pop("$currency", event.currency)),
        custom_attributes=_attributes(event, properties),
        **common,
    )


def _number(value: object) -> int | float | None:
    """Take what is a number or reads as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    whole = isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX
    return int(value) if whole else number


def _id(value: object) -> str | None:
    """Take an id as text."""
    if value is None or isinstance(value, str):
        return value
    converted = _POLICY.convert(value, "id", [])
    if isinstance(converted, Dropped):
        return None
    return converted if isinstance(converted, str) else _text(converted)


def _currency(code: object) -> str | None:
    """Take a code of three letters; a sale must not fail because of another."""
    usable = isinstance(code, str) and len(code) == 3 and code.isascii()
    return str(code).upper() if usable and str(code).isalpha() else None
