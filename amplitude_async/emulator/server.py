"""The emulator itself: start and stop, its socket, and what tests look at."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from aiohttp import web

from .amplitude_api import BATCH_PATH, HTTP_API_PATH, AmplitudeApi
from .arrivals import Arrivals
from .assets import Assets
from .bell import Bell
from .book import Book
from .browsers import Guard
from .control import Control
from .exchange import Exchange, find_vendor
from .feed import Feed
from .inspection import Inspection
from .judgement import Vendor
from .ledger import Ledger
from .listening import Listener, is_loopback
from .mparticle_api import MPARTICLE_PATH, MParticleApi
from .own_loop import OwnLoop
from .rates import RateMeter
from .script import FaultScript
from .trial import Trial
from .waiting import Waiters
from .wire import meet_expectation

__all__ = ["Emulator"]

_HIGHEST_PORT = 65_535
_START_TIMEOUT = 10.0
# Handlers are ended within a second; this is for a function of the test's own.
_END_TIMEOUT = 5.0


class Emulator(Arrivals):
    """A local Amplitude and mParticle server that keeps what it is sent.

    Use it as `async with Emulator() as emulator:` and send to `emulator.httpapi_url`,
    or with an mParticle client to `emulator.mparticle_url`. In synchronous code it is
    `with Emulator() as emulator:`, and it runs in a thread of its own until the end of
    the block. What it tells may be read from any thread.

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
        keep: newest events kept in `events`, and batches in `batches`, and as many
            that were not taken.
        keep_requests: newest requests kept in `requests`.
        keep_bytes: memory that what is kept of each of the three may take, as it is
            estimated, and as much for what was not taken of events and batches, and
            for what clients tell of; `stats` counts what was forgotten.
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
        if not allow_remote and not is_loopback(host):
            msg = (
                f"host {host!r} can be reached from other machines: use 127.0.0.1, "
                "or pass allow_remote=True if that is wanted"
            )
            raise ValueError(msg)
        if not 0 <= port <= _HIGHEST_PORT:
            # Python would take another one without a word.
            msg = f"port is {port!r}: give 1 to {_HIGHEST_PORT}, or 0 for any free one"
            raise ValueError(msg)
        if isinstance(allowed_hosts, str):
            msg = f"allowed_hosts is {allowed_hosts!r}: give a list of host names"
            raise ValueError(msg)  # noqa: TRY004 - a bad value, like the others
        mparticle = MParticleApi(mparticle_keys, bulk_partial=bulk_partial)
        meter = None if eps_threshold is None else RateMeter(eps_threshold, eps_window)
        amplitude = AmplitudeApi(api_keys)
        vendors = (
            Vendor(amplitude, meter),
            Vendor(mparticle, _batch_meter(rate_limit_per_second)),
        )
        bell = Bell()
        self.faults = FaultScript(seed, bell.ring)
        """The faults to come: `add`, `clear`, `pending`."""
        waiters = Waiters()
        new_ledger = partial(Ledger, keep, keep_requests, keep_bytes, waiters)
        # The thread of `with` holds these and not the emulator itself, which can so
        # be collected where nobody ends it.
        book = Book(
            new_ledger,
            waiting=waiters,
            faults=self.faults,
            vendors=vendors,
            bell=bell,
        )
        super().__init__(book, waiters)
        self._listener = _listener(
            host,
            port,
            book=self._book,
            faults=self.faults,
            vendors=vendors,
            clock=clock,
            allowed_hosts=allowed_hosts,
            bell=bell,
            test_key=amplitude.some_key,
        )
        self._own: OwnLoop | None = None

    def __repr__(self) -> str:
        """Say where it listens and how much it has seen."""
        stats = self.stats
        where = self.url if self._listener.is_running else "stopped"
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

    def __enter__(self) -> Self:
        """Start listening in a thread of its own.

        Raises:
            RuntimeError: it is running.
            OSError: the port is taken.
        """
        if self._own is not None or self._listener.is_running:
            msg = "the emulator is running: stop it before starting it again"
            raise RuntimeError(msg)
        own = OwnLoop("amplitude-emulator", self._listener.stop)
        try:
            own.start()
            own.call(self._listener.start, _START_TIMEOUT)
        except BaseException:
            own.stop(_END_TIMEOUT)
            raise
        self._own = own
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, whatever requests still hang, and end the thread.

        Raises:
            RuntimeError: a function of the test's own holds the thread up.
        """
        own, self._own = self._own, None
        if own is None or self._end(own) or exc is not None:
            return
        msg = (
            f"the emulator did not end within {_END_TIMEOUT:g} s, its thread is left "
            "behind: let the functions given to its faults, and its clock, return"
        )
        raise RuntimeError(msg)

    def __del__(self) -> None:
        """Warn of a thread that nobody ended, and let it end."""
        own: OwnLoop | None = getattr(self, "_own", None)
        if own is not None and own.is_running:
            warnings.warn(
                f"unclosed emulator {self!r}: use it as `with Emulator() as emulator:`",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
            own.ask_to_stop()

    @property
    def port(self) -> int:
        """The port it listens on, 0 before the first start on any free port."""
        return self._listener.port

    @property
    def url(self) -> str:
        """Base URL without a slash at the end.

        Raises:
            RuntimeError: the port is not known before the start.
        """
        return self._listener.url

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

    def reset(self) -> None:
        """Forget what arrived, counters, faults, deduplication keys and rates."""
        self._book.reset()

    async def start(self) -> None:
        """Listen; after a stop on the same port as before.

        Raises:
            RuntimeError: it is running.
            OSError: the port is taken.
        """
        await self._there(self._listener.start)

    async def stop(self) -> None:
        """Stop listening and end hanging requests; a second call does nothing."""
        await self._there(self._listener.stop)

    async def refuse(self, seconds: float | None = None) -> None:
        """Refuse connections, and drop the open ones, until `listen` is called.

        Args:
            seconds: listen again by itself after so long; the call returns at once.
        """
        await self._there(partial(self._listener.refuse, seconds))

    async def listen(self) -> None:
        """Accept connections again, on the same port."""
        await self._there(self._listener.listen)

    async def _there(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take a step on the loop that the emulator runs on."""
        if self._own is None:
            await step()
        else:
            await self._own.join(step)

    def _end(self, own: OwnLoop) -> bool:
        try:
            own.call(self._listener.stop, _END_TIMEOUT)
        except TimeoutError:
            return False
        finally:
            ended = own.stop(_END_TIMEOUT)
        return ended


