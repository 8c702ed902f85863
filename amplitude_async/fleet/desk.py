"""What one relay does for one destination: how many places it claims, and which."""

import asyncio
import math
import random
from typing import Final

from amplitude_async.client.base import BaseClient
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import within
from amplitude_async.exceptions import LogError
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.holding import Holding
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Log, Place
from amplitude_async.fleet.tenure import Tenure

__all__ = ["Desk"]

# An heir looks so often whether a place has become free, at the least.
LOOK_INTERVAL: Final = 0.5
LOOKS_IN_LEASE: Final = 4
PATIENCE: Final = 10.0
SICK_PATIENCE: Final = 1.0
# Who leaves is kept no longer by a log that does not answer.
LOG_PATIENCE: Final = 5.0
GOODBYE: Final = 1.0
# Requests that the destination does not answer end with this.
CUT_OFF: Final = 0.0
# A place with chunks that only a newer version can read is left to newer relays.
PUZZLED_PAUSE: Final = 60.0


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
        self._log = log
        self._holder = holder
        self._lease = lease
        self._clock = clock
        self._reporter = reporter
        self.client = client
        """What delivers."""
        self.feed = Feed(log, client.destination)
        """What the client delivers from."""
        self._held: dict[Place, tuple[Holding, asyncio.Task[None]]] = {}
        self._avoided: dict[Place, float] = {}
        self._partitions = 0
        self.answered_at = -math.inf
        """When the log answered last, on the clock that does not jump."""

    def __repr__(self) -> str:
        return f"<Desk of {self.client.destination}: {len(self._held)} places>"

    @property
    def places(self) -> list[Place]:
        """The places that it has for sure."""
        return [place for place, (one, _) in self._held.items() if one.tenure.valid]

    @property
    def interval(self) -> float:
        """Seconds between two looks at what is free."""
        return min(self._lease / LOOKS_IN_LEASE, LOOK_INTERVAL)

    async def run(self, partitions: int) -> None:
        """Look for places, until the task is cancelled."""
        self._partitions = partitions
        while True:
            try:
                await self._look()
            except (LogError, OSError, TimeoutError) as error:
                self._reporter.warning("log_claim", "%s", in_words(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours, logged
                self._reporter.error("relay", "claiming failed", traceback=error)
            await self._pause(self.interval)

    async def _look(self) -> None:
        # First of all: a place that has ended is waited for no longer, though the log
        # does not answer what is asked next.
        self._forget_ended()
        destination = self.client.destination
        saying = self._log.announce(destination, self._holder, self._lease)
        live = max(await within(PATIENCE, self._clock, saying), 1)
        self.answered_at = self._clock.now()
        share = math.ceil(self._partitions / live)
        if len(self._held) > share:
            self._leave_one()
        for place in self._free():
            if len(self._held) >= share:
                break
            await self._claim(place)
        self._tell_share()

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

    async def _claim(self, place: Place) -> None:
        lease = Lease(self._lease, self._clock)
        moment = lease.moment()
        claiming = self._log.claim(place, self._holder, self._lease)
        claim = await within(PATIENCE, self._clock, claiming)
        self.answered_at = self._clock.now()
        if claim is None:
            return
        lease.begin(moment)
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
            if holding.puzzled:
                self._avoided[place] = self._clock.now() + PUZZLED_PAUSE

    def _tell_share(self) -> None:
        if self._partitions:
            self.feed.host.share(len(self._held) / self._partitions)

    async def _pause(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        ended = [task for _, task in self._held.values()]
        waiting = asyncio.ensure_future(over.wait())
        try:
            # A place that ends is another's, or ours again, at once.
            await asyncio.wait([waiting, *ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()

    async def leave(self, patience: float) -> bool:
        """Give all places back: what was begun is finished first, if it can be.

        What the destination holds back longer than that is not waited for, and after
        that its requests are cut off: they may come twice then.

        Args:
            patience: seconds until what was begun is left undone too; less where the
                destination takes nothing anyway.

        Returns:
            False where the log did not hear of it all: then leases have to run out.
        """
        if self.client.health is not Health.HEALTHY:
            patience = min(patience, SICK_PATIENCE)
        tasks = {task for _, task in self._held.values()}
        kept = [holding for holding, task in self._held.values() if not task.done()]
        for holding, _ in self._held.values():
            holding.leave()
        late: set[asyncio.Task[None]] = set()
        if tasks and not await self._finish(tasks, patience):
            for holding, _ in self._held.values():
                holding.give_up()
            if self.client.stats.pending:
                await self.client.shutdown(CUT_OFF)
            _, late = await asyncio.wait(tasks, timeout=LOG_PATIENCE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.clear()
        goodbye = self._log.withdraw(self.client.destination, self._holder)
        try:
            await within(GOODBYE if late else LOG_PATIENCE, self._clock, goodbye)
        except (LogError, OSError, TimeoutError) as error:
            self._reporter.warning("log_withdraw", "%s", in_words(error))
            return False
        return all(holding.released for holding in kept)

    async def _finish(self, tasks: set[asyncio.Task[None]], patience: float) -> bool:
        """Wait until all places are given back, while the destination may still act."""
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        flushed = asyncio.ensure_future(self.client.flush(patience))
        try:
            await asyncio.wait({ended, flushed}, return_when=asyncio.FIRST_COMPLETED)
            return ended.done()
        finally:
            ended.cancel()
            flushed.cancel()
            await asyncio.gather(ended, flushed, return_exceptions=True)
