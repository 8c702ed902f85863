"""Pages of others may send events, as a browser's SDK does, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

EVENT = {"event_type": "click", "user_id": "user-1"}
REQUEST = {"api_key": "key", "events": [EVENT]}
ELSEWHERE = "https://elsewhere.example"
OWN_PATHS = (
    "/",
    "/_emulator/events",
    "/_emulator/batches",
    "/_emulator/requests",
    "/_emulator/stats",
    "/_emulator/faults",
    "/_emulator/entries",
    "/_emulator/entries/1",
    "/_emulator/users",
    "/_emulator/users/user-1",
    "/_emulator/types",
)
SAFE = "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session whose base is the emulator."""
    async with aiohttp.ClientSession(emulator.url) as open_session:
        yield open_session


async def ask(
    session: aiohttp.ClientSession, method: str, path: str, **options: Any
) -> tuple[int, Any]:
    """Return the status and the body, JSON or text."""
    async with session.request(method, path, **options) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


@pytest.mark.parametrize("path", ["/_emulator/faults", "/_emulator/reset"])
@pytest.mark.parametrize("kind", [*SAFE, "application/octet-stream"])
async def test_only_json_changes_anything(
    emulator: Emulator, session: aiohttp.ClientSession, path: str, kind: str
) -> None:
    """What any page may post without being asked is refused, and the answer says so."""
    await ask(session, "POST", "/2/httpapi", json=REQUEST)
    status, answer = await ask(
        session, "POST", path, data=b'{"status": 503}', headers={"Content-Type": kind}
    )
    assert status == 415
    assert kind in answer["error"]
    assert "application/json" in answer["error"]
    assert not emulator.faults.pending
    assert len(emulator.events) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_emulator/faults"),
        ("DELETE", "/_emulator/faults"),
        ("DELETE", "/_emulator/faults/1"),
        ("POST", "/_emulator/reset"),
        ("POST", "/_emulator/clear"),
        ("GET", "/_emulator/events"),
        ("GET", "/_emulator/feed"),
        ("POST", "/elsewhere"),
    ],
)
@pytest.mark.parametrize(
    "origin", [ELSEWHERE, "null", "http://localhost:1", "http://127.0.0.1", "%"]
)
async def test_pages_of_others_control_nothing(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    method: str,
    path: str,
    origin: str,
) -> None:
    """A request that a browser made for another origin is refused, JSON or not."""
    emulator.faults.add(Fault(status=503))
    headers = {"Origin": origin}
    status, answer = await ask(session, method, path, json={}, headers=headers)
    assert status == 403
    assert "Origin" in answer["error"]
    assert len(emulator.faults.pending) == 1


