"""A terminal of one width for every command, and processes that live."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amplitude_async.storage.spool.lock import SpoolLock

__all__ = ["living", "terminal_width"]


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
