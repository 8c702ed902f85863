"""Many threads, little room: nothing is lost, nobody is doubled, order stays."""

import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amplitude_async import DropReason, Overflow, QueueFullError
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.storage import SQLiteStorage
from amplitude_async.sync import SyncAmplitude
from tests.sync.conftest import HoldsUp

__all__: list[str] = []

Connect = Callable[..., SyncAmplitude]
STUCK = Fault(503, delay=float("inf"), count=None)


def in_threads(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Run a function in so many threads at once; returns what they returned."""
    gate = threading.Barrier(number)

    def begin(index: int) -> Any:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


@pytest.mark.parametrize(
    ("threads", "events", "capacity"),
    [
        (8, 200, 20_000),
        (8, 200, 100),
        pytest.param(16, 10_000, 5_000, marks=pytest.mark.long),
    ],
)
def test_a_crowd(
    threads: int,
    events: int,
    capacity: int,
    connect: Connect,
    server: Emulator,
    request: pytest.FixtureRequest,
) -> None:
    """With room or without: all arrive, in the order of each thread and user."""
    client = connect(max_storage_capacity=capacity, overflow_timeout=30.0)

    def track(index: int) -> None:
        for n in range(events):
            client.track("e", user_id=f"user-{index}", event_properties={"n": n})
            if n % 100 == 0:
                assert client.stats.balanced

    in_threads(threads, track)
    stats = client.flush(60)

    total = threads * events
    assert (stats.accepted, stats.delivered, stats.balanced) == (total, total, True)
    sent: dict[str, list[int]] = defaultdict(list)
    for event in server.events:
        sent[event["user_id"]].append(event["event_properties"]["n"])
    assert server.stats.duplicates == 0
    assert all(numbers == sorted(numbers) for numbers in sent.values())


def test_what_was_handed_over_is_pending(connect: Connect) -> None:
    """The account is right while the loop has not yet looked."""
    plugin = HoldsUp()
    client = connect(plugins=[plugin])
    client.track("held", user_id="user-1")
    assert plugin.held.wait(10)
    for _ in range(50):
        client.track("e", user_id="user-1")
    threading.Timer(0.02, plugin.go.set).start()
    stats = client.stats

    assert (stats.accepted, stats.balanced) == (51, True)
    assert client.flush().delivered == 51


def test_wait_blocks_the_caller_alone_and_not_for_long(
    connect: Connect, server: Emulator
) -> None:
    """Without room a call waits up to ``overflow_timeout``; then its event is shed."""
    server.faults.add(STUCK)
    client = connect(max_storage_capacity=10, overflow_timeout=0.05)
    other = connect(server_url=server.httpapi_url)
    for _ in range(10):
        client.track("e", user_id="user-1")

    shed = in_threads(4, lambda n: client.track("more", user_id=f"user-{n}"))

    assert {handle.result(1).reason for handle in shed} == {DropReason.OVERFLOW}
    assert other.track("e", user_id="user-1").done is False
    assert client.stats.accepted == 14


def test_room_lets_a_waiting_caller_in(connect: Connect, server: Emulator) -> None:
    """Who waits goes on as soon as others are delivered."""
    client = connect(max_storage_capacity=5, overflow_timeout=30.0)

    handles = [client.track("e", user_id="user-1") for _ in range(200)]

    assert all(handle.result(10).ok for handle in handles)


@pytest.mark.parametrize("policy", [Overflow.DROP_NEWEST, Overflow.DROP_OLDEST])
def test_a_policy_that_sheds_blocks_nobody(
    policy: Overflow, connect: Connect, server: Emulator
) -> None:
    """The newest or the oldest goes, as with the asyncio client."""
    server.faults.add(STUCK)
    client = connect(max_storage_capacity=10, overflow=policy, flush_interval=3600.0)
    client.track("first", user_id="user-0")

    for number in range(30):
        client.track("e", user_id=f"user-{number}")

    stats = client.stats
    assert (stats.accepted, stats.balanced, stats.pending) == (31, True, 10)
    assert stats.dropped_by_reason == {DropReason.OVERFLOW: 21}


def test_raise_raises_at_the_caller(connect: Connect, server: Emulator) -> None:
    """A full queue under RAISE accepts nothing and says so."""
    server.faults.add(STUCK)
    client = connect(max_storage_capacity=10, overflow=Overflow.RAISE)
    for _ in range(10):
        client.track("e", user_id="user-1")

    with pytest.raises(QueueFullError, match="the queue is full"):
        client.track("e", user_id="user-1")

    assert client.stats.accepted == 10


def test_what_raise_has_let_in_is_not_shed(connect: Connect, server: Emulator) -> None:
    """Threads that find the last places in one moment: a verb that returned holds."""
    server.faults.add(STUCK)
    client = connect(max_storage_capacity=500, overflow=Overflow.RAISE)

    def track(index: int) -> int:
        raised = 0
        for _ in range(200):
            try:
                client.track("e", user_id=f"user-{index}")
            except QueueFullError:
                raised += 1
        return raised

    raised = sum(in_threads(16, track))

    stats = client.stats
    assert (stats.accepted, stats.pending, raised) == (500, 500, 2_700)
    assert stats.dropped_by_reason == {}


def test_bytes_are_bounded_as_well(connect: Connect, server: Emulator) -> None:
    """Large events do not slip past the count."""
    server.faults.add(STUCK)
    client = connect(max_storage_bytes=1_000_000, overflow=Overflow.DROP_NEWEST)
    large = {"text": "x" * 100_000}

    for _ in range(30):
        client.track("e", user_id="user-1", event_properties=large)

    assert client.stats.queue_bytes <= 1_000_000
    assert client.stats.dropped_by_reason[DropReason.OVERFLOW] >= 20


def test_an_interrupted_wait_accepts_nothing(
    connect: Connect, server: Emulator
) -> None:
    """Ctrl-C in a call that waits for room takes its event back."""
    server.faults.add(STUCK)
    client = connect(max_storage_capacity=1, overflow_timeout=30.0)
    client.track("e", user_id="user-1")
    here = threading.get_ident()
    threading.Timer(0.05, lambda: signal.pthread_kill(here, signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        client.track("more", user_id="user-1")

    assert (client.stats.accepted, client.stats.pending) == (1, 1)


def test_strict_raises_at_the_caller(connect: Connect) -> None:
    """Bad values raise there, and so does a verb after the end."""
    client = connect(strict=True)
    with pytest.raises(ValueError, match="user_id"):
        client.track("e", user_id="42")
    with pytest.raises(ValueError, match="time"):
        client.track("e", user_id="user-1", time="soon")  # type: ignore[arg-type]
    assert client.track("e", user_id="user-1").result(10).ok
    client.shutdown()

    with pytest.raises(Exception, match="shut down"):
        client.track("e", user_id="user-1")


def test_a_durable_storage_has_the_event_when_track_returns(
    connect: Connect, server: Emulator, tmp_path: Any
) -> None:
    """The caller waits for the append: what was tracked survives the process."""
    client = connect(storage=SQLiteStorage(tmp_path), flush_interval=3600.0)
    client.track("first", user_id="user-1").result(10)

    in_threads(8, lambda n: client.track("e", user_id=f"user-{n}"))

    stats = client.stats
    assert (stats.durable, stats.pending, stats.spool_bytes > 0) == (True, 8, True)
    assert client.flush().delivered == 9


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_a_signal_handler_tracks(run: Callable[..., Any], server: Emulator) -> None:
    """It may interrupt any step of a verb, the first one's too: nothing hangs."""
    ended = run(
        """
        import signal, time
        from amplitude_async.sync import SyncAmplitude
        client, calls = SyncAmplitude.from_env(), 0

        def handle(*_):
            global calls
            calls += 1
            client.track("handler", user_id="user-1")

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(3_000):
            client.track("main", user_id="user-2")
        signal.setitimer(signal.ITIMER_REAL, 0)
        stats = client.shutdown(30)
        print(stats.balanced, stats.delivered == 3_000 + calls, calls > 0)
        """
    )

    assert ended.stdout == "True True True\n", ended.stderr
