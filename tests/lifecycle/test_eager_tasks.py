"""A host may have its tasks start at once; ours begin in the next turn all the same."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude, DeliveryResult, DestinationPlugin, Event

__all__: list[str] = []

Connect = Callable[..., Amplitude]

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="the eager task factory came with Python 3.12"
)


@pytest.fixture
async def eager() -> None:
    """Have the loop start each task at once."""
    factory: Any = vars(asyncio)["eager_task_factory"]
    asyncio.get_running_loop().set_task_factory(factory)


async def test_a_destination_does_not_run_inside_track(
    eager: None, connect: Connect
) -> None:
    """The verb has returned before the plugin sees the event."""
    del eager
    seen: list[Event] = []

    class Plain(DestinationPlugin):
        def execute(self, event: Event) -> None:
            seen.append(event)

    async with connect(plugins=[Plain()]) as client:
        await client.track("e", user_id="user-1")
        assert seen == []

    assert len(seen) == 1


async def test_callbacks_do_not_nest(eager: None, connect: Connect) -> None:
    """One whose event is shed at once hears of it later, not inside itself."""
    del eager
    depth = deepest = heard = 0

    async def callback(result: DeliveryResult) -> None:
        nonlocal depth, deepest, heard
        depth, heard = depth + 1, heard + 1
        deepest = max(deepest, depth)
        if heard < 200 and not result.ok:
            await client.track("no user")
        depth -= 1

    async with connect(callback=callback) as client:
        await client.track("no user")
        async with asyncio.timeout(5):
            while heard < 200:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)

    assert deepest == 1


async def test_requests_are_counted_right(eager: None, connect: Connect) -> None:
    """Sending goes on for as long as there is something to send."""
    del eager
    async with connect(flush_queue_size=1, max_batch_size=1) as client:
        for _ in range(50):
            await client.track("e", user_id="user-1")
        stats = await client.flush()

    assert stats.delivered == 50
