"""The mParticle client without await."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amplitude_async import AmplitudeError, DropReason, Overflow
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import (
    AuthError,
    Batch,
    BatchError,
    CustomEvent,
    MParticleClosedError,
)
from amplitude_async.sync import SyncMParticle

__all__ = ["connect"]

Connect = Callable[..., SyncMParticle]


@pytest.fixture
def connect(server: Emulator) -> Iterator[Connect]:
    """Yield a function that makes clients of the server; their accounts add up."""
    clients = []

    def make(**options: Any) -> SyncMParticle:
        given = {"base_url": server.mparticle_url, "trust_env": False, **options}
        client = SyncMParticle("key", "secret", environment="development", **given)
        clients.append(client)
        return client

    yield make
    for client in clients:
        stats = client.shutdown(1.0)
        assert (stats.balanced, stats.pending) == (True, 0)


def batch_of(user: str = "c-1", events: int = 1, size: int = 0) -> Batch:
    """Build a batch of one user."""
    attributes = {"text": "x" * size}
    return Batch(
        environment="development",
        user_identities={"customer_id": user},
        events=[
            CustomEvent(
                event_name="Signed Up",
                custom_event_type="other",
                custom_attributes=attributes,
            )
            for _ in range(events)
        ],
    )


def test_batches_are_handed_over(connect: Connect) -> None:
    """``send`` returns at once; the handle tells what became of it."""
    client = connect(flush_interval=3600.0)
    handles = [client.send(batch_of(f"c-{number}")) for number in range(50)]

    assert client.flush().delivered == 50
    assert all(handle.result(1).ok and handle.insert_id for handle in handles)
    assert "SyncMParticle" in repr(client)
    assert client.config.flush_interval == 3600.0


def test_uploads_wait_for_their_results(connect: Connect) -> None:
    """Direct verbs give the result in hand, and raise as their twins do."""
    client = connect()

    assert client.upload(batch_of()).ok
    assert [r.ok for r in client.upload_many([batch_of(), batch_of("c-2")])] == [True]
    with pytest.raises(BatchError, match="timestamp_unixtime_ms"):
        client.upload_historical([batch_of()])
    with pytest.raises(TypeError, match="must be a Batch"):
        client.send("batch")  # type: ignore[arg-type]
    client.shutdown()
    with pytest.raises(MParticleClosedError):
        client.upload(batch_of())


def test_a_refused_key_raises(connect: Connect, server: Emulator) -> None:
    """An error of the server comes out of the verb."""
    server.faults.add(Fault(401, count=None))

    with pytest.raises(AuthError):
        connect().upload(batch_of())


def test_a_large_batch_travels_in_pieces(connect: Connect) -> None:
    """One handle tells of all of them."""
    client = connect()
    handle = client.send(batch_of(events=90, size=4_000))

    assert handle.result(10).ok
    assert client.stats.accepted > 1


def test_a_bad_batch_is_rejected_or_raises(connect: Connect) -> None:
    """As ``strict`` says; its id is the one that the handle had from the beginning."""
    bad = batch_of().model_copy(update={"mpid": object()})
    client = connect()
    handle = client.send(bad)
    result = handle.result(10)

    assert (result.status, result.insert_id) == ("rejected", handle.insert_id)
    with pytest.raises(BatchError):
        connect(strict=True).send(bad)


def test_plugins_see_whole_batches(connect: Connect, server: Emulator) -> None:
    """What the caller changes later is not in them."""

    def drop(batch: Batch) -> Batch | None:
        wanted = batch.user_identities and batch.user_identities.customer_id
        return None if wanted == "c-2" else batch

    client = connect()
    client.add(drop)
    kept, dropped = client.send(batch_of("c-1")), client.send(batch_of("c-2"))

    assert kept.result(10).ok
    assert dropped.result(10).reason is DropReason.PLUGIN


def test_overflow_is_the_callers(connect: Connect, server: Emulator) -> None:
    """A full queue sheds or raises as with the asyncio client."""
    server.faults.add(Fault(503, delay=float("inf"), count=None))
    client = connect(max_storage_capacity=5, overflow=Overflow.DROP_NEWEST)

    for _ in range(8):
        client.send(batch_of())

    assert client.stats.dropped_by_reason == {DropReason.OVERFLOW: 3}


async def test_on_a_loop_the_asynchronous_client_is_named() -> None:
    """The message names ``MParticle``."""
    client = SyncMParticle("key", "secret")

    with pytest.raises(AmplitudeError, match="use MParticle there"):
        client.send(batch_of())


def test_the_environment_configures(
    server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``from_env`` reads what the asyncio client reads."""
    monkeypatch.setenv("MPARTICLE_API_KEY", "key")
    monkeypatch.setenv("MPARTICLE_API_SECRET", "secret")
    monkeypatch.setenv("MPARTICLE_BASE_URL", server.mparticle_url)

    with SyncMParticle.from_env(trust_env=False) as client:
        assert client.send(batch_of()).result(10).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_sends_its_own(run: Callable[..., Any], server: Emulator) -> None:
    """Inherited handles end as DROPPED fork."""
    ended = run(
        f"""
        import os
        from amplitude_async.mparticle import Batch, CustomEvent
        from amplitude_async.sync import SyncMParticle
        client = SyncMParticle("key", "secret", base_url={server.mparticle_url!r},
                               trust_env=False, flush_interval=3600.0)
        def batch(user):
            return Batch(environment="development", events=[CustomEvent("e", "other")],
                         user_identities={{"customer_id": user}})
        client.send(batch("first")).result(10)
        waiting = client.send(batch("parent"))
        pid = os.fork()
        if pid == 0:
            fine = waiting.result(1).reason == "fork"
            fine = fine and client.send(batch("child")).result(10).ok
            os._exit(0 if fine else 1)
        print(os.waitpid(pid, 0)[1], client.shutdown().delivered)
        """
    )

    assert ended.stdout == "0 2\n", ended.stderr
