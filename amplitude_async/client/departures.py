"""Those who take part no longer: drained, torn down, and waited for."""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple

from amplitude_async.client.destination import Destination
from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import is_theirs, spawn
from amplitude_async.plugins import Plugin, call_hook
from amplitude_async.shown import shown

__all__ = ["TEARDOWN_GRACE", "TEARDOWN_TIMEOUT", "Departures", "Leaver", "inside"]

TEARDOWN_TIMEOUT = 5.0
# So long a teardown has where the deadline of a shutdown has passed.
TEARDOWN_GRACE = 0.5


class Leaver(NamedTuple):
    """Somebody who takes part no longer, and is still to be ended."""

    name: str
    plugin: Plugin
    destination: Destination | None = None


class Departures:
    """Ends plugins and destinations, each in a task of its own.

    Args:
        reporter: told of what plugins do wrong.
        client_id: marks the client as running while a hook runs.
        freed: is told of a name that somebody else may have from now on.
    """

    def __init__(
        self, reporter: Reporter, client_id: int, freed: Callable[[str], None]
    ) -> None:
        self._reporter = reporter
        self._client_id = client_id
        self._freed = freed
        self._leaving: dict[asyncio.Task[None], Leaver] = {}

    def __repr__(self) -> str:
        return f"<Departures {sorted(one.name for one in self._leaving.values())}>"

    async def dismiss(self, leaver: Leaver, timeout: float | None) -> None:
        """Drain a destination, tear the plugin down, and only then free the name.

        Whoever is cancelled waiting for that stops nothing: the destination has events
        that nobody else knows of.
        """
        # Of the caller's context only what keeps user code from waiting for itself.
        context = contextvars.Context()
        context.run(inside_user_code.set, inside_user_code.get())
        task = spawn(self._dismiss(leaver, timeout), f"{leaver.name} leaving", context)
        self._leaving[task] = leaver
        await asyncio.shield(task)

    async def _dismiss(self, leaver: Leaver, timeout: float | None) -> None:
        if leaver.destination is not None:
            await leaver.destination.shutdown(timeout)
        await self.tear_down(leaver.plugin, TEARDOWN_TIMEOUT)
        self._freed(leaver.name)
        if task := asyncio.current_task():
            self._leaving.pop(task, None)

    async def see_off(self, timeout: float | None) -> None:
        """Wait for those who are leaving; at the deadline, let them leave at once."""
        if not self._leaving:
            return
        await asyncio.wait(self._leaving, timeout=timeout)
        late, self._leaving = self._leaving, {}
        for task, leaver in late.items():
            task.cancel()
            await asyncio.wait({task}, timeout=TEARDOWN_GRACE)
            await self._dismiss(leaver, 0)

    async def tear_down(self, plugin: Plugin, limit: float) -> None:
        """Let a plugin end what it began, within so many seconds."""
        try:
            with inside(plugin, self._client_id):
                async with asyncio.timeout(limit):
                    await call_hook(plugin.teardown)
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._reporter.error(
                f"plugin {plugin.name}",
                "teardown of plugin %s raised %s",
                shown(plugin.name),
                shown(error),
                traceback=error,
            )


@contextlib.contextmanager
def inside(plugin: Plugin, client_id: int) -> Iterator[None]:
    """Mark that a hook runs: what it calls must not wait for itself."""
    mark = inside_user_code.get() | {client_id, id(plugin)}
    token = inside_user_code.set(mark)
    try:
        yield
    finally:
        inside_user_code.reset(token)
