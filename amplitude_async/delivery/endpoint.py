"""The seam between the engine and a vendor's API: frames, limits and verdicts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from amplitude_async.delivery.outcome import DeliveryStatus
from amplitude_async.storage.base import Record

__all__ = [
    "Accept",
    "Bisect",
    "Broken",
    "Busy",
    "Endpoint",
    "Halve",
    "Refuse",
    "Response",
    "Sort",
    "Verdict",
    "describe_failure",
    "excerpt",
    "interpret_trouble",
    "retry_after",
]

_EXCERPT = 200
# RFC 6585 section 4, RFC 9110 sections 15.6.3 to 15.6.5.
_BUSY_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Response:
    """What came back: an HTTP answer, or the reason why none came."""

    status: int
    """HTTP status; 0 where there was no answer."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Header names in lower case."""
    error: str | None = None
    """Why there was no answer, in words; None where there was one."""
    sent: bool = True
    """False where no connection came about: the server has seen nothing."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The server took every event of the request."""

    code: int
    message: str
    status: DeliveryStatus = DeliveryStatus.DELIVERED
    """What its events have come to by that."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The destination takes nothing just now: charged to nobody, cut nowhere."""

    code: int
    message: str
    wait: float | None = None
    """Seconds that the server asks for; None where it did not say."""
    throttled: bool = False
    """It said "too many" and not for how long: leave it alone for a while."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The request came to nothing, and it is not known whose fault that is."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Halve:
    """The request was too large: uncounted, send it in two; one event is rejected."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Bisect:
    """Some event is at fault, unnamed: uncounted, halve until it stands alone."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Sort:
    """The server named events: some are rejected, some must wait, the rest go again."""

    code: int
    message: str
    rejected: Mapping[int, str]
    throttled: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Refuse:
    """The server refuses us, not the events: wrong key, URL or method."""

    code: int
    message: str


Verdict = Accept | Busy | Broken | Halve | Bisect | Sort | Refuse


class Endpoint(Protocol):
    """One vendor API as the engine sees it."""

    name: str
    url: str
    headers: Mapping[str, str]
    max_events: int
    max_bytes: int
    """Most bytes of an uncompressed request body."""
    frame_bytes: int
    """Upper bound of the bytes around the events of a request."""
    compress: bool

    def frame(self, bodies: Sequence[bytes], wall: float) -> bytes:
        """Join encoded events to a body; ``wall`` is seconds since the epoch."""

    def interpret(
        self, response: Response, records: Sequence[Record], wall: float
    ) -> Verdict:
        """Say what an answer means for the events of its request."""

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""

    def fingerprint(self) -> str:
        """Name the destination without its secret, for spools to tell them apart."""


def excerpt(text: str | bytes) -> str:
    """Cut a server's text to 200 printable characters, fit for a log line."""
    if isinstance(text, bytes):
        text = text[: 4 * _EXCERPT].decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() else " " for c in text[:_EXCERPT])
    return " ".join(printable.split())


def describe_failure(response: Response) -> str:
    """Say in words what went wrong with a request."""
    if response.error is not None:
        return response.error
    detail = excerpt(response.body)
    return f"HTTP {response.status}" + (f": {detail}" if detail else "")


def interpret_trouble(
    response: Response, message: str, wait: float | None
) -> Busy | Broken:
    """Tell a destination that is busy from a request that broke.

    Busy is what says so: "too many", a gateway that has nobody behind it, a wait that
    is asked for, and a connection that did not come about. Everything else may be the
    fault of what was sent.
    """
    status = response.status
    if not response.sent or wait is not None or status in _BUSY_STATUSES:
        return Busy(status, message, wait, throttled=status == 429 and wait is None)
    return Broken(status, message)


def retry_after(headers: Mapping[str, str], wall: float, cap: float) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or an HTTP date.

    Returns:
        Seconds from now, between 0 and ``cap``; None where absent or garbage.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), cap)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - datetime.fromtimestamp(wall, UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        # A date or an offset beyond all calendars is garbage like any other.
        return None
    return min(max(wait, 0.0), cap)
