"""What arrived: requests, events without duplicates, and exact counters."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from operator import gt
from typing import Generic, TypeVar

from .judgement import JsonObject, Judgement
from .reading import MAX_WEIGHT, weigh

__all__ = ["EmulatorStats", "Ledger", "ReceivedRequest"]

# Amplitude HTTP V2 API, section "Event deduplication".
_EVENT_SECONDS = 7 * 86400.0
# mParticle JSON Reference, `source_request_id`: 30 to 60 days.
_BATCH_SECONDS = 30 * 86400.0
# What a request takes besides its text.
_HEAD_BYTES = 4_096
_LONG_KEY = 250
# Without a bound a long soak run would fill the memory with keys.
_DEDUP_KEYS = 1_000_000

_Item = TypeVar("_Item")

logger = logging.getLogger("amplitude_async.emulator")


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request and the answer it got."""

    path: str
    """Path without the query."""

    status: int
    """HTTP status answered, 0 where the connection was dropped instead."""

    events: tuple[JsonObject, ...] = field(default=(), repr=False)
    """Amplitude events as they were sent, empty where the body could not be read."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Request headers, case-insensitive."""

    api_key_ok: bool = False
    """Whether the request carried a key this emulator knows."""

    body_bytes: int = 0
    """Size of the body on the wire."""

    decoded_bytes: int = 0
    """Size of the body after decompression."""

    options: JsonObject = field(default_factory=dict)
    """The request's own options, such as `min_id_length`."""

    client_upload_time: str | None = None
    """The client's clock at the upload, as it was sent."""

    received_at: float = 0.0
    """Seconds since the epoch, on the emulator's clock."""

    fault: str | None = None
    """Name of the fault that fired."""

    note: str = ""
    """Why it was refused, or taken in part, in words the vendor would not send."""

    batches: tuple[JsonObject, ...] = field(default=(), repr=False)
    """mParticle batches as they were sent, likewise."""

    weight: int = field(default=0, repr=False)
    """About how many bytes of memory it takes to keep these values."""


@dataclass(frozen=True, slots=True)
class EmulatorStats:
    """Counters since the start or the last reset."""

    requests: int
    """Requests to any path but the emulator's own pages."""

    by_status: dict[int, int]
    """Requests by the status answered, 0 for dropped connections."""

    events_received: int
    """Amplitude events in all requests, whatever became of them."""

    events_ingested: int
    """Events stored, each once."""

    duplicates: int
    """Events accepted but not stored again."""

    bytes_received: int
    """Body bytes on the wire."""

    faults_fired: int
    """Faults that took part in an answer."""

    connections_dropped: int
    """Connections closed by a fault or by `refuse`."""

    batches_received: int = 0
    """mParticle batches in all requests, whatever became of them."""

    batches_ingested: int = 0
    """Batches stored, each once."""

    batch_duplicates: int = 0
    """Batches accepted but not stored again."""

    historical_dropped: int = 0
    """Batches answered 202 and dropped: too young for the historical endpoint."""

    partial_dropped: int = 0
    """Batches answered 202 and dropped: bad ones in a bulk request taken in part."""

    events_forgotten: int = 0
    """Events that were stored and are no longer kept, to stay within the bounds."""

    batches_forgotten: int = 0
    """Batches, likewise."""

    requests_forgotten: int = 0
    """Requests, likewise."""


class _Kept(Generic[_Item]):
    """The newest of some items, as many and as heavy as they may be.

    Args:
        most: items kept, the newest always.
        most_units: what the items may hold together, as `put` is told.
        most_bytes: what they may weigh together.
    """

    def __init__(self, most: int, most_units: int, most_bytes: int) -> None:
        self.items: deque[_Item] = deque()
        self.forgotten = 0
        self._most = (most, most_units, most_bytes)
        self._sizes: deque[tuple[int, int]] = deque()
        self._units = self._bytes = 0

    def put(self, item: _Item, weight: int, units: int = 1) -> None:
        """Keep an item, and forget the oldest where there is no room for it."""
        self.items.append(item)
        self._sizes.append((units, weight))
        self._units += units
        self._bytes += weight
        while len(self.items) > 1 and self._has_too_much():
            self._forget_oldest()

    def _has_too_much(self) -> bool:
        has = (len(self.items), self._units, self._bytes)
        return any(map(gt, has, self._most))

    def _forget_oldest(self) -> None:
        if not self.forgotten:
            logger.info(
                "emulator forgets the oldest of what arrived, to keep no more than %d "
                "of a kind and %d MiB: keep, keep_requests and keep_bytes raise that",
                self._most[0],
                self._most[2] // 2**20,
            )
        self.forgotten += 1
        self.items.popleft()
        units, weight = self._sizes.popleft()
        self._units -= units
        self._bytes -= weight


