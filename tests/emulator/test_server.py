"""The emulator over real sockets: what is sent is judged, kept and counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import json
import re
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, listening

__all__: list[str] = []

ZERO_BOMB = 30_000_000


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as open_session:
        yield open_session


def event(insert_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a good event."""
    made = {"event_type": "click", "user_id": "user-1", **fields}
    return made if insert_id is None else {**made, "insert_id": insert_id}


def body(*events: object, **fields: Any) -> dict[str, Any]:
    """Return a request body."""
    return {"api_key": "key", "events": list(events), **fields}


async def post(
    session: aiohttp.ClientSession, url: str, payload: object, **headers: str
) -> tuple[int, Any]:
    """Send JSON values, or bytes as they are, and return status and JSON answer."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    # As a file where it is large: aiohttp warns of such bytes. A small one as bytes:
    # aiohttp 3.11 gives a connection up when the answer overtakes a file.
    stream = data if len(data) < 1_000_000 else io.BytesIO(data)
    async with session.post(url, data=stream, headers=headers) as response:
        return response.status, await response.json()


async def test_events_arrive_at_both_endpoints(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """HTTP V2 and Batch store events in order of arrival."""
    sent = body(event(n=1), event(n=2), client_upload_time="2026-01-01T00:00:00.000Z")
    status, answer = await post(session, emulator.httpapi_url, sent)
    assert (status, answer["events_ingested"]) == (200, 2)
    assert answer["payload_size_bytes"] == len(json.dumps(sent))
    assert (await post(session, emulator.batch_url, body(event(n=3))))[0] == 200
    assert [one["n"] for one in emulator.events] == [1, 2, 3]
    first, second = emulator.requests
    assert (first.path, second.path) == ("/2/httpapi", "/batch")
    assert first.body_bytes == first.decoded_bytes == answer["payload_size_bytes"]
    assert first.client_upload_time == "2026-01-01T00:00:00.000Z"
    assert first.api_key_ok
    assert first.headers["host"] == emulator.url.removeprefix("http://")
    assert first.events == (event(n=1), event(n=2))


async def test_stats_count_everything(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """The counters tell requests, events, duplicates and bytes."""
    good = body(event("i1"), event("i1"), event("i2"))
    await post(session, emulator.httpapi_url, good)
    await post(session, emulator.httpapi_url, body({}))
    await post(session, emulator.url + "/other", b"")
    stats = emulator.stats
    assert stats.requests == 3
    assert stats.by_status == {200: 1, 400: 1, 404: 1}
    assert (stats.events_received, stats.events_ingested, stats.duplicates) == (4, 2, 1)
    assert stats.bytes_received == sum(one.body_bytes for one in emulator.requests)
    emulator.reset()
    assert (emulator.stats.requests, emulator.events, emulator.requests) == (0, [], [])


async def test_duplicates_count_as_ingested_for_the_sender() -> None:
    """A copy within seven days is answered as ingested and stored once."""
    clock = Clock()
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        for _ in range(2):
            _, answer = await post(session, emulator.httpapi_url, body(event("i1")))
            assert answer["events_ingested"] == 1
            assert answer["server_upload_time"] == clock.now * 1000
        assert len(emulator.events) == 1
        clock.now += 8 * 86400
        await post(session, emulator.httpapi_url, body(event("i1")))
        assert len(emulator.events) == 2


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_gzip_is_decoded_and_measured(
    emulator: Emulator, session: aiohttp.ClientSession, encoding: str
) -> None:
    """The answer tells the decoded size, the record both."""
    plain = json.dumps(body(*[event()] * 50)).encode()
    packed = gzip.compress(plain)
    headers = {"Content-Encoding": encoding}
    status, answer = await post(session, emulator.httpapi_url, packed, **headers)
    assert (status, answer["payload_size_bytes"]) == (200, len(plain))
    (request,) = emulator.requests
    assert (request.body_bytes, request.decoded_bytes) == (len(packed), len(plain))


async def test_gzip_of_several_members_is_one_body(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A gzip body may be pieces compressed one by one."""
    plain = json.dumps(body(event())).encode()
    packed = gzip.compress(plain[:20]) + gzip.compress(plain[20:])
    headers = {"Content-Encoding": "gzip"}
    assert (await post(session, emulator.httpapi_url, packed, **headers))[0] == 200


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"no gzip at all", "gzip"),
        (gzip.compress(b'{"api_key": "key"}', mtime=0)[:-4], "gzip"),
        (gzip.compress(b"{}", mtime=0) + b"tail", "gzip"),
        (zlib.compress(b"{}"), "br"),
    ],
)
async def test_undecodable_body_is_invalid_json(
    emulator: Emulator, session: aiohttp.ClientSession, data: bytes, encoding: str
) -> None:
    """A broken, cut or unknown encoding is answered as invalid JSON."""
    headers = {"Content-Encoding": encoding}
    status, answer = await post(session, emulator.httpapi_url, data, **headers)
    assert (status, answer["error"]) == (400, "Invalid JSON request body")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_missing_body_is_named(
    emulator: Emulator, session: aiohttp.ClientSession, encoding: str
) -> None:
    """An empty body is missing, compressed or not."""
    headers = {"Content-Encoding": encoding}
    _, answer = await post(session, emulator.httpapi_url, b"", **headers)
    assert answer == {"code": 400, "error": "Missing request body"}


