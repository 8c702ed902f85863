"""PostgreSQL keeps what a log promises, on a real server."""

from pathlib import Path

import pytest

from amplitude_async.fleet.log import Log
from amplitude_async.fleet.postgres import PostgresLog
from amplitude_async.testing.log_contract import LogContract, project_of
from tests.fleet.postgres_server import (
    PASSWORD,
    Pooler,
    Server,
    pooler,
    postgres_log,
    postgres_server,
)
from tests.fleet.real_servers import project_name

__all__ = ["pooler", "postgres_log", "postgres_server", "project_name"]


class TestPostgresLog(LogContract):
    """On a server."""

    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: Server) -> None:
        self.dsn = postgres_server.dsn

    def make(self, directory: Path) -> Log:
        """Make a log whose server asks for no password, and is told one."""
        return PostgresLog(self.dsn, project=project_of(directory))


class TestPooledPostgresLog(LogContract):
    """Through a pooler that gives each transaction another connection."""

    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def _pooler(self, pooler: Pooler) -> None:
        self.dsn = pooler.dsn

    def make(self, directory: Path) -> Log:
        """Make a log that does not know of the pooler."""
        return PostgresLog(self.dsn, project=project_of(directory))
