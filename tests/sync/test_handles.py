"""The handle of a synchronous verb."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async.emulator import Emulator, Fault
from amplitude_async.sync import SyncAmplitude, SyncDelivery

__all__: list[str] = []

Connect = Callable[..., SyncAmplitude]


def test_waiting_brings_the_flush_forward(connect: Connect) -> None:
    """``result`` does not wait for the interval."""
    client = connect(flush_interval=3600.0)
    client.track("first", user_id="user-1").result(10)
    handle = client.track("e", user_id="user-1")

    assert "pending" in repr(handle)
    result = handle.result(10)

    assert (result.ok, handle.done, handle.result().event.event_type) == (
        True,
        True,
        "e",
    )
    assert "delivered" in repr(handle)


def test_giving_up_waiting_cancels_no_event(connect: Connect, server: Emulator) -> None:
    """A timeout is the waiter's alone."""
    server.faults.add(Fault(503, count=2))
    client = connect(retry_base_interval=0.3, retry_max_interval=0.3)
    handle = client.track("e", user_id="user-1")

    with pytest.raises(TimeoutError, match=r"timeout=0\.01"):
        handle.result(0.01)

    assert not handle.done
    assert handle.result(10).ok


def test_many_threads_wait_for_one_event(connect: Connect) -> None:
    """A handle may be shared."""
    client = connect(flush_interval=3600.0)
    handle = client.track("e", user_id="user-1")
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(handle.result(10).ok))
        for _ in range(20)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [True] * 20


def test_a_done_callback_is_called_once_with_the_handle(connect: Connect) -> None:
    """Before the outcome and after it; what it raises hurts nobody."""
    client, calls = connect(), []
    done = threading.Semaphore(0)

    def call(handle: SyncDelivery) -> None:
        calls.append((handle, handle.result().ok))
        done.release()
        raise SystemExit

    handle = client.track("e", user_id="user-1")
    handle.add_done_callback(call)
    assert done.acquire(timeout=10)
    handle.add_done_callback(call)
    assert done.acquire(timeout=10)

    assert calls == [(handle, True)] * 2
    assert client.track("after", user_id="user-1").result(10).ok


def test_a_callback_that_tracks_hears_why_not(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """On the loop's thread the verbs raise, in a callback as anywhere: no deadlock."""
    client: SyncAmplitude
    heard: list[Any] = []

    def callback(result: Any) -> None:
        heard.append(client.stats.balanced)
        client.track("again", user_id="user-1")

    client = connect(callback=callback)
    assert client.track("e", user_id="user-1").result(10).ok
    client.shutdown()

    assert heard == [True]
    assert "use Amplitude there" in caplog.text
    assert client.stats.accepted == 1
