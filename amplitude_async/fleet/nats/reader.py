"""Reads one place in order: wins the pin, resets the consumer, and notices any gap.

A pinned consumer gives messages to one client, and promises nothing about what an
earlier one was given and did not acknowledge. RESET does: it delivers exactly what is
not acknowledged, from the oldest on, and numbers the deliveries from one. So each new
pin begins with a RESET, and a number that is missing begins everything anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.log import StoredChunk
from amplitude_async.fleet.nats.consumer import HEARTBEAT, Consumer
from amplitude_async.fleet.nats.lease import PlaceLease
from amplitude_async.fleet.nats.ledger import Ledger, arrival_of
from amplitude_async.fleet.nats.plan import MAX_ACK_PENDING
from amplitude_async.fleet.nats.pulls import Pulls
from amplitude_async.fleet.nats.session import Session, State
from amplitude_async.fleet.nats.wire import Message, Wire

__all__ = ["Reader"]

# So many seconds without a sign, where some were due: the request is gone.
SILENCE: Final = 3.5
PULL_EXPIRES: Final = 10.0
WIN_EXPIRES: Final = 30.0
KEEP_PIN: Final = 2.5
IN_PROGRESS: Final = 10.0
TICK: Final = 0.5
LOOK_LIMIT: Final = 1.0
# A floor under winning the pin again and again.
FLOOR: Final = 0.1
CEILING: Final = 1.0
SETTLE: Final = 2.0
# So long a read waits for company of what it has.
GATHER: Final = 0.2


class Reader:
    """What one claim reads, and the task that keeps it coming.

    Args:
        wire: the connection.
        consumer: of the place.
        lease: tells whether the place is still ours.
        ready: makes sure that the consumer is there.
        window: bytes to read ahead.
    """

    def __init__(
        self,
        wire: Wire,
        consumer: Consumer,
        *,
        lease: PlaceLease,
        ready: Callable[[], Awaitable[None]],
        window: int,
    ) -> None:
        self._wire = wire
        self._consumer = consumer
        self._lease = lease
        self._ready = ready
        self._window = window
        self._ledger = Ledger()
        self._pulls = Pulls(window, PULL_EXPIRES)
        self._session = Session(0.0)
        self._stirred = asyncio.Event()
        self._arrived = asyncio.Event()
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Reader of {self._consumer} {self._session!r}: {self._ledger!r}>"

    @property
    def ended(self) -> bool:
        """True where its task has ended."""
        return self._task is None or self._task.done()

    # For the claim -----------------------------------------------------------

    def begin(self) -> None:
        """Start reading."""
        name = f"amplitude_async {self._consumer}"
        self._task = asyncio.create_task(self._run(), name=name)

    async def end(self) -> None:
        """Stop reading, and forget what nobody took."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._forget()

    def _forget(self) -> None:
        """What nobody took is somebody else's."""
        self._ledger.clear()
        self._arrived.clear()

    def take(self, max_bytes: int) -> list[StoredChunk]:
        """Hand out what came."""
        chunks = self._ledger.take(max_bytes)
        if not self._ledger.ready:
            self._arrived.clear()
        self._stirred.set()
        return chunks

    async def arrived(self, timeout: float) -> bool:
        """Wait until something can be taken; False where nothing came in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def settle(self, max_bytes: int) -> None:
        """Wait for what the log has for us and has not sent yet, where there is any."""
        if self._task is None:
            return
        if self._task.done():
            self._task.result()  # a fault of ours is raised where it is heard
            return
        session = self._session
        waits = not self._ledger.ready and await self._expected()
        if waits and not await self.arrived(SETTLE):
            session.starve()
            self._stirred.set()
        enough = min(max_bytes, self._window // 2)
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                while self._ledger.size < enough and self._session.more:
                    self._came.clear()
                    await self._came.wait()

    async def _expected(self) -> bool:
        """Ask whether something is there that should have come, or is about to."""
        try:
            info = await self._consumer.info()
        except LogError:
            return False  # who keeps the lease hears of it
        coming = info["num_pending"]
        if self._session.state is State.READING:
            if info["num_ack_pending"] >= MAX_ACK_PENDING:
                return False  # it gives no more before some are acknowledged
            coming += max(info["delivered"]["consumer_seq"] - self._session.number, 0)
        else:
            coming += info["num_ack_pending"]
        return bool(coming)

    async def acknowledge(self, positions: Sequence[int], *, confirm: bool) -> None:
        """Tell the log that chunks are done with, and wait until it says it knows.

        Raises:
            LogError: the log does not say so: it may know or not.
        """
        subjects = self._ledger.subjects(positions)
        await self._consumer.acknowledge(subjects, confirm=confirm)
        self._ledger.finish(positions)
        if not self._ledger.ready:
            self._arrived.clear()

    # The task ----------------------------------------------------------------

    async def _run(self) -> None:
        pause = FLOOR
        while True:
            self._session = Session(self._now())
            self._pulls = Pulls(self._window, PULL_EXPIRES)
            try:
                if not await self._lease.kept():
                    self._forget()
                    return
                await self._ready()
                if await self._attempt():
                    pause = FLOOR
            except LogError as error:
                # Its leader is elected, or we are cut off: the lease tells the relay.
                self._session.broke(type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, CEILING)

    async def _attempt(self) -> bool:
        """Read until something breaks; True where that went well for a while."""
        session = self._session

        async def heard(message: Message) -> None:
            await self._heard(session, message)

        stop = await self._wire.subscribe(f"{session.inbox}.*", heard)
        reconnects = self._wire.reconnects
        try:
            await self._consumer.unpin()
            # What an earlier reader was given is not given to us, until it is reset.
            await self._consumer.reset()
            await self._win(session)
            if session.state is State.WINNING:
                await self._consumer.reset()
                session.read_on()
            began = self._now()
            while session.state is State.READING:
                if reconnects != self._wire.reconnects:
                    session.broke("reconnected")
                    break
                await self._feed(session)
            return self._now() - began > CEILING
        finally:
            await stop()

    async def _win(self, session: Session) -> None:
        """Ask for one message: it brings the pin that all else is asked for under."""
        reconnects = self._wire.reconnects
        until = 0.0
        while session.state is State.WINNING and not session.pin:
            if self._now() >= until:
                until = self._now() + WIN_EXPIRES
                await self._pull(session, 1, expires=WIN_EXPIRES)
            await self._stir(TICK)
            if self._silent(session) or reconnects != self._wire.reconnects:
                session.broke("no sign of the consumer")
            await self._look(session)

    async def _feed(self, session: Session) -> None:
        """Ask for what there is room for, and say what is still in hand."""
        # What came before and comes again takes no room, and is waited for: a chunk
        # can be acknowledged only once its consumer has delivered it since the reset.
        again = session.last.position < self._ledger.last
        wanted = self._pulls.wanted(0 if again else self._ledger.size, self._now())
        if wanted:
            await self._pull(session, wanted, expires=PULL_EXPIRES)
        elif self._now() - session.asked_at > KEEP_PIN:
            # So small that no message fits: it keeps the pin, whatever was read.
            await self._pull(session, 0, expires=2 * HEARTBEAT)
        if self._now() - session.told_at > IN_PROGRESS:
            session.told_at = self._now()
            await self._consumer.keep(self._ledger.due)
        await self._stir(TICK)
        if self._silent(session):
            session.broke("no sign of the consumer")
        await self._look(session)

    async def _look(self, session: Session) -> None:
        """End where the place is another's: who kept it for us may have given up.

        What was asked for would be sent to us and not to the heir.
        """
        if self._lease.running or not session.looks(self._now(), TICK):
            return
        with suppress(LogError):
            if not await self._lease.confirmed(LOOK_LIMIT):
                session.broke("the place is another's")

    async def _pull(self, session: Session, count: int, *, expires: float) -> None:
        session.asked_at = self._now()
        name = self._pulls.ask(count, session.asked_at)
        await self._consumer.pull(
            f"{session.inbox}.{name}",
            pin=session.pin,
            count=count or 1,
            max_bytes=self._window if count else 1,
            expires=expires,
        )

    def _silent(self, session: Session) -> bool:
        """True where signs were due, and none came.

        With nothing asked for, the request that keeps the pin brings one now and then.
        """
        return self._now() - session.heard_at > SILENCE

    async def _stir(self, timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._stirred.wait()
        self._stirred.clear()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    # What comes in -----------------------------------------------------------

    async def _heard(self, session: Session, message: Message) -> None:
        if session is not self._session:
            return
        session.heard_at = self._now()
        arrival = arrival_of(message.reply)
        if arrival is None:
            name = session.ended_pull(message)
            if name is not None:
                self._pulls.ended(name)
        else:
            self._pulls.came(len(message.data))
            if session.accepts(arrival, message):
                again = self._ledger.came(arrival, message)
                if again is not None:
                    # It was acknowledged, and the log does not know: it is told again.
                    await self._consumer.acknowledge([again], confirm=False)
        if self._ledger.ready:
            self._arrived.set()
        self._came.set()
        self._stirred.set()
