"""How tasks of ours begin and end, and how those that must not end come back."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter

__all__ = [
    "Keeper",
    "Keepers",
    "being_cancelled",
    "has_ended",
    "is_theirs",
    "is_theirs_at_once",
    "look_at",
    "pause",
    "spawn",
    "within",
]

T = TypeVar("T")

RESTART_INTERVAL = 0.1


def spawn(
    coroutine: Coroutine[Any, Any, None],
    name: str,
    context: contextvars.Context | None = None,
) -> "asyncio.Task[None]":
    """Start a task on the running loop; the caller awaits or cancels it.

    Args:
        coroutine: what it runs.
        name: what it does, as people read it in a list of tasks.
        context: an empty one by default: a trace or request of the host must not leak
            into what outlives it.
    """
    # Made directly and not by the loop: a factory that the host set for its own tasks,
    # as the eager one, would run ours inside of the verb that starts them.
    return asyncio.Task(
        coroutine,
        loop=asyncio.get_running_loop(),
        name=f"amplitude_async {name}",
        context=contextvars.Context() if context is None else context,
    )


async def within(seconds: float, clock: Clock, work: Awaitable[T]) -> T:
    """Await what is somebody else's, at most so long.

    In a task of its own, which is left alone where it does not end although it is
    cancelled.

    Raises:
        TimeoutError: it takes longer.
    """
    loop, empty = asyncio.get_running_loop(), contextvars.Context()
    task = asyncio.Task(_result_of(work), loop=loop, context=empty)
    # From the start: it may fail in the very turn in which we are cancelled.
    task.add_done_callback(look_at, context=contextvars.Context())
    try:
        await has_ended(task, seconds, clock)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        msg = f"no answer within {seconds:g} s"
        raise TimeoutError(msg)
    return task.result()


async def has_ended(task: "asyncio.Task[Any]", seconds: float, clock: Clock) -> bool:
    """Wait for the end of a task, at most so long; who gives up does it no harm."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    timer = clock.call_later(seconds, end)
    task.add_done_callback(end, context=contextvars.Context())
    try:
        await over
    finally:
        timer.cancel()
        task.remove_done_callback(end)
    return task.done()


