"""Impatient clients of a failing server, and what must hold whatever it does."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from amplitude_async import Amplitude, DeliveryResult
from amplitude_async.emulator import Emulator

__all__ = ["connect", "results"]

KEY = "0123456789abcdef-secret"
# So short that no test waits, and long enough to be waits.
IMPATIENT: dict[str, Any] = {
    "flush_queue_size": 10,
    "flush_interval": 0.005,
    "retry_base_interval": 0.001,
    "retry_max_interval": 0.004,
    "retry_throttled_interval": 0.01,
    "trust_env": False,
}


@pytest.fixture
def results() -> list[DeliveryResult]:
    """Return the list in which the callbacks of all clients are collected."""
    return []


@pytest.fixture
async def connect(
    emulator: Emulator,
    results: list[DeliveryResult],
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Callable[..., Amplitude]]:
    """Yield a function that makes impatient clients of the emulator.

    Whatever the server did, every accepted event has had exactly one callback when its
    client is shut down, the account adds up, and no line of the log holds the key.
    """
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    clients: list[Amplitude] = []

    def make(**options: Any) -> Amplitude:
        given = {"server_url": emulator.httpapi_url, "callback": results.append}
        clients.append(Amplitude(KEY, **{**IMPATIENT, **given, **options}))
        return clients[-1]

    yield make
    for client in clients:
        assert client.stats.balanced, client.stats
        stats = await client.shutdown(0.1)
        assert stats.balanced, stats
        assert stats.pending == 0
    calls = Counter(result.insert_id for result in results)
    assert set(calls.values()) <= {1}
    assert len(calls) == sum(c.stats.accepted for c in clients if c.config.callback)
    lines = [record.getMessage() for record in caplog.get_records("call")]
    assert KEY not in "".join(lines)
