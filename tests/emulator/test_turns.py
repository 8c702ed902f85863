"""Long work on the loop leaves others their turns."""

from __future__ import annotations

import asyncio

import pytest

from amplitude_async.emulator import turns

__all__: list[str] = []


async def test_others_run_between_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items there are, and all of them come, in order."""
    monkeypatch.setattr(turns, "_TURN_SECONDS", 0.0)
    seen = others = 0

    async def count() -> None:
        nonlocal others
        while seen < 1_000:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    async for number in turns.in_turns(range(1, 1_001)):
        seen = number
    await task
    assert seen == 1_000
    assert others >= 1_000 // 16