@pytest.mark.parametrize("path", ["/_emulator/feed", "/_emulator/users", "/"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("dest", ["image", "script", "iframe", "empty"])
async def test_pages_of_others_have_no_work_done(
    session: aiohttp.ClientSession, path: str, site: str, dest: str
) -> None:
    """What a page embeds is asked for without an Origin: the feed has few places."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
    status, answer = await ask(session, "GET", path, headers=headers)
    assert status == 403
    assert "Sec-Fetch-Site" in answer["error"]


@pytest.mark.parametrize(
    ("site", "dest"),
    [("none", "document"), ("cross-site", "document"), ("same-origin", "empty")],
)
async def test_a_link_may_be_followed(
    session: aiohttp.ClientSession, site: str, dest: str
) -> None:
    """From the address bar, from another site, and what the page itself asks."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
    assert (await ask(session, "GET", "/", headers=headers))[0] == 200


async def test_the_page_itself_may_control(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """The emulator's own page has its own origin."""
    status, _ = await ask(
        session, "POST", "/_emulator/reset", json={}, headers={"Origin": emulator.url}
    )
    assert status == 200


@pytest.mark.parametrize("path", [*OWN_PATHS, "/unknown"])
@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:8080", "127.0.0.1.example", ""]
)
async def test_a_rebound_name_reads_nothing(
    session: aiohttp.ClientSession, path: str, host: str
) -> None:
    """A name that somebody points at this machine is not one of the emulator's."""
    await ask(session, "POST", "/2/httpapi", json=REQUEST)
    status, answer = await ask(session, "GET", path, headers={"Host": host})
    assert status == 403
    assert "Host" in answer["error"]
    assert "allowed_hosts" in answer["error"]
    assert "click" not in str(answer)


@pytest.mark.parametrize(
    "host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:80", "10.0.0.1:8080"]
)
async def test_addresses_and_localhost_cannot_be_rebound(
    session: aiohttp.ClientSession, host: str
) -> None:
    """An address is what it is, and localhost is always this machine."""
    status, _ = await ask(session, "GET", "/_emulator/stats", headers={"Host": host})
    assert status == 200


async def test_other_names_can_be_allowed() -> None:
    """A container's name, for instance."""
    async with (
        Emulator(allowed_hosts=["Events.Test"]) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        for host, expected in (("events.test:8080", 200), ("other.test", 403)):
            headers = {"Host": host}
            status, _ = await ask(session, "GET", "/_emulator/stats", headers=headers)
            assert status == expected


def test_allowed_hosts_are_no_single_text() -> None:
    """A text is a collection, too: of letters."""
    with pytest.raises(ValueError, match="allowed_hosts"):
        Emulator(allowed_hosts="events.test")


async def test_events_are_taken_under_any_name(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Whatever a client calls the emulator, it may send."""
    status, _ = await ask(
        session,
        "POST",
        "/2/httpapi",
        json=REQUEST,
        headers={"Host": "events.test", "Origin": ELSEWHERE},
    )
    assert status == 200
    assert emulator.events == [EVENT]


async def test_the_page_cannot_be_framed(session: aiohttp.ClientSession) -> None:
    """Nobody can lay the page under a page of their own and have its button pressed."""
    async with session.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
    for rule in ("frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert rule in policy


@pytest.mark.parametrize("path", OWN_PATHS)
async def test_nothing_is_taken_for_what_it_is_not(
    session: aiohttp.ClientSession, path: str
) -> None:
    """No answer runs as a script, and no page of others may embed one."""
    async with session.get(path) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", ["/2/httpapi", "/batch", "/v2/events"])
async def test_a_browser_may_ask_whether_it_may_send(
    emulator: Emulator, session: aiohttp.ClientSession, path: str
) -> None:
    """The preflight is granted, with the headers asked for, and counts nothing."""
    asked = {
        "Origin": ELSEWHERE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    emulator.faults.add(Fault(status=503))
    async with session.options(path, headers=asked) as response:
        assert response.status == 204
        headers = response.headers
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert emulator.stats.requests == 0
    assert emulator.faults.pending


async def test_a_page_of_another_machine_may_be_granted_too(
    session: aiohttp.ClientSession,
) -> None:
    """A browser asks first whether a local server wants to hear from the outside."""
    asked = {
        "Origin": ELSEWHERE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    async with session.options("/2/httpapi", headers=asked) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Private-Network"] == "true"


async def test_no_preflight_is_granted_elsewhere(
    session: aiohttp.ClientSession,
) -> None:
    """The emulator's own routes are for its own page."""
    asked = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "DELETE"}
    async with session.options("/_emulator/faults", headers=asked) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(None, 200), (Fault(503), 503), (Fault(trickle=0.001, body="ok"), 200)],
)
async def test_a_browser_may_read_the_answer(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    fault: Fault | None,
    expected: int,
) -> None:
    """Good or bad, the answer reaches the SDK in the page."""
    if fault:
        emulator.faults.add(fault)
    headers = {"Origin": ELSEWHERE}
    async with session.post("/batch", json=REQUEST, headers=headers) as response:
        assert response.status == expected
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        await response.read()
    async with session.get("/batch", headers=headers) as response:
        assert response.status == 405
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_preflight_for_no_headers_grants_none(
    session: aiohttp.ClientSession,
) -> None:
    """What is no list of names is not repeated."""
    asked = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST"}
    for more in ({}, {"Access-Control-Request-Headers": "a;b"}):
        async with session.options("/batch", headers=asked | more) as response:
            assert response.status == 204
            assert "Access-Control-Allow-Headers" not in response.headers
