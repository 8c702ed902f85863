"""Keeps the newest of what arrives, as many and as heavy as they may be."""

from __future__ import annotations

import logging
from collections import deque
from operator import gt
from typing import Generic, TypeVar

__all__ = ["Kept"]

_Item = TypeVar("_Item")

logger = logging.getLogger("amplitude_async.emulator")


class Kept(Generic[_Item]):
    """The newest of some items, as many and as heavy as they may be.

    Args:
        most: items kept, the newest always.
        most_units: what the items may hold together, as `put` is told.
        most_bytes: what they may weigh together.
    """

    def __init__(self, most: int, most_units: int, most_bytes: int) -> None:
        self.items: deque[_Item] = deque()
        self.forgotten = 0
        self._most = (most, most_units, most_bytes)
        self._sizes: deque[tuple[int, int]] = deque()
        self._units = self._bytes = 0

    def put(self, item: _Item, weight: int, units: int = 1) -> list[_Item]:
        """Keep an item, and return the oldest that went where there was no room."""
        gone: list[_Item] = []
        self.items.append(item)
        self._sizes.append((units, weight))
        self._units += units
        self._bytes += weight
        while len(self.items) > 1 and self._has_too_much():
            gone.append(self._forget_oldest())
        return gone

    def extend(self, later: Kept[_Item]) -> None:
        """Keep what somebody else kept later, and forget the oldest likewise."""
        self.items.extend(later.items)
        self._sizes.extend(later._sizes)
        self._units += later._units
        self._bytes += later._bytes
        self.forgotten += later.forgotten
        while len(self.items) > 1 and self._has_too_much():
            self._forget_oldest()

    def _has_too_much(self) -> bool:
        has = (len(self.items), self._units, self._bytes)
        return any(map(gt, has, self._most))

    def _forget_oldest(self) -> _Item:
        if not self.forgotten:
            logger.info(
                "emulator forgets the oldest of what arrived, to keep no more than %d "
                "of a kind and %d MiB: keep, keep_requests and keep_bytes raise that",
                self._most[0],
                self._most[2] // 2**20,
            )
        self.forgotten += 1
        units, weight = self._sizes.popleft()
        self._units -= units
        self._bytes -= weight
        return self.items.popleft()
