"""What mParticle's published rules say of one batch.

Pure, and one batch at a time: sizes and counts of a request are judged elsewhere.
Lengths and numbers of names and attributes are not judged, since mParticle documents
no more of them than that they may fail; values of enumerations are open likewise.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from .judgement import JsonObject

__all__ = ["find_problem", "is_historical"]

# mParticle JSON Reference, `user_identities`; `customerid` is the spelling
# of older SDKs, which the service still takes.
_IDENTITIES = frozenset(
    {
        "alias",
        "customer_id",
        "customerid",
        "email",
        "facebook",
        "facebook_custom_audience_id",
        "google",
        "microsoft",
        "mobile_number",
        "other",
        *(f"other_id_{number}" for number in range(2, 11)),
        "phone_number_2",
        "phone_number_3",
        "twitter",
        "yahoo",
    }
)
_ENVIRONMENTS = ("development", "production")
_KINDS: Mapping[type, str] = MappingProxyType(
    {
        bool: "true or false",
        dict: "a JSON object",
        int: "a 64-bit integer",
        list: "a JSON array",
        str: "text",
    }
)
_Fields = Mapping[str, type]

_BATCH: _Fields = MappingProxyType(
    {
        "source_request_id": str,
        "mpid": int,
        "user_identities": dict,
        "user_attributes": dict,
        "consent_state": dict,
        "context": dict,
        "events": list,
    }
)
_CONSENT: _Fields = MappingProxyType({"consented": bool, "timestamp_unixtime_ms": int})
_CHANGED_IDENTITY: _Fields = MappingProxyType(
    {"identity_type": str, "identity": str, "timestamp_unixtime_ms": int}
)
# mParticle Events API JSON Schema, the `required` lists of the event branches.
_EVENTS: Mapping[str, _Fields] = MappingProxyType(
    {
        "application_state_transition": {"application_transition_type": str},
        "breadcrumb": {"label": str},
        "crash_report": {"severity": str, "message": str},
        "custom_event": {"custom_event_type": str, "event_name": str},
        "network_performance": {"url": str, "response_code": int},
        "opt_out": {"is_opted_out": bool},
        "profile": {
            "previous_mpid": int,
            "current_mpid": int,
            "profile_event_type": str,
        },
        "push_message": {
            "push_message_token": str,
            "push_message_type": str,
            "push_notification_payload": str,
        },
        "push_registration": {"register": bool, "registration_token": str},
        "screen_view": {"screen_name": str},
        "session_end": {"session_duration_ms": int},
        "user_attribute_change": {"user_attribute_name": str},
    }
)
_ACTION: _Fields = MappingProxyType({"action": str})
# A commerce event is about one of these.
_VARIANTS: _Fields = MappingProxyType(
    {"product_action": dict, "promotion_action": dict, "product_impressions": list}
)

# mParticle HTTP API, historical endpoint: every event is at least 72 hours old.
_HISTORICAL_AGE_MS = 72 * 3_600_000


def find_problem(batch: object) -> str | None:
    """Return why the batch breaks a rule, naming the field, or None."""
    return next(_problems(batch), None)


def is_historical(batch: JsonObject, now: float) -> bool:
    """Return whether the historical endpoint keeps this batch, which has no problem."""
    latest = now * 1000 - _HISTORICAL_AGE_MS
    times = [
        event["data"].get("timestamp_unixtime_ms") for event in batch.get("events", ())
    ]
    return bool(times) and all(time is not None and time <= latest for time in times)


def _problems(batch: object) -> Iterator[str]:
    """Yield what is wrong; past a first problem nothing is certain."""
    if isinstance(batch, dict):
        yield from _batch_problems(batch)
    else:
        yield "a batch must be a JSON object"


def _batch_problems(batch: JsonObject) -> Iterator[str]:
    yield from _environment_problems(batch.get("environment"))
    yield from _type_problems(batch, _BATCH, "")
    yield from _identity_problems(batch.get("user_identities", {}))
    yield from _attribute_problems(batch.get("user_attributes", {}))
    yield from _consent_problems(batch.get("consent_state", {}))
    yield from _context_problems(batch.get("context", {}))
    for index, event in enumerate(batch.get("events", ())):
        if isinstance(event, dict):
            yield from _event_problems(event, f"events[{index}].")
        else:
            yield f"events[{index}] must be a JSON object"


def _environment_problems(environment: object) -> Iterator[str]:
    if environment is None or environment == "":
        yield "environment is missing or empty"
    elif environment not in _ENVIRONMENTS:
        shown = reprlib.repr(environment)[:40]
        yield f"environment is {shown}: use {' or '.join(_ENVIRONMENTS)}"


def _identity_problems(identities: JsonObject) -> Iterator[str]:
    for name, value in identities.items():
        if name not in _IDENTITIES:
            yield f"user_identities has no key {name[:40]!r}"
        if not _is_scalar(value):
            yield f"user_identities.{name} must be text"


def _attribute_problems(attributes: JsonObject) -> Iterator[str]:
    for name, value in attributes.items():
        values = value if isinstance(value, list) else [value]
        if not all(map(_is_scalar, values)):
            yield f"user_attributes.{name} must be a scalar or an array of scalars"


def _consent_problems(state: JsonObject) -> Iterator[str]:
    for regulation, records in state.items():
        path = f"consent_state.{regulation}"
        if regulation not in ("gdpr", "ccpa"):
            yield f"{path} is no known regulation: use gdpr or ccpa"
        elif not isinstance(records, dict):
            yield f"{path} must be a JSON object"
        else:
            yield from _record_problems(records, path)


def _record_problems(records: JsonObject, path: str) -> Iterator[str]:
    for purpose, record in records.items():
        if path.endswith("ccpa") and purpose != "data_sale_opt_out":
            yield f"{path} has no key {purpose[:40]!r}: use data_sale_opt_out"
        if isinstance(record, dict):
            yield from _lack_problems(record, _CONSENT, f"{path}.{purpose}.")
        else:
            yield f"{path}.{purpose} must be a JSON object"


def _context_problems(context: JsonObject) -> Iterator[str]:
    yield from _type_problems(context, {"data_plan": dict}, "context.")
    if "data_plan" in context:
        plan = context["data_plan"]
        yield from _lack_problems(plan, {"plan_id": str}, "context.data_plan.")
        yield from _type_problems(plan, {"plan_version": int}, "context.data_plan.")


def _event_problems(event: JsonObject, path: str) -> Iterator[str]:
    # Types nobody has published are let through: the list is not closed.
    yield from _lack_problems(event, {"event_type": str, "data": dict}, path)
    kind, data, path = event["event_type"], event["data"], f"{path}data."
    yield from _lack_problems(data, _EVENTS.get(kind, {}), path)
    yield from _type_problems(data, {"timestamp_unixtime_ms": int}, path)
    yield from _scalar_problems(data, path)
    if kind == "commerce_event":
        yield from _commerce_problems(data, path)
    elif kind == "user_identity_change":
        yield from _change_problems(data, path)


def _scalar_problems(holder: JsonObject, path: str) -> Iterator[str]:
    attributes = holder.get("custom_attributes", {})
    if not isinstance(attributes, dict):
        yield f"{path}custom_attributes must be a JSON object"
    for name, value in attributes.items():
        if not _is_scalar(value):
            yield f"{path}custom_attributes.{name} must be a scalar or null"


def _commerce_problems(data: JsonObject, path: str) -> Iterator[str]:
    given = [name for name in _VARIANTS if data.get(name) is not None]
    if len(given) != 1:
        yield f"{path[:-1]} needs exactly one of {', '.join(_VARIANTS)}"
    (name,) = given
    yield from _type_problems(data, {name: _VARIANTS[name]}, path)
    if name != "product_impressions":
        yield from _lack_problems(data[name], _ACTION, f"{path}{name}.")
    if name == "product_action":
        yield from _product_problems(data[name], f"{path}{name}.")


def _product_problems(action: JsonObject, path: str) -> Iterator[str]:
    yield from _type_problems(action, {"products": list}, path)
    for index, product in enumerate(action.get("products", ())):
        where = f"{path}products[{index}]"
        if not isinstance(product, dict):
            yield f"{where} must be a JSON object"
        yield from _scalar_problems(product, f"{where}.")


def _change_problems(data: JsonObject, path: str) -> Iterator[str]:
    for name in ("new", "old"):
        if name not in data:
            yield f"{path}{name} is missing: send null where there is none"
        identity = data[name]
        if isinstance(identity, dict):
            yield from _lack_problems(identity, _CHANGED_IDENTITY, f"{path}{name}.")
        elif identity is not None:
            yield f"{path}{name} must be a JSON object or null"


def _lack_problems(
    holder: JsonObject, required: Mapping[str, type], path: str
) -> Iterator[str]:
    for name in required:
        if holder.get(name) is None or holder[name] == "":
            yield f"{path}{name} is missing or empty"
    yield from _type_problems(holder, required, path)


def _type_problems(
    holder: JsonObject, fields: Mapping[str, type], path: str
) -> Iterator[str]:
    for name, kind in fields.items():
        if name in holder and not _is_a(holder[name], kind):
            yield f"{path}{name} must be {_KINDS[kind]}"


def _is_a(value: object, kind: type) -> bool:
    # type() and not isinstance(): true and false are no numbers.
    if type(value) is not kind:
        return False
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _is_scalar(value: object) -> bool:
    return not isinstance(value, (dict, list))
