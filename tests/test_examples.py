"""The examples are real services: started, asked over HTTP, stopped by a signal."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import amplitude_async
from amplitude_async.emulator import Emulator

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
START_TIMEOUT = 20.0

# uvicorn dies of the signal once it has shut down, aiohttp returns.
SERVICES = [("fastapi_service.py", -signal.SIGTERM), ("aiohttp_service.py", 0)]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until the process accepts connections; fail if it ends before."""
    async with asyncio.timeout(START_TIMEOUT):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
    pytest.fail("the example ended before it listened")


@asynccontextmanager
async def started(
    name: str, port: int, emulator: Emulator
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example in a process of its own, and leave none behind."""
    package_parent = str(Path(amplitude_async.__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        env={
            **os.environ,
            "AMPLITUDE_API_KEY": "test-key",
            "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
            # A proxy of this machine has no business on loopback.
            "AMPLITUDE_TRUST_ENV": "false",
            "PORT": str(port),
            "PYTHONPATH": package_parent,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(("name", "exit_code"), SERVICES)
async def test_an_example_delivers_before_it_stops(
    name: str, exit_code: int, emulator: Emulator
) -> None:
    """Events of requests served are at the server when the service has stopped."""
    port = free_port()
    users = [f"user-{number}" for number in range(20)]
    async with started(name, port, emulator) as process:
        await listening(process, port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for user in users:
                async with session.post(f"/users/{user}") as response:
                    assert await response.json() == {"welcome": user}
        process.terminate()
        ended = await asyncio.wait_for(process.wait(), START_TIMEOUT)

    assert ended == exit_code
    assert sorted(event["user_id"] for event in emulator.events) == sorted(users)
    assert {event["event_type"] for event in emulator.events} == {"Signed Up"}


def test_the_first_example_of_the_readme_is_the_one_that_runs() -> None:
    """What a newcomer reads first is, but for its frame, the tested FastAPI service."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = (EXAMPLES / "fastapi_service.py").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block
    shown = [line for line in block[1].splitlines() if line]
    tested = example.splitlines()

    assert [line for line in shown if line not in tested] == []
