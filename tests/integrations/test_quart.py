"""The ASGI parts in Quart, whose application never sees the server's state."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator

pytest.importorskip("quart")
pytest.importorskip("hypercorn")

__all__: list[str] = []

USERS = [f"user-{number}" for number in range(20)]


async def test_the_example_delivers_before_it_stops(
    emulator: Emulator, start_example: Callable[..., Any]
) -> None:
    """Under hypercorn: events and requests are at the server with their users."""
    async with start_example("quart_service.py") as service:
        async with aiohttp.ClientSession(service.url) as session:
            for user in USERS:
                async with session.post(f"/users/{user}") as response:
                    assert await response.json() == {"welcome": user}
            async with session.get("/nowhere") as response:
                assert response.status == 404
        ended, log = await service.stop()

    assert (ended, "Traceback" in log) == (0, False)
    for kind in ("Signed Up", "Request"):
        events = [e for e in emulator.events if e["event_type"] == kind]
        assert sorted(event["user_id"] for event in events) == sorted(USERS)
        assert {event["ip"] for event in events} == {"127.0.0.1"}
    told = [event["event_properties"] for event in events]
    assert {(p["route"], p["status"]) for p in told} == {("/users/<user_id>", 200)}
