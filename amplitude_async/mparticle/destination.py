"""Feeds an mParticle client from an Amplitude client: one ``track``, two vendors.

What becomes of what, unless a function of the user's decides otherwise:

| Amplitude | mParticle |
|---|---|
| ``user_id`` | ``user_identities.customer_id`` |
| ``device_id`` | ``mp_deviceid`` where it is a UUID, else ``user_identities.other`` |
| ``ip`` | ``ip`` |
| ``idfa``, ``idfv``, ``adid``, ``android_id`` | the ids in ``device_info`` |
| ``device_brand`` and the other device, OS and network fields | ``device_info`` |
| ``app_version`` | ``application_info.application_version`` |
| ``location_lat``, ``location_lng`` | ``location`` of the event |
| ``time``, ``insert_id`` | ``timestamp_unixtime_ms``, ``source_message_id`` |
| an ordinary event | a custom event of type ``other`` with its properties |
| ``revenue_amount`` | a commerce event: purchase, or refund where negative |
| ``$identify``: ``$set``, ``$setOnce`` | ``user_attributes`` |
| ``$identify``: ``$unset`` | ``deleted_user_attributes`` |
| groups of ``$identify`` | user attributes named like the group type |
| ``$groupidentify`` and other operations | nothing: mParticle has no such thing |

Properties that are lists or objects become JSON text: custom attributes are scalars.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from amplitude_async.amplitude.events import (
    GROUP_IDENTIFY,
    IDENTIFY,
    REVENUE,
    Event,
)
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.stats import Stats
from amplitude_async.destination import EngineDestination, Refusal
from amplitude_async.encoding import DROP, Loss, ValuePolicy
from amplitude_async.mparticle.batch import Batch
from amplitude_async.mparticle.client import MParticle
from amplitude_async.mparticle.commerce import CommerceEvent, Product, ProductAction
from amplitude_async.mparticle.context import ApplicationInformation, GeoLocation
from amplitude_async.mparticle.device import DeviceInformation
from amplitude_async.mparticle.events import CustomEvent
from amplitude_async.mparticle.identities import UserIdentities
from amplitude_async.storage.base import Record

__all__ = ["MParticleDestination", "to_batch"]

Mapper = Callable[[Event], Batch | None]

_DEVICE_FIELDS = {
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
_ADVERTISING_IDS = {
    "idfa": "ios_advertising_id",
    "idfv": "ios_idfv",
    "adid": "android_advertising_id",
}
_POLICY = ValuePolicy()


class MParticleDestination(EngineDestination):
    """Sends what an Amplitude client tracks to mParticle as well.

    Each vendor has its own queue and engine: a stuck one does not delay the other.
    ``flush`` and ``shutdown`` of the Amplitude client include the mParticle client.

    Args:
        mparticle: a client with an environment.
        mapping: turns an event into a batch, or into None to leave it out; the table
            of this module by default.

    Raises:
        ValueError: the client has no environment and the default mapping needs one.
    """

    def __init__(self, mparticle: MParticle, *, mapping: Mapper | None = None) -> None:
        environment = mparticle.config.environment
        if mapping is None and environment is None:
            msg = "mparticle has no environment: construct it with environment='...'"
            raise ValueError(msg)
        self._client = mparticle
        door = _MappingDoor(mparticle, mapping or _default_mapping(environment or ""))
        super().__init__("mparticle", door, mparticle.engine, LoopClock())

    def settle(self, event: Any, outcome: Outcome) -> Delivery:
        """Account for an event that goes nowhere."""
        return self._engine.settle_at_door(event, event.insert_id or "", outcome)

    async def start(self) -> None:
        """Start the mParticle client."""
        await self._client.start()

    async def shutdown(self, timeout: float | None) -> Stats:
        """Shut the mParticle client down."""
        return await self._client.shutdown(timeout)

    def rebind(self) -> None:
        """The mParticle client notices another loop by itself when it starts."""

    def forget_parent(self) -> None:
        """The mParticle client notices a fork by itself when it starts."""


class _MappingDoor:
    """Maps an event to a batch and lets the mParticle door check it."""

    def __init__(self, client: MParticle, mapping: Mapper) -> None:
        self._client = client
        self._mapping = mapping

    def insert_id(self, event: Event) -> str:
        """The event's own insert_id, or a new one."""
        return event.insert_id or str(uuid4())

    def admit(self, event: Event, record_id: int, wall: float) -> Record | Refusal:
        """Encode the batch that an event becomes, or say why there is none."""
        try:
            batch = self._mapping(event)
        except (ValidationError, ValueError) as error:
            return Refusal(f"the event has no mParticle form: {error!s:.300}")
        if batch is None:
            return Refusal(f"mParticle has nothing like {event.event_type!r}")
        return self._client.admit(batch, record_id, wall)


