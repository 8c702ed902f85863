"""What arrived: requests, events without duplicates, and exact counters."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from .judgement import JsonObject, Judgement

__all__ = ["EmulatorStats", "Ledger", "ReceivedRequest"]

# Amplitude HTTP V2 API, section "Event deduplication".
_DEDUP_SECONDS = 7 * 86400.0
# Without a bound a long soak run would fill the memory with insert ids.
_DEDUP_KEYS = 1_000_000


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request and the answer it got."""

    path: str
    """Path without the query."""

    status: int
    """HTTP status answered, 0 where the connection was dropped instead."""

    events: tuple[JsonObject, ...] = field(default=(), repr=False)
    """The events as they were sent, empty where the body could not be read."""

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
    """Why the request was refused, in words the vendor would not send."""


@dataclass(frozen=True, slots=True)
class EmulatorStats:
    """Counters since the start or the last reset."""

    requests: int
    """Requests to any path but the emulator's own pages."""

    by_status: dict[int, int]
    """Requests by the status answered, 0 for dropped connections."""

    events_received: int
    """Events in all requests, whatever became of them."""

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


class Ledger:
    """Keeps the newest events and requests, and counts all of them.

    Args:
        keep_events: events kept, and at most as many inside the kept requests.
        keep_requests: requests kept.
    """

    def __init__(self, keep_events: int, keep_requests: int) -> None:
        for name, value in (("keep", keep_events), ("keep_requests", keep_requests)):
            if value < 1:
                msg = f"{name} must be 1 or more, got {value!r}: raise it"
                raise ValueError(msg)
        self._keep_requests = keep_requests
        self._keep_events = keep_events
        self.events: deque[JsonObject] = deque(maxlen=keep_events)
        self.requests: deque[ReceivedRequest] = deque()
        self._events_in_requests = 0
        # Not a plain dict: that one gets slow when its oldest keys are deleted.
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        self.connections_dropped = 0
        self._by_status: Counter[int] = Counter()
        self._received = self._ingested = self._duplicates = 0
        self._bytes = self._faults = 0

    @property
    def stats(self) -> EmulatorStats:
        """A snapshot of the counters."""
        return EmulatorStats(
            requests=self._by_status.total(),
            by_status=dict(self._by_status),
            events_received=self._received,
            events_ingested=self._ingested,
            duplicates=self._duplicates,
            bytes_received=self._bytes,
            faults_fired=self._faults,
            connections_dropped=self.connections_dropped,
        )

    def record(self, request: ReceivedRequest) -> None:
        """Count and keep one request."""
        self._by_status[request.status] += 1
        self._received += len(request.events)
        self._bytes += request.body_bytes
        self._faults += request.fault is not None
        self.requests.append(request)
        self._events_in_requests += len(request.events)
        while (
            len(self.requests) > self._keep_requests
            or self._events_in_requests > self._keep_events
        ) and len(self.requests) > 1:
            self._events_in_requests -= len(self.requests.popleft().events)

    def ingest(self, judgement: Judgement, now: float) -> None:
        """Store the accepted events that were not stored in the last 7 days."""
        self._forget(now - _DEDUP_SECONDS)
        seen = self._seen
        for event, key in zip(judgement.accepted, judgement.keys, strict=True):
            if key is not None:
                if key in seen:
                    self._duplicates += 1
                    continue
                seen[key] = now
            self._ingested += 1
            self.events.append(event)

    def _forget(self, before: float) -> None:
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if seen[oldest] > before and len(seen) <= _DEDUP_KEYS:
                return
            del seen[oldest]
