"""A few connections, shared by all that a log does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from amplitude_async.exceptions import LogError, LogRefusedError, LogUnreachableError
from amplitude_async.fleet.postgres.access import Access
from amplitude_async.fleet.postgres.line import Line

__all__ = ["ANSWER_LIMIT", "Lines"]

SIZE: Final = 4
ANSWER_LIMIT: Final = 5.0
# Of several hosts the first must not take all of the time.
LEAST_LIMIT: Final = 1.0


class Lines:
    """Connections to one database: they are made when asked for, and used in turn.

    What takes long leaves one of them to what is urgent.

    Args:
        access: where the database is.
        limit: seconds for a connection, and for an answer.
    """

    def __init__(self, access: Access, limit: float) -> None:
        self._access = access
        self._limit = limit
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._closed = True
        self._first = 0  # the host to try first: the one that answered last
        self._set_seats()

    def _set_seats(self) -> None:
        # Each belongs to the loop on which somebody had to wait for it.
        self._seats = asyncio.Semaphore(SIZE)
        self._slow_seats = asyncio.Semaphore(SIZE - 1)

    def __repr__(self) -> str:
        return f"<Lines {self._access}: {len(self._busy)} busy, {len(self._idle)} idle>"

    async def ask(
        self,
        statement: str,
        *args: Any,
        limit: float | None = None,
        urgent: bool = False,
    ) -> Any:
        """Run one statement in a transaction of its own.

        Raises:
            LogError: see ``Log.publish``.
        """
        async with self.line(urgent=urgent) as line:
            return await line.ask(statement, args, limit or self._limit, kept=urgent)

    async def work(self, job: Callable[[Line], Awaitable[Any]], limit: float) -> Any:
        """Let a job of several statements have a connection."""
        async with self.line() as line:
            return await line.work(job(line), limit)

    @asynccontextmanager
    async def line(self, *, urgent: bool = False) -> AsyncIterator[Line]:
        """Take a connection for a while.

        Raises:
            LogUnreachableError: there is none in time.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._limit):
                    if not urgent:
                        await stack.enter_async_context(self._slow_seats)
                    await stack.enter_async_context(self._seats)
            except TimeoutError:
                msg = (
                    f"each of {SIZE} connections to PostgreSQL was busy for "
                    f"{self._limit:g} s"
                )
                raise LogUnreachableError(msg) from None
            if self._closed:
                msg = "this log is not open: await its open() first"
                raise LogUnreachableError(msg)
            line = self._take_idle() or await self._connect()
            self._busy.add(line)
            try:
                yield line
            finally:
                self._busy.discard(line)
                self._give_back(line)

    def _take_idle(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line
            line.drop()
        return None

    def _give_back(self, line: Line) -> None:
        if line.usable and not self._closed:
            self._idle.append(line)
            return
        line.drop()
        # What ended one connection has ended the others as a rule: a restart, a
        # failover. To find that out of each would take the limit of an answer each.
        idle, self._idle = self._idle, []
        for other in idle:
            other.drop()

    async def _connect(self) -> Line:
        """Connect to the first host that takes chunks."""
        hosts = self._access.hosts
        limit = max(self._limit / len(hosts), min(self._limit, LEAST_LIMIT))
        fault: LogError | None = None
        first = self._first
        for number in range(len(hosts)):
            index = (first + number) % len(hosts)
            # Whoever runs out of time here goes on with the next host when asked again.
            self._first = (index + 1) % len(hosts)
            try:
                line = await Line.connect(self._access, hosts[index], limit)
            except LogError as error:
                # That one is down is expected of several; that one refuses is not.
                if fault is None or isinstance(error, LogRefusedError):
                    fault = error
                continue
            self._first = index
            return line
        if fault is None:
            raise LogUnreachableError("the DSN names no host")
        raise fault

    # Beginning and end -------------------------------------------------------

    def open(self) -> None:
        """Let connections be made."""
        if self._closed:
            self._set_seats()
        self._closed = False

    async def close(self) -> None:
        """End all connections; who still waits for an answer is told at once."""
        self._closed = True
        for line in list(self._busy):
            line.drop()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(line.close() for line in idle))

    def forget(self) -> None:
        """Let all connections go, without a word to the server."""
        for line in [*self._idle, *self._busy]:
            line.forget()
        self._idle.clear()
        self._busy.clear()
        self._closed = True
