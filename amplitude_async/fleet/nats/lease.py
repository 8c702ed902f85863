"""Who has which place: a record for each, changed only by who saw it last.

No two clocks are compared. A holder counts from before it wrote; an heir counts from
when it saw the record, and takes it once it has stood still for its lease.
"""

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.nats.api import LIMIT, Api, Stored
from amplitude_async.fleet.nats.plan import Plan

__all__ = ["Entry", "PlaceLease", "Sentinel"]

LOOK: Final = 0.25
BRIEF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """What a lease, or a relay that lives, says of itself."""

    sequence: int
    holder: str
    """Empty where nobody has the place."""
    lease: float
    token: str
    at: float
    data: bytes

    @classmethod
    def read(cls, found: Stored) -> Self:
        """Read what was stored; nonsense is a record of nobody."""
        try:
            said = json.loads(found.data)
            holder, lease, token = said["holder"], said["lease"], said["token"]
        except (ValueError, KeyError, TypeError):
            holder, lease, token = "", 0.0, ""
        return cls(found.sequence, holder, float(lease), token, found.at, found.data)

    @staticmethod
    def write(holder: str, lease: float, token: str) -> bytes:
        """Write one that differs from any other."""
        said = {
            "holder": holder,
            "lease": lease,
            "token": token,
            "nonce": secrets.token_hex(4),
        }
        return json.dumps(said).encode()


class Sentinel:
    """Watches records, and knows since when each has not moved, by its own clock.

    Args:
        api: reads them.
        plan: names them.
    """

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan
        self._seen: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, subject: str, sequence: int) -> float:
        """Note that a record was seen; returns for how long it has not moved."""
        now = asyncio.get_running_loop().time()
        known, since = self._seen.get(subject, (0, now))
        if sequence > known:
            # One that is older than what was seen comes from a replica that lags.
            known, since = sequence, now
            self._seen[subject] = known, since
        return now - since

    def begin(self) -> None:
        """Watch on, until `stop`."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(
                self._watch(), name="amplitude_async leases"
            )

    async def stop(self) -> None:
        """End the task."""
        task, self._task = self._task, None
        self._seen.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def abandon(self) -> None:
        """Forget the task of another process, or of a closed loop."""
        self._task = None
        self._seen.clear()

    async def _watch(self) -> None:
        subjects = [self._plan.lease_subjects]
        while True:
            # What was not seen has not stood still: a failed look only takes longer.
            with suppress(LogError):
                for found in await self._api.latest(self._plan.held, subjects):
                    self.note(found.subject, found.sequence)
            await asyncio.sleep(LOOK)


class PlaceLease:
    """The lease of one place, held or asked for by one holder.

    Args:
        api: reads and writes the record.
        stream: where the record is.
        subject: the record's.
        holder: who asks.
        length: seconds.
    """

    def __init__(
        self, api: Api, stream: str, subject: str, *, holder: str, length: float
    ) -> None:
        self._api = api
        self._stream = stream
        self._subject = subject
        self._holder = holder
        self._length = length
        self.token = secrets.token_hex(8)
        """What its record says while it is this holder's."""
        self.token_before = ""
        """What the record said before it was taken."""
        self._sequence = 0
        self._until = 0.0
        self.lost = False
        """True once it is known to be somebody else's."""

    def __repr__(self) -> str:
        state = "lost" if self.lost else f"record {self._sequence}"
        return f"<PlaceLease of {self._subject} for {self._holder}: {state}>"

    async def take(self, sentinel: Sentinel) -> bool:
        """Take the place where it is free, or its holder silent for its lease."""
        moment = asyncio.get_running_loop().time()
        found = await self._api.last(self._stream, self._subject)
        if found is not None:
            entry = Entry.read(found)
            still = sentinel.note(self._subject, found.sequence)
            others = entry.holder not in ("", self._holder)
            if others and still < entry.lease:
                return False
            self._sequence = found.sequence
            self.token_before = entry.token
        return await self._write(self._holder, moment)

    async def renew(self) -> bool:
        """Begin it anew; False where it is somebody else's."""
        if self.lost:
            return False
        moment = asyncio.get_running_loop().time()
        kept = await self._write(self._holder, moment)
        self.lost = not kept
        return kept

    async def free(self) -> None:
        """Give it back: whoever asks next has it."""
        if not self.lost:
            await self._write("", 0.0)
            self.lost = True

    @property
    def running(self) -> bool:
        """True while nobody else can have the place, whatever the log would say."""
        return not self.lost and asyncio.get_running_loop().time() < self._until

    async def valid(self) -> bool:
        """Tell whether the place is still this holder's; asks the log if in doubt."""
        return self.running or await self.confirmed()

    async def kept(self) -> bool:
        """Tell whether the place is still this holder's; asks the log if it answers.

        While the leader of leases is elected it does not, and the time of this one
        runs on: what is kept is read meanwhile.
        """
        try:
            return await self.confirmed(BRIEF)
        except LogError:
            if self.running:
                return True
            raise

    async def confirmed(self, limit: float = LIMIT) -> bool:
        """Ask the log whether the place is still this holder's."""
        if not self.lost:
            found = await self._api.last(self._stream, self._subject, limit=limit)
            self.lost = found is None or Entry.read(found).token != self.token
        return not self.lost

    async def _write(self, holder: str, moment: float) -> bool:
        body = Entry.write(holder, self._length, self.token)
        for _ in range(2):
            sequence = await self._api.put(self._subject, body, self._sequence)
            if sequence is not None:
                self._note(sequence, moment)
                return True
            found = await self._api.last(self._stream, self._subject)
            if found is None or Entry.read(found).token != self.token:
                return False
            if found.data == body:
                # The answer was lost, and the record was not.
                self._note(found.sequence, moment)
                return True
            # An earlier write of ours came late.
            self._sequence = found.sequence
        msg = f"{self._subject} could not be renewed: its leader is changing"
        raise LogError(msg)

    def _note(self, sequence: int, moment: float) -> None:
        self._sequence = sequence
        self._until = moment + self._length
