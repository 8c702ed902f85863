"""What arrived: requests, events without duplicates, and exact counters."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from .judgement import JsonObject, Judgement

__all__ = ["EmulatorStats", "Ledger", "ReceivedRequest"]

# Amplitude HTTP V2 API, section "Event deduplication".
_EVENT_SECONDS = 7 * 86400.0
# mParticle JSON Reference, `source_request_id`: 30 to 60 days.
_BATCH_SECONDS = 30 * 86400.0
# Without a bound a long soak run would fill the memory with keys.
_DEDUP_KEYS = 1_000_000


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


class _Shelf:
    """Keeps the newest of what one vendor stores, each once."""

    def __init__(self, keep: int, seconds: float) -> None:
        self.kept: deque[JsonObject] = deque(maxlen=keep)
        self.ingested = self.duplicates = 0
        self._seconds = seconds
        # Not a plain dict: that one gets slow when its oldest keys are deleted.
        self._seen: OrderedDict[Hashable, float] = OrderedDict()

    def put(self, judgement: Judgement, now: float) -> None:
        """Store what was accepted, except for copies of what is remembered."""
        self._forget(now - self._seconds)
        seen = self._seen
        for unit, key in zip(judgement.accepted, judgement.keys, strict=True):
            if key is not None:
                if key in seen:
                    self.duplicates += 1
                    continue
                seen[key] = now
            self.ingested += 1
            self.kept.append(unit)

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
    """

    def __init__(self, keep_events: int, keep_requests: int) -> None:
        for name, value in (("keep", keep_events), ("keep_requests", keep_requests)):
            if value < 1:
                msg = f"{name} must be 1 or more, got {value!r}: raise it"
                raise ValueError(msg)
        self._keep_requests = keep_requests
        self._keep_events = keep_events
        self._events = _Shelf(keep_events, _EVENT_SECONDS)
        self._batches = _Shelf(keep_events, _BATCH_SECONDS)
        self.requests: deque[ReceivedRequest] = deque()
        self._units_in_requests = 0
        self.connections_dropped = 0
        self._by_status: Counter[int] = Counter()
        self._events_received = self._batches_received = 0
        self._historical_dropped = self._partial_dropped = 0
        self._bytes = self._faults = 0

    @property
    def events(self) -> deque[JsonObject]:
        """The newest Amplitude events, in order of arrival."""
        return self._events.kept

    @property
    def batches(self) -> deque[JsonObject]:
        """The newest mParticle batches, in order of arrival."""
        return self._batches.kept

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
        )

    def record(self, request: ReceivedRequest) -> None:
        """Count and keep one request."""
        self._by_status[request.status] += 1
        self._events_received += len(request.events)
        self._batches_received += len(request.batches)
        self._bytes += request.body_bytes
        self._faults += request.fault is not None
        self.requests.append(request)
        self._units_in_requests += _units(request)
        while (
            len(self.requests) > self._keep_requests
            or self._units_in_requests > self._keep_events
        ) and len(self.requests) > 1:
            self._units_in_requests -= _units(self.requests.popleft())

    def ingest(self, judgement: Judgement, now: float) -> None:
        """Store what was accepted and not stored in the last 7, or 30, days."""
        shelf = self._batches if judgement.unit == "batch" else self._events
        shelf.put(judgement, now)
        self._historical_dropped += judgement.too_young
        self._partial_dropped += judgement.unfit


def _units(request: ReceivedRequest) -> int:
    return len(request.events) + len(request.batches)
