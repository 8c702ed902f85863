"""Ten minutes of outage under load, in virtual time: memory is flat.

A quarter of the size of `benchmarks/soak.py`: 500 events a second, room for 5,000.
"""

import gc
import json
import sys

from amplitude_async import Config
from amplitude_async.delivery.endpoint import Response
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of

__all__: list[str] = []

PER_SECOND = 500
MINUTES = 10
CAPACITY = 5_000
WELL = Response(200)


class Outage(ScriptedTransport):
    """A network that forgets its requests: here only ours may be remembered."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(then=self.answer, clock=clock)
        self.well = False
        self.taken = 0

    def answer(self, body: bytes) -> Response:
        """Fail, until all is well."""
        self.requests.clear()
        if not self.well:
            return Response(503)
        self.taken += len(json.loads(body)["events"])
        return WELL


def objects() -> tuple[int, int]:
    """Count the objects the collector knows, and the blocks of memory in use."""
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()


async def test_memory_is_flat_in_a_long_outage() -> None:
    """However long the server is gone: bounded by count and bytes, nothing piles up."""
    clock = FakeClock()
    network = Outage(clock)
    config = Config(
        api_key="key",
        server_url="http://server.invalid/",
        max_storage_capacity=CAPACITY,
    )
    engine = engine_of(config, network, clock)
    await engine.start()
    number = 0
    found = []
    for _ in range(MINUTES):
        for _ in range(60):
            for _ in range(PER_SECOND):
                number += 1
                user = f"user-{number % 997}"
                body = b'{"user_id":"user-%d","n":%d}' % (number % 997, number)
                await engine.intake.accept(
                    Record(0, body, user, user, None, str(number), clock.wall())
                )
            await clock.advance(1.0)
        stats = engine.stats
        assert stats.balanced
        assert stats.pending <= CAPACITY
        assert stats.queue_bytes <= config.max_storage_bytes
        found.append(objects())

    (known, blocks), *later = found
    assert max(k for k, _ in later) <= known * 1.05
    assert max(b for _, b in later) <= blocks * 1.05

    network.well = True
    await clock.advance(120.0)
    stats = engine.stats
    assert (stats.pending, stats.queue_bytes) == (0, 0)
    assert stats.accepted == number == PER_SECOND * 60 * MINUTES
    assert stats.delivered == network.taken > CAPACITY * 0.9
    assert stats.balanced
    await engine.shutdown(0.0)
