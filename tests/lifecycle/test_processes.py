"""Real services under a failing server: they stop in time and say what they lost."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import amplitude_async
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
START_TIMEOUT = 20.0
USERS = [f"user-{number}" for number in range(20)]

# uvicorn dies of the signal once it has shut down, aiohttp returns.
SERVICES = pytest.mark.parametrize(
    ("name", "exit_code"),
    [("fastapi_service.py", -signal.SIGTERM), ("aiohttp_service.py", 0)],
)
PYTHONPATH = str(Path(amplitude_async.__file__).parents[1])


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
    pytest.fail("the service ended before it listened")


@asynccontextmanager
async def service(
    name: str, port: int, emulator: Emulator
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example in a process of its own, and leave none behind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        env={
            **os.environ,
            "AMPLITUDE_API_KEY": "test-key-that-no-log-shows",
            "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
            # Nothing is sent before the signal comes.
            "AMPLITUDE_FLUSH_INTERVAL": "3600",
            "AMPLITUDE_RETRY_MAX_INTERVAL": "0.2",
            "AMPLITUDE_SHUTDOWN_TIMEOUT": "1.0",
            "PORT": str(port),
            "PYTHONPATH": PYTHONPATH,
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def serve_and_stop(
    name: str, emulator: Emulator, fault: Fault
) -> tuple[int | None, str]:
    """Serve twenty users, let the server fail, terminate; returns code and log."""
    port = free_port()
    async with service(name, port, emulator) as process:
        await listening(process, port)
        emulator.faults.add(fault)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for user in USERS:
                async with session.post(f"/users/{user}") as response:
                    assert response.status == 200
        process.terminate()
        _, log = await asyncio.wait_for(process.communicate(), START_TIMEOUT)
    return process.returncode, log.decode()


@SERVICES
async def test_a_signal_drains_through_failures(
    name: str, exit_code: int, emulator: Emulator
) -> None:
    """SIGTERM while the server fails for a while loses nothing."""
    code, _ = await serve_and_stop(name, emulator, Fault(503, count=2))

    assert code == exit_code
    assert sorted(event["user_id"] for event in emulator.events) == sorted(USERS)


@SERVICES
async def test_a_signal_is_obeyed_though_the_server_is_stuck(
    name: str, exit_code: int, emulator: Emulator
) -> None:
    """A server that never answers holds a service up for the shutdown timeout only."""
    stuck = Fault(500, delay=float("inf"), count=None)
    code, log = await serve_and_stop(name, emulator, stuck)

    assert code == exit_code
    assert "not delivered before the shutdown deadline" in log
    assert "[dropped shutdown x20]" in log
    assert "test-key-that-no-log-shows" not in log
    assert "Traceback" not in log


def test_a_process_that_forgets_to_shut_down_is_warned() -> None:
    """A process that ends with events in a client is warned, with their number."""
    script = """
    import asyncio
    from amplitude_async import Amplitude

    async def main():
        client = Amplitude("key", server_url="http://127.0.0.1:9/", trust_env=False)
        for _ in range(3):
            await client.track("e", user_id="user-1")

    asyncio.run(main())
    """
    finished = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        check=True,
        text=True,
        timeout=START_TIMEOUT,
    )

    assert "ResourceWarning: unclosed client with 3 undelivered" in finished.stderr
    assert "Traceback" not in finished.stderr
