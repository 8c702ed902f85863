"""Wakes those who watch an emulator when something has changed, and not too often."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

__all__ = ["Bell", "Sign"]

PAUSE = 0.05
_MOST_SIGNS = 50

Sign = tuple[int, str, dict[str, Any]]
"""A number that counts from 1, what happened, and its details."""


class Bell:
    """Is rung at each change, from any thread, and costs nothing while nobody listens.

    Whoever listens is woken at once after a quiet time, and otherwise every 50 ms.
    """

    def __init__(self) -> None:
        self._sleepers: set[asyncio.Event] = set()
        self._signs: deque[Sign] = deque(maxlen=_MOST_SIGNS)
        self._announced = 0
        self.rounds = 0
        """How often those who listen were woken; what is made in a round is for all."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = False
        self._woke_at = 0.0

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._sleepers)

    @property
    def announced(self) -> int:
        """The number of the last sign."""
        return self._announced

    def ring(self) -> None:
        """Say that something has changed."""
        if not self._sleepers or self._rung or self._loop is None:
            return
        self._rung = True
        # A loop that was closed has no listeners any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._prepare)

    def announce(self, what: str, details: dict[str, Any]) -> None:
        """Say what has changed, where it cannot be seen by looking."""
        self._announced += 1
        self._signs.append((self._announced, what, details))
        self.ring()

    def signs_after(self, number: int) -> list[Sign]:
        """Return what was announced after a sign."""
        return [sign for sign in tuple(self._signs) if sign[0] > number]

    def listen(self) -> asyncio.Event:
        """Return what will be set when something changes; `leave` ends it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._rung, self._woke_at = loop, False, 0.0
            self._sleepers.clear()
        sleeper = asyncio.Event()
        self._sleepers.add(sleeper)
        return sleeper

    def leave(self, sleeper: asyncio.Event) -> None:
        """Wake somebody no more."""
        self._sleepers.discard(sleeper)

    def wake(self) -> None:
        """Wake all at once, as at the end."""
        self.rounds += 1
        for sleeper in self._sleepers:
            sleeper.set()

    def _prepare(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(max(loop.time(), self._woke_at + PAUSE), self._wake_in_time)

    def _wake_in_time(self) -> None:
        self._rung = False
        self._woke_at = asyncio.get_running_loop().time()
        self.wake()
