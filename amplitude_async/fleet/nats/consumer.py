"""What is asked of the consumer of one place."""

import json
from typing import Any, Final

from amplitude_async.fleet.nats.api import Api
from amplitude_async.fleet.nats.plan import GROUP, seconds
from amplitude_async.fleet.nats.wire import Wire

__all__ = ["HEARTBEAT", "Consumer"]

HEARTBEAT: Final = 1.0
CALL_LIMIT: Final = 2.0
ACKNOWLEDGE: Final = b"+ACK"
PROGRESS: Final = b"+WPI"


class Consumer:
    """Asks the consumer of a place, whichever server leads it.

    Args:
        wire: the connection.
        stream: of the chunks.
        name: the consumer's.
    """

    def __init__(self, wire: Wire, stream: str, name: str) -> None:
        self._wire = wire
        self._api = Api(wire)
        self._path = f"{stream}.{name}"
        self.resets = 0
        """How often it was reset."""

    def __repr__(self) -> str:
        return self._path

    async def info(self) -> dict[str, Any]:
        """Ask how far it is."""
        return await self._api.call(f"CONSUMER.INFO.{self._path}", limit=CALL_LIMIT)

    async def unpin(self) -> None:
        """Make room for another reader at once."""
        body = {"group": GROUP}
        await self._api.call(f"CONSUMER.UNPIN.{self._path}", body, limit=CALL_LIMIT)

    async def reset(self) -> None:
        """Let it deliver what is not acknowledged, from the oldest on."""
        await self._api.call(f"CONSUMER.RESET.{self._path}", limit=CALL_LIMIT)
        self.resets += 1

    async def pull(
        self, reply: str, *, pin: str, count: int, max_bytes: int, expires: float
    ) -> None:
        """Ask for messages."""
        body = {
            "batch": count,
            "expires": seconds(expires),
            "idle_heartbeat": seconds(HEARTBEAT),
            "group": GROUP,
            "max_bytes": max_bytes,
        }
        if pin:
            body["id"] = pin
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._path}"
        await self._wire.publish(subject, json.dumps(body).encode(), reply)

    async def acknowledge(self, subjects: list[str], *, confirm: bool) -> None:
        """Acknowledge messages, and wait until it says it knows, where it is to.

        Raises:
            LogError: it does not say so: it may know or not.
        """
        for subject in subjects[: -1 if confirm else None]:
            await self._wire.publish(subject, ACKNOWLEDGE)
        if confirm and subjects:
            # They are taken in the order in which they were sent: one answer is enough.
            await self._wire.request(subjects[-1], ACKNOWLEDGE, timeout=CALL_LIMIT)

    async def keep(self, subjects: list[str]) -> None:
        """Say of messages that they are still in hand."""
        for subject in subjects:
            await self._wire.publish(subject, PROGRESS)
