"""A log in a database that most services run already."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogRefusedError,
)
from amplitude_async.fleet.log import (
    DEFAULT_PROJECT,
    Backlog,
    BuriedLetter,
    Chunk,
    Claim,
    Letter,
    Log,
    Place,
    Settings,
)
from amplitude_async.fleet.opening import Opening
from amplitude_async.fleet.postgres import letters as dead
from amplitude_async.fleet.postgres.access import read_dsn
from amplitude_async.fleet.postgres.claim import PostgresClaim
from amplitude_async.fleet.postgres.gauge import Gauge
from amplitude_async.fleet.postgres.line import WrongSettingError
from amplitude_async.fleet.postgres.lines import ANSWER_LIMIT, Lines
from amplitude_async.fleet.postgres.outbox import put
from amplitude_async.fleet.postgres.sql import (
    ANNOUNCE,
    BACKLOG,
    CLAIM,
    LIVE_BYTES,
    PROJECT,
    PUBLISH,
    WHOLE_SIZE,
    WITHDRAW,
    in_schema,
)
from amplitude_async.fleet.postgres.tables import check_version, set_up
from amplitude_async.fleet.project import check_partitions, check_project
from amplitude_async.shown import shown

__all__ = ["PostgresLog"]

MEBIBYTE: Final = 1024 * 1024
DEFAULT_MAX_BYTES: Final = 10 * 1024 * MEBIBYTE
MAX_CHUNK_BYTES: Final = 4 * MEBIBYTE
DEFAULT_SCHEMA: Final = "amplitude_async"
SETUP_LIMIT: Final = 60.0
COUNT_LIMIT: Final = 30.0
LONGEST_TIMEOUT: Final = 60.0
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PostgresLog(Log):
    """One project's log in a PostgreSQL database; several projects share its tables.

    It needs PostgreSQL 13 or newer, and works through a pooler in transaction mode.

    A role that only publishes needs ``USAGE`` on the schema, ``SELECT`` on ``version``
    and ``projects``, ``INSERT`` on ``chunks``, and, for ``max_bytes``, ``SELECT
    (project, acked_at, size)`` on it. A relay's needs ``SELECT, INSERT, UPDATE,
    DELETE`` on all of the schema's tables.

    Args:
        dsn: ``postgresql://user:password@host/database``; with several hosts,
            ``one,two``, the one that takes writes is used.
        project: whose events these are.
        schema: of the tables.
        max_bytes: most bytes of chunks that wait, of this project; it is looked at once
            a second, so a little more may come in. None: no limit but the disk's.
        timeout: seconds for a connection, and for an answer; after that a publish has
            failed, and its connection is ended.

    Raises:
        ConfigurationError: an argument is wrong; it is named.
    """

    def __init__(
        self,
        dsn: str,
        *,
        project: str = DEFAULT_PROJECT,
        schema: str = DEFAULT_SCHEMA,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        timeout: float = ANSWER_LIMIT,
    ) -> None:
        self._access = read_dsn(dsn)
        check_project(project)
        if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema):
            msg = (
                f"schema={shown(schema)} is no name of a schema: use a-z, 0-9 and _, "
                "and no digit first"
            )
            raise ConfigurationError(msg)
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
            msg = f"max_bytes={shown(max_bytes)}: give a number of bytes, or None"
            raise ConfigurationError(msg)
        if type(timeout) not in {int, float} or not 0 < timeout <= LONGEST_TIMEOUT:
            msg = f"timeout={shown(timeout)}: give seconds, {LONGEST_TIMEOUT:g} at most"
            raise ConfigurationError(msg)
        self._timeout = float(timeout)
        self.project = project
        self.max_chunk_bytes = MAX_CHUNK_BYTES
        self._schema = schema
        self._max_bytes = max_bytes
        self._settings: Settings | None = None
        self._begin()

    def _begin(self) -> None:
        self._lines = Lines(self._access, self._timeout)
        self._gauge = Gauge(self._max_bytes, self._whole_size, self._live_bytes)
        self._opening = Opening(partial(self._give_up, self._lines))

    def __repr__(self) -> str:
        try:
            state = "closed" if self._settings is None else "open"
        except AttributeError:
            # As a traceback of its constructor shows it.
            return "<PostgresLog half-built>"
        return f"<PostgresLog {self.fingerprint()}: {state}>"

    def fingerprint(self) -> str:
        """Name hosts, database and project."""
        schema = "" if self._schema == DEFAULT_SCHEMA else f"{self._schema}."
        return f"postgresql://{self._access}/{schema}{self.project}"

    async def ask(self, statement: str, *args: Any) -> Any:
        """Run one statement of the log's, in a transaction of its own."""
        return await self._lines.ask(in_schema(statement, self._schema), *args)

    # Beginning and end -------------------------------------------------------

    async def setup(self, partitions: int | None = None) -> list[str]:
        """Make or migrate the tables; hosts may do so at once."""
        check_partitions(partitions)
        lines = Lines(self._access, self._timeout)
        lines.open()
        try:
            done: list[str] = await lines.work(
                lambda line: set_up(
                    line, self._schema, project=self.project, partitions=partitions
                ),
                SETUP_LIMIT,
            )
        except WrongSettingError as error:
            raise ConfigurationError(str(error)) from error
        finally:
            await lines.close()
        return done

    async def open(self) -> Settings:
        """Connect, and check settings and tables."""
        if self._settings is not None:
            return self._settings
        self._lines.open()
        async with self._opening.attempt():
            settings = self._settings = await self._look()
        return settings

    async def _give_up(self, lines: Lines) -> None:
        if self._settings is None or lines is not self._lines:
            await lines.close()

    async def _look(self) -> Settings:
        try:
            async with self._lines.line() as line:
                warnings = [*line.warnings]
            rows = await self.ask(PROJECT, self.project)
        except WrongSettingError as error:
            raise ConfigurationError(str(error)) from error
        except LogRefusedError as error:
            msg = f"log {self.project} cannot be used: {error}"
            raise ConfigurationError(msg) from error
        check_version(rows[0]["version"] if rows else 0, self._schema)
        partitions = rows[0]["partitions"]
        if partitions is None:
            msg = (
                f"log {self.project} was not set up: run `amplitude-async relay "
                "setup`, or await its setup() first"
            )
            raise ConfigurationError(msg)
        if self._max_bytes is not None and not rows[0]["may_count"]:
            warnings.append(
                "this role may not count what waits, and max_bytes is not kept: grant "
                f"select (project, acked_at, size) on {self._schema}.chunks"
            )
        return Settings(partitions, synced=True, warnings=tuple(warnings))

    async def close(self) -> None:
        """Close the connections; what was claimed stays so until its lease runs out."""
        self._settings = None
        lines, gauge = self._lines, self._gauge
        self._begin()  # who opens it from here on has connections of their own
        await gauge.close()
        await lines.close()

    def abandon(self) -> None:
        """Forget the connections of a parent, or of a closed loop."""
        self._settings = None
        self._lines.forget()
        self._begin()

    # Publishing --------------------------------------------------------------

    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk: one statement, on disk when it is answered."""
        row = self._row(chunk)
        self._gauge.check()
        statement = in_schema(PUBLISH, self._schema)
        await self._lines.ask(statement, *row, urgent=True)

    async def publish_in(self, connection: Any, chunk: Chunk) -> None:
        """Store a chunk with the caller's transaction; neither committed nor undone.

        It is handed out once the transaction was committed, and never if it is not.
        Between what is published here and directly there is no order.

        Args:
            connection: to this log's database: asyncpg's, psycopg's asynchronous one,
                or SQLAlchemy's ``AsyncConnection`` or ``AsyncSession``.

        Raises:
            ConfigurationError: it is none of these.
            LogFullError: ``max_bytes`` are there; nothing was sent, and the transaction
                may go on without the chunk.
            LogError: the database refuses the statement, and as always with it the
                whole transaction; the driver's own error is the cause.
        """
        row = self._row(chunk)
        self._gauge.check()
        await put(connection, in_schema(PUBLISH, self._schema), row)

    def _row(self, chunk: Chunk) -> tuple[Any, ...]:
        size = len(chunk.data)
        if size > self.max_chunk_bytes:
            msg = f"a chunk has {size} of {self.max_chunk_bytes} bytes"
            raise ChunkTooLargeError(msg)
        self._check_place(chunk.place)
        return self.project, *chunk.place, chunk.id, chunk.data, size, chunk.events

    def _check_place(self, place: Place) -> None:
        settings = self._settings
        if settings is not None and not 0 <= place.partition < settings.partitions:
            msg = f"{place} is no place of a log of {settings.partitions} partitions"
            raise LogRefusedError(msg)

    async def _whole_size(self) -> int:
        rows = await self.ask(WHOLE_SIZE)
        return int(rows[0]["size"])

    async def _live_bytes(self) -> int:
        statement = in_schema(LIVE_BYTES, self._schema)
        rows = await self._lines.ask(statement, self.project, limit=COUNT_LIMIT)
        return int(rows[0]["size"])

    # Claims ------------------------------------------------------------------

    async def claim(self, place: Place, holder: str, lease: float) -> Claim | None:
        """Claim a place by its lease row, and the database's clock."""
        self._check_place(place)
        rows = await self.ask(CLAIM, self.project, *place, holder, float(lease))
        if not rows:
            return None
        return PostgresClaim(
            self.ask,
            place,
            project=self.project,
            token=rows[0]["token"],
            lease=float(lease),
            progress=rows[0]["progress"],
        )

    async def announce(self, destination: str, holder: str, lease: float) -> int:
        """Say that a relay lives."""
        rows = await self.ask(ANNOUNCE, self.project, destination, holder, float(lease))
        return int(rows[0]["living"])

    async def withdraw(self, destination: str, holder: str) -> None:
        """Say that a relay lives no longer."""
        await self.ask(WITHDRAW, self.project, destination, holder)

    async def backlog(self) -> list[Backlog]:
        """Say what waits."""
        statement = in_schema(BACKLOG, self._schema)
        rows = await self._lines.ask(statement, self.project, limit=COUNT_LIMIT)
        return [
            Backlog(
                Place(row["destination"], row["partition"]),
                chunks=row["chunks"],
                events=row["events"],
                size=row["size"],
                oldest_age=row["age"] if row["waits"] else None,
                holder=row["holder"],
            )
            for row in rows
        ]

    # Dead letters ------------------------------------------------------------

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Keep dead letters."""
        await dead.bury(self.ask, self.project, letters)

    async def letters(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read dead letters."""
        return await dead.read(self.ask, self.project, after=after, limit=limit)

    async def forget_letters(self, positions: Sequence[int]) -> None:
        """Take dead letters away."""
        await dead.forget(self.ask, self.project, positions)
