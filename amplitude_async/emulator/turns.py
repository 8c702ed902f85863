"""Long work on the loop in short turns, so that requests are answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

__all__ = ["in_turns"]

_Item = TypeVar("_Item")

_TURN_SECONDS = 0.002
_LOOK_EVERY = 16


async def in_turns(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """Yield one item after the other, and let others run every 2 ms."""
    until = time.perf_counter() + _TURN_SECONDS
    for count, item in enumerate(items, 1):
        yield item
        if not count % _LOOK_EVERY and time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _TURN_SECONDS
