"""A light server that counts: the far end of every benchmark.

It takes what each SDK sends to its own vendor and answers what that SDK accepts.
Every event of the benchmark carries its number once, as ``~00000123~``, in a property:
finding the numbers counts events and tells lost, repeated and delivered ones apart
without parsing JSON, at more than a million events a second. With ``--check`` the JSON
is parsed as well, and the vendor's own list must have as many entries.

Run as a script it serves until it is terminated::

    python benchmarks/sink.py --port 8901 --delay 0.1
"""

import argparse
import asyncio
import base64
import json
import math
import re
import time
import zlib
from dataclasses import dataclass, field
from typing import Any, cast

__all__ = ["Limits", "Sink", "Totals", "main"]

NUMBER = re.compile(rb"~(\d{8})~")
# Snowplow wraps an event's data in URL-safe base64 unless told otherwise.
WRAPPED = re.compile(rb'"ue_px":\s*"([A-Za-z0-9_=-]+)"')
GZIP_WBITS = 31
MOST_EVENTS = 4_000_000

# The vendor's key of the list of events, by a part of the path.
LISTS = {
    "/2/httpapi": "events",
    "/v1/batch": "batch",
    "/batch": "batch",
    "/com.snowplowanalytics": "data",
    "/events": "events",
}


@dataclass
class Totals:
    """What has arrived since the last reset."""

    requests: int = 0
    events: int = 0
    distinct: int = 0
    body_bytes: int = 0
    """Bytes after decompression."""

    wire_bytes: int = 0
    connections: int = 0
    last_byte_ns: int = 0
    """When the last request was complete, on the clock CLOCK_MONOTONIC."""

    mismatches: int = 0
    """Requests whose own list had another length than the numbers found in it."""

    unknown: int = 0
    """Requests without a single event."""

    refused: int = 0
    """Requests turned away because the sink was busy; nothing in them counts."""

    last_new_ns: int = 0
    """When an event came last that had not come before."""

    seen: bytearray = field(default_factory=lambda: bytearray(MOST_EVENTS), repr=False)

    def as_json(self) -> bytes:
        """Give the figures, without the map of numbers."""
        figures = {k: v for k, v in vars(self).items() if k != "seen"}
        return json.dumps(figures).encode()

    def count(self, body: bytes) -> int:
        """Count the events in a body by their numbers."""
        numbers = NUMBER.findall(body)
        if not numbers and b'"ue_px"' in body:
            wrapped = (base64.urlsafe_b64decode(w) for w in WRAPPED.findall(body))
            numbers = NUMBER.findall(b"".join(wrapped))
        seen = self.seen
        for number in map(int, numbers):
            if not seen[number]:
                seen[number] = 1
                self.distinct += 1
        self.events += len(numbers)
        return len(numbers)


@dataclass
class Limits:
    """How many requests a busy sink takes; it answers 503 to the others at once."""

    per_second: float = math.inf
    at_once: float = math.inf
    under_way: int = 0
    room: float = math.inf
    counted_at: float = 0.0

    def admit(self) -> bool:
        """Take one more request, until `leave`; False where there is no room."""
        if self.per_second < math.inf:
            now = time.monotonic()
            gained = (now - self.counted_at) * self.per_second
            # After a quiet second as many may come at once as a second takes.
            self.room = min(max(1.0, self.per_second), self.room + gained)
            self.counted_at = now
        if self.under_way >= self.at_once or self.room < 1.0:
            return False
        self.room -= 1.0
        self.under_way += 1
        return True

    def leave(self) -> None:
        """Note that a request which was taken has its answer."""
        self.under_way -= 1


@dataclass
class Sink:
    """How to answer, and what has arrived."""

    delay: float = 0.0
    stall: bool = False
    """Read everything and answer nothing."""

    check: bool = False
    limits: Limits = field(default_factory=Limits)
    totals: Totals = field(default_factory=Totals)

    def take(self, path: str, headers: dict[bytes, bytes], body: bytes) -> bytes:
        """Count a request of an SDK; returns the answer."""
        totals = self.totals
        totals.requests += 1
        totals.wire_bytes += len(body)
        if headers.get(b"content-encoding") == b"gzip":
            body = zlib.decompress(body, GZIP_WBITS)
        totals.body_bytes += len(body)
        distinct = totals.distinct
        found = totals.count(body)
        totals.last_byte_ns = time.monotonic_ns()
        if totals.distinct > distinct:
            totals.last_new_ns = totals.last_byte_ns
        totals.unknown += not found
        if self.check and found != count_listed(path, body):
            totals.mismatches += 1
        return _answer(path, found, len(body))

    def turn_away(self) -> bytes:
        """Answer a request for which there is no room."""
        self.totals.requests += 1
        self.totals.refused += 1
        return _response(503, b'{"error":"busy"}')

    def control(self, path: str) -> bytes:
        """Answer the benchmark's own questions."""
        if path == "/__reset":
            self.totals = Totals()
        elif path == "/__release":
            self.stall = False
        return _response(200, self.totals.as_json())


