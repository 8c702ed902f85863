"""A client's life: made, started where it is used, flushed, and shut down for good."""

import asyncio
import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace as replace_fields
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from amplitude_async.client.destination import (
    Door,
    EngineDestination,
    engine_destination,
)
from amplitude_async.client.home import Home, Move
from amplitude_async.client.plain_destination import PlainDestination
from amplitude_async.client.roster import Roster
from amplitude_async.client.timeline import Timeline
from amplitude_async.client.vigil import Vigil
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.delivery.courier import Handover
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.log_endpoint import LogEndpoint
from amplitude_async.delivery.reporting import Numbers, Reporter, log_quietly
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import being_cancelled
from amplitude_async.delivery.transport import AiohttpTransport, Transport
from amplitude_async.exceptions import (
    AmplitudeError,
    ClientClosedError,
)
from amplitude_async.plugins import Plugin
from amplitude_async.shown import shown

__all__ = ["UNSET", "Life", "State", "Unset"]


class Unset:
    """The type of ``UNSET``: an argument that was not given, apart from None."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


class State(StrEnum):
    """A client's life, in this order; a fork or another loop takes OPEN back to NEW."""

    NEW = "new"
    """Nothing is open: the first verb starts the client."""
    OPEN = "open"
    """Started where it lives now."""
    CLOSING = "closing"
    """It takes no event any more; what was accepted is brought to an outcome."""
    CLOSED = "closed"
    """All is settled, for good."""


