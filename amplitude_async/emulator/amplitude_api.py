"""Judges requests as Amplitude's HTTP V2 and Batch APIs do.

Pure: bytes go in, a judgement comes out. What the documentation leaves open is
judged strictly, so that a client which passes here also passes there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from .judgement import Arrival, JsonObject, Judgement
from .rates import RateMeter

__all__ = [
    "BATCH_PATH",
    "HTTP_API_PATH",
    "MAX_EVENTS",
    "AmplitudeApi",
    "error_body",
    "silenced_body",
    "throttled_body",
]

HTTP_API_PATH = "/2/httpapi"
BATCH_PATH = "/batch"
MAX_EVENTS = 2000

_BODY_LIMITS: Mapping[str, int] = MappingProxyType(
    {HTTP_API_PATH: 1_000_000, BATCH_PATH: 20_000_000}
)
_DEFAULT_MIN_ID_LENGTH = 5

# Amplitude HTTP V2 API, section "Device IDs and User IDs"; the empty string, also
# listed there, counts as an absent id.
_FORBIDDEN_IDS = frozenset(
    {
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "00000000-0000-0000-0000-000000000000",
        "{}",
        "lmy47d",
        "0",
        "-1",
    }
)

_INVALID_JSON = "Invalid JSON request body"
_MISSING_FIELD = "Request missing required field"
_INVALID_KEY = "Invalid API key"
_INVALID_VALUES = "Invalid field values on some events"
_INVALID_LENGTH = "Invalid id length for user_id or device_id"
_THROTTLED = "Too many requests for some devices and users"
_DOCUMENTED: Mapping[int, str] = MappingProxyType(
    {413: "Payload too large", 429: _THROTTLED}
)

_ABSENT, _SHORT, _BAD, _GOOD = range(4)


class AmplitudeApi:
    """The ingestion endpoints of one Amplitude organisation.

    Args:
        api_keys: the keys of its projects; None accepts any that is not empty.
    """

    def __init__(self, api_keys: Collection[str] | None = None) -> None:
        if isinstance(api_keys, str):
            # A string is a collection too: each letter would become a key.
            msg = "api_keys is one string: give a collection such as {key}"
            raise ValueError(msg)  # noqa: TRY004 - a bad value, like the others
        self._api_keys = None if api_keys is None else frozenset(api_keys)

    def body_limit(self, path: str) -> int | None:
        """Return the most bytes a decoded body may have, None for a foreign path."""
        return _BODY_LIMITS.get(path)

    @staticmethod
    def error_body(status: int, phrase: str) -> JsonObject:
        """Return an error body, with Amplitude's words where it has some."""
        return error_body(status, None if status in _DOCUMENTED else phrase)

    def judge(self, arrival: Arrival) -> Judgement:
        """Return Amplitude's answer to this request taken by itself."""
        if arrival.too_large:
            return Judgement(413, error_body(413))
        if arrival.body is not None and not arrival.body.strip():
            return _refused("Missing request body")
        document = _parse(arrival.body)
        if document is None:
            return _refused(_INVALID_JSON)
        return self._judge_document(document, arrival)

    def judge_rate(
        self, judgement: Judgement, meter: RateMeter, now: float
    ) -> Judgement:
        """Return the judgement, or a 429 if one of its ids sends too fast."""
        counts: Counter[Hashable] = Counter()
        for event in judgement.accepted:
            counts.update(_identities(event))
        over = meter.admit(counts, now)
        if not over:
            return judgement
        indexes = [
            index
            for index, event in enumerate(judgement.accepted)
            if any(identity in over for identity in _identities(event))
        ]
        body = throttled_body(
            eps_threshold=meter.threshold,
            events=indexes,
            users=_only("user_id", over),
            devices=_only("device_id", over),
        )
        return replace(judgement, status=429, body=body, accepted=(), keys=())

    def _judge_document(self, document: JsonObject, arrival: Arrival) -> Judgement:
        sent = document.get("events")
        options = document.get("options")
        upload_time = document.get("client_upload_time")
        base = Judgement(
            status=400,
            body={},
            events=_objects(sent),
            api_key_ok=self._knows(document.get("api_key")),
            options=options if isinstance(options, dict) else {},
            client_upload_time=upload_time if isinstance(upload_time, str) else None,
        )
        if document.get("api_key") is None:
            return _lacking(base, "api_key")
        if not base.api_key_ok:
            return replace(base, body=error_body(400, _INVALID_KEY))
        if not isinstance(sent, list) or not sent:
            return _lacking(base, "events")
        note = _options_problem(options)
        if note:
            return replace(base, body=error_body(400, _INVALID_JSON), note=note)
        if len(sent) > MAX_EVENTS:
            note = f"{len(sent)} events in one request, at most {MAX_EVENTS} may be"
            return replace(base, status=413, body=error_body(413), note=note)
        if len(base.events) != len(sent):
            return replace(base, body=error_body(400, "Invalid event JSON"))
        return _judge_events(base, document["api_key"], arrival)

    def _knows(self, api_key: object) -> bool:
        if not isinstance(api_key, str) or not api_key:
            return False
        return self._api_keys is None or api_key in self._api_keys


