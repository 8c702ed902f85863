"""The fixtures of the plugin, in suites of every kind."""

import subprocess
import sys

import pytest

from tests.plugin.conftest import Suite

__all__: list[str] = []

# The service of the project's own notes, as its author wishes to write it.
SERVICE = """
from typing import Annotated
from fastapi import Depends, FastAPI
from amplitude_async import Revenue, bind
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.integrations.fastapi import AmplitudeDep

async def user() -> str:
    bind(user_id="user-1")
    return "user-1"

User = Annotated[str, Depends(user)]
app = FastAPI(lifespan=amplitude_lifespan())
app.add_middleware(AmplitudeMiddleware)

@app.post("/orders/{order}")
async def pay(order: str, total: float, _: User, amplitude: AmplitudeDep) -> None:
    await amplitude.revenue(Revenue(revenue=total), insert_id=f"paid-{order}")
    await amplitude.track("Order Paid", event_properties={"order": order})
"""
SYNCHRONOUS = """
import os, unittest
import pytest
from fastapi.testclient import TestClient
from amplitude_async.sync import SyncAmplitude, SyncMParticle
from amplitude_async.mparticle import Batch
from amplitude_async.mparticle.models.events import CustomEvent
from service import app

AUTH = {}

@pytest.fixture
def http():
    with TestClient(app) as client:
        yield client

def test_pay(amplitude_events, http):
    http.post("/orders/o-1?total=9.5", headers=AUTH)
    amplitude_events.assert_tracked(
        "Order Paid", user_id="user-1", order="o-1", times=1)
    amplitude_events.assert_revenue(9.5, user_id="user-1")

def test_each_test_has_its_own(amplitude_events):
    amplitude_events.assert_not_tracked("Order Paid")

def test_without_a_key(amplitude_events):
    with SyncAmplitude.from_env() as client:
        client.track("Paid", user_id="user-1")
        amplitude_events.assert_tracked("Paid", times=1)

def test_emulator(amplitude_emulator, http):
    http.post("/orders/o-1?total=9.5", headers=AUTH)
    amplitude_emulator.wait_for_sync("Order Paid", order="o-1", timeout=20)

def test_emulator_of_both_vendors(amplitude_emulator):
    paid = CustomEvent(event_name="Paid", custom_event_type="other")
    batch = Batch(environment="development", events=[paid],
                  user_identities={"customer_id": "user-1"})
    with SyncMParticle.from_env() as client:
        assert client.upload(batch).ok
        client.send(batch)
    assert len(amplitude_emulator.batches) == 2

def test_environment_is_as_before():
    names = ("AMPLITUDE_SERVER_URL", "AMPLITUDE_API_KEY", "MPARTICLE_BASE_URL",
             "MPARTICLE_API_KEY", "MPARTICLE_API_SECRET", "AMPLITUDE_TRUST_ENV")
    first, *rest = map(os.environ.get, names)
    assert (first, rest) == ("https://a.vendor/", [None] * 5)

def test_clock(amplitude_emulator, amplitude_clock):
    with SyncAmplitude.from_env(flush_interval=3600) as client:
        client.track("Paid", user_id="user-1")
        amplitude_clock.advance_sync(0)
        assert not amplitude_emulator.events
        amplitude_clock.advance_sync(3600)
        amplitude_emulator.wait_for_sync("Paid", timeout=20)

def test_clock_of_a_service(monkeypatch, amplitude_emulator, amplitude_clock):
    monkeypatch.setenv("AMPLITUDE_FLUSH_INTERVAL", "3600")
    with TestClient(app) as http:
        http.post("/orders/o-1?total=9.5", headers=AUTH)
        amplitude_clock.advance_sync(0)
        assert not amplitude_emulator.events
        amplitude_clock.advance_sync(3600)
        amplitude_emulator.wait_for_sync("Order Paid", timeout=20)

@pytest.mark.usefixtures("amplitude_emulator")
class TestEmulated(unittest.TestCase):
    def test_unittest_emulated(self):
        with SyncAmplitude.from_env() as client:
            assert client.track("Paid", user_id="user-1").result(20).ok

class TestCaptured(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def take(self, amplitude_events):
        self.events = amplitude_events

    def test_unittest(self):
        with TestClient(app) as http:
            http.post("/orders/o-1?total=9.5")
        self.events.assert_tracked("Order Paid", order="o-1", times=1)

class TestAsync(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def take(self, amplitude_events):
        self.events = amplitude_events

    async def test_isolated(self):
        from amplitude_async import Amplitude
        async with Amplitude() as client:
            await client.track("Paid", user_id="user-1")
            self.events.assert_tracked("Paid", times=1)
"""
ASYNCHRONOUS = """
import httpx
import pytest
from amplitude_async import Amplitude
from service import app

AUTH = {}
MARK

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_pay(amplitude_events):
    async def served(scope, receive, send):
        await app({**scope, "state": dict(state)}, receive, send)
    transport = httpx.ASGITransport(served)
    async with (
        app.router.lifespan_context(app) as state,
        httpx.AsyncClient(transport=transport, base_url="http://here") as http,
    ):
        await http.post("/orders/o-1?total=9.5", headers=AUTH)
        amplitude_events.assert_tracked(
            "Order Paid", user_id="user-1", order="o-1", times=1)
        amplitude_events.assert_revenue(9.5, user_id="user-1")

async def test_clock(amplitude_emulator, amplitude_clock):
    async with Amplitude.from_env(flush_interval=3600) as client:
        delivery = await client.track("Paid", user_id="user-1")
        await amplitude_clock.settle()
        assert not amplitude_emulator.events
        await amplitude_clock.advance(3600)
        await amplitude_emulator.wait_for("Paid", timeout=20)
        assert (await delivery).ok

async def test_caught():
    async with Amplitude("some-key") as client:
        await client.track("Paid", user_id="user-1")
"""
AIOHTTP = """
from aiohttp import web
from amplitude_async import Amplitude

async def application():
    async def life(app):
        async with Amplitude.from_env() as app["amplitude"]:
            yield
    async def pay(request):
        await request.app["amplitude"].track("Paid", user_id="user-1")
        return web.Response()
    app = web.Application()
    app.cleanup_ctx.append(life)
    app.router.add_post("/paid", pay)
    return app

async def test_pay(amplitude_events, aiohttp_client):
    http = await aiohttp_client(await application())
    await http.post("/paid")
    amplitude_events.assert_tracked("Paid", user_id="user-1", times=1)

async def test_clock(amplitude_emulator, aiohttp_client):
    http = await aiohttp_client(await application())
    await http.post("/paid")
    await amplitude_emulator.wait_for("Paid", timeout=20)
"""
WAYS = {
    "asyncio-auto": (("-o", "asyncio_mode=auto"), ""),
    "asyncio-strict": (
        ("-o", "asyncio_mode=strict"),
        "pytestmark = pytest.mark.asyncio",
    ),
    "anyio": (("-p", "no:asyncio"), "pytestmark = pytest.mark.anyio"),
}


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_synchronous_tests_and_classes(suite: Suite, workers: tuple[str, ...]) -> None:
    """Nobody awaits or flushes anything, and no plugin for asyncio is needed."""
    files = {"service.py": SERVICE, "test_it.py": SYNCHRONOUS}
    chosen = ("-p", "no:asyncio", "-p", "no:anyio", *workers)
    run = suite(*chosen, files=files, AMPLITUDE_SERVER_URL="https://a.vendor/")
    assert len(run.outcomes) == 11, run.text
    assert set(run.outcomes.values()) == {"PASSED"}, run.text
    assert run.names == []


