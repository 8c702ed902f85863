"""Plugins that come while the client ends, that go half-way, and that do not go."""

import asyncio
from collections.abc import Callable

import pytest

from amplitude_async import (
    Amplitude,
    ClientClosedError,
    DestinationPlugin,
    EnrichmentPlugin,
    Event,
)

__all__: list[str] = []

Connect = Callable[..., Amplitude]
BOUND = 2.0


class Slow(EnrichmentPlugin):
    """Takes its time to be set up."""

    name = "slow"

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def setup(self, client: object) -> None:  # noqa: ARG002
        """Suspend."""
        await asyncio.sleep(0.1)
        self.calls.append("setup")

    def execute(self, event: Event) -> Event:
        """Let the event pass."""
        return event

    def teardown(self) -> None:
        """Note it."""
        self.calls.append("teardown")


class Stuck(EnrichmentPlugin):
    """Never ends."""

    def execute(self, event: Event) -> Event:
        """Let the event pass."""
        return event

    async def teardown(self) -> None:
        """Hang."""
        await asyncio.sleep(60)


class Leisurely(DestinationPlugin):
    """Takes its time for each event."""

    name = "leisurely"

    def __init__(self) -> None:
        self.seen = 0
        self.torn_down = 0

    async def execute(self, event: Event) -> None:  # noqa: ARG002
        """Take an event."""
        await asyncio.sleep(0.02)
        self.seen += 1

    def teardown(self) -> None:
        """Note it."""
        self.torn_down += 1


async def test_added_while_the_client_is_shut_down(connect: Connect) -> None:
    """It is torn down again, and whoever adds it hears why."""
    client, plugin = connect(), Slow()
    await client.start()
    adding = asyncio.create_task(client.add(plugin))
    await asyncio.sleep(0.02)

    await client.shutdown()

    with pytest.raises(ClientClosedError, match="slow"):
        await adding
    assert plugin.calls == ["setup", "teardown"]


async def test_set_up_by_a_verb_while_the_client_is_shut_down(connect: Connect) -> None:
    """It is torn down again, and the verb does not fail for it."""
    plugin = Slow()
    client = connect(plugins=[plugin])
    tracking = asyncio.create_task(client.track("e", user_id="user-1"))
    await asyncio.sleep(0.02)

    await client.shutdown()

    assert (await tracking).done
    assert plugin.calls == ["setup", "teardown"]


async def test_teardowns_that_hang(connect: Connect) -> None:
    """The deadline of the shutdown holds for all of them together."""
    client = connect(plugins=[Stuck(), Stuck(), Stuck()])
    await client.track("e", user_id="user-1")

    async with asyncio.timeout(BOUND):
        stats = await client.shutdown(0.3)

    assert stats.delivered == 1


@pytest.mark.parametrize(("timeout", "all_seen"), [(5.0, True), (0.05, False)])
async def test_a_remove_that_is_cancelled(
    timeout: float, all_seen: bool, connect: Connect
) -> None:
    """The destination goes all the same, and a shutdown waits for that."""
    plugin = Leisurely()
    client = connect(plugins=[plugin])
    await client.remove("amplitude")
    handles = [await client.track("e", user_id="user-1") for _ in range(20)]
    removing = asyncio.create_task(client.remove("leisurely"))
    await asyncio.sleep(0.05)
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing

    async with asyncio.timeout(BOUND):
        await client.shutdown(timeout)

    assert all(handle.done for handle in handles)
    assert plugin.torn_down == 1
    assert (plugin.seen == 20) is all_seen


async def test_a_limit_that_is_no_number(connect: Connect) -> None:
    """It is told before anything has begun: the client goes on."""
    client = connect()
    await client.track("e", user_id="user-1")
    for verb in (client.flush, client.shutdown):
        with pytest.raises(TypeError, match="seconds"):
            await verb("5")  # type: ignore[arg-type]

    stats = await client.shutdown()

    assert stats.delivered == 1
