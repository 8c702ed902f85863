"""What the engine gained for a fleet: who carries, how it ends, what is let go."""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest

from amplitude_async import Answered, Config, DeliveryStatus, Observer
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.courier import LogCourier
from amplitude_async.delivery.deciding.health import TokenBucket
from amplitude_async.delivery.endpoint import Accept, Busy, Halve, Refuse, Response
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.log_endpoint import LogEndpoint
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.parts import Site
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.stats import Counters
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.handover import LogHandover
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.fleet.tenure import Tenure
from amplitude_async.redaction import Redactor
from amplitude_async.testing import FakeClock, ScriptedTransport
from amplitude_async.testing.log_contract import PLACE
from tests.fleet.scene import KEY, MoodyLog, chunk_of, make_record

__all__: list[str] = []

LOGGER = logging.getLogger("amplitude_async")


# The log in the place of a server --------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Accept), (413, Halve), (403, Refuse), (507, Busy), (0, Busy)],
)
def test_no_word_of_a_log_is_a_verdict_on_an_event(status: int, verdict: type) -> None:
    """An outage of any length costs an event nothing but time."""
    vendor = AmplitudeEndpoint(Config(api_key=KEY))
    endpoint = LogEndpoint(vendor, LogHandover(MemoryLog(), "amplitude"))
    error = None if status == 200 else "the log: words"
    told = endpoint.interpret(Response(status, error=error), [make_record(1)], 0.0)
    assert type(told) is verdict
    if isinstance(told, Accept):
        assert told.status is DeliveryStatus.HANDED_OVER
    assert KEY not in repr(endpoint) + endpoint.fingerprint()


async def test_handing_over_counts_and_is_heard_as_a_request_is() -> None:
    """Counters and observers see the log as they see a server."""
    heard: list[Answered] = []
    observers = Observers(Reporter(LOGGER, FakeClock(), "amplitude", Redactor()))

    class Listener(Observer):
        def answered(self, answered: Answered) -> None:
            heard.append(answered)

    observers.add(Listener())
    counters = Counters()
    log = MoodyLog(["ok", "full", "gone"])
    courier = LogCourier(
        LogHandover(log, "amplitude"),
        observers=observers,
        clock=FakeClock(),
        counters=counters,
    )
    records = [make_record(1), make_record(2)]
    size = sum(len(record.body) for record in records)
    for number in range(3):
        again = [record._replace(id=record.id + 10 * number) for record in records]
        _, told = await courier.carry(again)
        assert told == size
    assert (counters.requests, counters.bytes_sent) == (3, 3 * size)
    assert [one.status for one in heard] == [200, 0, 0]


# A storage that is pushed to -------------------------------------------------


