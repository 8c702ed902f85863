"""The health endpoint of a relay: does it live, is it ready, what does it count?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from amplitude_async.fleet.log import Log
from amplitude_async.fleet.relay import Relay

if TYPE_CHECKING:
    from amplitude_async.integrations.prometheus_relay import RelayMetrics

__all__ = ["LIVE", "METRICS", "READY", "HealthServer"]

LIVE: Final = "/live"
READY: Final = "/ready"
METRICS: Final = "/metrics"

# A scraper, a few probes and a person: with more of them the oldest has to go, as
# probes are answered within a moment, and a relay must not die of somebody slow.
MOST_CONNECTIONS: Final = 32
# Whoever has not sent and read everything by then is not waited for.
LONGEST_CONNECTION: Final = 10.0
CLOSE_PATIENCE: Final = 0.2


class HealthServer:
    """Answers three questions over HTTP while a relay runs.

    Args:
        relay: that is asked about.
        log: for its backlog, in the metrics.
        stopping: set once the relay is to give everything back.
    """

    def __init__(self, relay: Relay, log: Log, stopping: asyncio.Event) -> None:
        self._relay = relay
        self._stopping = stopping
        self._server = web.Server(self._answer, access_log=None)
        self._listener: asyncio.Server | None = None
        self._metrics = _metrics_of(relay, log)

    def __repr__(self) -> str:
        return f"<HealthServer of {self._relay.name}>"

    async def start(self, host: str, port: int) -> str:
        """Listen, and return where.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connect, host, port)
        taken = self._listener.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{taken}"

    async def close(self) -> None:
        """Listen no longer, and wait for nobody."""
        if self._listener is not None:
            self._listener.close()
        await self._server.shutdown(CLOSE_PATIENCE)
        if self._metrics is not None:
            await self._metrics.close()

    def _connect(self) -> asyncio.BaseProtocol:
        """Take a connection, for a while."""
        open_now = [one for one in self._server.connections if one.transport]
        for one in open_now[: max(0, len(open_now) + 1 - MOST_CONNECTIONS)]:
            _cut(one)
        protocol = self._server()
        asyncio.get_running_loop().call_later(LONGEST_CONNECTION, _cut, protocol)
        return protocol

    # Answers -----------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        routes: dict[str, Callable[[], Awaitable[web.Response]]] = {
            LIVE: self._live,
            READY: self._ready,
            METRICS: self._scraped,
        }
        route = routes.get(request.path)
        if route is None:
            answer = _said(404, f"ask for {LIVE}, {READY} or {METRICS}")
        elif request.method not in {"GET", "HEAD"}:
            answer = _said(405, "ask with GET")
            answer.headers["Allow"] = "GET, HEAD"
        else:
            answer = await route()
        answer.force_close()
        return answer

    async def _live(self) -> web.Response:
        return _said(200, "live")

    async def _ready(self) -> web.Response:
        if self._stopping.is_set():
            return _said(503, "stopping: it gives everything back")
        if not self._relay.ready:
            return _said(503, "the log does not answer")
        return _said(200, "ready")

    async def _scraped(self) -> web.Response:
        if self._metrics is None:
            missing = "pip install 'amplitude-async[prometheus]'"
            return _said(404, f"metrics need prometheus-client: {missing}")
        body, kind = await self._metrics.scrape()
        return web.Response(body=body, headers={"Content-Type": kind})


def _cut(connection: web.RequestHandler) -> None:
    # Not a close: that would wait for whoever does not read.
    if connection.transport is not None:
        connection.transport.abort()


def _metrics_of(relay: Relay, log: Log) -> "RelayMetrics | None":
    """Make what answers a scrape; None without the extra for it."""
    try:
        from amplitude_async.integrations.prometheus_relay import (  # noqa: PLC0415
            RelayMetrics,
        )
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return None
    return RelayMetrics(relay, log)


def _said(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")
