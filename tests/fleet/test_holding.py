"""One claim in virtual time: what is noted for the next holder comes last."""

import asyncio
import logging

from amplitude_async.delivery.reporting import Reporter
from amplitude_async.fleet.codec import encode
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.holding import Holding
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Claim, StoredChunk
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.fleet.tenure import Tenure
from amplitude_async.redaction import Redactor
from amplitude_async.testing import FakeClock
from amplitude_async.testing.log_contract import PLACE
from tests.fleet.scene import make_record
from tests.fleet.test_feed import Engine

__all__: list[str] = []

LEASE = 9.0


class MuteClaim(Claim):
    """A claim that answers everything but what is noted."""

    place = PLACE

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.chunks = [StoredChunk(1, "c.1", encode([make_record(1)] * 2), 1e12)]
        self.renewed: list[float] = []
        self.released: list[float] = []
        self.noting = 0

    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read all at once."""
        del max_bytes
        chunks, self.chunks = self.chunks, []
        return chunks

    async def wait(self, timeout: float) -> None:
        """Wait for nothing."""
        del timeout
        await asyncio.Event().wait()

    async def acknowledge(self, positions: object) -> None:
        """Forget chunks."""

    async def renew(self) -> bool:
        """Note when."""
        self.renewed.append(self.clock.now())
        return True

    async def note_progress(self, data: bytes) -> None:
        """Give no answer."""
        del data
        self.noting += 1
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Note when."""
        self.released.append(self.clock.now())


async def test_a_note_without_an_answer_delays_no_renewal_and_no_release() -> None:
    """A third of the lease from one to the next, as if nothing were noted."""
    clock = FakeClock()
    feed = Feed(MemoryLog(), "amplitude")
    feed.listen(Engine())
    lease = Lease(LEASE, clock)
    lease.begin(lease.moment())
    claim, tenure = MuteClaim(clock), Tenure(PLACE, lease)
    reporter = Reporter(logging.getLogger("test"), clock, "relay", Redactor())
    holding = Holding(claim, tenure, lease, feed=feed, clock=clock, reporter=reporter)
    task = asyncio.create_task(holding.run())
    await clock.advance(0.1)
    one, two = await feed.fetch(0, 10, 10**9)
    await feed.settle([one.id])
    await clock.advance(4 * LEASE / 3)
    assert claim.noting >= 2
    assert claim.renewed == [LEASE / 3 * (n + 1) for n in range(4)]
    began = clock.now()
    holding.leave()
    holding.give_up()
    feed.take_back([two.id])
    await clock.advance(3.0)
    assert holding.released
    assert claim.released[0] - began <= 2.0
    await task
