"""A client's plugins by name: those that wait, the timeline and the destinations."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from amplitude_async.client.departures import (
    TEARDOWN_GRACE,
    TEARDOWN_TIMEOUT,
    Departures,
    Leaver,
    inside,
)
from amplitude_async.client.destination import Destination, EngineDestination
from amplitude_async.client.names import Names
from amplitude_async.client.seats import Seats
from amplitude_async.client.timeline import Timeline
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import AmplitudeError, ClientClosedError
from amplitude_async.plugins import (
    DestinationPlugin,
    Plugin,
    as_plugin,
    call_hook,
    default_name,
)
from amplitude_async.shown import shown

__all__ = ["Roster"]

_INSTALLED_IN_ONE_GO = 100
_LISTED = 400


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
        self._seats = Seats(own, timeline)
        self._own = own
        self._receive = receive
        self._reporter = reporter
        self._client_id = client_id
        self._implicit = implicit
        self.names = Names(own.name)
        # By name, in order: thousands may wait, each of them set up in constant time.
        self._waiting: OrderedDict[str, Plugin] = OrderedDict()
        self._departures = Departures(reporter, client_id, self._free)
        self._ended = False
        if implicit is not None:
            self.names.claim(implicit)
            timeline.add(implicit)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __repr__(self) -> str:
        return f"<Roster {list(self.names)}, {len(self._waiting)} to be set up>"

    # Who is there ------------------------------------------------------------

    @property
    def timeline(self) -> Timeline:
        """Runs the plugins that are no destinations."""
        return self._seats.timeline

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """Where events go, in the order of adding."""
        return self._seats.destinations

    @property
    def has_plugins(self) -> bool:
        """True where somebody's plugins want to see each event."""
        return len(self.timeline) > int(self._implicit in self.timeline)

    @property
    def has_only_implicit(self) -> bool:
        """True where the implicit plugin is all that would see each event."""
        return self._implicit in self.timeline and not self.has_plugins

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

    def _free(self, name: str) -> None:
        """Free the name of who has left, unless a successor has it."""
        if self._seats.holder(name) is None and name not in self._waiting:
            self.names.discard(name)

    # Coming ------------------------------------------------------------------

    def enlist(self, plugins: Iterable[Plugin | Callable[[Any], Any]]) -> None:
        """Take plugins in that are set up when the client starts.

        Raises:
            TypeError: one of them is neither a plugin nor a function.
            ValueError: two of them have the same name.
        """
        made = [as_plugin(plugin) for plugin in plugins]
        for plugin in made:
            self.names.claim(plugin)
            self._waiting[plugin.name] = plugin

    async def succeed(self, plugin: Plugin, client: object) -> Leaver | None:
        """Set a plugin up and put it where the one of its name is.

        That one stays where the setup fails.

        Returns:
            Who takes part no longer; ``dismiss`` ends what was set up.
        """
        plugin.name = plugin.name or default_name(plugin)
        leaver = await self.install(plugin, client, replaces=True)
        self.names.add(plugin.name)
        return leaver

    def stand_in_line(self, plugin: Plugin) -> Plugin | None:
        """Put a plugin where one of its name waits to be set up; that one."""
        name = plugin.name or default_name(plugin)
        waiting = self._waiting.get(name)
        if waiting is not None:
            plugin.name = name
            self._waiting[name] = plugin
        return waiting

    def step_back(self, plugin: Plugin, waited: Plugin) -> None:
        """Give a place in line back to who had it, unless it is installed by now."""
        if self._waiting.get(plugin.name) is not plugin:
            return
        if self._seats.holder(plugin.name) is None:
            self._waiting[plugin.name] = waited
        else:
            del self._waiting[plugin.name]

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
        if len(self._waiting) % _INSTALLED_IN_ONE_GO == 0:
            await asyncio.sleep(0)
        if not self._waiting:
            return False
        # It leaves the line when it is installed: one whose setup raised is tried
        # again by the next verb.
        name, plugin = next(iter(self._waiting.items()))
        try:
            await self.install(plugin, client)
        except ClientClosedError:
            # Somebody shut down meanwhile: no fault of the verb that started us.
            self._waiting.clear()
            return False
        # Its setup may have removed a plugin that waited, even itself, and somebody may
        # have put a successor in its place.
        successor = self._waiting.get(name)
        if successor is not None and successor is not plugin:
            leaver = await self.succeed(successor, client)
            if leaver is not None:
                await self.dismiss(leaver, TEARDOWN_TIMEOUT)
        self._waiting.pop(name, None)
        return True

    async def install(
        self, plugin: Plugin, client: object, *, replaces: bool = False
    ) -> Leaver | None:
        """Set a plugin up and let it take part from the next event on.

        Args:
            plugin: has claimed its name.
            client: what its setup gets.
            replaces: it takes the place of who has its name then.

        Returns:
            Who takes part no longer; ``dismiss`` ends what was set up.

        Raises:
            ClientClosedError: the client was shut down meanwhile; it is torn down.
            Exception: whatever its setup raised; it does not take part then.
        """
        # Set up first: it runs on no event before that, and on none if it raises.
        await _set_up(plugin, client, self._client_id)
        if self._ended:
            await self._departures.tear_down(plugin, TEARDOWN_GRACE)
            name = shown(plugin.name)
            msg = f"this client was shut down while plugin {name} was set up"
            raise ClientClosedError(msg)
        destination = self._destination_of(plugin)
        if destination is not None:
            await destination.start()
        return self._seats.take(plugin, destination, replaces=replaces)

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
        leaver = self._seats.leave(name)
        if leaver is not None:
            return leaver
        if self._waiting.pop(name, None) is None:
            msg = (
                f"no plugin named {shown(name)}; installed are "
                f"{shown(list(self.names), _LISTED)}"
            )
            raise ValueError(msg)
        self.names.discard(name)
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


async def _set_up(plugin: Plugin, client: object, client_id: int) -> None:
    try:
        with inside(plugin, client_id):
            await call_hook(plugin.setup, client)
    except asyncio.CancelledError as error:
        if not is_theirs(error):
            raise
        # As it is it would end the task of whoever happened to start the client.
        msg = f"setup of plugin {shown(plugin.name)} raised CancelledError"
        raise AmplitudeError(msg) from error
