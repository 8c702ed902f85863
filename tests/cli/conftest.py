"""A terminal of one width for every command, and processes that live."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from amplitude_async.storage.spool.lock import SpoolLock

__all__ = ["command_process", "living", "next_line", "terminal_width"]

LINE_TIMEOUT = 100.0


@pytest.fixture(autouse=True)
def terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no table depend on the terminal that the tests run in."""
    monkeypatch.setenv("COLUMNS", "100")


@contextmanager
def living(path: Path) -> Iterator[None]:
    """Hold the lock of a file as a living process does."""
    lock = SpoolLock.try_acquire(path)
    assert lock
    try:
        yield
    finally:
        lock.release(remove=True)


@asynccontextmanager
async def command_process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command, and leave no process behind."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "amplitude_async", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def next_line(process: asyncio.subprocess.Process) -> str:
    """Return the next line the process prints."""
    assert process.stdout
    return (await asyncio.wait_for(process.stdout.readline(), LINE_TIMEOUT)).decode()
