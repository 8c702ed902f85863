"""Fixtures for the whole suite: clients, processes, and what holds in every test."""

import asyncio
import itertools
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

import amplitude_async
from amplitude_async import Config
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.parts import Site
from amplitude_async.delivery.transport import Transport
from amplitude_async.storage import MemoryStorage, Storage

if TYPE_CHECKING:
    from amplitude_async import Amplitude
    from amplitude_async.emulator import Emulator

__all__ = [
    "Endless",
    "accounted",
    "background_emulator",
    "blocking_calls_fail",
    "clients",
    "connect",
    "default_options",
    "emulator",
    "engine_of",
    "examples",
    "free_port",
    "importable_package",
    "interruptible",
    "self_signed",
    "start_example",
]

KEY = "0123456789abcdef-secret"
CLI_TESTS = Path(__file__).parent / "cli"
EXAMPLES = Path(__file__).parents[1] / "examples"
START_TIMEOUT = 20.0
PORTS = range(20_000, 32_000)
EAGER = bool(os.environ.get("AMPLITUDE_ASYNC_EAGER"))


class Endless(Mapping[str, int]):
    """A mapping that never ends, whatever length it claims."""

    def __init__(self, length: int = sys.maxsize) -> None:
        self._length = length

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        return self._length


# In checks a failure must come from the change, not from the dice or the machine.
settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# `nox -s model` throws other dice, for longer, and says with which seed.
settings.register_profile(
    "long",
    settings.get_profile("ci"),
    derandomize=False,
    max_examples=int(os.environ.get("AMPLITUDE_ASYNC_EXAMPLES", "100")),
)
# The code is the same on each interpreter: one throws all dice, the others a few.
settings.register_profile("few", settings.get_profile("ci"), max_examples=20)


def examples(usual: int) -> int:
    """Scale a number of examples by the profile, whose own is 100 as a rule."""
    most = settings().max_examples
    return max(usual, most) if most > 100 else max(usual * most // 100, 1)


# Cut off in the middle, an example looks to Hypothesis like one that does not repeat.
EXAMPLES_TIMEOUT = 600

# Without the extra, these files could not even be imported.
collect_ignore = [] if find_spec("typer") else ["cli"]


@pytest.hookimpl(trylast=True)  # when Hypothesis has marked its own
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Mark tests of the command line, and give those of many examples their time."""
    for item in items:
        if item.path.is_relative_to(CLI_TESTS):
            item.add_marker("cli")
        if (
            item.get_closest_marker("hypothesis")
            and config.getoption("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(EXAMPLES_TIMEOUT))


class EagerPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes loops whose tasks start at once, as some hosts have them."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop with the eager task factory, which came with Python 3.12."""
        loop = super().new_event_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - older Pythons lack it
        return loop


def pytest_configure() -> None:
    """Let `AMPLITUDE_ASYNC_EAGER` change what every loop of the tests is like."""
    if EAGER:
        asyncio.set_event_loop_policy(EagerPolicy())


@pytest.fixture(autouse=True)
def blocking_calls_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make a blocking call of ours on a running loop raise, and so fail the test."""
    if request.node.get_closest_marker("allow_blocking"):
        yield
        return
    with blockbuster_ctx(scanned_modules=["amplitude_async"]) as guard:
        if sys.gettrace() is not None:
            # Coverage takes a lock of its own at any line of any thread, and what the
            # guard raised there would come out of that line.
            for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
                guard.functions[name].deactivate()
        yield


@pytest.fixture(scope="session", autouse=True)
def importable_package() -> Iterator[None]:
    """Let child processes find the package that is being tested, installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(amplitude_async.__file__).parents[1]))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Hear Ctrl-C, and let child processes hear it: a job in the background may not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
async def emulator() -> AsyncIterator["Emulator"]:
    """Yield a running local Amplitude server."""
    # Here and not above, so that tests of other parts need no emulator to start.
    from amplitude_async.emulator import Emulator  # noqa: PLC0415

    async with Emulator() as running:
        yield running


@pytest.fixture
def background_emulator() -> Iterator["Emulator"]:
    """Yield an emulator that runs beside a synchronous test, on a loop of its own."""
    from amplitude_async.emulator import Emulator  # noqa: PLC0415 - as above

    with Emulator() as running:
        yield running