def padded(size: int) -> bytes:
    """Return a good request body of exactly so many bytes."""
    frame = len(json.dumps(body(event(pad=""))))
    return json.dumps(body(event(pad="x" * (size - frame)))).encode()


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/2/httpapi", 1_000_000, 200),
        ("/2/httpapi", 1_000_001, 413),
        ("/batch", 1_000_001, 200),
        ("/batch", 20_000_001, 413),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
async def test_size_limits_hold_after_decoding(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    path: str,
    size: int,
    status: int,
    packed: bool,
) -> None:
    """One byte above the limit of the path is too much, however it was packed."""
    data, headers = padded(size), {}
    if packed:
        data, headers = gzip.compress(data, 1), {"Content-Encoding": "gzip"}
    got, answer = await post(session, emulator.url + path, data, **headers)
    assert got == status
    if status == 413:
        assert answer == {"code": 413, "error": "Payload too large"}


async def test_gzip_bomb_is_not_unpacked(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Unpacking stops a byte past the limit."""
    bomb = gzip.compress(b"0" * ZERO_BOMB)
    headers = {"Content-Encoding": "gzip"}
    status, _ = await post(session, emulator.httpapi_url, bomb, **headers)
    assert status == 413
    assert emulator.requests[0].decoded_bytes == 1_000_001


async def test_wrong_path_and_method(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Other paths are 404, other methods 405, both recorded."""
    status, answer = await post(session, emulator.url + "/httpapi", body(event()))
    assert (status, answer) == (404, {"code": 404, "error": "Invalid request path"})
    async with session.get(emulator.httpapi_url) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
    assert [one.status for one in emulator.requests] == [404, 405]


async def test_unknown_key_is_never_stored_or_shown(
    session: aiohttp.ClientSession,
) -> None:
    """A wrong key refuses the request and appears nowhere."""
    async with Emulator(api_keys=["right"]) as emulator:
        sent = {"api_key": "wrong-key", "events": [event()]}
        status, answer = await post(session, emulator.httpapi_url, sent)
        assert (status, answer) == (400, {"code": 400, "error": "Invalid API key"})
        assert emulator.events == []
        assert "wrong-key" not in repr(emulator.requests) + repr(emulator)


async def test_rate_threshold_throttles_the_fast(
    session: aiohttp.ClientSession,
) -> None:
    """With eps_threshold a fast user gets 429 until the window has passed."""
    clock = Clock()
    async with Emulator(eps_threshold=2, clock=clock) as emulator:
        url = emulator.httpapi_url
        assert (await post(session, url, body(event(), event())))[0] == 200
        status, answer = await post(session, url, body(event()))
        assert (status, answer["throttled_users"]) == (429, {"user-1": 3})
        assert len(emulator.events) == 2
        assert emulator.requests[-1].status == 429
        clock.now += 1
        assert (await post(session, url, body(event())))[0] == 200
        emulator.reset()
        assert (await post(session, url, body(event(), event())))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])  # noqa: S104
def test_only_loopback_unless_allowed(host: str) -> None:
    """A host others can reach is refused with a remedy."""
    with pytest.raises(ValueError, match="allow_remote=True") as caught:
        Emulator(host)
    assert repr(host) in str(caught.value)
    Emulator(host, allow_remote=True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:"),
        ("127.0.0.1", "http://127.0.0.1:"),
        ("0.0.0.0", "http://127.0.0.1:"),  # noqa: S104
    ],
)
async def test_url_leads_to_the_emulator(
    session: aiohttp.ClientSession, host: str, url: str
) -> None:
    """The URL can be used as it is, also for an unspecified host."""
    remote = host == "0.0.0.0"  # noqa: S104
    async with Emulator(host, allow_remote=remote) as emulator:
        assert emulator.url.startswith(url)
        assert emulator.url.endswith(str(emulator.port))
        assert (await post(session, emulator.httpapi_url, body(event())))[0] == 200


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("::", "[::1]")])
def test_url_of_an_ipv6_host_has_brackets(host: str, shown: str) -> None:
    """An IPv6 address is written as URLs want it."""
    emulator = Emulator(host, 4321, allow_remote=True)
    assert emulator.url == f"http://{shown}:4321"


