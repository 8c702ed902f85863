"""What a client can be measured by: names, units, and one reading for all of them.

Whoever exports metrics reads them here, so that a name means the same everywhere. The
model are the self-metrics of OpenTelemetry's SDK: an event is counted once, after its
final attempt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason
from amplitude_async.delivery.stats import Stats, read_whole

__all__ = [
    "AGE",
    "AGE_BUCKETS",
    "DURATION",
    "DURATION_BUCKETS",
    "METRICS",
    "NO_ANSWER",
    "Kind",
    "Labels",
    "Metric",
    "Reading",
    "read",
]


class Kind(Enum):
    """How values of a metric go together."""

    COUNTER = auto()
    """It only grows."""
    AMOUNT = auto()
    """It comes and goes, and those of several processes add up."""
    GAUGE = auto()
    """Those of several processes do not add up: the highest of them counts."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing to measure."""

    name: str
    kind: Kind
    unit: str
    """As UCUM has it: ``s``, ``By``, or what is counted in braces."""
    description: str
    labels: tuple[str, ...] = ()
    """What tells its series apart, beside the client and the destination."""


_ACCEPTED = Metric(
    "amplitude.client.event.accepted",
    Kind.COUNTER,
    "{event}",
    "Events that a verb accepted (origin tracked) or a spool gave back (recovered).",
    ("origin",),
)
_PROCESSED = Metric(
    "amplitude.client.event.processed",
    Kind.COUNTER,
    "{event}",
    "Events that have their final outcome: delivered, rejected, dropped or stored.",
    ("outcome", "error.type"),
)
_INFLIGHT = Metric(
    "amplitude.client.event.inflight",
    Kind.AMOUNT,
    "{event}",
    "Events that are accepted and undecided, wherever they wait.",
)
_OLDEST_AGE = Metric(
    "amplitude.client.event.oldest_age",
    Kind.GAUGE,
    "s",
    "Seconds since the oldest undecided event was accepted; 0 without any.",
)
_QUEUE_SIZE = Metric(
    "amplitude.client.queue.size",
    Kind.AMOUNT,
    "{event}",
    "Undecided events in memory, those in flight included.",
)
_QUEUE_CAPACITY = Metric(
    "amplitude.client.queue.capacity",
    Kind.AMOUNT,
    "{event}",
    "Most undecided events in memory: max_storage_capacity.",
)
_QUEUE_BYTES = Metric(
    "amplitude.client.queue.bytes",
    Kind.AMOUNT,
    "By",
    "Encoded bytes of the undecided events in memory.",
)
_SPOOL_EVENTS = Metric(
    "amplitude.client.spool.events",
    Kind.AMOUNT,
    "{event}",
    "Undecided events in a durable storage.",
)
_SPOOL_BYTES = Metric(
    "amplitude.client.spool.bytes",
    Kind.AMOUNT,
    "By",
    "Encoded bytes of the events in a durable storage.",
)
_SPOOL_OLDEST_AGE = Metric(
    "amplitude.client.spool.oldest_age",
    Kind.GAUGE,
    "s",
    "Seconds since the oldest event in a durable storage was accepted; 0 without any.",
)
_HEALTH = Metric(
    "amplitude.client.health",
    Kind.AMOUNT,
    "{client}",
    "1 for the state that the client's own destination is in, 0 for the others.",
    ("state",),
)

METRICS: Final = (
    _ACCEPTED,
    _PROCESSED,
    _INFLIGHT,
    _OLDEST_AGE,
    _QUEUE_SIZE,
    _QUEUE_CAPACITY,
    _QUEUE_BYTES,
    _SPOOL_EVENTS,
    _SPOOL_BYTES,
    _SPOOL_OLDEST_AGE,
    _HEALTH,
)
"""All that a reading has values for."""

DURATION: Final = Metric(
    "amplitude.client.request.duration",
    Kind.COUNTER,
    "s",
    "Seconds that requests took.",
    ("http.response.status_code", "error.type"),
)
"""A histogram: what an observer hears of each request."""
AGE: Final = Metric(
    "amplitude.client.event.age",
    Kind.COUNTER,
    "s",
    "Seconds from the acceptance of events to their delivery.",
)
"""A histogram, likewise."""

DURATION_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
"""Those that OpenTelemetry has for HTTP clients."""
AGE_BUCKETS: Final = (
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0),
    *(60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 518_400.0),
)
"""From the first batch of a newcomer to the six days of a spool."""

NO_ANSWER: Final = "no_answer"
"""The error of a request that nothing came back for."""

Labels: TypeAlias = Mapping[str, str]
Reading: TypeAlias = Mapping[str, list[tuple[Labels, float]]]
"""By the name of a metric: its labels and values, all of one moment."""


def read(client: BaseClient) -> Reading:
    """Read all metrics of a client at one moment, from any thread.

    Each series is there from the first reading on, so that its first event is seen as
    a growth. Labels name no person, key or kind of event.
    """
    stats = read_whole(lambda: client.stats)
    found: dict[str, list[tuple[Labels, float]]] = {one.name: [] for one in METRICS}
    accounts = {client.destination: stats, **stats.destinations}
    for destination, account in accounts.items():
        here = {"destination": destination}
        for metric, labels, value in _values(account):
            found[metric.name].append((here | labels, value))
    here = {"destination": client.destination}
    found[_HEALTH.name] += [
        ({**here, "state": state.value}, int(state is client.health))
        for state in Health
    ]
    return found


def _values(stats: Stats) -> Iterator[tuple[Metric, dict[str, str], float]]:
    yield _ACCEPTED, {"origin": "tracked"}, stats.accepted
    yield _ACCEPTED, {"origin": "recovered"}, stats.recovered
    yield from ((_PROCESSED, *end) for end in _ends(stats))
    yield _INFLIGHT, {}, stats.pending
    yield _OLDEST_AGE, {}, stats.oldest_age or 0.0
    yield _QUEUE_SIZE, {}, stats.queue_events
    yield _QUEUE_CAPACITY, {}, stats.queue_capacity
    yield _QUEUE_BYTES, {}, stats.queue_bytes
    yield _SPOOL_EVENTS, {}, stats.spool_events
    yield _SPOOL_BYTES, {}, stats.spool_bytes
    yield _SPOOL_OLDEST_AGE, {}, stats.spool_oldest_age or 0.0


def _ends(stats: Stats) -> Iterator[tuple[dict[str, str], float]]:
    """Count events by how they ended; the error is empty where there was none."""
    counts = {
        DeliveryStatus.DELIVERED: stats.delivered,
        DeliveryStatus.REJECTED: stats.rejected,
        DeliveryStatus.STORED: stats.stored,
    }
    # Of a fleet alone: other clients have no such series.
    if stats.handed_over:
        counts[DeliveryStatus.HANDED_OVER] = stats.handed_over
    if stats.given_back:
        yield {"outcome": "given_back", "error.type": ""}, stats.given_back
    for status, count in counts.items():
        error = status.value if status is DeliveryStatus.REJECTED else ""
        yield {"outcome": status.value, "error.type": error}, count
    for reason in DropReason:
        count = stats.dropped_by_reason.get(reason, 0)
        labels = {"outcome": "dropped", "error.type": reason.value}
        yield labels, count
