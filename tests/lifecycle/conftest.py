"""Clients of a local server, which end with the test."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator

__all__ = ["connect"]


@pytest.fixture
async def connect(emulator: Emulator) -> AsyncIterator[Callable[..., Amplitude]]:
    """Yield a function that makes clients; their accounts add up at the end."""
    clients: list[Amplitude] = []

    def make(**options: Any) -> Amplitude:
        given = {"server_url": emulator.httpapi_url, "trust_env": False}
        clients.append(Amplitude("test-key", **{**given, **options}))
        return clients[-1]

    yield make
    for client in clients:
        stats = await client.shutdown(1.0)
        assert stats.balanced, stats
        assert stats.pending == 0