class Scene:
    """An engine that a feed fills, in virtual time."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        self.clock = FakeClock()
        self.network = ScriptedTransport(answers, clock=self.clock)
        config = Config(api_key=KEY, **options)
        site = Site.make(
            AmplitudeEndpoint(config),
            config,
            transport=self.network,
            clock=self.clock,
            rng=random.Random(1),
            max_age=config.max_event_age,
            client_id=1,
        )
        self.feed = Feed(MemoryLog(), "amplitude")
        self.engine = Engine(site, self.feed)
        self.tenure = self._claim()
        self._pushed = 0

    def _claim(self) -> Tenure:
        lease = Lease(10.0, self.clock)
        lease.begin(lease.moment())
        tenure = Tenure(PLACE, lease)
        self.feed.begin(tenure)
        return tenure

    async def push(self, *numbers: int) -> None:
        """Let a chunk come."""
        wall = self.clock.wall()
        records = [
            make_record(n, f"user-{n}")._replace(accepted_at=wall) for n in numbers
        ]
        log = MemoryLog(clock=self.clock)
        await log.open()
        await log.publish(chunk_of(PLACE, "c", *records))
        claim = await log.claim(PLACE, "me", 10.0)
        assert claim is not None
        [stored] = await claim.read(10**9)
        self._pushed += 1
        self.feed.push(self.tenure, stored._replace(position=self._pushed))
        self.tenure.note_idle(idle=True)
        self.feed.host.look_again()

    @property
    def sent(self) -> Sequence[int]:
        """The numbers of the events that were sent."""
        return [event["n"] for event in self.network.events]

    async def end(self) -> None:
        """Shut down."""
        self.network.release()
        stats = await self.engine.shutdown(0.0)
        assert stats.balanced, stats


async def test_what_is_pushed_is_recovered_and_delivered() -> None:
    """The law holds with it, and the chunk is owed to the log."""
    scene = Scene()
    await scene.engine.start()
    await scene.push(1, 2, 3)
    await scene.clock.advance(1.0)
    stats = scene.engine.stats
    assert sorted(scene.sent) == [1, 2, 3]
    assert (stats.recovered, stats.delivered, stats.pending) == (3, 3, 0)
    assert scene.tenure.debts == ([1], [])
    await scene.end()


async def test_what_is_recalled_has_no_outcome() -> None:
    """In flight goes on to its end; what waits is given back, and counted."""
    told: list[Any] = []
    scene = Scene(max_in_flight=1, callback=told.append)
    await scene.engine.start()
    scene.network.hang()
    await scene.push(1)
    await scene.clock.advance(0.1)
    await scene.push(2, 3)
    await scene.clock.advance(0.1)
    scene.tenure.lose()
    scene.feed.host.look_again()
    await scene.clock.advance(0.1)
    stats = scene.engine.stats
    assert (stats.recovered, stats.given_back, stats.pending) == (3, 2, 1)
    assert stats.balanced
    scene.network.release()
    await scene.clock.advance(5.0)
    stats = scene.engine.stats
    assert (stats.delivered, stats.given_back, stats.pending) == (1, 2, 0)
    assert list(scene.sent) == [1]
    assert len(told) == 1
    await scene.end()


async def test_a_claim_is_asked_for_before_each_request() -> None:
    """A retry is a request as well: the lease ran out while the server was away."""
    scene = Scene(Response(503), retry_base_interval=30.0, retry_max_interval=30.0)
    await scene.engine.start()
    await scene.push(1)
    await scene.clock.advance(60.0)
    assert list(scene.sent) == [1]
    assert scene.engine.stats.given_back == 1
    await scene.end()


async def test_a_flush_is_answered_though_its_events_are_given_back() -> None:
    """Who waits for outcomes waits for no event that is another's."""
    scene = Scene(max_in_flight=1)
    await scene.engine.start()
    scene.network.hang()
    await scene.push(1)
    await scene.clock.advance(0.1)
    await scene.push(2)
    flush = scene.engine.flush(600.0)
    task = asyncio.create_task(flush)
    await scene.clock.advance(0.1)
    scene.tenure.lose()
    scene.feed.host.look_again()
    scene.network.release()
    await scene.clock.advance(5.0)
    assert task.done()
    await scene.end()


# A rate that is shared -------------------------------------------------------


def test_a_bucket_keeps_to_its_part() -> None:
    """Of the rate and of the burst; the whole comes back."""
    bucket = TokenBucket(100.0)
    assert bucket.available(0.0) == 100.0
    bucket.share(0.25, 0.0)
    assert bucket.available(0.0) == 25.0
    bucket.spend(25)
    assert bucket.available(0.5) == pytest.approx(12.5)
    bucket.share(1.0, 0.5)
    assert bucket.available(1.0) == pytest.approx(62.5)
    assert bucket.available(100.0) == 100.0


def test_a_bucket_of_nobody_goes_on_slowly_and_for_ever() -> None:
    """A relay without a place has no part, and never waits for infinity."""
    bucket = TokenBucket(100.0)
    bucket.share(0.0, 0.0)
    bucket.spend(5)
    assert 0.0 < bucket.next_at(0.0) < float("inf")
    bucket.share(0.5, 0.0)
    assert bucket.available(100.0) == 50.0


def test_a_bucket_without_a_rate_has_nothing_to_share() -> None:
    """No limit is no limit."""
    bucket = TokenBucket(None)
    bucket.share(0.1, 0.0)
    assert bucket.available(0.0) == float("inf")
