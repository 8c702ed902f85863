"""Judges requests as mParticle's Events API does.

Pure: bytes go in, a judgement comes out. Where the documentation is silent this judge
decides so that a client can be tested: 413 for a request or batch that is too large
and for too many batches, 400 for a compressed body and for an empty bulk request, and
an errors object with every refusal. The size limits are read as 256,000 and 128,000
bytes. As at mParticle, no error tells which batch of a bulk request it is about; the
judgement's note does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from .judgement import Arrival, JsonObject, Judgement
from .mparticle_rules import find_problem, is_historical
from .rates import RateMeter
from .reading import UnreadableError, parse

__all__ = [
    "BULK_PATH",
    "EVENTS_PATH",
    "HISTORICAL_PATH",
    "MAX_BATCHES",
    "MAX_BATCH_BYTES",
    "MAX_REQUEST_BYTES",
    "MPARTICLE_PATH",
    "MParticleApi",
]

MPARTICLE_PATH = "/v2"
EVENTS_PATH = MPARTICLE_PATH + "/events"
BULK_PATH = MPARTICLE_PATH + "/bulkevents"
HISTORICAL_PATH = BULK_PATH + "/historical"

# mParticle Default Service Limits.
MAX_BATCHES = 100
MAX_BATCH_BYTES = 128_000
MAX_REQUEST_BYTES = 256_000

_PATHS = frozenset({EVENTS_PATH, BULK_PATH, HISTORICAL_PATH})
# The only code mParticle documents is BAD_REQUEST; these are named after their status.
_CODES: Mapping[int, str] = MappingProxyType({413: "PAYLOAD_TOO_LARGE"})
_SEPARATORS = re.compile(r"[\s,]*")
# The speed limit holds for an account, and an emulator is one account.
_ACCOUNT = "account"


class MParticleApi:
    """The Events API of one mParticle account.

    Args:
        keys: API keys with their secrets; None accepts any pair that is not empty.
        bulk_partial: drop the bad batches of a bulk request in silence and keep the
            others, as mParticle does; False refuses the whole request.
    """

    def __init__(
        self, keys: Mapping[str, str] | None = None, *, bulk_partial: bool = False
    ) -> None:
        if keys is not None and not isinstance(keys, Mapping):
            # The value is left out, it may be a secret.
            msg = (
                f"mparticle_keys is of type {type(keys).__name__}: give a mapping of "
                "API keys to secrets such as {key: secret}"
            )
            raise ValueError(msg)
        self._keys = None if keys is None else dict(keys)
        self._bulk_partial = bulk_partial

    def body_limit(self, path: str) -> int | None:
        """Return the most bytes a body may have, None for a foreign path."""
        return MAX_REQUEST_BYTES if path in _PATHS else None

    @staticmethod
    def error_body(status: int, phrase: str) -> JsonObject:
        """Return an errors object with one error, its code named after the status."""
        try:
            code = _CODES.get(status) or HTTPStatus(status).name
        except ValueError:
            code = "ERROR"
        return {"errors": [{"code": code, "message": phrase}]}

    def judge(self, arrival: Arrival) -> Judgement:
        """Return mParticle's answer to this request taken by itself."""
        authorization = arrival.headers.get("Authorization")
        if authorization is None:
            return _refused(401, "Authorization header is missing")
        api_key = self._known_key(authorization)
        if api_key is None:
            return _refused(403, "API key or API secret is wrong")
        judgement = self._judge_body(arrival, api_key)
        return replace(judgement, api_key_ok=True)

    def judge_rate(
        self, judgement: Judgement, meter: RateMeter, now: float
    ) -> Judgement:
        """Return the judgement with the limit's use, or a 429 if it is exceeded.

        What counts are batches. A request of more than the limit passes when nothing
        else was sent, so that waiting always helps.
        """
        room = int(meter.threshold * meter.window)
        sent = min(len(judgement.events), room)
        if not meter.admit({_ACCOUNT: sent}, now):
            used = round(100 * meter.used(_ACCOUNT))
            headers = {"X-mp-rate-limit-percentage-used": str(used)}
            return replace(judgement, headers=headers)
        headers = {
            "Retry-After": str(int(meter.window)),
            "X-mp-rate-limit-exceeded": _ACCOUNT,
        }
        refusal = _refused(429, f"more than {room} batches in one second")
        return replace(
            refusal,
            headers=headers,
            events=judgement.events,
            api_key_ok=judgement.api_key_ok,
        )

    def _known_key(self, authorization: str) -> str | None:
        scheme, _, token = authorization.partition(" ")
        try:
            pair = base64.b64decode(token.strip(), validate=True).decode()
        except ValueError:
            return None
        api_key, _, secret = pair.partition(":")
        if scheme.lower() != "basic" or not api_key or not secret:
            return None
        if self._keys is not None and self._keys.get(api_key) != secret:
            return None
        return api_key

    def _judge_body(self, arrival: Arrival, api_key: str) -> Judgement:
        encoding = arrival.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            return _refused(
                400, f"Content-Encoding is {encoding[:40]!r}: send it plain"
            )
        if arrival.too_large:
            return _refused(413, f"request has more than {MAX_REQUEST_BYTES} bytes")
        body = arrival.body or b""
        try:
            document = parse(body)
        except UnreadableError as error:
            wrong = "request body is not valid JSON"
            return _refused(400, wrong, f"{wrong}: {error}")
        text = body.decode()
        if arrival.path == EVENTS_PATH:
            return self._judge_batches(
                [document], [_size(text.strip())], arrival, api_key
            )
        if not isinstance(document, list) or not document:
            return _refused(400, "request body must be a JSON array of batches")
        return self._judge_batches(document, _sizes(text, document), arrival, api_key)

    def _judge_batches(
        self, sent: list[Any], sizes: list[int], arrival: Arrival, api_key: str
    ) -> Judgement:
        refusal = _oversize(sent, sizes)
        problems = {} if refusal else _find_problems(sent)
        if problems and (len(problems) == len(sent) or not self._bulk_partial):
            index, wrong = next(iter(problems.items()))
            refusal = _refused(400, wrong, f"batch {index}: {wrong}")
        if refusal is None:
            return _accept(sent, problems, arrival, api_key)
        return replace(refusal, events=_objects(sent), problems=_placed(problems, sent))


