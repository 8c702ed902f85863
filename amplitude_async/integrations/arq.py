"""One client for an arq worker, and a scope of bound fields for each of its jobs.

``@AmplitudeJobs(carry=True).worker`` above ``class WorkerSettings`` starts the client
with the worker and drains it at its end; a job finds it as ``ctx["amplitude"]``.

arq has no headers, so a carrier lies beside a job's arguments in what is serialised: a
worker that does not know of it does not see it.
"""

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its exit goes after ours, see below
import pickle
import threading
import weakref
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypeVar, Unpack

from amplitude_async import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.carrier import HEADER, Carrier
from amplitude_async.integrations.jobs import JobScope, fields_around

__all__ = ["AmplitudeJobs"]

_Context: TypeAlias = dict[Any, Any]
_Hook: TypeAlias = Callable[[_Context], Awaitable[None]]
_SettingsT = TypeVar("_SettingsT", bound=type)

_CLIENT: Final = "amplitude"
_SCOPE: Final = "amplitude_scope"
# A result holds one, a job does not.
_RESULT: Final = "r"
# What opens with the client opens before the worker's own, and closes after it.
_OPENING: Final = ("on_startup", "on_job_start")
_CLOSING: Final = ("on_shutdown", "on_job_end")


class AmplitudeJobs:
    """Gives an arq worker one client, and each of its jobs a scope of its own.

    Its hooks and serialisers have the names of arq's own options; `worker` sets them
    all. Whoever sends jobs takes ``job_serializer`` alone:
    ``create_pool(settings, job_serializer=jobs.job_serializer)``.

    Args:
        client: one that the application starts and shuts down itself; by default
            ``Amplitude.from_env(**options)``, when the worker starts.
        carry: what travels with a job from where it is sent: True for all of
            ``carrier.CARRIED``, or the names of some. Both sides have to say so.
        flush_each: send the events of a job before it counts as done, within
            ``flush_timeout``.
        serializer: turns a job into bytes.
        deserializer: turns them back.
        options: fields of ``Config``.
    """

    def __init__(
        self,
        client: Amplitude | None = None,
        *,
        carry: bool | Collection[str] = False,
        flush_each: bool = False,
        serializer: Callable[[dict[str, Any]], bytes] = pickle.dumps,
        deserializer: Callable[[bytes], dict[str, Any]] = pickle.loads,
        **options: Unpack[ConfigFields],
    ) -> None:
        self._given = client
        self._options = options
        self._carrier = Carrier(carry)
        self._flush_each = flush_each
        self._serializer = serializer
        self._deserializer = deserializer
        self._around: dict[str, Any] = {}
        self._unfinished: tuple[asyncio.AbstractEventLoop, Amplitude] | None = None

    def worker(self, settings: _SettingsT) -> _SettingsT:
        """Set hooks and serialisers on a worker's settings; its own hooks still run.

        Raises:
            ConfigurationError: The settings have a serialiser of their own.
        """
        own = vars(settings)
        for name in _OPENING:
            setattr(settings, name, _both(getattr(self, name), own.get(name)))
        for name in _CLOSING:
            setattr(settings, name, _both(own.get(name), getattr(self, name)))
        if self._carrier.names:
            for name in ("job_serializer", "job_deserializer"):
                if own.get(name) is not None:
                    msg = f"{name} is set already: give it to AmplitudeJobs instead"
                    raise ConfigurationError(msg)
                setattr(settings, name, getattr(self, name))
        return settings

    # Hooks -------------------------------------------------------------------

    async def on_startup(self, ctx: _Context) -> None:
        """Start the client, and put it where jobs find it."""
        self._around = dict(fields_around())
        if self._given is not None:
            ctx[_CLIENT] = self._given
            return
        client = await Amplitude.from_env(**self._options).__aenter__()
        ctx[_CLIENT] = client
        self._unfinished = asyncio.get_running_loop(), client
        _run_at_exit(weakref.WeakMethod(self._finish))

    async def on_shutdown(self, ctx: _Context) -> None:
        """Deliver what waits, within ``shutdown_timeout``."""
        client: Amplitude | None = ctx.pop(_CLIENT, None)
        if client is not None and client is not self._given:
            self._unfinished = None
            await client.shutdown()

    async def on_job_start(self, ctx: _Context) -> None:
        """Open the scope of a job."""
        # The job was read in this very task, by nobody else.
        carried = self._carrier.unpacked(_arrived.get())
        # The job runs in a child of this task, which has a copy of its context.
        ctx[_SCOPE] = scope = JobScope(self._around, carried)
        scope.__enter__()

    async def on_job_end(self, ctx: _Context) -> None:
        """End the scope of a job, whatever became of it."""
        scope: JobScope | None = ctx.pop(_SCOPE, None)
        client: Amplitude | None = ctx.get(_CLIENT)
        try:
            if self._flush_each and client is not None:
                await client.flush()
        finally:
            if scope is not None:
                scope.__exit__()

    def _finish(self) -> None:
        """Drain at the exit what `on_shutdown` did not.

        A signal that finds arq in the middle of writing down a result makes it leave
        without that hook.
        """
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            loop, client = unfinished
            if not loop.is_closed() and not loop.is_running():
                loop.run_until_complete(client.shutdown())

    # Serialisers -------------------------------------------------------------

    def job_serializer(self, job: dict[str, Any]) -> bytes:
        """Turn a job into bytes, with what is bound here beside its arguments."""
        header = None if _RESULT in job else self._carrier.packed()
        return self._serializer(job if header is None else {**job, HEADER: header})

    def job_deserializer(self, data: bytes) -> dict[str, Any]:
        """Turn bytes into a job or a result, and keep what it carries."""
        job = self._deserializer(data)
        _arrived.set(job.get(HEADER) if isinstance(job, dict) else None)
        return job


_arrived: Final[ContextVar[Any]] = ContextVar("amplitude_arrived", default=None)


def _run_at_exit(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    def run() -> None:
        finish = method()
        if finish is not None:
            finish()

    # When atexit has its turn, no thread may be started: no name could be looked up.
    # The latest registered runs first: the threads that look names up registered their
    # own end when this module loaded theirs.
    register: Callable[[Callable[[], None]], object] = getattr(
        threading, "_register_atexit", atexit.register
    )
    register(run)


def _both(first: _Hook | None, second: _Hook | None) -> _Hook:
    async def run(ctx: _Context) -> None:
        try:
            if first is not None:
                await first(ctx)
        finally:
            if second is not None:
                await second(ctx)

    return run
