"""Base classes of plugins: what runs on events before encoding, and destinations.

Hooks may be plain functions or coroutines. A plugin that keeps no state needs no
``__init__``; one that has its own need not call ours.
"""

import inspect
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, ClassVar, Literal

from amplitude_async.shown import kind_of, shown

__all__ = [
    "BeforePlugin",
    "DestinationPlugin",
    "EnrichmentPlugin",
    "FunctionPlugin",
    "Plugin",
    "PluginType",
    "as_plugin",
    "call_hook",
    "default_name",
]

_HOOKS = {
    "$identify": "identify",
    "$groupidentify": "group_identify",
    "revenue_amount": "revenue",
}


class PluginType(StrEnum):
    """When a plugin runs: before, then enrichment, then destination."""

    BEFORE = "before"
    ENRICHMENT = "enrichment"
    DESTINATION = "destination"


class Plugin:
    """Base of all plugins; subclass one of its children.

    ``execute`` returns the event to go on with, or None to drop it. Unless it is
    overridden it calls the hook for the kind of event: ``track``, ``identify``,
    ``group_identify`` or ``revenue``, each of which returns the event as it is.
    """

    name: str = ""
    """Unique in a client; the class name where it is empty."""
    plugin_type: ClassVar[PluginType] = PluginType.ENRICHMENT
    last: bool = False
    """True runs after all before and enrichment plugins, as a scrubber should."""
    on_error: Literal["keep", "drop"] = "keep"
    """What becomes of an event when ``execute`` raises: it goes on, or is dropped."""

    def __init__(self, plugin_type: PluginType | None = None) -> None:
        # As the official SDK has it; ours say it by their base class.
        if plugin_type is None or plugin_type is self.plugin_type:
            return
        if PluginType.DESTINATION in {plugin_type, self.plugin_type}:
            msg = (
                f"plugin_type={plugin_type!s}, but {type(self).__name__} is of type "
                f"{self.plugin_type!s}: subclass DestinationPlugin for destinations"
            )
            raise TypeError(msg)
        # Of this one alone, as it asked for.
        self.__dict__["plugin_type"] = plugin_type

    def setup(self, client: Any) -> Any:
        """Prepare; the plugin runs on no event before this returned. May be async."""

    def execute(self, event: Any) -> Any:
        """Return the event, another one, or None to drop it. May be async."""
        hook = _HOOKS.get(event.event_type, "track")
        return getattr(self, hook)(event)

    def track(self, event: Any) -> Any:
        """Handle an ordinary event."""
        return event

    def identify(self, event: Any) -> Any:
        """Handle a ``$identify`` event."""
        return event

    def group_identify(self, event: Any) -> Any:
        """Handle a ``$groupidentify`` event."""
        return event

    def revenue(self, event: Any) -> Any:
        """Handle a ``revenue_amount`` event."""
        return event

    def teardown(self) -> Any:
        """Release what setup took; after remove or shutdown. May be async."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or type(self).__name__!r}>"


class BeforePlugin(Plugin):
    """Runs first: fills in what later plugins read."""

    plugin_type = PluginType.BEFORE


class EnrichmentPlugin(Plugin):
    """Runs second: adds to events, changes or drops them."""

    plugin_type = PluginType.ENRICHMENT


class DestinationPlugin(Plugin):
    """Receives each event that the other plugins let through, in order.

    Runs outside of ``track``, one event at a time, under ``connection_timeout``:
    returning is DELIVERED, raising is REJECTED. ``flush`` and ``shutdown`` are called
    where a subclass defines them.
    """

    plugin_type = PluginType.DESTINATION

    def flush(self) -> Any:
        """Send what the plugin itself holds back. May be async."""

    def shutdown(self) -> Any:
        """Close what the plugin itself opened. May be async."""


class FunctionPlugin(EnrichmentPlugin):
    """A bare function ``f(event) -> Event | None`` as enrichment plugin.

    One that has no name of its own, as a lambda, is called by its kind and a number.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        name = getattr(function, "__name__", "")
        self.kind = "lambda" if name == _LAMBDA else type(function).__name__
        self.name = "" if name == _LAMBDA else name
        self._function = function

    def execute(self, event: Any) -> Any:
        """Call the function."""
        return self._function(event)


_LAMBDA = "<lambda>"


def as_plugin(plugin: "Plugin | Callable[[Any], Any]") -> Plugin:
    """Accept a plugin or a bare function.

    Raises:
        TypeError: it is neither; a class instead of an instance is named as such. Or
            its name is no text, or its type none of `PluginType`.
    """
    if isinstance(plugin, Plugin):
        _check(plugin)
        return plugin
    if inspect.isclass(plugin):
        msg = f"plugin={plugin.__name__} is a class: pass an instance of it"
        raise TypeError(msg)
    if callable(plugin):
        return FunctionPlugin(plugin)
    msg = (
        f"plugin={shown(plugin)} is neither a Plugin nor a function: subclass "
        "EnrichmentPlugin or pass `async def f(event)`"
    )
    raise TypeError(msg)


def _check(plugin: Plugin) -> None:
    if plugin.name is not None and not isinstance(plugin.name, str):
        msg = f"name={shown(plugin.name)} of plugin {kind_of(plugin)}: must be text"
        raise TypeError(msg)
    try:
        PluginType(plugin.plugin_type)
    except ValueError:
        msg = (
            f"plugin_type={shown(plugin.plugin_type)} of plugin {kind_of(plugin)}: "
            "must be PluginType.BEFORE or ENRICHMENT; for a destination subclass "
            "DestinationPlugin"
        )
        raise TypeError(msg) from None


def default_name(plugin: Plugin) -> str:
    """Name a plugin that nobody has named."""
    return plugin.kind if isinstance(plugin, FunctionPlugin) else type(plugin).__name__


async def call_hook(hook: Callable[..., Any], *args: Any) -> Any:
    """Call a hook that may be plain or async."""
    answer = hook(*args)
    if isinstance(answer, Awaitable):
        return await answer
    return answer
