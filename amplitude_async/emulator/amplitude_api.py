"""Judges requests as Amplitude's HTTP V2 and Batch APIs do.

Pure: bytes go in, a judgement comes out. What the documentation leaves open is
judged strictly, so that a client which passes here also passes there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from .amplitude_rules import Findings, check_event
from .judgement import Arrival, JsonObject, Judgement
from .naming import named_problems
from .rates import RateMeter
from .reading import UnreadableError, parse, text_of

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
_SCALARS = (bool, float, int, str)

_INVALID_JSON = "Invalid JSON request body"
_MISSING_FIELD = "Request missing required field"
_INVALID_KEY = "Invalid API key"
_THROTTLED = "Too many requests for some devices and users"
_DOCUMENTED: Mapping[int, str] = MappingProxyType(
    {413: "Payload too large", 429: _THROTTLED}
)


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

    @property
    def some_key(self) -> str:
        """A key that it takes, for events of the emulator's own."""
        return "emulator" if self._api_keys is None else min(self._api_keys, default="")

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
            return Judgement(413, error_body(413), note=arrival.note)
        if arrival.body is None:
            return _refused(_INVALID_JSON, arrival.note)
        if not arrival.body.strip():
            return _refused("Missing request body")
        try:
            document = parse(arrival.body)
        except UnreadableError as error:
            return _refused(_INVALID_JSON, f"body is no JSON: {error}")
        if not isinstance(document, dict):
            return _refused(_INVALID_JSON, "body must be a JSON object")
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
        note = (
            f"{len(over):,} ids sent more than {meter.threshold:g} events a second, up "
            f"to {max(over.values()):,}"
        )
        return replace(
            judgement,
            status=429,
            body=body,
            accepted=(),
            keys=(),
            note=note,
            problems=named_problems(body, judgement.events),
        )

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
            note = "api_key is none of those that this emulator takes"
            return replace(base, body=error_body(400, _INVALID_KEY), note=note)
        if not isinstance(sent, list) or not sent:
            return _lacking(base, "events")
        note = _options_problem(options)
        if note:
            return replace(base, body=error_body(400, _INVALID_JSON), note=note)
        if len(sent) > MAX_EVENTS:
            note = f"{len(sent)} events in one request, at most {MAX_EVENTS} may be"
            return replace(base, status=413, body=error_body(413), note=note)
        if len(base.events) != len(sent):
            note = f"{len(sent) - len(base.events)} of the events are no JSON objects"
            return replace(base, body=error_body(400, "Invalid event JSON"), note=note)
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


def _judge_events(base: Judgement, api_key: str, arrival: Arrival) -> Judgement:
    min_length = base.options.get("min_id_length") or _DEFAULT_MIN_ID_LENGTH
    findings = Findings()
    accepted: list[JsonObject] = []
    keys: list[Hashable] = []
    for index, sent in enumerate(base.events):
        event = check_event(sent, index, min_length, findings)
        accepted.append(event)
        keys.append(_dedup_key(api_key, event))
    body = findings.body()
    if body is not None:
        return replace(base, body=body, note=findings.note, problems=findings.problems)
    body = {
        "code": 200,
        "events_ingested": len(accepted),
        "payload_size_bytes": len(arrival.body or b""),
        "server_upload_time": int(arrival.received_at * 1000),
    }
    return replace(
        base, status=200, body=body, accepted=tuple(accepted), keys=tuple(keys)
    )


def _dedup_key(api_key: str, event: JsonObject) -> Hashable:
    insert_id = event.get("insert_id")
    if not insert_id or type(insert_id) is not str:
        return None
    identity = event.get("device_id") or event.get("user_id")
    return api_key, text_of(identity), insert_id


def _identities(event: JsonObject) -> Iterable[tuple[str, str]]:
    for field in ("user_id", "device_id"):
        value = text_of(event.get(field))
        if value:
            yield field, value


def _only(kind: str, over: Mapping[Hashable, int]) -> dict[str, int]:
    return {
        identity[1]: eps
        for identity, eps in over.items()
        if isinstance(identity, tuple) and identity[0] == kind
    }


def _refused(error: str, note: str = "") -> Judgement:
    return Judgement(400, error_body(400, error), note=note or error)


def _lacking(base: Judgement, field: str) -> Judgement:
    body = error_body(400, _MISSING_FIELD) | {"missing_field": field}
    return replace(base, body=body, note=f"{field} is missing or empty")


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
    shown = repr(length)[:40] if isinstance(length, _SCALARS) else "an array or object"
    return f"options.min_id_length must be an integer of 1 or more, got {shown}"
