"""The control API and the page, over real sockets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session whose base is the emulator."""
    async with aiohttp.ClientSession(emulator.url) as open_session:
        yield open_session


async def send(session: aiohttp.ClientSession, *numbers: int) -> None:
    """Send events that are told apart by a number."""
    events = [{"event_type": "click", "user_id": "user-1", "n": n} for n in numbers]
    payload = {"api_key": "top-secret", "events": events}
    async with session.post("/2/httpapi", json=payload) as response:
        assert response.status == 200


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    """Return the JSON answer of a control path."""
    async with session.get(path) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return await response.json()


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [2, 3, 4]),
        ("?limit=2", [3, 4]),
        ("?limit=0", []),
        ("?limit=99999", [2, 3, 4]),
        ("?after=0", [2, 3, 4]),
        ("?after=3", [3, 4]),
        ("?after=2&limit=1", [2]),
        ("?after=5", []),
        ("?after=50", []),
    ],
)
async def test_events_are_paged(query: str, numbers: list[int]) -> None:
    """Without `after` the newest come, with it those that follow that many."""
    async with (
        Emulator(keep=3) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        await send(session, 0, 1, 2, 3, 4)
        answer = await get(session, "/_emulator/events" + query)
    assert [event["n"] for event in answer["events"]] == numbers
    assert answer["total"] == 5


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "after=", "after=1.5"])
async def test_bad_number_is_explained(
    session: aiohttp.ClientSession, query: str
) -> None:
    """A bad query parameter is named with its value and the remedy."""
    name = query.partition("=")[0]
    answer = await get(session, f"/_emulator/events?{query}")
    assert answer["error"].startswith(f"{name} is ")
    assert "whole number" in answer["error"]


async def test_requests_and_stats_hold_no_secret(
    session: aiohttp.ClientSession,
) -> None:
    """Requests are told by numbers and status, never with headers or key."""
    await send(session, 1, 2)
    listed = await get(session, "/_emulator/requests?limit=5")
    (request,) = listed["requests"]
    assert (request["status"], request["events"], request["fault"]) == (200, 2, None)
    stats = await get(session, "/_emulator/stats")
    assert (stats["events_ingested"], stats["by_status"]) == (2, {"200": 1})
    assert "top-secret" not in str(listed) + str(stats)


async def test_faults_over_http(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Faults are posted alone or as a list, listed and cleared."""
    path = "/_emulator/faults"
    throttle = {"kind": "throttle", "user_ids": ["user-9"]}
    async with session.post(path, json={"status": 503}) as response:
        assert response.status == 200
    async with session.post(path, json=[throttle, {"delay": 1}]) as response:
        posted = await response.json()
    assert [one["name"] for one in posted["faults"]] == [
        "status 503",
        "throttle",
        "delay",
    ]
    assert await get(session, path) == posted
    assert len(emulator.faults.pending) == 3
    async with session.delete(path) as response:
        assert await response.json() == {"faults": []}
    assert not emulator.faults.pending


@pytest.mark.parametrize("data", [b"{", b"5", b'[{"status": 503}, {"oops": 1}]'])
async def test_bad_fault_adds_nothing(
    emulator: Emulator, session: aiohttp.ClientSession, data: bytes
) -> None:
    """One bad fault refuses the whole list, with a reason."""
    headers = {"Content-Type": "application/json"}
    path = "/_emulator/faults"
    async with session.post(path, data=data, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]
    assert not emulator.faults.pending


async def test_reset_forgets(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A reset empties events, counters and faults."""
    await send(session, 1)
    emulator.faults.add(Fault(500))
    async with session.post("/_emulator/reset", json={}) as response:
        assert (await response.json())["requests"] == 0
    assert emulator.events == []
    assert not emulator.faults.pending
    await send(session, 2)
    assert (await get(session, "/_emulator/events"))["total"] == 1


async def test_page_stands_alone(session: aiohttp.ClientSession) -> None:
    """The page loads nothing from elsewhere, and no text becomes markup in it."""
    async with session.get("/") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        texts = [await response.text()]
    named = re.findall(r"""(?:src|href)=["']([^"']*)""", texts[0])
    for address in named:
        assert address.startswith(("/_emulator/page/", "#", "data:")), address
    for name in re.findall(r"/_emulator/page/[\w.-]+\.js", texts[0]):
        async with session.get(name) as response:
            texts.append(await response.text())
    for unwanted in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
        assert unwanted not in "".join(texts)


async def test_control_requests_are_not_counted(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Looking at the emulator changes none of its counters."""
    for path in ("/_emulator/events", "/_emulator/requests", "/_emulator/stats"):
        await get(session, path)
    assert emulator.stats.requests == 0
