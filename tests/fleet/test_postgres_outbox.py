"""A chunk commits with the caller's transaction, whichever driver that is of."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from amplitude_async.exceptions import ConfigurationError, LogRefusedError
from amplitude_async.fleet.log import Chunk, Place
from amplitude_async.fleet.postgres import PostgresLog
from amplitude_async.testing.log_contract import PLACE, collect, ids_of, make_chunk
from tests.fleet.postgres_server import (
    Server,
    postgres_log,
    postgres_server,
)
from tests.fleet.real_servers import project_name

__all__ = ["postgres_log", "postgres_server", "project_name"]

Transaction = tuple[Any, Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]


async def begin_asyncpg(dsn: str, stack: AsyncExitStack) -> Transaction:
    """Begin on a connection of asyncpg's."""
    connection = await asyncpg.connect(dsn)
    stack.push_async_callback(connection.close)
    transaction = connection.transaction()
    await transaction.start()
    return connection, transaction.commit, transaction.rollback


async def begin_pool(dsn: str, stack: AsyncExitStack) -> Transaction:
    """Begin on what a pool of asyncpg's hands out."""
    pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1))
    connection = await stack.enter_async_context(pool.acquire())
    transaction = connection.transaction()
    await transaction.start()
    return connection, transaction.commit, transaction.rollback


async def begin_psycopg(dsn: str, stack: AsyncExitStack) -> Transaction:
    """Begin on a connection of psycopg's."""
    connection = await psycopg.AsyncConnection.connect(dsn)
    stack.push_async_callback(connection.close)
    return connection, connection.commit, connection.rollback


async def begin_raw_psycopg(dsn: str, stack: AsyncExitStack) -> Transaction:
    """Begin on a connection of psycopg's that writes parameters as the server does."""
    connection = await psycopg.AsyncConnection.connect(
        dsn, cursor_factory=psycopg.AsyncRawCursor
    )
    stack.push_async_callback(connection.close)
    return connection, connection.commit, connection.rollback


def begin_sqlalchemy(driver: str, *, session: bool) -> Any:
    """Begin on SQLAlchemy's connection or session over a driver."""

    async def begin(dsn: str, stack: AsyncExitStack) -> Transaction:
        # What a driver reads of files, when it connects at first, is no call of ours.
        options = {"ssl": False} if driver.endswith("asyncpg") else {}
        address = dsn.replace("postgresql:", f"{driver}:")
        engine = create_async_engine(address, connect_args=options)
        stack.push_async_callback(engine.dispose)
        made: Any = AsyncSession(engine) if session else engine.connect()
        await stack.enter_async_context(made)
        return made, made.commit, made.rollback

    return begin


WAYS = [
    pytest.param(begin_asyncpg, id="asyncpg"),
    pytest.param(begin_pool, id="asyncpg-pool"),
    pytest.param(begin_psycopg, id="psycopg"),
    pytest.param(begin_raw_psycopg, id="psycopg-raw"),
    *(
        pytest.param(
            begin_sqlalchemy(f"postgresql+{driver}", session=session),
            id=f"sqlalchemy-{driver}-{'session' if session else 'connection'}",
        )
        for driver in ("asyncpg", "psycopg")
        for session in (False, True)
    ),
]


@pytest.fixture(params=WAYS)
async def transaction(
    request: pytest.FixtureRequest, postgres_server: Server
) -> AsyncIterator[Transaction]:
    """Yield a connection in a transaction, and how to end that."""
    async with AsyncExitStack() as stack:
        yield await request.param(postgres_server.dsn, stack)


async def waiting(log: PostgresLog) -> int:
    """Count the chunks that wait."""
    return sum(one.chunks for one in await log.backlog())


async def test_it_is_there_once_committed(
    postgres_log: PostgresLog, transaction: Transaction
) -> None:
    """And not before; in the order of publishing, byte for byte."""
    connection, commit, _ = transaction
    chunks = [make_chunk(1, data=bytes(range(256))), make_chunk(2)]
    claim = await postgres_log.claim(PLACE, "relay", 60)
    assert claim is not None

    for chunk in [*chunks, chunks[0]]:
        await postgres_log.publish_in(connection, chunk)
    await postgres_log.publish(make_chunk(3))
    [first] = await collect(claim, 1)
    assert first.id == make_chunk(3).id
    await commit()

    # What came to light late is read all the same.
    found = await collect(claim, 2)
    assert [(c.id, c.data) for c in found] == [(c.id, c.data) for c in chunks]


async def test_it_is_never_there_if_rolled_back(
    postgres_log: PostgresLog, transaction: Transaction
) -> None:
    """As nothing else of the transaction is; and its id is free."""
    connection, _, rollback = transaction

    await postgres_log.publish_in(connection, make_chunk(1))
    await rollback()

    assert await waiting(postgres_log) == 0
    await postgres_log.publish(make_chunk(1))
    assert await waiting(postgres_log) == 1


async def test_what_the_database_refuses_is_told(
    postgres_server: Server, transaction: Transaction
) -> None:
    """The driver's error is the cause; what to do is in the words."""
    connection, _, rollback = transaction
    log = PostgresLog(postgres_server.dsn, schema="nowhere")

    with pytest.raises(LogRefusedError, match="relay setup") as caught:
        await log.publish_in(connection, make_chunk(1))

    assert caught.value.__cause__ is not None
    await rollback()


async def test_a_log_needs_no_connection_of_its_own(
    postgres_log: PostgresLog, postgres_server: Server
) -> None:
    """And a connection in no transaction stores at once."""
    other = PostgresLog(postgres_server.dsn, project=postgres_log.project)
    connection = await asyncpg.connect(postgres_server.dsn)
    await other.publish_in(connection, make_chunk(1))
    await connection.close()

    claim = await postgres_log.claim(PLACE, "relay", 60)
    assert claim is not None
    assert ids_of(await collect(claim, 1)) == ids_of([make_chunk(1)])


async def test_what_is_no_connection_is_refused(
    postgres_log: PostgresLog, postgres_server: Server
) -> None:
    """What is accepted is named."""
    with psycopg.Connection.connect(postgres_server.dsn) as synchronous:
        for wrong in (None, 1, "postgresql://db/x", synchronous, asyncpg.Connection):
            with pytest.raises(ConfigurationError, match="AsyncSession"):
                await postgres_log.publish_in(wrong, make_chunk(1))


async def test_a_chunk_for_no_place_is_refused(
    postgres_log: PostgresLog, transaction: Transaction
) -> None:
    """Before anything is sent: the transaction goes on."""
    connection, commit, _ = transaction
    with pytest.raises(LogRefusedError, match="partitions"):
        await postgres_log.publish_in(
            connection, Chunk("a", Place("amplitude", 7), b"", 1)
        )
    await postgres_log.publish_in(connection, make_chunk(1))
    await commit()
    assert await waiting(postgres_log) == 1
