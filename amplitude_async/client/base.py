"""What both clients share: the road of an event, and the plugins on it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import aiohttp

from amplitude_async.client.confirming import Confirmation
from amplitude_async.client.destination import (
    Destination,
    Door,
    EngineDestination,
)
from amplitude_async.client.life import Life, State
from amplitude_async.client.timeline import PluginDrop, finish_at_once
from amplitude_async.client.transaction import accept_in_transaction
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.observing import Observer
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.exceptions import (
    AmplitudeError,
    ClientClosedError,
    ConfigurationError,
)
from amplitude_async.plugins import Plugin, as_plugin
from amplitude_async.storage.base import Storage

__all__ = ["BaseClient"]

VERBS_IN_ONE_GO = 100


class BaseClient(Life):
    """The road of an event and the plugins on it; a vendor's client adds the verbs.

    The constructor does no I/O and needs no event loop.
    """

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
        super().__init__(
            config,
            endpoint,
            door,
            session=session,
            plugins=plugins,
            implicit=implicit,
        )
        self._opt_out = config.opt_out
        self._in_one_go = VERBS_IN_ONE_GO
        self._confirmation = (
            Confirmation(self._own, self._clock, config.confirm_timeout)
            if config.handover is not None and config.confirm
            else None
        )
        self._fast: EngineDestination | None = None
        self._spooled: EngineDestination | None = None

    # Parts that a test or a vendor replaces ----------------------------------

    def _copy_event(self, event: Any) -> Any:
        """Copy an event so far that plugins cannot change the caller's objects."""
        return event

    def _stamp(self, event: Any) -> Any:
        """Give an event for several destinations the same id and time in each."""
        return event

    @property
    def _has_key(self) -> bool:
        """True where the configuration names a key to send with."""
        return True

    def _fill_context(self, *, enabled: bool) -> None:
        """Let the door do the implicit plugin's work, where no other is installed."""

    # Fed by a relay ----------------------------------------------------------

    def feed(self, storage: Storage) -> None:
        """Take events from a storage that others fill, as a relay's clients do.

        Before the first verb; the client takes no events of its own then.

        Raises:
            ConfigurationError: the client has a storage of its own, hands over itself,
                or has no key to send with.
            AmplitudeError: it was started.
        """
        _check_feedable(self._config, has_key=self._has_key)
        self._own.feed(storage)

    # Seen from outside -------------------------------------------------------

    @property
    def destination(self) -> str:
        """Name of the client's own destination: ``"amplitude"`` or ``"mparticle"``."""
        return self._own.name

    @property
    def health(self) -> Health:
        """What the last answers say about the client's own destination.

        Before the first answer it is healthy: nothing is known against it. After the
        shutdown it stays as it was. Other destinations have no say in it.
        """
        return Health.HEALTHY if self._home.is_inherited else self._own.health

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Let somebody hear of each request to the client's own destination.

        At any time, before the start as well; see ``Observer`` for what it hears.

        Returns:
            What ends it.
        """
        return self._own.observers.add(observer)

    # Roads -------------------------------------------------------------------

    @property
    def opt_out(self) -> bool:
        """True accepts no new event; waiting ones are still sent."""
        return self._opt_out

    @opt_out.setter
    def opt_out(self, value: bool) -> None:
        if not value and not self._has_key:
            msg = "opt_out=False needs an api_key: construct the client with one"
            raise ConfigurationError(msg)
        self._opt_out = bool(value)
        self._choose_road()

    def _choose_road(self) -> None:
        """Find out whether events may take the short road: no copy, no suspension."""
        self._fill_context(enabled=self._roster.has_only_implicit)
        is_open = self._state is State.OPEN and not self._opt_out and self._has_key
        short = self._own if is_open and self._roster.is_bare else None
        plain = short is not None and short.plain
        self._fast = short if plain else None
        # As short, but for the wait until the storage has the event.
        self._spooled = None if plain else short

    # Turns for the loop ------------------------------------------------------

    async def _give_turn(self) -> None:
        """Let others run: a loop of verbs that find room would never suspend.

        A verb that settles its event at the door owes a turn as well: a loop that is
        being shed would keep the engine from making room. The next verb gives it, as a
        turn comes before the event: a verb that is cancelled has accepted nothing.
        """
        # Counted by the verbs themselves: a call of its own would be one per event.
        self._in_one_go = VERBS_IN_ONE_GO
        await asyncio.sleep(0)

    # The road of an event ----------------------------------------------------

    def _offer(self, event: Any) -> Delivery | None:
        """Take the short road; None where the long one is needed."""
        fast = self._fast
        if fast is None or asyncio.get_running_loop() is not self._home.loop:
            return None
        return fast.offer(event)

    async def _confirm(self, delivery: Delivery, since: float) -> None:
        """Wait until the log has an event; not in what would hold up the log itself."""
        if self._confirmation is not None and id(self) not in inside_user_code.get():
            await self._confirmation.wait(delivery, since)

    async def _submit(
        self, event: Any, *, may_wait: bool = True, via: Any = None
    ) -> Delivery:
        """Take the long road: start, plugins, every destination, waits.

        Args:
            event: the caller's own; nothing here changes it.
            may_wait: False makes the road one that never suspends.
            via: a connection whose transaction takes the event into the log.
        """
        if not self._is_ending:
            if may_wait:
                await self._ready()
            else:
                self._check_started()
        stopped = self._stopped()
        if stopped is not None:
            return await self._end(event, stopped, may_wait=may_wait)
        if self._roster.has_plugins:
            timeline, copy = self._roster.timeline, self._copy_event(event)
            try:
                event = await timeline.run(copy, may_wait=may_wait)
            except PluginDrop as drop:
                outcome = _plugin_drop(drop)
                return await self._end(event, outcome, may_wait=may_wait)
            # Plugins take their time: somebody may have shut down meanwhile.
            stopped = self._stopped()
            if stopped is not None:
                return await self._end(event, stopped, may_wait=may_wait)
        due = self._roster.due()
        if not due:
            return await self._end(event, _NO_DESTINATION, may_wait=may_wait)
        first, *others = due
        if others:
            event = self._stamp(event)
        if via is not None:
            return await accept_in_transaction(via, event, due, own=self._own)
        # The first comes last: where it is full and raises, the others have theirs.
        for destination in others:
            made = await _hand_over(event, destination, may_wait=may_wait)
            if made.at_door:
                self._in_one_go = 0
        return await _hand_over(event, first, may_wait=may_wait)

    def _submit_nowait(self, event: Any) -> Delivery:
        """Take the long road without suspending."""
        return finish_at_once(self._submit(event, may_wait=False))

    def _check_started(self) -> None:
        self._settle_in()
        if self._state is State.NEW:
            msg = (
                "track_nowait needs a started client: enter `async with client` "
                "or await client.start() first"
            )
            raise AmplitudeError(msg)

    async def _submit_settled(self, event: Any, outcome: Outcome) -> Delivery:
        """Accept an event whose fate is decided already."""
        if self._in_one_go <= 0:
            await self._give_turn()
        if not self._is_ending:
            await self._ready()
        return await self._end(event, self._stopped() or outcome)

    def _stopped(self) -> Outcome | None:
        """Say why no event is taken any more, or None."""
        if self._is_ending:
            if self._config.strict:
                msg = "this client was shut down: track before shutdown()"
                raise ClientClosedError(msg)
            return _CLOSED
        if self._opt_out:
            return _OPT_OUT
        return None if self._has_key or INTERCEPTION.capturing else _NO_KEY

    async def _end(
        self, event: Any, outcome: Outcome, *, may_wait: bool = True
    ) -> Delivery:
        """Settle an event at once when every callback has room for its result."""
        if may_wait:
            await self._roster.wait_to_tell()
        return self._settle(event, outcome, must_tell=may_wait)

    def _settle(
        self, event: Any, outcome: Outcome, *, must_tell: bool = False
    ) -> Delivery:
        """Settle an event at once, in the account of every destination."""
        self._in_one_go = 0
        return self._roster.settle(event, outcome, must_tell=must_tell)

    # Plugins -----------------------------------------------------------------

    async def add(
        self, plugin: Plugin | Callable[[Any], Any], *, replace: bool = False
    ) -> Self:
        """Set a plugin up and install it.

        Args:
            plugin: a plugin, or a function ``f(event) -> Event | None``.
            replace: put it where the plugin of its name is, and tear that one down.
                That one stays where the setup of its successor raises.

        Raises:
            TypeError: it is no plugin, or one whose type does not fit.
            ValueError: the name is taken and ``replace`` is False, or there is none to
                replace by.
            ClientClosedError: the client was shut down.
            Exception: whatever the plugin's setup raised; it is not installed then.
        """
        if self._is_ending:
            msg = "this client was shut down: add plugins before shutdown()"
            raise ClientClosedError(msg)
        made = as_plugin(plugin)
        if replace and self._roster.names.replaces(made):
            await self._replace(made)
            return self
        self._roster.names.claim(made)
        try:
            await self._ready()
            await self._roster.install(made, self)
            self._choose_road()
        except BaseException:
            self._roster.names.discard(made.name)
            raise
        return self

    async def _replace(self, plugin: Plugin) -> None:
        """Set a plugin up, put it where the one of its name is, tear that one down."""
        waited = self._roster.stand_in_line(plugin)
        if waited is not None:
            # Nobody was set up yet: the start does it, and this one instead.
            try:
                await self._ready()
            except BaseException:
                self._roster.step_back(plugin, waited)
                raise
            return
        await self._ready()
        leaver = await self._roster.succeed(plugin, self)
        self._choose_road()
        if leaver is not None:
            await self._roster.dismiss(leaver, self._config.shutdown_timeout)

    async def remove(self, plugin: Plugin | str) -> None:
        """Take a plugin out, drain it where it is a destination, tear it down.

        Raises:
            ValueError: no plugin of that name is installed.
        """
        name = plugin if isinstance(plugin, str) else plugin.name
        leaver = self._roster.take_out(name)
        self._choose_road()
        if leaver is not None:
            await self._roster.dismiss(leaver, self._config.shutdown_timeout)


def _check_feedable(config: DeliveryConfig, *, has_key: bool) -> None:
    if config.handover is not None:
        msg = "handover is set: a client that delivers for a relay has none"
    elif config.storage is not None:
        msg = "storage is set: a relay's log is the storage, leave it out"
    elif not has_key:
        msg = "api_key is missing: a client that delivers for a relay needs one"
    else:
        return
    raise ConfigurationError(msg)


async def _hand_over(
    event: Any, destination: Destination, *, may_wait: bool
) -> Delivery:
    if may_wait:
        return await destination.accept(event)
    return destination.offer_nowait(event)


def _plugin_drop(drop: PluginDrop) -> Outcome:
    return Outcome.dropped(DropReason.PLUGIN, str(drop))


_CLOSED: Final = Outcome.dropped(DropReason.CLOSED, "the client was shut down before")
_OPT_OUT: Final = Outcome.dropped(DropReason.OPT_OUT, "opt_out is set")
_NO_KEY: Final = Outcome.rejected(
    "this client was made without a key inside capture(), which is over: make another"
)
_NO_DESTINATION: Final = Outcome.dropped(
    DropReason.NO_DESTINATION, "no destination is installed: add one"
)
