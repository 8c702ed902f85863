"""The one thread of an open spool: it does, in order, what would block the loop."""

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["SpoolThread", "answer"]

logger = logging.getLogger("amplitude_async.storage")

T = TypeVar("T")

Job = Callable[[], object]


class SpoolThread:
    """Runs jobs one after another, in the order in which they were given.

    The thread is a daemon: a process that forgets to close its spool still ends, and
    what was written stays written.
    """

    def __init__(self) -> None:
        # Its `put` is reentrant: a finalizer may post in the middle of another post.
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._at_work = threading.Lock()
        self._thread = threading.Thread(
            # No method: a thread that knew `self` would keep a forgotten spool alive.
            target=_serve,
            args=(self._jobs, self._at_work),
            name="amplitude_async spool",
            daemon=True,
        )
        self._thread.start()
        _AT_FORK.add(self._at_work)

    def __del__(self) -> None:
        self.stop()  # a spool that nobody holds any more

    def post(self, job: Job) -> None:
        """Queue a job that tells its result by itself and does not raise."""
        self._jobs.put(job)

    def run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Queue a call; await the future for its result.

        Who cancels the future does not stop the call.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                reply = partial(_succeed, future, function(*args))
            except BaseException as error:  # noqa: BLE001 - handed to the one who waits
                reply = partial(_fail, future, error)
            answer(loop, reply)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread after the jobs that it has."""
        self._jobs.put(None)


def answer(loop: asyncio.AbstractEventLoop, reply: Callable[[], object]) -> None:
    """Call on the loop's thread, unless the loop was closed meanwhile."""
    # There is nobody left to tell then; what was written stays written.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(reply)


def _serve(jobs: "SimpleQueue[Job | None]", at_work: threading.Lock) -> None:
    while (job := jobs.get()) is not None:
        with at_work:
            try:
                job()
            except Exception:  # pragma: no cover - our own fault, never silent
                logger.exception("a job of the spool failed")
        del job  # or it would keep alive what it belongs to until the next one


def _succeed(future: "asyncio.Future[T]", result: T) -> None:
    # Done already where its waiter was cancelled.
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class _StandStill:
    """Lets no fork happen while SQLite holds locks that a child would never see freed.

    One for the module, since a hook of the interpreter cannot be taken back.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._at_work: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
        self._held: list[threading.Lock] = []

    def add(self, at_work: threading.Lock) -> None:
        """Wait for this lock before each fork, as long as somebody else holds it."""
        with self._gate:
            self._at_work.add(at_work)

    def begin(self) -> None:
        """Wait until nobody is at work; nobody begins from then on."""
        self._gate.acquire()
        self._held = list(self._at_work)
        for at_work in self._held:
            at_work.acquire()

    def end(self) -> None:
        """Let work go on."""
        held, self._held = self._held, []
        for at_work in held:
            at_work.release()
        self._gate.release()


_AT_FORK: Final = _StandStill()

os.register_at_fork(
    before=_AT_FORK.begin,
    after_in_parent=_AT_FORK.end,
    after_in_child=_AT_FORK.end,
)
