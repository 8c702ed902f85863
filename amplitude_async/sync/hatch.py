"""Where events pass from any thread to the loop: a deque, and few wake-ups.

An event is encoded where it is tracked, so that nothing of the caller's is read later,
and put into the deque. The first after a quiet moment wakes the loop, which then looks
by itself every few milliseconds, as long as there is something. A caller waits only
where an answer is owed: no room (the overflow policy decides), a durable storage, or
``strict``.
"""

import asyncio
import logging
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, Protocol

from amplitude_async.client.life import UNSET, Unset
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryResult, DropReason, Outcome
from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import being_cancelled, spawn
from amplitude_async.exceptions import QueueFullError
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.loop import LoopThread, logger, refuse_on_loop
from amplitude_async.sync.process import PROCESS

__all__ = ["Hatch", "Seat"]

IN_ONE_GO: Final = 100
LOOK_INTERVAL: Final = 0.01
LANES: Final = 16


class Seat(Protocol):
    """The asyncio client that sits behind a hatch."""

    @property
    def stats(self) -> Stats:
        """The client's account."""

    @property
    def owes_answers(self) -> bool:
        """True where each caller waits until its event is accepted."""

    @property
    def places(self) -> tuple[int, int]:
        """Most undecided events, and most bytes of them."""

    @property
    def patience(self) -> float | None:
        """Seconds that a shutdown takes at most; None: no limit."""

    def has_room(self, events: int, size: int) -> bool:
        """Say whether so many events would find places now; from any thread."""

    def lane_of(self, cargo: Any) -> object:
        """What must keep its order where plugins take their time; None: nothing."""

    def offer(self, cargo: Any) -> Delivery | None:
        """Accept without suspending; None where that needs a wait."""

    async def accept(self, cargo: Any) -> Delivery:
        """Accept, waiting for room, plugins or storage."""

    async def give_up(self, cargo: Any, outcome: Outcome) -> Delivery:
        """Settle an event at once."""

    def result_of(self, cargo: Any, insert_id: str, outcome: Outcome) -> DeliveryResult:
        """Make the result of an event that this process does not have."""

    async def ready(self) -> None:
        """Start where nobody did."""

    async def flush(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Send now and wait."""

    async def purge(self, user_id: str | None = None) -> int:
        """Give up what waits."""

    async def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Drain and end."""


class Hatch:
    """One client's way in, in one process.

    Args:
        seat: the asyncio client on the other side.
        thread: runs it.
        client: the name of the class that callers use.
    """

    def __init__(self, seat: Seat, thread: LoopThread, client: str) -> None:
        self.thread = thread
        self.client = client
        self.started = False
        """True once the client behind it is."""
        self._closed = False
        self._owes_answers = True
        self._seat = seat
        self._inbox: deque[SyncDelivery] = deque()
        self._looking = False
        self._next: asyncio.Handle | None = None
        self._let_in_so_far = 0
        # Those in the inbox whose verbs have not returned.
        self._asking: set[SyncDelivery] = set()
        events, size = seat.places
        # Small ones need no count of bytes: all that fit by number fit by size.
        self._small = max(1, size // events)
        self._line = _Line(seat)

    @property
    def inherited(self) -> bool:
        """True in a forked child: what passed here is its parent's."""
        return self.thread.inherited

    # On the caller's thread --------------------------------------------------

    def hand_over(self, cargo: Any, insert_id: str, size: int) -> SyncDelivery:
        """Pass an event to the loop.

        Raises:
            QueueFullError: no room, and the policy is RAISE.
        """
        handle = SyncDelivery(self, cargo, insert_id)
        ahead = len(self._inbox) + 1
        if (
            size > self._small
            or self._owes_answers
            or not self._seat.has_room(ahead, ahead * self._small)
        ):
            return self._ask(handle)
        self._inbox.append(handle)
        if not self._looking:
            self._looking = True
            self._wake()
        return handle

    def _wake(self) -> None:
        if not self.thread.post(self._look):
            # The interpreter has drained all clients and is about to end.
            text = "an event came after the exit's drain: it is lost"
            log_quietly(logger, logging.WARNING, text)

    def _ask(self, handle: SyncDelivery) -> SyncDelivery:
        """Wait until an event is accepted: the caller alone, as an await would."""
        handle.reply = Future()
        self._asking.add(handle)
        self._inbox.append(handle)
        try:
            if self.thread.post(self._look):
                handle.reply.result()
        except BaseException:
            handle.withdrawn = True
            self.thread.post(self._line.withdraw, handle)
            raise
        return handle

    # On the loop's thread ----------------------------------------------------

    def _look(self) -> None:
        """Let in what waits, in portions; then look again in a moment."""
        self._looking = True
        if self._next is not None:
            self._next.cancel()  # a caller who asks comes in between
        loop = asyncio.get_running_loop()
        if self._let_in_some():
            self._next = loop.call_soon(self._look)
        else:
            self._next = loop.call_later(LOOK_INTERVAL, self._look_again)

    def _look_again(self) -> None:
        if not self._inbox:
            # In this order: who puts something in now is seen here, or wakes us.
            self._looking, self._next = False, None
        if self._inbox:
            self._look()

    def _let_in_some(self) -> bool:
        """Let in a portion; True where there is more."""
        inbox = self._inbox
        for _ in range(IN_ONE_GO):
            try:
                handle = inbox.popleft()
            except IndexError:
                return False
            self._let_in_so_far += 1
            if handle.reply is not None:
                self._asking.discard(handle)
            self._line.let_in(handle)
        return bool(inbox)

    async def let_in_now(self) -> None:
        """Let in all that was handed over so far."""
        last = self._let_in_so_far + len(self._inbox)
        while self._let_in_so_far < last and self._let_in_some():
            await asyncio.sleep(0)

    @property
    def left(self) -> int:
        """Events that nobody has decided, as far as one can tell from outside."""
        return len(self._inbox) + self._line.accepted + self._seat.stats.pending

    @property
    def patience(self) -> float | None:
        """Seconds that a shutdown takes at most; None: no limit."""
        return self._seat.patience

    @property
    def stats(self) -> Stats:
        """The client's account, with what has been handed over and waits here."""
        here = max(0, len(self._inbox) - len(self._asking)) + self._line.accepted
        stats = self._seat.stats
        return replace(
            stats, accepted=stats.accepted + here, pending=stats.pending + here
        )

    def result_of(self, cargo: Any, insert_id: str, outcome: Outcome) -> DeliveryResult:
        """Make the result of an event that this process does not have."""
        return self._seat.result_of(cargo, insert_id, outcome)

    async def flush(
        self, timeout: float | Unset | None, default: float | None
    ) -> Stats:
        """Let everything in, then flush the client."""
        await self.let_in_now()
        await self._seat.flush(await self._line.passed(timeout, default))
        return self.stats

    async def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Let everything in, then shut the client down."""
        await self.let_in_now()
        left = await self._line.passed(timeout, self._seat.patience)
        await self._seat.shutdown(left)
        self._closed = True
        PROCESS.dismiss(self)
        return self.stats

    async def purge(self, user_id: str | None) -> int:
        """Let everything in, then give up what waits."""
        await self.let_in_now()
        return await self._seat.purge(user_id)

    # Life --------------------------------------------------------------------

    def start(self) -> None:
        """Start the client where nobody did.

        Raises:
            Exception: whatever the setup of a plugin raised.
        """
        if not self.started:
            refuse_on_loop(self.client)
            self.thread.run(self._seat.ready())
            self._owes_answers = self._seat.owes_answers
            self.started = True

    @property
    def is_open(self) -> bool:
        """True where it has begun, and nobody has shut it down."""
        return self.started and not self.inherited and not self._closed

    def abandon(self) -> None:
        """Shut the client down in the background: nobody holds it any more."""
        if not self._closed:
            self.thread.post(self._shut_down_soon)

    def _shut_down_soon(self) -> None:
        spawn(self._shut_down(), "hatch")

    async def _shut_down(self) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        return f"<Hatch of {self.client}, {len(self._inbox)} handed over>"


class _Line:
    """Those that cannot be let in at once: for want of room, or because of plugins."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._lanes: list[deque[SyncDelivery]] = [deque() for _ in range(LANES)]
        self._tasks: dict[asyncio.Task[None], SyncDelivery | None] = {}
        self._waiting = 0
        self.accepted = 0
        """Of those whose verbs have returned."""

    def let_in(self, handle: SyncDelivery) -> None:
        """Let an event in, now or as soon as that is possible; never raises."""
        if handle.withdrawn:
            return None
        key = self._seat.lane_of(handle.cargo)
        if key is not None:
            return self._into_lane(handle, self._lanes[hash(key) % LANES])
        delivery = None if self._waiting else self._offer(handle)
        if delivery is not None:
            return handle.arrive(delivery)
        # They wait in the client's own line, which is first come first served.
        self._waiting += 1
        self._enter(handle)
        return self._spawn(self._wait(handle), handle)

    def _offer(self, handle: SyncDelivery) -> Delivery | None:
        try:
            return self._seat.offer(handle.cargo)
        except Exception:  # noqa: BLE001 - told by the wait, where it comes up again
            return None

    def _enter(self, handle: SyncDelivery) -> None:
        self.accepted += handle.reply is None

    def _leave(self, handle: SyncDelivery) -> None:
        self.accepted -= handle.reply is None

    def _spawn(self, work: Any, handle: SyncDelivery | None) -> None:
        task = spawn(work, "hatch")
        self._tasks[task] = handle
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    async def _wait(self, handle: SyncDelivery) -> None:
        try:
            await self._accept(handle)
        finally:
            self._waiting -= 1

    def _into_lane(self, handle: SyncDelivery, lane: deque[SyncDelivery]) -> None:
        lane.append(handle)
        self._enter(handle)
        if len(lane) == 1:
            self._spawn(self._follow(lane), None)

    async def _follow(self, lane: deque[SyncDelivery]) -> None:
        """Let the events of a lane in, one after another: their order stays."""
        while lane:
            for _ in range(IN_ONE_GO):
                if not lane[0].withdrawn:
                    await self._accept(lane[0])
                else:
                    self._leave(lane[0])
                lane.popleft()
                if not lane:
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
        try:
            return await self._seat.accept(handle.cargo)
        except BaseException as error:
            if being_cancelled():
                raise
            if handle.reply is None:
                outcome = _outcome_of(error)
                return await self._seat.give_up(handle.cargo, outcome)
            if not handle.reply.done():
                handle.reply.set_exception(error)
            return None

    def withdraw(self, handle: SyncDelivery) -> None:
        """Accept an event no more whose caller was interrupted."""
        for task, its in list(self._tasks.items()):
            if its is handle:
                task.cancel()

    async def passed(
        self, timeout: float | Unset | None, default: float | None
    ) -> float | Unset | None:
        """Wait for those in line; returns what is left of the time."""
        if not self._tasks:
            return timeout
        limit = default if isinstance(timeout, Unset) else timeout
        clock = asyncio.get_running_loop().time
        began = clock()
        await asyncio.wait(list(self._tasks), timeout=limit)
        return None if limit is None else max(0.0, limit - (clock() - began))


def _outcome_of(error: BaseException) -> Outcome:
    """Say what becomes of an event that could not be let in after its verb returned."""
    if isinstance(error, QueueFullError):
        return Outcome.dropped(DropReason.OVERFLOW, str(error))
    text = f"handing the event over raised {type(error).__name__}"
    log_quietly(logger, logging.ERROR, text, error)
    return Outcome.dropped(DropReason.INTERNAL, text)
