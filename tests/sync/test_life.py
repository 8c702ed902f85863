"""From the first verb to the last: start, shutdown, and what forgets it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from amplitude_async import (
    Answered,
    ClientClosedError,
    DropReason,
    Event,
    Health,
    Observer,
)
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.sync import SyncAmplitude
from tests.sync.conftest import HoldsUp

__all__: list[str] = []

Connect = Callable[..., SyncAmplitude]


def loop_threads() -> int:
    """Count the threads of ours."""
    return sum(t.name.startswith("amplitude_async") for t in threading.enumerate())


def test_a_constructor_starts_no_thread(run: Callable[..., object]) -> None:
    """A module may make its client at import, in a process that forks later."""
    ended = run(
        """
        import threading
        from amplitude_async.sync import SyncAmplitude, SyncMParticle
        client = SyncAmplitude("key")
        other = SyncMParticle("key", "secret")
        print(threading.active_count(), client.stats.accepted, client)
        """
    )

    assert getattr(ended, "stdout", "").startswith("1 0 <SyncAmplitude of"), ended


def test_a_block_starts_and_shuts_down(connect: Connect, server: Emulator) -> None:
    """``with`` loses nothing, and ends the client for good."""
    with connect() as client:
        client.track("e", user_id="user-1")

    assert len(server.events) == 1
    late = client.track("late", user_id="user-1")
    assert late.result(1).reason is DropReason.CLOSED
    with pytest.raises(ClientClosedError):
        client.start()
    with pytest.raises(ClientClosedError):
        client.add(lambda event: event)
    assert client.flush().balanced


def test_shutdown_from_several_threads(connect: Connect, server: Emulator) -> None:
    """The first begins, the others join."""
    client = connect()
    for _ in range(100):
        client.track("e", user_id="user-1")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.shutdown(), range(8)))

    assert {stats.delivered for stats in found} == {100}
    assert len(server.events) == 100


def test_threads_that_track_through_a_shutdown(
    connect: Connect, server: Emulator
) -> None:
    """Each event is delivered, or closed: the account adds up."""
    client, end = connect(), threading.Event()

    def work(_: int) -> int:
        number = 0
        while not end.wait(0.0001):
            client.track("e", user_id="user-1")
            number += 1
        return number

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(work, n) for n in range(4)]
        client.track("e", user_id="user-1").result(10)
        client.shutdown()
        end.set()
    stats = client.stats

    assert stats.accepted == sum(count.result() for count in counts) + 1
    assert stats.balanced
    assert stats.delivered == len(server.events)
    assert set(stats.dropped_by_reason) <= {DropReason.CLOSED}


def test_a_forgotten_client_drains_in_the_background(
    connect: Connect, server: Emulator
) -> None:
    """It warns, and its events arrive all the same."""
    client = SyncAmplitude(
        "key", server_url=server.httpapi_url, trust_env=False, flush_interval=3600.0
    )
    client.track("first", user_id="user-1").result(10)
    plugin = HoldsUp()
    client.add(plugin)
    handle = client.track("e", user_id="user-1")
    assert plugin.held.wait(10)

    forgotten = [client]
    del client
    with pytest.warns(ResourceWarning, match="unclosed SyncAmplitude with 1"):
        forgotten.clear()
    plugin.go.set()

    assert handle.result(10).ok


def test_a_thousand_clients_leave_nothing(connect: Connect, server: Emulator) -> None:
    """One thread serves them all."""
    connect().track("e", user_id="user-1").result(10)
    before = loop_threads()

    for number in range(1_000):
        client = SyncAmplitude("key", server_url=server.httpapi_url, trust_env=False)
        if number % 50 == 0:
            client.track("e", user_id="user-1")
        client.shutdown()

    assert loop_threads() == before
    assert len(server.events) == 21


def test_one_client_waits_in_a_plugin_and_another_goes_on(
    connect: Connect, server: Emulator
) -> None:
    """Clients share the loop, and no queue."""
    go = threading.Event()

    async def stuck(event: Event) -> Event:
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
        return event

    slow, quick = connect(plugins=[stuck]), connect()
    waiting = [slow.track("slow", user_id=f"user-{n}") for n in range(5)]

    assert quick.track("quick", user_id="user-1").result(10).ok
    assert not any(handle.done for handle in waiting)
    go.set()
    assert all(handle.result(10).ok for handle in waiting)


def test_a_plugin_that_never_returns_costs_its_own_event(
    connect: Connect, server: Emulator
) -> None:
    """A shutdown leaves half of its time to what is through, and settles the rest."""

    async def stuck(event: Event) -> Event:
        if event.event_type == "stuck":
            await asyncio.Event().wait()
        return event

    client = connect(plugins=[stuck], flush_interval=3600.0)
    fine = client.track("fine", user_id="user-0")
    fine.result(10)
    kept = [client.track("stuck", user_id="user-1") for _ in range(3)]
    fine = client.track("fine", user_id="user-2")
    stats = client.shutdown(1.0)

    assert (stats.accepted, stats.pending, stats.balanced) == (5, 0, True)
    assert fine.result().ok
    reasons = [handle.result(1).reason for handle in kept]
    assert reasons == [DropReason.SHUTDOWN, DropReason.CLOSED, DropReason.CLOSED]


def test_a_plugin_that_never_returns_holds_up_nobody_else(connect: Connect) -> None:
    """However many others there are, their events pass the one that is kept."""

    async def stuck(event: Event) -> Event:
        if event.event_type == "stuck":
            await asyncio.Event().wait()
        return event

    client = connect(plugins=[stuck])
    kept = client.track("stuck", user_id="user-0")
    others = [client.track("fine", user_id=f"user-{n}") for n in range(1, 101)]

    assert all(handle.result(10).ok for handle in others)
    assert not kept.done


def test_a_plugin_that_ends_the_thread_ends_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit in code of the user's stops no loop."""

    def leave(event: Event) -> Event:
        if event.event_type == "bad":
            raise SystemExit
        return event

    client = connect(plugins=[leave])
    bad = client.track("bad", user_id="user-1")
    assert client.track("good", user_id="user-2").result(10).ok
    assert bad.result(10).status in {"dropped", "delivered"}


