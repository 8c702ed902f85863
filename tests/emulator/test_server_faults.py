"""Faults over real sockets: what the client sees, what was stored."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

PAYLOAD = {
    "api_key": "key",
    "events": [{"event_type": "click", "user_id": "user-1", "insert_id": "i1"}],
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as open_session:
        yield open_session


async def post(
    session: aiohttp.ClientSession, emulator: Emulator
) -> tuple[int, bytes, str]:
    """Send one good event and return status, body and content type."""
    async with session.post(emulator.httpapi_url, json=PAYLOAD) as response:
        return response.status, await response.read(), response.content_type


@pytest.mark.parametrize(
    ("fault", "status", "body", "content_type", "stored"),
    [
        (
            Fault(503),
            503,
            b'{"code":503,"error":"Service Unavailable"}',
            "application/json",
            0,
        ),
        (Fault(500, body="oops", ingest=True), 500, b"oops", "text/plain", 1),
        (Fault(200, body="no json"), 200, b"no json", "text/plain", 1),
        (Fault(body=b"\0\1"), 200, b"\0\1", "application/octet-stream", 1),
        (Fault(body={"a": 1}), 200, b'{"a":1}', "application/json", 1),
        (
            Fault(400, body="<p>", headers={"content-type": "text/html"}),
            400,
            b"<p>",
            "text/html",
            0,
        ),
        (Fault(204), 204, b"", "application/json", 1),
        (Fault(500, body="abc", trickle=0.0001), 500, b"abc", "text/plain", 0),
        (Fault(500, body="", trickle=0.0001), 500, b"", "text/plain", 0),
    ],
)
async def test_answer_of_a_fault(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    fault: Fault,
    status: int,
    body: bytes,
    content_type: str,
    stored: int,
) -> None:
    """Status, body and type are the fault's, storage follows its rule."""
    emulator.faults.add(fault)
    assert await post(session, emulator) == (status, body, content_type)
    assert len(emulator.events) == stored
    assert emulator.requests[0].status == status
    assert emulator.requests[0].fault == fault.label
    assert emulator.stats.faults_fired == 1
    assert (await post(session, emulator))[0] == 200


async def test_html_page_looks_like_a_proxy(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """The proxy's page is HTML with the status in its title."""
    emulator.faults.add(Fault.html(413))
    status, body, content_type = await post(session, emulator)
    assert (status, content_type) == (413, "text/html")
    assert b"<title>413 " in body


async def test_headers_are_sent(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A fault's headers reach the client."""
    emulator.faults.add(Fault(429, headers={"Retry-After": "7"}))
    async with session.post(emulator.httpapi_url, json=PAYLOAD) as response:
        assert response.headers["Retry-After"] == "7"


async def test_domain_fault_waits_for_its_user(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A throttle fires for the request with its user and for no other."""
    emulator.faults.add(Fault.throttle(["user-2"]), Fault.throttle(["user-1"]))
    status, body, _ = await post(session, emulator)
    assert (status, json.loads(body)["throttled_events"]) == (429, [0])
    assert emulator.events == []
    assert len(emulator.faults.pending) == 1


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault(hang_up="before"), 0),
        (Fault(hang_up="before", delay=0.001), 0),
        (Fault(hang_up="before", when=lambda request: not request.events), 0),
        (Fault(hang_up="after"), 1),
        (Fault(hang_up="after", delay=0.001), 1),
        (Fault(hang_up="during"), 0),
        (Fault(hang_up="during", ingest=True), 1),
        (Fault(500, hang_up="during", body="", ingest=True), 1),
        (Fault(hang_up="during", trickle=0.0001), 0),
    ],
)
async def test_hang_up(
    emulator: Emulator, session: aiohttp.ClientSession, fault: Fault, stored: int
) -> None:
    """The client gets no whole answer; only the kinds that say so store events."""
    emulator.faults.add(fault)
    with pytest.raises(aiohttp.ClientError):
        await post(session, emulator)
    assert len(emulator.events) == stored
    assert emulator.stats.connections_dropped == 1
    cut = fault.hang_up == "during"
    assert emulator.requests[0].status == ((fault.status or 200) if cut else 0)
    assert (await post(session, emulator))[0] == 200
    assert len(emulator.events) == 1


async def test_hang_up_behind_another_fault_comes_after_reading(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A "before" behind a fault that did not match drops the read request."""
    emulator.faults.add(Fault.throttle(["nobody"]), Fault(hang_up="before"))
    with pytest.raises(aiohttp.ClientError):
        await post(session, emulator)
    assert len(emulator.requests[0].events) == 1
    assert emulator.events == []


async def test_half_the_body_arrives_during(emulator: Emulator) -> None:
    """A "during" hang-up sends head and half of the body, and then ends."""
    emulator.faults.add(Fault(500, body="12345678", hang_up="during"))
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    body = json.dumps(PAYLOAD)
    head = f"POST /batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    answer = await reader.read()
    writer.close()
    assert b"Content-Length: 8\r\n" in answer
    assert answer.endswith(b"\r\n\r\n1234")


async def test_delay_passes(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    """After its delay the request is answered as judged."""
    emulator.faults.add(Fault(delay=0.01))
    started = asyncio.get_running_loop().time()
    assert (await post(session, emulator))[0] == 200
    assert asyncio.get_running_loop().time() - started >= 0.01


@pytest.mark.parametrize("trickle", [0.0, 0.0001])
async def test_endless_body_never_ends(
    emulator: Emulator, session: aiohttp.ClientSession, trickle: float
) -> None:
    """Blanks follow the body for as long as the client reads."""
    emulator.faults.add(Fault(200, body="start", endless=True, trickle=trickle))
    async with session.post(emulator.httpapi_url, json=PAYLOAD) as response:
        assert (await response.content.readexactly(40)).strip() == b"start"
        assert response.content_length is None
    assert (await post(session, emulator))[0] == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault(delay=math.inf),
        Fault(hang_up="after", delay=3600.0),
        Fault(hang_up="before", delay=3600.0),
        Fault(body="abc", trickle=3600.0),
        Fault(endless=True, trickle=0.001),
        Fault(endless=True),
    ],
)
async def test_stop_ends_a_hanging_request(
    session: aiohttp.ClientSession, fault: Fault
) -> None:
    """A stop does not wait for delays, trickles and endless bodies."""
    emulator = Emulator()
    await emulator.start()
    emulator.faults.add(fault)
    hanging = asyncio.create_task(post(session, emulator))
    # The request is recorded before its fault begins; nothing tells of it.
    while not emulator.requests:  # noqa: ASYNC110
        await asyncio.sleep(0)
    async with asyncio.timeout(0.9):
        await emulator.stop()
        with pytest.raises(aiohttp.ClientError):
            await hanging


async def test_fault_of_another_path(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A fault for the other path leaves this one alone."""
    emulator.faults.add(Fault(500, path="/batch"))
    assert (await post(session, emulator))[0] == 200


async def test_refused_events_are_never_stored_by_a_fault(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """What the judge refuses stays out, whatever the fault answers."""
    emulator.faults.add(Fault(200, ingest=True))
    bad: dict[str, Any] = {"api_key": "key", "events": [{}]}
    async with session.post(emulator.httpapi_url, json=bad) as response:
        assert response.status == 200
    assert emulator.events == []
