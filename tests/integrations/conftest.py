"""Fixtures for the tests of integrations: a queue server, and workers that run."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from amplitude_async.emulator import Emulator

__all__ = ["options", "redis_greets", "redis_url", "sign_up_at", "start_worker"]

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 30.0


@pytest.fixture
def redis_greets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server that speaks like Redis tell its version, as workers ask for it."""
    pytest.importorskip("fakeredis")
    from fakeredis import _commands  # noqa: PLC0415
    from fakeredis._socket import FakeSocket  # noqa: PLC0415

    def info(_: Any, *sections: bytes) -> bytes:
        return b"# Server\r\nredis_version:7.0.0\r\n"

    make: Any = _commands.Signature
    signature = make("info", "info", (), (bytes,), "")
    monkeypatch.setattr(FakeSocket, "info", info, raising=False)
    monkeypatch.setitem(_commands.SUPPORTED_COMMANDS, "info", signature)


@pytest.fixture
def redis_url(redis_greets: None) -> Iterator[str]:
    """Yield the URL of a server that speaks like Redis, on a port of its own."""
    fakeredis = pytest.importorskip("fakeredis")
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


@pytest.fixture
def options(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the options of a client of the emulator, whose key is in a variable."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", "key")
    return {"server_url": emulator.httpapi_url, "trust_env": False}


@pytest.fixture
def sign_up_at(
    emulator: Emulator, start_example: Callable[..., Any]
) -> Callable[[str], Awaitable["SignedUp"]]:
    """Return a function that lets users sign up at an example, and terminates it.

    Whoever asks for a page that is not there is nobody, and leaves no event.
    """
    users = [f"user-{number}" for number in range(20)]

    async def sign_up(example: str) -> SignedUp:
        async with start_example(example) as service:
            async with aiohttp.ClientSession(service.url) as session:
                for user in users:
                    async with session.post(f"/users/{user}") as response:
                        assert await response.json() == {"welcome": user}
                async with session.get("/nowhere") as response:
                    assert response.status == 404
            ended, log = await service.stop()

        told: list[dict[str, Any]] = []
        for kind in ("Signed Up", "Request"):
            told = [e for e in emulator.events if e["event_type"] == kind]
            assert sorted(event["user_id"] for event in told) == sorted(users)
            assert {event["ip"] for event in told} == {"127.0.0.1"}
        requests = [event["event_properties"] for event in told]
        return SignedUp(ended, log, {(r["route"], r["status"]) for r in requests})

    return sign_up


class SignedUp(NamedTuple):
    """How an example ended, and the requests that it has told of."""

    exit_code: int
    log: str
    requests: set[tuple[str, int]]


class Worker:
    """A worker that runs in a process of its own, and what it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.log = ""
        self._process = process

    async def wrote(self, text: str, times: int = 1) -> None:
        """Wait until it has written a text so many times; fail if it ends before."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            while self.log.count(text) < times:
                line = await self._process.stdout.readline()
                if not line:
                    pytest.fail(f"the worker ended before it wrote {text}:\n{self.log}")
                self.log += line.decode(errors="replace")

    async def stop(self) -> int:
        """Terminate it as an orchestrator does; returns its exit code."""
        self._process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it has ended; returns its exit code."""
        rest, _ = await asyncio.wait_for(self._process.communicate(), START_TIMEOUT)
        self.log += rest.decode(errors="replace")
        assert self._process.returncode is not None
        return self._process.returncode


@pytest.fixture
def start_worker(
    emulator: Emulator,
) -> Callable[..., AbstractAsyncContextManager[Worker]]:
    """Return a function that runs a worker on the emulator, and leaves none behind.

    Its arguments are those of the interpreter, and more variables of the environment.
    """

    @asynccontextmanager
    async def start(
        *arguments: str, folder: Path = ROOT, **environment: str
    ) -> AsyncIterator[Worker]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=folder,
            env={
                **os.environ,
                "AMPLITUDE_API_KEY": "test-key-that-no-log-shows",
                "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
                "AMPLITUDE_TRUST_ENV": "false",
                # What waits is sent by the drained shutdown alone.
                "AMPLITUDE_FLUSH_INTERVAL": "600",
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Worker(process)
        finally:
            # Its children too, where it has died before them.
            if process.returncode is None:
                os.killpg(process.pid, 9)
                await process.wait()

    return start
