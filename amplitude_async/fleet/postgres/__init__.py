"""A log in PostgreSQL: chunk rows, a lease row for each place, one schema.

It needs the extra ``postgres``: ``pip install 'amplitude-async[postgres]'``.
"""

from amplitude_async.fleet.postgres.log import PostgresLog

__all__ = ["PostgresLog"]
