"""Fixtures of a fleet: a log that is open."""

from collections.abc import AsyncIterator

import pytest

from amplitude_async.fleet.memory import MemoryLog

__all__ = ["memory_log"]


@pytest.fixture
async def memory_log() -> AsyncIterator[MemoryLog]:
    """Yield an open log in memory, of one partition."""
    log = MemoryLog()
    await log.open()
    yield log
    await log.close()
