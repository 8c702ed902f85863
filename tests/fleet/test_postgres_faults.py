"""A PostgresLog while its server is killed, silent, full, restricted or set wrongly."""

import asyncio
import gc
import os
import random
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from amplitude_async.exceptions import (
    ConfigurationError,
    LogError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.postgres import PostgresLog
from amplitude_async.fleet.postgres.faults import connection_fault, statement_fault
from amplitude_async.fleet.postgres.line import Line
from amplitude_async.testing.log_contract import (
    PLACE,
    collect,
    ids_of,
    make_chunk,
    until,
)
from tests.conftest import self_signed
from tests.fleet.postgres_server import (
    Pooler,
    Server,
    free_port,
    pooler,
    postgres_log,
    postgres_server,
    running,
)
from tests.fleet.real_servers import project_name
from tests.fleet.syncs import counted_syncs

__all__ = ["pooler", "postgres_log", "postgres_server", "project_name"]

MUCH = 64 * 1024 * 1024


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Yield a server that a test may kill."""
    with running(Server()) as server:
        yield server


@asynccontextmanager
async def opened(dsn: str, project: str, **options: Any) -> AsyncIterator[PostgresLog]:
    """Set up, open and close a log."""
    log = PostgresLog(dsn, project=project, **options)
    await log.setup()
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def sql(dsn: str, statement: str, *args: Any) -> Any:
    """Ask the database for something."""
    connection = await asyncpg.connect(dsn, ssl=False, statement_cache_size=0)
    try:
        return await connection.fetch(statement, *args)
    finally:
        await connection.close()


async def ids_in(log: PostgresLog) -> list[str]:
    """Read all that waits, as a new relay."""
    holder = f"reader-{random.random()}"
    claim = await log.claim(PLACE, holder, 60)
    assert claim is not None
    found: list[str] = []
    while chunks := await claim.read(MUCH):
        found += ids_of(chunks)
    await claim.release()
    return found


async def publish_surely(log: PostgresLog, number: int) -> None:
    """Publish until it is answered, as a producer does."""
    async with asyncio.timeout(30):
        while True:
            try:
                await log.publish(make_chunk(number))
            except LogRefusedError:
                raise
            except LogError:
                await asyncio.sleep(0.02)
            else:
                return


# The server dies -------------------------------------------------------------


async def test_what_was_acknowledged_outlives_a_kill(own_server: Server) -> None:
    """Kill -9 in the middle, twice: all of it is there, once, and in order."""
    async with opened(own_server.dsn, "kill") as log:
        acknowledged: list[int] = []

        async def produce() -> None:
            for number in range(100_000):
                await publish_surely(log, number)
                acknowledged.append(number)

        async def reached(count: int) -> None:
            async def there() -> bool:
                return len(acknowledged) >= count

            await until(there)

        task = asyncio.create_task(produce())
        for target in (40, 80):
            await reached(target)
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        await reached(len(acknowledged) + 20)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        found = await ids_in(log)
    expected = ids_of([make_chunk(number) for number in acknowledged])
    assert found[: len(expected)] == expected
    assert len(found) <= len(expected) + 1


async def test_who_has_died_is_unreachable(own_server: Server) -> None:
    """The first may have been stored for all one knows, the next was not for sure."""
    async with opened(own_server.dsn, "dead") as log:
        await log.publish(make_chunk(1))
        await asyncio.to_thread(own_server.kill)
        with suppress(LogError):
            await log.publish(make_chunk(2))
        with pytest.raises(LogUnreachableError, match="cannot be reached"):
            await log.publish(make_chunk(2))
        with pytest.raises(LogUnreachableError):
            await PostgresLog(own_server.dsn).open()


async def test_a_backend_that_is_ended_costs_one_answer(
    postgres_log: PostgresLog, postgres_server: Server
) -> None:
    """While another holds the row up that a publish waits for."""
    blocker = await asyncpg.connect(postgres_server.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await postgres_log.publish_in(blocker, make_chunk(1))
    publishing = asyncio.create_task(postgres_log.publish(make_chunk(1)))

    async def ended() -> bool:
        return bool(
            await sql(
                postgres_server.dsn,
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and query like '%insert into%' "
                "and $1 = any(pg_blocking_pids(pid))",
                blocker.get_server_pid(),
            )
        )

    await until(ended)
    with pytest.raises(LogError) as caught:
        await publishing
    assert type(caught.value) is LogError
    await transaction.rollback()
    await blocker.close()

    await postgres_log.publish(make_chunk(1))
    await postgres_log.publish(make_chunk(2))
    assert await ids_in(postgres_log) == ids_of([make_chunk(1), make_chunk(2)])


async def test_a_cancelled_publish_leaves_nothing_broken(
    postgres_log: PostgresLog, postgres_server: Server
) -> None:
    """However often: connections do not run out, and none is in the middle of it."""
    blocker = await asyncpg.connect(postgres_server.dsn)
    for number in range(10):
        transaction = blocker.transaction()
        await transaction.start()
        await postgres_log.publish_in(blocker, make_chunk(number))
        task = asyncio.create_task(postgres_log.publish(make_chunk(number)))
        for _ in range(number * 3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transaction.rollback()
        await publish_surely(postgres_log, number)
    await blocker.close()
    expected = ids_of([make_chunk(number) for number in range(10)])
    assert await ids_in(postgres_log) == expected


# The network is silent -------------------------------------------------------


class Wire:
    """A way to the server that can stop to carry anything."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._target = port
        self._carries = asyncio.Event()
        self._carries.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Carry nothing, and close nothing."""
        self._carries.clear()

    def mend(self) -> None:
        """Carry what came meanwhile, and what comes."""
        self._carries.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Wire"]:
        """Listen."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            back, far = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._carry(reader, far), self._carry(back, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if far is not None:
                far.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65_536):
            await self._carries.wait()
            target.write(data)
            await target.drain()
        target.write_eof()


