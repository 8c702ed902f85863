"""One client for each process of a Celery worker, and a scope for each of its tasks.

``amplitude = AmplitudeTasks(carry=True)`` beside the application is all; a task calls
``amplitude.client.track(...)``. Celery's tasks are synchronous, so the client is a
`SyncAmplitude`: the pools ``prefork``, ``threads`` and ``solo`` work.
"""

from collections.abc import Collection, Mapping
from threading import RLock
from typing import Any, Final, Unpack

from celery import Task, signals  # type: ignore[import-untyped]
from celery.concurrency import prefork  # type: ignore[import-untyped]

from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.integrations.carrier import HEADER, Carrier
from amplitude_async.integrations.jobs import JobScope
from amplitude_async.sync import SyncAmplitude

__all__ = ["AmplitudeTasks"]

_SCOPE: Final = "amplitude_scope"


class AmplitudeTasks:
    """Gives each process of a worker one client, and each task a scope of its own.

    The client starts in each process that runs tasks, and is drained when that process
    ends. Celery's signals are of the whole process, so make one of these in it.

    Args:
        client: one that the application shuts down itself; by default
            ``SyncAmplitude.from_env(**options)``, when a worker starts or it is used.
        carry: what travels with a task from where it is sent: True for all of
            ``carrier.CARRIED``, or the names of some. Both sides have to say so.
        flush_each: send the events of a task before it counts as done, within
            ``flush_timeout``.
        options: fields of ``Config``.
    """

    def __init__(
        self,
        client: SyncAmplitude | None = None,
        *,
        carry: bool | Collection[str] = False,
        flush_each: bool = False,
        **options: Unpack[ConfigFields],
    ) -> None:
        self._given = client
        self._options = options
        self._carrier = Carrier(carry)
        self._flush_each = flush_each
        self._client: SyncAmplitude | None = None
        # Reentrant: the handler of a signal may track in between.
        self._lock = RLock()
        self._receivers = (
            (signals.worker_process_init, self._start),
            (signals.worker_ready, self._start_beside_the_pool),
            (signals.worker_process_shutdown, self._stop),
            (signals.worker_shutdown, self._stop),
            (signals.before_task_publish, self._write_carrier),
            (signals.task_prerun, self._open_scope),
            (signals.task_postrun, self._end_scope),
        )
        for signal, receiver in self._receivers:
            signal.connect(receiver, weak=False)

    @property
    def client(self) -> SyncAmplitude:
        """The client of this process."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._client is None:
                self._client = SyncAmplitude.from_env(**self._options)
            return self._client

    def disconnect(self) -> None:
        """Leave Celery's signals: for tests, which make more than one."""
        for signal, receiver in self._receivers:
            signal.disconnect(receiver)

    # Receivers of signals -----------------------------------------------------

    def _start(self, **_: Any) -> None:
        self.client.start()

    def _start_beside_the_pool(self, sender: Any, **_: Any) -> None:
        # The parent of a prefork pool runs no task.
        if not isinstance(getattr(sender, "pool", None), prefork.TaskPool):
            self.client.start()

    def _stop(self, **_: Any) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.shutdown()

    def _write_carrier(self, headers: dict[str, Any], **_: Any) -> None:
        header = self._carrier.packed()
        if header is not None:
            headers[HEADER] = header

    def _open_scope(self, task: Task, **_: Any) -> None:
        request = task.request
        header = _header_of(request)
        if header is None and request.is_eager:
            # Run where it was sent: no message was written.
            header = self._carrier.packed()
        request.__dict__[_SCOPE] = scope = JobScope(self._carrier.unpacked(header))
        scope.__enter__()

    def _end_scope(self, task: Task, **_: Any) -> None:
        scope: JobScope | None = task.request.__dict__.pop(_SCOPE, None)
        client = self._given or self._client
        try:
            if self._flush_each and client is not None:
                client.flush()
        finally:
            if scope is not None:
                scope.__exit__()


def _header_of(request: Any) -> object:
    """Find a carrier where the versions of Celery's protocol put a header."""
    header: object = request.get(HEADER)
    if header is None and isinstance(request.headers, Mapping):
        header = request.headers.get(HEADER)
    return header
