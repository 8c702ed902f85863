"""Which relays live: each keeps a record, and one that grows old is not counted."""

from typing import Final

from amplitude_async.fleet.nats.api import Api
from amplitude_async.fleet.nats.lease import Entry, Sentinel
from amplitude_async.fleet.nats.plan import Plan

__all__ = ["Roster"]

# So many leases after its last sign the record of a relay is taken away.
FORGOTTEN: Final = 100


class Roster:
    """The relays of one project.

    A record is old by the servers' clock, compared with the newest record, or because
    it was seen here and has not moved for its lease: no clock of a relay counts.

    Args:
        api: reads and writes the records.
        plan: names them.
        sentinel: remembers when they moved.
    """

    def __init__(self, api: Api, plan: Plan, sentinel: Sentinel) -> None:
        self._api = api
        self._plan = plan
        self._sentinel = sentinel

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Say that a relay lives; returns how many do, this one included."""
        own = self._plan.relay_subject(destination, holder)
        await self._api.write(own, Entry.write(holder, lease, ""))
        subjects = self._plan.relay_subjects(destination)
        found = await self._api.latest(self._plan.held, [subjects])
        newest = max((message.at for message in found), default=0.0)
        live = {own}
        for message in found:
            entry = Entry.read(message)
            age = newest - message.at
            still = self._sentinel.note(message.subject, message.sequence)
            if max(age, still) < entry.lease:
                live.add(message.subject)
            elif age > entry.lease * FORGOTTEN:
                await self._api.delete(self._plan.held, message.sequence)
        return len(live)

    async def withdraw(self, destination: str, holder: str) -> None:
        """Say that a relay lives no longer."""
        subject = self._plan.relay_subject(destination, holder)
        body = {"filter": subject}
        await self._api.call(f"STREAM.PURGE.{self._plan.held}", body)
