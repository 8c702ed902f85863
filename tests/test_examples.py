"""The examples are real services: started, asked over HTTP, stopped by a signal."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

# uvicorn dies of the signal once it has shut down, aiohttp returns.
SERVICES = [("fastapi_service.py", -signal.SIGTERM), ("aiohttp_service.py", 0)]


@pytest.mark.parametrize(("name", "exit_code"), SERVICES)
async def test_an_example_delivers_before_it_stops(
    name: str, exit_code: int, emulator: Emulator, start_example: Callable[..., Any]
) -> None:
    """Events of requests served are at the server when the service has stopped."""
    users = [f"user-{number}" for number in range(20)]
    async with start_example(name) as service:
        async with aiohttp.ClientSession(service.url) as session:
            for user in users:
                async with session.post(f"/users/{user}") as response:
                    assert await response.json() == {"welcome": user}
        ended, _ = await service.stop()

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
