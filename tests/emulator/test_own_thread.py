"""`with Emulator()` in synchronous code: a thread of its own, and none left."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from amplitude_async.emulator import Emulator, Fault
from amplitude_async.emulator import server as server_module
from amplitude_async.emulator.own_loop import OwnLoop
from amplitude_async.sync import SyncAmplitude

__all__ = ["no_thread_is_left"]

NAME = "amplitude-emulator"


def threads() -> list[threading.Thread]:
    """Return the threads of emulators."""
    return [one for one in threading.enumerate() if one.name == NAME]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Hold every test to its word."""
    yield
    assert threads() == []


def send(emulator: Emulator, *events: Any, connection: Any = None) -> int:
    """Send events from this thread and return the status."""
    own = connection or http.client.HTTPConnection("127.0.0.1", emulator.port)
    body = json.dumps({"api_key": "key", "events": list(events)})
    own.request("POST", "/batch", body)
    answer = own.getresponse()
    answer.read()
    if connection is None:
        own.close()
    return answer.status


def event(number: int = 0) -> dict[str, Any]:
    """Return a good event."""
    return {"event_type": "Paid", "user_id": f"user-{number % 7}", "n": number}


def test_a_synchronous_test_sees_what_its_client_sent() -> None:
    """From the verb to the picture, without a loop of the test's own."""
    with Emulator() as emulator:
        with SyncAmplitude("key", server_url=emulator.httpapi_url) as client:
            client.track("Paid", user_id="user-1", event_properties={"total": 9.5})
            client.flush()
            (found,) = emulator.wait_for_sync("Paid", user_id="user-1", total=9.5)
        assert emulator.events == [found]
        assert emulator.requests[0].status == 200
        assert emulator.user("user-1").events == (found,)
        assert emulator.stats.events_ingested == 1
        assert len(threads()) == 1
    assert repr(emulator).startswith("<Emulator stopped requests=1 events=1")
    assert emulator.events == [found]


def test_it_can_be_entered_again_on_its_port() -> None:
    """With what arrived before."""
    emulator = Emulator()
    for number in (1, 2):
        with emulator:
            port = emulator.port
            assert send(emulator, event(number)) == 200
    assert emulator.port == port
    assert [one["n"] for one in emulator.events] == [1, 2]


def test_two_at_once_know_nothing_of_each_other() -> None:
    """Each has its thread, port and events."""
    with Emulator() as first, Emulator() as second:
        send(first, event(1))
        send(second, event(2))
        assert first.events != second.events
        assert len(threads()) == 2


