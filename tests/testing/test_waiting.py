"""Waiting for an event: woken by what arrives, from any thread."""

import asyncio
import threading
import time
from typing import Any

import pytest

from amplitude_async import Event
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.testing import CapturedEvents
from tests.testing.conftest import Captor

__all__: list[str] = []

LONG = 20.0


def waiting(events: CapturedEvents) -> int:
    """Return how many wait."""
    return len(events._waiters)  # noqa: SLF001 - nobody else can see it


async def started(events: CapturedEvents, count: int = 1) -> None:
    """Wait until so many wait."""
    while waiting(events) < count:  # noqa: ASYNC110 - each begins in its own turn
        await asyncio.sleep(0)


async def test_what_is_there_is_returned_at_once(
    events: CapturedEvents, captor: Captor
) -> None:
    """No turn of the loop is needed."""
    captor.track("Paid", user_id="user-1", event_properties={"total": 9.5})

    coroutine = events.wait_for("Paid", total=9.5)
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)

    assert returned.value.value is events[0]
    assert waiting(events) == 0


async def test_an_event_of_this_loop_wakes_the_waiter(
    events: CapturedEvents, captor: Captor
) -> None:
    """The one that fits, and no other."""
    task = asyncio.create_task(events.wait_for("Paid", LONG, user_id="user-2"))
    await started(events)
    captor.track("Left", user_id="user-2")
    captor.track("Paid", user_id="user-1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    captor.track("Paid", user_id="user-2")

    assert (await task).user_id == "user-2"
    assert waiting(events) == 0


async def test_an_event_of_another_thread_wakes_the_waiter(
    events: CapturedEvents, captor: Captor
) -> None:
    """Nobody polls: the loop is idle until then."""
    task = asyncio.create_task(events.wait_for("Paid", LONG, times=3))
    await started(events)

    def run() -> None:
        for _ in range(3):
            captor.track("Paid", user_id="user-1")

    thread = threading.Thread(target=run)
    thread.start()

    assert await task is events[2]
    thread.join()


async def test_an_event_of_several_destinations_is_waited_for_once(
    events: CapturedEvents, captor: Captor
) -> None:
    """Two events are two, wherever they went."""
    task = asyncio.create_task(events.wait_for("Paid", LONG, times=2))
    await started(events)
    captor.track("Paid", "amplitude", "mparticle", user_id="user-1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    captor.track("Paid", "amplitude", "mparticle", user_id="user-1")

    assert await task is events[2]
    found = await events.wait_for("Paid", times=2, destination="mparticle")
    assert found is events[3]


async def test_who_waits_in_vain_is_told_what_there_is(
    events: CapturedEvents, captor: Captor
) -> None:
    """The message is that of the assertion, and says how long it was."""
    captor.track("Paid", user_id="user-1", event_properties={"total": 9})
    captor.settle(
        Event("Paid", event_properties={"total": 9.5}), Outcome.rejected("no user")
    )

    with pytest.raises(AssertionError) as caught:
        await events.wait_for("Paid", 0.01, total=9.5)
    message = str(caught.value)
    assert message.startswith(
        "no event 'Paid' with total=9.5 was tracked within 0.01 s"
    )
    assert "it was tracked, but REJECTED: no user" in message
    assert "total: wanted 9.5, is 9" in message
    with pytest.raises(AssertionError, match="2 times within 0 s; it came 1 times"):
        await events.wait_for("Paid", 0, times=2)
    assert waiting(events) == 0


async def test_a_waiter_that_is_cancelled_is_forgotten(
    events: CapturedEvents, captor: Captor
) -> None:
    """Nothing is left of it, and what it waited for harms nobody."""
    task = asyncio.create_task(events.wait_for("Paid", LONG))
    await started(events)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    captor.track("Paid", user_id="user-1")

    assert waiting(events) == 0


@pytest.mark.allow_blocking
def test_a_loop_that_was_closed_harms_nobody(
    events: CapturedEvents, captor: Captor
) -> None:
    """To track after somebody's loop is gone does not raise."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(events.wait_for("Paid", LONG))
    loop.run_until_complete(started(events))
    loop.close()
    captor.track("Paid", user_id="user-1")

    assert len(events) == 1
    # The task was left behind on purpose: nobody needs to hear of it.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001


class _Raising:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not look at me")

    __hash__ = None  # type: ignore[assignment]


async def test_what_cannot_be_compared_is_told_where_somebody_waits(
    events: CapturedEvents, captor: Captor
) -> None:
    """Not where somebody tracks."""
    task = asyncio.create_task(events.wait_for("Paid", 0.05, total=_Raising()))
    await started(events)
    captor.track("Paid", user_id="user-1", event_properties={"total": 1})

    with pytest.raises(AssertionError, match="comparing them raised RuntimeError"):
        await task


async def test_clearing_lets_waiters_begin_anew(
    events: CapturedEvents, captor: Captor
) -> None:
    """What was forgotten does not count."""
    task = asyncio.create_task(events.wait_for("Paid", LONG, times=2))
    await started(events)
    captor.track("Paid", user_id="user-1")
    await asyncio.sleep(0)
    events.clear()
    captor.track("Paid", user_id="user-1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    captor.track("Paid", user_id="user-1")

    assert await task is events[1]


@pytest.mark.allow_blocking
def test_a_thread_is_woken_by_an_event_of_another(
    events: CapturedEvents, captor: Captor
) -> None:
    """Synchronous tests wait without a loop."""

    def run() -> None:
        while not waiting(events):
            time.sleep(0)
        captor.track("Paid", user_id="user-1")
        captor.track("Paid", user_id="user-2")

    thread = threading.Thread(target=run)
    thread.start()
    found = events.wait_for_sync("Paid", LONG, user_id="user-2")
    thread.join()

    assert found is events[1]
    assert events.wait_for_sync("Paid", times=2) is events[1]
    with pytest.raises(AssertionError, match=r"was tracked 3 times within 0\.01 s"):
        events.wait_for_sync("Paid", 0.01, times=3)
    assert waiting(events) == 0


async def test_blocking_the_loop_is_refused(events: CapturedEvents) -> None:
    """The remedy is named."""
    with pytest.raises(RuntimeError, match=r"await wait_for"):
        events.wait_for_sync("Paid")
    with pytest.raises(ValueError, match="times=0"):
        await events.wait_for("Paid", times=0)


@pytest.mark.timeout(60)  # each waiter looking at each event takes minutes
async def test_many_waiters_and_events_stay_cheap(
    events: CapturedEvents, captor: Captor
) -> None:
    """Events of other names cost a waiter nothing."""
    tasks = [
        asyncio.create_task(events.wait_for(f"Event {number}", LONG))
        for number in range(1_000)
    ]
    await started(events, 1_000)
    captor.track("Paid", user_id="user-1")
    wire = b'{"event_type":"Paid","user_id":"user-1"}'
    for number in range(100_000):
        events.add("amplitude", wire, None, f"i-{number}", events[0]._outcome)  # noqa: SLF001
    for number in range(1_000):
        captor.track(f"Event {number}", user_id="user-1")
    found = await asyncio.gather(*tasks)

    assert [event.name for event in found] == [f"Event {n}" for n in range(1_000)]


async def test_an_event_of_the_last_moment_counts(
    events: CapturedEvents, captor: Captor
) -> None:
    """It came before the waiter was told that its time is over."""
    task = asyncio.create_task(events.wait_for("Paid", 0))
    # Its time is over in its first turn, and it has not heard of that yet.
    await asyncio.sleep(0)
    captor.track("Paid", user_id="user-1")

    assert await task is events[0]


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
async def test_what_is_no_time_is_refused(events: CapturedEvents, timeout: Any) -> None:
    """At once, and not by waiting for ever."""
    with pytest.raises(ValueError, match="give seconds, 0 or more, or None"):
        await events.wait_for("Paid", timeout)
    with pytest.raises(ValueError, match="give seconds, 0 or more, or None"):
        await asyncio.to_thread(events.wait_for_sync, "Paid", timeout)


@pytest.mark.allow_blocking
def test_a_thread_waits_as_long_as_anybody_likes(
    events: CapturedEvents, captor: Captor
) -> None:
    """Also longer than the system knows."""
    timer = threading.Timer(0.02, captor.track, ("Paid",), {"user_id": "user-1"})
    timer.start()
    assert events.wait_for_sync("Paid", 1e20).name == "Paid"
    timer.join()