def error_body(code: int, error: str | None = None) -> JsonObject:
    """Return the plain error body of a status, with Amplitude's words for it."""
    return {"code": code, "error": error or _DOCUMENTED.get(code, "Error")}


def throttled_body(
    *,
    eps_threshold: float,
    events: Iterable[int],
    users: Mapping[str, int] = MappingProxyType({}),
    devices: Mapping[str, int] = MappingProxyType({}),
    quota_users: Mapping[str, int] = MappingProxyType({}),
    quota_devices: Mapping[str, int] = MappingProxyType({}),
) -> JsonObject:
    """Return the 429 body that names throttled identities and event indexes."""
    return {
        "code": 429,
        "error": _THROTTLED,
        "eps_threshold": eps_threshold,
        "throttled_devices": dict(devices),
        "throttled_users": dict(users),
        "exceeded_daily_quota_users": dict(quota_users),
        "exceeded_daily_quota_devices": dict(quota_devices),
        "throttled_events": list(events),
    }


def silenced_body(
    devices: Iterable[str], events: Iterable[int], *, eps_threshold: float
) -> JsonObject:
    """Return the 400 body that names silenced devices and event indexes."""
    return {
        "code": 400,
        "error": "Events silenced for device_id",
        "eps_threshold": eps_threshold,
        "exceeded_daily_quota_devices": {},
        "silenced_devices": list(devices),
        "silenced_events": list(events),
        "throttled_devices": {},
        "throttled_events": [],
    }


class _Findings:
    """Collects what is wrong with which events, by the keys of the 400 body."""

    __slots__ = ("invalid", "missing", "short")

    def __init__(self) -> None:
        self.missing: dict[str, list[int]] = {}
        self.invalid: dict[str, list[int]] = {}
        self.short: dict[str, list[int]] = {}

    def body(self) -> JsonObject | None:
        if not (self.missing or self.invalid or self.short):
            return None
        if self.missing:
            error = _MISSING_FIELD
        elif self.invalid:
            error = _INVALID_VALUES
        else:
            error = _INVALID_LENGTH
        found = {
            "events_with_missing_fields": self.missing,
            "events_with_invalid_fields": self.invalid,
            "events_with_invalid_id_lengths": self.short,
        }
        return error_body(400, error) | {k: v for k, v in found.items() if v}


def _judge_events(base: Judgement, api_key: str, arrival: Arrival) -> Judgement:
    min_length = base.options.get("min_id_length") or _DEFAULT_MIN_ID_LENGTH
    findings = _Findings()
    accepted: list[JsonObject] = []
    keys: list[Hashable] = []
    for index, sent in enumerate(base.events):
        _check_fields(sent, index, findings)
        event = _check_ids(sent, index, min_length, findings)
        accepted.append(event)
        keys.append(_dedup_key(api_key, event))
    body = findings.body()
    if body is not None:
        return replace(base, body=body)
    body = {
        "code": 200,
        "events_ingested": len(accepted),
        "payload_size_bytes": len(arrival.body or b""),
        "server_upload_time": int(arrival.received_at * 1000),
    }
    return replace(
        base, status=200, body=body, accepted=tuple(accepted), keys=tuple(keys)
    )


