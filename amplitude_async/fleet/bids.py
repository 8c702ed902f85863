"""What one relay says to a log about the places of one destination."""

import math
from typing import Final

from amplitude_async.delivery.clock import Clock
from amplitude_async.fleet.asking import asked
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Claim, Log, Place

__all__ = ["Bids"]

PATIENCE: Final = 10.0


class Bids:
    """Says that a relay lives, and claims places for it.

    Args:
        log: has the places.
        destination: whose places they are.
        holder: names the relay.
        lease: seconds until others may claim what a dead relay had.
    """

    def __init__(
        self, log: Log, destination: str, *, holder: str, lease: float, clock: Clock
    ) -> None:
        self.lease = lease
        """Seconds that a claim lasts without a word."""
        self.answered_at = -math.inf
        """When the log answered last, on the clock that does not jump."""
        self._log = log
        self._destination = destination
        self._holder = holder
        self._clock = clock
        self._unanswered: dict[Place, float] = {}

    def __repr__(self) -> str:
        return f"<Bids of {self._holder} for {self._destination}>"

    @property
    def in_doubt(self) -> bool:
        """True while we may have a place without knowing: nobody answered the claim."""
        now = self._clock.now()
        return any(until > now for until in self._unanswered.values())

    async def count(self) -> int:
        """Say that the relay lives; returns how many of its destination do.

        Raises:
            LogError: the log does not answer; or any other of ``NO_ANSWER``.
        """
        saying = self._log.announce(self._destination, self._holder, self.lease)
        living = await asked(PATIENCE, self._clock, saying)
        self.answered_at = self._clock.now()
        return max(living, 1)

    async def claim(self, place: Place) -> tuple[Claim, Lease] | None:
        """Claim a place; None where another has it.

        Raises:
            LogError: the log does not answer; or any other of ``NO_ANSWER``.
        """
        lease = Lease(self.lease, self._clock)
        moment = lease.moment()
        # Who is cancelled in between may have it, for as long as a lease lasts.
        self._unanswered[place] = self._clock.now() + PATIENCE + self.lease
        claiming = self._log.claim(place, self._holder, self.lease)
        claim = await asked(PATIENCE, self._clock, claiming)
        del self._unanswered[place]
        self.answered_at = self._clock.now()
        if claim is None:
            return None
        lease.begin(moment)
        return claim, lease

    async def withdraw(self, patience: float) -> None:
        """Say that the relay lives no longer.

        Raises:
            LogError: the log does not answer; or any other of ``NO_ANSWER``.
        """
        goodbye = self._log.withdraw(self._destination, self._holder)
        await asked(patience, self._clock, goodbye)
