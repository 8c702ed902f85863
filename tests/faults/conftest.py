"""Impatient clients of a failing server, and what must hold whatever it does."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amplitude_async import Amplitude, DeliveryResult

__all__ = ["default_options", "results"]

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
def default_options(
    results: list[DeliveryResult], clients: list[Amplitude]
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield what makes each client impatient, with a callback.

    Whatever the server did, every accepted event has had exactly one callback when its
    client is shut down.
    """
    yield lambda: {**IMPATIENT, "callback": results.append}
    calls = Counter(result.insert_id for result in results)
    assert set(calls.values()) <= {1}
    assert len(calls) == sum(c.stats.accepted for c in clients if c.config.callback)
