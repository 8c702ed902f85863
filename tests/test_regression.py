"""What an event costs, in quantities that no busy machine changes.

The figures of the benchmark depend on the machine and the hour. Calls, kept bytes and
objects do not, so that a change that makes every event dearer fails here. Where a
dearer event is worth it, raise the bound and say why in the change.
"""

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

import amplitude_async
from amplitude_async import Amplitude, Event, bound
from amplitude_async.delivery.handle import Ledger
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.transport import Transport
from amplitude_async.testing.transport import ScriptedTransport

__all__: list[str] = []

# Counted is what a service does, where no guard of a test is asked.
pytestmark = pytest.mark.amplitude(live=True)

PACKAGE = str(Path(amplitude_async.__file__).parent)
TESTING = str(Path(PACKAGE) / "testing")

# Python functions of ours that run for one event, with room for one or two more.
MOST_CALLS_PER_TRACK = 20
MOST_CALLS_PER_DELIVERY = 6
MOST_OBJECTS_PER_WAITING_EVENT = 1.1
MOST_BYTES_PER_PAGE = 2_600

WARM_UP = 600


class Offline(Amplitude):
    """A client whose requests all succeed at once, without a socket."""

    network: ScriptedTransport

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        self.network = ScriptedTransport()
        return self.network


@pytest.fixture
async def client() -> AsyncIterator[Offline]:
    """Yield a started client that has sent a few batches already."""
    async with Offline("key", max_storage_capacity=10_000) as client:
        for number in range(WARM_UP):
            await client.track("Warm Up", **fields(number))
        await client.flush()
        yield client


def fields(number: int) -> dict[str, Any]:
    """Make the fields of one event, with a property of each simple kind."""
    properties = {
        "sequence": f"number {number:08d}",
        "quantity": number % 7,
        "price": 12.5,
        "member": number % 2 == 0,
        "tags": ["spring", "sale"],
    }
    return {"user_id": f"user-{number % 50:06d}", "event_properties": properties}


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of our own Python functions, by name."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, kind: str, _argument: object) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(PACKAGE)
        if kind == "call" and ours and not code.co_filename.startswith(TESTING):
            calls[f"{Path(code.co_filename).name}:{code.co_qualname}"] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def per_event(calls: Counter[str], events: int) -> tuple[float, str]:
    """Give the calls per event and the most frequent of them, for the failure."""
    listed = ", ".join(f"{name} {n / events:.1f}" for name, n in calls.most_common(20))
    return calls.total() / events, listed


async def test_track_runs_few_functions(client: Offline) -> None:
    """Tracking by name runs a bounded number of our functions per event."""
    made = [fields(number) for number in range(100)]
    with counted_calls() as calls:
        for each in made:
            await client.track("Checkout Completed", **each)
    cost, listed = per_event(calls, len(made))
    assert cost <= MOST_CALLS_PER_TRACK, listed


async def test_tracking_by_name_is_no_dearer_than_by_event(client: Offline) -> None:
    """The short form runs no more of our functions than the constructed event."""
    with counted_calls() as by_name:
        for number in range(50):
            await client.track("Checkout Completed", **fields(number))
    with counted_calls() as by_event:
        for number in range(50):
            event = Event(event_type="Checkout Completed", **fields(number))
            await client.track(event)
    assert by_name.total() <= by_event.total()


async def test_bound_fields_add_two_calls(client: Offline) -> None:
    """One asks what is bound, one lays the call's fields over it."""
    costs = []
    request = bound(ip="10.0.0.1", event_properties={"path": "/orders"})
    for scope in (nullcontext(), request):
        with scope, counted_calls() as calls:
            for number in range(100):
                await client.track("Checkout Completed", **fields(number))
        costs.append(calls.total())
    assert costs[1] <= costs[0] + 200


async def test_delivery_runs_few_functions_per_event(client: Offline) -> None:
    """Batching, sending and settling cost a bounded number of calls per event."""
    for number in range(4_000):
        await client.track("Checkout Completed", **fields(number))
    waiting = client.stats.pending
    with counted_calls() as calls:
        await client.flush()
    assert client.stats.pending == 0
    cost, listed = per_event(calls, waiting)
    assert cost <= MOST_CALLS_PER_DELIVERY, listed


async def test_a_waiting_event_weighs_little(client: Offline) -> None:
    """An event in the queue keeps at most twice its JSON and 200 bytes."""
    client.network.hang()
    events = 2_000
    gc.collect()
    tracemalloc.start()
    try:
        size = client.stats.queue_bytes
        before = tracemalloc.get_traced_memory()[0]
        for number in range(events):
            await client.track("Checkout Completed", **fields(number))
        gc.collect()
        kept = (tracemalloc.get_traced_memory()[0] - before) / events
        size = client.stats.queue_bytes - size
    finally:
        tracemalloc.stop()
        client.network.release()
    json_size = size / events
    assert kept <= 2 * json_size + 200, f"{kept:.0f} B for {json_size:.0f} B of JSON"


def test_a_page_of_which_one_event_waits_is_small() -> None:
    """However many were decided beside it: each of 20,000 may be on one of its own."""
    ledger, pages, outcome = Ledger(), 50, Outcome.rejected("bad")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(pages * 256):
            ledger.enter(number, float(number))
        for number in range(pages * 256):
            if number % 256:
                ledger.settle(number, outcome)
        kept = (tracemalloc.get_traced_memory()[0] - before) / pages
    finally:
        tracemalloc.stop()
    assert ledger.undecided == pages
    assert kept <= MOST_BYTES_PER_PAGE, f"{kept:.0f} B"


async def test_a_waiting_event_adds_little_to_collect(client: Offline) -> None:
    """The garbage collector of a host finds next to nothing of ours to traverse."""
    client.network.hang()
    events = 2_000
    gc.collect()
    before = len(gc.get_objects())
    for number in range(events):
        await client.track("Checkout Completed", **fields(number))
    gc.collect()
    added = (len(gc.get_objects()) - before) / events
    client.network.release()
    assert added <= MOST_OBJECTS_PER_WAITING_EVENT


async def test_a_snapshot_costs_the_same_however_much_waits(client: Offline) -> None:
    """Metrics and probes read the account again and again, and at the worst time."""
    client.network.hang()
    costs = []
    for events in (300, 8_000):
        for number in range(events):
            await client.track("Checkout Completed", **fields(number))
        with counted_calls() as calls:
            assert client.stats.oldest_age is not None
        costs.append(calls.total())
    client.network.release()
    assert costs[1] <= costs[0] <= 60