async def test_silence_ends(postgres_server: Server, project_name: str) -> None:
    """A publish fails in time, without a word on whether it was stored."""
    async with (
        Wire(postgres_server.port).open() as wire,
        opened(
            postgres_server.dsn.replace(f":{postgres_server.port}", f":{wire.port}"),
            project_name,
            timeout=0.3,
        ) as log,
    ):
        await log.publish(make_chunk(1))
        wire.cut()
        with pytest.raises(LogError, match=r"0\.3 s") as caught:
            await log.publish(make_chunk(2))
        assert type(caught.value) is LogError
        with pytest.raises(LogUnreachableError, match="in time"):
            await log.publish(make_chunk(2))
        wire.mend()
        await publish_surely(log, 2)
        assert await ids_in(log) == ids_of([make_chunk(1), make_chunk(2)])


async def test_the_next_host_is_tried(
    postgres_server: Server, project_name: str
) -> None:
    """One of which nobody is there, or that says nothing."""
    async with Wire(postgres_server.port).open() as wire:
        wire.cut()
        port = postgres_server.port
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{wire.port},127.0.0.1:{port}"
        dsn = postgres_server.dsn.replace(f"127.0.0.1:{port}", hosts)
        async with opened(dsn, project_name, timeout=3) as log:
            await log.publish(make_chunk(1))
            assert await ids_in(log) == ids_of([make_chunk(1)])


