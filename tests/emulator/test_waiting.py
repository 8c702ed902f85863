"""Waiting for events: woken by their arrival, and told what came instead."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from amplitude_async.emulator.judgement import JsonObject, Judgement
from amplitude_async.emulator.ledger import Ledger
from amplitude_async.emulator.records import ReceivedRequest
from amplitude_async.emulator.seen import Seen
from amplitude_async.emulator.waiting import Waiters, Wanted

__all__: list[str] = []


def paid(user: str = "user-1", **properties: Any) -> JsonObject:
    """Return an event as it arrives."""
    return {"event_type": "Paid", "user_id": user, "event_properties": properties}


async def send(emulator: Emulator, *events: Any) -> None:
    """Send events with a session of their own."""
    body = {"api_key": "key", "events": list(events)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(emulator.batch_url, json=body),
    ):
        pass


async def test_what_is_there_already_is_found(emulator: Emulator) -> None:
    """Without any waiting."""
    await send(emulator, paid(total=1), paid("user-2", total=9.5))
    found = await emulator.wait_for("Paid", user_id="user-2", total=9.5, timeout=0)
    assert found == [paid("user-2", total=9.5)]
    assert len(await emulator.wait_for("Paid", times=2)) == 2
    assert await emulator.wait_for("Paid", total=ANY)


async def test_true_is_no_number(emulator: Emulator) -> None:
    """In JSON they differ, however equal they are to Python."""
    await send(emulator, paid(first=True, count=1))
    for wanted in ({"first": 1}, {"count": True}, {"first": 1.0}):
        with pytest.raises(AssertionError):
            await emulator.wait_for("Paid", timeout=0, **wanted)
    assert await emulator.wait_for("Paid", timeout=0, first=True, count=1.0)


async def test_what_comes_later_wakes_who_waits(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """Only when enough of the right ones have come, with their request on record."""
    client = connect(flush_interval=0.005)
    waiting = asyncio.create_task(
        emulator.wait_for("Paid", times=2, user_id="user-1", timeout=10)
    )
    for user in ("user-1", "user-2"):
        await client.track("Paid", user_id=user)
        await client.flush()
    assert not waiting.done()
    await client.track("Paid", user_id="user-1")
    found = await waiting
    assert [one["user_id"] for one in found] == ["user-1"] * 2
    assert emulator.requests[-1].events[-1] == found[-1]


async def test_nothing_polls_while_it_waits(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No timer is set but that of the timeout."""
    loop = asyncio.get_running_loop()
    real, timers = loop.call_at, []

    def call_at(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return real(when, *rest, **more)

    monkeypatch.setattr(loop, "call_at", call_at)
    waiting = asyncio.create_task(emulator.wait_for("Paid", timeout=5_000))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(timers) == 1
    await send(emulator, paid())
    assert await waiting == [paid()]


async def test_a_timeout_says_what_came_instead(emulator: Emulator) -> None:
    """Names, the nearest events with what differs, and what was not taken."""
    await send(emulator, paid(total=9), *[paid("user-2", total=9.5)] * 9)
    await send(emulator, {"event_type": "Piad", "user_id": "user-1"})
    await send(emulator, {"event_type": "Paid"})
    with pytest.raises(AssertionError) as caught:
        await emulator.wait_for("Paid", timeout=0.01, user_id="user-1", total=9.5)
    assert str(caught.value).split("\n") == [
        "waited 0.01 s for 'Paid' with user_id 'user-1', total=9.5: 0 of 1 came",
        "  stored were 'Paid' (10), 'Piad' (1)",
        "  near: 'Paid', but user_id is 'user-2' and not 'user-1'",
        "  near: 'Paid', but total is 9 and not 9.5",
        (
            "  near: 'Piad', but event_type is 'Piad' and not 'Paid'; "
            "total is absent and not 9.5"
        ),
        "  not taken were 1:",
        "    'Paid', answered 400: user_id is missing, and so is device_id",
    ]


async def test_a_timeout_with_nothing_there_says_so(emulator: Emulator) -> None:
    """In one line more than the question."""
    with pytest.raises(AssertionError, match=r"0 of 3 came\n  stored were none$"):
        await emulator.wait_for("Paid", timeout=0, times=3)


def test_the_explanation_is_bounded() -> None:
    """However much has come, and however long."""
    ledger = Ledger(100_000, 10)
    for number in range(3_000):
        event = paid(**{"x" * 9_000: "y" * 9_000})
        event["event_type"] = f"{number}" + "z" * 9_000
        judgement = Judgement(200, {}, accepted=(event,), keys=(None,))
        ledger.record(ReceivedRequest("/batch", 200), judgement)
    with pytest.raises(AssertionError) as caught:
        Waiters().wait_blocking(
            Wanted("P" * 100, "u" * 100, None, {"a": 1}, 1),
            0,
            lambda: (ledger.stored("event"), ledger.rejected("event")),
        )
    assert len(str(caught.value)) < 5_000
    assert "2,990 more names" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": 0}, "times is 0: give 1 or more"),
        ({"times": True}, "times is True: give 1 or more"),
        ({"timeout": -1}, "timeout is -1: give seconds, 0 or more"),
        ({"timeout": None}, "timeout is None: give seconds, 0 or more"),
        ({"timeout": float("nan")}, "timeout is nan: give seconds, 0 or more"),
    ],
)
async def test_bad_arguments_are_named(
    emulator: Emulator, arguments: dict[str, Any], message: str
) -> None:
    """Before anything waits."""
    with pytest.raises(ValueError, match=re.escape(message)):
        await emulator.wait_for("Paid", **arguments)
    with pytest.raises(ValueError, match="event_type is ''"):
        await emulator.wait_for("")


