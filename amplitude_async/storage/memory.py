"""The default storage: nothing outlives the process, nothing costs anything."""

from collections.abc import Callable, Sequence

from amplitude_async.storage.base import Record, Storage

__all__ = ["MemoryStorage"]


class MemoryStorage(Storage):
    """Keep events only where the engine has them: in memory.

    ``append`` and ``settle`` do nothing and never suspend.
    """

    durable = False

    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Nothing is left over from an earlier process."""
        return 0

    async def append(self, records: Sequence[Record]) -> None:
        """The engine itself holds the records."""

    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Nothing is ever only in the storage."""
        return []

    async def settle(self, ids: Sequence[int]) -> None:
        """Nothing to forget."""

    async def size(self) -> int:
        """Nothing is ever only in the storage."""
        return 0

    async def close(self) -> None:
        """Nothing to release."""
