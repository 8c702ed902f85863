"""A storage that is slow to open: nobody waits for it, and nothing of it stays."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import SQLiteStorage
from amplitude_async.storage.spool.lock import SpoolLock
from amplitude_async.storage.spool.sources import Sources

__all__: list[str] = []

Connect = Callable[..., Amplitude]
SOON = 5.0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no spool open before this is set."""
    opened, really_open = threading.Event(), Sources.open

    def wait_and_open(sources: Sources, *args: Any) -> None:
        opened.wait(10.0)
        really_open(sources, *args)

    monkeypatch.setattr(Sources, "open", wait_and_open)
    yield opened
    opened.set()


def spool_threads() -> int:
    """Count the threads of spools."""
    return sum("spool" in thread.name for thread in threading.enumerate())


def all_free(spool: Path) -> None:
    """Wait until no spool has a thread, and no lock is held."""
    give_up_at = time.monotonic() + SOON
    while spool_threads():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    for lock in spool.glob("*.lock"):
        assert not SpoolLock.is_held(lock.with_suffix(""))


async def abort_shutdown(client: Amplitude, starting: "asyncio.Task[Any]") -> None:
    """Shut down while the first verb waits."""
    await client.shutdown(0.05)
    await asyncio.wait_for(starting, SOON)


async def abort_cancelled(client: Amplitude, starting: "asyncio.Task[Any]") -> None:
    """Cancel the first verb, and shut down."""
    starting.cancel()
    await asyncio.wait({starting})
    await client.shutdown(0.05)


@pytest.mark.parametrize("abort", [abort_shutdown, abort_cancelled])
async def test_an_end_during_the_start_leaves_nothing(
    abort: Callable[[Amplitude, Any], Awaitable[None]],
    connect: Connect,
    gate: threading.Event,
    tmp_path: Path,
) -> None:
    """Neither thread nor lock, once the opening has ended."""
    spool = tmp_path / "spool"
    client = connect(storage=SQLiteStorage(spool), overflow_timeout=3_600.0)
    starting = asyncio.create_task(client.track("e", user_id="user-1"))
    await asyncio.sleep(0.05)
    await abort(client, starting)
    assert client.stats.balanced
    gate.set()
    await asyncio.to_thread(all_free, spool)
    async with connect(storage=SQLiteStorage(spool)) as again:
        assert again.stats.durable


async def test_an_aborted_start_leaves_nothing(
    connect: Connect, gate: threading.Event, tmp_path: Path
) -> None:
    """The block of a client is not entered, and nothing stays behind."""
    spool = tmp_path / "spool"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), connect(storage=SQLiteStorage(spool)):
            pytest.fail("it is not open")
    gate.set()
    await asyncio.to_thread(all_free, spool)


async def test_the_first_verbs_go_on_without_a_slow_spool(
    connect: Connect, gate: threading.Event, tmp_path: Path
) -> None:
    """They wait for it as long as for any disk; later ones are durable again."""
    storage = SQLiteStorage(tmp_path / "spool")
    client = connect(storage=storage, overflow_timeout=0.1)
    async with asyncio.timeout(SOON):
        await asyncio.gather(*(client.track("e", user_id="user-1") for _ in range(9)))
        assert not client.stats.durable
        gate.set()
        await client.start()
        assert client.stats.durable
        await client.track("e", user_id="user-1")
        await client.shutdown()
    assert client.stats.delivered == 10


async def test_a_start_waits_for_a_slow_spool_but_not_for_ever(
    connect: Connect,
    gate: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says what is wrong."""
    monkeypatch.setattr("amplitude_async.delivery.journal.PATIENCE", 0.2)
    storage = SQLiteStorage(tmp_path / "spool")
    with pytest.raises(StorageError, match=r"SQLiteStorage has not opened"):
        async with connect(storage=storage, overflow_timeout=0.1):
            pytest.fail("it is not open")
    gate.set()
    await asyncio.to_thread(all_free, tmp_path / "spool")
