"""AWS Lambda: the flush at the end, the freeze after it, and the thaw."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amplitude_async import Amplitude, Config, ConfigurationError, bind, bindings
from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.integrations.aws_lambda import flush_after, flush_after_response
from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import FakeClock, RecordingAmplitude

__all__: list[str] = []

KEY = "test-key-of-a-lambda-function"
EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda_handler.py"
FREEZE = 600.0


class Context:
    """What Lambda hands over beside the event."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Give the time that this invocation has left."""
        return max(int((self._end - time.monotonic()) * 1000), 0)


class Server:
    """An emulator on a loop in a thread, as a handler's own loop stands still."""

    def __init__(self, port: int = 0) -> None:
        ready: Future[Emulator] = Future()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(port, ready),)
        )
        self._thread.start()
        self.emulator = ready.result(timeout=10)

    async def _serve(self, port: int, ready: "Future[Emulator]") -> None:
        self._loop = asyncio.get_running_loop()
        async with Emulator(port=port) as emulator:
            ready.set_result(emulator)
            await self._stopped.wait()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.emulator.url.rpartition(":")[2])

    def stop(self) -> None:
        """Close every connection, and the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(timeout=10)


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a server that runs beside the handlers."""
    running = Server()
    yield running
    running.stop()


def options_for(server: Server) -> dict[str, Any]:
    """Give what makes a client of the server that sends by itself too late."""
    url = server.emulator.httpapi_url
    return {"server_url": url, "flush_interval": 60.0, "trust_env": False}


Invoke = Callable[..., Any]


@pytest.fixture(params=["plain", "async"])
def function(request: pytest.FixtureRequest, server: Server) -> Iterator[Invoke]:
    """Yield a function as Lambda calls it: its kind of handler and of client."""
    options = options_for(server)
    client: Amplitude | SyncAmplitude
    if request.param == "plain":
        plain = client = SyncAmplitude(KEY, **options)

        def handler(event: Any, _: Any) -> Any:
            if event.get("user"):
                bind(user_id=event["user"])
            plain.track("Invoked", event_properties={"number": event["number"]})
            return _outcome_of(event)

        flushing = flush_after(client)
        invoke = flushing(handler)
    else:
        awaited = client = Amplitude(KEY, **options)

        async def ahandler(event: Any, _: Any) -> Any:
            if event.get("user"):
                bind(user_id=event["user"])
            number = {"number": event["number"]}
            await awaited.track("Invoked", event_properties=number)
            return _outcome_of(event)

        flushing = flush_after(client)
        invoke = flushing(ahandler)
    yield invoke
    flushing.close(1.0)
    assert client.stats.balanced


def _outcome_of(event: Any) -> Any:
    if event.get("fails"):
        raise RuntimeError("out of order")
    return event["number"]


def numbers(*servers: Server) -> list[int]:
    """List what arrived anywhere, repetitions included."""
    return [
        event["event_properties"]["number"]
        for server in servers
        for event in server.emulator.events
    ]


def test_an_invocation_delivers_before_it_returns(
    function: Invoke, server: Server
) -> None:
    """When Lambda freezes the function, nothing waits in it."""
    for number in range(3):
        event = {"number": number, "user": f"user-{number}"}
        assert function(event, Context()) == number
        assert numbers(server) == list(range(number + 1))


def test_a_handler_that_fails_delivers_as_well(
    function: Invoke, server: Server
) -> None:
    """Lambda gets the error, and Amplitude what happened before it."""
    with pytest.raises(RuntimeError, match="out of order"):
        function({"number": 1, "user": "user-1", "fails": True}, Context())

    assert numbers(server) == [1]


def test_no_invocation_has_the_user_of_the_one_before(
    function: Invoke, server: Server
) -> None:
    """The environment is kept, and what was bound in it is not."""
    function({"number": 1, "user": "user-1"}, Context())
    function({"number": 2}, Context())
    function({"number": 3, "user": "user-3"}, Context())

    users = [event["user_id"] for event in server.emulator.events]
    assert users == ["user-1", "user-3"]
    assert bindings() == {}


@pytest.mark.parametrize("seconds", [0.55, 0.5, 0.1, 0.0])
def test_an_invocation_is_not_held_up_beyond_its_time(
    seconds: float, function: Invoke, server: Server
) -> None:
    """A server that hangs costs what is left less the margin; nothing is lost by it."""
    server.emulator.faults.add(Fault(delay=0.2, count=1))
    begun = time.monotonic()
    function({"number": 1, "user": "user-1"}, Context(seconds))
    assert time.monotonic() - begun < 5.0

    function({"number": 2, "user": "user-1"}, Context())
    assert numbers(server) == [1, 2]
    assert server.emulator.stats.duplicates == 0


