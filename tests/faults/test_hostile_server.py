"""Whatever a server sends, it costs little memory, little time and no event."""

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.delivery.transport import AiohttpTransport
from amplitude_async.mparticle import Batch, CustomEvent, MParticle, UserIdentities
from tests.faults.hostile_server import ATTACKS, MEBIBYTE, hostile

__all__: list[str] = []

Connect = Callable[..., Amplitude]
# Of what is offered, 128 KiB of a body are read; the rest is buffers on the way.
MOST_MEMORY = 8 * MEBIBYTE
MOST_ANSWER = 128 * 1024
IN_FLIGHT = 4


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_answer_takes_little_memory(name: str) -> None:
    """What the client holds at most, of four such answers at once."""
    attack = ATTACKS[name]
    async with hostile(lambda: iter(prepared)) as server:
        prepared = list(attack())
        transport = AiohttpTransport(trust_env=False)
        tracemalloc.start()
        try:
            sending = (
                transport.send(f"{server.url}/", b"{}", {}, 1.0)
                for _ in range(IN_FLIGHT)
            )
            responses = await asyncio.gather(*sending)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await transport.close()

    assert peak < IN_FLIGHT * MOST_MEMORY
    for response in responses:
        assert len(response.body) <= MOST_ANSWER
        assert len(response.error or "") <= 300


async def test_no_compressed_answer_is_asked_for() -> None:
    """Ours are small; what comes compressed is more than it looks."""
    async with hostile(ATTACKS["a long number"]) as server:
        transport = AiohttpTransport(trust_env=False)
        await transport.send(f"{server.url}/", b"{}", {"accept-encoding": "br"}, 5.0)
        await transport.close()

    [head] = server.heads
    accepted = [
        line
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"accept-encoding")
    ]
    assert accepted == [b"accept-encoding: identity"]


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_engine_comes_to_an_end_with_it(
    name: str, connect: Connect, default_options: Callable[[], dict[str, Any]]
) -> None:
    """Each event has its outcome, and the account adds up."""
    async with hostile(ATTACKS[name]) as server:
        client = connect(
            server_url=f"{server.url}/2/httpapi",
            flush_max_retries=1,
            connection_timeout=2.0,
        )
        for number in range(3):
            await client.track("e", user_id=f"user-{number}")
        await client.flush(0.3)
        stats = await client.shutdown(0.1)

    assert stats.delivered == 0
    assert stats.rejected + stats.dropped == 3
    assert stats.requests < 30


@pytest.mark.parametrize("name", ["a large answer", "a gzip bomb", "a deep answer"])
async def test_an_upload_comes_to_an_end_with_it(name: str) -> None:
    """The other vendor's direct road meets the same."""
    async with hostile(ATTACKS[name]) as server:
        client = MParticle(
            "key", "secret", base_url=server.url, trust_env=False, flush_max_retries=0
        )
        batch = Batch(
            environment="development",
            user_identities=UserIdentities(customer_id="user-1"),
            events=[CustomEvent(event_name="e", custom_event_type="other")],
        )
        [result] = await client.upload_many([batch])
        await client.shutdown(0.1)
    assert not result.ok
    assert len(result.message) <= 300
