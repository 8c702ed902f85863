"""The fake clock and the scripted network that users' tests are built on."""

import asyncio

import pytest

from amplitude_async.delivery.endpoint import Response
from amplitude_async.testing import FakeClock, ScriptedTransport

__all__: list[str] = []

BODY = b'{"api_key":"secret","events":[{"event_type":"a"}]}'


async def test_timers_fire_in_order_and_time_stops_at_each() -> None:
    """What is due first happens first; what is set meanwhile has its turn."""
    clock = FakeClock(now=5.0, wall=1_000.0)
    seen: list[tuple[str, float]] = []

    def first() -> None:
        seen.append(("first", clock.now()))
        clock.call_later(1.0, lambda: seen.append(("nested", clock.now())))

    clock.call_later(3.0, lambda: seen.append(("last", clock.now())))
    clock.call_later(1.0, first)
    clock.call_later(2.5, lambda: seen.append(("never", clock.now()))).cancel()
    await clock.advance(4.0)

    assert seen == [("first", 6.0), ("nested", 7.0), ("last", 8.0)]
    assert (clock.now(), clock.wall()) == (9.0, 1_004.0)
    assert clock.next_timer is None
    assert repr(clock) == "<FakeClock now=9 timers=0>"


async def test_small_steps_reach_what_one_step_reaches() -> None:
    """Rounding leaves no timer behind."""
    clock = FakeClock()
    fired: list[float] = []
    clock.call_later(1.0, lambda: fired.append(clock.now()))

    for _ in range(10):
        await clock.advance(0.1)

    assert fired == [1.0]


async def test_tasks_woken_by_a_timer_run_before_time_goes_on() -> None:
    """A chain of tasks is at its end when the next timer fires."""
    clock = FakeClock()
    event = asyncio.Event()
    seen: list[str] = []

    async def wait() -> None:
        await event.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append("task")

    task = asyncio.ensure_future(wait())
    clock.call_later(1.0, event.set)
    clock.call_later(1.1, lambda: seen.append("timer"))
    await clock.advance(2.0)

    assert task.done()
    assert seen == ["task", "timer"]


async def test_time_that_stands_still_is_an_error() -> None:
    """A test of code that spins fails with the reason instead of hanging."""
    clock = FakeClock()

    def again() -> None:
        clock.call_later(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="spins"):
        await clock.advance(1.0)
    with pytest.raises(ValueError, match="seconds=-1"):
        await clock.advance(-1)


async def test_a_script_is_followed_and_then_all_is_well() -> None:
    """Responses, functions and awaitables answer in turn; requests are kept."""
    clock = FakeClock()

    async def later() -> Response:
        return Response(503)

    transport = ScriptedTransport(
        [Response(500), lambda body: Response(len(body)), later()], clock=clock
    )
    got = []
    for _ in range(4):
        answer = await transport.send("http://a.test", BODY, {}, 10.0)
        got.append(answer.status)
        await clock.advance(1.0)

    assert got == [500, len(BODY), 503, 200]
    assert [request.at for request in transport.requests] == [0.0, 1.0, 2.0, 3.0]
    assert transport.events == [{"event_type": "a"}] * 4
    assert "secret" not in repr(transport.requests[0])
    assert repr(transport) == "<ScriptedTransport 4 requests>"


async def test_a_hung_request_ends_by_release_or_timeout() -> None:
    """Either the script goes on, or the sender's patience is at its end."""
    clock = FakeClock()
    transport = ScriptedTransport(clock=clock)
    transport.hang()
    send = transport.send("http://a.test", BODY, {}, 2.0)
    impatient = asyncio.ensure_future(send)
    await clock.advance(2.0)
    patient = asyncio.ensure_future(transport.send("http://a.test", BODY, {}, 9.0))
    await clock.advance(1.0)

    assert impatient.done()
    assert not patient.done()
    assert impatient.result().error == "no complete answer within 2 s"
    transport.release()
    assert (await patient).status == 200
    assert transport.in_flight == 0
