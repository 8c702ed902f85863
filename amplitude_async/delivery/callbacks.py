"""Runs the user's callback in a task of its own: delivery never waits in user code."""

import asyncio
import contextvars
import inspect
import os
from collections import deque
from collections.abc import Callable

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.outcome import DeliveryResult, DropReason
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import (
    RESTART_INTERVAL,
    is_theirs,
    spawn,
)

__all__ = ["CallbackRunner", "inside_user_code"]

inside_user_code: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar(
    "amplitude_async_inside_user_code", default=frozenset()
)
"""Ids of the clients whose plugin, destination or callback is running here."""

# A callback that does not suspend must not keep the loop from everybody else.
_CALLS_PER_TURN = 100


class _Places:
    """How many results may wait for the callback, and whose places those are."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._reserved: dict[object, int] = {}
        self._promised = 0
        self._open = False

    def free(self, taken: int) -> int:
        """Count the places that are neither taken nor reserved."""
        return self.capacity if self._open else self.capacity - taken - self._promised

    def reserve(self, request: object, places: int) -> None:
        """Keep places for the results of a request."""
        self._reserved[request] = places
        self._promised += places

    def release(self, request: object) -> None:
        """Give up the places of a request that is over."""
        self._promised -= self._reserved.pop(request, 0)

    def open(self) -> bool:
        """Let anybody in, reserved or not; False where that is so already."""
        closed, self._open = not self._open, True
        return closed

    def close(self) -> None:
        """Count again."""
        self._open = False

    def clear(self) -> None:
        """Forget the requests of a closed loop."""
        self._reserved.clear()
        self._promised = 0


class CallbackRunner:
    """A bounded queue of results and the one task that hands them to the callback."""

    def __init__(
        self,
        callback: Callable[[DeliveryResult], object],
        *,
        capacity: int,
        clock: Clock,
        reporter: Reporter,
        client_id: int,
        on_room: Callable[[], None],
        patience: float,
    ) -> None:
        self._patience = patience
        self._callback = callback
        self._places = _Places(capacity)
        self._clock = clock
        self._reporter = reporter
        self._client_id = client_id
        self._on_room = on_room
        self._results: deque[DeliveryResult] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._retired = False

    @property
    def full(self) -> bool:
        """True while a slow callback has filled the queue."""
        return len(self._results) >= self._places.capacity

    @property
    def free(self) -> int:
        """Places that are neither taken nor reserved."""
        return max(0, self._places.free(len(self._results)))

    @property
    def ready(self) -> bool:
        """True while half of the places are free: fewer would make small requests."""
        return 2 * self.free >= self._places.capacity

    def reserve(self, request: object, places: int) -> None:
        """Keep places for the results of a request: none of them may go untold."""
        self._places.reserve(request, places)

    def release(self, request: object) -> None:
        """Give up the places of a request that is over; its results take them now."""
        self._places.release(request)

    def give_way(self) -> None:
        """Let requests start without places while the callback itself waits for them.

        Where another waits for outcomes, nothing happens. Else the callback would wait
        for requests that wait for the callback.
        """
        if id(self) in inside_user_code.get() and self._places.open():
            self._on_room()

    async def room(self) -> None:
        """Wait until a result has room, but not too long; fair.

        Not in the callback itself: it would wait for its own end.
        """
        if not self.full or self._client_id in inside_user_code.get():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        timer = self._clock.call_later(self._patience, waiter.cancel)
        try:
            await asyncio.wait({waiter})
        finally:
            timer.cancel()
            waiter.cancel()  # whoever gave up is passed over

    @property
    def busy(self) -> bool:
        """True while results wait for the callback or are with it."""
        return self._task is not None and not self._task.done()

    def put(self, result: DeliveryResult) -> None:
        """Queue a result, in any case.

        A callback that tracks is not called about what came too late: it would go on
        in a circle after the shutdown, for ever.
        """
        if result.reason is DropReason.CLOSED and id(self) in inside_user_code.get():
            return
        self._results.append(result)
        self.ensure_running()

    def put_if_room(self, result: DeliveryResult) -> bool:
        """Queue a result; False where there is no room."""
        if self.full:
            return False
        self.put(result)
        return True

    def ensure_running(self) -> None:
        """Start the task where results wait without one, as after a cancellation."""
        if self._results and not self.busy:
            # An empty context: the callback belongs to no request of the host.
            context = contextvars.Context()
            context.run(inside_user_code.set, frozenset({self._client_id, id(self)}))
            self._task = spawn(self._run(os.getpid()), "callback", context)
            self._task.add_done_callback(self._ended, context=contextvars.Context())

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._task is task and task.cancelled() and not self._retired:
            # Somebody cancelled it, and sending may wait for it. Later, not at once: a
            # loop that is closing cancels every task and must not get a new one for it.
            self._clock.call_later(RESTART_INTERVAL, self.ensure_running)

    async def _run(self, pid: int) -> None:
        calls = 0
        # A forked child has a copy of this task, and its parent hears the results.
        while self._results and not self._retired and os.getpid() == pid:
            calls += 1
            if calls % _CALLS_PER_TURN == 0:
                await asyncio.sleep(0)
            was_ready = self.ready
            result = self._results.popleft()
            self._let_in()
            if self.ready and not was_ready:
                self._on_room()
            try:
                answer = self._callback(result)
                if inspect.isawaitable(answer):
                    await answer
            except BaseException as error:  # user code, fenced
                if not is_theirs(error):
                    raise
                self._reporter.error(
                    "callback", "the callback raised %r", error, traceback=error
                )
            finally:
                self._places.close()

    def _let_in(self) -> None:
        """Let the next of those go on who wait for room."""
        while self._waiters and not self.full:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

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
        self._waiters.clear()
        self._places.clear()
