"""Impatient clients with a spool, and processes that are killed."""

import asyncio
import contextlib
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.emulator import Emulator
from amplitude_async.storage import SQLiteStorage

__all__ = ["HERE", "Ids", "default_options", "never_at_rest", "opened", "start_tracker"]

# The destination of the spools that are opened without a client.
HERE = "https://example.org/ 0123"
# The one that `connect` gives to every client.
KEY = "0123456789abcdef-secret"
# So short that no test waits, and long enough to be waits.
IMPATIENT: dict[str, Any] = {
    "flush_interval": 0.005,
    "retry_base_interval": 0.001,
    "retry_max_interval": 0.004,
    "retry_throttled_interval": 0.01,
    # An outage here fails more often in a second than one in life does in a day.
    "flush_max_retries": 100_000,
    "trust_env": False,
}

# Tracks as fast as it can until it is killed, and says what `track` accepted.
TRACKER = """
import asyncio, json, os, sys
from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

given = json.loads(sys.argv[1])

async def track(client, worker):
    number = 0
    while True:
        name = f"{given['name']}-{worker}-{number}"
        await client.track("e", user_id=f"user-{worker}", event_properties={"n": name})
        os.write(1, f"{name}\\n".encode())
        number += 1

async def main():
    storage = SQLiteStorage(given["directory"])
    async with Amplitude(given["key"], storage=storage, **given["options"]) as client:
        await asyncio.gather(*(track(client, worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.fixture
def never_at_rest(tmp_path: Path) -> Iterator[set[str]]:
    """Yield a set for secrets, which are nowhere on the disk in the end."""
    secrets: set[str] = set()
    yield secrets
    files = {path: content(path) for path in tmp_path.rglob("*")}
    found = [
        (path, secret)
        for path, held in files.items()
        for secret in secrets
        if secret.encode() in held
    ]
    assert found == []


def content(path: Path) -> bytes:
    """Read a file; nothing where it is none, or where its process removes it."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""


@pytest.fixture
def default_options(
    tmp_path: Path, never_at_rest: set[str]
) -> Callable[[], dict[str, Any]]:
    """Return what makes each client impatient, with a spool in one directory."""
    never_at_rest.add(KEY)
    return lambda: {**IMPATIENT, "storage": SQLiteStorage(tmp_path / "spool")}


class Tracker:
    """A process that tracks, and what it was told was accepted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.accepted: list[str] = []

    async def read(self, count: int) -> None:
        """Read until so many events were accepted."""
        output = self.process.stdout
        assert output is not None
        while len(self.accepted) < count:
            line = await output.readline()
            assert line, "the process ended by itself"
            self.accepted.append(line.decode().strip())

    async def kill(self) -> None:
        """Kill it as the kernel does when memory is short, and read the rest."""
        self.process.kill()
        output = self.process.stdout
        assert output is not None
        rest = await output.read()
        self.accepted += rest.decode().split("\n")[:-1]
        await self.process.wait()


@pytest.fixture
def start_tracker(emulator: Emulator, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts a tracking process and leaves none behind."""

    @asynccontextmanager
    async def start(name: str, **options: Any) -> AsyncIterator[Tracker]:
        given = {
            "name": name,
            "directory": str(tmp_path / "spool"),
            "key": KEY,
            "options": {**IMPATIENT, "server_url": emulator.httpapi_url, **options},
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(TRACKER),
            json.dumps(given),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Tracker(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    return start


class Ids:
    """Gives ids out, as an engine does."""

    def __init__(self) -> None:
        self._next = 1

    def __call__(self, count: int) -> int:
        """Reserve so many; returns the first."""
        first, self._next = self._next, self._next + count
        return first


@asynccontextmanager
async def opened(
    directory: Path, **options: Any
) -> AsyncIterator[tuple[SQLiteStorage, Ids, int]]:
    """Open a spool, say what it took over, and close it in the end."""
    storage, ids = SQLiteStorage(directory, **options), Ids()
    recovered = await storage.open(HERE, ids)
    try:
        yield storage, ids, recovered
    finally:
        await storage.close()
