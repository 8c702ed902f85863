"""What a place's holder leaves for the next, in a record beside the lease.

Not in the lease's own: everybody reads those, four times a second.
"""

from typing import Final

from amplitude_async.fleet.log import Place
from amplitude_async.fleet.nats.api import Api
from amplitude_async.fleet.nats.lease import PlaceLease
from amplitude_async.fleet.nats.plan import Plan

__all__ = ["Bequest"]

_SEPARATOR: Final = b"\n"


class Bequest:
    """The record of one place, under the lease of one holder.

    It names the lease that it was written under: what a holder writes that has lost its
    place meanwhile is nobody's.

    Args:
        api: reads and writes the record.
        plan: names it.
        place: whose record it is.
        lease: of this holder.
    """

    def __init__(self, api: Api, plan: Plan, place: Place, lease: PlaceLease) -> None:
        self._api = api
        self._stream = plan.held
        self._subject = plan.progress_subject(place)
        self._lease = lease

    def __repr__(self) -> str:
        return f"<Bequest of {self._subject}>"

    async def take(self) -> bytes:
        """Read what the holder before left, and leave it under this lease.

        Raises:
            LogError: the log does not answer.
        """
        found = await self._api.last(self._stream, self._subject)
        if found is None:
            return b""
        token, _, data = found.data.partition(_SEPARATOR)
        if not data or token != self._lease.token_before.encode():
            return b""
        await self.leave(data)
        return data

    async def leave(self, data: bytes) -> None:
        """Write what the next holder is to read.

        Raises:
            LogError: the log does not answer.
        """
        if await self._lease.valid():
            written = self._lease.token.encode() + _SEPARATOR + data
            await self._api.write(self._subject, written)
