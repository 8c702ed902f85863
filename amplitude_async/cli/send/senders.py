"""Who takes the events of lines: the client, or a check that sends nothing."""

import asyncio
import re
import time
from typing import Any, Final, Protocol

from amplitude_async import (
    Amplitude,
    Config,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
)
from amplitude_async.amplitude.door import AmplitudeDoor
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.amplitude.events import Event
from amplitude_async.cli.send.lines import LineError, made
from amplitude_async.cli.send.window import Fate, Line, Told
from amplitude_async.cli.stopping import INCOMPLETE, Stop
from amplitude_async.client.destination import Reduced, Refusal
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.reporting import Reporter

__all__ = ["Checker", "ClientSender", "Sender"]

_GIVEN_UP: Final = frozenset({DropReason.RETRIES})
"""Ends that the event itself has brought about: a later run would meet them again."""

_SLICE: Final = 0.01
_DELIVERED: Final = Told(Fate.DELIVERED)
# What needs no escape in JSON, as every id that is made of a line.
_PLAIN_ID: Final = re.compile(r"[\w.:-]+", re.ASCII)


class Sender(Protocol):
    """Takes events and says what became of each."""

    async def start(self) -> None:
        """Make ready."""

    async def send(
        self, line: Line, fields: dict[str, Any], insert_id: str | None
    ) -> None:
        """Take the event of a line.

        Args:
            line: gets what this sender knows it by.
            fields: of its event; they belong to the sender.
            insert_id: for an event that has none of its own.

        Raises:
            LineError: the fields make no event.
        """

    def told(self, line: Line) -> Told | None:
        """Say what became of a line; None while that is open."""

    def hasten(self) -> None:
        """Wait no longer for company: no more lines come."""

    async def close(self, timeout: float) -> None:
        """End, and give up what is undecided by then."""

    @property
    def trouble(self) -> str:
        """Why nothing is taken at the moment; no text where all is well."""


class LineClient(Amplitude):
    """A client that takes fields with an id that was made for them."""

    async def take(self, fields: dict[str, Any], insert_id: str | None) -> Delivery:
        """Track the event that some fields make, by the shortest road there is.

        Raises:
            LineError: the fields make no event.
        """
        given = fields.pop("insert_id", None) or insert_id
        own, event_type = self._fast, fields.get("event_type")
        if own is not None and isinstance(event_type, str) and _is_plain(given):
            del fields["event_type"]
            record = self._door.admit_fields(
                event_type, fields, own.next_id, time.time(), insert_id=given
            )
            if record is not None:
                if self._in_one_go <= 0:
                    await self._give_turn()
                self._in_one_go -= 1
                delivery = own.offer_record(record)
                return delivery or await own.accept_record(record)
            fields["event_type"] = event_type
        if given is not None:
            fields["insert_id"] = given
        try:
            return await self.track(made(fields))
        except ValueError as error:
            # Strict, as it is: the door says why in an error.
            raise LineError(str(error)) from None


def _is_plain(insert_id: object) -> bool:
    if insert_id is None:
        return True
    return isinstance(insert_id, str) and _PLAIN_ID.fullmatch(insert_id) is not None


class ClientSender:
    """Sends with the client of this package."""

    def __init__(self, config: Config, stop: Stop) -> None:
        self._client = LineClient(config)
        self._stop = stop
        self._flushing: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Start the client."""
        await self._client.start()

    async def send(
        self, line: Line, fields: dict[str, Any], insert_id: str | None
    ) -> None:
        """Take the event of a line."""
        line.hand_over(await self._client.take(fields, insert_id))

    def told(self, line: Line) -> Told | None:
        """Say what became of a line; a run that is of no use any more is stopped."""
        delivery = line.token
        result = None if delivery is None else delivery.result
        if result is None:
            return None
        told = self._told(result)
        if told.fate is Fate.LEFT:
            self._stop.ask(told.reason, INCOMPLETE)
        return told

    async def send_one(
        self, event: Event, timeout: float
    ) -> tuple[Told, DeliveryResult | None]:
        """Send an event and wait for what becomes of it, or for so many seconds."""
        try:
            delivery = await self._client.track(event)
        except ValueError as error:
            return Told(Fate.REJECTED, str(error)), None
        try:
            result = await asyncio.wait_for(delivery, timeout)
        except TimeoutError:
            why = self.trouble or "the server gives no answer"
            return Told(Fate.LEFT, f"not within {timeout:g} s: {why}"), None
        told = self._told(result)
        return told._replace(code=result.code), result

    def _told(self, result: DeliveryResult) -> Told:
        if result.status is DeliveryStatus.DELIVERED:
            return _DELIVERED
        refused = result.code and self._client.health is Health.REFUSED
        if result.status is DeliveryStatus.REJECTED and not refused:
            return Told(Fate.REJECTED, result.message, result.code)
        if result.reason in _GIVEN_UP:
            return Told(Fate.REJECTED, f"given up: {result.message}", result.code)
        return Told(Fate.LEFT, result.message, result.code)

    def hasten(self) -> None:
        """Wait no longer for company."""
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._client.flush(None))

    async def close(self, timeout: float) -> None:
        """Shut the client down."""
        await self._client.shutdown(timeout)
        if self._flushing is not None:
            await self._flushing

    @property
    def trouble(self) -> str:
        """Why nothing is taken at the moment."""
        if self._client.health is Health.HEALTHY:
            return ""
        return self._client.stats.last_error or "the server takes nothing"


class Checker:
    """Looks at events as the client would, and sends nothing."""

    trouble = ""

    def __init__(self, config: Config) -> None:
        endpoint = AmplitudeEndpoint(config)
        reporter = Reporter(config.logger, LoopClock(), endpoint.name, config.redactor)
        room = endpoint.max_bytes - endpoint.frame_bytes
        self._door = AmplitudeDoor(config, room, reporter)
        self._seen = 0
        self.body = b""
        """The last event that is good, as it would go on the wire."""

    async def start(self) -> None:
        """Nothing needs to be ready."""

    async def send(
        self, line: Line, fields: dict[str, Any], insert_id: str | None
    ) -> None:
        """Look at the event of a line."""
        if insert_id is not None and not fields.get("insert_id"):
            fields["insert_id"] = insert_id
        line.hand_over(self.look(made(fields)))

    def told(self, line: Line) -> Told | None:
        """Say what would become of a line."""
        told: Told | None = line.token
        return told

    def look(self, event: Event) -> Told:
        """Say whether the client would take an event."""
        found = self._door.admit(event, self._seen, time.time())
        if isinstance(found, Refusal):
            return Told(Fate.REJECTED, found.message)
        self.body = (found.record if isinstance(found, Reduced) else found).body
        return _DELIVERED

    def hasten(self) -> None:
        """Nothing waits."""

    async def close(self, timeout: float) -> None:
        """Nothing is open."""
