"""Fixtures for tests of the synchronous clients: a server in a thread, processes."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import EnrichmentPlugin
from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude

__all__ = ["HoldsUp", "Run", "connect", "run", "server"]

TIMEOUT = 60.0

Run = Callable[..., subprocess.CompletedProcess[str]]


class HoldsUp(EnrichmentPlugin):
    """A plain plugin that holds the loop up until it may go on."""

    name = "holds up"

    def __init__(self) -> None:
        self.held, self.go = threading.Event(), threading.Event()

    def execute(self, event: Any) -> Any:
        """Keep the event, and with it the loop."""
        self.held.set()
        # No call that blocks: the tests would not let it through.
        while not self.go.is_set():
            pass
        return event


@pytest.fixture
def server() -> Iterator[Emulator]:
    """Yield a local Amplitude server that runs on a thread of its own."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def connect(server: Emulator) -> Iterator[Callable[..., SyncAmplitude]]:
    """Yield a function that makes clients of the server; their accounts add up."""
    clients = []

    def make(**options: Any) -> SyncAmplitude:
        given = {"server_url": server.httpapi_url, "trust_env": False, **options}
        client = SyncAmplitude("0123456789abcdef-secret", **given)
        clients.append(client)
        return client

    yield make
    for client in clients:
        assert client.stats.balanced
        stats = client.shutdown(1.0)
        assert (stats.balanced, stats.pending) == (True, 0)


@pytest.fixture
def run(server: Emulator, tmp_path: Path) -> Run:
    """Return a function that runs a script in a process of its own, to its end.

    The script finds the server's address in ``URL``.
    """

    def start(script: str, *args: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script), encoding="utf-8")
        environment = {
            **os.environ,
            "URL": server.httpapi_url,
            "AMPLITUDE_API_KEY": "key",
            "AMPLITUDE_SERVER_URL": server.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
        }
        return subprocess.run(
            [sys.executable, str(path), *args],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            text=True,
            timeout=TIMEOUT,
        )

    return start
