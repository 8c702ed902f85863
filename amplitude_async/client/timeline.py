"""Runs an event through before and enrichment plugins and fences their faults."""

from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.reporting import Reporter, in_words, named
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.plugins import Plugin, PluginType

__all__ = ["PluginDrop", "Timeline", "finish_at_once"]

_T = TypeVar("_T")

_STAGES = {PluginType.BEFORE: 0, PluginType.ENRICHMENT: 1}
_LAST_STAGE = 2


class PluginDrop(Exception):  # noqa: N818 - a verdict, not a fault
    """A plugin dropped the event; the message names it."""


class Timeline:
    """The plugins on an event's road, in their order."""

    def __init__(self, client_id: int, event_type: type, reporter: Reporter) -> None:
        self._client_id = client_id
        self._event_type = event_type
        self._reporter = reporter
        self._plugins: tuple[Plugin, ...] = ()

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins in the order in which they run."""
        return self._plugins

    def add(self, plugin: Plugin) -> None:
        """Install a plugin behind those of its stage."""
        self._plugins = tuple(sorted((*self._plugins, plugin), key=_stage))

    def discard(self, plugin: Plugin) -> None:
        """Take a plugin out; events under way still finish with it."""
        self._plugins = tuple(p for p in self._plugins if p is not plugin)

    async def run(self, event: Any, *, may_wait: bool) -> Any:
        """Run all plugins on an event of our own.

        Args:
            event: a copy that plugins may change.
            may_wait: False makes the run one that never suspends; a plugin that
                would suspend has failed.

        Raises:
            PluginDrop: a plugin dropped the event.
        """
        for plugin, inside in self._due():
            token = inside_user_code.set(inside)
            try:
                answer = plugin.execute(event)
                # The event itself first: to ask what else it is takes longer.
                if answer is not event and isinstance(answer, Awaitable):
                    answer = await answer if may_wait else finish_at_once(answer)
            except BaseException as error:  # user code, fenced
                if not is_theirs(error):
                    raise
                event = self._survive(plugin, event, error)
            else:
                event = self._judge(plugin, event, answer)
            finally:
                inside_user_code.reset(token)
        return event

    def _due(self) -> Iterator[tuple[Plugin, frozenset[int]]]:
        """Yield the plugins to run, each with the mark that it is running.

        An event tracked by a plugin skips every plugin already on the stack.
        """
        outer = inside_user_code.get()
        # The tuple as it is now: who is removed meanwhile still sees this event.
        for plugin in self._plugins:
            if id(plugin) not in outer:
                yield plugin, outer | {id(plugin), self._client_id}

    def _judge(self, plugin: Plugin, event: Any, answer: Any) -> Any:
        # None is a decision, also of a plugin whose author forgot the return.
        if answer is None:
            msg = f"dropped by plugin {plugin.name!r}"
            raise PluginDrop(msg)
        if isinstance(answer, self._event_type):
            return answer
        error = TypeError(
            f"execute returned {type(answer).__name__}: return the event or None"
        )
        return self._survive(plugin, event, error)

    def _survive(self, plugin: Plugin, event: Any, error: BaseException) -> Any:
        self._reporter.error(
            f"plugin {plugin.name}",
            "plugin %r raised %s",
            plugin.name,
            named(error),
            traceback=error,
        )
        if plugin.on_error == "drop":
            msg = (
                f"dropped because plugin {plugin.name!r} raised {in_words(error):.150}"
            )
            raise PluginDrop(msg) from error
        return event


def _stage(plugin: Plugin) -> int:
    return _LAST_STAGE if plugin.last else _STAGES[plugin.plugin_type]


def finish_at_once(answer: Awaitable[_T]) -> _T:
    """Run a coroutine that must not suspend, without a loop's help.

    Raises:
        RuntimeError: it would have suspended; it is closed.
    """
    iterator = answer.__await__()
    try:
        next(iterator)
    except StopIteration as end:
        result: _T = end.value
        return result
    # Any awaitable may come out of a plugin, and not each has a coroutine's close.
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    msg = "the plugin awaits something: track_nowait cannot wait, use `await track()`"
    raise RuntimeError(msg)