def _listener(  # noqa: PLR0913 - its parts, each once
    host: str,
    port: int,
    *,
    book: Book,
    faults: FaultScript,
    vendors: Sequence[Vendor],
    clock: Callable[[], float],
    allowed_hosts: Collection[str],
    bell: Bell,
    test_key: str,
) -> Listener:
    """Put together what answers requests."""

    async def pause(seconds: float) -> bool:
        return await listener.pause(seconds)

    def ingests(path: str) -> bool:
        return find_vendor(vendors, path) is not None

    def url() -> str:
        return listener.url

    feed = Feed(book.ledger, faults, bell, url=url, clock=clock)
    trial = Trial(url, HTTP_API_PATH, test_key, clock)
    rooms = (
        Assets(),
        feed,
        Inspection(book, clock, trial.send),
        Control(book.ledger, faults, book.reset),
    )
    exchange = Exchange(
        vendors=vendors, ledger=book.ledger, faults=faults, clock=clock, pause=pause
    )
    guard = Guard((host, *allowed_hosts), ingests)
    listener = Listener(
        host,
        port,
        partial(_application, rooms, feed, exchange, guard),
        book.count_dropped,
    )
    return listener


class _Room(Protocol):
    """Answers some of the emulator's own routes."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to add to the application."""


def _application(
    rooms: Sequence[_Room], feed: Feed, exchange: Exchange, guard: Guard
) -> web.Application:
    app = web.Application(middlewares=[guard.middleware])
    feed.begin()
    app.on_shutdown.append(feed.end)
    own = [route for room in rooms for route in room.routes()]
    routes = [*own, web.route("*", "/{path:.*}", exchange.receive)]
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
