"""Appends under way: how long they may take, and who waits for the last of them."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from amplitude_async.delivery.clock import Clock, Timer
from amplitude_async.delivery.tasks import spawn

__all__ = ["Appends", "in_background"]

# Every write takes a moment, also for those who would wait for nothing.
LEAST_PATIENCE = 0.1


# When nobody waits for an append any more, and what is waited for: a plain tuple, since
# making one with names costs as much as the rest of noting it.
_Append: TypeAlias = "tuple[float, asyncio.Future[None]]"


class Appends:
    """The appends that verbs wait for, in the order in which they began.

    One timer watches over all of them: one for each would cost more than a write.

    Args:
        clock: says how long they take.
        patience: seconds that each may take.
        late: hears of a record that was written although its append was cancelled.
    """

    def __init__(
        self, clock: Clock, patience: float, late: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._late = late
        self.patience = max(patience, LEAST_PATIENCE)
        """Seconds that an append may take."""
        self._under_way: dict[int, _Append] = {}
        self._given_up: set[int] = set()
        self._timer: Timer | None = None
        self._ended: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def first(self) -> int:
        """The id of the first that is being written; ask only where there is one."""
        return next(iter(self._under_way))

    @property
    def ids(self) -> list[int]:
        """The ids of all that are being written, in order."""
        return list(self._under_way)

    def begin(
        self, record_id: int, appending: Awaitable[None]
    ) -> "asyncio.Future[None]":
        """Note an append; the future to await is cancelled when it has taken too long.

        Call ``end`` whatever became of it.
        """
        written = (
            appending
            if isinstance(appending, asyncio.Future)
            and not isinstance(appending, asyncio.Task)
            else self._future_of(record_id, appending)
        )
        due = self._clock.now() + self.patience
        self._under_way[record_id] = due, written
        if self._timer is None:
            self._timer = self._clock.call_later(self.patience, self._look)
        return written

    def _future_of(
        self, record_id: int, appending: Awaitable[None]
    ) -> "asyncio.Future[None]":
        """Make a future that ends at once when it is cancelled.

        A coroutine of somebody's may take its time over that, or refuse.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = in_background(appending)

        def pass_on(task: "asyncio.Future[None]") -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if not written.done():
                _end(written, error)
            elif error is None:
                self._late(record_id)

        def pass_back(_: object) -> None:
            if written.cancelled():
                task.cancel()

        task.add_done_callback(pass_on, context=contextvars.Context())
        written.add_done_callback(pass_back, context=contextvars.Context())
        return written

    def _look(self) -> None:
        """Give up those that have taken too long, and look again at the next."""
        self._timer = None
        now = self._clock.now()
        for record_id, (due, written) in self._under_way.items():
            if due > now:
                self._timer = self._clock.call_later(due - now, self._look)
                return
            if written.cancel():
                self._given_up.add(record_id)

    def gave_up(self, record_id: int) -> bool:
        """Say once whether an append was cancelled because it took too long."""
        found = record_id in self._given_up
        self._given_up.discard(record_id)
        return found

    def end(self, record_id: int) -> None:
        """Note that nobody waits for an append any more."""
        self._under_way.pop(record_id, None)
        if self._ended is not None and not self._under_way:
            self._ended.set()

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        if self._under_way:
            self._ended = asyncio.Event()
            await self._ended.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def rebind(self) -> None:
        """Forget what was being written on a closed loop."""
        self._under_way.clear()
        self._given_up.clear()
        self._timer = self._ended = None

    def __repr__(self) -> str:
        return f"<Appends {len(self)} under way>"


def in_background(appending: Awaitable[None]) -> "asyncio.Future[None]":
    """Let an append run by itself; in no context of the caller's."""
    if isinstance(appending, asyncio.Future):
        return appending
    return spawn(_await(appending), "append")


async def _await(appending: Awaitable[None]) -> None:
    await appending


def _end(written: "asyncio.Future[None]", error: BaseException | None) -> None:
    if error is None:
        written.set_result(None)
    elif isinstance(error, asyncio.CancelledError):
        written.cancel()
    else:
        written.set_exception(error)
