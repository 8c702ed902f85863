"""The Amplitude HTTP V2 and Batch APIs: request bodies, limits and answers. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json

from amplitude_async._version import __version__
from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.encoder import decode_event
from amplitude_async.amplitude.events import Event
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Halve,
    Refuse,
    Response,
    Sort,
    Verdict,
    describe_failure,
    excerpt,
    interpret_trouble,
    retry_after,
)
from amplitude_async.redaction import Body
from amplitude_async.storage.base import Record

__all__ = ["AmplitudeEndpoint", "interpret"]

MAX_EVENTS = 2_000
# HTTP V2 API and Batch API, section "Upload limit": stay below 1 MB and 20 MB.
MAX_BYTES = 999_999
MAX_BATCH_BYTES = 19_999_999
MAX_RETRY_AFTER = 300.0

_FIELD_LISTS = {
    "events_with_invalid_fields": "field {} has a value the server refuses",
    "events_with_missing_fields": "required field {} is missing",
    "events_with_invalid_id_lengths": "{} is shorter than min_id_length",
}


class AmplitudeEndpoint:
    """One Amplitude project behind one URL."""

    name = "amplitude"
    url = ""
    max_events = MAX_EVENTS

    def __init__(self, config: Config) -> None:
        self.url = config.url
        self.compress = config.compresses
        self.max_bytes = MAX_BATCH_BYTES if config.use_batch else MAX_BYTES
        self.headers: Mapping[str, str] = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "User-Agent": f"amplitude-async/{__version__}",
            **config.headers,
        }
        options = b""
        if config.min_id_length is not None:
            options = b'"options":{"min_id_length":%d},' % config.min_id_length
        # No local variable may hold the key in plain: see `redaction`.
        self._prefix = Body(
            b'{"api_key":%b,%b"client_upload_time":"'
            % (
                json.dumps(
                    config.api_key.get_secret_value() if config.api_key else ""
                ).encode(),
                options,
            )
        )
        self.frame_bytes = len(self._prefix) + 64
        self._fingerprint = f"{urlsplit(self.url).hostname} {config.fingerprint}"

    def __repr__(self) -> str:
        return f"<AmplitudeEndpoint {self.url!r}>"

    def frame(self, bodies: Sequence[bytes], wall: float) -> bytes:
        """Join encoded events to a request body.

        ``client_upload_time`` lets the server correct a wrong clock.
        """
        moment = datetime.fromtimestamp(wall, UTC)
        text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        start = b'%b","events":[' % text.encode()
        return b"".join((self._prefix, start, b",".join(bodies), b"]}"))

    def interpret(
        self, response: Response, records: Sequence[Record], wall: float
    ) -> Verdict:
        """Say what an answer means for the events of its request."""
        return interpret(response, records, wall)

    def decode(self, body: bytes) -> Event:
        """Rebuild an event from its encoded bytes."""
        return decode_event(body)

    def fingerprint(self) -> str:
        """Name host and project without giving the key away."""
        return self._fingerprint


def interpret(response: Response, records: Sequence[Record], wall: float) -> Verdict:
    """Say what an answer means for the events of its request.

    Success is decided by the status alone. Sources: HTTP V2 API and Batch API, section
    "Status codes", and what their servers and proxies were seen to answer.
    """
    status = response.status
    if 200 <= status < 300:
        return Accept(status, "delivered")
    message = describe_failure(response)
    if response.error is not None:
        return interpret_trouble(response, message, None)
    wait = retry_after(response.headers, wall, MAX_RETRY_AFTER)
    match status:
        case 413:
            return Halve(status, message)
        case 400:
            verdict = _bad_request(response, records, message)
        case 429:
            return _too_many(response, records, message, wait)
        case 401 | 404 | 405:
            verdict = Refuse(status, message)
        case _ if 400 <= status < 500 and status != 408:
            # 403 is a firewall that may object to one event's text.
            verdict = Bisect(status, message)
        case _:
            return interpret_trouble(response, message, wait)
    # A server that says when to come again objects to nothing that it names.
    if wait is not None and not isinstance(verdict, Sort):
        return interpret_trouble(response, message, wait)
    return verdict


def _bad_request(
    response: Response, records: Sequence[Record], message: str
) -> Verdict:
    answer = _parse(response.body)
    error = _text(answer.get("error")) or message
    if error.lower().startswith("invalid api key"):
        return Refuse(400, error)
    rejected = _listed(answer, error)
    silenced = f"{error}: the device is silenced"
    for index in _indexes(answer.get("silenced_events")):
        rejected[index] = silenced
    devices = _names(answer.get("silenced_devices"))
    for index in _matching(records, frozenset(), devices):
        rejected.setdefault(index, silenced)
    throttled = _throttled(answer, records) - rejected.keys()
    if _concerns(rejected.keys() | throttled, records):
        return Sort(400, error, rejected, throttled)
    if answer.get("missing_field") == "api_key":
        return Refuse(400, f"{error}: api_key")
    missing = _text(answer.get("missing_field"))
    return Bisect(400, f"{error}: {missing}" if missing else error)


def _too_many(
    response: Response,
    records: Sequence[Record],
    message: str,
    wait: float | None,
) -> Verdict:
    answer = _parse(response.body)
    error = _text(answer.get("error")) or message
    users = _names(answer.get("exceeded_daily_quota_users"))
    devices = _names(answer.get("exceeded_daily_quota_devices"))
    over_quota = _matching(records, users, devices)
    rejected = dict.fromkeys(over_quota, f"exceeded daily quota: {error}")
    throttled = _throttled(answer, records) - over_quota
    if _concerns(over_quota | throttled, records):
        return Sort(429, error, rejected, throttled)
    return interpret_trouble(response, error, wait)


def _throttled(answer: Mapping[str, Any], records: Sequence[Record]) -> frozenset[int]:
    """Find throttled events by index and by either of their ids."""
    users = _names(answer.get("throttled_users"))
    devices = _names(answer.get("throttled_devices"))
    listed = frozenset(_indexes(answer.get("throttled_events")))
    return listed | _matching(records, users, devices)


def _concerns(indexes: Iterable[int], records: Sequence[Record]) -> bool:
    return any(index < len(records) for index in indexes)


def _matching(
    records: Sequence[Record], users: frozenset[str], devices: frozenset[str]
) -> frozenset[int]:
    if not users and not devices:
        return frozenset()
    return frozenset(
        index
        for index, record in enumerate(records)
        if record.user_id in users or record.device_id in devices
    )


def _listed(answer: Mapping[str, Any], error: str) -> dict[int, str]:
    """Read the lists of bad events; the first complaint about an event is kept."""
    found: dict[int, str] = {}
    for key, template in _FIELD_LISTS.items():
        lists = answer.get(key)
        if not isinstance(lists, dict):
            continue
        for field, indexes in lists.items():
            problem = f"{error}: {template.format(excerpt(str(field)))}"
            for index in _indexes(indexes):
                found.setdefault(index, problem)
    return found


def _parse(body: bytes) -> Mapping[str, Any]:
    """Read an answer that should be a JSON object and often is not."""
    try:
        answer = from_json(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _indexes(value: object) -> list[int]:
    if not isinstance(value, list):
        return []
    return [i for i in value if type(i) is int and i >= 0]


def _names(value: object) -> frozenset[str]:
    """Read a list of ids or an object keyed by ids."""
    if isinstance(value, list | dict):
        return frozenset(name for name in value if isinstance(name, str))
    return frozenset()


def _text(value: object) -> str:
    return excerpt(value) if isinstance(value, str) else ""