class BrokenSync(SyncAmplitude):
    """Fails to flush, as it never should."""

    def flush(self, *_: Any) -> Any:
        """Fail."""
        raise OSError("no flush")


class Broken(Amplitude):
    """Fails to flush, as it never should."""

    async def flush(self, *_: Any) -> Any:
        """Fail."""
        raise OSError("no flush")


def test_a_flush_that_fails_fails_no_invocation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lambda gets the answer, and the log the trouble."""

    async def awaited(*_: Any) -> str:
        return "answer"

    for client, handler in (
        (BrokenSync(KEY), lambda *_: "answer"),
        (Broken(KEY), awaited),
    ):
        flushing = flush_after(client)
        assert flushing(handler)({}, Context()) == "answer"
        flushing.close()
    assert caplog.text.count("flush failed: OSError: no flush") == 2


def test_a_context_of_somebody_else_is_no_reason_to_fail(
    function: Invoke, server: Server
) -> None:
    """Tests and local runs have none, or one of their own."""
    for number, context in enumerate([None, object(), SimpleNamespace()]):
        function({"number": number, "user": "user-1"}, context)

    assert numbers(server) == [0, 1, 2]


class Freezer:
    """Lets time pass in which nothing of this process runs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._skipped = 0.0
        for name in ("monotonic", "time"):
            patch.setattr(time, name, self._shifted(getattr(time, name)))
        patch.setattr(LoopClock, "now", staticmethod(time.monotonic))
        patch.setattr(LoopClock, "wall", staticmethod(time.time))

    def _shifted(self, real: Callable[[], float]) -> Callable[[], float]:
        return lambda: real() + self._skipped

    def freeze(self) -> None:
        """Skip ten minutes."""
        self._skipped += FREEZE


