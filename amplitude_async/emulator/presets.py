"""What tests want of a server that fails, by name: the fields of each such fault."""

from __future__ import annotations

import difflib
import itertools
import math
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .amplitude_api import error_body, silenced_body, throttled_body
from .judgement import JsonObject
from .reading import text_of
from .records import ReceivedRequest

__all__ = ["PRESETS", "fields_of"]

_Fields = dict[str, Any]

_SLOW = 0.5
_EVERY = 3
_EPS = 10
# Amplitude Batch API, section "Limits".
_QUOTA = 500_000


def fields_of(name: object) -> _Fields:
    """Return the fields of the fault that has this name.

    Raises:
        ValueError: none has; the message says which there are.
    """
    if isinstance(name, str) and name in PRESETS:
        return {"name": name, **PRESETS[name]()}
    typed = name[:40] if isinstance(name, str) else ""
    near = difflib.get_close_matches(typed, PRESETS, n=1)
    hint = f"did you mean {near[0]!r}? There are " if near else "use one of "
    msg = f"fault preset is {reprlib.repr(name)}: {hint}{', '.join(PRESETS)}"
    raise ValueError(msg)


def _outage() -> _Fields:
    return {"status": 503, "count": None}


def _broken() -> _Fields:
    return {"status": 500}


def _flaky() -> _Fields:
    numbers = itertools.count(1)
    return {
        "status": 503,
        "count": None,
        "when": lambda _: next(numbers) % _EVERY == 0,
    }


def _slow() -> _Fields:
    return {"delay": _SLOW, "count": None}


def _timeout() -> _Fields:
    return {"status": 504, "delay": math.inf}


def _reset() -> _Fields:
    return {"hang_up": "before"}


def _cut() -> _Fields:
    return {"hang_up": "after"}


def _rate_limited() -> _Fields:
    return {"status": 429, "headers": {"Retry-After": "1"}}


def _too_large() -> _Fields:
    return {
        "status": 413,
        "when": lambda request: len(request.events) + len(request.batches) > 1,
    }


def _throttled() -> _Fields:
    def body(request: ReceivedRequest) -> JsonObject:
        field, name, indexes = _first(request)
        found = {name: _EPS + len(indexes)}
        key = "users" if field == "user_id" else "devices"
        return throttled_body(eps_threshold=_EPS, events=indexes, **{key: found})

    return {"status": 429, "body": body, "when": _has_ids}


def _quota() -> _Fields:
    def body(request: ReceivedRequest) -> JsonObject:
        field, name, indexes = _first(request)
        found = {name: _QUOTA + len(indexes)}
        key = "quota_users" if field == "user_id" else "quota_devices"
        return throttled_body(eps_threshold=1000, events=indexes, **{key: found})

    return {"status": 429, "body": body, "when": _has_ids}


def _silenced() -> _Fields:
    def body(request: ReceivedRequest) -> JsonObject:
        _, name, indexes = _first(request, "device_id")
        return silenced_body([name], indexes, eps_threshold=100)

    return {
        "status": 400,
        "body": body,
        "when": lambda request: bool(_first(request, "device_id")[1]),
    }


def _rejected_event() -> _Fields:
    error = error_body(400, "Invalid field values on some events")
    lists = {"events_with_invalid_fields": {"event_properties": [0]}}
    return {"status": 400, "body": {**error, **lists}, "when": _has_events}


def _invalid_key() -> _Fields:
    body = error_body(400, "Invalid API key")
    return {"status": 400, "body": body, "count": None, "when": _has_events}


PRESETS: Mapping[str, Callable[[], _Fields]] = MappingProxyType(
    {
        "outage": _outage,
        "broken": _broken,
        "flaky": _flaky,
        "slow": _slow,
        "timeout": _timeout,
        "reset": _reset,
        "cut": _cut,
        "throttled": _throttled,
        "rate_limited": _rate_limited,
        "quota": _quota,
        "silenced": _silenced,
        "rejected_event": _rejected_event,
        "too_large": _too_large,
        "invalid_key": _invalid_key,
    }
)
"""The fields of each, made anew: one of them counts."""


def _has_events(request: ReceivedRequest) -> bool:
    return bool(request.events)


def _has_ids(request: ReceivedRequest) -> bool:
    return bool(_first(request)[1])


def _first(request: ReceivedRequest, *fields: str) -> tuple[str, str, list[int]]:
    """Return the first id in a request, its field, and which events have it."""
    for event in request.events:
        for field in fields or ("user_id", "device_id"):
            name = text_of(event.get(field))
            if name:
                has = [text_of(one.get(field)) == name for one in request.events]
                return field, name, [index for index, one in enumerate(has) if one]
    return "", "", []