def _check_fields(event: JsonObject, index: int, findings: _Findings) -> None:
    event_type = event.get("event_type")
    if event_type is None or event_type == "":
        _note(findings.missing, "event_type", index)
    elif type(event_type) is not str:
        _note(findings.invalid, "event_type", index)
    elif event_type.isspace():
        _note(findings.missing, "event_type", index)
    time = event.get("time")
    # type() and not isinstance(): true and false are no timestamps.
    if time is not None and type(time) is not int:
        _note(findings.invalid, "time", index)
    insert_id = event.get("insert_id")
    if insert_id is not None and type(insert_id) is not str:
        _note(findings.invalid, "insert_id", index)


def _check_ids(
    event: JsonObject, index: int, min_length: int, findings: _Findings
) -> JsonObject:
    """Return the event without its too short ids, which Amplitude removes."""
    if event.get("event_type") == "$groupidentify":
        return event
    found = {
        field: _weigh_id(event.get(field), min_length)
        for field in ("user_id", "device_id")
    }
    usable = False
    for field, weight in found.items():
        if weight == _BAD:
            _note(findings.invalid, field, index)
        usable = usable or weight >= _BAD
    short = [field for field, weight in found.items() if weight == _SHORT]
    if not usable:
        for field in short:
            _note(findings.short, field, index)
        if not short:
            _note(findings.missing, "user_id", index)
    elif short:
        return {key: value for key, value in event.items() if key not in short}
    return event


def _weigh_id(value: object, min_length: int) -> int:
    if value is None or value == "":
        return _ABSENT
    if type(value) is int:
        # Numbers are taken as text: the real API measures their digits.
        value = str(value)
    if type(value) is not str or value.lower() in _FORBIDDEN_IDS:
        return _BAD
    return _GOOD if len(value) >= min_length else _SHORT


def _dedup_key(api_key: str, event: JsonObject) -> Hashable:
    insert_id = event.get("insert_id")
    if not insert_id or type(insert_id) is not str:
        return None
    identity = event.get("device_id") or event.get("user_id")
    return api_key, str(identity), insert_id


def _identities(event: JsonObject) -> Iterable[tuple[str, str]]:
    for field in ("user_id", "device_id"):
        value = event.get(field)
        if value:
            yield field, str(value)


def _only(kind: str, over: Mapping[Hashable, int]) -> dict[str, int]:
    return {
        identity[1]: eps
        for identity, eps in over.items()
        if isinstance(identity, tuple) and identity[0] == kind
    }


def _note(findings: dict[str, list[int]], field: str, index: int) -> None:
    findings.setdefault(field, []).append(index)


def _refused(error: str) -> Judgement:
    return Judgement(400, error_body(400, error))


def _lacking(base: Judgement, field: str) -> Judgement:
    body = error_body(400, _MISSING_FIELD) | {"missing_field": field}
    return replace(base, body=body)


def _objects(sent: object) -> tuple[JsonObject, ...]:
    if not isinstance(sent, list):
        return ()
    return tuple(event for event in sent if type(event) is dict)


def _options_problem(options: object) -> str:
    if options is None:
        return ""
    if not isinstance(options, dict):
        return "options must be a JSON object"
    length = options.get("min_id_length")
    if length is None or (type(length) is int and length >= 1):
        return ""
    return f"options.min_id_length must be an integer of 1 or more, got {length!r}"


def _parse(body: bytes | None) -> JsonObject | None:
    if body is None:
        return None
    try:
        document: Any = json.loads(body.decode(), parse_constant=_no_constant)
    # RecursionError: nested deeper than the parser can follow.
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _no_constant(name: str) -> object:
    # NaN and Infinity are Python's extension of JSON, Amplitude refuses them.
    raise ValueError(name)
