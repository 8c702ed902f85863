"""Shutdown while the server fails: all that can be delivered is, and it never hangs."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from amplitude_async import Amplitude, DeliveryResult, DropReason, Stats
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]
EVENTS = 10
# Nothing goes before the shutdown does.
BUFFERING: dict[str, Any] = {"flush_queue_size": 200, "flush_interval": 3600.0}
DEADLINE = 0.2
# Far more than a loaded machine adds to a deadline, far less than a hang.
AMPLE = 5.0


@pytest.fixture
async def buffered(connect: Connect) -> Callable[..., Any]:
    """Return a function that makes a client in which ten events wait."""

    async def make(**options: Any) -> Amplitude:
        client = connect(**{**BUFFERING, **options})
        await client.start()
        for number in range(EVENTS):
            await client.track("e", user_id=f"user-{number % 5}")
        return client

    return make


async def timed(client: Amplitude, timeout: float | None = DEADLINE) -> Stats:
    """Shut down, and fail where it takes much longer than allowed."""
    began = time.monotonic()
    stats = await client.shutdown(timeout)
    assert time.monotonic() - began < AMPLE
    return stats


@dataclass(frozen=True)
class Row:
    """A fault that a shutdown survives: everything is delivered."""

    faults: Iterable[Fault]
    requests: int
    options: Mapping[str, Any] = field(default_factory=dict)


SURVIVED = {
    "nothing": Row([], 1),
    "500 once": Row([Fault(500)], 2),
    "500 four times": Row([Fault(500, count=4)], 9),
    "429 bare once": Row([Fault(429, body="")], 3),
    "429 for a user": Row([Fault.throttle(["user-1"])], 3),
    "413 above three": Row([Fault.too_large(3)], 9),
    "400 bare once": Row([Fault(400, body={})], 3),
    "no answer once": Row(
        [Fault(500, delay=float("inf"))], 2, {"connection_timeout": 0.05}
    ),
    "closed once": Row([Fault(hang_up="after")], 2),
    # Waits that end after the deadline: everybody gets one request more, at the end.
    "a retry that is not due": Row(
        [Fault(500)], 3, {"retry_base_interval": 3600.0, "retry_max_interval": 3600.0}
    ),
    "a throttle that is not over": Row(
        [Fault.throttle(["user-1"])], 3, {"retry_throttled_interval": 3600.0}
    ),
    "a pause that is not over": Row(
        [Fault(429, body="")], 3, {"retry_throttled_interval": 3600.0}
    ),
    "a long Retry-After": Row([Fault(503, headers={"Retry-After": "300"})], 3),
}


@pytest.mark.parametrize("row", SURVIVED.values(), ids=SURVIVED.keys())
async def test_shutdown_delivers(
    row: Row, buffered: Callable[..., Any], emulator: Emulator
) -> None:
    """A server that can take the events before the deadline gets all of them."""
    emulator.faults.add(*row.faults)
    stats = await timed(await buffered(**row.options), 1.0)

    assert (stats.delivered, stats.dropped) == (EVENTS, 0)
    assert emulator.stats.events_ingested == EVENTS
    assert stats.requests <= row.requests


HOPELESS = {
    "500": Fault(500, count=None),
    "429 bare": Fault(429, body="", count=None),
    "429 bare, now": Fault(429, body="", headers={"Retry-After": "0"}, count=None),
    "429 for all": Fault.throttle([f"user-{n}" for n in range(5)], count=None),
    "closed": Fault(hang_up="before", count=None),
    "no answer": Fault(500, delay=float("inf"), count=None),
}


@pytest.mark.parametrize("fault", HOPELESS.values(), ids=HOPELESS.keys())
async def test_shutdown_against_a_hopeless_server(
    fault: Fault,
    buffered: Callable[..., Any],
    emulator: Emulator,
    results: list[DeliveryResult],
) -> None:
    """It ends by the deadline, each event is told of, and the requests are bounded."""
    emulator.faults.add(fault)
    stats = await timed(await buffered())

    assert (stats.delivered, stats.dropped, stats.pending) == (0, EVENTS, 0)
    assert {r.reason for r in results} <= {DropReason.SHUTDOWN, DropReason.RETRIES}
    assert len(results) == EVENTS
    # Back-offs of 1 to 4 ms in a fifth of a second, and one last round.
    assert stats.requests <= 220


async def test_shutdown_against_a_dead_server(
    buffered: Callable[..., Any], emulator: Emulator, results: list[DeliveryResult]
) -> None:
    """A server that is gone costs the deadline and no more."""
    await emulator.refuse()
    stats = await timed(await buffered())

    assert stats.dropped == len(results) == EVENTS


async def test_what_is_cut_off_in_flight_says_so(
    buffered: Callable[..., Any], emulator: Emulator, results: list[DeliveryResult]
) -> None:
    """Nobody knows whether the server took a request that was cut off."""
    emulator.faults.add(Fault(500, delay=float("inf"), count=None))
    await timed(await buffered())

    for result in results:
        assert result.message.startswith("not delivered before the shutdown deadline")
        assert result.message.endswith("in flight and may have been delivered")


@pytest.mark.parametrize("fault", [Fault.invalid_key(count=None), Fault(404)])
async def test_shutdown_against_a_refusal(
    fault: Fault, buffered: Callable[..., Any], emulator: Emulator
) -> None:
    """A refusal ends a drain at once: there is nothing to wait for."""
    emulator.faults.add(fault)
    stats = await timed(await buffered(), None)

    assert (stats.rejected, stats.requests) == (EVENTS, 1)


@pytest.mark.parametrize(
    "fault", [Fault(500, count=2), Fault(429, body=""), Fault.too_large(3)]
)
async def test_flush_retries(
    fault: Fault, buffered: Callable[..., Any], emulator: Emulator
) -> None:
    """An explicit flush is no last attempt: it retries like the timer does."""
    emulator.faults.add(fault)
    client = await buffered()
    stats = await client.flush(AMPLE)

    assert stats.delivered == emulator.stats.events_ingested == EVENTS


@pytest.mark.parametrize("fault", HOPELESS.values(), ids=HOPELESS.keys())
async def test_flush_never_hangs(
    fault: Fault, buffered: Callable[..., Any], emulator: Emulator
) -> None:
    """Flush returns at its deadline at the latest, with everything accounted for."""
    emulator.faults.add(fault)
    client = await buffered(flush_max_retries=1000)
    async with asyncio.timeout(AMPLE):
        stats = await client.flush(0.05)

    assert stats.balanced
    assert stats.delivered == 0


async def test_a_thousand_events_and_shutdown_at_once(
    connect: Connect, emulator: Emulator
) -> None:
    """A burst right before the end is delivered, a slow server or not."""
    emulator.faults.add(Fault(delay=0.02, count=None))
    client = connect(flush_queue_size=200)
    await client.start()
    for number in range(1000):
        client.track_nowait("e", user_id=f"user-{number}")
    stats = await timed(client, 5.0)

    assert stats.delivered == emulator.stats.events_ingested == 1000


async def test_a_second_shutdown_while_the_server_fails(
    buffered: Callable[..., Any], emulator: Emulator
) -> None:
    """Cancelling one who waits for the shutdown stops nothing; others still wait."""
    emulator.faults.add(Fault(500, count=2))
    client = await buffered()
    first = asyncio.create_task(client.shutdown(AMPLE))
    second = asyncio.create_task(client.shutdown(AMPLE))
    await asyncio.sleep(0)
    first.cancel()
    stats = await second

    assert (stats.delivered, stats.pending) == (EVENTS, 0)
    assert first.cancelled() or first.cancelling()
