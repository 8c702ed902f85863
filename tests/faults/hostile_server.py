"""A server that means harm: raw bytes, endless or huge, to whoever asks."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

__all__ = ["ATTACKS", "MEBIBYTE", "HostileServer", "hostile"]

MEBIBYTE = 1024 * 1024
# What an endless attack offers until it is cut off: more than any bound here lets in.
OFFERED = 48 * MEBIBYTE
PIECE = 64 * 1024

Attack = Callable[[], Iterator[bytes]]


def _head(*lines: str, status: str = "500 X") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def _repeated(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    block = piece * max(1, PIECE // len(piece))
    for _ in range(OFFERED // len(block)):
        yield block


def _chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def _gzip_bomb() -> Iterator[bytes]:
    body = gzip.compress(bytes(OFFERED), 9)
    yield _head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body


def _nested_bomb() -> Iterator[bytes]:
    body = zlib.compress(gzip.compress(bytes(OFFERED), 9), 9)
    head = _head("Content-Encoding: gzip, deflate", f"Content-Length: {len(body)}")
    yield head + body


def _empty_members() -> Iterator[bytes]:
    body = gzip.compress(b"") * (4 * MEBIBYTE // 20)
    yield _head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body


def _large_answer() -> Iterator[bytes]:
    body = json.dumps(
        {"error": "x", "throttled_users": {f"u{n}": n for n in range(60_000)}}
    )
    yield _head(f"Content-Length: {len(body)}", status="429 X") + body.encode()


def _deep_answer() -> Iterator[bytes]:
    body = b"[" * 100_000
    yield _head(f"Content-Length: {len(body)}", status="400 X") + body


def _long_number() -> Iterator[bytes]:
    body = b'{"code":' + b"9" * 120_000 + b"}"
    yield _head(f"Content-Length: {len(body)}", status="400 X") + body


def _dates(value: str) -> Attack:
    def speak() -> Iterator[bytes]:
        yield _head(f"Retry-After: {value}", "Content-Length: 0", status="503 X")

    return speak


CHUNKED = _head("Transfer-Encoding: chunked")
ATTACKS: dict[str, Attack] = {
    "an endless body": lambda: _repeated(_head(), b"x"),
    "an endless chunked body": lambda: _repeated(CHUNKED, _chunk(b"x" * 1000)),
    "chunks of one byte": lambda: _repeated(CHUNKED, _chunk(b"x")),
    "endless extensions of chunks": lambda: _repeated(CHUNKED + b"1;", b"a=b;"),
    "an endless chunk size": lambda: _repeated(CHUNKED, b"0"),
    "endless trailers": lambda: _repeated(CHUNKED + b"0\r\n", b"X-T: 1\r\n"),
    "an endless trailer": lambda: _repeated(CHUNKED + b"0\r\nX: ", b"x"),
    "endless headers": lambda: _repeated(b"HTTP/1.1 500 X\r\n", b"X-H: 1\r\n"),
    "an endless header": lambda: _repeated(b"HTTP/1.1 500 X\r\nX-H: ", b"x"),
    "an endless status line": lambda: _repeated(b"HTTP/1.1 500 ", b"x"),
    "an endless number of empty lines": lambda: _repeated(b"", b"\r\n"),
    "endless 1xx answers": lambda: _repeated(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "many answers at once": lambda: _repeated(
        b"", _head("Content-Length: 1", status="500 X") + b"x"
    ),
    "no HTTP at all": lambda: _repeated(b"", bytes(range(256))),
    "a gzip bomb": _gzip_bomb,
    "a bomb in a bomb": _nested_bomb,
    "many empty members": _empty_members,
    "a large answer": _large_answer,
    "a deep answer": _deep_answer,
    "a long number": _long_number,
    "an absurd length": lambda: iter([_head(f"Content-Length: {10**30}")]),
    "a negative length": lambda: iter([_head("Content-Length: -1")]),
    "two lengths": lambda: iter([_head("Content-Length: 1", "Content-Length: 9")]),
    "an absurd offset": _dates("Mon, 01 Jan 2024 00:00:00 +99999999999999"),
    "an absurd year": _dates("Mon, 01 Jan 99999999 00:00:00 GMT"),
    "an offset before all calendars": _dates("Mon, 01 Jan 0001 00:00:00 +2359"),
    "an absurd wait": _dates("9" * 8000),
}


class HostileServer:
    """What came and what went, seen from the server's end."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.url = ""
        self.requests = 0
        self.heads: list[bytes] = []
        self._handlers: set[asyncio.Task[None]] = set()

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Attack whoever connects, until the other end has enough."""
        task = asyncio.current_task()
        assert task
        self._handlers.add(task)
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            self.requests += 1
            for piece in self.attack():
                writer.write(piece)
                await writer.drain()
            # Still there, and done: whoever waits for more waits for its own timeout.
            writer.write_eof()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._handlers.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End every connection."""
        for task in list(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)


@asynccontextmanager
async def hostile(attack: Attack) -> AsyncIterator[HostileServer]:
    """Run a server that answers each request with an attack."""
    running = HostileServer(attack)
    server = await asyncio.start_server(running.answer, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        await running.stop()