async def test_who_loses_patience_with_a_host_begins_with_the_next(
    postgres_server: Server, project_name: str
) -> None:
    """A client waits less for the whole log than the log may for one host."""
    async with Wire(postgres_server.port).open() as wire:
        wire.cut()
        port = postgres_server.port
        hosts = f"127.0.0.1:{wire.port},127.0.0.1:{port}"
        await PostgresLog(postgres_server.dsn, project=project_name).setup()
        dsn = postgres_server.dsn.replace(f"127.0.0.1:{port}", hosts)
        log = PostgresLog(dsn, project=project_name, timeout=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await log.open()
        async with asyncio.timeout(20):
            await log.open()
            await log.publish(make_chunk(1))
        await log.close()


async def test_encryption_is_what_was_asked_for(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Refused by a server without, used where it is, and the certificate is checked."""
    monkeypatch.setenv("HOME", str(tmp_path))
    dsn = own_server.dsn
    await PostgresLog(dsn).setup()
    with pytest.raises(LogUnreachableError, match="SSL"):
        await PostgresLog(f"{dsn}?sslmode=require").open()

    self_signed(own_server.data)
    for name in ("key.pem", "certificate.pem"):
        owner = own_server.data.stat()
        os.chown(own_server.data / name, owner.st_uid, owner.st_gid)
        (own_server.data / name).chmod(0o600)
    own_server.settings |= {
        "ssl": "on",
        "ssl_key_file": "key.pem",
        "ssl_cert_file": "certificate.pem",
    }
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    root = own_server.data / "certificate.pem"
    good = [f"verify-full&sslrootcert={root}", "require", "prefer"]
    for mode, used in [*((mode, True) for mode in good), ("disable", False)]:
        log = PostgresLog(f"{dsn}?sslmode={mode}")
        await log.open()
        asked = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        assert [row["ssl"] for row in await log.ask(asked)] == [used]
        await log.close()
    (tmp_path / "other").mkdir()
    self_signed(tmp_path / "other")
    other = tmp_path / "other" / "certificate.pem"
    with pytest.raises(LogUnreachableError, match="certificate"):
        await PostgresLog(f"{dsn}?sslmode=verify-ca&sslrootcert={other}").open()
    with pytest.raises(LogUnreachableError, match="sslrootcert"):
        await PostgresLog(f"{dsn}?sslmode=verify-full").open()


# Settings and rights ---------------------------------------------------------


async def test_settings_that_lose_chunks_are_refused(own_server: Server) -> None:
    """Setting, value and remedy are named; of a role's, and of the server's."""
    dsn = own_server.dsn
    await PostgresLog(dsn).setup()
    await sql(dsn, "create role careless login")
    await sql(dsn, "alter role careless set synchronous_commit = off")
    careless = dsn.replace("//fleet:", "//careless:")
    with pytest.raises(ConfigurationError, match=r"synchronous_commit=off.*ALTER ROLE"):
        await PostgresLog(careless).open()
    with pytest.raises(ConfigurationError, match=r"synchronous_commit=off"):
        await PostgresLog(careless).setup()

    own_server.settings["full_page_writes"] = "off"
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    log = PostgresLog(dsn)
    settings = await log.open()
    await log.close()
    assert settings.synced
    assert "full_page_writes=off" in settings.warnings[0]

    own_server.settings["fsync"] = "off"
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    with pytest.raises(ConfigurationError, match=r"fsync=off.*fsync=on"):
        await PostgresLog(dsn).open()


async def test_a_setting_that_turns_bad_is_made_good(
    own_server: Server,
) -> None:
    """Of an open session: each acknowledged chunk is on disk all the same."""
    async with opened(own_server.dsn, "turns") as log:
        await log.publish(make_chunk(0))
        await sql(own_server.dsn, "alter system set synchronous_commit = off")
        # Long enough to lose whatever waits for it.
        await sql(own_server.dsn, "alter system set wal_writer_delay = '10s'")
        await sql(own_server.dsn, "select pg_reload_conf()")

        async def reloaded() -> bool:
            [row] = await sql(own_server.dsn, "show synchronous_commit")
            return bool(row[0] == "off")

        await until(reloaded)
        for number in range(1, 20):
            await log.publish(make_chunk(number))
        await asyncio.to_thread(own_server.kill)
        own_server.settings["synchronous_commit"] = "on"
        await asyncio.to_thread(own_server.start)
        expected = ids_of([make_chunk(number) for number in range(20)])
        await publish_surely(log, 19)
        assert await ids_in(log) == expected


async def test_a_server_that_takes_no_writes_is_left(
    postgres_server: Server, project_name: str
) -> None:
    """A standby, or one that was made read-only: nothing was stored."""
    dsn = postgres_server.dsn
    await PostgresLog(dsn, project=project_name).setup()
    role = f"frozen_{project_name}"
    await sql(dsn, f"create role {role} login superuser")
    frozen = dsn.replace("//fleet:", f"//{role}:")
    await sql(dsn, f"alter role {role} set default_transaction_read_only = on")
    with pytest.raises(LogUnreachableError, match="takes no writes"):
        await PostgresLog(frozen, project=project_name).open()


async def test_a_server_that_is_made_read_only_is_left(own_server: Server) -> None:
    """As a primary that has become a standby: nothing was stored, nor is it kept."""
    async with opened(own_server.dsn, "demoted") as log:
        await log.publish(make_chunk(1))

        async def switch(value: str) -> None:
            await sql(
                own_server.dsn,
                f"alter system set default_transaction_read_only = {value}",
            )
            await sql(own_server.dsn, "select pg_reload_conf()")

        await switch("on")

        async def refused() -> bool:
            try:
                await log.publish(make_chunk(2))
            except LogUnreachableError as error:
                return "25006" in str(error)
            return False

        await until(refused)
        with pytest.raises(LogUnreachableError, match="takes no writes"):
            await log.publish(make_chunk(3))
        await switch("off")
        await publish_surely(log, 3)
        assert (await ids_in(log))[-1] == make_chunk(3).id


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("53100", LogFullError),
        ("53200", LogUnreachableError),
        ("53300", LogUnreachableError),
        ("57P03", LogUnreachableError),
        ("25006", LogUnreachableError),
        ("42501", LogRefusedError),
        ("42P01", LogRefusedError),
        ("28P01", LogRefusedError),
        ("42704", LogRefusedError),
        ("22023", LogRefusedError),
        ("3D000", LogRefusedError),
        ("57P01", LogError),
        ("08006", LogError),
        ("40P01", LogError),
        ("", LogError),
    ],
)
def test_what_an_error_means_for_a_chunk(code: str, kind: type[LogError]) -> None:
    """Stored for sure not, or nobody knows; found also in what a library wraps."""
    inner = asyncpg.PostgresError("the server's words\nand a value of somebody")
    inner.sqlstate = code or None
    wrapped = RuntimeError("of another library")
    wrapped.__cause__ = inner
    for error in (inner, wrapped):
        fault = statement_fault(error)
        assert type(fault) is kind
        assert "value" not in str(fault)
    never_sent = connection_fault(inner, "db:5432")
    assert isinstance(never_sent, kind)
    assert type(never_sent) is not LogError


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("no_such_setting=1", "take what the server does not know out"),
        ("connect_timeout=5", "take what the server does not know out"),
        ("statement_timeout=soon", "correct the dsn's options"),
    ],
)
async def test_an_option_that_the_server_does_not_take_is_named(
    postgres_server: Server, project_name: str, option: str, words: str
) -> None:
    """It is refused with the remedy: to ask again would not help."""
    name = option.partition("=")[0]
    joint = "&" if "?" in postgres_server.dsn else "?"
    log = PostgresLog(f"{postgres_server.dsn}{joint}{option}", project=project_name)
    with pytest.raises(ConfigurationError, match=f"{name}.*{words}"):
        await log.open()
    await log.close()


async def test_a_role_needs_no_more_than_is_said(
    postgres_server: Server, project_name: str
) -> None:
    """To publish: it can read nothing of anybody's, and is told so."""
    dsn, role = postgres_server.dsn, f"producer_{project_name}"
    own = PostgresLog(dsn, project=project_name)
    await own.setup()
    for statement in (
        f"create role {role} login",
        f"grant usage on schema amplitude_async to {role}",
        f"grant select on amplitude_async.version to {role}",
        f"grant select on amplitude_async.projects to {role}",
        f"grant insert on amplitude_async.chunks to {role}",
    ):
        await sql(dsn, statement)
    producer = PostgresLog(dsn.replace("//fleet:", f"//{role}:"), project=project_name)
    settings = await producer.open()
    assert any("max_bytes" in warning for warning in settings.warnings)
    await producer.publish(make_chunk(1))
    await producer.publish(make_chunk(1))
    with pytest.raises(LogRefusedError, match="42501"):
        await producer.claim(PLACE, "relay", 1)
    await sql(dsn, f"revoke insert on amplitude_async.chunks from {role}")
    with pytest.raises(LogRefusedError, match="42501"):
        await producer.publish(make_chunk(2))
    await producer.close()
    await own.open()
    assert await ids_in(own) == ids_of([make_chunk(1)])
    await own.close()


async def test_a_newer_schema_is_refused(postgres_server: Server) -> None:
    """With what to upgrade; an older one with what to run."""
    dsn, schema = postgres_server.dsn, "versions"
    await PostgresLog(dsn, schema=schema).setup()
    for version, remedy in ((99, "upgrade"), (0, "relay setup")):
        await sql(dsn, "update versions.version set version = $1", version)
        with pytest.raises(ConfigurationError, match=remedy):
            await PostgresLog(dsn, schema=schema).open()
    await sql(dsn, "update versions.version set version = 99")
    with pytest.raises(ConfigurationError, match="upgrade"):
        await PostgresLog(dsn, schema=schema).setup()


class Silent:
    """A connection that ends long after it was told to."""

    def get_server_pid(self) -> int:
        """Name the process that the greeting names."""
        return 1

    def terminate(self) -> None:
        """End some time."""


async def test_who_is_cancelled_twice_leaves_no_line_in_the_log() -> None:
    """As by a timeout, and then by a relay that has lost its claim."""
    loop, complaints = asyncio.get_running_loop(), list[Any]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    greeting = {
        "pid": 1,
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "synchronous_standby_names": "",
    }
    line = Line(cast("Any", Silent()), greeting)
    answer: asyncio.Future[None] = loop.create_future()

    async def ask() -> None:
        await answer

    task = asyncio.create_task(line.work(ask(), 60.0))
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    answer.set_exception(ConnectionError("closed in the middle of operation"))
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_tables_of_the_first_version_are_migrated(
    postgres_server: Server,
) -> None:
    """By another setup, with what is in them; until then they are refused."""
    dsn, schema = postgres_server.dsn, "migrated"
    log = PostgresLog(dsn, schema=schema)
    await log.setup()
    await log.open()
    await log.publish(make_chunk(1))
    await log.close()
    await sql(dsn, "alter table migrated.leases drop column progress")
    await sql(dsn, "update migrated.version set version = 1")

    with pytest.raises(ConfigurationError, match="relay setup"):
        await log.open()
    assert await log.setup() == ["tables of migrated brought to version 2"]
    assert await log.setup() == []
    await log.open()
    claim = await log.claim(PLACE, "relay", 60)
    assert claim is not None
    assert ids_of(await collect(claim, 1)) == ids_of([make_chunk(1)])
    await log.close()


async def test_a_database_that_is_not_there_is_named(postgres_server: Server) -> None:
    """With what to do, and without the password."""
    dsn = postgres_server.dsn.replace("/postgres", "/nowhere")
    with pytest.raises(ConfigurationError, match="create the database") as caught:
        await PostgresLog(dsn).open()
    assert "correct-horse" not in str(caught.value)
    # Tools that collect errors show the variables of each frame.
    told = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    frames = [line for line in told.format() if "/tests/" not in line]
    assert "correct-horse" not in "".join(frames)


def test_many_wait_for_a_connection_on_one_loop_after_another(
    postgres_server: Server, project_name: str
) -> None:
    """A log that was closed is opened again, on whatever loop."""
    log = PostgresLog(postgres_server.dsn, project=project_name)

    async def publish_many(first: int) -> None:
        await log.open()
        chunks = [make_chunk(number) for number in range(first, first + 40)]
        await asyncio.gather(*(log.publish(chunk) for chunk in chunks))
        await log.close()

    asyncio.run(log.setup())
    asyncio.run(publish_many(0))
    asyncio.run(publish_many(40))


# Room ------------------------------------------------------------------------


async def test_a_full_log_takes_chunks_again(
    postgres_server: Server, project_name: str
) -> None:
    """Once what waited was acknowledged, whatever the files still take."""
    dsn = postgres_server.dsn
    async with opened(dsn, project_name, max_bytes=200_000) as log:
        numbers = iter(range(100_000))

        async def full() -> bool:
            try:
                await log.publish(make_chunk(next(numbers), data=bytes(20_000)))
            except LogFullError:
                return True
            return False

        await until(full)
        with pytest.raises(LogFullError, match="max_bytes=200000"):
            await log.publish(make_chunk(next(numbers)))
        claim = await log.claim(PLACE, "relay", 60)
        assert claim is not None
        chunks = await collect(claim, 10)
        while more := await claim.read(MUCH):
            chunks += more
        await claim.acknowledge([chunk.position for chunk in chunks])

        async def takes() -> bool:
            return not await full()

        await until(takes)


async def test_a_full_log_takes_none_within_a_transaction(
    postgres_server: Server, project_name: str
) -> None:
    """It is told before anything is sent: the transaction goes on without the chunk."""
    dsn = postgres_server.dsn
    async with opened(dsn, project_name, max_bytes=100_000) as log:
        connection = await asyncpg.connect(dsn, ssl=False)
        numbers = iter(range(100_000))

        async def full() -> bool:
            try:
                chunk = make_chunk(next(numbers), data=b"x" * 50_000)
                await log.publish_in(connection, chunk)
            except LogFullError:
                return True
            return False

        try:
            await until(full)  # each in a transaction of its own
            async with connection.transaction():
                with pytest.raises(LogFullError, match="max_bytes=100000"):
                    await log.publish_in(connection, make_chunk(next(numbers)))
                assert await connection.fetchval("select 1") == 1
        finally:
            await connection.close()


async def test_acknowledged_rows_go_in_time(
    postgres_log: PostgresLog, postgres_server: Server
) -> None:
    """Their bytes at once, their ids after ten minutes, by whoever acknowledges."""
    dsn, project = postgres_server.dsn, postgres_log.project
    for number in range(30):
        await postgres_log.publish(make_chunk(number))
    claim = await postgres_log.claim(PLACE, "relay", 60)
    assert claim is not None
    positions = [chunk.position for chunk in await collect(claim, 30)]
    await claim.acknowledge(positions[:25])
    count = (
        "select count(*), count(data) from amplitude_async.chunks where project = $1"
    )
    assert tuple((await sql(dsn, count, project))[0]) == (30, 5)

    aged = (
        "update amplitude_async.chunks set acked_at = acked_at - interval '11 minutes' "
        "where project = $1"
    )
    await sql(dsn, aged, project)
    for position in positions[25:]:
        await claim.acknowledge([position])

    async def swept() -> bool:
        await claim.acknowledge([positions[0]])
        return tuple((await sql(dsn, count, project))[0]) == (5, 0)

    await until(swept)
    await postgres_log.publish(make_chunk(29))
    assert await claim.read(MUCH) == []


# Poolers, processes, disks ---------------------------------------------------


async def test_a_pooler_is_told_apart(
    pooler: Pooler, postgres_server: Server, project_name: str
) -> None:
    """Nothing is kept by name where the next server does not know it."""
    kept = "select from pg_prepared_statements where statement like '%insert into%'"
    for dsn, most in ((pooler.dsn, 0), (postgres_server.dsn, 1)):
        async with opened(dsn, project_name) as log:
            await log.publish(make_chunk(most))
            assert len(await log.ask(kept)) == most
            await asyncio.gather(*(log.publish(make_chunk(n)) for n in range(40)))
            assert len(await ids_in(log)) == 40


async def test_a_setting_of_a_neighbour_behind_the_pooler(own_server: Server) -> None:
    """It left synchronous_commit=off on the connection: that costs us nothing."""
    pooler = Pooler(own_server)
    await asyncio.to_thread(pooler.start, 1)
    try:
        async with opened(pooler.dsn, "neighbour") as log:
            await log.publish(make_chunk(0))
            await sql(own_server.dsn, "alter system set wal_writer_delay = '10s'")
            await sql(own_server.dsn, "select pg_reload_conf()")
            neighbour = await asyncpg.connect(pooler.dsn, statement_cache_size=0)
            await neighbour.execute("set synchronous_commit = off")
            await neighbour.close()
            for number in range(1, 20):
                await log.publish(make_chunk(number))
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
    finally:
        await asyncio.to_thread(pooler.remove)
    log = PostgresLog(own_server.dsn, project="neighbour")
    await log.open()
    expected = ids_of([make_chunk(number) for number in range(20)])
    assert await ids_in(log) == expected
    await log.close()


@pytest.mark.allow_blocking  # a fork waits for the loop of synchronous clients
async def test_a_child_leaves_the_parents_connection_alone(
    postgres_log: PostgresLog,
) -> None:
    """It abandons what it has inherited; both go on, each with its own session."""

    async def in_child() -> None:
        await postgres_log.open()
        await postgres_log.publish(make_chunk(9))
        await postgres_log.close()

    await postgres_log.publish(make_chunk(1))
    with warnings.catch_warnings():
        # Newer Pythons warn that there are threads: the child uses none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            postgres_log.abandon()
            asyncio.run(in_child())
            code = 0
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    line = postgres_log._lines._idle[-1]  # noqa: SLF001 - the very connection
    await postgres_log.publish(make_chunk(2))
    assert postgres_log._lines._idle[-1] is line  # noqa: SLF001
    expected = ids_of([make_chunk(number) for number in (1, 9, 2)])
    assert await ids_in(postgres_log) == expected


def processes_of(server: Server) -> list[int]:
    """List the server's processes: the main one, and those that it has started."""
    assert server.process is not None
    main = server.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="utf-8")
    return [main, *map(int, children.split())]


def test_each_acknowledgement_is_on_disk(own_server: Server, tmp_path: Path) -> None:
    """The server has synced at least as often, and the kernel knows."""
    count = 50

    async def publish() -> None:
        async with opened(own_server.dsn, "disk") as log:
            for number in range(count):
                await log.publish(make_chunk(number))

    async def prepare() -> None:
        await PostgresLog(own_server.dsn, project="disk").setup()

    asyncio.run(prepare())
    with counted_syncs(processes_of(own_server), tmp_path / "trace") as syncs:
        asyncio.run(publish())
    assert syncs.count >= count


async def test_a_lone_event_is_read_soon(postgres_log: PostgresLog) -> None:
    """However long nothing came: a wait never grows beyond a fifth of a second."""
    claim = await postgres_log.claim(PLACE, "relay", 60)
    assert claim is not None
    for _ in range(8):
        await claim.wait(60)
        assert await claim.read(MUCH) == []
    assert claim._next_look <= 0.2  # type: ignore[attr-defined]  # noqa: SLF001
