"""Every statement of the log. ``ax.`` stands for its schema."""

from typing import Final

__all__ = [
    "ACKNOWLEDGE",
    "ANNOUNCE",
    "BACKLOG",
    "BURY",
    "CLAIM",
    "FORGET_LETTERS",
    "GREETING",
    "LETTERS",
    "LIVE_BYTES",
    "NOTE_PROGRESS",
    "PROJECT",
    "PUBLISH",
    "READ",
    "RELEASE",
    "RENEW",
    "WHOLE_SIZE",
    "WITHDRAW",
    "in_schema",
]

PLACEHOLDER: Final = "ax."

# Who asks a pooler is told another number than the server has.
GREETING: Final = """
select pg_backend_pid() as pid,
       pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as frozen,
       current_setting('fsync') as fsync,
       current_setting('synchronous_commit') as synchronous_commit,
       current_setting('full_page_writes') as full_page_writes,
       current_setting('synchronous_standby_names') as synchronous_standby_names
"""

PROJECT: Final = """
select v.version, p.partitions,
       has_column_privilege('ax.chunks', 'size', 'select') as may_count
from ax.version v left join ax.projects p on p.project = $1
"""

# Its own transaction, that is. What another user of a pooler's connection set, or an
# operator sets today, must not make an acknowledgement worth less: such a session is
# set right for this statement alone.
_DURABLY: Final = """
coalesce(case current_setting('synchronous_commit')
         when 'off' then set_config('synchronous_commit', 'on', true) end, 'on') <> ''
"""

# Without a target of the conflict no right to read is needed. Where another publishes
# the same id right now, the server waits until that one's commit is on disk.
PUBLISH: Final = f"""
insert into ax.chunks (project, destination, partition, chunk_id, data, size, events)
select $1::text, $2::text, $3::int, $4::text, $5::bytea, $6::int, $7::int
where {_DURABLY}
on conflict do nothing
"""

# Not above a position: ids are given when a statement runs, and seen when it is
# committed, so that a lower one may come to light later.
READ: Final = """
with next as (
    select c.id, c.chunk_id, c.data, c.size, c.stored_at
    from ax.chunks c
    where c.project = $1 and c.destination = $2 and c.partition = $3
      and c.acked_at is null
      and c.id <> all($5::bigint[])
      and exists (
          select from ax.leases l
          where l.project = $1 and l.destination = $2 and l.partition = $3
            and l.token = $4)
    order by c.id
    limit $6
), summed as (
    select next.*,
           sum(size) over (order by id rows unbounded preceding) as up_to,
           row_number() over (order by id) as number
    from next
)
select id, chunk_id, data, extract(epoch from stored_at)::float8 as stored_at
from summed
where up_to <= $7 or number = 1
order by id
"""

# An acknowledged row stays without its bytes, so that its id is known; those that are
# old enough go with whoever acknowledges next.
ACKNOWLEDGE: Final = """
with swept as (
    delete from ax.chunks where id in (
        select id from ax.chunks
        where acked_at < clock_timestamp() - interval '10 minutes'
        order by acked_at limit $5
        for update skip locked)
)
update ax.chunks set data = null, acked_at = clock_timestamp()
where project = $1 and destination = $2 and partition = $3
  and id = any($4::bigint[]) and acked_at is null
"""

CLAIM: Final = """
insert into ax.leases as l
    (project, destination, partition, holder, token, expires_at)
values ($1, $2, $3, $4, 1, clock_timestamp() + $5 * interval '1 second')
on conflict (project, destination, partition) do update
set holder = excluded.holder,
    token = l.token + 1,
    expires_at = clock_timestamp() + $5 * interval '1 second'
where l.expires_at <= clock_timestamp() or l.holder = excluded.holder
returning token, progress
"""

NOTE_PROGRESS: Final = """
update ax.leases set progress = $5
where project = $1 and destination = $2 and partition = $3 and token = $4
"""

RENEW: Final = """
update ax.leases set expires_at = clock_timestamp() + $5 * interval '1 second'
where project = $1 and destination = $2 and partition = $3 and token = $4
returning token
"""

# The row stays: its token only ever grows.
RELEASE: Final = """
update ax.leases set expires_at = '-infinity', holder = '', token = token + 1
where project = $1 and destination = $2 and partition = $3 and token = $4
"""

ANNOUNCE: Final = """
with mine as (
    insert into ax.relays (project, destination, holder, expires_at)
    values ($1, $2, $3, clock_timestamp() + $4 * interval '1 second')
    on conflict (project, destination, holder) do update
    set expires_at = excluded.expires_at
), dead as (
    delete from ax.relays where (project, destination, holder) in (
        select project, destination, holder from ax.relays
        where expires_at < clock_timestamp() - interval '1 minute'
          and not (project = $1 and destination = $2 and holder = $3)
        limit 10 for update skip locked)
)
select 1 + count(*) as living from ax.relays
where project = $1 and destination = $2 and holder <> $3
  and expires_at > clock_timestamp()
"""

WITHDRAW: Final = """
delete from ax.relays where project = $1 and destination = $2 and holder = $3
"""

BACKLOG: Final = """
with waiting as (
    select destination, partition, count(*) as chunks, sum(events) as events,
           sum(size) as size, min(stored_at) as oldest
    from ax.chunks
    where project = $1 and acked_at is null
    group by destination, partition
), held as (
    select destination, partition,
           case when expires_at > clock_timestamp() then holder end as holder
    from ax.leases where project = $1
)
select destination, partition, coalesce(chunks, 0) as chunks,
       coalesce(events, 0)::bigint as events, coalesce(size, 0)::bigint as size,
       greatest(extract(epoch from clock_timestamp() - oldest)::float8, 0) as age,
       oldest is not null as waits, holder
from waiting full join held using (destination, partition)
order by destination, partition
"""

BURY: Final = """
insert into ax.letters
    (project, destination, partition, key, data, code, message, raw)
select $1, l.destination, l.partition, l.key, l.data, l.code, l.message, l.raw
from unnest($2::text[], $3::int[], $4::text[], $5::bytea[], $6::int[], $7::text[],
            $8::bool[])
     with ordinality
     as l(destination, partition, key, data, code, message, raw, number)
where $durably
order by l.number
on conflict do nothing
""".replace("$durably", _DURABLY)

LETTERS: Final = """
select id, extract(epoch from buried_at)::float8 as buried_at,
       key, destination, partition, data, code, message, raw
from ax.letters where project = $1 and id > $2 order by id limit $3
"""

FORGET_LETTERS: Final = """
delete from ax.letters where project = $1 and id = any($2::bigint[])
"""

# The files of all projects: cheap to ask for, and never less than one has in them.
WHOLE_SIZE: Final = """
select pg_total_relation_size('ax.chunks') as size
"""

LIVE_BYTES: Final = """
select coalesce(sum(size), 0)::bigint as size from ax.chunks
where project = $1 and acked_at is null
"""


def in_schema(statement: str, schema: str) -> str:
    """Put the name of the schema in; it was checked to need no escape."""
    return statement.replace(PLACEHOLDER, f'"{schema}".')
