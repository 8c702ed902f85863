"""Puts a request body on the wire and says what came back; no fault raises."""

import asyncio
import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from traceback import format_tb
from typing import Any, Protocol
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from amplitude_async.delivery.answer import describe_fault, read_bounded, unpack
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.passage import Passage, own_session
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import (
    Redactor,
    masked_url,
    secrets_of_headers,
    secrets_of_url,
)
from amplitude_async.shown import shown

__all__ = ["AiohttpTransport", "Transport", "gzip_body", "proxy_of"]

GZIP_THRESHOLD = 2048
# Compressing 32 KiB at level 1 takes a third of a millisecond: the loop gets its turn.
GZIP_SLICE = 32 * 1024
_GZIP_WBITS = 31

_PROXY_REFUSES = 407
# The one timeout is ours, round all of it: what a session brings does not count.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
# Nothing of a request went to the server. The answer of a proxy to CONNECT is none of
# the server's: whatever its status says, no tunnel came about.
_NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
)
_NETWORK = (aiohttp.ClientError, OSError, ValueError)
_DISCONNECTED = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    ConnectionResetError,
)


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


class Exchange:
    """One request and what came back, as far as both got."""

    def __init__(
        self, url: str, body: bytes, headers: Mapping[str, str], proxy: str | None
    ) -> None:
        self._url = url
        self._headers = headers
        self._proxy = proxy
        self.passage = Passage(body)
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.asked: Mapping[str, str] = {}
        """The headers that the request really had."""
        self.body = b""

    async def run(self, session: aiohttp.ClientSession, *, own: bool) -> None:
        """Send and receive; redirects are not followed: the body carries a key."""
        answer = await session.post(
            URL(self._url, encoded=True),
            data=self.passage,
            headers=_headers_within(session, self._headers),
            timeout=_NO_TIMEOUT,
            allow_redirects=False,
            # The table of answers decides, not an exception of the session.
            raise_for_status=False,
            auto_decompress=False,
            proxy=self._proxy,
            # The traces of a given session expect what their owner passes.
            trace_request_ctx=self.passage if own else None,
        )
        whole = False
        try:
            self.status = answer.status
            self.asked = answer.request_info.headers
            self.headers = {n.lower(): value for n, value in answer.headers.items()}
            self.body, whole = await read_bounded(answer)
        finally:
            # A server may answer before it has read: waiting for the rest of the
            # request to be sent could take for ever.
            if whole and self.passage.done:
                answer.release()
            else:
                answer.close()

    def answer(self) -> Response:
        """Say what the server said."""
        status, headers = self.status or self.passage.status, self.headers
        if self.accepted:
            return Response(status, self.body, headers)
        if status == _PROXY_REFUSES:
            error = "the proxy wants credentials (HTTP 407): see trust_env"
            return Response(0, b"", {}, error, sent=False)
        body = unpack(self.body, headers.get("content-encoding", ""))
        return Response(status, body, headers)

    def failure(self, fault: Exception, timeout: float, redact: Redactor) -> Response:
        """Say why no complete answer came."""
        sent = not isinstance(fault, _NO_CONNECTION)
        error = describe_fault(fault, redact)
        if isinstance(fault, TimeoutError):
            sent = sent and self.passage.begun
            missing = "complete answer" if sent else "connection"
            error = f"no {missing} within connection_timeout={timeout:g} s"
        return Response(self.status, b"", self.headers, error, sent)

    @property
    def accepted(self) -> bool:
        """True where the status line was good: the rest of the answer is no matter."""
        return 200 <= (self.status or self.passage.status) < 300