async def test_who_waits_on_the_loop_may_not_block_it(emulator: Emulator) -> None:
    """The event could never come."""
    with pytest.raises(RuntimeError, match=r"await emulator\.wait_for"):
        emulator.wait_for_sync("Paid")


async def test_a_reset_forgets_what_was_found_and_goes_on(emulator: Emulator) -> None:
    """Who waits then waits for as many new ones."""
    waiting = asyncio.create_task(emulator.wait_for("Paid", times=2, timeout=10))
    await send(emulator, paid(n=1))
    emulator.reset()
    await send(emulator, paid(n=2))
    assert not waiting.done()
    await send(emulator, paid(n=3))
    assert await waiting == [paid(n=2), paid(n=3)]


async def test_a_cancelled_wait_is_forgotten(emulator: Emulator) -> None:
    """It costs no event a comparison any more."""
    waiting = asyncio.create_task(emulator.wait_for("Paid", timeout=10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await send(emulator, paid())
    assert emulator.events == [paid()]


async def test_a_comparison_that_raises_raises_where_it_was_asked_for(
    emulator: Emulator,
) -> None:
    """And harms no request of others."""

    class Strange:
        """Can be compared with nothing."""

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        def __hash__(self) -> int:
            return 0

    await send(emulator, paid(total=1))
    with pytest.raises(ZeroDivisionError):
        await emulator.wait_for("Paid", total=Strange())
    waiting = asyncio.create_task(emulator.wait_for("Sold", total=Strange()))
    await asyncio.sleep(0)
    await send(emulator, {**paid(total=1), "event_type": "Sold"})
    with pytest.raises(ZeroDivisionError):
        await waiting
    assert emulator.stats.by_status == {200: 2}


def test_an_event_that_comes_at_the_last_moment_counts() -> None:
    """Between the timeout and the look at what was found."""
    waiting = Waiters()
    event = paid()
    seen = Seen(
        number=1,
        received_at=0.0,
        verdict="stored",
        reason="",
        status=200,
        request=1,
        index=0,
        event=event,
    )
    calls: list[Sequence[Seen]] = []

    def arrived() -> tuple[Sequence[Seen], Sequence[Seen]]:
        calls.append(())
        return (), ()

    class Late(threading.Thread):
        """Offers the event once somebody waits."""

        def run(self) -> None:
            while not calls:
                pass
            with waiting.lock:
                waiting.offer([seen])

    thread = Late()
    thread.start()
    wanted = Wanted("Paid", None, None, {}, 1)
    assert waiting.wait_blocking(wanted, 10, arrived) == [event]
    thread.join()
