"""The tables of the log, and how they come to be what this version needs."""

from typing import Any, Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.postgres.line import Line
from amplitude_async.fleet.postgres.sql import PROJECT, in_schema
from amplitude_async.fleet.project import check_fixed

__all__ = ["VERSION", "check_version", "set_up"]

# Who sets up waits for who does so right now; poolers keep such a lock as well.
_LOCK: Final = "select pg_advisory_xact_lock(hashtext('amplitude_async.setup'))"
_THERE: Final = "select to_regclass('ax.version') is not null as there"
_SCHEMA_THERE: Final = "select to_regnamespace('$schema') is not null as there"

_FIRST: Final = """
create table ax.version (
    only_row boolean primary key default true check (only_row),
    version integer not null
);
insert into ax.version (version) values (0);
create table ax.projects (
    project text primary key,
    partitions integer not null check (partitions > 0)
);
create table ax.chunks (
    id bigint generated always as identity primary key,
    project text not null,
    destination text not null,
    partition integer not null,
    chunk_id text not null,
    data bytea,
    size integer not null,
    events integer not null,
    stored_at timestamptz not null default clock_timestamp(),
    acked_at timestamptz,
    unique (project, destination, chunk_id)
) with (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.01,
    toast.autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_cost_delay = 0
);
alter table ax.chunks alter column data set storage external;
create index chunks_waiting on ax.chunks (project, destination, partition, id)
    where acked_at is null;
create index chunks_acknowledged on ax.chunks (acked_at) where acked_at is not null;
create table ax.leases (
    project text not null,
    destination text not null,
    partition integer not null,
    holder text not null,
    token bigint not null,
    expires_at timestamptz not null,
    primary key (project, destination, partition)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200);
create table ax.relays (
    project text not null,
    destination text not null,
    holder text not null,
    expires_at timestamptz not null,
    primary key (project, destination, holder)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200);
create table ax.letters (
    id bigint generated always as identity primary key,
    project text not null,
    destination text not null,
    partition integer not null,
    key text not null,
    data bytea not null,
    code integer not null,
    message text not null,
    raw boolean not null,
    buried_at timestamptz not null default clock_timestamp(),
    unique (project, key)
);
create index letters_in_order on ax.letters (project, id);
"""

_SECOND: Final = """
alter table ax.leases add column progress bytea not null default '';
"""

# Each leads from the version of its place in the list to the next.
_STEPS: Final = (_FIRST, _SECOND)
VERSION: Final = len(_STEPS)

_SET_VERSION: Final = "update ax.version set version = $1"
_ADD_PROJECT: Final = "insert into ax.projects (project, partitions) values ($1, $2)"


async def set_up(
    line: Line, schema: str, *, project: str, partitions: int | None
) -> list[str]:
    """Make or migrate the tables, and note the project; all of it or nothing."""
    async with line.transaction():
        await line.fetch(_LOCK)
        done = await _migrate(line, schema)
        [found] = await line.fetch(in_schema(PROJECT, schema), project)
        there = found["partitions"]
        if there is None:
            count = partitions or 1
            await line.fetch(in_schema(_ADD_PROJECT, schema), project, count)
            return [*done, f"log {project} made, partitions: {count}"]
        check_fixed(project, partitions, there)
        return done


async def _migrate(line: Line, schema: str) -> list[str]:
    done = []
    version = 0
    [table] = await line.fetch(in_schema(_THERE, schema))
    if table["there"]:
        [row] = await line.fetch(in_schema("select version from ax.version", schema))
        version = row["version"]
        check_version(version, schema, migrating=True)
    else:
        # Who has no right to make a schema may have been given one.
        asked = _SCHEMA_THERE.replace("$schema", schema)
        [found] = await line.fetch(asked)
        if not found["there"]:
            await line.execute(f'create schema "{schema}"')
            done.append(f"schema {schema} made")
    for number, step in enumerate(_STEPS[version:], version + 1):
        await line.execute(in_schema(step, schema))
        await line.fetch(in_schema(_SET_VERSION, schema), number)
        done.append(f"tables of {schema} brought to version {number}")
    return done


def check_version(version: Any, schema: str, *, migrating: bool = False) -> None:
    """Refuse tables of another version.

    Raises:
        ConfigurationError: they are newer, or older and not about to be migrated.
    """
    if version > VERSION:
        msg = (
            f"schema {schema} has version {version}, and this release knows {VERSION} "
            "at most: upgrade amplitude-async here"
        )
        raise ConfigurationError(msg)
    if version < VERSION and not migrating:
        msg = (
            f"schema {schema} has version {version}, and this release needs "
            f"{VERSION}: run `amplitude-async relay setup`"
        )
        raise ConfigurationError(msg)
