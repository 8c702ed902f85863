"""A log in the place of a vendor's API: limits and verdicts. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amplitude_async.delivery.courier import Handover
from amplitude_async.delivery.endpoint import (
    Accept,
    Busy,
    Endpoint,
    Halve,
    Refuse,
    Response,
    Verdict,
    describe_failure,
)
from amplitude_async.delivery.outcome import DeliveryStatus
from amplitude_async.storage.base import Record

__all__ = ["LogEndpoint"]

MAX_EVENTS: Final = 2_000


class LogEndpoint:
    """Where a client hands over: its vendor's name and events, and the log's limits.

    Args:
        vendor: the API that a relay will deliver to.
        handover: the way to the log.
    """

    max_events = MAX_EVENTS
    frame_bytes = 0
    compress = False

    def __init__(self, vendor: Endpoint, handover: Handover) -> None:
        self.name = vendor.name
        self.url = handover.fingerprint()
        self.headers: Mapping[str, str] = {}
        self.max_bytes = min(vendor.max_bytes, handover.max_bytes)
        self._vendor = vendor
        self._handover = handover

    def __repr__(self) -> str:
        return f"<LogEndpoint {self.name!r}>"

    def frame(self, bodies: Sequence[bytes], wall: float) -> bytes:  # noqa: ARG002
        """Join encoded events; the log's own form is the handover's matter."""
        return b"[%b]" % b",".join(bodies)

    def interpret(
        self,
        response: Response,
        records: Sequence[Record],  # noqa: ARG002
        wall: float,  # noqa: ARG002
    ) -> Verdict:
        """Say what the word of a log means: no event is ever at fault, but too large.

        So an outage of any length costs no event anything but time.
        """
        match response.status:
            case 200:
                message = "the log has it, a relay delivers it"
                return Accept(0, message, DeliveryStatus.HANDED_OVER)
            case 413:
                return Halve(413, describe_failure(response))
            case 403:
                return Refuse(403, describe_failure(response))
            case status:
                return Busy(status, describe_failure(response))

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""
        return self._vendor.decode(body)

    def fingerprint(self) -> str:
        """Name the log and what is handed over."""
        return f"{self.name} {self._handover.fingerprint()}"
