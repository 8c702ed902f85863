"""Clients that talk to the emulator, and what must hold after every test."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from amplitude_async import Amplitude, Stats
from amplitude_async.emulator import Emulator

__all__ = ["connect"]

KEY = "0123456789abcdef-secret"


def check_account(stats: Stats) -> None:
    """Fail unless the account of each destination adds up."""
    assert stats.balanced, stats
    for name, other in stats.destinations.items():
        assert other.balanced, (name, other)


@pytest.fixture
async def connect(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Callable[..., Amplitude]]:
    """Yield a function that makes clients of the emulator.

    Whatever the test does with them, their accounts add up before and after their
    shutdown, nothing stays undecided, and no line of the log holds the key.
    """
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    clients: list[Amplitude] = []

    def make(**options: Any) -> Amplitude:
        given = {"server_url": emulator.httpapi_url, **options}
        clients.append(Amplitude(KEY, **given))
        return clients[-1]

    yield make
    for client in clients:
        check_account(client.stats)
        stats = await client.shutdown(0.2)
        check_account(stats)
        assert [stats.pending, *(d.pending for d in stats.destinations.values())] == [
            0,
            *(0 for _ in stats.destinations),
        ]
    for line in caplog.get_records("call"):
        assert KEY not in line.getMessage()