class Life:
    """What a client has from its first day to its last, whatever it is used for.

    The constructor does no I/O and needs no event loop.
    """

    event_type: type = object
    # What an event keeps where a plugin returns another in its place.
    carried_fields: tuple[str, ...] = ()

    def __init__(
        self,
        config: DeliveryConfig,
        endpoint: Endpoint,
        door: Door,
        *,
        session: aiohttp.ClientSession | None,
        plugins: Iterable[Plugin | Callable[[Any], Any]] = (),
        implicit: Plugin | None = None,
    ) -> None:
        self._state = State.NEW
        self._config = config
        self._door = door
        handover = _handover(config, endpoint)
        if handover is not None:
            endpoint = LogEndpoint(endpoint, handover)
        self._endpoint = endpoint
        self._clock = self._make_clock()
        self._transport = self._make_transport(session)
        self._home = Home(may_move=session is None)
        self._own = engine_destination(
            config,
            endpoint,
            door,
            transport=self._transport,
            clock=self._clock,
            client_id=id(self),
            handover=handover,
        )
        self._roster = self._make_roster(implicit)
        self._roster.enlist(plugins)
        roster, home = self._roster, self._home
        self._vigil = Vigil(
            config.logger,
            self._own.name,
            pending=lambda: roster.pending,
            concerns=lambda: home.is_here,
        )

    def _make_roster(self, implicit: Plugin | None) -> Roster:
        reporter = Reporter(
            self._config.logger,
            self._clock,
            self._endpoint.name,
            self._config.redactor,
        )
        receive = partial(
            PlainDestination,
            door=self._door,
            config=self._config,
            decode=self._endpoint.decode,
            clock=self._clock,
            client_id=id(self),
            vendor=self._endpoint.name,
        )
        return Roster(
            self._own,
            Timeline(id(self), self.event_type, reporter, self.carried_fields),
            receive,
            reporter=reporter,
            client_id=id(self),
            implicit=implicit,
        )

    # Parts that a test, a vendor or the road replaces ------------------------

    def _make_clock(self) -> Clock:
        return INTERCEPTION.make_clock() or LoopClock()

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        return AiohttpTransport(
            session,
            trust_env=self._config.trust_env,
            redact=self._config.redactor,
        )

    def _in_child(self) -> None:
        """Make whatever a forked child must not share with its parent."""

    def _moved_in(self) -> None:
        """Make whatever belongs to one event loop."""

    def _choose_road(self) -> None:
        """Take note that the state or the roster has changed."""

    # Reading -----------------------------------------------------------------

    @property
    def config(self) -> DeliveryConfig:
        """The frozen configuration."""
        return self._config

    @property
    def stats(self) -> Stats:
        """The account of the client's own destination; others in ``destinations``."""
        others = self._roster.other_stats
        if self._home.is_inherited:
            return Stats(destinations=dict.fromkeys(others, Stats()))
        return replace_fields(self._own.stats, destinations=others)

    @property
    def _is_ending(self) -> bool:
        """True from the moment somebody asked for the shutdown."""
        return self._state in _ENDING

    def __repr__(self) -> str:
        kind = type(self).__name__
        try:
            stats, url = self.stats, self._endpoint.url
        except AttributeError:
            return f"<{kind} half-built>"  # as a traceback of its constructor shows it
        return (
            f"<{kind} {self._state} url={url!r} "
            f"pending={stats.pending} delivered={stats.delivered}>"
        )

    # Lifecycle ---------------------------------------------------------------

    async def start(self) -> None:
        """Open the storage, set up the plugins and start the engine.

        The first verb does it where nobody did. It waits for the storage no longer
        than ``overflow_timeout`` and goes on in memory; this waits half a minute.

        Raises:
            ClientClosedError: the client was shut down.
            StorageError: the storage cannot be opened, or takes longer than that.
            AmplitudeError: the client belongs to another running event loop.
        """
        if self._is_ending:
            msg = "this client was shut down: construct a new one"
            raise ClientClosedError(msg)
        await self._ready()
        await self._roster.opened()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            # `async with` calls no __aexit__ now: let go what is open already.
            with contextlib.suppress(AmplitudeError):
                await self.shutdown(0)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def __del__(self) -> None:
        # A constructor that raised has left no state, and a child of ours warns of
        # nothing: the events are its parent's.
        state = getattr(self, "_state", State.NEW)
        if state in _UNCLOSED and self._home.is_here:
            self._vigil.tell("nobody holds it any more")
            self._vigil.end()
            warnings.warn(
                f"unclosed client with {self._own.stats.pending} undelivered events: "
                "use `async with` or await shutdown()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def _settle_in(self) -> None:
        """Notice a fork or another event loop, and start anew there."""
        move = self._home.enter()
        if move is Move.NONE:
            return
        if move is Move.FORK:
            # Whatever is accepted from here on needs ids that the parent never makes.
            self._in_child()
            self._roster.forget_parent()
        elif move is Move.LOOP:
            self._roster.rebind()
        if self._state is State.OPEN:
            self._state = State.NEW
        self._moved_in()
        self._choose_road()

    async def _ready(self) -> None:
        """Start where nobody did; at once where the client is open or ends."""
        self._settle_in()
        lock = self._home.start_lock
        if self._state is not State.NEW or lock is None:
            return
        # A plugin's setup that tracks: waiting for the start would be for ever.
        if lock.locked() and id(self) in inside_user_code.get():
            return
        async with lock:
            if self._state is not State.NEW:
                return
            await self._roster.start()
            while await self._roster.install_next(self):
                self._choose_road()
            if self._state is State.NEW:  # nobody shut it down meanwhile
                self._state = State.OPEN
                self._vigil.begin()
            self._choose_road()

    # Flush, purge, shutdown --------------------------------------------------

    async def flush(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Send now and wait for the outcome of every event accepted so far.

        Cuts the linger, but no back-off and no hold. Returns at the deadline, or as
        soon as nothing can happen before it.

        Args:
            timeout: seconds; None: no limit; ``Config.flush_timeout`` by default.

        Raises:
            TypeError: the timeout is no number.
        """
        limit = _limit(timeout, self._config.flush_timeout)
        if self._state is State.CLOSED:
            return self.stats
        await self._ready()
        await asyncio.gather(*(d.flush(limit) for d in self._roster.destinations))
        return self.stats

    async def purge(self, user_id: str | None = None) -> int:
        """Give up waiting events, of one user or all: they become DROPPED purged.

        Events in flight go on. Returns how many events were given up.
        """
        if self._state is State.CLOSED:
            return 0
        await self._ready()
        counts = [await d.purge(user_id) for d in self._roster.destinations]
        return sum(counts)

    async def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Stop intake, drain until the deadline, settle what is left; for good.

        Idempotent; cancelling the wait does not stop the drain, and a second call
        joins it.

        Args:
            timeout: seconds; None: no limit; ``Config.shutdown_timeout`` by default.

        Raises:
            TypeError: the timeout is no number; the client is open as before.
        """
        limit = _limit(timeout, self._config.shutdown_timeout)
        if self._state is State.CLOSED:
            return self.stats
        self._settle_in()
        # At once and not in the task: no event may slip in before it runs.
        self._state = State.CLOSING
        self._choose_road()
        task = self._home.farewell
        # One that was cancelled from outside has left the rest undone.
        if task is None or task.cancelled():
            task = self._home.take_leave(self._shut_down(limit))
        elif id(self) in inside_user_code.get():
            return self.stats  # it waits for this very callback
        await self._join(task, limit)
        return self.stats

    async def _join(self, task: "asyncio.Task[None]", limit: float | None) -> None:
        """Wait for the end of the shutdown, and see to it where others cancel it."""
        while True:
            try:
                # Who gives up waiting must not leave the drain half done.
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                latest = self._home.farewell
                if being_cancelled() or latest is None:
                    raise
                # Of several who wait, the first begins anew and the others join it.
                if latest is task:
                    latest = self._home.take_leave(self._shut_down(limit))
                task = latest

    async def _shut_down(self, timeout: float | None) -> None:
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        await self._roster.shutdown(timeout)
        left = deadline - self._clock.now()
        self._state = State.CLOSED
        self._vigil.end()
        _tell_end(self._config.logger, self._own, left)


def _handover(config: DeliveryConfig, endpoint: Endpoint) -> Handover | None:
    if config.handover is None:
        return None
    handover: Handover = config.handover.handover_to(endpoint.name)
    return handover


def _tell_end(logger: logging.Logger, own: EngineDestination, left: float) -> None:
    """Log how it all ended, and how much time was left."""
    stats = own.stats
    text = (
        f"{own.name}: closed with "
        f"{max(left, 0.0) if not math.isinf(left) else 0.0:.1f} s to spare; "
        f"delivered {stats.delivered}, rejected {stats.rejected}, "
        f"dropped {stats.dropped}, stored {stats.stored}"
    )
    if stats.handed_over:
        text += f", handed over {stats.handed_over}"

    numbers: Numbers = {
        "destination": own.name,
        "delivered": stats.delivered,
        "rejected": stats.rejected,
        "dropped": stats.dropped,
        "stored": stats.stored,
    }
    log_quietly(logger, logging.INFO, text, numbers=numbers)


def _limit(given: object, default: float | None) -> float | None:
    """Find the limit of a wait; a wrong kind is told before anything has begun."""
    if given is None or isinstance(given, int | float):
        return given
    if isinstance(given, Unset):
        return default
    msg = f"timeout={shown(given)}: give seconds as a number, or None for no limit"
    raise TypeError(msg)


_ENDING: Final = frozenset({State.CLOSING, State.CLOSED})
_UNCLOSED: Final = frozenset({State.OPEN, State.CLOSING})