def test_a_port_that_is_taken_raises_here() -> None:
    """And leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        emulator = Emulator(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"), emulator:
            pass
    with emulator:
        assert send(emulator, event()) == 200


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_start_that_fails_half_way_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """No socket, no thread, and it can be entered again."""

    async def fail(_: object) -> None:
        raise error

    emulator = Emulator()
    with monkeypatch.context() as patch:
        patch.setattr(web.SockSite, "start", fail)
        with pytest.raises(error), emulator:
            pass
    assert threads() == []
    with emulator:
        assert send(emulator, event()) == 200


def test_ctrl_c_while_it_starts_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one who waits for it is the one who is interrupted."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    emulator = Emulator()
    with monkeypatch.context() as patch:
        patch.setattr(OwnLoop, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), emulator:
            pass
    with emulator:
        assert send(emulator, event()) == 200


def test_it_is_entered_once() -> None:
    """A second time while it runs is refused, and the first goes on."""
    with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="is running: stop it before"), emulator:
            pass
        assert send(emulator, event()) == 200


@pytest.mark.parametrize("fault", [Fault(delay=math.inf), Fault(hang_up="before")])
def test_requests_in_flight_are_ended_with_the_block(fault: Fault) -> None:
    """Whoever hangs gets an error, and the block does not wait for an answer."""
    arrived, failed = threading.Event(), threading.Event()

    def when(_: object) -> bool:
        arrived.set()
        return True

    def hang(emulator: Emulator) -> None:
        try:
            send(emulator, event())
        except (OSError, http.client.HTTPException):
            failed.set()

    with Emulator() as emulator:
        emulator.faults.add(Fault(delay=fault.delay, hang_up=fault.hang_up, when=when))
        sender = threading.Thread(target=hang, args=(emulator,))
        sender.start()
        assert arrived.wait(10)
    assert failed.wait(10)
    sender.join()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_error_of_the_block_goes_through(error: type[BaseException]) -> None:
    """Ctrl-C too, and the thread ends."""
    with pytest.raises(error), Emulator():
        raise error


@pytest.mark.allow_blocking
def test_what_does_not_return_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the test's own that blocks the thread is named as the reason."""
    monkeypatch.setattr(server_module, "_END_TIMEOUT", 0.02)
    blocked, release = threading.Event(), threading.Event()

    def block(_: object) -> bool:
        blocked.set()
        return release.wait(10)

    def post(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(
                b"POST /batch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
            )
            blocked.wait(10)

    emulator = Emulator()
    emulator.faults.add(Fault(503, when=block))
    with pytest.raises(RuntimeError, match=r"did not end within 0\.02 s"), emulator:
        post(emulator.port)
    (thread,) = threads()
    release.set()
    thread.join(10)


@pytest.mark.allow_blocking
async def test_an_asynchronous_test_may_use_one_that_was_entered_by_with() -> None:
    """Its verbs go to the loop it runs on, and who waits is woken on this one."""
    with Emulator() as emulator:
        async with aiohttp.ClientSession() as session:
            waiting = asyncio.create_task(emulator.wait_for("Paid", timeout=10))
            await asyncio.sleep(0)
            body = {"api_key": "key", "events": [event()]}
            async with session.post(emulator.batch_url, json=body) as response:
                assert response.status == 200
            assert await waiting == [event()]
            await emulator.refuse()
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.post(emulator.batch_url, json=body)
            await emulator.listen()
            async with session.post(emulator.batch_url, json=body) as response:
                assert response.status == 200
            await emulator.stop()
            await emulator.start()
            async with session.post(emulator.batch_url, json=body) as response:
                assert response.status == 200


def test_synchronous_code_may_refuse_connections() -> None:
    """With a loop of a moment's length."""
    with Emulator() as emulator:
        asyncio.run(emulator.refuse())
        with pytest.raises(ConnectionRefusedError):
            send(emulator, event())
        asyncio.run(emulator.listen())
        assert send(emulator, event()) == 200


def test_a_timeout_in_a_thread_says_what_came_instead() -> None:
    """As on a loop."""
    with Emulator() as emulator:
        send(emulator, event())
        with pytest.raises(AssertionError, match=r"0 of 1 came\n  stored were 'Paid'"):
            emulator.wait_for_sync("Sold", timeout=0.01)


def test_a_test_reads_while_the_server_writes() -> None:
    """Every picture is whole: nothing is lost, torn, or out of order."""
    requests, each = 100, 500
    with Emulator(keep=20_000) as emulator:
        connection = http.client.HTTPConnection("127.0.0.1", emulator.port)

        def write() -> None:
            for number in range(requests):
                first = number * each
                batch = [event(first + index) for index in range(each)]
                assert send(emulator, *batch, connection=connection) == 200

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            read_once(emulator)
        writer.join()
        connection.close()
        stats = emulator.stats
        assert (stats.requests, stats.events_ingested) == (requests, requests * each)
        assert stats.events_forgotten == requests * each - 20_000
        assert len(emulator.events) == 20_000
        assert sum(len(emulator.user(name).events) for name in emulator.users) == 20_000


def read_once(emulator: Emulator) -> None:
    """Look at everything, and change the script, from this thread."""
    before = emulator.stats
    numbers = [one["n"] for one in emulator.events]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
    assert before.events_ingested == before.requests * 500
    order = [one.number for one in emulator.requests]
    assert order == sorted(order)
    for name in emulator.users:
        assert emulator.user(name).id == name
    emulator.events(rejected=True)
    emulator.faults.add(Fault(503, path="/nowhere"))
    assert emulator.faults.pending
    emulator.faults.clear()


def test_faults_are_added_and_cleared_while_requests_are_answered() -> None:
    """Each request meets a fault as a whole or not at all."""
    with Emulator(eps_threshold=1e9) as emulator:
        connection = http.client.HTTPConnection("127.0.0.1", emulator.port)
        statuses = set()
        stop = threading.Event()

        def meddle() -> None:
            while not stop.wait(0.0002):
                emulator.faults.add(Fault(503, rate=0.5), "broken", Fault(500))
                emulator.faults.clear()
                emulator.reset()

        meddler = threading.Thread(target=meddle)
        meddler.start()
        for number in range(200):
            statuses.add(send(emulator, event(number), connection=connection))
        stop.set()
        meddler.join()
        connection.close()
        assert statuses <= {200, 500, 503}


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_one_that_nobody_ends_warns_and_ends() -> None:
    """As a file that nobody closes."""
    emulator = Emulator()
    emulator.__enter__()
    (thread,) = threads()
    left = [emulator]
    del emulator
    with pytest.warns(ResourceWarning, match="unclosed emulator <Emulator http"):
        left.clear()
    thread.join(10)


def test_a_program_ends_whatever_it_forgot() -> None:
    """The thread holds nobody up, and nothing is printed on the way out."""
    program = (
        "from amplitude_async.emulator import Emulator\n"
        "emulator = Emulator().__enter__()\n"
        "print(emulator.url)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("http://127.0.0.1:")


@pytest.mark.allow_blocking
async def test_entering_on_a_loops_thread_works() -> None:
    """It is allowed: a fixture may be synchronous while a loop runs."""
    with Emulator() as emulator:
        assert await asyncio.to_thread(send, emulator, event()) == 200


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    """And no other is taken instead."""
    with pytest.raises(ValueError, match=f"port is {port}: give 1 to 65535, or 0"):
        Emulator(port=port)
