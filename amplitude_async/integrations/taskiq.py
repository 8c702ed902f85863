"""One client for a taskiq worker, and a scope of bound fields for each of its tasks.

``broker.add_middlewares(AmplitudeTaskMiddleware(carry=True))`` starts the client with
the worker and drains it at its end; a task takes it as ``amplitude: AmplitudeDep``.
"""

from collections.abc import Collection
from contextvars import ContextVar
from typing import Annotated, Any, Final, Unpack

from taskiq import Context, InMemoryBroker, TaskiqDepends, TaskiqMessage, TaskiqResult
from taskiq.abc.middleware import TaskiqMiddleware

from amplitude_async import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.integrations.carrier import HEADER, Carrier
from amplitude_async.integrations.jobs import JobScope, fields_around

__all__ = ["AmplitudeDep", "AmplitudeTaskMiddleware", "amplitude_of"]


class AmplitudeTaskMiddleware(TaskiqMiddleware):
    """Gives a taskiq worker one client, and each of its tasks a scope of its own.

    The client starts with the worker and is drained when the worker stops. A process
    that only sends tasks needs none, and gets none: there the middleware writes
    carriers.

    Args:
        client: one that the application starts and shuts down itself; by default
            ``Amplitude.from_env(**options)``, when the worker starts.
        carry: what travels with a task from where it is sent: True for all of
            ``carrier.CARRIED``, or the names of some. Both sides have to say so.
        flush_each: send the events of a task before it counts as done, within
            ``flush_timeout``.
        options: fields of ``Config``.
    """

    def __init__(
        self,
        client: Amplitude | None = None,
        *,
        carry: bool | Collection[str] = False,
        flush_each: bool = False,
        **options: Unpack[ConfigFields],
    ) -> None:
        super().__init__()
        self._given = client
        self._options = options
        self._carrier = Carrier(carry)
        self._flush_each = flush_each
        self._client = client
        self._around: dict[str, Any] = {}

    async def startup(self) -> None:
        """Start the client of a worker, and put it where `AmplitudeDep` finds it."""
        if self.broker.is_worker_process or isinstance(self.broker, InMemoryBroker):
            self._around = dict(fields_around())
            if self._given is None:
                self._client = await Amplitude.from_env(**self._options).__aenter__()
            self.broker.state["amplitude"] = self._client

    async def shutdown(self) -> None:
        """Deliver what waits, within ``shutdown_timeout``."""
        if self._given is None and self._client is not None:
            client, self._client = self._client, None
            await client.shutdown()

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Write what is bound here into a label of the task."""
        header = self._carrier.packed()
        if header is not None:
            message.labels[HEADER] = header
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Open the scope of a task."""
        carried = self._carrier.unpacked(message.labels.get(HEADER))
        scope = JobScope(self._around, carried)
        scope.__enter__()
        _open.set((scope, _open.get()))
        return message

    async def post_execute(
        self,
        message: TaskiqMessage,  # noqa: ARG002 - taskiq's signature
        result: TaskiqResult[Any],  # noqa: ARG002
    ) -> None:
        """End the scope of a task, whatever became of it."""
        try:
            if self._flush_each and self._client is not None:
                await self._client.flush()
        finally:
            found = _open.get()
            if found is not None:
                scope, outer = found
                _open.set(outer)
                scope.__exit__()


def amplitude_of(context: Annotated[Context, TaskiqDepends()]) -> Amplitude:
    """Give the worker's client; the dependency behind `AmplitudeDep`.

    Raises:
        RuntimeError: The broker has no `AmplitudeTaskMiddleware`, or was not started.
    """
    client: Amplitude | None = getattr(context.broker.state, "amplitude", None)
    if client is None:
        raise RuntimeError(
            "this worker has no client: give its broker an AmplitudeTaskMiddleware"
        )
    return client


AmplitudeDep = Annotated[Amplitude, TaskiqDepends(amplitude_of)]
"""The client as the parameter of a task: ``amplitude: AmplitudeDep``."""

_Open = tuple[JobScope, Any]
# A broker may run one task within another, in one context.
_open: Final[ContextVar[_Open | None]] = ContextVar("amplitude_task", default=None)