def _default_mapping(environment: str) -> Mapper:
    return lambda event: to_batch(event, environment)


def to_batch(event: Event, environment: str) -> Batch | None:
    """Turn an Amplitude event into a batch by the table of this module.

    Returns:
        None for an event that mParticle has nothing like.

    Raises:
        pydantic.ValidationError: a value that mParticle does not take.
    """
    fields: dict[str, Any] = {"environment": environment, "ip": event.ip}
    fields |= _identities(event)
    fields["device_info"] = _device(event)
    if event.app_version is not None:
        fields["application_info"] = ApplicationInformation(
            application_version=event.app_version
        )
    if event.event_type == GROUP_IDENTIFY:
        return None
    if event.event_type == IDENTIFY:
        return _identify(event, fields)
    common = _common(event)
    if event.event_type == REVENUE:
        fields["events"] = [_commerce(event, common)]
    else:
        attributes = _attributes(event.event_properties or {})
        fields["events"] = [
            CustomEvent(
                event_name=event.event_type, custom_attributes=attributes, **common
            )
        ]
    return Batch(**_given(fields))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _identities(event: Event) -> dict[str, Any]:
    known: dict[str, Any] = {"customer_id": event.user_id or None}
    device_id = event.device_id or None
    stamp_id = _uuid(device_id)
    if stamp_id is None:
        known["other"] = device_id
    identities = _given(known)
    return {
        "user_identities": UserIdentities(**identities) if identities else None,
        "mp_deviceid": stamp_id,
    }


def _uuid(text: str | None) -> str | None:
    with contextlib.suppress(ValueError):
        return str(UUID(text)) if text else None
    return None


def _device(event: Event) -> DeviceInformation | None:
    fields = {new: getattr(event, old) for old, new in _DEVICE_FIELDS.items()}
    for old, new in _ADVERTISING_IDS.items():
        fields[new] = _uuid(getattr(event, old))
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
            "source_message_id": event.insert_id,
            "location": location,
        }
    )


def _attributes(properties: Mapping[Any, Any]) -> dict[str, Any] | None:
    losses: list[Loss] = []
    plain = _POLICY.convert(properties, "event_properties", losses)
    if plain is DROP or not isinstance(plain, dict) or not plain:
        return None
    return {name: _scalar(value) for name, value in plain.items()}


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _commerce(event: Event, common: dict[str, Any]) -> CommerceEvent:
    properties = dict(event.event_properties or {})
    price = properties.pop("$price", None)
    quantity = properties.pop("$quantity", 1)
    amount = properties.pop("$revenue", None)
    total = amount if amount is not None else (price or 0) * quantity
    product = Product(
        **_given(
            {
                "id": properties.pop("$productId", None),
                "price": None if price is None else abs(price),
                "quantity": quantity,
                "total_product_amount": abs(total),
            }
        )
    )
    action = ProductAction(
        action="refund" if total < 0 else "purchase",
        transaction_id=properties.pop("$receipt", None) or event.insert_id,
        total_amount=abs(total),
        products=[product],
    )
    attributes = _attributes(properties)
    return CommerceEvent(
        product_action=action,
        currency_code=properties.get("$currency"),
        custom_attributes=attributes,
        **common,
    )


def _identify(event: Event, fields: dict[str, Any]) -> Batch | None:
    operations = event.user_properties or {}
    attributes = {**operations.get("$setOnce", {}), **operations.get("$set", {})}
    for kind, name in (event.groups or {}).items():
        attributes.setdefault(kind, name)
    removed = list(operations.get("$unset", {}))
    if not attributes and not removed:
        return None
    losses: list[Loss] = []
    plain = _POLICY.convert(attributes, "user_properties", losses)
    if isinstance(plain, dict):
        fields["user_attributes"] = {
            name: json.dumps(value) if isinstance(value, dict) else value
            for name, value in plain.items()
        }
    fields["deleted_user_attributes"] = removed or None
    return Batch(**_given(fields))
