"""mParticle batches survive in the same spool."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import DeliveryStatus
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

KEY, SECRET = "key-of-the-tests", "secret-of-the-tests"


@pytest.fixture
async def make_client(
    emulator: Emulator, tmp_path: Path
) -> AsyncIterator[Callable[..., MParticle]]:
    """Yield a function that makes clients with a spool in one directory."""
    clients: list[MParticle] = []

    def make(**options: Any) -> MParticle:
        given = {
            "environment": "development",
            "base_url": emulator.mparticle_url,
            "flush_interval": 0.005,
            "retry_base_interval": 0.001,
            "retry_max_interval": 0.004,
            "flush_max_retries": 100_000,
            "trust_env": False,
            "storage": SQLiteStorage(tmp_path / "spool"),
            **options,
        }
        clients.append(MParticle(KEY, SECRET, **given))
        return clients[-1]

    yield make
    for client in clients:
        stats = await client.shutdown(0.2)
        assert stats.balanced, stats
    at_rest = await asyncio.to_thread(all_bytes, tmp_path)
    assert KEY.encode() not in at_rest
    assert SECRET.encode() not in at_rest


def all_bytes(directory: Path) -> bytes:
    """Read everything below a directory."""
    return b"".join(p.read_bytes() for p in directory.rglob("*") if p.is_file())


def batch(user: str) -> Batch:
    """Build a batch of one user with one event."""
    return Batch(
        environment="development",
        user_identities={"customer_id": user},
        events=[CustomEvent(event_name="signup")],
    )


async def test_batches_survive_a_restart(
    emulator: Emulator, make_client: Callable[..., MParticle]
) -> None:
    """What one process could not upload is uploaded by the next, each batch once."""
    emulator.faults.add(Fault(503, count=None))
    client = make_client(max_storage_capacity=4)
    users = [f"c-{number}" for number in range(12)]
    deliveries = [await client.send(batch(user)) for user in users]
    await client.shutdown(0.1)
    assert {d.result and d.result.status for d in deliveries} == {DeliveryStatus.STORED}

    emulator.faults.clear()
    again = make_client()
    await again.start()
    stats = await again.flush(None)
    assert (stats.recovered, stats.delivered) == (12, 12)
    arrived = [one["user_identities"]["customer_id"] for one in emulator.batches]
    assert sorted(arrived) == sorted(users)


async def test_vendors_share_a_directory(
    emulator: Emulator, make_client: Callable[..., MParticle], connect: Any
) -> None:
    """Neither sends what is the other's."""
    emulator.faults.add(Fault(503, count=None))
    mparticle, amplitude = make_client(), connect()
    await mparticle.send(batch("c-1"))
    await amplitude.track("e", user_id="user-1")
    await mparticle.shutdown(0.05)
    await amplitude.shutdown(0.05)
    emulator.faults.clear()

    amplitude = connect()
    await amplitude.start()
    assert (await amplitude.flush(None)).delivered == 1
    mparticle = make_client()
    await mparticle.start()
    assert (await mparticle.flush(None)).delivered == 1
    assert (len(emulator.events), len(emulator.batches)) == (1, 1)