def _oversize(sent: list[Any], sizes: list[int]) -> Judgement | None:
    if len(sent) > MAX_BATCHES:
        wrong = f"request has {len(sent)} batches, at most {MAX_BATCHES} may be"
        return _refused(413, wrong)
    size = max(sizes)
    if size <= MAX_BATCH_BYTES:
        return None
    wrong = f"batch has more than {MAX_BATCH_BYTES} bytes"
    return _refused(413, wrong, f"batch {sizes.index(size)} has {size} bytes")


def _accept(
    sent: list[Any], problems: Mapping[int, str], arrival: Arrival, api_key: str
) -> Judgement:
    """Return the judgement that stores all batches but those with a problem."""
    young: dict[int, str] = {}
    if arrival.path == HISTORICAL_PATH:
        young = {
            index: "an event is younger than 72 hours, or has no time"
            for index, batch in enumerate(sent)
            if index not in problems and not is_historical(batch, arrival.received_at)
        }
    lost = {**problems, **young}
    kept = [batch for index, batch in enumerate(sent) if index not in lost]
    dropped = len(sent) - len(kept)
    return Judgement(
        202,
        None,
        unit="batch",
        events=_objects(sent),
        accepted=tuple(kept),
        keys=tuple(_dedup_key(api_key, batch) for batch in kept),
        unfit=len(problems),
        too_young=len(young),
        problems=_placed(lost, sent),
        note=f"dropped {dropped} of {len(sent)} batches in silence" if dropped else "",
    )


def _find_problems(sent: list[Any]) -> dict[int, str]:
    found = ((index, find_problem(batch)) for index, batch in enumerate(sent))
    return {index: problem for index, problem in found if problem}


def _placed(problems: Mapping[int, str], sent: list[Any]) -> dict[int, str]:
    """Return the problems by the place among those that are JSON objects."""
    places = (index for index, batch in enumerate(sent) if isinstance(batch, dict))
    return {
        place: problems[index]
        for place, index in enumerate(places)
        if index in problems
    }


def _objects(sent: list[Any]) -> tuple[JsonObject, ...]:
    return tuple(batch for batch in sent if isinstance(batch, dict))


def _dedup_key(api_key: str, batch: JsonObject) -> tuple[str, str] | None:
    request_id = batch.get("source_request_id")
    return (api_key, request_id) if request_id else None


def _refused(status: int, message: str, note: str = "") -> Judgement:
    body = MParticleApi.error_body(status, message)
    return Judgement(status, body, unit="batch", note=note or message)


def _sizes(text: str, batches: list[Any]) -> list[int]:
    """Return the bytes of each element of a valid JSON array, as it was written."""
    if len(text) * 4 <= MAX_BATCH_BYTES:
        # None of them can be too large: the work can be spared.
        return [0] * len(batches)
    decoder = json.JSONDecoder()
    sizes = []
    end = text.index("[") + 1
    for _ in batches:
        match = _SEPARATORS.match(text, end)
        start = match.end() if match else end
        _, end = decoder.raw_decode(text, start)
        sizes.append(_size(text[start:end]))
    return sizes


def _size(text: str) -> int:
    return len(text.encode())
