"""Runs the user's callback in a task of its own: delivery never waits in user code."""

import asyncio
import contextvars
import inspect
import os
from collections import deque
from collections.abc import Callable

from amplitude_async.delivery.outcome import DeliveryResult, DropReason
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import being_cancelled, spawn

__all__ = ["CallbackRunner", "inside_user_code"]

inside_user_code: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar(
    "amplitude_async_inside_user_code", default=frozenset()
)
"""Ids of the clients whose plugin, destination or callback is running here."""

# A callback that does not suspend must not keep the loop from everybody else.
_CALLS_PER_TURN = 100


class CallbackRunner:
    """A bounded queue of results and the one task that hands them to the callback."""

    def __init__(
        self,
        callback: Callable[[DeliveryResult], object],
        *,
        capacity: int,
        reporter: Reporter,
        client_id: int,
        on_room: Callable[[], None],
    ) -> None:
        self._callback = callback
        self._capacity = capacity
        self._reporter = reporter
        self._client_id = client_id
        self._on_room = on_room
        self._results: deque[DeliveryResult] = deque()
        self._task: asyncio.Task[None] | None = None
        self._retired = False

    @property
    def full(self) -> bool:
        """True while a slow callback has filled the queue: sending pauses."""
        return len(self._results) >= self._capacity

    @property
    def busy(self) -> bool:
        """True while results wait for the callback or are with it."""
        return self._task is not None and not self._task.done()

    def put(self, result: DeliveryResult) -> bool:
        """Queue a result; False where there is no room.

        A callback that tracks is not called about what came too late: it would go on
        in a circle after the shutdown, for ever.
        """
        if result.reason is DropReason.CLOSED and id(self) in inside_user_code.get():
            return True
        if self.full:
            return False
        self._results.append(result)
        self.ensure_running()
        return True

    def ensure_running(self) -> None:
        """Start the task where results wait without one, as after a cancellation."""
        if self._results and not self.busy:
            # An empty context: the callback belongs to no request of the host.
            context = contextvars.Context()
            context.run(inside_user_code.set, frozenset({self._client_id, id(self)}))
            self._task = spawn(self._run(os.getpid()), "callback", context)

    async def _run(self, pid: int) -> None:
        calls = 0
        # A forked child has a copy of this task, and its parent hears the results.
        while self._results and not self._retired and os.getpid() == pid:
            calls += 1
            if calls % _CALLS_PER_TURN == 0:
                await asyncio.sleep(0)
            was_full = self.full
            result = self._results.popleft()
            if was_full:
                self._on_room()
            try:
                answer = self._callback(result)
                if inspect.isawaitable(answer):
                    await answer
            except (Exception, asyncio.CancelledError) as error:  # user code, fenced
                if being_cancelled():
                    raise
                self._reporter.error(
                    "callback", "the callback raised %r", error, traceback=error
                )

    async def drain(self, timeout: float | None) -> bool:
        """Wait until every result was handed over; False at the deadline."""
        try:
            async with asyncio.timeout(timeout):
                while self.busy or self._results:
                    # A host may have cancelled the task before it was through.
                    self.ensure_running()
                    task = self._task
                    if task is None or task is asyncio.current_task():
                        return not self._results
                    await asyncio.wait({task})
        except TimeoutError:
            return not self.busy and not self._results
        return True

    async def stop(self) -> int:
        """Cancel the task; returns how many results it did not hand over."""
        task, left = self._task, len(self._results)
        if task is not None and task is not asyncio.current_task() and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
            left = len(self._results) + 1
            self._results.clear()
        return left

    def retire(self) -> None:
        """Call nobody any more: the results are those of another process."""
        self._retired = True

    def rebind(self) -> None:
        """Forget the task of a closed loop; waiting results go on with the next one."""
        self._task = None
