"""Puts a request body on the wire and says what came back; no fault raises."""

import asyncio
import importlib
import io
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from amplitude_async.delivery.endpoint import Response

__all__ = ["AiohttpTransport", "Transport", "gzip_body"]

MAX_ANSWER_BYTES = 1024 * 1024
# aiohttp writes a file in pieces of 64 KiB and lets the loop run between them.
LARGE_BODY = 64 * 1024
GZIP_THRESHOLD = 2048
# Compressing 32 KiB at level 1 takes a third of a millisecond: the loop gets its turn.
GZIP_SLICE = 32 * 1024
_GZIP_WBITS = 31


class Transport(Protocol):
    """The one seam to the network."""

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """POST a body; every fault comes back as a ``Response`` with ``error``."""

    async def close(self) -> None:
        """Close what this transport opened itself."""

    def abandon(self) -> None:
        """Forget connections without touching them: another process owns them."""


def _compressor() -> Callable[[], Any]:
    try:
        fast = importlib.import_module("isal.isal_zlib")
    except ImportError:
        return lambda: zlib.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
    return lambda: fast.compressobj(1, fast.DEFLATED, _GZIP_WBITS)


async def gzip_body(body: bytes) -> bytes:
    """Compress a body in slices, giving the event loop its turn between them."""
    compressor = _compressor()()
    if len(body) <= GZIP_SLICE:
        return bytes(compressor.compress(body) + compressor.flush())
    parts = []
    view = memoryview(body)
    for start in range(0, len(body), GZIP_SLICE):
        parts.append(compressor.compress(view[start : start + GZIP_SLICE]))
        await asyncio.sleep(0)
    parts.append(compressor.flush())
    return b"".join(parts)


class AiohttpTransport:
    """One ``aiohttp.ClientSession``, its own or the caller's."""

    def __init__(
        self, session: aiohttp.ClientSession | None = None, *, trust_env: bool = True
    ) -> None:
        self._injected = session
        self._session = session
        self._trust_env = trust_env
        self._proxies: dict[str, str | None] = {}

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """POST a body and read at most 1 MiB of the answer.

        Redirects are not followed: the body carries a key.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        if self._session.closed:
            hint = "the session given to the client is closed: close it after shutdown"
            return Response(0, b"", {}, hint)
        status = 0
        proxy = self._proxy_for(url)
        try:
            async with self._session.post(
                URL(url, encoded=True),
                # Large bytes would be written in one go.
                data=body if len(body) < LARGE_BODY else io.BytesIO(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,
                proxy=proxy,
            ) as answer:
                status = answer.status
                content = await _read_bounded(answer)
                names = {name.lower(): value for name, value in answer.headers.items()}
                return Response(status, content, names)
        except TimeoutError:
            error = f"no complete answer within connection_timeout={timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            error = f"{type(fault).__name__}: {fault}"[:300]
        if 200 <= status < 300:
            # The status line decides; the rest of a broken answer changes nothing.
            return Response(status, b"", {})
        return Response(status, b"", {}, error)

    def _proxy_for(self, url: str) -> str | None:
        """Find the proxy that the environment names for an address, once.

        aiohttp's own ``trust_env`` looks for a netrc file at each request, on the loop.
        """
        if self._injected is not None or not self._trust_env:
            return None
        if url not in self._proxies:
            target = URL(url, encoded=True)
            known = getproxies_environment()
            bypassed = proxy_bypass(target.host or "")
            self._proxies[url] = None if bypassed else known.get(target.scheme)
        return self._proxies[url]

    async def close(self) -> None:
        """Close the session unless the caller brought it."""
        session = self._session
        if session is not None and session is not self._injected:
            self._session = None
            await session.close()

    def abandon(self) -> None:
        """Drop an own session of another process or a closed loop.

        Its sockets belong to somebody else or to nobody: closing them here could shut
        down the parent's connections.
        """
        session = self._session
        if session is not None and session is not self._injected:
            connector = session.connector
            session.detach()
            if connector is not None:
                connector._closed = True  # noqa: SLF001 - or its __del__ would close
            self._session = None

    @property
    def injected(self) -> bool:
        """True where the caller brought the session and with it the loop."""
        return self._injected is not None


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size >= MAX_ANSWER_BYTES:
            answer.close()
            break
    return b"".join(chunks)[:MAX_ANSWER_BYTES]
