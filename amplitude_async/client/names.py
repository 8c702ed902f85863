"""The names of those who take part in a client, and who may have one."""

from collections.abc import Iterator

from amplitude_async.client.destination import EngineDestination
from amplitude_async.plugins import (
    DestinationPlugin,
    FunctionPlugin,
    Plugin,
    PluginType,
    default_name,
)
from amplitude_async.shown import kind_of, shown

__all__ = ["Names"]


class Names:
    """The names that are taken, and the next number of those who share one."""

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)
        self._numbers: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._taken))

    def add(self, name: str) -> None:
        """Take a name."""
        self._taken.add(name)

    def discard(self, name: str) -> None:
        """Free a name."""
        self._taken.discard(name)

    def claim(self, plugin: Plugin) -> None:
        """Make sure that a plugin has a name of its own.

        Raises:
            TypeError: it says that it is a destination, and is none.
            ValueError: another plugin has the name.
        """
        _check_kind(plugin)
        # A name that nobody chose gives way, one that somebody chose does not.
        if not plugin.name:
            plugin.name = self._find_free(default_name(plugin))
        elif plugin.name in self._taken:
            msg = (
                f"plugin name={shown(plugin.name)} is taken: remove the other plugin "
                "first or add with replace=True"
            )
            raise ValueError(msg)
        self._taken.add(plugin.name)

    def replaces(self, plugin: Plugin) -> bool:
        """Say whether a plugin would take the place of another of its name.

        Raises:
            TypeError: it says that it is a destination, and is none.
            ValueError: it is a function without a name.
        """
        _check_kind(plugin)
        if not plugin.name and isinstance(plugin, FunctionPlugin):
            msg = (
                f"replace=True needs a name, and a {plugin.kind} has none: pass a "
                "function made with def, or a plugin with a name"
            )
            raise ValueError(msg)
        return (plugin.name or default_name(plugin)) in self._taken

    def _find_free(self, wanted: str) -> str:
        """Find a free name: the wanted one, or with a number that nobody had yet."""
        name = wanted
        while name in self._taken:
            number = self._numbers.get(wanted, 1) + 1
            self._numbers[wanted] = number
            name = f"{wanted}-{number}"
        return name


def _check_kind(plugin: Plugin) -> None:
    """Refuse before its setup what would be neither on the road nor at its end."""
    if plugin.plugin_type != PluginType.DESTINATION:
        return
    if not isinstance(plugin, EngineDestination | DestinationPlugin):
        msg = (
            f"plugin {kind_of(plugin)} has plugin_type=DESTINATION and is no "
            "DestinationPlugin: subclass DestinationPlugin, with the same execute"
        )
        raise TypeError(msg)
