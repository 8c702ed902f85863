"""The thread that runs the event loop of all synchronous clients of a process."""

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading

# Exported by asyncio, though its name says otherwise: `get_running_loop` raises where
# no loop runs, which is the usual case here and costs ten times as much.
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.exceptions import AmplitudeError
from amplitude_async.sync.reply import Reply

__all__ = [
    "LoopEndedError",
    "LoopThread",
    "refuse_gevent",
    "refuse_on_loop",
    "running_loop",
]

logger = logging.getLogger("amplitude_async.sync")

T = TypeVar("T")

# How long a fork waits until the loop stands still, and how long it stands at most.
STANDSTILL = 1.0
LONGEST_FORK = 5.0
LAST_TURN = 0.2


class LoopEndedError(AmplitudeError):
    """Nothing is run on the loop any more: the interpreter is about to end."""

    def __init__(self) -> None:
        text = "the interpreter is ending: call this before its last functions run"
        super().__init__(text)


class LoopThread:
    """One daemon thread with an event loop on it.

    Raises:
        LoopEndedError: the interpreter starts no thread any more.
    """

    def __init__(self) -> None:
        refuse_gevent()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_OneHelper())
        self.inherited = False
        """True in a forked child: this thread is its parent's."""
        self._ending = False
        self._has_told = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._awaited: set[Reply[Any]] = set()
        self._go: threading.Event | None = None
        self._thread = threading.Thread(
            target=self._run, name="amplitude_async loop", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # Python 3.12 starts none at its end
            self.loop.close()
            raise LoopEndedError from None

    @property
    def is_here(self) -> bool:
        """True on the thread itself, as in callbacks and plugins."""
        return running_loop() is self.loop

    @property
    def has_ended(self) -> bool:
        """True once nothing is run on it any more."""
        return self.loop.is_closed()

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Call on the thread, soon; False where it has ended."""
        try:
            # In an empty context: the loop holds no request of a caller's.
            self.loop.call_soon_threadsafe(
                function, *args, context=contextvars.Context()
            )
        except RuntimeError:
            return False
        return True

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the thread and wait for its result.

        Raises:
            TimeoutError: there is none as yet; the coroutine is cancelled.
            LoopEndedError: the thread has ended.
        """
        job = _Job(work)
        if not self.post(job.begin):
            work.close()
            raise LoopEndedError
        try:
            return self.wait(job.reply, timeout)
        except BaseException:
            self.post(job.cancel)
            raise

    def wait(self, reply: Reply[T], timeout: float | None = None) -> T:
        """Wait for what was posted to be answered.

        Raises:
            TimeoutError: it is not as yet.
            LoopEndedError: the thread has ended, and nobody will answer.
        """
        self._awaited.add(reply)
        try:
            # It looks at those who wait when it has closed: one of both sees it.
            if self.has_ended:
                reply.fail(LoopEndedError())
            return reply.wait(timeout)
        finally:
            self._awaited.discard(reply)

    def ask(self, question: Callable[[], T]) -> T:
        """Call on the thread and wait for the answer; directly where we are on it."""
        return question() if self.is_here else self.run(_answer(question))

    # The thread itself -------------------------------------------------------

    def _run(self) -> None:
        while not self._ending:
            try:
                self.loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - a SystemExit of user code
                text = f"code on the loop raised {type(error).__name__}: it goes on"
                log_quietly(logger, logging.ERROR, text, error)
        for reply in list(self._awaited):
            reply.fail(LoopEndedError())
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            last = asyncio.wait(tasks, timeout=LAST_TURN)
            self.loop.run_until_complete(last)
        self.loop.close()
        # Those in time for the loop's last step, and not for its thread's.
        for reply in list(self._awaited):
            reply.fail(LoopEndedError())

    def tell_lost(self) -> None:
        """Say, once, that all was drained and the interpreter is about to end."""
        if not self._has_told:
            self._has_told = True
            text = "an event came after the exit's drain: it is lost, like all to come"
            log_quietly(logger, logging.WARNING, text)

    def stop(self) -> None:
        """End the thread; nothing is run on it any more."""
        self._ending = True
        if self.post(self.loop.stop):
            self._thread.join(2 * LAST_TURN)

    # Forks -------------------------------------------------------------------

    def stand_still(self) -> None:
        """Let the loop wait between two callbacks, where all it holds is consistent.

        A child would otherwise inherit what a callback has half done.
        """
        if self.is_here:
            return
        standing, go = threading.Event(), threading.Event()
        self._go = go

        def stand() -> None:
            standing.set()
            go.wait(LONGEST_FORK)

        # User code may hold the loop up: the fork does not wait for it for ever.
        if self.post(stand):
            standing.wait(STANDSTILL)

    def go_on(self) -> None:
        """Let the loop run again."""
        if self._go is not None:
            self._go.set()
            self._go = None

    def inherit(self) -> None:
        """Take note that this is a forked child, which does not have the thread."""
        self.inherited = True
        # Kept, and silenced: tasks that nobody will run again are no fault here.
        self._tasks = asyncio.all_tasks(self.loop)
        self.loop.set_exception_handler(_say_nothing)

    def __repr__(self) -> str:
        return f"<LoopThread {'ended' if self.loop.is_closed() else 'running'}>"


def _say_nothing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Let nothing be said of an inherited loop."""


class _Job(Generic[T]):
    """A coroutine that a thread waits for; its methods are called on the loop."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.reply: Reply[T] = Reply()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        if INTERCEPTION.active:
            INTERCEPTION.speak_for(self.reply.caller)
        self._task = asyncio.get_running_loop().create_task(self._work)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            msg = "a plugin or callback has cancelled the tasks of the loop: call again"
            return self.reply.fail(AmplitudeError(msg))
        error = task.exception()
        if error is None:
            return self.reply.give(task.result())
        return self.reply.fail(error)


async def _answer(question: Callable[[], T]) -> T:
    return question()


class _OneHelper(ThreadPoolExecutor):
    """Runs what would block the loop, name look-ups above all, on a daemon thread.

    The usual executor takes no work any more once the main thread has ended, and that
    is just when a script's events are sent.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._helper: threading.Thread | None = None

    def submit(
        self, function: Callable[..., T], /, *args: Any, **named: Any
    ) -> "Future[T]":
        """Run a function on the helper; here and now where none can be started."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **named))
                except BaseException as error:  # noqa: BLE001 - its waiter's affair
                    future.set_exception(error)

        if self._helper is None:
            helper = threading.Thread(
                target=_serve, args=(self._jobs,), name="amplitude_async helper"
            )
            helper.daemon = True
            try:
                helper.start()
            except RuntimeError:  # the interpreter is ending
                job()
                return future
            self._helper = helper
        self._jobs.put(job)
        return future


def _serve(jobs: "SimpleQueue[Callable[[], None]]") -> None:
    while True:
        jobs.get()()


def refuse_on_loop(client: str) -> None:
    """Make sure that no event loop runs on this thread.

    Raises:
        AmplitudeError: one does, and waiting would block it.
    """
    if running_loop() is not None:
        asynchronous = client.removeprefix("Sync")
        msg = (
            f"{client} was called on the thread of a running event loop, which it "
            f"would block: use {asynchronous} there, and await its verbs"
        )
        raise AmplitudeError(msg)


def refuse_gevent() -> None:
    """Make sure that threads are threads, and sockets sockets.

    Raises:
        AmplitudeError: gevent or eventlet has put its own in their place.
    """
    for library, patched in (("gevent", _GEVENT), ("eventlet", _EVENTLET)):
        if any(_has_patched(library, name) for name in patched):
            msg = (
                f"{library} has replaced Python's threads or sockets, and the event "
                "loop behind this client needs real ones: run it in threads or "
                "processes, as gunicorn's gthread worker or Celery's prefork and "
                "threads pools do"
            )
            raise AmplitudeError(msg)


def _has_patched(library: str, name: str) -> bool:
    with contextlib.suppress(Exception):
        if library == "gevent":
            return bool(sys.modules["gevent.monkey"].is_module_patched(name))
        return bool(sys.modules["eventlet.patcher"].is_monkey_patched(name))
    return False


_GEVENT: Final = ("threading", "socket", "select")
_EVENTLET: Final = ("thread", "socket", "select")
