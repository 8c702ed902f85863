"""mParticle batches survive in the same spool."""

from collections.abc import Callable
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
def make_client(
    emulator: Emulator,
    tmp_path: Path,
    never_at_rest: set[str],
    accounted: Callable[..., Any],
) -> Callable[..., MParticle]:
    """Return a function that makes clients with a spool in one directory."""
    never_at_rest |= {KEY, SECRET}

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
        client: MParticle = accounted(MParticle(KEY, SECRET, **given), KEY, SECRET)
        return client

    return make


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
