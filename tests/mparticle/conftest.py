"""mParticle clients of the emulator, of a recorder, and of a scripted network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.transport import Transport
from amplitude_async.emulator import Emulator
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.testing import FakeClock, ScriptedTransport
from amplitude_async.testing.transport import Answer

__all__ = [
    "Recorder",
    "VirtualMParticle",
    "connect",
    "make_batch",
    "recorder",
    "virtual",
]

KEY = "key-of-the-tests"
SECRET = "s\u00e9cret-of-the-tests"
# So short that no test waits, and long enough to be waits.
IMPATIENT: dict[str, Any] = {
    "environment": "development",
    "flush_interval": 0.01,
    "retry_base_interval": 0.001,
    "retry_max_interval": 0.004,
    "trust_env": False,
}


def build_batch(user: str = "c-1", **fields: Any) -> Batch:
    """Build a batch of one user with one event."""
    given: dict[str, Any] = {
        "environment": "development",
        "user_identities": {"customer_id": user},
        "events": [CustomEvent(event_name="signup")],
        **fields,
    }
    return Batch(**given)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Return a function that builds a batch of one user with one event."""
    return build_batch


@pytest.fixture
def connect(
    emulator: Emulator, accounted: Callable[..., Any]
) -> Callable[..., MParticle]:
    """Return a function that makes clients of the emulator."""

    def make(**options: Any) -> MParticle:
        given = {**IMPATIENT, "base_url": emulator.mparticle_url, **options}
        client: MParticle = accounted(MParticle(KEY, SECRET, **given), KEY, SECRET)
        return client

    return make


class VirtualMParticle(MParticle):
    """A client on a clock and a network of the test's."""

    def __init__(self, *answers: Answer, then: Any = None, **options: Any) -> None:
        self.fake = FakeClock()
        self.network = ScriptedTransport(answers, then=then, clock=self.fake)
        super().__init__(KEY, SECRET, **options)

    def _make_clock(self) -> Clock:
        return self.fake

    def _make_transport(self, _session: aiohttp.ClientSession | None) -> Transport:
        return self.network

    @property
    def times(self) -> list[float]:
        """When each request went."""
        return [request.at for request in self.network.requests]

    @property
    def bodies(self) -> list[bytes]:
        """What each request carried."""
        return [request.body for request in self.network.requests]


@pytest.fixture
async def virtual() -> AsyncIterator[Callable[..., VirtualMParticle]]:
    """Yield a function that makes clients in virtual time; they are shut down."""
    clients: list[VirtualMParticle] = []

    def make(*answers: Answer, **options: Any) -> VirtualMParticle:
        clients.append(VirtualMParticle(*answers, **options))
        return clients[-1]

    yield make
    for client in clients:
        stats = await client.shutdown(0)
        assert stats.balanced, stats


@dataclass(frozen=True)
class Recorded:
    """One request as a server sees it."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(self.raw)


@dataclass
class Recorder:
    """A server that takes everything and remembers it."""

    url: str = ""
    requests: list[Recorded] = field(default_factory=list)
    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        """Remember a request and answer as told."""
        raw = await request.read()
        self.requests.append(
            Recorded(request.method, request.path, request.headers, raw)
        )
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """Yield a server that remembers requests byte by byte."""
    recording = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recording.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    recording.url = f"http://{host}:{port}"
    yield recording
    await runner.cleanup()