class AiohttpTransport:
    """One ``aiohttp.ClientSession``, its own or the caller's."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        trust_env: bool = True,
        redact: Redactor | None = None,
    ) -> None:
        self._redact = redact or Redactor()
        if session is not None:
            if not isinstance(session, aiohttp.ClientSession):
                msg = f"session={shown(session)} must be an aiohttp.ClientSession"
                raise ConfigurationError(msg)
            self._redact = self._redact.knowing(_secrets_of(session))
        self._added: frozenset[str] = frozenset()
        self._knows = self._redact
        self._injected = session
        self._session = session
        self._fresh: aiohttp.ClientSession | None = None
        self._trust_env = trust_env
        self._proxies: dict[str, str | None] = {}

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """POST a body and read at most 128 KiB of the answer.

        Where an idle connection of its own proves dead before a byte of the answer, the
        body goes once more on a fresh one; that is one request still.
        """
        if INTERCEPTION.active:
            forbidden = INTERCEPTION.forbids(url)
            if forbidden is not None:
                return Response(0, b"", {}, forbidden, sent=False)
        if self._session is None:
            self._session = own_session(lasting=True)
        session = self._session
        if session.closed:
            hint = "the session given to the client is closed: close it after shutdown"
            return Response(0, b"", {}, hint, sent=False)
        proxy = self._proxy_for(url)
        exchange = Exchange(url, body, headers, proxy)
        try:
            async with asyncio.timeout(timeout):
                try:
                    await exchange.run(session, own=not self.injected)
                except _DISCONNECTED:
                    if exchange.status or not exchange.passage.stale:
                        raise
                    exchange = Exchange(url, body, headers, proxy)
                    await exchange.run(self._unused(), own=True)
        except Exception as fault:
            if not exchange.accepted:
                if not isinstance(fault, _NETWORK):
                    _shear(fault)
                    raise
                redact = self._redactor_of(exchange)
                return _clean(exchange.failure(fault, timeout, redact), redact)
        return _clean(exchange.answer(), self._redactor_of(exchange))

    def _redactor_of(self, exchange: Exchange) -> Redactor:
        """Give what knows the secrets of one request.

        A given session may have got cookies and headers meanwhile, and what it runs in
        between may add others: what was sent says it all.
        """
        if self._injected is None:
            return self._redact
        added = frozenset(_added_by(self._injected, exchange.asked))
        if added != self._added:
            self._added, self._knows = added, self._redact.knowing(added)
        return self._knows

    def _unused(self) -> aiohttp.ClientSession:
        """Give a session whose connections nobody has used before."""
        if self._fresh is None:
            self._fresh = own_session(lasting=False)
        return self._fresh

    def _proxy_for(self, url: str) -> str | None:
        """Find the proxy that the environment names for an address, once.

        aiohttp's own ``trust_env`` looks for a netrc file at each request, on the loop.
        """
        if self._injected is not None or not self._trust_env:
            return None
        if url not in self._proxies:
            proxy = proxy_of(URL(url, encoded=True))
            if proxy is not None:
                self._redact = self._redact.knowing(secrets_of_url(proxy))
                proxy = masked_url(proxy)
            self._proxies[url] = proxy
        known = self._proxies[url]
        if known is not None and INTERCEPTION.is_left_out(known, url):
            return None
        return known

    async def close(self) -> None:
        """Close the session unless the caller brought it."""
        for session in self._let_go():
            await session.close()

    def abandon(self) -> None:
        """Drop an own session of another process or a closed loop.

        Its sockets belong to somebody else or to nobody: closing them here could shut
        down the parent's connections.
        """
        for session in self._let_go():
            connector = session.connector
            session.detach()
            if connector is not None:
                connector._closed = True  # noqa: SLF001 - or its __del__ would close

    def _let_go(self) -> list[aiohttp.ClientSession]:
        """Forget the sessions of its own."""
        sessions = [self._session, self._fresh]
        self._session, self._fresh = self._injected, None
        return [s for s in sessions if s is not None and s is not self._injected]

    @property
    def injected(self) -> bool:
        """True where the caller brought the session and with it the loop."""
        return self._injected is not None


def proxy_of(target: URL) -> str | None:
    """Read the environment: the proxy for an address, None where it goes directly."""
    proxy = getproxies_environment().get(target.scheme)
    # NO_PROXY may name a host alone or one of its ports.
    ways = (target.host or "", f"{target.host}:{target.port}")
    return None if proxy is None or any(map(proxy_bypass, ways)) else proxy


def _secrets_of(session: aiohttp.ClientSession) -> Iterator[str]:
    """Name what a session of the caller's would add to each request."""
    yield from secrets_of_headers(session.headers)
    # The class of these is on its way out of aiohttp: what is there is asked.
    for name in ("_default_auth", "_default_proxy_auth"):
        auth = getattr(session, name, None)
        if auth is not None:
            yield auth.password
            yield auth.encode().partition(" ")[2]
    yield from secrets_of_url(str(getattr(session, "_default_proxy", None) or ""))


def _added_by(
    session: aiohttp.ClientSession, asked: Mapping[str, str]
) -> Iterator[str]:
    """Name what a session added to one request, or would have where none was sent."""
    yield from secrets_of_headers(asked or session.headers)
    if not asked:
        yield from (morsel.value for morsel in session.cookie_jar)


def _clean(response: Response, redact: Redactor) -> Response:
    """Take out what a server or proxy repeats of our secrets.

    Before anything reads it: what is cut or taken apart later would hide a part.
    """
    return replace(
        response,
        body=redact.body(response.body) if response.body else b"",
        headers={n: redact(value) for n, value in response.headers.items()},
        error=None if response.error is None else redact(response.error),
    )


def _shear(fault: Exception) -> None:
    """Take an error out of the network library, whose frames hold headers in plain.

    Where it was raised is told as text, which has no local variables.
    """
    fault.add_note("".join(format_tb(fault.__traceback__)))
    fault.__cause__ = fault.__context__ = fault.__traceback__ = None


def _headers_within(
    session: aiohttp.ClientSession, headers: Mapping[str, str]
) -> dict[str, str]:
    """Add what keeps a session's own headers from changing what is sent and asked."""
    given = {name.lower() for name in headers}
    added = {"Accept-Encoding": "identity"}
    if "Content-Encoding" in session.headers and "content-encoding" not in given:
        added["Content-Encoding"] = "identity"
    kept = {n: value for n, value in headers.items() if n.lower() != "accept-encoding"}
    return kept | added
