"""Real services under a failing server: they stop in time and say what they lost."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

TIMEOUT = 20.0
USERS = [f"user-{number}" for number in range(20)]

# uvicorn dies of the signal once it has shut down, aiohttp returns.
SERVICES = pytest.mark.parametrize(
    ("name", "exit_code"),
    [("fastapi_service.py", -signal.SIGTERM), ("aiohttp_service.py", 0)],
)
PATIENT = {
    # Nothing is sent before the signal comes.
    "AMPLITUDE_FLUSH_INTERVAL": "3600",
    "AMPLITUDE_RETRY_MAX_INTERVAL": "0.2",
    "AMPLITUDE_SHUTDOWN_TIMEOUT": "1.0",
}


@pytest.fixture
def serve_and_stop(
    emulator: Emulator, start_example: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that serves twenty users and stops; gives code and log.

    The server fails from when the service runs.
    """

    async def serve(name: str, fault: Fault) -> tuple[int | None, str]:
        async with start_example(name, **PATIENT) as service:
            emulator.faults.add(fault)
            async with aiohttp.ClientSession(service.url) as session:
                for user in USERS:
                    async with session.post(f"/users/{user}") as response:
                        assert response.status == 200
            ended: tuple[int | None, str] = await service.stop()
        return ended

    return serve


@SERVICES
async def test_a_signal_drains_through_failures(
    name: str, exit_code: int, emulator: Emulator, serve_and_stop: Callable[..., Any]
) -> None:
    """SIGTERM while the server fails for a while loses nothing."""
    code, _ = await serve_and_stop(name, Fault(503, count=2))

    assert code == exit_code
    assert sorted(event["user_id"] for event in emulator.events) == sorted(USERS)


@SERVICES
async def test_a_signal_is_obeyed_though_the_server_is_stuck(
    name: str, exit_code: int, serve_and_stop: Callable[..., Any]
) -> None:
    """A server that never answers holds a service up for the shutdown timeout only."""
    stuck = Fault(500, delay=float("inf"), count=None)
    code, log = await serve_and_stop(name, stuck)

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
        capture_output=True,
        check=True,
        text=True,
        timeout=TIMEOUT,
    )

    assert "ResourceWarning: unclosed client with 3 undelivered" in finished.stderr
    assert "Traceback" not in finished.stderr