async def pause(
    seconds: float,
    clock: Clock,
    *,
    events: Iterable[asyncio.Event] = (),
    tasks: Iterable["asyncio.Task[None]"] = (),
) -> None:
    """Let time pass, at most until one of some events is set or a task has ended."""
    over = asyncio.Event()
    timer = clock.call_later(seconds, over.set)
    waits = [asyncio.ensure_future(one.wait()) for one in (over, *events)]
    try:
        await asyncio.wait([*waits, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        for wait in waits:
            wait.cancel()


async def _result_of(work: Awaitable[T]) -> T:
    return await work


def look_at(task: "asyncio.Task[Any]") -> None:
    """See what became of a task that nobody waits for: it leaves no line in the log."""
    if not task.cancelled():
        task.exception()


def being_cancelled() -> bool:
    """Say whether somebody is cancelling the running task.

    Only then is a CancelledError out of user code a cancellation. Otherwise it is an
    error of theirs, as of a task of their own that they awaited.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_theirs(error: BaseException) -> bool:
    """Say whether what user code raised is an error of its own, of whatever class.

    It is not where the interpreter or the coroutine ends, or where somebody cancels the
    running task.
    """
    if isinstance(error, asyncio.CancelledError):
        return not being_cancelled()
    return not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def is_theirs_at_once(error: BaseException) -> bool:
    """Say the same where nothing is awaited: no cancellation is meant for us there."""
    return isinstance(error, asyncio.CancelledError) or is_theirs(error)


class Keeper:
    """Keeps one task running until it is stopped: through faults and cancellations.

    Args:
        kind: what the task does, in a word.
        destination: for whom; both are in the task's name.
        run: what it runs; a new one is called after each end.
        backoff: seconds to wait after so many faults of ours.
    """

    def __init__(
        self,
        kind: str,
        destination: str,
        run: Callable[[], Coroutine[Any, Any, None]],
        *,
        clock: Clock,
        reporter: Reporter,
        backoff: Callable[[int], float],
    ) -> None:
        self._kind = kind
        self._destination = destination
        self._run = run
        self._clock = clock
        self._reporter = reporter
        self._backoff = backoff
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def running(self) -> bool:
        """True while there is a task."""
        return self._task is not None

    def ensure_running(self) -> None:
        """Start the task where it does not run."""
        if self._task is None and not self._stopped:
            self._task = spawn(self._supervise(), f"{self._destination} {self._kind}")
            self._task.add_done_callback(self._ended, context=contextvars.Context())

    async def _supervise(self) -> None:
        """Run; after a fault of ours, log once and go on."""
        crashes = 0
        while True:
            try:
                await self._run()
            except (Exception, asyncio.CancelledError) as error:
                if being_cancelled():
                    raise
                crashes += 1
                self._reporter.error(
                    "engine",
                    "the %s task failed; restarting",
                    self._kind,
                    traceback=error,
                )
                await pause(self._backoff(crashes), self._clock)
            else:
                return

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._task is task:
            self._task = None
            if not self._stopped:
                # Cancelled from outside. Later, not at once: a loop that is closing
                # cancels every task and must not get a new one for it.
                self._clock.call_later(RESTART_INTERVAL, self.ensure_running)

    def halt(self) -> "asyncio.Task[None] | None":
        """Cancel the task for good, unless it is the one that asks; returns it."""
        self._stopped = True
        task = self._task
        if task is None or task is asyncio.current_task():
            return None
        task.cancel()
        return task

    async def stop(self, timeout: float) -> None:
        """End the task for good, unless it is the one that asks."""
        task = self.halt()
        if task is not None:
            await asyncio.wait({task}, timeout=timeout)

    def retire(self) -> None:
        """Bring no task back: this one is another process's."""
        self._stopped = True

    def rebind(self) -> None:
        """Forget the task of a closed loop."""
        self._task = None

    def __repr__(self) -> str:
        return f"<Keeper {self._kind} {'running' if self.running else 'at rest'}>"


class Keepers:
    """The tasks of one engine that must not end: they begin and end together.

    Args:
        destination: whose engine it is.
        clock: says when a task comes back.
        reporter: is told of faults of ours.
        backoff: seconds to wait after so many of them.
    """

    def __init__(
        self,
        destination: str,
        *,
        clock: Clock,
        reporter: Reporter,
        backoff: Callable[[int], float],
    ) -> None:
        self._destination = destination
        self._clock = clock
        self._reporter = reporter
        self._backoff = backoff
        self._keepers: list[Keeper] = []

    def add(self, kind: str, run: Callable[[], Coroutine[Any, Any, None]]) -> Keeper:
        """Keep one more; it is not started yet."""
        keeper = Keeper(
            kind,
            self._destination,
            run,
            clock=self._clock,
            reporter=self._reporter,
            backoff=self._backoff,
        )
        self._keepers.append(keeper)
        return keeper

    def ensure_running(self) -> None:
        """Start those that do not run."""
        for keeper in self._keepers:
            keeper.ensure_running()

    async def stop(self, timeout: float) -> None:
        """End all for good, but for the one that asks."""
        ending = {task for keeper in self._keepers if (task := keeper.halt())}
        if ending:
            await asyncio.wait(ending, timeout=timeout)

    def retire(self) -> None:
        """Bring none back: they are another process's."""
        for keeper in self._keepers:
            keeper.retire()

    def rebind(self) -> None:
        """Forget the tasks of a closed loop."""
        for keeper in self._keepers:
            keeper.rebind()

    def __repr__(self) -> str:
        return f"<Keepers {len(self._keepers)}>"
