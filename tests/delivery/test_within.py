"""Awaiting what is somebody else's: whoever gives up leaves no line in the log."""

import asyncio
import gc
from typing import Any

import pytest

from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.tasks import within

__all__: list[str] = []


@pytest.mark.parametrize("turns", range(6))
async def test_a_failure_that_comes_with_a_cancellation_is_looked_at(
    turns: int,
) -> None:
    """In the very turn in which nobody waits for it any more."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(10.0, LoopClock(), answer))
    await asyncio.sleep(0.01)

    answer.set_exception(OSError("the server is gone"))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    if not waiting.cancelled():
        waiting.exception()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del waiting, answer
    gc.collect()

    assert said == []
