"""Those that cannot be let in at once: for want of room, or because of plugins."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from amplitude_async.client.life import Unset
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.delivery.tasks import being_cancelled, spawn
from amplitude_async.exceptions import QueueFullError
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.loop import logger
from amplitude_async.sync.seat import Seat

__all__ = ["IN_ONE_GO", "Line"]

IN_ONE_GO: Final = 100
LAST_MOMENT: Final = 0.1


class Line:
    """Those that cannot be let in at once: for want of room, or because of plugins."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        # One for each who has events in it: nobody waits behind another's.
        self._lanes: dict[object, deque[SyncDelivery]] = {}
        self._tasks: dict[asyncio.Task[None], SyncDelivery | None] = {}
        self._waiting = 0
        self._ended = False
        self.accepted = 0
        """Of those whose verbs have returned."""

    def let_in(self, handle: SyncDelivery) -> None:
        """Let an event in, now or as soon as that is possible; never raises."""
        if handle.withdrawn:
            return None
        key = self._seat.lane_of(handle.cargo)
        if key is not None:
            return self._into_lane(handle, key)
        delivery = None if self.is_waited_in else self._offer(handle)
        if delivery is not None:
            return handle.arrive(delivery)
        # They wait in the client's own line, which is first come first served.
        self._waiting += 1
        self._enter(handle)
        return self._spawn(self._accept(handle), handle)

    @property
    def is_waited_in(self) -> bool:
        """True where whoever comes has to wait behind others."""
        return self._waiting > 0

    def _offer(self, handle: SyncDelivery) -> Delivery | None:
        if INTERCEPTION.active:
            INTERCEPTION.speak_for(handle.caller)
        try:
            return self._seat.offer(handle.cargo)
        except Exception:  # noqa: BLE001 - told by the wait, where it comes up again
            return None

    def _enter(self, handle: SyncDelivery) -> None:
        self.accepted += not handle.has_caller

    def _leave(self, handle: SyncDelivery) -> None:
        self.accepted -= not handle.has_caller

    def _spawn(
        self, work: Coroutine[Any, Any, None], handle: SyncDelivery | None
    ) -> None:
        task = spawn(work, "hatch")
        self._tasks[task] = handle
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        # Not the task's own affair: one that is cancelled at once never begins.
        self._waiting -= self._tasks.pop(task) is not None

    def _into_lane(self, handle: SyncDelivery, key: object) -> None:
        lane = self._lanes.get(key)
        self._enter(handle)
        if lane is not None:
            lane.append(handle)
            return
        self._lanes[key] = lane = deque([handle])
        self._spawn(self._follow(key, lane), None)

    async def _follow(self, key: object, lane: deque[SyncDelivery]) -> None:
        """Let the events of a lane in, one after another: their order stays."""
        while lane:
            for _ in range(IN_ONE_GO):
                if not lane[0].withdrawn:
                    await self._accept(lane[0])
                else:
                    self._leave(lane[0])
                lane.popleft()
                if not lane:
                    del self._lanes[key]
                    return
            await asyncio.sleep(0)

    async def _accept(self, handle: SyncDelivery) -> None:
        try:
            delivery = await self._accepted(handle)
        finally:
            # Not before: until it is in the client's account, it is in this one.
            self._leave(handle)
        if delivery is not None:
            handle.arrive(delivery)

    async def _accepted(self, handle: SyncDelivery) -> Delivery | None:
        if INTERCEPTION.active:
            INTERCEPTION.speak_for(handle.caller)
        try:
            return await self._seat.accept(handle.cargo)
        except BaseException as error:
            task = asyncio.current_task()
            if self._ended and task is not None and task.cancelling():
                task.uncancel()
                return await self._seat.give_up(handle.cargo, _SHUT_DOWN)
            if being_cancelled():
                raise
            if handle.has_caller:
                handle.fail(error)
                return None
            outcome = _outcome_of(error)
            return await self._seat.give_up(handle.cargo, outcome)

    async def end(self) -> None:
        """Give up those whom a plugin keeps although the client was shut down."""
        self._ended = True
        # What is not stuck there finds the client closed, and is through in a moment.
        stuck = list(self._tasks)
        if stuck:
            await asyncio.wait(stuck, timeout=LAST_MOMENT)
            # None that came meanwhile: it has not begun, and would end without a word.
            for task in stuck:
                task.cancel()
            await asyncio.wait(stuck, timeout=LAST_MOMENT)

    def withdraw(self, handle: SyncDelivery) -> None:
        """Accept an event no more whose caller was interrupted."""
        for task, its in list(self._tasks.items()):
            if its is handle:
                task.cancel()

    async def passed(
        self, timeout: float | Unset | None, default: float | None
    ) -> float | Unset | None:
        """Wait for those in line; returns what is left of the time.

        Half of it belongs to those who are in the client already.
        """
        if not self._tasks:
            return timeout
        limit = default if isinstance(timeout, Unset) else timeout
        clock = asyncio.get_running_loop().time
        began = clock()
        half = None if limit is None else limit / 2
        await asyncio.wait(list(self._tasks), timeout=half)
        return None if limit is None else max(0.0, limit - (clock() - began))


_SHUT_DOWN: Final = Outcome.dropped(
    DropReason.SHUTDOWN, "a plugin still had the event when the client was shut down"
)


def _outcome_of(error: BaseException) -> Outcome:
    """Say what becomes of an event that could not be let in after its verb returned."""
    if isinstance(error, QueueFullError):
        return Outcome.dropped(DropReason.OVERFLOW, str(error))
    text = f"handing the event over raised {type(error).__name__}"
    log_quietly(logger, logging.ERROR, text, error)
    return Outcome.dropped(DropReason.INTERNAL, text)
