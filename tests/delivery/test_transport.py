"""Whatever a network or a server does, the transport says it in one response."""

import asyncio
import gzip
import shutil
import socket
import ssl
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from aioresponses import aioresponses

from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.transport import AiohttpTransport, gzip_body
from tests.conftest import self_signed

__all__: list[str] = []

# Requests are made here by themselves, to names that only a proxy or session of the
# test has ever heard of.
pytestmark = pytest.mark.amplitude(live=True)

KEY = "0123456789abcdef-secret"
BODY = b'{"api_key":"%b","events":[]}' % KEY.encode()
HEADERS = {"Content-Type": "application/json"}
MEBIBYTE = 1024 * 1024
MOST = 128 * 1024
# Nothing waits for this long: it only ends a test that hangs.
PLENTY = 10.0
SHORT = 0.04

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    connection: Connection, context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve with a handler that sees raw bytes; yields the address."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task
        handlers.add(task)
        try:
            await connection(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            handlers.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{port}/2/httpapi"
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@asynccontextmanager
async def own_transport() -> AsyncIterator[AiohttpTransport]:
    """Make a transport with a session of its own, and close it."""
    transport = AiohttpTransport(trust_env=False)
    try:
        yield transport
    finally:
        await transport.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request with a Content-Length; returns its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    return await reader.readexactly(lengths[0])


def answering(raw: bytes) -> Connection:
    """Build a handler that reads a request, writes raw bytes and closes."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()

    return handle


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Write a complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def send(
    url: str, *, body: bytes = BODY, timeout: float = PLENTY
) -> tuple[int, bytes, str | None]:
    """Send one request; returns status, body and error."""
    async with own_transport() as transport:
        response = await transport.send(url, body, HEADERS, timeout)
    assert KEY not in repr(response)
    return response.status, response.body, response.error


# --- No connection ---


async def test_a_refused_connection_is_a_response(unused_tcp_port: int) -> None:
    """Where nobody listens, the response says so and has no status."""
    status, body, error = await send(f"http://127.0.0.1:{unused_tcp_port}/2/httpapi")

    assert (status, body) == (0, b"")
    assert error
    assert error.startswith("ClientConnectorError: Cannot connect to host 127.0.0.1")


async def test_a_name_that_does_not_resolve_is_a_response() -> None:
    """A wrong host name costs no exception (RFC 6761: .invalid never resolves)."""
    status, body, error = await send("http://no-such-host.invalid/", timeout=2.0)

    assert (status, body) == (0, b"")
    assert error


async def test_tls_to_a_plain_server_is_a_response() -> None:
    """A server that speaks no TLS is a failure like any other."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(b"", "400 Bad"))

    async with serving(plain) as url:
        status, body, error = await send(url.replace("http:", "https:"))

    assert (status, body) == (0, b"")
    assert error


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    """The key never goes to a server that cannot prove who it is."""
    seen: list[bytes] = []

    async def listen(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seen.append(await reader.read(1))

    context = await asyncio.to_thread(self_signed, tmp_path)
    async with serving(listen, context) as url:
        status, body, error = await send(url)

    assert (status, body) == (0, b"")
    assert error
    assert "CERTIFICATE_VERIFY_FAILED" in error
    assert b"".join(seen) == b""


# --- Closed ---


async def test_closed_before_the_answer() -> None:
    """A server that takes the request and closes gave no answer."""
    async with serving(answering(b"")) as url:
        status, body, error = await send(url)

    assert (status, body) == (0, b"")
    assert error == "ServerDisconnectedError: Server disconnected"


async def test_reset_before_the_answer() -> None:
    """A reset connection gave no answer either."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        linger = struct.pack("ii", 1, 0)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(reset) as url:
        status, body, error = await send(url)

    assert (status, body) == (0, b"")
    assert error
    assert error.startswith(("ClientOSError", "ServerDisconnectedError"))


async def test_closed_after_the_answer() -> None:
    """An answer counts although the connection ends with it; the next is a new one."""
    async with serving(answering(answer(b"{}"))) as url, own_transport() as transport:
        first = await transport.send(url, BODY, HEADERS, PLENTY)
        await transport.close()
        second = await transport.send(url, BODY, HEADERS, PLENTY)

    assert (first.status, first.body, first.error) == (200, b"{}", None)
    assert (second.status, second.body, second.error) == (200, b"{}", None)


# --- Broken answers ---

CUT = b"HTTP/1.1 %b\r\nContent-Length: 100\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "failed"),
    [
        pytest.param(b"HTTP/1.1 200 O", 0, True, id="cut in the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-", 200, False, id="200 cut in the head"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            200,
            False,
            id="bad header",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: " + 9_000 * b"x" + b"\r\n\r\n",
            200,
            False,
            id="long header",
        ),
        pytest.param(
            b"HTTP/1.1 102 Go on\r\n\r\n" * 50_000, 0, True, id="a flood of 1xx"
        ),
        pytest.param(b"no http at all\r\n\r\n", 0, True, id="no HTTP"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", 0, True, id="no status"),
        pytest.param(CUT % b"200 OK", 200, False, id="200 cut in the body"),
        pytest.param(CUT % b"500 Oh", 500, True, id="500 cut in the body"),
        pytest.param(CUT % b"400 Bad", 400, True, id="400 cut in the body"),
        pytest.param(CHUNKED, 200, False, id="head and bad chunks at once"),
        pytest.param(
            CHUNKED.replace(b"200 OK", b"400 Bad"), 400, True, id="400 and bad chunks"
        ),
        pytest.param(
            b"HTTP/1.1 100 Go on\r\n\r\n" * 9 + CHUNKED, 200, False, id="after 1xx"
        ),
        pytest.param(
            b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            204,
            False,
            id="204 with a body",
        ),
    ],
)
async def test_a_broken_answer(raw: bytes, status: int, *, failed: bool) -> None:
    """The status line decides: 2xx is 2xx, and any other broken answer an error."""
    async with serving(answering(raw)) as url:
        # Some bodies never end for the library: they take all the time there is.
        found, body, error = await send(url, timeout=3.0)

    assert (found, body) == (status, b"")
    assert (error is not None) is failed


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", ()),
        (b"<html><h1>502 Bad Gateway</h1></html>", ("Content-Type: text/html",)),
        (b"{]", ("Content-Type: application/json",)),
        (b"\xff\xfe\x00", ("Content-Type: application/json; charset=utf-99",)),
    ],
    ids=["empty", "html", "malformed", "no text"],
)
async def test_a_body_is_handed_on_as_it_is(
    body: bytes, headers: tuple[str, ...]
) -> None:
    """No content type and no body makes the transport stumble: it does not parse."""
    async with serving(answering(answer(body, "502 Bad Gateway", *headers))) as url:
        assert await send(url) == (502, body, None)


async def test_header_names_come_in_lower_case() -> None:
    """Whoever looks for Retry-After finds it however a server spells it."""
    raw = answer(b"", "503 Oh", "RETRY-AFTER: 7")
    async with serving(answering(raw)) as url, own_transport() as transport:
        response = await transport.send(url, BODY, HEADERS, PLENTY)

    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
async def test_a_success_is_one_whatever_its_encoding(encoding: str) -> None:
    """Any 2xx: nobody decompresses what nobody will read."""
    raw = answer(b"garbage", "200 OK", f"Content-Encoding: {encoding}")
    async with serving(answering(raw)) as url:
        status, _, error = await send(url)

    assert (status, error) == (200, None)


TEXT = b'{"code":400}'


@pytest.mark.parametrize(
    ("content", "encoding", "body"),
    [
        (gzip.compress(TEXT), "gzip", TEXT),
        (gzip.compress(TEXT), " X-GZIP", TEXT),
        (zlib.compress(TEXT), "deflate", TEXT),
        (gzip.compress(bytes(64 * MEBIBYTE), 9), "gzip", bytes(MOST)),
        (gzip.compress(TEXT)[:-9], "gzip", TEXT),
        (TEXT, "identity", TEXT),
        (b"", "gzip", b""),
        (b"no gzip", "gzip", b"(unreadable, Content-Encoding: gzip)"),
        (TEXT, "br", b"(unreadable, Content-Encoding: br)"),
    ],
    ids=["gzip", "spelt", "deflate", "bomb", "cut", "none", "empty", "garbage", "br"],
)
async def test_a_compressed_complaint_is_read_within_bounds(
    content: bytes, encoding: str, body: bytes
) -> None:
    """What a server compressed unasked comes out as text, at most 128 KiB of it."""
    raw = answer(content, "400 Bad", f"Content-Encoding: {encoding}")
    async with serving(answering(raw)) as url:
        assert await send(url) == (400, body, None)


async def test_a_huge_body_is_cut() -> None:
    """A server cannot fill our memory with one answer."""
    async with serving(answering(answer(b"x" * (3 * MEBIBYTE), "500 Oh"))) as url:
        status, body, error = await send(url)

    assert (status, len(body), error) == (500, MOST, None)


async def test_an_endless_body_is_cut() -> None:
    """A body without an end ends where we stop reading, long before the deadline."""
    gone = asyncio.Event()

    async def endless(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        finally:
            gone.set()

    async with serving(endless) as url:
        status, body, error = await send(url)
        await asyncio.wait_for(gone.wait(), PLENTY)

    assert (status, len(body), error) == (500, MOST, None)


# --- Timeouts ---


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog hangs on Linux")
async def test_a_timeout_while_connecting() -> None:
    """A host that does not answer to a connection attempt costs the timeout only."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            url = f"http://127.0.0.1:{address[1]}/"
            status, body, error = await send(url, timeout=SHORT)
        finally:
            for one in waiting:
                one.close()

    assert (status, body) == (0, b"")
    assert error == "no connection within connection_timeout=0.04 s"


async def test_a_timeout_while_sending() -> None:
    """A server that does not read the request costs the timeout only."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Without this the stream would go on reading into its own buffer.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with serving(deaf) as url:
        status, body, error = await send(url, body=bytes(16 * MEBIBYTE), timeout=SHORT)

    assert (status, body) == (0, b"")
    assert error == "no complete answer within connection_timeout=0.04 s"


@pytest.mark.parametrize(
    ("raw", "status", "failed"),
    [
        pytest.param(b"", 0, True, id="no head"),
        pytest.param(CUT % b"200 OK", 200, False, id="half a body after 200"),
        pytest.param(CUT % b"500 Oh", 500, True, id="half a body after 500"),
    ],
)
async def test_a_timeout_while_reading(
    raw: bytes, status: int, *, failed: bool
) -> None:
    """An answer that does not come to its end is cut off by the one timeout."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await asyncio.Event().wait()

    async with serving(stall) as url:
        found, body, error = await send(url, timeout=SHORT)

    assert (found, body) == (status, b"")
    assert (error is not None) is failed


async def test_a_trickle_does_not_reset_the_timeout() -> None:
    """The timeout is for the whole request: a byte now and then does not prolong it."""

    async def trickle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 503 Oh\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.005)

    async with serving(trickle) as url:
        status, body, error = await send(url, timeout=SHORT)

    assert (status, body) == (503, b"")
    assert error == "no complete answer within connection_timeout=0.04 s"


# --- Redirects ---


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(code: int) -> None:
    """The body, and with it the key, never goes to a server we were not told of."""
    visitors: list[bytes] = []

    async def elsewhere(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        visitors.append(await reader.read(1))

    async with serving(elsewhere) as other:
        raw = answer(b"", f"{code} Moved", f"Location: {other}")
        async with serving(answering(raw)) as url:
            assert await send(url) == (code, b"", None)

    assert visitors == []


# --- Bodies and sessions ---


@pytest.mark.parametrize("size", [0, 100, 128 * 1024, 128 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("fast", [True, False], ids=["extra", "plain"])
async def test_compressed_bodies_are_gzip(
    size: int, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    """Any gzip reader can open a body, with the extra `speed` and without it."""
    if not fast:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    assert gzip.decompress(await gzip_body(body)) == body


@pytest.mark.parametrize("size", [100, 3_000_000], ids=["small", "large"])
async def test_a_body_arrives_unchanged(size: int) -> None:
    """Small and large bodies arrive byte for byte, small ones on one connection."""
    bodies: list[bytes] = []
    connections = 0

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            bodies.append(await read_request(reader))
            writer.write(answer(b"{}"))

    body = bytes(size)
    async with serving(until_closed(keep)) as url, own_transport() as transport:
        for _ in range(2):
            response = await transport.send(url, body, HEADERS, PLENTY)
            assert response.error is None

    assert bodies == [body, body]
    # aiohttp 3.11 may give a connection up when the answer overtakes a long body.
    assert connections == 1 or size > 1_000_000


def until_closed(connection: Connection) -> Connection:
    """Let a handler that reads in a loop end with its connection."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await connection(reader, writer)
        except asyncio.IncompleteReadError:
            return

    return handle


async def test_a_given_session_stays_open() -> None:
    """Only a session of its own is closed, and none is made where one was given."""
    async with (
        serving(answering(answer(b"{}"))) as url,
        aiohttp.ClientSession() as session,
    ):
        transport = AiohttpTransport(session)
        response = await transport.send(url, BODY, HEADERS, PLENTY)
        await transport.close()
        transport.abandon()

        assert transport.injected
        assert (response.status, session.closed) == (200, False)


async def test_a_session_closed_by_its_owner_is_a_response() -> None:
    """Who closes the session too early gets failed requests, not exceptions."""
    session = aiohttp.ClientSession()
    await session.close()
    response = await AiohttpTransport(session).send(
        "http://127.0.0.1:9/", BODY, HEADERS, PLENTY
    )

    assert response.status == 0
    assert response.error
    assert "close it after shutdown" in response.error


async def test_closing_twice_or_unused_is_harmless() -> None:
    """A transport that sent nothing has nothing to close."""
    transport = AiohttpTransport()

    await transport.close()
    await transport.close()
    transport.abandon()

    assert not transport.injected


# --- Was anything sent? ---


async def test_without_a_connection_nothing_was_sent(unused_tcp_port: int) -> None:
    """A refused connection and a name that nobody knows say so."""
    for host in (f"127.0.0.1:{unused_tcp_port}", "no-such-host.invalid"):
        async with own_transport() as transport:
            response = await transport.send(f"http://{host}/", BODY, HEADERS, 2.0)
        assert (response.status, response.sent) == (0, False)


@pytest.mark.parametrize("own", [True, False], ids=["own", "given"])
async def test_a_pool_without_a_free_connection_sent_nothing(*, own: bool) -> None:
    """Who waits for a connection until the timeout has not sent; a stalled one has."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.Event().wait()

    connector = aiohttp.TCPConnector(limit=1)
    async with (
        serving(stall) as url,
        aiohttp.ClientSession(connector=connector) as session,
        own_transport() as transport,
    ):
        if own:
            stalled = await transport.send(url, BODY, HEADERS, SHORT)
            assert stalled.sent
            return
        given = AiohttpTransport(session)
        first = asyncio.ensure_future(given.send(url, BODY, HEADERS, 0.4))
        await asyncio.sleep(0.1)
        second = await given.send(url, BODY, HEADERS, SHORT)
        assert second.error == "no connection within connection_timeout=0.04 s"
        assert (second.sent, (await first).sent) == (False, True)


@pytest.mark.parametrize("target", ["https", "http"])
async def test_what_a_proxy_refuses_was_not_sent(
    monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Its 407 is no word of the server's, and no error names its password."""
    raw = answer(b"", "407 Proxy Authentication Required")

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    async with serving(proxy) as address:
        secret = address.replace("//", "//me:hidden@").removesuffix("/2/httpapi")
        monkeypatch.setenv(f"{target}_proxy", secret)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        transport = AiohttpTransport()
        response = await transport.send(f"{target}://api.invalid/", BODY, HEADERS, 2.0)
        await transport.close()

    assert (response.status, response.sent) == (0, False)
    assert response.error
    assert "407" in response.error
    assert "hidden" not in response.error


# --- Idle connections that died ---


class Fickle:
    """A server that answers so many requests of a connection and hangs up at the next.

    Args:
        last: what it says before it hangs up.
    """

    def __init__(self, answers: int, last: bytes = b"") -> None:
        self._answers = answers
        self._last = last
        self.connections = 0
        self.requests = 0

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection."""
        self.connections += 1
        for _ in range(self._answers):
            await read_request(reader)
            self.requests += 1
            writer.write(answer(b"{}"))
        await read_request(reader)
        self.requests += 1
        writer.write(self._last)


async def statuses_of(server: Fickle, count: int) -> list[int]:
    """Send so many requests, one after another, to one server."""
    async with serving(until_closed(server)) as url, own_transport() as transport:
        return [
            (await transport.send(url, BODY, HEADERS, PLENTY)).status
            for _ in range(count)
        ]


async def test_a_dead_idle_connection_costs_no_failure() -> None:
    """The body goes once more on a fresh one, and so each time."""
    server = Fickle(answers=1)

    assert await statuses_of(server, 2) == [200, 200]
    assert (server.connections, server.requests) == (2, 3)


async def test_a_server_that_always_hangs_up_is_tried_once_more_at_the_most() -> None:
    """On a fresh connection a hang-up is a failure; there is no third try."""
    server = Fickle(answers=0)

    assert await statuses_of(server, 3) == [0, 0, 0]
    assert (server.connections, server.requests) == (3, 3)


async def test_the_second_try_is_the_last() -> None:
    """A server that answers one request and then none costs two tries in all."""
    first = Fickle(answers=1)
    dead = Fickle(answers=0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (dead if first.connections else first)(reader, writer)

    async with serving(until_closed(serve)) as url, own_transport() as transport:
        found = [
            (await transport.send(url, BODY, HEADERS, PLENTY)).status for _ in range(2)
        ]

    assert found == [200, 0]
    assert (first.requests, dead.requests) == (2, 1)


async def test_a_connection_that_began_to_answer_was_alive() -> None:
    """Half a status line is no dead connection: the server may have taken it."""
    server = Fickle(answers=1, last=b"HTTP/1.1 20")

    assert await statuses_of(server, 2) == [200, 0]
    assert server.requests == 2


async def test_a_given_session_is_not_tried_twice() -> None:
    """Of its connections we do not know whether they are new."""
    server = Fickle(answers=1)
    async with (
        serving(until_closed(server)) as url,
        aiohttp.ClientSession() as session,
    ):
        transport = AiohttpTransport(session)
        found = [
            (await transport.send(url, BODY, HEADERS, PLENTY)).status for _ in range(2)
        ]

    assert found == [200, 0]
    assert server.requests == 2


# --- What a given session brings ---


async def never(*_: object) -> None:
    """Stand in the way of a request for ever."""
    await asyncio.Event().wait()


def hanging_trace() -> aiohttp.TraceConfig:
    """Build a trace that never lets a request start."""
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(never)
    return trace


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"raise_for_status": True}, 413),
        ({"raise_for_status": never}, 413),
        ({"timeout": aiohttp.ClientTimeout(total=0.000001)}, 413),
        ({"auto_decompress": True}, 413),
        ({"headers": {"Content-Encoding": "gzip", "Accept-Encoding": "br"}}, 413),
        # Its owner's choice, and aiohttp then looks for a netrc file.
        pytest.param({"trust_env": True}, 413, marks=pytest.mark.allow_blocking),
        ({"trace_configs": [hanging_trace()]}, 0),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
async def test_a_given_session_changes_no_answer(
    options: dict[str, Any], status: int
) -> None:
    """Its ways with statuses, timeouts and encodings are not ours."""
    heads: list[bytes] = []
    raw = answer(b"no gzip", "413 Large", "Content-Encoding: gzip")

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(len(BODY))
        writer.write(raw)

    async with serving(keep) as url, aiohttp.ClientSession(**options) as session:
        transport = AiohttpTransport(session)
        timeout = 1.0 if status else SHORT
        response = await transport.send(url, BODY, HEADERS, timeout)

    assert response.status == status
    assert all(b"Accept-Encoding: identity\r\n" in head for head in heads)
    assert not any(b"Content-Encoding: gzip\r\n" in head for head in heads)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_session_with_credentials_of_its_own_says_what_is_wrong() -> None:
    """Aiohttp takes no two Authorization headers: a failure with words."""
    auth = aiohttp.BasicAuth("me", "hidden")
    async with aiohttp.ClientSession(auth=auth) as session:
        response = await AiohttpTransport(session).send(
            "http://127.0.0.1:9/", BODY, {"Authorization": "Basic x"}, 1.0
        )

    assert response.error
    assert "AUTHORIZATION" in response.error


# --- Servers that are half dead, or mean it ---


def pouring(start: bytes, more: bytes) -> Connection:
    """Build a handler that answers with a start and then more, for ever."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader)
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.001)

    return handle


OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        pytest.param(OK, b"X-More: yes\r\n", 200, id="headers"),
        pytest.param(OK + b"X-Long: ", b"x" * 1000, 200, id="a header"),
        pytest.param(b"", b"HTTP/1.1 100 Go on\r\n\r\n", 0, id="1xx"),
        pytest.param(b"", b"\r\n", 0, id="blank lines"),
        pytest.param(IN_CHUNKS, b"0" * 1000, 200, id="a chunk size"),
        pytest.param(IN_CHUNKS + b"1;", b"x=y;" * 99, 200, id="a chunk extension"),
        pytest.param(IN_CHUNKS + b"0\r\n", b"X-More: yes\r\n", 200, id="trailers"),
        pytest.param(IN_CHUNKS, b"1\r\nx\r\n", 200, id="small chunks"),
        pytest.param(
            b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"x",
            101,
            id="an upgrade",
        ),
    ],
)
async def test_what_never_ends_is_ended(start: bytes, more: bytes, status: int) -> None:
    """Within the timeout: as a success where the status said so, else as no answer."""
    async with serving(pouring(start, more)) as url:
        async with asyncio.timeout(5.0):
            found, _, error = await send(url, timeout=0.3)

    assert found == status
    assert (error is None) is (status > 0)


@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays"])
async def test_an_answer_before_the_body_was_sent_counts(*, closes: bool) -> None:
    """A server that will not even read so much has answered all the same."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(answer(b"{}", "413 Large"))
        await writer.drain()
        if closes:
            await asyncio.sleep(0.05)
        else:
            await asyncio.Event().wait()

    async with serving(early) as url:
        async with asyncio.timeout(5.0):
            found = await send(url, body=bytes(16 * MEBIBYTE), timeout=PLENTY)

    assert found == (413, b"{}", None)


# --- Without a socket ---


class WithWriter(aiohttp.ClientResponse):
    """The response aiohttp has made since 3.14 wants a writer, which mocks lack."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        writer = Mock(output_size=0)
        try:
            super().__init__(*args, stream_writer=writer, **kwargs)
        except TypeError:
            super().__init__(*args, **kwargs)


async def test_what_is_asked_of_the_session() -> None:
    """A POST with our headers, no redirects, and an answer as it is on the wire."""
    url = "https://api2.example.invalid/2/httpapi?a=%2F"
    with aioresponses() as network:
        network.post(url, status=202, body=b"{}", response_class=WithWriter)
        async with own_transport() as transport:
            response = await transport.send(url, BODY, HEADERS, 7.0)

    [call] = [call for calls in network.requests.values() for call in calls]
    assert response == Response(202, b"{}", response.headers)
    assert call.kwargs["data"].decode() == BODY.decode()
    assert call.kwargs["headers"] == {**HEADERS, "Accept-Encoding": "identity"}
    assert call.kwargs["allow_redirects"] is False
    assert call.kwargs["raise_for_status"] is False
    assert call.kwargs["auto_decompress"] is False


@pytest.mark.parametrize(
    "fault",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("half"),
        aiohttp.ClientOSError(104, "reset"),
        aiohttp.InvalidURL("http:///"),
        aiohttp.TooManyRedirects(Mock(real_url="u"), ()),
        ConnectionResetError("reset"),
        ssl.SSLError("bad record"),
        ValueError("odd"),
        TimeoutError(),
        aiohttp.ServerTimeoutError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_every_fault_of_the_session_is_a_response(fault: Exception) -> None:
    """No exception of the network leaves the transport."""
    url = "https://api2.example.invalid/2/httpapi"
    with aioresponses() as network:
        network.post(url, exception=fault)
        async with own_transport() as transport:
            response = await transport.send(url, BODY, HEADERS, 1.0)

    assert (response.status, response.body) == (0, b"")
    assert response.error
    assert len(response.error) <= 300


async def test_a_cancelled_request_is_cancelled() -> None:
    """Cancelling is no fault of the network: it goes through."""
    url = "https://api2.example.invalid/2/httpapi"
    with aioresponses() as network:
        network.post(url, exception=asyncio.CancelledError())
        async with own_transport() as transport:
            with pytest.raises(asyncio.CancelledError):
                await transport.send(url, BODY, HEADERS, 1.0)


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({"http_proxy": "{proxy}"}, True),
        ({"http_proxy": "{proxy}", "no_proxy": "api.invalid"}, False),
        ({"http_proxy": "{proxy}", "no_proxy": "x, api.invalid:80"}, False),
        ({"http_proxy": "{proxy}", "no_proxy": "api.invalid:8080"}, True),
        ({"http_proxy": "{proxy}", "no_proxy": ".invalid:80"}, False),
        ({"https_proxy": "{proxy}"}, False),
    ],
)
async def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], used: bool
) -> None:
    """A proxy of the environment is used, unless no_proxy lists the host."""
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(str(request.url))
        return web.Response(text="{}")

    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with RawTestServer(answer) as proxy:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.make_url("/")))
        transport = AiohttpTransport()
        response = await transport.send("http://api.invalid/2/httpapi", b"{}", {}, 1.0)
        await transport.close()
    assert bool(seen) is used
    assert (response.status == 200) is used