@pytest.mark.parametrize("clock_goes_on", [True, False])
def test_connections_that_died_in_the_freeze_cost_nothing(
    clock_goes_on: bool,
    function: Invoke,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first request after the thaw arrives, once, whatever the clock has done."""
    freezer = Freezer(monkeypatch)
    function({"number": 1, "user": "user-1"}, Context())
    port = server.port
    server.stop()
    if clock_goes_on:
        freezer.freeze()
    later = Server(port)
    try:
        function({"number": 2, "user": "user-1"}, Context())
        function({"number": 3, "user": "user-1"}, Context())

        assert numbers(server, later) == [1, 2, 3]
    finally:
        later.stop()


@pytest.mark.parametrize("hang_up", [None, "before", "after"])
def test_a_request_that_was_frozen_is_one_in_the_end(
    hang_up: Any,
    function: Invoke,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its time is over when it thaws: its event's id tells that it is the same."""
    freezer = Freezer(monkeypatch)
    server.emulator.faults.add(Fault(delay=0.1, hang_up=hang_up, count=1))
    function({"number": 1, "user": "user-1"}, Context(0.55))
    freezer.freeze()
    function({"number": 2, "user": "user-1"}, Context())

    assert numbers(server) == [1, 2]


class LeapingClock(FakeClock):
    """Virtual time that can leap: timers that were due meanwhile fire at its end."""

    def leap(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self._now += seconds


class FrozenAmplitude(RecordingAmplitude):
    """Records, in virtual time."""

    def __init__(self, clock: LeapingClock) -> None:
        self.virtual = clock
        super().__init__(Config("key", flush_interval=60.0))
        self.network = self._recorder

    def _make_clock(self) -> Clock:
        return self.virtual


@pytest.mark.parametrize("answered", [True, False])
async def test_ten_minutes_in_virtual_time_lose_nothing(*, answered: bool) -> None:
    """A request in flight at the freeze ends by its answer, or goes once more."""
    clock = LeapingClock()
    client = FrozenAmplitude(clock)
    delivery = await client.track("Before", user_id="user-1")
    client.network.hang()
    flush = asyncio.ensure_future(client.flush(2.0))
    await clock.advance(2.0)
    assert flush.done()
    assert not delivery.done

    clock.leap(FREEZE)
    if answered:
        client.network.release()
        await clock.settle()
    await clock.advance(0)
    client.network.release()
    await client.track("After", user_id="user-1")
    flush = asyncio.ensure_future(client.flush(10.0))
    await clock.advance(10.0)

    assert flush.result().pending == 0
    assert (await delivery).ok
    ids = {event["insert_id"]: event["event_type"] for event in client.events}
    assert list(ids.values()) == ["Before", "After"]
    await client.shutdown(0)


# ASGI on Lambda --------------------------------------------------------------------


def test_an_asgi_application_delivers_at_the_end_of_its_response(
    server: Server,
) -> None:
    """No lifespan is run: the first event starts the client on the adapter's loop."""
    client = Amplitude(KEY, **options_for(server))

    async def app(scope: Any, _: Any, send: Any) -> None:
        properties = {"number": int(scope["path"])}
        await client.track("Seen", user_id="user-1", event_properties=properties)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "2":
            raise RuntimeError("out of order")

    async def send(message: Any) -> None:
        assert message["status"] == 200

    async def invoke(path: str) -> None:
        scope = {"type": "http", "path": path, "aws.context": Context()}
        await flush_after_response(app, client)(scope, None, send)

    # As an adapter does: one loop, which stands still between invocations.
    with asyncio.Runner() as runner:
        runner.run(invoke("1"))
        assert numbers(server) == [1]
        with pytest.raises(RuntimeError, match="out of order"):
            runner.run(invoke("2"))
        runner.run(invoke("3"))
        assert numbers(server) == [1, 2, 3]
        runner.run(_shut_down(client))


async def _shut_down(client: Amplitude) -> None:
    await client.shutdown(0)


# Mistakes, and the end ---------------------------------------------------------------


@pytest.mark.parametrize("margin", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_margin_is_a_number_of_seconds(margin: Any) -> None:
    """The error names the option, its value and what to give."""
    with pytest.raises(ConfigurationError, match=r"margin=.* must be a number"):
        flush_after(SyncAmplitude(KEY), margin=margin)


def test_each_kind_of_handler_has_its_kind_of_client() -> None:
    """A plain handler cannot await, and an async one must not block its loop."""

    def plain(*_: Any) -> None: ...

    async def awaited(*_: Any) -> None: ...

    with pytest.raises(TypeError, match="change plain or its client"):
        flush_after(Amplitude(KEY))(plain)
    with pytest.raises(TypeError, match="change awaited or its client"):
        flush_after(SyncAmplitude(KEY))(awaited)
    assert "FlushAfter of" in repr(flush_after(SyncAmplitude(KEY)))


async def invoked(emulator: Emulator, *lines: str) -> asyncio.subprocess.Process:
    """Run the example in a process, and have it invoked once for each line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        env={
            **os.environ,
            "AMPLITUDE_API_KEY": KEY,
            "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
            "AMPLITUDE_FLUSH_INTERVAL": "60",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    for line in lines:
        process.stdin.write(line.encode() + b"\n")
        await asyncio.wait_for(process.stdout.readline(), 20)
    return process


async def test_the_example_delivers_with_its_user(emulator: Emulator) -> None:
    """Each invocation has delivered when it returns; SIGTERM ends it in good order."""
    users = [f"user-{number}" for number in range(10)]
    orders = [json.dumps({"user_id": user, "order": user[-1]}) for user in users]
    process = await invoked(emulator, *orders)

    assert [event["user_id"] for event in emulator.events] == users
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert len(emulator.events) == len(users)


def test_the_page_shows_the_example_that_runs() -> None:
    """What a reader copies is the file that is tested."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "integrations" / "aws-lambda.md").read_text(
        encoding="utf-8"
    )

    assert (root / "examples" / "lambda_handler.py").read_text(encoding="utf-8") in page


def test_threads_that_invoke_an_async_handler_take_turns(server: Server) -> None:
    """One loop serves them all: none is refused, and none has another's user."""
    client = Amplitude(
        KEY, server_url=server.emulator.httpapi_url, trust_env=False, flush_interval=60
    )
    flushing = flush_after(client)
    gate = threading.Barrier(8)

    @flushing
    async def handler(event: dict[str, str], _: Any) -> str:
        bind(user_id=event["user"])
        await asyncio.sleep(0)
        await client.track("e", event_properties={"user": event["user"]})
        return event["user"]

    def invoke(number: int) -> Any:
        gate.wait()
        return handler({"user": f"user-{number}"}, Context())

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(invoke, range(8)))
    flushing.close()

    assert found == [f"user-{number}" for number in range(8)]
    events = server.emulator.events
    assert len(events) == 8
    assert all(e["user_id"] == e["event_properties"]["user"] for e in events)
