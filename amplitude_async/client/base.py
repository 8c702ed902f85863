"""What both clients share: lifecycle, plugins, flush, shutdown and statistics."""

import asyncio
import contextlib
import math
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace as replace_fields
from types import TracebackType
from typing import Any, Self

import aiohttp

from amplitude_async.client.destination import Destination, Door, EngineDestination
from amplitude_async.client.plain_destination import PlainDestination
from amplitude_async.client.timeline import PluginDrop, Timeline
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.clock import Clock, LoopClock
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.engine import Engine
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.transport import AiohttpTransport, Transport
from amplitude_async.exceptions import (
    AmplitudeError,
    ClientClosedError,
    ConfigurationError,
)
from amplitude_async.plugins import DestinationPlugin, Plugin, as_plugin, call_hook
from amplitude_async.storage.base import Storage
from amplitude_async.storage.memory import MemoryStorage

__all__ = ["UNSET", "BaseClient", "Unset"]

TEARDOWN_TIMEOUT = 5.0


class Unset:
    """The type of ``UNSET``: an argument that was not given, apart from None."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


class BaseClient:
    """Lifecycle and plugins of a client; a vendor's client adds the verbs.

    The constructor does no I/O and needs no event loop.
    """

    event_type: type = object

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
        self._config = config
        self._door = door
        self._endpoint = endpoint
        self._clock = self._make_clock()
        self._injected = session is not None
        self._transport = self._make_transport(session)
        self._own = self._engine_destination(config, endpoint, door)
        self._reporter = Reporter(config.logger, self._clock, endpoint.name)
        self._timeline = Timeline(id(self), self.event_type, self._reporter)
        self._destinations: tuple[Destination, ...] = (self._own,)
        self._waiting_plugins = [as_plugin(plugin) for plugin in plugins]
        self._names = {self._own.name}
        self._implicit = implicit
        if implicit is not None:
            self._timeline.add(implicit)
            self._names.add(implicit.name)
        self._opt_out = config.opt_out
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._start_lock: asyncio.Lock | None = None
        self._started = False
        self._closing = False
        self._closed = False
        self._shutdown_task: asyncio.Task[None] | None = None
        self._fast: EngineDestination | None = None
        self._spooled: EngineDestination | None = None
        self._has_plugins = False
        for plugin in self._waiting_plugins:
            self._claim_name(plugin)

    # Parts that a test or a vendor replaces ----------------------------------

    def _make_clock(self) -> Clock:
        return LoopClock()

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        return AiohttpTransport(session, trust_env=self._config.trust_env)

    def _copy_event(self, event: Any) -> Any:
        """Copy an event so far that plugins cannot change the caller's objects."""
        return event

    def _in_child(self) -> None:
        """Make whatever a forked child must not share with its parent."""

    def _stamp(self, event: Any) -> Any:
        """Give an event for several destinations the same id and time in each."""
        return event

    def _engine_destination(
        self,
        config: DeliveryConfig,
        endpoint: Endpoint,
        door: Door,
    ) -> EngineDestination:
        storage = _make_storage(config.storage)
        max_age = config.max_event_age
        if "max_event_age" not in config.model_fields_set:
            max_age = storage.default_max_age or max_age
        engine = Engine(
            endpoint,
            config,
            storage=storage,
            transport=self._transport,
            clock=self._clock,
            rng=random.Random(),
            max_age=max_age,
            client_id=id(self),
        )
        return EngineDestination(
            endpoint.name, door, engine, self._clock, strict=config.strict
        )

    # Reading -----------------------------------------------------------------

    @property
    def config(self) -> DeliveryConfig:
        """The frozen configuration."""
        return self._config

    @property
    def stats(self) -> Stats:
        """The account of the client's own destination; others in ``destinations``."""
        others = {d.name: d.stats for d in self._destinations if d is not self._own}
        return replace_fields(self._own.stats, destinations=others)

    @property
    def opt_out(self) -> bool:
        """True accepts no new event; waiting ones are still sent."""
        return self._opt_out

    @opt_out.setter
    def opt_out(self, value: bool) -> None:
        if not value and getattr(self._config, "api_key", UNSET) is None:
            msg = "opt_out=False needs an api_key: construct the client with one"
            raise ConfigurationError(msg)
        self._opt_out = bool(value)
        self._choose_road()

    def __repr__(self) -> str:
        stats = self._own.stats
        state = "closed" if self._closed else "open" if self._started else "new"
        return (
            f"<{type(self).__name__} {state} url={self._endpoint.url!r} "
            f"pending={stats.pending} delivered={stats.delivered}>"
        )

    # Lifecycle ---------------------------------------------------------------

    async def start(self) -> None:
        """Open the storage, set up the plugins and start the engine.

        The first verb does it where nobody did.

        Raises:
            ClientClosedError: the client was shut down.
            StorageError: the storage cannot be opened.
            AmplitudeError: the client belongs to another running event loop.
        """
        if self._closing:
            msg = "this client was shut down: construct a new one"
            raise ClientClosedError(msg)
        await self._ready()

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
        if getattr(self, "_started", False) and not self._closed:
            if self._pid != os.getpid():
                return
            warnings.warn(
                f"unclosed client with {self._own.stats.pending} undelivered events: "
                "use `async with` or await shutdown()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def _bind_loop(self) -> None:
        """Notice a fork or another event loop; the fork rule goes first."""
        loop, pid = asyncio.get_running_loop(), os.getpid()
        if loop is self._loop and pid == self._pid:
            return
        if self._pid and pid != self._pid:
            self._in_child()
            for destination in self._destinations:
                destination.forget_parent()
            self._started = False
        elif self._loop is not None:
            self._check_old_loop(self._loop)
            for destination in self._destinations:
                destination.rebind()
            self._started = False
        self._loop, self._pid = loop, pid
        self._start_lock = asyncio.Lock()
        self._shutdown_task = None
        self._choose_road()

    def _check_old_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            msg = (
                "this client belongs to another event loop that is still alive: use "
                "one client per loop"
            )
            raise AmplitudeError(msg)
        if self._injected:
            msg = (
                "this client's event loop was closed and the session it was given "
                "belongs to it: construct a new client with a new session"
            )
            raise AmplitudeError(msg)

    async def _ready(self) -> None:
        self._bind_loop()
        if self._started:
            return
        lock = self._start_lock
        if lock is None or (lock.locked() and id(self) in inside_user_code.get()):
            return
        async with lock:
            if self._started:
                return
            for destination in self._destinations:
                await destination.start()
            while self._waiting_plugins:
                await self._install(self._waiting_plugins[0])
                self._waiting_plugins.pop(0)
            self._started = True
            self._choose_road()

    def _choose_road(self) -> None:
        """Find out whether events may take the short road: no copy, no suspension."""
        plugins = self._timeline.plugins
        self._has_plugins = any(p is not self._implicit for p in plugins)
        self._fill_context(enabled=self._implicit in plugins and not self._has_plugins)
        short = (
            self._started
            and not self._closing
            and not self._opt_out
            and not self._has_plugins
            and self._destinations == (self._own,)
        )
        self._fast = self._own if short and self._own.engine.plain else None
        # As short, but for the wait until the storage has the event.
        self._spooled = self._own if short and self._fast is None else None

    def _fill_context(self, *, enabled: bool) -> None:
        """Let the door do the implicit plugin's work, where no other is installed."""

    # The road of an event ----------------------------------------------------

    def _offer(self, event: Any) -> Delivery | None:
        """Take the short road; None where the long one is needed."""
        fast = self._fast
        if fast is None or asyncio.get_running_loop() is not self._loop:
            return None
        return fast.offer(event)

    async def _submit(self, event: Any) -> Delivery:
        """Take the long road: start, plugins, every destination, waits."""
        if not self._closing:
            await self._ready()
        stopped = self._stopped()
        if stopped is not None:
            return self._settle(event, stopped)
        if self._has_plugins:
            try:
                event = await self._timeline.run(self._copy_event(event))
            except PluginDrop as drop:
                return self._settle(event, _plugin_drop(drop))
            stopped = self._stopped()
            if stopped is not None:
                return self._settle(event, stopped)
        ranked = self._ranked()
        if not ranked:
            return self._settle(event, _NO_DESTINATION)
        first, *others = ranked
        if others:
            event = self._stamp(event)
        for destination in others:
            destination.offer_nowait(event) if isinstance(
                destination, PlainDestination
            ) else await destination.accept(event)
        return await first.accept(event)

    async def _submit_settled(self, event: Any, outcome: Outcome) -> Delivery:
        """Accept an event whose fate is decided already."""
        if not self._closing:
            await self._ready()
        return self._settle(event, self._stopped() or outcome)

    def _submit_nowait(self, event: Any) -> Delivery:
        """Take the long road without suspending."""
        if not self._closing:
            self._bind_loop()
            if not self._started:
                msg = (
                    "track_nowait needs a started client: enter `async with client` "
                    "or await client.start() first"
                )
                raise AmplitudeError(msg)
        stopped = self._stopped()
        if stopped is not None:
            return self._settle(event, stopped)
        if self._has_plugins:
            try:
                event = self._timeline.run_nowait(self._copy_event(event))
            except PluginDrop as drop:
                return self._settle(event, _plugin_drop(drop))
        ranked = self._ranked()
        if not ranked:
            return self._settle(event, _NO_DESTINATION)
        first, *others = ranked
        if others:
            event = self._stamp(event)
        for destination in others:
            destination.offer_nowait(event)
        return first.offer_nowait(event)

    def _ranked(self) -> Sequence[Destination]:
        """List the destinations, the one whose handle the caller gets first.

        An event that a destination tracks does not come back to it.
        """
        inside = inside_user_code.get()
        due = [d for d in self._destinations if id(_plugin_of(d)) not in inside]
        return sorted(due, key=lambda d: isinstance(d, PlainDestination))

    def _stopped(self) -> Outcome | None:
        """Say why no event is taken any more, or None."""
        if self._closing:
            if self._config.strict:
                msg = "this client was shut down: track before shutdown()"
                raise ClientClosedError(msg)
            return _CLOSED
        return _OPT_OUT if self._opt_out else None

    def _settle(self, event: Any, outcome: Outcome) -> Delivery:
        """Settle an event at once, in the account of each engine destination."""
        for destination in self._destinations:
            if destination is not self._own:
                destination.settle(event, outcome)
        return self._own.settle(event, outcome)

    # Plugins -----------------------------------------------------------------

    def _claim_name(self, plugin: Plugin) -> None:
        """Make sure that a plugin has a name of its own.

        Raises:
            ValueError: another plugin has the name.
        """
        if not plugin.name:
            plugin.name = self._free_name(type(plugin).__name__)
        elif plugin.name in self._names:
            msg = (
                f"plugin name={plugin.name!r} is taken: remove the other plugin "
                "first or add with replace=True"
            )
            raise ValueError(msg)
        self._names.add(plugin.name)

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}-{number}"
        return name

    async def add(
        self, plugin: Plugin | Callable[[Any], Any], *, replace: bool = False
    ) -> Self:
        """Set a plugin up and install it.

        Args:
            plugin: a plugin, or a function ``f(event) -> Event | None``.
            replace: remove a plugin of the same name first.

        Raises:
            ValueError: the name is taken and ``replace`` is False.
            ClientClosedError: the client was shut down.
            Exception: whatever the plugin's setup raised; it is not installed then.
        """
        if self._closing:
            msg = "this client was shut down: add plugins before shutdown()"
            raise ClientClosedError(msg)
        made = as_plugin(plugin)
        if replace and made.name in self._names:
            await self.remove(made.name)
        self._claim_name(made)
        try:
            await self._ready()
            await self._install(made)
        except BaseException:
            self._names.discard(made.name)
            raise
        return self

    async def _install(self, plugin: Plugin) -> None:
        with self._inside(plugin):
            await call_hook(plugin.setup, self)
        destination = self._destination_of(plugin)
        if destination is not None:
            await destination.start()
            self._destinations = (*self._destinations, destination)
        else:
            self._timeline.add(plugin)
        self._choose_road()

    @contextlib.contextmanager
    def _inside(self, plugin: Plugin) -> Iterator[None]:
        """Mark that a hook runs: what it calls must not wait for itself."""
        mark = inside_user_code.get() | {id(self), id(plugin)}
        token = inside_user_code.set(mark)
        try:
            yield
        finally:
            inside_user_code.reset(token)

    def _destination_of(self, plugin: Plugin) -> Destination | None:
        if isinstance(plugin, EngineDestination):
            return plugin
        if isinstance(plugin, DestinationPlugin):
            return PlainDestination(
                plugin,
                self._door,
                self._config,
                decode=self._endpoint.decode,
                clock=self._clock,
                client_id=id(self),
            )
        return None

    async def remove(self, plugin: Plugin | str) -> None:
        """Take a plugin out, drain it where it is a destination, tear it down.

        Raises:
            ValueError: no plugin of that name is installed.
        """
        name = plugin if isinstance(plugin, str) else plugin.name
        for destination in self._destinations:
            if destination.name == name:
                rest = tuple(d for d in self._destinations if d is not destination)
                self._destinations = rest
                self._choose_road()
                await destination.shutdown(self._config.shutdown_timeout)
                await self._tear_down(_plugin_of(destination))
                self._names.discard(name)
                return
        for installed in self._timeline.plugins:
            if installed.name == name:
                self._timeline.discard(installed)
                self._choose_road()
                await self._tear_down(installed)
                self._names.discard(name)
                return
        self._remove_waiting(name)

    def _remove_waiting(self, name: str) -> None:
        kept = [p for p in self._waiting_plugins if p.name != name]
        if len(kept) == len(self._waiting_plugins):
            msg = f"no plugin named {name!r}; installed are {sorted(self._names)}"
            raise ValueError(msg)
        self._waiting_plugins = kept
        self._names.discard(name)

    async def _tear_down(self, plugin: Plugin | None) -> None:
        if plugin is None:
            return
        try:
            with self._inside(plugin):
                async with asyncio.timeout(TEARDOWN_TIMEOUT):
                    await call_hook(plugin.teardown)
        except Exception as error:  # noqa: BLE001 - user code, fenced
            self._reporter.error(
                f"plugin {plugin.name}",
                "teardown of plugin %r raised %r",
                plugin.name,
                error,
                traceback=error,
            )

    # Flush, purge, shutdown --------------------------------------------------

    async def flush(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Send now and wait for the outcome of every event accepted so far.

        Cuts the linger, but no back-off and no hold. Returns at the deadline, or as
        soon as nothing can happen before it.

        Args:
            timeout: seconds; None: no limit; ``Config.flush_timeout`` by default.
        """
        limit = self._config.flush_timeout if isinstance(timeout, Unset) else timeout
        if self._closed:
            return self.stats
        await self._ready()
        await asyncio.gather(*(d.flush(limit) for d in self._destinations))
        return self.stats

    async def purge(self, user_id: str | None = None) -> int:
        """Give up waiting events, of one user or all: they become DROPPED purged.

        Events in flight go on. Returns how many events were given up.
        """
        if self._closed:
            return 0
        await self._ready()
        counts = [await d.purge(user_id) for d in self._destinations]
        return sum(counts)

    async def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Stop intake, drain until the deadline, settle what is left; for good.

        Idempotent; cancelling the wait does not stop the drain, and a second call
        joins it.

        Args:
            timeout: seconds; None: no limit; ``Config.shutdown_timeout`` by default.
        """
        limit = self._config.shutdown_timeout if isinstance(timeout, Unset) else timeout
        if self._closed:
            return self.stats
        self._bind_loop()
        self._closing = True
        self._choose_road()
        task = self._shutdown_task
        if task is None:
            task = self._shutdown_task = asyncio.get_running_loop().create_task(
                self._shut_down(limit), name="amplitude_async shutdown"
            )
        elif id(self) in inside_user_code.get():
            return self.stats  # it waits for this very callback
        await asyncio.shield(task)
        return self.stats

    async def _shut_down(self, timeout: float | None) -> None:
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        ended = await asyncio.gather(
            *(d.shutdown(timeout) for d in self._destinations), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, BaseException):
                self._reporter.error(
                    "shutdown", "shutdown raised %r", error, traceback=error
                )
        for plugin in self._timeline.plugins:
            await self._tear_down(plugin)
        for destination in self._destinations:
            await self._tear_down(_plugin_of(destination))
        left = deadline - self._clock.now()
        self._closed = True
        stats = self._own.stats
        self._config.logger.info(
            "%s: closed with %.1f s to spare; delivered %d, rejected %d, dropped %d, "
            "stored %d",
            self._own.name,
            max(left, 0.0) if not math.isinf(left) else 0.0,
            stats.delivered,
            stats.rejected,
            stats.dropped,
            stats.stored,
        )


def _make_storage(given: Any) -> Storage:
    if given is None:
        return MemoryStorage()
    made = given if isinstance(given, Storage) else given()
    if not isinstance(made, Storage):
        msg = (
            f"storage={given!r:.80} made a {type(made).__name__}: it must be a Storage "
            "or a callable that returns one"
        )
        raise ConfigurationError(msg)
    return made


def _plugin_of(destination: Destination) -> Plugin | None:
    if isinstance(destination, PlainDestination):
        return destination.plugin
    return destination if isinstance(destination, EngineDestination) else None


def _plugin_drop(drop: PluginDrop) -> Outcome:
    return Outcome.dropped(DropReason.PLUGIN, str(drop))


_CLOSED = Outcome.dropped(DropReason.CLOSED, "the client was shut down before")
_OPT_OUT = Outcome.dropped(DropReason.OPT_OUT, "opt_out is set")
_NO_DESTINATION = Outcome.dropped(
    DropReason.NO_DESTINATION, "no destination is installed: add one"
)
