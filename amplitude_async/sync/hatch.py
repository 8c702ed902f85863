"""Where events pass from any thread to the loop: a deque, and few wake-ups.

An event is encoded where it is tracked, so that nothing of the caller's is read later,
and put into the deque. The first after a quiet moment wakes the loop, which then looks
by itself every few milliseconds, as long as there is something. A caller waits only
where an answer is owed: no room (the overflow policy decides), a durable storage, or
``strict``.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from typing import Any, Final

from amplitude_async.client.life import UNSET, Unset
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.outcome import DeliveryResult, Outcome
from amplitude_async.delivery.stats import Stats
from amplitude_async.delivery.tasks import spawn
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.line import IN_ONE_GO, Line
from amplitude_async.sync.loop import LoopEndedError, LoopThread, refuse_on_loop
from amplitude_async.sync.process import PROCESS
from amplitude_async.sync.reply import Reply
from amplitude_async.sync.seat import Seat

__all__ = ["Hatch"]

LOOK_INTERVAL: Final = 0.01
# Threads that may look for room in the same moment, and each find the last place.
AT_ONCE: Final = 64


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
        self._seat = seat
        self._inbox: deque[SyncDelivery] = deque()
        self._looking = False
        self._next: asyncio.Handle | None = None
        self._let_in_so_far = 0
        # Those in the inbox whose verbs have not returned.
        self._asking: set[SyncDelivery] = set()
        # Larger events wait for an answer: all of them, where each is owed one.
        self._small = -1
        self._line = Line(seat)

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
        ahead = len(self._inbox) + self._line.accepted + AT_ONCE
        if (
            size > self._small
            or (INTERCEPTION.active and self._seat.is_watched)
            or not self._seat.has_room(ahead, ahead * self._small)
        ):
            return self._ask(SyncDelivery(self, cargo, insert_id, Reply()))
        handle = SyncDelivery(self, cargo, insert_id)
        self._inbox.append(handle)
        if not self._looking:
            try:
                self._looking = True
                self._wake()
            except BaseException:
                # Raised by a signal's handler, perhaps before the loop was woken.
                self._looking = False
                self._take_back(handle)
                raise
        return handle

    def _wake(self) -> bool:
        if self.thread.post(self._look):
            return True
        self.thread.tell_lost()
        return False

    def _ask(self, handle: SyncDelivery) -> SyncDelivery:
        """Wait until an event is accepted: the caller alone, as an await would."""
        try:
            self._asking.add(handle)
            self._inbox.append(handle)
            if self._wake():
                handle.wait_for_reply()
        except LoopEndedError:
            self.thread.tell_lost()
        except BaseException:
            self._take_back(handle)
            raise
        return handle

    def _take_back(self, handle: SyncDelivery) -> None:
        """Want an event accepted no more, as far as it is not: its verb raises."""
        handle.withdraw()
        self.thread.post(self._withdraw, handle)

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

    def _withdraw(self, handle: SyncDelivery) -> None:
        self._asking.discard(handle)
        # Rare, and few wait there at once where callers are interrupted.
        with contextlib.suppress(ValueError, IndexError):
            self._inbox.remove(handle)
        self._line.withdraw(handle)

    def _let_in_some(self) -> bool:
        """Let in a portion; True where there is more."""
        inbox = self._inbox
        for _ in range(IN_ONE_GO):
            try:
                handle = inbox.popleft()
            except IndexError:
                return False
            self._let_in_so_far += 1
            if handle.has_caller:
                self._asking.discard(handle)
            self._line.let_in(handle)
        return bool(inbox)

    async def let_in_now(self) -> None:
        """Let in all that was handed over so far."""
        last = self._let_in_so_far + len(self._inbox)
        while self._let_in_so_far < last:
            if not self._let_in_some():
                return
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
        await self._line.end()
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
            # Again: who was interrupted on the way here had not told it.
            PROCESS.enlist(self)
            self.thread.run(self._seat.ready())
            if not self._seat.owes_answers:
                events, size = self._seat.places
                # Small ones need no count of bytes: what fits by number fits by size.
                self._small = max(1, size // events)
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