@pytest.mark.parametrize("way", WAYS)
def test_asynchronous_tests(suite: Suite, way: str) -> None:
    """Whatever runs their loops."""
    chosen, mark = WAYS[way]
    test = ASYNCHRONOUS.replace("MARK", mark)
    run = suite(*chosen, files={"service.py": SERVICE, "test_it.py": test})
    assert run.outcomes == {
        "test_pay": "PASSED",
        "test_clock": "PASSED",
        "test_caught": "FAILED",
    }, run.text
    assert run.names == []


def test_tests_of_pytest_aiohttp(suite: Suite) -> None:
    """Its client and the service run on the loop of the test."""
    pytest.importorskip("pytest_aiohttp")
    run = suite("-o", "asyncio_mode=auto", files={"test_it.py": AIOHTTP})
    assert run.outcomes == {"test_pay": "PASSED", "test_clock": "PASSED"}, run.text


NOTHING = """
import sys

def test_nothing():
    heavy = ("amplitude_async", "aiohttp", "pydantic")
    assert [name for name in heavy if name in sys.modules] == []

def test_something(amplitude_events):
    assert "amplitude_async" in sys.modules
"""


def test_nothing_is_imported_until_a_fixture_is_used(suite: Suite) -> None:
    """So that a suite pays for nothing, and coverage counts from the first line."""
    others = ("hypothesispytest", "anyio", "asyncio", "timeout", "xdist", "aiohttp")
    off = [argument for name in others for argument in ("-p", f"no:{name}")]
    run = suite(*off, files={"test_it.py": NOTHING})
    assert run.outcomes == {"test_nothing": "PASSED", "test_something": "PASSED"}


def test_the_plugin_imports_pytest_and_the_standard_library_alone() -> None:
    """Measured by what is there afterwards."""
    code = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import _amplitude_async_pytest\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*(new - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["_amplitude_async_pytest"]


def test_without_the_plugin_there_is_nothing(suite: Suite) -> None:
    """Neither fixtures nor the marker."""
    run = suite("-p", "no:amplitude_async", files={"test_it.py": NOTHING})
    assert run.outcomes["test_something"] == "ERROR"
    assert "fixture 'amplitude_events' not found" in run.text
