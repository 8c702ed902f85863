"""The socket of an emulator: it listens, refuses, listens again and stops."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable

from aiohttp import web

__all__ = ["Listener", "is_loopback"]

logger = logging.getLogger("amplitude_async.emulator")

_ENTER = "enter `async with Emulator()` first, or `with` in synchronous code"
_READ_BUFFER = 1 << 20
# Every handler is ended by `stop` itself; this is for one stuck in user code.
_STOP_TIMEOUT = 1.0
# A connection is taken up in steps: in so many turns of the loop it can be dropped.
_TURNS_TO_ENTER = 4


class Listener:
    """Serves an application on one address, as long as it is told to.

    Args:
        host: address to listen on.
        port: port to listen on, 0 for any free one, which it then keeps.
        application: makes the application of each start.
        count_dropped: told how many connections were closed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        application: Callable[[], web.Application],
        count_dropped: Callable[[int], None],
    ) -> None:
        self.host = host
        self.port = port
        self._application = application
        self._count_dropped = count_dropped
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._reserved: socket.socket | None = None
        self._relisten: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._runner is not None

    @property
    def url(self) -> str:
        """Base URL without a slash at the end.

        Raises:
            RuntimeError: the port is not known before the start.
        """
        if self.port == 0:
            msg = f"the emulator has no port yet: {_ENTER}"
            raise RuntimeError(msg)
        return f"http://{_url_host(self.host)}:{self.port}"

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
            self._application(),
            access_log=None,
            # The judge decodes bodies itself, to measure and to bound them.
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            shutdown_timeout=_STOP_TIMEOUT,
        )
        try:
            await self._runner.setup()
            await self._open_door()
        except BaseException:
            await self.stop()
            raise
        logger.info("emulator listens on %s", self.url)

    async def stop(self) -> None:
        """Stop listening and end hanging requests; a second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._stopping.set()
        await self._cancel_relisten()
        await self._shut_door()
        self._drop_connections(runner)
        await runner.cleanup()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        logger.info("emulator at %s stopped", self.url)

    async def refuse(self, seconds: float | None = None) -> None:
        """Refuse connections, and drop the open ones, until `listen` is called.

        Args:
            seconds: listen again by itself after so long; the call returns at once.
        """
        runner = self._running()
        await self._cancel_relisten()
        if self._site is not None:
            await self._shut_door()
            # A bound socket that does not listen refuses connections, and keeps
            # other programs from taking the port meanwhile.
            await self._reserve()
        self._count_dropped(self._drop_connections(runner))
        if seconds is not None:
            self._relisten = asyncio.create_task(self._listen_after(seconds))

    async def listen(self) -> None:
        """Accept connections again, on the same port."""
        self._running()
        await self._cancel_relisten()
        await self._open_door()

    async def pause(self, seconds: float) -> bool:
        """Wait, and return True if the emulator stops before the time is over."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _running(self) -> web.AppRunner:
        if self._runner is None:
            msg = f"the emulator is not running: {_ENTER}"
            raise RuntimeError(msg)
        return self._runner

    async def _reserve(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, _, _, address = found[0]
        reserved = socket.socket(family, kind)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(address)
        except OSError:
            reserved.close()
            raise
        self.port = reserved.getsockname()[1]
        self._reserved = reserved

    async def _open_door(self) -> None:
        reserved = self._reserved
        if self._site is not None or reserved is None:
            return
        site = web.SockSite(self._running(), reserved)
        self._site, self._reserved = site, None
        try:
            await site.start()
        except BaseException:
            # Nobody else would close it.
            self._site, self._reserved = None, reserved
            raise

    async def _shut_door(self) -> None:
        """Let nobody in any more; afterwards all who were let in can be dropped."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
            for _ in range(_TURNS_TO_ENTER):
                await asyncio.sleep(0)

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


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
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
