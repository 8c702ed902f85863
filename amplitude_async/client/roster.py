"""A client's plugins by name: those that wait, the timeline and the destinations."""

import asyncio
import math
from collections.abc import Callable, Container, Iterable
from typing import Any

from amplitude_async.client.departures import (
    TEARDOWN_GRACE,
    TEARDOWN_TIMEOUT,
    Departures,
    Leaver,
    inside,
)
from amplitude_async.client.destination import Destination, EngineDestination
from amplitude_async.client.timeline import Timeline
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import AmplitudeError, ClientClosedError
from amplitude_async.plugins import DestinationPlugin, Plugin, as_plugin, call_hook

__all__ = ["Roster"]


class Roster:
    """Who takes part in a client, each under a name of its own.

    The client is handed in where a plugin is to see it, and not kept: a client that
    nobody shuts down should be collected, and warn, as soon as nobody holds it.

    Args:
        own: the client's own destination.
        timeline: runs the plugins that are no destinations.
        receive: makes the destination around a destination plugin.
        reporter: told of what plugins do wrong.
        client_id: marks the client as running while a hook runs.
        implicit: a plugin whose work the door does where no other is installed.
    """

    def __init__(
        self,
        own: EngineDestination,
        timeline: Timeline,
        receive: Callable[[DestinationPlugin], Destination],
        *,
        reporter: Reporter,
        client_id: int,
        implicit: Plugin | None = None,
    ) -> None:
        self.timeline = timeline
        self.destinations: tuple[Destination, ...] = (own,)
        self._own = own
        self._receive = receive
        self._reporter = reporter
        self._client_id = client_id
        self._implicit = implicit
        self._names = {own.name}
        self._waiting: list[Plugin] = []
        self._departures = Departures(reporter, client_id, self._names.discard)
        self._ended = False
        if implicit is not None:
            self.claim(implicit)
            timeline.add(implicit)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __repr__(self) -> str:
        return f"<Roster {sorted(self._names)}, {len(self._waiting)} to be set up>"

    # Who is there ------------------------------------------------------------

    @property
    def has_plugins(self) -> bool:
        """True where somebody's plugins want to see each event."""
        return any(plugin is not self._implicit for plugin in self.timeline.plugins)

    @property
    def has_only_implicit(self) -> bool:
        """True where the implicit plugin is all that would see each event."""
        return self._implicit in self.timeline.plugins and not self.has_plugins

    @property
    def is_bare(self) -> bool:
        """True where events go to the client's own destination, and as they are."""
        return not self.has_plugins and self.destinations == (self._own,)

    @property
    def other_stats(self) -> dict[str, Stats]:
        """The accounts of the destinations that are not the client's own."""
        return {d.name: d.stats for d in self.destinations if d is not self._own}

    @property
    def pending(self) -> int:
        """Undecided events, those of each destination counted."""
        return sum(destination.pending for destination in self.destinations)

    def due(self) -> list[Destination]:
        """List who gets an event, the one whose handle the caller gets first.

        An event that a destination tracks does not come back to it.
        """
        inside = inside_user_code.get()
        due = [d for d in self.destinations if id(d.plugin) not in inside]
        # An engine's handle tells what the server said, a plugin's only that it ran.
        return sorted(due, key=lambda d: not isinstance(d, EngineDestination))

    def settle(
        self, event: Any, outcome: Outcome, *, must_tell: bool = False
    ) -> Delivery:
        """Settle an event at once, in the account of every destination."""
        for destination in self.destinations:
            if destination is not self._own:
                destination.settle(event, outcome, must_tell=must_tell)
        return self._own.settle(event, outcome, must_tell=must_tell)

    async def wait_to_tell(self) -> None:
        """Wait until every callback has room for one more result, but not long."""
        for destination in {self._own, *self.destinations}:
            await destination.wait_to_tell()

    # Names -------------------------------------------------------------------

    def claim(self, plugin: Plugin) -> None:
        """Make sure that a plugin has a name of its own.

        Raises:
            ValueError: another plugin has the name.
        """
        # A name that nobody chose gives way, one that somebody chose does not.
        if not plugin.name:
            plugin.name = _free_name(type(plugin).__name__, self._names)
        elif plugin.name in self._names:
            msg = (
                f"plugin name={plugin.name!r} is taken: remove the other plugin "
                "first or add with replace=True"
            )
            raise ValueError(msg)
        self._names.add(plugin.name)

    def release(self, plugin: Plugin) -> None:
        """Give up the name of a plugin that was not installed after all."""
        self._names.discard(plugin.name)

    # Coming ------------------------------------------------------------------

    def enlist(self, plugins: Iterable[Plugin | Callable[[Any], Any]]) -> None:
        """Take plugins in that are set up when the client starts.

        Raises:
            TypeError: one of them is neither a plugin nor a function.
            ValueError: two of them have the same name.
        """
        made = [as_plugin(plugin) for plugin in plugins]
        for plugin in made:
            self.claim(plugin)
        self._waiting += made

    async def start(self) -> None:
        """Make every destination ready on the running loop."""
        for destination in self.destinations:
            await destination.start()

    async def opened(self) -> None:
        """Wait until every storage is open.

        Raises:
            StorageError: one of them cannot be opened, or takes too long.
        """
        for destination in self.destinations:
            if isinstance(destination, EngineDestination):
                await destination.opened()

    async def install_next(self, client: object) -> bool:
        """Install the first plugin that waits; False where none does.

        Raises:
            Exception: whatever the plugin's setup raised; it waits on then.
        """
        if not self._waiting:
            return False
        # It leaves the line when it is installed: one whose setup raised is tried
        # again by the next verb.
        plugin = self._waiting[0]
        try:
            await self.install(plugin, client)
        except ClientClosedError:
            # Somebody shut down meanwhile: no fault of the verb that started us.
            self._waiting.clear()
            return False
        # Its setup may have removed a plugin that waited, even itself.
        self._waiting = [one for one in self._waiting if one is not plugin]
        return True

    async def install(self, plugin: Plugin, client: object) -> None:
        """Set a plugin up and let it take part from the next event on.

        Raises:
            ClientClosedError: the client was shut down meanwhile; it is torn down.
            Exception: whatever its setup raised; it does not take part then.
        """
        # Set up first: it runs on no event before that, and on none if it raises.
        try:
            with inside(plugin, self._client_id):
                await call_hook(plugin.setup, client)
        except asyncio.CancelledError as error:
            if not is_theirs(error):
                raise
            # As it is it would end the task of whoever happened to start the client.
            msg = f"setup of plugin {plugin.name!r} raised CancelledError"
            raise AmplitudeError(msg) from error
        if self._ended:
            await self._departures.tear_down(plugin, TEARDOWN_GRACE)
            msg = f"this client was shut down while plugin {plugin.name!r} was set up"
            raise ClientClosedError(msg)
        destination = self._destination_of(plugin)
        if destination is None:
            self.timeline.add(plugin)
            return
        await destination.start()
        self.destinations = (*self.destinations, destination)

    def _destination_of(self, plugin: Plugin) -> Destination | None:
        if isinstance(plugin, EngineDestination):
            return plugin
        return self._receive(plugin) if isinstance(plugin, DestinationPlugin) else None

    # Going -------------------------------------------------------------------

    def take_out(self, name: str) -> Leaver | None:
        """Let somebody take part no longer; ``dismiss`` ends what was set up.

        Returns:
            None where nothing was set up yet.

        Raises:
            ValueError: nobody has that name.
        """
        for destination in self.destinations:
            if destination.name == name:
                # A new tuple: somebody may be going through the old one and waiting.
                rest = tuple(d for d in self.destinations if d is not destination)
                self.destinations = rest
                return Leaver(name, destination.plugin, destination)
        for plugin in self.timeline.plugins:
            if plugin.name == name:
                self.timeline.discard(plugin)
                return Leaver(name, plugin)
        kept = [plugin for plugin in self._waiting if plugin.name != name]
        if len(kept) == len(self._waiting):
            msg = f"no plugin named {name!r}; installed are {sorted(self._names)}"
            raise ValueError(msg)
        self._waiting = kept
        self._names.discard(name)
        return None

    async def dismiss(self, leaver: Leaver, timeout: float | None) -> None:
        """Drain a destination, tear the plugin down, and only then free the name."""
        await self._departures.dismiss(leaver, timeout)

    async def shutdown(self, timeout: float | None) -> None:
        """Drain every destination until the deadline, then tear everything down."""
        self._ended = True
        clock = asyncio.get_running_loop()
        deadline = math.inf if timeout is None else clock.time() + timeout
        ended = await asyncio.gather(
            *(d.shutdown(timeout) for d in self.destinations),
            self._departures.see_off(timeout),
            return_exceptions=True,
        )
        for error in ended:
            if isinstance(error, BaseException):
                self._reporter.error(
                    "shutdown", "shutdown raised %r", error, traceback=error
                )
        # After all of them: a plugin may still be asked by a destination that drains.
        plugins = [*self.timeline.plugins, *(d.plugin for d in self.destinations)]
        left = min(max(deadline - clock.time(), TEARDOWN_GRACE), TEARDOWN_TIMEOUT)
        # Side by side: one that is stuck takes no time from the others.
        await asyncio.gather(
            *(self._departures.tear_down(plugin, left) for plugin in plugins)
        )

    # Moving ------------------------------------------------------------------

    def rebind(self) -> None:
        """Move every destination to another loop after the old one was closed."""
        for destination in self.destinations:
            destination.rebind()

    def forget_parent(self) -> None:
        """Start with empty destinations in a forked child."""
        for destination in self.destinations:
            destination.forget_parent()


def _free_name(wanted: str, taken: Container[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
