"""What becomes of an event: statuses, reasons and results. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from amplitude_async.storage.base import Record

__all__ = [
    "GIVEN_UP",
    "QUIET_REASONS",
    "TAKEN",
    "DeliveryResult",
    "DeliveryStatus",
    "DropReason",
    "Outcome",
    "Settlement",
]


class DeliveryStatus(StrEnum):
    """The ends an accepted event can come to."""

    DELIVERED = "delivered"
    """The server took it (any 2xx)."""
    HANDED_OVER = "handed_over"
    """A fleet's log has it, and a relay delivers it: this process is done with it."""
    REJECTED = "rejected"
    """A verdict on the event: local check, server's answer, or refused key."""
    DROPPED = "dropped"
    """We gave it up; ``reason`` says why."""
    STORED = "stored"
    """Left in a durable storage for the next process."""


class DropReason(StrEnum):
    """Why an event was given up."""

    OPT_OUT = "opt_out"
    PLUGIN = "plugin"
    OVERFLOW = "overflow"
    RETRIES = "retries"
    EXPIRED = "expired"
    SHUTDOWN = "shutdown"
    CLOSED = "closed"
    NO_DESTINATION = "no_destination"
    PURGED = "purged"
    FORK = "fork"
    INTERNAL = "internal"


TAKEN = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.HANDED_OVER})
"""What is as it should be: where an event was sent to, there it is."""

GIVEN_UP = frozenset(
    {DropReason.OVERFLOW, DropReason.RETRIES, DropReason.EXPIRED, DropReason.INTERNAL}
)
"""Drops that nobody asked for, of events that were on their way."""

QUIET_REASONS = frozenset({DropReason.OPT_OUT, DropReason.PLUGIN, DropReason.PURGED})
"""Drops that somebody asked for: nothing an on-call must read about."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one event, or a whole batch of them, ended."""

    status: DeliveryStatus
    code: int = 0
    message: str = ""
    reason: DropReason | None = None
    attempts: int = 0
    refused: bool = False
    """The server refuses us, whatever the event: one fault, however many it meets."""

    @classmethod
    def refusal(cls, message: str, code: int, attempts: int = 0) -> "Outcome":
        """Build the end of an event that met a server that refuses us."""
        status = DeliveryStatus.REJECTED
        return cls(status, code, message, None, attempts, refused=True)

    @classmethod
    def rejected(cls, message: str, code: int = 0, attempts: int = 0) -> "Outcome":
        """Build the verdict on a bad event."""
        return cls(DeliveryStatus.REJECTED, code, message, None, attempts)

    @classmethod
    def dropped(
        cls, reason: DropReason, message: str, code: int = 0, attempts: int = 0
    ) -> "Outcome":
        """Build the end of an event that we give up."""
        return cls(DeliveryStatus.DROPPED, code, message, reason, attempts)


Settlement = tuple[Record, Outcome]
"""An event and its end, on the way from who decided it to who writes it down."""


class DeliveryResult:
    """The final result of one event at one destination."""

    __slots__ = ("_decode", "_event", "_outcome", "_source", "destination", "insert_id")

    def __init__(
        self,
        outcome: Outcome,
        source: object,
        *,
        insert_id: str,
        destination: str,
        decode: Callable[[bytes], Any],
    ) -> None:
        self._outcome = outcome
        self._source = source
        self._decode = decode
        self._event: Any = None
        self.insert_id = insert_id
        self.destination = destination

    @property
    def status(self) -> DeliveryStatus:
        """DELIVERED, HANDED_OVER, REJECTED, DROPPED or STORED."""
        return self._outcome.status

    @property
    def ok(self) -> bool:
        """True where the server, or the log, took the event."""
        return self._outcome.status in TAKEN

    @property
    def code(self) -> int:
        """HTTP status of the deciding answer; 0 where there was none."""
        return self._outcome.code

    @property
    def message(self) -> str:
        """What happened, in words."""
        return self._outcome.message

    @property
    def reason(self) -> DropReason | None:
        """Why the event was dropped; None unless the status is DROPPED."""
        return self._outcome.reason

    @property
    def attempts(self) -> int:
        """Requests that counted as attempts, the deciding one included."""
        return self._outcome.attempts

    @property
    def event(self) -> Any:
        """The event, decoded from its bytes at the first access."""
        if self._event is None:
            source = self._source
            self._event = self._decode(source) if isinstance(source, bytes) else source
        return self._event

    def __repr__(self) -> str:
        reason = f" {self.reason}" if self.reason else ""
        return (
            f"<DeliveryResult {self.status}{reason} code={self.code} "
            f"attempts={self.attempts} destination={self.destination!r} "
            f"message={self.message!r}>"
        )
