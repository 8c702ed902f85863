"""The emulator itself: start and stop, its socket, and what tests look at."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import TracebackType
from typing import Self

from aiohttp import web

from .amplitude_api import BATCH_PATH, HTTP_API_PATH, AmplitudeApi
from .browsers import Guard
from .control import Control
from .exchange import Exchange, find_vendor
from .judgement import JsonObject, Vendor
from .ledger import EmulatorStats, Ledger, ReceivedRequest
from .mparticle_api import MPARTICLE_PATH, MParticleApi
from .rates import RateMeter
from .script import FaultScript
from .wire import meet_expectation

__all__ = ["Emulator"]

logger = logging.getLogger("amplitude_async.emulator")

_READ_BUFFER = 1 << 20
# Every handler is ended by `stop` itself; this is for one stuck in user code.
_STOP_TIMEOUT = 1.0


class Emulator:
    """A local Amplitude and mParticle server that keeps what it is sent.

    Use it as `async with Emulator() as emulator:` and send to `emulator.httpapi_url`,
    or with an mParticle client to `emulator.mparticle_url`.

    Args:
        host: address to listen on, a loopback address unless `allow_remote`.
        port: port to listen on, 0 for any free one.
        api_keys: Amplitude keys to accept; None accepts any that is not empty.
        clock: seconds since the epoch, for upload times, deduplication and rates.
        eps_threshold: events per second one user or device may send, None for any.
        eps_window: seconds over which that rate is averaged.
        mparticle_keys: mParticle keys with their secrets; None accepts any pair.
        bulk_partial: drop bad batches of a bulk request in silence, as mParticle
            does, instead of refusing the request.
        rate_limit_per_second: mParticle batches per second, None for any number.
        keep: newest events kept in `events`, and batches in `batches`.
        keep_requests: newest requests kept in `requests`.
        keep_bytes: memory that what is kept of each of the three may take, as it is
            estimated; `stats` counts what was forgotten.
        seed: of the draws for `Fault.rate`.
        allow_remote: allow a host that other machines can reach.
        allowed_hosts: host names by which its own pages may be read, besides IP
            addresses, `localhost` and `host`; events are taken under any name.
    """

    def __init__(  # noqa: PLR0913 - all but two by keyword
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        api_keys: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
        eps_threshold: float | None = None,
        eps_window: float = 1.0,
        mparticle_keys: Mapping[str, str] | None = None,
        bulk_partial: bool = False,
        rate_limit_per_second: float | None = None,
        keep: int = 100_000,
        keep_requests: int = 10_000,
        keep_bytes: int = 256 * 1024 * 1024,
        seed: int = 0,
        allow_remote: bool = False,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            msg = (
                f"host {host!r} can be reached from other machines: use 127.0.0.1, "
                "or pass allow_remote=True if that is wanted"
            )
            raise ValueError(msg)
        if isinstance(allowed_hosts, str):
            msg = f"allowed_hosts is {allowed_hosts!r}: give a list of host names"
            raise ValueError(msg)  # noqa: TRY004 - a bad value, like the others
        self._host = host
        self._port = port
        mparticle = MParticleApi(mparticle_keys, bulk_partial=bulk_partial)
        meter = None if eps_threshold is None else RateMeter(eps_threshold, eps_window)
        self._vendors = (
            Vendor(AmplitudeApi(api_keys), meter),
            Vendor(mparticle, _batch_meter(rate_limit_per_second)),
        )
        self._new_ledger = partial(Ledger, keep, keep_requests, keep_bytes)
        self._ledger = self._new_ledger()
        self.faults = FaultScript(seed)
        """The faults to come: `add`, `clear`, `pending`."""
        self._new_application = partial(
            _application,
            Control(self._current_ledger, self.faults, self.reset),
            Exchange(
                vendors=self._vendors,
                ledger=self._current_ledger,
                faults=self.faults,
                clock=clock,
                pause=self._pause,
            ),
            Guard((host, *allowed_hosts), self._ingests),
        )
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._reserved: socket.socket | None = None
        self._relisten: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        """Say where it listens and how much it has seen."""
        stats = self.stats
        where = "stopped" if self._runner is None else self.url
        return (
            f"<Emulator {where} requests={stats.requests} "
            f"events={stats.events_ingested} batches={stats.batches_ingested}>"
        )

    async def __aenter__(self) -> Self:
        """Start listening."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, whatever requests still hang."""
        await self.stop()

    @property
    def port(self) -> int:
        """The port it listens on, 0 before the first start on any free port."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL without a slash at the end.

        Raises:
            RuntimeError: the port is not known before the start.
        """
        if self._port == 0:
            msg = "the emulator has no port yet: enter `async with Emulator()` first"
            raise RuntimeError(msg)
        return f"http://{_url_host(self._host)}:{self._port}"

    @property
    def httpapi_url(self) -> str:
        """URL of the HTTP V2 endpoint."""
        return self.url + HTTP_API_PATH

    @property
    def batch_url(self) -> str:
        """URL of the Batch endpoint."""
        return self.url + BATCH_PATH

    @property
    def mparticle_url(self) -> str:
        """Base URL of the mParticle Events API, with its version."""
        return self.url + MPARTICLE_PATH

    @property
    def events(self) -> list[JsonObject]:
        """The Amplitude events stored, each once, in order of arrival."""
        return list(self._ledger.events)

    @property
    def batches(self) -> list[JsonObject]:
        """The mParticle batches stored, each once, in order of arrival."""
        return list(self._ledger.batches)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests received, in order of being judged."""
        return list(self._ledger.requests)

    @property
    def stats(self) -> EmulatorStats:
        """A snapshot of the counters; they count also what is no longer kept."""
        return self._ledger.stats

    def reset(self) -> None:
        """Forget what arrived, counters, faults, deduplication keys and rates."""
        self._ledger = self._new_ledger()
        self.faults.clear()
        for vendor in self._vendors:
            if vendor.meter is not None:
                vendor.meter.clear()

    async def start(self) -> None:
        """Listen; after a stop on the same port as before.

        Raises:
            RuntimeError: it is running.
            OSError: the port is taken.
        """
        if self._runner is not None:
            msg = "the emulator is running: stop it before starting it again"
            raise RuntimeError(msg)
        self._stopping = asyncio.Event()
        await self._reserve()
        self._runner = web.AppRunner(
            self._new_application(),
            access_log=None,
            # The judge decodes bodies itself, to measure and to bound them.
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            shutdown_timeout=_STOP_TIMEOUT,
        )
        await self._runner.setup()
        await self._open_door()
        logger.info("emulator listens on %s", self.url)

    async def stop(self) -> None:
        """Stop listening and end hanging requests; a second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._stopping.set()
        await self._cancel_relisten()
        self._site = None
        self._drop_connections(runner)
        await runner.cleanup()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        logger.info("emulator stopped after %d requests", self.stats.requests)

    async def refuse(self, seconds: float | None = None) -> None:
        """Refuse connections, and drop the open ones, until `listen` is called.

        Args:
            seconds: listen again by itself after so long; the call returns at once.
        """
        runner = self._running()
        await self._cancel_relisten()
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
            # A bound socket that does not listen refuses connections, and keeps
            # other programs from taking the port meanwhile.
            await self._reserve()
        self._ledger.connections_dropped += self._drop_connections(runner)
        if seconds is not None:
            self._relisten = asyncio.create_task(self._listen_after(seconds))

    async def listen(self) -> None:
        """Accept connections again, on the same port."""
        self._running()
        await self._cancel_relisten()
        await self._open_door()

    def _running(self) -> web.AppRunner:
        if self._runner is None:
            msg = "the emulator is not running: enter `async with Emulator()` first"
            raise RuntimeError(msg)
        return self._runner

    def _current_ledger(self) -> Ledger:
        return self._ledger

    def _ingests(self, path: str) -> bool:
        return find_vendor(self._vendors, path) is not None

    async def _reserve(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, _, _, address = found[0]
        reserved = socket.socket(family, kind)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(address)
        except OSError:
            reserved.close()
            raise
        self._port = reserved.getsockname()[1]
        self._reserved = reserved

    async def _open_door(self) -> None:
        if self._site is not None or self._reserved is None:
            return
        site = web.SockSite(self._running(), self._reserved)
        self._site, self._reserved = site, None
        await site.start()

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._open_door()

    async def _cancel_relisten(self) -> None:
        task, self._relisten = self._relisten, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _drop_connections(self, runner: web.AppRunner) -> int:
        dropped = 0
        for connection in runner.server.connections if runner.server else ():
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                transport.abort()
                dropped += 1
        return dropped

    async def _pause(self, seconds: float) -> bool:
        """Wait, and return True if the emulator stops before the time is over."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _application(control: Control, exchange: Exchange, guard: Guard) -> web.Application:
    app = web.Application(middlewares=[guard.middleware])
    routes = [*control.routes(), web.route("*", "/{path:.*}", exchange.receive)]
    for route in routes:
        route.kwargs["expect_handler"] = meet_expectation
    app.add_routes(routes)
    return app


def _batch_meter(per_second: float | None) -> RateMeter | None:
    if per_second is None:
        return None
    if not per_second >= 1:
        msg = (
            f"rate_limit_per_second is {per_second!r}: give 1 batch or more, or None "
            "for no limit"
        )
        raise ValueError(msg)
    return RateMeter(per_second)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "[::1]" if address.version == 6 else "127.0.0.1"
    return f"[{host}]" if address.version == 6 else host
