"""Runs an event through before and enrichment plugins and fences their faults."""

import copy
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, TypeVar

from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.reporting import Reporter, in_words, named
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.plugins import Plugin, PluginType
from amplitude_async.shown import kind_of, shown

__all__ = ["PluginDrop", "Timeline", "finish_at_once"]

_T = TypeVar("_T")

_STAGES = {PluginType.BEFORE: 0, PluginType.ENRICHMENT: 1}
_LAST_STAGE = 2


class PluginDrop(Exception):  # noqa: N818 - a verdict, not a fault
    """A plugin dropped the event; the message names it."""


class Timeline:
    """The plugins on an event's road, in their order.

    Args:
        client_id: marks the client as running while a plugin runs.
        event_type: what a plugin must return.
        reporter: told of what plugins do wrong.
        carried: fields of an event that one has which a plugin returns in its place.
    """

    def __init__(
        self,
        client_id: int,
        event_type: type,
        reporter: Reporter,
        carried: Sequence[str] = (),
    ) -> None:
        self._client_id = client_id
        self._event_type = event_type
        self._reporter = reporter
        self._carried = carried
        # By id and not in lists: thousands may come and go, each in constant time.
        self._stages: tuple[dict[int, Plugin], ...] = ({}, {}, {})
        self._in_order: tuple[Plugin, ...] | None = ()

    def __len__(self) -> int:
        return sum(map(len, self._stages))

    def __contains__(self, plugin: object) -> bool:
        return any(id(plugin) in stage for stage in self._stages)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins in the order in which they run."""
        if self._in_order is None:
            self._in_order = tuple(p for stage in self._stages for p in stage.values())
        return self._in_order

    def add(self, plugin: Plugin) -> None:
        """Install a plugin behind those of its stage."""
        self._stages[_stage(plugin)][id(plugin)] = plugin
        self._in_order = None

    def discard(self, plugin: Plugin) -> None:
        """Take a plugin out; events under way still finish with it."""
        for stage in self._stages:
            stage.pop(id(plugin), None)
        self._in_order = None

    def replace(self, plugin: Plugin, successor: Plugin) -> None:
        """Put a plugin where another is; behind those of its stage in another one."""
        stage = self._stages[_stage(successor)]
        if id(plugin) not in stage:
            self.discard(plugin)
            self.add(successor)
            return
        others = list(stage.values())
        stage.clear()
        for one in others:
            kept = successor if one is plugin else one
            stage[id(kept)] = kept
        self._in_order = None

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
                # Inside as well: what it returns may have code of its own.
                event = self._judge(plugin, event, answer)
            except PluginDrop:
                raise
            except BaseException as error:  # user code, fenced
                if not is_theirs(error):
                    raise
                event = self._survive(plugin, event, error)
            finally:
                inside_user_code.reset(token)
        return event

    def _due(self) -> Iterator[tuple[Plugin, frozenset[int]]]:
        """Yield the plugins to run, each with the mark that it is running.

        An event tracked by a plugin skips every plugin already on the stack.
        """
        outer = inside_user_code.get()
        # The tuple as it is now: who is removed meanwhile still sees this event.
        for plugin in self.plugins:
            if id(plugin) not in outer:
                yield plugin, outer | {id(plugin), self._client_id}

    def _judge(self, plugin: Plugin, event: Any, answer: Any) -> Any:
        # None is a decision, also of a plugin whose author forgot the return.
        if answer is None:
            msg = f"dropped by plugin {shown(plugin.name)}"
            raise PluginDrop(msg)
        if answer is event:
            return event
        if isinstance(answer, self._event_type):
            return self._carry_over(event, answer)
        error = TypeError(
            f"execute returned {kind_of(answer)}: return the event or None"
        )
        return self._survive(plugin, event, error)

    def _carry_over(self, event: Any, fresh: Any) -> Any:
        """Give a plugin's own event what it lacks of what the client knows."""
        known, given = event.__dict__, fresh.__dict__
        missing = {
            name: known[name]
            for name in self._carried
            if known.get(name) is not None and given.get(name) is None
        }
        if not missing:
            return fresh
        # The plugin may hold on to it, and return it again. A class of its own may
        # allow no assignment.
        fresh = copy.copy(fresh)
        fresh.__dict__.update(missing)
        fresh.__pydantic_fields_set__.update(missing)
        return fresh

    def _survive(self, plugin: Plugin, event: Any, error: BaseException) -> Any:
        self._reporter.error(
            f"plugin {plugin.name}",
            "plugin %s raised %s",
            shown(plugin.name),
            named(error),
            traceback=error,
        )
        if plugin.on_error == "drop":
            msg = (
                f"dropped because plugin {shown(plugin.name)} raised "
                f"{in_words(error):.150}"
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
