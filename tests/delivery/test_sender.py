"""A request comes back with a verdict, whatever transport and interpretation do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.courier import HttpCourier
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.endpoint import Accept, Broken, Busy, Response, Verdict
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outcome import Settlement
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.sender import Post, Sender
from amplitude_async.delivery.transport import AiohttpTransport, Transport
from amplitude_async.storage.base import Record
from amplitude_async.testing import ScriptedTransport

__all__: list[str] = []

BODY = b'{"event_type":"click","user_id":"ann","insert_id":"ann-1"}'
RECORD = Record(1, BODY, "ann", "ann", None, "ann-1", 0.0)
KEY = "0123456789abcdef-secret"


class Desk:
    """A sender and what it says."""

    def __init__(self, transport: Transport, interpret: "Interpret | None") -> None:
        self.verdicts: asyncio.Queue[Verdict] = asyncio.Queue()
        self.lost: list[BaseException | None] = []
        clock = LoopClock()
        endpoint = Endpoint(interpret)
        reporter = Reporter(logging.getLogger("amplitude_async"), clock, "test")
        self.sender = Sender(
            endpoint,
            HttpCourier(
                endpoint,
                Post(
                    transport,
                    timeout=5.0,
                    compress=False,
                    observers=Observers(reporter),
                    clock=clock,
                    reporter=reporter,
                ),
                clock,
            ),
            clock=clock,
            reporter=reporter,
            may_send=lambda _: True,
            decide=self._decide,
            settle=lambda *_: None,
            lost=lambda _, fault: self.lost.append(fault),
            is_here=lambda: True,
        )

    def _decide(self, _: Group, verdict: Verdict) -> list[Settlement]:
        self.verdicts.put_nowait(verdict)
        return []

    async def send(self) -> Verdict:
        """Send one event; returns the verdict on it."""
        group = Group([[RECORD]])
        group.cut(1, 1000)
        self.sender.start(group)
        async with asyncio.timeout(5.0):
            return await self.verdicts.get()


Interpret = Callable[[Response, Sequence[Record], float], Verdict]


class Endpoint(AmplitudeEndpoint):
    """An endpoint whose interpretation a test may replace."""

    def __init__(self, interpret: Interpret | None) -> None:
        super().__init__(Config(api_key=KEY))
        self._interpret = interpret or super().interpret

    def interpret(
        self, response: Response, records: Sequence[Record], wall: float
    ) -> Verdict:
        """Say what the test says."""
        return self._interpret(response, records, wall)


@asynccontextmanager
async def sending(
    transport: Transport, interpret: Interpret | None = None
) -> AsyncIterator[Desk]:
    """Run a sender and leave no request behind."""
    desk = Desk(transport, interpret)
    yield desk
    desk.sender.halt()
    await desk.sender.gone(1.0)
    await transport.close()


class Raising(ScriptedTransport):
    """A transport that raises what it must not."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self._fault = fault

    async def send(self, *_: object) -> Response:
        """Raise."""
        raise self._fault


FAULTS = [
    RuntimeError("attached to a different loop"),
    OverflowError("int too large to convert to float"),
    AssertionError("no absolute URL"),
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    asyncio.CancelledError("somebody else's"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_a_transport_raises_broke_the_request(
    fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The events go again, and the log has the traceback, once."""
    async with sending(Raising(fault)) as desk:
        verdicts = [await desk.send() for _ in range(3)]

        assert desk.lost == []
    assert all(isinstance(verdict, Broken) for verdict in verdicts)
    assert type(fault).__name__ in verdicts[0].message
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("fault", FAULTS[:-1], ids=lambda fault: type(fault).__name__)
async def test_what_interpretation_raises_broke_the_request(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer ends a sender task, however odd it is."""

    def interpret(*_: object) -> Verdict:
        raise fault

    async with sending(ScriptedTransport([Response(500)]), interpret) as desk:
        verdict = await desk.send()

        assert desk.lost == []
    assert isinstance(verdict, Broken)
    assert verdict.code == 500
    assert caplog.text.count("Traceback") == 1


async def test_who_is_cancelled_is_cancelled() -> None:
    """A cancellation of the very task is none of the transport's faults."""
    transport = ScriptedTransport()
    transport.hang()
    async with sending(transport) as desk:
        group = Group([[RECORD]])
        group.cut(1, 1000)
        desk.sender.start(group)
        await asyncio.sleep(0)
        [task] = [t for t in asyncio.all_tasks() if "request" in t.get_name()]
        task.cancel()
        await asyncio.wait({task})

        assert desk.verdicts.empty()
        assert desk.lost == [None]


class Untidy(ScriptedTransport):
    """A transport that cannot clean up without its loop, as sockets cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = False

    async def send(self, *_: object) -> Response:
        """Wait for ever, and raise at the end of that."""
        self.has_begun = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise RuntimeError("Event loop is closed")


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "stopped"])
@pytest.mark.parametrize("is_replaced", [True, False], ids=["another", "none"])
def test_a_request_that_is_collected_outside_its_loop_logs_nothing(
    is_closed: bool,
    is_replaced: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its loop is over, as after a kill: that is no fault of the transport's.

    Nor does anything come out of the coroutine, whose end the interpreter would tell.
    """
    transport = Untidy()
    reporter = Reporter(logging.getLogger("amplitude_async"), LoopClock(), "test")
    post = Post(
        transport,
        timeout=5.0,
        compress=False,
        observers=Observers(reporter),
        clock=LoopClock(),
        reporter=reporter,
    )
    request = post.send("http://localhost", b"{}", {})

    async def begin() -> None:
        request.send(None)

    async def end() -> None:
        request.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    if is_closed:
        loop.close()
    if is_replaced:
        asyncio.run(end())
    else:
        request.close()
    loop.close()

    assert transport.has_begun
    assert caplog.records == []


@pytest.mark.amplitude(live=True)  # it fails before any address is looked at
async def test_a_session_of_a_closed_loop_breaks_requests() -> None:
    """RuntimeError out of aiohttp is no crash of ours."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    def elsewhere() -> aiohttp.ClientSession:
        loop = asyncio.new_event_loop()
        session = loop.run_until_complete(make())
        loop.close()
        return session

    session = await asyncio.to_thread(elsewhere)
    async with sending(AiohttpTransport(session)) as desk:
        verdict = await desk.send()

        assert isinstance(verdict, Broken)
        assert "RuntimeError" in verdict.message
    session.detach()


@pytest.mark.parametrize(
    "value",
    ["+99999999999999999999", "9" * 5000, "-1", "1e400", "Thu, 32 Dec 9999 99:99:99"],
)
async def test_no_retry_after_ends_a_sender(value: str) -> None:
    """A wait beyond all calendars is none that was asked for."""
    answers = [Response(503, b"", {"retry-after": value}), Response(200)]
    async with sending(ScriptedTransport(answers)) as desk:
        busy, accepted = await desk.send(), await desk.send()

        assert isinstance(busy, Busy)
        assert isinstance(accepted, Accept)
        assert desk.lost == []