async def test_port_is_kept_over_a_restart(session: aiohttp.ClientSession) -> None:
    """Stopped and started, the emulator has its old address and memory."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="no port yet"):
        _ = emulator.url
    assert "stopped" in repr(emulator)
    await emulator.start()
    url = emulator.httpapi_url
    await post(session, url, body(event()))
    assert emulator.url in repr(emulator)
    with pytest.raises(RuntimeError, match="is running"):
        await emulator.start()
    await emulator.stop()
    await emulator.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(session, url, body(event()))
    await emulator.start()
    await post(session, url, body(event()))
    assert len(emulator.events) == 2
    await emulator.stop()


async def test_taken_port_is_an_error() -> None:
    """Two emulators cannot share a port, and the second leaves nothing open."""
    async with Emulator() as emulator:
        other = Emulator(port=emulator.port)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        await other.stop()


async def test_refuse_and_listen(session: aiohttp.ClientSession) -> None:
    """While refusing nobody connects, old connections are gone, the port stays."""
    async with Emulator() as emulator:
        url = emulator.httpapi_url
        await post(session, url, body(event()))
        await emulator.refuse()
        await emulator.refuse()
        assert emulator.stats.connections_dropped == 1
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises(aiohttp.ClientConnectorError):
                await post(fresh, url, body(event()))
        await emulator.listen()
        await emulator.listen()
        assert (await post(session, url, body(event())))[0] == 200


async def test_refuse_for_a_while(session: aiohttp.ClientSession) -> None:
    """With a time given it listens again by itself."""
    async with Emulator() as emulator:
        await emulator.refuse(0.01)
        for _ in range(500):
            try:
                status, _ = await post(session, emulator.httpapi_url, body(event()))
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.005)
        assert status == 200


async def test_stop_while_refusing() -> None:
    """A stop ends the refusal: its timer goes and the port is free."""
    emulator = Emulator()
    await emulator.start()
    await emulator.refuse(60.0)
    await emulator.stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", emulator.port))
    for call in (emulator.refuse, emulator.listen):
        with pytest.raises(RuntimeError, match="not running"):
            await call()


async def test_client_that_goes_away_is_no_request(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A connection lost in the middle of a body is not judged, others go on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    head = "POST /batch HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await reader.read()) == b""
    assert (await post(session, emulator.batch_url, body(event())))[0] == 200
    assert emulator.stats.requests == 1


async def test_stop_ends_a_half_sent_request() -> None:
    """A client that never finishes its body does not hold up the stop."""
    async with Emulator() as emulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
        head = "POST /batch HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        writer.write((head + "Content-Length: 50\r\n\r\n{").encode())
        # The interim answer says that the handler has begun to read.
        assert b"100" in await reader.readline()
    assert emulator.stats.requests == 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            assert (await reader.read()).strip() == b""
    writer.close()


@pytest.mark.parametrize(
    "name", re.findall(r"`emulator\.(\w+)`", Emulator.__doc__ or "")
)
async def test_where_the_help_says_to_send_is_somewhere(
    emulator: Emulator, session: aiohttp.ClientSession, name: str
) -> None:
    """No address in `help(Emulator)` answers that it does not exist."""
    url = getattr(emulator, name) + ("/events" if name == "mparticle_url" else "")
    status, _ = await post(session, url, body(event()))
    assert status in (200, 401)


# asyncio leaves a socket to the collector whose server is closed while it takes it up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("turns", range(6))
async def test_whoever_comes_in_at_the_end_holds_up_no_stop(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that arrives at the stop, and whose body is missing, is dropped."""
    monkeypatch.setattr(listening, "_STOP_TIMEOUT", 3600.0)
    emulator = Emulator()
    await emulator.start()
    with socket.create_connection(("127.0.0.1", emulator.port)) as late:
        late.sendall(
            b"POST /2/httpapi HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(30.0):
            await emulator.stop()
    gc.collect()
