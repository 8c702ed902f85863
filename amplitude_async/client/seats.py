"""Where each of those who take part is: on the timeline, or among the destinations."""

from amplitude_async.client.departures import Leaver
from amplitude_async.client.destination import Destination, EngineDestination
from amplitude_async.client.timeline import Timeline
from amplitude_async.plugins import Plugin

__all__ = ["Seats"]


class Seats:
    """Who takes part, and in which order; whoever leaves a place may hand it on."""

    def __init__(self, own: EngineDestination, timeline: Timeline) -> None:
        self.timeline = timeline
        # A new tuple each time: somebody may be going through the old one and waiting.
        self.destinations: tuple[Destination, ...] = (own,)

    def __repr__(self) -> str:
        return f"<Seats {len(self.timeline)} plugins, {len(self.destinations)} places>"

    def holder(self, name: str) -> Destination | Plugin | None:
        """Find who takes part under a name."""
        parts: list[Destination | Plugin] = [*self.destinations, *self.timeline.plugins]
        return next((one for one in parts if one.name == name), None)

    def take(
        self, plugin: Plugin, destination: Destination | None, *, replaces: bool
    ) -> Leaver | None:
        """Let a plugin take part, in the place of who has its name; who leaves."""
        # Nothing is awaited here: no event meets neither, or both.
        held = self.holder(plugin.name) if replaces else None
        leaver = None
        at = end = len(self.destinations)
        if held in self.destinations:
            leaver = Leaver(plugin.name, held.plugin, held)
            at = self.destinations.index(held)
            end = at + 1
        elif isinstance(held, Plugin):
            leaver = Leaver(plugin.name, held)
            if destination is None:
                self.timeline.replace(held, plugin)
                return leaver
            self.timeline.discard(held)
        seats = self.destinations
        taken = () if destination is None else (destination,)
        self.destinations = (*seats[:at], *taken, *seats[end:])
        if destination is None:
            self.timeline.add(plugin)
        return leaver

    def leave(self, name: str) -> Leaver | None:
        """Take out who has a name; None where nobody here has it."""
        for seat in self.destinations:
            if seat.name == name:
                self.destinations = tuple(d for d in self.destinations if d is not seat)
                return Leaver(name, seat.plugin, seat)
        for plugin in self.timeline.plugins:
            if plugin.name == name:
                self.timeline.discard(plugin)
                return Leaver(name, plugin)
        return None
