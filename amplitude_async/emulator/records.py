"""What the emulator tells of the requests it received, and its counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .judgement import JsonObject

__all__ = ["EmulatorStats", "ReceivedRequest"]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request and the answer it got."""

    path: str
    """Path without the query."""

    status: int
    """HTTP status answered, 0 where no answer came."""

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

    number: int = 0
    """Counts the requests from 1, in order of being judged."""

    taken: bool = True
    """Whether what is in it was stored, except for what `problems` names."""

    problems: Mapping[int, str] = field(default_factory=dict, repr=False)
    """What is wrong with single events or batches, by index, as far as it is known."""

    @property
    def reasons(self) -> dict[int, str]:
        """Why each event, or batch, was not taken, by its index in the request."""
        if self.taken:
            return dict(self.problems)
        whole = self._refusal()
        count = len(self.events) + len(self.batches)
        return {index: self.problems.get(index, whole) for index in range(count)}

    def _refusal(self) -> str:
        answer = f"was answered {self.status}" if self.status else "got no answer"
        fault = f"the fault {self.fault[:80]!r} fired" if self.fault else ""
        why = "; ".join(filter(None, (fault, self.note)))
        return f"its request {answer}: {why}" if why else f"its request {answer}"


@dataclass(frozen=True, slots=True)
class EmulatorStats:
    """Counters since the start or the last reset."""

    requests: int
    """Requests to any path but the emulator's own pages."""

    by_status: dict[int, int]
    """Requests by the status answered, 0 where no answer came."""

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

    events_rejected: int = 0
    """Events that were not taken, each time they came."""

    batches_rejected: int = 0
    """Batches, likewise."""

    rejected_forgotten: int = 0
    """Events and batches that were not taken, or copies, and are no longer kept."""

    local_rejected: int = 0
    """Events and batches that clients told they rejected by themselves."""

    local_dropped: int = 0
    """Likewise, that they dropped."""

    local_forgotten: int = 0
    """What clients told of and is no longer kept."""
