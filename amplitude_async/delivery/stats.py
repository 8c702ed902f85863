"""Counters of one destination, and the snapshot the user reads."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome

__all__ = ["Counters", "Stats", "read_whole"]

# The other thread is between two counters for a microsecond, or until it runs again.
MOST_LOOKS = 100
GLANCE = 0.0005


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of one destination's account.

    At every moment: accepted + recovered = delivered + rejected + dropped + stored
    + pending, and handed_over and given_back on the right side in a fleet.
    """

    accepted: int = 0
    """Events for which a verb returned a handle."""
    recovered: int = 0
    """Events taken over from a spool."""
    delivered: int = 0
    rejected: int = 0
    dropped: int = 0
    dropped_by_reason: Mapping[DropReason, int] = field(default_factory=dict)
    stored: int = 0
    """Events left in a durable storage at shutdown."""
    handed_over: int = 0
    """Events that a fleet's log has; 0 unless the client hands over."""
    given_back: int = 0
    """Events that a relay took from a log and left to another; 0 for other clients."""
    pending: int = 0
    """Undecided events, wherever they wait."""
    held: int = 0
    """Pending events of throttled identities."""
    retries: int = 0
    """Requests that failed and whose events were sent again."""
    requests: int = 0
    bytes_sent: int = 0
    """Bytes of request bodies, after compression."""
    oldest_age: float | None = None
    """Seconds since the oldest undecided event was accepted; None without any.

    Wherever it waits, in memory or in a spool. One of an earlier process counts by the
    wall clock, as it went when the event was taken over.
    """
    queue_events: int = 0
    """Undecided events in memory, those in flight included."""
    queue_capacity: int = 0
    """How many of these memory may hold: ``max_storage_capacity``."""
    queue_bytes: int = 0
    """Encoded bytes of the undecided events in memory."""
    spool_events: int = 0
    """Undecided events that survive the process; 0 with memory storage."""
    spool_bytes: int = 0
    """Encoded bytes of the events in a durable storage; 0 with memory storage."""
    spool_oldest_age: float | None = None
    """Age in seconds of the oldest of them, as of the last write; None without any."""
    durable: bool = False
    """True while a returned handle means that the event survives the process.

    False with memory storage, and while a storage fails or takes too long to write.
    """
    losses: int = 0
    """Keys and fields that accepted events had to go without, or that were cut."""
    last_error: str | None = None
    """What went wrong last, in words."""
    destinations: Mapping[str, "Stats"] = field(default_factory=dict)
    """The same record for each other destination."""

    @property
    def balanced(self) -> bool:
        """True where the account adds up, as it always must."""
        settled = self.delivered + self.rejected + self.dropped + self.stored
        settled += self.handed_over + self.given_back
        return self.accepted + self.recovered == settled + self.pending


def read_whole(read: Callable[[], Stats]) -> Stats:
    """Read an account from any thread, so that it adds up.

    A thread may interrupt the loop's between two counters of one event. On the loop's
    own thread the first look is whole.

    Args:
        read: takes a snapshot, as ``client.stats`` does.
    """
    stats = read()
    for _ in range(MOST_LOOKS):
        if _is_whole(stats) and all(map(_is_whole, stats.destinations.values())):
            break
        time.sleep(GLANCE)  # lets the other thread get on
        stats = read()
    return stats


def _is_whole(stats: Stats) -> bool:
    return stats.balanced and stats.dropped == sum(stats.dropped_by_reason.values())


class Counters:
    """The running account of one destination."""

    __slots__ = (
        "accepted",
        "bytes_sent",
        "dropped_by_reason",
        "ends",
        "given_back",
        "last_error",
        "losses",
        "recovered",
        "requests",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.recovered = 0
        self.ends = dict.fromkeys(DeliveryStatus, 0)
        """Events by how they ended."""
        self.dropped_by_reason: dict[DropReason, int] = {}
        self.given_back = 0
        self.requests = 0
        self.bytes_sent = 0
        self.losses = 0
        self.last_error: str | None = None

    def accept(self) -> None:
        """Enter an event for which a verb returned a handle."""
        self.accepted += 1

    def recover(self, events: int) -> None:
        """Enter events taken over from a spool."""
        self.recovered += events

    def give_back(self, events: int) -> None:
        """Enter events that another process is to deliver."""
        self.given_back += events

    def request(self, size: int) -> None:
        """Enter a request of so many bytes."""
        self.requests += 1
        self.bytes_sent += size

    def lose(self, keys: int) -> None:
        """Enter keys that events had to go without."""
        self.losses += keys

    def note_error(self, message: str) -> None:
        """Remember what went wrong last."""
        self.last_error = message

    def count(self, outcome: Outcome, events: int = 1) -> None:
        """Enter events that were settled alike."""
        self.ends[outcome.status] += events
        if outcome.status is DeliveryStatus.REJECTED:
            self.last_error = outcome.message
        elif outcome.status is DeliveryStatus.DROPPED:
            reason = outcome.reason or DropReason.INTERNAL
            by_reason = self.dropped_by_reason
            by_reason[reason] = by_reason.get(reason, 0) + events

    def snapshot(self, waiting: Stats) -> Stats:
        """Freeze the account together with what is waiting right now."""
        ends = self.ends
        return replace(
            waiting,
            accepted=self.accepted,
            recovered=self.recovered,
            delivered=ends[DeliveryStatus.DELIVERED],
            rejected=ends[DeliveryStatus.REJECTED],
            dropped=ends[DeliveryStatus.DROPPED],
            dropped_by_reason=dict(self.dropped_by_reason),
            stored=ends[DeliveryStatus.STORED],
            handed_over=ends[DeliveryStatus.HANDED_OVER],
            given_back=self.given_back,
            requests=self.requests,
            bytes_sent=self.bytes_sent,
            losses=self.losses,
            last_error=self.last_error,
        )