def test_a_shutdown_is_bounded(connect: Connect, server: Emulator) -> None:
    """What is left at the deadline says so."""
    server.faults.add(Fault(503, delay=float("inf"), count=None))
    client = connect()
    handle = client.track("e", user_id="user-1")

    stats = client.shutdown(0.1)

    assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 1}
    assert handle.result().reason is DropReason.SHUTDOWN
    with pytest.raises(TypeError, match="timeout='soon'"):
        connect().shutdown("soon")  # type: ignore[arg-type]


def test_it_can_be_seen_from_outside(connect: Callable[..., SyncAmplitude]) -> None:
    """As the asyncio client: health for a probe, and who hears of each request."""

    class Watcher(Observer):
        def __init__(self) -> None:
            self.heard: list[int] = []

        def answered(self, request: Answered) -> None:
            self.heard.append(request.status)

    watcher = Watcher()
    with connect() as client:
        end = client.observe(watcher)
        assert (client.health, client.destination) == (Health.HEALTHY, "amplitude")
        assert client.track("Paid", user_id="user-00001").result(5.0).ok
        end()
        assert client.track("Paid", user_id="user-00001").result(5.0).ok
    assert watcher.heard == [200]


def test_flush_and_shutdown_are_bounded_though_the_loop_is_held_up(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain plugin that blocks costs its callers no more than they gave."""
    plugin = HoldsUp()
    client = connect(plugins=[plugin])
    client.track("e", user_id="user-1")
    assert plugin.held.wait(10)
    try:
        assert client.flush(0.01).pending == 1
        assert client.shutdown(0.01).pending == 1
        assert not plugin.go.is_set()
    finally:
        plugin.go.set()

    assert "does not answer" in caplog.text
    assert client.shutdown().delivered == 1
