"""How far a request got on its connection: what aiohttp knows and does not say."""

import asyncio
import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.payload import Payload

__all__ = ["Passage", "own_session"]

# A piece, and then the loop's turn: large bytes would be written in one go.
PIECE = 64 * 1024
_BLANK_LINE = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([2-9]\d\d)(?: [^\r\n]*)?\r?\n")
# So many 1xx answers to one request are a flood, and would keep the loop busy.
MAX_HEADS = 100
# Of one answer, with all that is no body: chunks of one byte cost six each and take the
# loop's time. A body is read up to 128 KiB, and one packet brings 256 KiB at the most.
MAX_WIRE_BYTES = 512 * 1024


class Passage(Payload):
    """A request body that notes how far it got."""

    _autoclose = True

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/octet-stream")
        self._size = len(body)
        self._answers: HeadFirst | None = None
        self.begun = False
        """True once a connection was there to write it to."""
        self.done = False
        """True once all of it was written."""
        self.reused = False
        """True where an earlier request had used the connection; for own sessions."""

    @property
    def stale(self) -> bool:
        """True where it met an idle connection that was not alive any more."""
        heard = self._answers is not None and self._answers.heard
        return self.reused and not heard

    @property
    def status(self) -> int:
        """The status that the server began its answer with; 0 where that is unknown.

        aiohttp does not tell it where anything else in the head is not as it should be.
        """
        return self._answers.status if self._answers is not None else 0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Give the body as text."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body in pieces, giving the event loop its turn between them."""
        self.begun = True
        transport = getattr(writer, "transport", None)
        if transport is not None:
            protocol = transport.get_protocol()
            self._answers = protocol if isinstance(protocol, HeadFirst) else None
        body: bytes = self._value
        for start in range(0, len(body), PIECE):
            if start:
                await asyncio.sleep(0)
            await writer.write(body[start : start + PIECE])
        self.done = True


class HeadFirst(ResponseHandler):
    """Shows aiohttp the head of an answer before anything that follows it.

    Its parser forgets the head where what came in the same packet is broken, and with
    it the status: a request that was taken would be sent again.
    """

    heard = False
    """True once the server said anything in answer to the request at hand."""
    status = 0
    """What the answer's status line said, once it was there."""
    _in_head = False
    _heads = 0
    _bytes = 0
    _seam = b""

    def set_response_params(self, **params: Any) -> None:
        """Get ready for the next answer."""
        self.heard = False
        self.status = 0
        self._in_head = True
        self._heads = 0
        self._bytes = 0
        self._seam = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        if data:
            self._bytes += len(data)
            if self._bytes > MAX_WIRE_BYTES:
                # Not `close`, after which nobody tells who waits for the body.
                if isinstance(self.transport, asyncio.Transport):
                    self.transport.abort()
                return
            self.heard = True
            if self._in_head:
                data = self._feed_heads(data)
                if not data:
                    return
        super().data_received(data)

    def _feed_heads(self, data: bytes) -> bytes:
        """Feed one head after the other (there may be 1xx); returns what follows."""
        # The blank line may lie on the seam of two packets.
        joint = self._seam + data
        fed, begin = len(self._seam), 0
        self._note_status(joint, fed)
        while (end := joint.find(_BLANK_LINE, begin)) >= 0:
            end += len(_BLANK_LINE)
            super().data_received(joint[fed:end])
            fed = begin = end
            self._heads += 1
            if self._heads > MAX_HEADS:
                self.close()
                return b""
            self._note_status(joint, begin)
            if end < len(joint) and not joint.startswith(b"HTTP/", end):
                self._in_head = False
                return joint[end:]
        self._seam = joint[max(begin, len(joint) - len(_BLANK_LINE) + 1) :]
        return joint[fed:]

    def _note_status(self, data: bytes, begin: int) -> None:
        """Note what the answer's status line says, where one begins there."""
        line = None if self.status else _STATUS_LINE.match(data, begin)
        if line is not None:
            self.status = int(line[1])


def own_session(*, lasting: bool) -> aiohttp.ClientSession:
    """Open a session that tells passages of their connections.

    Args:
        lasting: keep connections for the next request; else each has a fresh one.
    """
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(force_close=not lasting)
    # Where a release of aiohttp has it no more, its own handler does the work.
    connector._factory = partial(HeadFirst, loop=loop)  # type: ignore[assignment]  # noqa: SLF001
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trace_configs=[tracing],
    )


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any
) -> None:
    context.trace_request_ctx.reused = True