def count_listed(path: str, body: bytes) -> int:
    """Count the entries of the vendor's list of events, by parsing the body."""
    content: Any = json.loads(body)
    if isinstance(content, list):  # mParticle's bulk form is a list of batches
        return sum(len(batch["events"]) for batch in content)
    key = next((k for part, k in LISTS.items() if part in path), "events")
    return len(content[key])


def _answer(path: str, events: int, size: int) -> bytes:
    if "/2/httpapi" in path:
        fields = {
            "code": 200,
            "events_ingested": events,
            "payload_size_bytes": size,
            "server_upload_time": time.time_ns() // 1_000_000,
        }
        return _response(200, json.dumps(fields).encode())
    if path.startswith("/v2/") or "/bulkevents" in path:
        return _response(202, b"")
    if path.startswith("/batch"):
        return _response(200, b'{"status":"Ok"}')
    if "/com.snowplowanalytics" in path:
        return _response(200, b"ok", b"text/plain")
    return _response(200, b'{"success":true}')


def _response(status: int, body: bytes, kind: bytes = b"application/json") -> bytes:
    reason = {200: b"OK", 202: b"Accepted", 503: b"Service Unavailable"}[status]
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        reason,
        kind,
        len(body),
        body,
    )


class _Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1: requests with a length or in chunks, kept alive."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._head: tuple[str, dict[bytes, bytes]] | None = None
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sink.totals.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._needed and self._next():
            pass

    def _next(self) -> bool:
        """Handle one request; False where it is not complete."""
        if self._head is None and not self._read_head():
            return False
        if self._head is None:
            return False
        path, headers = self._head
        if headers.get(b"transfer-encoding") == b"chunked":
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return False
            body = _join_chunks(bytes(self._buffer))
            self._buffer.clear()
        else:
            if len(self._buffer) < self._needed:
                return False
            body = bytes(self._buffer[: self._needed])
            del self._buffer[: self._needed]
        self._head, self._needed = None, 0
        self._serve(path, headers, body)
        return bool(self._buffer)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        pairs = (line.split(b":", 1) for line in lines)
        headers = {k.strip().lower(): v.strip() for k, v in pairs}
        self._head = first.split(b" ")[1].decode(), headers
        self._needed = int(headers.get(b"content-length", b"0"))
        if headers.get(b"expect") == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _serve(self, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        sink = self._sink
        if path.startswith("/__"):
            self._transport.write(sink.control(path))
            return
        close = headers.get(b"connection", b"").lower() == b"close"
        if not sink.limits.admit():
            self._write(sink.turn_away(), close)
            return
        answer = sink.take(path, headers, body)
        if sink.stall:
            return
        if sink.delay:
            loop = asyncio.get_running_loop()
            loop.call_later(sink.delay, self._finish, answer, close)
        else:
            self._finish(answer, close)

    def _finish(self, answer: bytes, close: bool) -> None:  # noqa: FBT001
        self._sink.limits.leave()
        self._write(answer, close)

    def _write(self, answer: bytes, close: bool) -> None:  # noqa: FBT001
        if not self._transport.is_closing():
            self._transport.write(answer)
            if close:
                self._transport.close()


def _join_chunks(data: bytes) -> bytes:
    parts: list[bytes] = []
    while data:
        head, _, data = data.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        parts.append(data[:size])
        data = data[size + 2 :]
    return b"".join(parts)


async def serve(sink: Sink, host: str, port: int) -> None:
    """Serve until cancelled; prints the port once it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(sink), host, port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve on loopback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--stall", action="store_true", help="answer nothing")
    parser.add_argument("--check", action="store_true", help="parse every body too")
    parser.add_argument("--per-second", type=float, default=math.inf, metavar="N")
    parser.add_argument("--at-once", type=float, default=math.inf, metavar="N")
    given = parser.parse_args()
    limits = Limits(given.per_second, given.at_once)
    sink = Sink(given.delay, given.stall, given.check, limits)
    try:
        import uvloop  # noqa: PLC0415 - where it is installed the sink is lighter
    except ImportError:
        asyncio.run(serve(sink, "127.0.0.1", given.port))
    else:
        uvloop.run(serve(sink, "127.0.0.1", given.port))


if __name__ == "__main__":
    main()
