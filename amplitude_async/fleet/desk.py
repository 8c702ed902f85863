"""What one relay does for one destination: how many places it claims, and which."""

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Final

from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import pause
from amplitude_async.fleet.asking import NO_ANSWER
from amplitude_async.fleet.bids import Bids
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.holding import Holding
from amplitude_async.fleet.log import Log, Place
from amplitude_async.fleet.tenure import Tenure

__all__ = ["Desk"]

# An heir looks so often whether a place has become free, at the least.
LOOK_INTERVAL: Final = 0.5
LOOKS_IN_LEASE: Final = 4
# Hundreds of places, one after the other, would take longer than an heir may.
CLAIMS_AT_ONCE: Final = 16
# A destination that takes nothing for so long, or has us wait longer, holds it up.
MOMENT: Final = 1.0
# Who leaves is kept no longer by a log that does not answer.
LOG_PATIENCE: Final = 5.0
GOODBYE: Final = 1.0
SLACK: Final = 0.01
# Requests that the destination does not answer end with this.
CUT_OFF: Final = 0.0
# A place with chunks that only a newer version can read is left to newer relays.
PUZZLED_PAUSE: Final = 60.0
# After a fault of ours nothing is tried again and again without a pause.
FAULT_PAUSE: Final = 1.0


class Desk:
    """The claims of one relay on the places of one destination.

    Args:
        log: has the places.
        client: delivers.
        holder: names the relay.
        lease: seconds until others may claim what a dead relay had.
    """

    def __init__(
        self,
        log: Log,
        client: BaseClient,
        *,
        holder: str,
        lease: float,
        clock: Clock,
        reporter: Reporter,
    ) -> None:
        self._clock = clock
        self._reporter = reporter
        self.client = client
        """What delivers."""
        self.feed = Feed(log, client.destination)
        """What the client delivers from."""
        self._bids = Bids(
            log, client.destination, holder=holder, lease=lease, clock=clock
        )
        self._held: dict[Place, tuple[Holding, asyncio.Task[None]]] = {}
        self._avoided: dict[Place, float] = {}
        self._partitions = 0
        self._ending = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Desk of {self.client.destination}: {len(self._held)} places>"

    @property
    def places(self) -> list[Place]:
        """The places that it has for sure."""
        return [place for place, (one, _) in self._held.items() if one.tenure.valid]

    @property
    def answered_at(self) -> float:
        """When the log answered last, on the clock that does not jump."""
        return self._bids.answered_at

    @property
    def interval(self) -> float:
        """Seconds between two looks at what is free."""
        return min(self._bids.lease / LOOKS_IN_LEASE, LOOK_INTERVAL)

    async def run(self, partitions: int) -> None:
        """Look for places until ``look_no_more`` is called, or it is cancelled."""
        self._partitions = partitions
        while not self._ending.is_set():
            try:
                await self._look()
            except NO_ANSWER as error:
                self._reporter.warning("log_claim", "%s", in_words(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours, logged
                self._reporter.error("relay", "claiming failed", traceback=error)
            await self._pause(self.interval)

    def look_no_more(self) -> None:
        """Let ``run`` end, as soon as what it has asked is answered."""
        self._ending.set()

    async def _look(self) -> None:
        # First of all: a place that has ended is waited for no longer, though the log
        # does not answer what is asked next.
        self._forget_ended()
        self._tell_share()
        share = math.ceil(self._partitions / await self._bids.count())
        if len(self._held) > share:
            self._leave_one()
        free = self._free()
        while free and len(self._held) < share and not self._ending.is_set():
            some = min(share - len(self._held), CLAIMS_AT_ONCE)
            await self._claim_all(free[:some])
            del free[:some]

    def _free(self) -> list[Place]:
        destination, now = self.client.destination, self._clock.now()
        places = [Place(destination, n) for n in range(self._partitions)]
        free = [
            place
            for place in places
            if place not in self._held and self._avoided.get(place, now) <= now
        ]
        random.shuffle(free)  # not all relays ask for the same one first
        return free

    async def _claim_all(self, places: Sequence[Place]) -> None:
        """Claim places; one that cannot be claimed keeps none of the others waiting."""
        claiming = [self._claim(place) for place in places]
        results = await asyncio.gather(*claiming, return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _claim(self, place: Place) -> None:
        found = await self._bids.claim(place)
        if found is None:
            return
        claim, lease = found
        holding = Holding(
            claim,
            Tenure(place, lease),
            lease,
            feed=self.feed,
            clock=self._clock,
            reporter=self._reporter,
        )
        task = asyncio.create_task(holding.run(), name=f"amplitude_async {place}")
        self._held[place] = holding, task
        # At once: the next claim may take long, or fail.
        self._tell_share()

    def _leave_one(self) -> None:
        """Let one place go to a relay that has fewer; one at a time."""
        holdings = [holding for holding, _ in self._held.values()]
        if not any(holding.tenure.leaving for holding in holdings):
            holdings[-1].leave()

    def _forget_ended(self) -> None:
        for place, (holding, task) in list(self._held.items()):
            if not task.done():
                continue
            del self._held[place]
            if holding.puzzled or holding.failed:
                seconds = PUZZLED_PAUSE if holding.puzzled else FAULT_PAUSE
                self._avoided[place] = self._clock.now() + seconds

    def _tell_share(self) -> None:
        if self._partitions:
            self.feed.host.share(len(self._held) / self._partitions)

    async def _pause(self, seconds: float) -> None:
        # A place that ends is another's, or ours again, at once.
        ended = [task for _, task in self._held.values()]
        await pause(seconds, self._clock, events=[self._ending], tasks=ended)

    async def leave(self, patience: float) -> bool:
        """Give all places back: what was begun is finished first, if it can be.

        What the destination does not take within a moment is not waited for, but for
        requests under way. At the end of patience those are cut off: they may come
        twice then.

        Returns:
            False where the log did not hear of it all: then leases have to run out.
        """
        deadline = self._clock.now() + patience
        tasks = {task for _, task in self._held.values()}
        kept = [holding for holding, task in self._held.values() if not task.done()]
        for holding in kept:
            holding.leave()
        late: set[asyncio.Task[None]] = set()
        if tasks and not await self._finish(tasks, deadline):
            for holding in kept:
                holding.give_up()
            await self._flush(tasks, deadline - self._clock.now())
            if self.client.stats.pending:
                await self.client.shutdown(CUT_OFF)
            _, late = await asyncio.wait(tasks, timeout=LOG_PATIENCE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.clear()
        try:
            await self._bids.withdraw(GOODBYE if late else LOG_PATIENCE)
        except NO_ANSWER as error:
            self._reporter.warning("log_withdraw", "%s", in_words(error))
            return False
        return all(holding.released for holding in kept) and not self._bids.in_doubt

    async def _finish(self, tasks: set[asyncio.Task[None]], deadline: float) -> bool:
        """Wait until all places are given back, while the destination takes things."""
        while (left := deadline - self._clock.now()) > 0:
            moment = min(left, MOMENT)
            over = self._clock.now() + moment
            if await self._flush(tasks, moment):
                return True
            # Before its time where nothing is left, or where it has to wait for longer.
            early = self._clock.now() < over - SLACK
            if early or self.client.health is not Health.HEALTHY:
                break
        return False

    async def _flush(self, tasks: set[asyncio.Task[None]], seconds: float) -> bool:
        """Wait for the destination; True once all places are given back."""
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        flushed = asyncio.ensure_future(self.client.flush(max(seconds, 0.0)))
        try:
            await asyncio.wait({ended, flushed}, return_when=asyncio.FIRST_COMPLETED)
            return ended.done()
        finally:
            ended.cancel()
            flushed.cancel()
            await asyncio.gather(ended, flushed, return_exceptions=True)
