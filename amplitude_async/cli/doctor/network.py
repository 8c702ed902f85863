"""The way to the server, step by step, each bounded in time."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from amplitude_async.cli.doctor.findings import Finding, Verdict
from amplitude_async.cli.terminal import printable
from amplitude_async.delivery.transport import proxy_of

__all__ = ["Way"]

_SOON: Final = 14 * 86_400.0
_SKEW_WARN: Final = 30.0
_SKEW_TROUBLE: Final = 300.0
_PORTS: Final = {"http": 80, "https": 443}


class Way:
    """The way to one address.

    Args:
        url: where events go.
        timeout: seconds for each step.
        trust_env: whether proxies of the environment are used.
    """

    def __init__(self, url: str, timeout: float, *, trust_env: bool) -> None:
        self._url = URL(url, encoded=True)
        self._timeout = timeout
        found = proxy_of(self._url) if trust_env else None
        self._proxy = None if found is None else URL(found)
        self._trust_env = trust_env
        self.is_open = False
        """True where a server answered at the end of it."""

    async def examine(self) -> AsyncGenerator[Finding, None]:
        """Go it step by step, up to the first one that is barred."""
        yield self._proxy_found()
        first = self._proxy or self._url
        steps = [self._dns(first), self._connect(first)]
        if self._url.scheme == "https" and self._proxy is None:
            steps.append(self._tls())
        for place, step in enumerate(steps):
            finding = await step
            yield finding
            if finding.verdict is Verdict.TROUBLE:
                for rest in steps[place + 1 :]:
                    rest.close()
                return
        async for finding in self._ask():
            yield finding

    def _proxy_found(self) -> Finding:
        if self._proxy is not None:
            # Without the user and password that may stand in it.
            text = f"the environment sends {self._url.scheme} by {_named(self._proxy)}"
            return Finding("proxy", Verdict.OK, text)
        text = "none" if self._trust_env else "none: AMPLITUDE_TRUST_ENV is off"
        return Finding("proxy", Verdict.OK, text)

    async def _dns(self, url: URL) -> Finding:
        host = url.host or ""
        try:
            found = await _resolved(host, _port(url), self._timeout)
        except TimeoutError:
            text = f"no answer about {host} within {self._timeout:g} s"
        except OSError as error:
            text = f"{host} has no address: {error.strerror or error}"
        else:
            many = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return Finding("dns", Verdict.OK, f"{host} is {found[0]}{many}")
        remedy = "look at the name, and at this machine's DNS (/etc/resolv.conf)"
        return Finding("dns", Verdict.TROUBLE, text, remedy)

    async def _connect(self, url: URL) -> Finding:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                _, writer = await asyncio.open_connection(url.host, _port(url))
        except TimeoutError:
            text = f"no connection to {_named(url)} within {self._timeout:g} s"
            remedy = "a firewall drops it: let this machine connect there"
        except OSError as error:
            text = f"no connection to {_named(url)}: {_reason(error)}"
            remedy = "nothing listens there, or a firewall refuses it"
            if url is self._proxy:
                remedy = "look at HTTPS_PROXY and HTTP_PROXY; NO_PROXY goes around it"
        else:
            writer.close()
            took = (time.monotonic() - started) * 1000
            return Finding("connect", Verdict.OK, f"{_named(url)} in {took:.0f} ms")
        return Finding("connect", Verdict.TROUBLE, text, remedy)

    async def _tls(self) -> Finding:
        host = self._url.host
        try:
            async with asyncio.timeout(self._timeout):
                _, writer = await asyncio.open_connection(
                    host, _port(self._url), ssl=ssl.create_default_context()
                )
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {host} is not trusted: {error.verify_message}"
            remedy = (
                "install ca-certificates; where a proxy opens TLS, name its "
                "certificate in SSL_CERT_FILE"
            )
        except TimeoutError:
            text = f"no TLS handshake within {self._timeout:g} s"
            remedy = "what listens there is no HTTPS server, or a firewall looks in"
        except (ssl.SSLError, OSError) as error:
            text = f"no TLS with {host}: {_reason(error)}"
            remedy = "what listens there is no HTTPS server: look at the URL"
        else:
            found = _certified(writer)
            writer.transport.abort()
            return found
        return Finding("tls", Verdict.TROUBLE, text, remedy)

    async def _ask(self) -> AsyncGenerator[Finding, None]:
        """Ask for the address without sending anything, and look at the clock."""
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        before = time.time()
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(
                    self._url,
                    proxy=self._proxy,
                    allow_redirects=False,
                    headers={"Accept-Encoding": "identity"},
                ) as response,
            ):
                status, date = response.status, response.headers.get("Date")
        except aiohttp.ClientHttpProxyError as error:
            yield self._by_proxy(error.status)
            return
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            text = (
                f"no answer within {self._timeout:g} s"
                if isinstance(error, TimeoutError)
                else f"no answer: {printable(_without_proxy(error), 300)}"
            )
            remedy = "what listens there is no HTTP server, or it is in trouble"
            yield Finding("http", Verdict.TROUBLE, text, remedy)
            return
        after = time.time()
        if status == 407:
            yield self._by_proxy(status)
            return
        self.is_open = status < 500
        yield _answered(status)
        yield _clock(date, (before + after) / 2)

    def _by_proxy(self, status: int) -> Finding:
        proxy = (
            "the proxy" if self._proxy is None else f"the proxy {_named(self._proxy)}"
        )
        text = f"{proxy} refuses the way to {self._url.host}: HTTP {status}"
        remedy = f"let it pass {self._url.host}, or name the host in NO_PROXY"
        if status == 407:
            remedy = "it wants a user and password: http://user:password@proxy:port"
        return Finding("http", Verdict.TROUBLE, text, remedy)


def _answered(status: int) -> Finding:
    if status >= 500:
        text = f"the server is in trouble: HTTP {status}"
        remedy = "events wait and go again by themselves; look at status.amplitude.com"
        return Finding("http", Verdict.TROUBLE, text, remedy)
    if 300 <= status < 400:
        text = f"the address leads elsewhere: HTTP {status}"
        remedy = "redirects are not followed, as the body has a key: look at the URL"
        return Finding("http", Verdict.TROUBLE, text, remedy)
    if status == 404:
        text = "the server knows no such path: HTTP 404"
        remedy = "the path is /2/httpapi, or /batch: look at AMPLITUDE_SERVER_URL"
        return Finding("http", Verdict.WARN, text, remedy)
    return Finding("http", Verdict.OK, f"a server answers (HTTP {status} to a GET)")


def _clock(date: str | None, now: float) -> Finding:
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError, TypeError):
        text = "the server did not say what time it is"
        return Finding("clock", Verdict.SKIPPED, text)
    # It says whole seconds, and cut off.
    skew = there + 0.5 - now
    if abs(skew) < _SKEW_WARN:
        return Finding("clock", Verdict.OK, "it agrees with the server's")
    text = (
        f"it is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} the server's"
    )
    bad = abs(skew) >= _SKEW_TROUBLE
    verdict = Verdict.TROUBLE if bad else Verdict.WARN
    remedy = (
        "events have this machine's time: let it follow a time server (chrony, ntp)"
    )
    return Finding("clock", verdict, text, remedy)


def _certified(writer: asyncio.StreamWriter) -> Finding:
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    protocol = writer.get_extra_info("ssl_object").version()
    left = None
    with suppress(KeyError, ValueError):
        left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()
    if left is None or left > _SOON:
        return Finding("tls", Verdict.OK, f"{protocol}, the certificate is trusted")
    text = f"{protocol}, the certificate ends in {left / 86_400:.1f} days"
    return Finding("tls", Verdict.WARN, text, "its owner has to renew it")


async def _resolved(host: str, port: int, timeout: float) -> list[str]:
    """Look a name up in a thread that nobody has to wait for."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def look_up() -> None:
        addresses, problem = [], None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(info[4][0]) for info in infos]
        except (OSError, UnicodeError) as error:
            problem = error if isinstance(error, OSError) else OSError(str(error))
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, addresses, problem)

    # A daemon: a resolver may take minutes, and cannot be stopped.
    threading.Thread(target=look_up, name="amplitude-async dns", daemon=True).start()
    async with asyncio.timeout(timeout):
        return await found


def _port(url: URL) -> int:
    return url.port or _PORTS.get(url.scheme, 443)


def _named(url: URL) -> str:
    return f"{url.host}:{_port(url)}"


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ssl.SSLError):
        return error.reason or "the handshake failed"
    return error.strerror or str(error) or type(error).__name__


def _without_proxy(error: BaseException) -> str:
    """Say what happened, without an address that may hold a password."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or type(error.os_error).__name__
    return (
        type(error).__name__
        if "@" in str(error)
        else str(error) or type(error).__name__
    )
