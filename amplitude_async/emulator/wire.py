"""Reads bounded request bodies and sends answers, whole, slow or cut."""

from __future__ import annotations

import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import HttpVersion11, hdrs, web

from .reading import MAX_WEIGHT, weigh

__all__ = [
    "Answer",
    "Body",
    "Pause",
    "encode",
    "hang_up",
    "meet_expectation",
    "read_body",
    "send",
]

# Returns True when the emulator is stopping and nobody needs an answer any more.
Pause = Callable[[float], Awaitable[bool]]

_BLANKS = b" " * 1024
_GZIP_WINDOW = 31
_SLICE = 64 * 1024
# Tools that pack in parallel make one of each 64 KiB or so.
_MOST_MEMBERS = 1_000
_PACKING = 64 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """A request body as far as it was read."""

    data: bytes | None
    """The decoded bytes, None when they could not be decoded."""

    wire_bytes: int
    """Bytes read from the connection."""

    decoded_bytes: int
    """Bytes after decompression."""

    too_large: bool
    """Whether it is past the limit, of bytes or of the memory it would take."""

    note: str = ""
    """Why it was not read to its end, or not decoded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send and how."""

    status: int
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    trickle: float = 0.0
    endless: bool = False
    document: object = None
    """What `payload` was written from."""


class _Plain:
    """Collects a body that is not compressed, up to one byte past a limit."""

    problem = ""
    """Why it cannot be decoded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def too_large(self) -> bool:
        return self.size > self._limit

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)

    def finish(self) -> bytes | None:
        return b"".join(self._parts)


class _Gunzip(_Plain):
    """Unpacks a gzip body and stops one byte past a limit, whatever it promises."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._members = 1
        self._fed = False

    def feed(self, data: bytes) -> None:
        self._fed = self._fed or bool(data)
        # In slices: each member begins with a copy of what is left of one.
        for start in range(0, len(data), _SLICE):
            self._unpack(data[start : start + _SLICE])

    def _unpack(self, data: bytes) -> None:
        while data and not self.too_large and not self.problem:
            if self._stream.eof:
                self._next_member()
            room = self._limit + 1 - self.size
            try:
                super().feed(self._stream.decompress(data, room))
            except zlib.error:
                self.problem = "body is no gzip, or a broken one"
            data = self._stream.unused_data or self._stream.unconsumed_tail

    def _next_member(self) -> None:
        """Go on after the end: a gzip file may consist of several members."""
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._members += 1
        # Empty ones decode to nothing, so no limit of bytes would ever be reached.
        if self._members > _MOST_MEMBERS:
            self.problem = f"body has more than {_MOST_MEMBERS:,} gzip members"

    def finish(self) -> bytes | None:
        if self._fed and not self._stream.eof and not self.problem:
            self.problem = "body is a gzip that was cut"
        return None if self.problem else super().finish()


class _Unknown(_Plain):
    """Counts a body in an encoding nobody can undo."""

    def __init__(self, limit: int, encoding: str) -> None:
        super().__init__(limit)
        self.problem = f"Content-Encoding is {encoding[:40]!r}: use gzip or none"

    def finish(self) -> bytes | None:
        return None


async def read_body(request: web.BaseRequest, limit: int) -> Body:
    """Read and decode the body, but no more than a byte past the limit.

    Raises:
        ConnectionError: the client went away.
        aiohttp.web.RequestPayloadError: the body broke the rules of HTTP.
    """
    sink = _sink(request.headers.get(hdrs.CONTENT_ENCODING, ""), limit)
    wire_bytes = 0
    too_large = False
    async for chunk in request.content.iter_any():
        wire_bytes += len(chunk)
        sink.feed(chunk)
        # What is packed may be longer than what it holds, but not by much.
        too_large = sink.too_large or wire_bytes > limit + _PACKING
        if too_large or sink.problem:
            break
    if too_large:
        note = f"body has more than {limit:,} bytes"
        return Body(None, wire_bytes, sink.size, too_large=True, note=note)
    data = sink.finish()
    if data is not None and weigh(data) > MAX_WEIGHT:
        note = f"body would take more than {MAX_WEIGHT // 2**20} MiB of memory"
        return Body(None, wire_bytes, sink.size, too_large=True, note=note)
    return Body(data, wire_bytes, sink.size, too_large=False, note=sink.problem)


async def meet_expectation(request: web.Request) -> None:
    """Tell a client that waits for it to go on with its body.

    aiohttp does the same, but repeats an expectation that it does not know, and fails
    where that is no text.

    Raises:
        aiohttp.web.HTTPExpectationFailed: it expects something else.
    """
    if request.version != HttpVersion11:
        return
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Expect is unknown: use 100-continue")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The body of the answer has not begun with that.
    request.writer.output_size = 0


def encode(body: object) -> tuple[bytes, str]:
    """Return a body of bytes, text or JSON values, and its Content-Type.

    None is no body and has no type.
    """
    if body is None:
        return b"", ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(errors="replace"), "text/plain; charset=utf-8"
    return json.dumps(body, separators=(",", ":")).encode(), "application/json"


async def send(
    request: web.BaseRequest, answer: Answer, pause: Pause
) -> web.StreamResponse:
    """Send the answer, or as much of it as the fault allows."""
    if not (answer.cut or answer.trickle or answer.endless):
        return web.Response(
            status=answer.status, body=answer.payload, headers=answer.headers
        )
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    payload = answer.payload
    if not answer.endless:
        # An empty body cannot be cut, so at least one byte is announced.
        response.content_length = max(len(payload), int(answer.cut))
    await response.prepare(request)
    if answer.cut:
        payload = payload[: len(payload) // 2]
    stopped = await _write(response, payload, answer.trickle, pause)
    while answer.endless and not stopped:
        await response.write(_BLANKS[:1] if answer.trickle else _BLANKS)
        stopped = await pause(answer.trickle)
    if answer.cut or stopped:
        # close() and not abort(): the half already written shall arrive.
        if request.transport is not None:
            request.transport.close()
    else:
        await response.write_eof()
    return response


def hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection; the response returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _write(
    response: web.StreamResponse, payload: bytes, trickle: float, pause: Pause
) -> bool:
    if not trickle:
        await response.write(payload)
        return False
    for index in range(len(payload)):
        await response.write(payload[index : index + 1])
        if await pause(trickle):
            return True
    return False


def _sink(encoding: str, limit: int) -> _Plain:
    encoding = encoding.strip().lower()
    if encoding in ("gzip", "x-gzip"):
        return _Gunzip(limit)
    if encoding in ("", "identity"):
        return _Plain(limit)
    return _Unknown(limit, encoding)
