"""Servers as real processes, and clients that ask them until they end."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from amplitude_async.emulator import Emulator
from tests.conftest import free_port

__all__ = [
    "BOUNDED_WORKER",
    "STILL",
    "UVICORN_WORKER",
    "Command",
    "Load",
    "Serve",
    "Server",
    "arrived",
    "busy",
    "row",
    "serve",
    "until",
]

HERE = Path(__file__).parent
START_TIMEOUT = 60.0
# Longer than any shutdown that is within its bounds, on a machine that is busy.
ENDS = 30.0
CONNECTIONS = 4
WAITING = 10
# Shorter than any test waits for, so that nothing below is decided by it.
POLL = 0.02
HEAD = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
KEY = "test-key-that-no-log-shows"

# A worker's first batch goes at once, and what comes then waits for its end.
STILL = {"AMPLITUDE_FLUSH_INTERVAL": "600", "AMPLITUDE_FLUSH_QUEUE_SIZE": "2000"}

ASGI = "service:app"
BIND = "127.0.0.1:{port}"
COMMANDS: dict[str, tuple[str, ...]] = {
    "uvicorn": ("-m", "uvicorn", ASGI, "--port", "{port}", "--no-access-log"),
    "gunicorn": ("-m", "gunicorn", ASGI, "--bind", BIND, "--no-control-socket"),
    "hypercorn": ("-m", "hypercorn", ASGI, "--bind", BIND),
    "granian": ("-m", "granian", "--interface", "asgi", "--port", "{port}", ASGI),
    "aiohttp": (str(HERE / "aiohttp_service.py"), "{port}", "{shutdown_timeout}"),
}


UVICORN_WORKER = "uvicorn_worker.UvicornWorker"
BOUNDED_WORKER = "bounded_worker.BoundedWorker"


class Command(NamedTuple):
    """What comes after `python` to run a server, and with how many workers."""

    words: tuple[str, ...]
    workers: int


def row(label: str, name: str, *options: str, workers: int = 1, more: Any = ()) -> Any:
    """Make a parameter of a server's command, skipped where it is not installed."""
    needed = {name}
    if {UVICORN_WORKER, BOUNDED_WORKER} & set(options):
        needed |= {"uvicorn_worker"}
    absent = sorted(module for module in needed if not find_spec(module))
    many = ("--workers", str(workers)) if workers > 1 else ()
    return pytest.param(
        Command((*COMMANDS[name], *options, *many), workers),
        *more,
        id=label,
        marks=pytest.mark.skipif(bool(absent), reason=f"not installed: {absent}"),
    )


@dataclass
class Load:
    """Clients that ask over kept connections; an answer names its event."""

    url: str
    answered: dict[str, int] = field(default_factory=dict)
    """Events whose request was answered 200, with the process that answered."""
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def pids(self) -> set[int]:
        """The processes that have answered."""
        return set(self.answered.values())

    def by(self, pid: int) -> set[str]:
        """Return the events that one process has answered for."""
        return {event for event, by in self.answered.items() if by == pid}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Ask, whatever happens to the server, until the block is left."""
        async with aiohttp.ClientSession(trust_env=False) as session:
            self._tasks = [
                asyncio.create_task(self._ask(session)) for _ in range(CONNECTIONS)
            ]
            try:
                yield self
            finally:
                await self.stop()

    async def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, reached: Callable[[], object]) -> None:
        """Go on until something is true of the answers or of the emulator."""
        await until(reached)

    async def waiting(self, emulator: Emulator, workers: int) -> None:
        """Go on until every worker has delivered a batch, and has events waiting."""

        def reached() -> bool:
            there = arrived(emulator)
            each = [self.by(pid) for pid in self.pids]
            return len(each) >= workers and all(
                events & there and len(events - there) >= WAITING for events in each
            )

        await until(reached)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        for number in itertools.count(1):
            # A connection stays with one worker: now and then take another.
            last = {"Connection": "close"} if number % 10 == 0 else {}
            # A server that has ended, or is about to, answers nobody: no event.
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.post(f"{self.url}/track", headers=last) as response:
                    if response.status == 200:
                        answer = await response.json()
                        self.answered[answer["insert_id"]] = answer["pid"]
            await asyncio.sleep(POLL)


class Server:
    """A web server that runs in processes of its own."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, log: Path
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = process.pid
        self._port = port
        self._open: asyncio.StreamWriter | None = None
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that its processes have written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the first process only, as an orchestrator does."""
        os.kill(self.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, as a terminal does."""
        os.killpg(self.pid, number)

    async def busy_for_ever(self) -> None:
        """Open a request that does not end before its worker does."""
        _, self._open = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.write(HEAD % b"endless")
        await until((self._log.parent / "endless").exists)

    async def late(self) -> Callable[[], Awaitable[str]]:
        """Open a request that tracks half a second later; returns what reads it."""
        reader, self._open = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.write(HEAD % b"late")
        await until((self._log.parent / "late").exists)

        async def answer() -> str:
            text = (await reader.read()).decode()
            return text if text.startswith("HTTP/1.1 200") else ""

        return answer

    async def ended(self, timeout: float = ENDS) -> int:
        """Wait until all of its processes are gone; returns the first one's code."""
        async with asyncio.timeout(timeout):
            code = await self._process.wait()
            while self._lives():  # noqa: ASYNC110 - a process tells nobody
                await asyncio.sleep(POLL)
        return code

    async def kill(self) -> None:
        """Leave no process behind."""
        if self._open:
            self._open.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    def _lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


Serve = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def serve(emulator: Emulator, tmp_path: Path) -> Serve:
    """Return a function that runs a server on the emulator, and leaves none behind.

    Its arguments are what comes after `python` and more variables of the environment.
    """
    number = 0

    @asynccontextmanager
    async def start(
        command: Command, *, shutdown_timeout: float = 60.0, **environment: str
    ) -> AsyncIterator[Server]:
        nonlocal number
        number += 1
        port = free_port()
        path = tmp_path / f"server-{number}.log"
        fields = {"port": port, "shutdown_timeout": shutdown_timeout}
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(part.format_map(fields) for part in command.words),
                cwd=tmp_path,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(
                        (os.environ["PYTHONPATH"], str(HERE))
                    ),
                    "AMPLITUDE_API_KEY": KEY,
                    "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
                    "AMPLITUDE_TRUST_ENV": "false",
                    "MARKS": str(tmp_path),
                    **environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(process, port, path)
        try:
            yield server
        except BaseException:
            sys.stderr.write(server.log)
            raise
        finally:
            await server.kill()

    return start


def arrived(emulator: Emulator) -> set[str]:
    """Name the events at the emulator."""
    return {event["insert_id"] for event in emulator.events}


async def until(reached: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(START_TIMEOUT):
        while not reached():  # noqa: ASYNC110 - nor does another process
            await asyncio.sleep(POLL)


@asynccontextmanager
async def busy(
    serve: Serve, command: Command, emulator: Emulator, **more: Any
) -> AsyncIterator[tuple[Server, Load]]:
    """Run a server that is asked all the time, once events wait in each worker."""
    async with serve(command, **more) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        yield server, load
