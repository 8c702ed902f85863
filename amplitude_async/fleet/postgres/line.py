"""One connection: a statement at a time, each with an end."""

import asyncio
import contextvars
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from amplitude_async.delivery.tasks import look_at
from amplitude_async.exceptions import (
    AmplitudeError,
    LogError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.postgres.access import Access, Host
from amplitude_async.fleet.postgres.door import connect, end, forget
from amplitude_async.fleet.postgres.faults import (
    connection_fault,
    outlived,
    statement_fault,
)
from amplitude_async.fleet.postgres.sql import GREETING

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Line", "WrongSettingError"]

BREAK_LIMIT: Final = 1.0
CLOSE_LIMIT: Final = 1.0
_OFF: Final = ("off", "false", "0")


class WrongSettingError(LogRefusedError):
    """The server may lose what it has acknowledged; nothing was sent to it."""


class Line:
    """A connection to a server that was looked at and takes chunks.

    Args:
        connection: nobody else uses it.
        greeting: what the server said of itself.
    """

    def __init__(self, connection: "Connection", greeting: Any) -> None:
        self._connection = connection
        self._kept: dict[str, Any] = {}
        self._broken = False
        self.direct = greeting["pid"] == connection.get_server_pid()
        """False where a pooler is between us and the server."""
        self.warnings = tuple(_warnings(greeting))
        """What an operator should know, in words."""

    @classmethod
    async def connect(cls, access: Access, host: Host, timeout: float) -> "Line":
        """Connect to one host, and look at it.

        Raises:
            ConfigurationError: the library is not installed.
            WrongSettingError: a setting breaks the promise.
            LogError: it does not answer, refuses us, or takes no chunks.
        """
        where = f"{host[0]}:{host[1]}"
        connection = None
        try:
            async with asyncio.timeout(timeout):
                connection = await connect(access, host, timeout)
                greeting = await connection.fetchrow(GREETING)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if not isinstance(error, Exception) or isinstance(error, AmplitudeError):
                raise
            # The library's frames hold the password, and tools show variables.
            fault = connection_fault(error, where)
            raise fault from _without_frames(error)
        try:
            _check(greeting, where)
        except LogError:
            connection.terminate()
            raise
        return cls(connection, greeting)

    def __repr__(self) -> str:
        kind = "direct" if self.direct else "pooled"
        return f"<Line {kind}, {'usable' if self.usable else 'broken'}>"

    @property
    def usable(self) -> bool:
        """True while it may be asked something."""
        return (
            not self._broken
            and not self._connection.is_closed()
            and not self._connection.is_in_transaction()
        )

    async def ask(
        self, statement: str, args: Sequence[Any], limit: float, *, kept: bool = False
    ) -> Any:
        """Run one statement in a transaction of its own.

        Args:
            limit: seconds after which the connection is given up.
            kept: prepare it once, where the server is the same each time.

        Raises:
            LogError: see ``Log.publish``.
        """
        if kept and self.direct:
            return await self.work(self._ask_kept(statement, args), limit)
        return await self.work(self._connection.fetch(statement, *args), limit)

    async def _ask_kept(self, statement: str, args: Sequence[Any]) -> Any:
        prepared = self._kept.get(statement)
        if prepared is None:
            # Without a name the library would have it read again each time.
            name = f"amplitude_async_{len(self._kept)}"
            prepared = await self._connection.prepare(statement, name=name)
            self._kept[statement] = prepared
        return await prepared.fetch(*args)

    async def work(self, asking: Any, limit: float) -> Any:
        """Wait for an answer; who is cancelled, or loses patience, ends the connection.

        So that no answer of before meets a question of later, and nothing is left to
        be waited for.
        """
        task = asyncio.ensure_future(asking)
        # From the start: who is cancelled again while it ends does not wait for it.
        task.add_done_callback(look_at, context=contextvars.Context())
        try:
            await asyncio.wait({task}, timeout=limit)
        except asyncio.CancelledError:
            await self._break(task)
            raise
        if not task.done():
            await self._break(task)
            msg = (
                f"PostgreSQL did not answer within {limit:g} s: it may have been done "
                "or not"
            )
            raise LogError(msg)
        try:
            return task.result()
        except Exception as error:  # the library's own, and the socket's
            if isinstance(error, AmplitudeError):
                raise
            if not outlived(error):
                self._broken = True
            raise statement_fault(error) from error

    async def _break(self, task: "asyncio.Future[Any]") -> None:
        self._broken = True
        self._connection.terminate()
        if not task.done():
            await asyncio.wait({task}, timeout=BREAK_LIMIT)

    @property
    def transaction(self) -> Any:
        """Make the context of a transaction of several statements."""
        return self._connection.transaction

    async def fetch(self, statement: str, *args: Any) -> Any:
        """Run a statement within ``work``: without a limit, or words, of its own."""
        return await self._connection.fetch(statement, *args)

    async def execute(self, script: str) -> None:
        """Run several statements within ``work``."""
        await self._connection.execute(script)

    async def close(self) -> None:
        """End it politely, where that is quickly done."""
        if self._connection.is_closed():
            return
        # The server may be gone: that is no news to who closes.
        with suppress(Exception):
            await end(self._connection, CLOSE_LIMIT)

    def drop(self) -> None:
        """End it at once."""
        self._connection.terminate()

    def forget(self) -> None:
        """Let it go without a word to the server."""
        forget(self._connection)


def _without_frames(error: Exception) -> Exception:
    """Take from an error, and what led to it, the places that it went through."""
    led: BaseException | None = error
    seen: set[int] = set()
    while led is not None and id(led) not in seen:
        seen.add(id(led))
        led.with_traceback(None)
        led = led.__cause__ or led.__context__
    return error


def _check(greeting: Any, where: str) -> None:
    if greeting["fsync"] in _OFF:
        msg = (
            f"PostgreSQL at {where} has fsync=off: what it acknowledges is lost with "
            "the machine's power; set fsync=on in postgresql.conf and restart it"
        )
        raise WrongSettingError(msg)
    if greeting["synchronous_commit"] in _OFF:
        msg = (
            f"PostgreSQL at {where} has synchronous_commit=off for this session: what "
            "it acknowledges may be lost in a crash; set it to on in postgresql.conf, "
            "and for this role and database by ALTER ROLE or ALTER DATABASE ... SET "
            "synchronous_commit = on"
        )
        raise WrongSettingError(msg)
    if greeting["frozen"]:
        msg = (
            f"PostgreSQL at {where} takes no writes: it is a standby, or "
            "default_transaction_read_only is on; name the primary in the DSN, or "
            "all of them: postgresql://one,two/database"
        )
        raise LogUnreachableError(msg)


def _warnings(greeting: Any) -> list[str]:
    found = []
    if greeting["full_page_writes"] in _OFF:
        found.append(
            "full_page_writes=off: a power failure may tear pages of the log, unless "
            "the file system writes them whole; set full_page_writes=on"
        )
    commit = greeting["synchronous_commit"]
    if greeting["synchronous_standby_names"] and commit in ("local", "remote_write"):
        found.append(
            f"synchronous_commit={commit}: an acknowledged chunk may be on no "
            "standby's disk; set synchronous_commit=on"
        )
    return found
