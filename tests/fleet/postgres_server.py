"""A real PostgreSQL server for tests, of a cluster of its own, and a pooler."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amplitude_async.fleet.postgres import PostgresLog
from tests.fleet.real_servers import free_ports, program

__all__ = [
    "PASSWORD",
    "Pooler",
    "Server",
    "free_port",
    "pooler",
    "postgres_log",
    "postgres_server",
    "running",
]

PASSWORD = "correct-horse-battery"
USER = "fleet"
START_LIMIT = 30.0
LOOK = 0.02
PORTS = range(18_000, 19_900)
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "fsync": "on",
    # Nothing of these matters to a test, and each has a process.
    "autovacuum_naptime": "5s",
    "max_parallel_workers": "0",
    "max_logical_replication_workers": "0",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    return free_ports(1, PORTS)[0]


def _user() -> str | None:
    """Name who may run a server: it refuses to be root's."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip("NO USER to run PostgreSQL as: PostgresLog is NOT tested")


class _Service:
    """A process that listens on a port."""

    def __init__(self) -> None:
        # Not one of pytest's: those are closed to others again whenever a session
        # begins beside this one, and too deep for the path of a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="amplitude-async-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._account = _user()
        if self._account is not None:
            entry = pwd.getpwnam(self._account)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)

    def run(self, *command: str) -> None:
        """Run a program to its end."""
        subprocess.run(
            command,
            user=self._account,
            check=True,
            capture_output=True,
            cwd=self.folder,
            timeout=START_LIMIT,
        )

    def launch(self, *command: str) -> None:
        """Start a process, and wait until somebody listens."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                user=self._account,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                words = (self.folder / "log").read_text(errors="replace")[-2_000:]
                raise OSError(f"{command[0]} did not start: {words}")
            time.sleep(LOOK)

    def answers(self) -> bool:
        """Say whether somebody listens."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self, number: int) -> None:
        """Send a signal to the process, and wait until it is gone."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def remove(self) -> None:
        """End the process, if there is one, and remove what it has written."""
        self.end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)


class Server(_Service):
    """A cluster that can be killed and started again.

    Args:
        settings: more of ``postgresql.conf``.
    """

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self.settings = {**SETTINGS, **settings}
        self.data = self.folder / "data"

    @property
    def dsn(self) -> str:
        """Where it is, with a password that it does not ask for."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make the cluster, and start it."""
        initdb = program("initdb", "apt-get install postgresql")
        options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.run(initdb, "-D", str(self.data), *options)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {**self.settings, "unix_socket_directories": str(self.folder)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        binary = program("postgres", "apt-get install postgresql")
        self.launch(binary, "-D", str(self.data), "-p", str(self.port), *options)

    def answers(self) -> bool:
        """Say whether it takes connections."""
        asking = program("pg_isready", "apt-get install postgresql-client")
        command = [asking, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def kill(self) -> None:
        """End it as a crash does; its children see that, and end as well."""
        self.end(signal.SIGKILL)
        # A new one refuses to start while a child of the old has the memory.
        deadline = time.monotonic() + START_LIMIT
        while self._has_children() and time.monotonic() < deadline:
            time.sleep(LOOK)

    def _has_children(self) -> bool:
        asked = ["pgrep", "-f", f"postgres.*{self.data}"]
        if subprocess.run(asked, check=False, capture_output=True).returncode == 0:
            return True
        return self.answers()

    def stop(self) -> None:
        """End it."""
        self.end(signal.SIGINT)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Make a cluster, start it, and leave nothing of it in the end."""
    try:
        server.create()
        yield server
    finally:
        server.remove()


class Pooler(_Service):
    """PgBouncer in transaction mode before a server, with very few connections."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    @property
    def dsn(self) -> str:
        """Where it is."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self, size: int = 2) -> None:
        """Start it with so many connections to the server."""
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._server.port} user={USER}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "auth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {size}\nunix_socket_dir =\n",
            encoding="utf-8",
        )
        config.chmod(0o644)
        self.launch(program("pgbouncer", "apt-get install pgbouncer"), str(config))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Yield a server that every test of this process may use, but not end."""
    program("initdb", "apt-get install postgresql")
    with running(Server()) as server:
        yield server


@pytest.fixture(scope="session")
def pooler(postgres_server: Server) -> Iterator[Pooler]:
    """Yield a pooler before the server."""
    pooler = Pooler(postgres_server)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.remove()


@pytest.fixture
async def postgres_log(
    postgres_server: Server, project_name: str
) -> AsyncIterator[PostgresLog]:
    """Yield an open log of one partition."""
    log = PostgresLog(postgres_server.dsn, project=project_name)
    await log.setup()
    await log.open()
    yield log
    await asyncio.wait_for(log.close(), 10)
