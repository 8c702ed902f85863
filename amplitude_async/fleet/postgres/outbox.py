"""One statement on a connection of somebody else's, whichever driver it is of."""

import importlib
import re
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.postgres.faults import statement_fault
from amplitude_async.shown import kind_of

__all__ = ["put"]

ACCEPTED: Final = (
    "an asyncpg connection, a psycopg AsyncConnection, or a SQLAlchemy "
    "AsyncConnection or AsyncSession"
)
_PARAMETER: Final = re.compile(r"\$(\d+)::(\w+)")


async def put(connection: Any, statement: str, args: Sequence[Any]) -> None:
    """Run a statement within the transaction that is there.

    Raises:
        ConfigurationError: it is no connection that can be used.
        LogError: the database refuses the statement.
    """
    run = _way(connection)
    try:
        await run(connection, statement, args)
    except Exception as error:  # of three drivers, which share no class of errors
        raise statement_fault(error) from error


def _way(connection: Any) -> Callable[[Any, str, Sequence[Any]], Any]:
    """Tell drivers apart by what they can do: each of them is optional."""
    kind = type(connection)
    if isinstance(connection, type):
        pass
    # Of a pool of asyncpg's one gets a stand-in, which has the same methods.
    elif hasattr(kind, "is_in_transaction") and hasattr(kind, "fetchval"):
        return _by_number
    elif iscoroutinefunction(getattr(kind, "run_sync", None)):
        return _by_name
    elif hasattr(connection, "pgconn") and iscoroutinefunction(
        getattr(kind, "execute", 0)
    ):
        return _by_order
    msg = f"via= is a {kind_of(connection)}: give {ACCEPTED}"
    raise ConfigurationError(msg)


async def _by_number(connection: Any, statement: str, args: Sequence[Any]) -> None:
    await connection.execute(statement, *args)


async def _by_name(connection: Any, statement: str, args: Sequence[Any]) -> None:
    named = _PARAMETER.sub(r"cast(:p\1 as \2)", statement)
    text = importlib.import_module("sqlalchemy").text(named)
    values = {f"p{number}": value for number, value in enumerate(args, 1)}
    await connection.execute(text, values)


async def _by_order(connection: Any, statement: str, args: Sequence[Any]) -> None:
    # Not a cursor as the caller's connection makes them: some write parameters in
    # another way.
    async with importlib.import_module("psycopg").AsyncCursor(connection) as cursor:
        await cursor.execute(_PARAMETER.sub(r"%s::\2", statement), args)