class _Shelf:
    """Keeps the newest of what one vendor stores, each once."""

    def __init__(self, keep: int, keep_bytes: int, seconds: float) -> None:
        self.kept: _Kept[JsonObject] = _Kept(keep, keep, keep_bytes)
        self.ingested = self.duplicates = 0
        self._seconds = seconds
        # Not a plain dict: that one gets slow when its oldest keys are deleted.
        self._seen: OrderedDict[Hashable, float] = OrderedDict()

    def put(self, judgement: Judgement, now: float, weight: int) -> None:
        """Store what was accepted, except for copies of what is remembered."""
        self._forget(now - self._seconds)
        fresh = [
            unit
            for unit, key in zip(judgement.accepted, judgement.keys, strict=True)
            if self._is_new(key, now)
        ]
        self.ingested += len(fresh)
        whole = len(fresh) == len(judgement.events)
        for unit in fresh:
            # Of a part nobody knows how much of the weight it had.
            self.kept.put(unit, weight // len(fresh) if whole else _weight(unit))

    def _is_new(self, key: Hashable, now: float) -> bool:
        if key is None:
            return True
        key = _shortened(key)
        if key in self._seen:
            self.duplicates += 1
            return False
        self._seen[key] = now
        return True

    def _forget(self, before: float) -> None:
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if seen[oldest] > before and len(seen) <= _DEDUP_KEYS:
                return
            del seen[oldest]


class Ledger:
    """Keeps the newest events, batches and requests, and counts all of them.

    Args:
        keep_events: events and batches kept, each, and at most as many of both
            inside the kept requests.
        keep_requests: requests kept.
        keep_bytes: memory that kept events, batches and requests may take, each, as
            it is estimated; the newest of them stays, however large.
    """

    def __init__(
        self, keep_events: int, keep_requests: int, keep_bytes: int = 2**28
    ) -> None:
        for name, value in (
            ("keep", keep_events),
            ("keep_requests", keep_requests),
            ("keep_bytes", keep_bytes),
        ):
            if value < 1:
                msg = f"{name} must be 1 or more, got {value!r}: raise it"
                raise ValueError(msg)
        self._events = _Shelf(keep_events, keep_bytes, _EVENT_SECONDS)
        self._batches = _Shelf(keep_events, keep_bytes, _BATCH_SECONDS)
        self._requests: _Kept[ReceivedRequest] = _Kept(
            keep_requests, keep_events, keep_bytes
        )
        self.connections_dropped = 0
        self._by_status: Counter[int] = Counter()
        self._events_received = self._batches_received = 0
        self._historical_dropped = self._partial_dropped = 0
        self._bytes = self._faults = 0

    @property
    def events(self) -> deque[JsonObject]:
        """The newest Amplitude events, in order of arrival."""
        return self._events.kept.items

    @property
    def batches(self) -> deque[JsonObject]:
        """The newest mParticle batches, in order of arrival."""
        return self._batches.kept.items

    @property
    def requests(self) -> deque[ReceivedRequest]:
        """The newest requests, in order of being judged."""
        return self._requests.items

    @property
    def stats(self) -> EmulatorStats:
        """A snapshot of the counters."""
        return EmulatorStats(
            requests=self._by_status.total(),
            by_status=dict(self._by_status),
            events_received=self._events_received,
            events_ingested=self._events.ingested,
            duplicates=self._events.duplicates,
            bytes_received=self._bytes,
            faults_fired=self._faults,
            connections_dropped=self.connections_dropped,
            batches_received=self._batches_received,
            batches_ingested=self._batches.ingested,
            batch_duplicates=self._batches.duplicates,
            historical_dropped=self._historical_dropped,
            partial_dropped=self._partial_dropped,
            events_forgotten=self._events.kept.forgotten,
            batches_forgotten=self._batches.kept.forgotten,
            requests_forgotten=self._requests.forgotten,
        )

    def record(self, request: ReceivedRequest) -> None:
        """Count and keep one request."""
        units = len(request.events) + len(request.batches)
        self._by_status[request.status] += 1
        self._events_received += len(request.events)
        self._batches_received += len(request.batches)
        self._bytes += request.body_bytes
        self._faults += request.fault is not None
        self._requests.put(request, _head_weight(request) + request.weight, units)

    def ingest(self, judgement: Judgement, now: float, weight: int = 0) -> None:
        """Store what was accepted and not stored in the last 7, or 30, days."""
        shelf = self._batches if judgement.unit == "batch" else self._events
        shelf.put(judgement, now, weight)
        self._historical_dropped += judgement.too_young
        self._partial_dropped += judgement.unfit


def _head_weight(request: ReceivedRequest) -> int:
    headers = sum(len(name) + len(text) for name, text in request.headers.items())
    return _HEAD_BYTES + headers + len(request.path) + len(request.note)


def _weight(unit: JsonObject) -> int:
    try:
        return weigh(json.dumps(unit).encode())
    except RecursionError:
        return MAX_WEIGHT


def _shortened(key: Hashable) -> Hashable:
    """Return a key that is as good and never long: a million of them are kept."""
    text = repr(key)
    if len(text) <= _LONG_KEY:
        return key
    return hashlib.sha256(text.encode(errors="backslashreplace")).digest()