# Clients --------------------------------------------------------------------


@pytest.fixture
def clients() -> list[Any]:
    """Return the list of all clients that `accounted` looks after."""
    return []


@pytest.fixture
async def accounted(
    emulator: "Emulator", clients: list[Any], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that takes a client, and its secrets, into care.

    Whatever the test does with them, the accounts of clients add up before and after
    their shutdown, nothing stays undecided, and no line of the log holds a secret.
    """
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    secrets: set[str] = set()

    def take(client: Any, *hidden: str) -> Any:
        clients.append(client)
        secrets.update(hidden)
        return client

    yield take
    for client in clients:
        check_account(client.stats)
        stats = await client.shutdown(0.2)
        check_account(stats)
        assert {stats.pending, *(d.pending for d in stats.destinations.values())} == {0}
    lines = "".join(record.getMessage() for record in caplog.get_records("call"))
    assert [secret for secret in secrets if secret in lines] == []


def check_account(stats: "amplitude_async.Stats") -> None:
    """Fail unless the account of each destination adds up."""
    assert stats.balanced, stats
    for name, other in stats.destinations.items():
        assert other.balanced, (name, other)


@pytest.fixture
def default_options() -> Callable[[], dict[str, Any]]:
    """Return what gives each client its options; folders have it in their own way."""
    return dict


@pytest.fixture
def connect(
    emulator: "Emulator",
    # Before the clients and so after them: what it promises holds when they are gone.
    default_options: Callable[[], dict[str, Any]],
    accounted: Callable[..., Any],
) -> Callable[..., "Amplitude"]:
    """Return a function that makes clients of the emulator."""

    def make(**options: Any) -> "Amplitude":
        given = {"server_url": emulator.httpapi_url, **default_options(), **options}
        client: Amplitude = accounted(amplitude_async.Amplitude(KEY, **given), KEY)
        return client

    return make


# Engines --------------------------------------------------------------------


def engine_of(
    config: Config,
    transport: Transport,
    clock: Clock,
    *,
    storage: Storage | None = None,
    seed: int = 1,
) -> Engine:
    """Build an engine of one's own, without a client around it."""
    site = Site.make(
        AmplitudeEndpoint(config),
        config,
        transport=transport,
        clock=clock,
        rng=random.Random(seed),
        max_age=config.max_event_age,
        client_id=1,
    )
    return Engine(site, storage or MemoryStorage())


# Services -------------------------------------------------------------------


class Service:
    """An example that runs in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._port = port

    async def listening(self) -> None:
        """Wait until it accepts connections; fail if it ends before."""
        async with asyncio.timeout(START_TIMEOUT):
            while self._process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except ConnectionError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return
        pytest.fail("the service ended before it listened")

    async def stop(self) -> tuple[int | None, str]:
        """Terminate it as an orchestrator does; returns its exit code and its log."""
        self._process.terminate()
        ending = self._process.communicate()
        _, log = await asyncio.wait_for(ending, START_TIMEOUT)
        return self._process.returncode, log.decode()


@pytest.fixture
def start_example(
    emulator: "Emulator",
) -> Callable[..., AbstractAsyncContextManager[Service]]:
    """Return a function that runs an example on the emulator, and leaves none behind.

    Its arguments are the file's name and more variables of the environment.
    """

    @asynccontextmanager
    async def start(name: str, **environment: str) -> AsyncIterator[Service]:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / name),
            env={
                **os.environ,
                "AMPLITUDE_API_KEY": "test-key-that-no-log-shows",
                "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
                # A proxy of this machine has no business on loopback.
                "AMPLITUDE_TRUST_ENV": "false",
                "PORT": str(port),
                **environment,
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        service = Service(process, port)
        try:
            await service.listening()
            yield service
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return start


def free_port() -> int:
    """Return a port that nobody listens on.

    Below those that a system gives to who asks for any: until it is used, none of the
    servers that other tests start at this moment is given this one.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"each port of {PORTS} is taken")


def self_signed(folder: Path) -> ssl.SSLContext:
    """Make a certificate that only its owner believes in."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", str(key), "-out", str(certificate), "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *subject],  # noqa: S607 - wherever it is installed
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
