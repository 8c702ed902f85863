"""A place of a log in PostgreSQL that one relay has, by the token of its lease row."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from amplitude_async.fleet.log import Claim, Place, StoredChunk
from amplitude_async.fleet.postgres.sql import (
    ACKNOWLEDGE,
    NOTE_PROGRESS,
    READ,
    RELEASE,
    RENEW,
)

__all__ = ["PostgresClaim"]

MOST_CHUNKS: Final = 5_000
# After something came more is looked for soon, and then ever later: a lone event waits
# for no longer than the last of these.
FIRST_LOOK: Final = 0.01
LAST_LOOK: Final = 0.2
# So many old rows go with an acknowledgement, and two for each chunk of its own.
SWEPT: Final = 10


class PostgresClaim(Claim):
    """A claim whose every statement looks at the lease row's token.

    Args:
        ask: runs one statement of the log's.
        project: whose place it is.
        token: what the lease row got when the place was claimed.
        progress: what the holder before has noted.
    """

    def __init__(
        self,
        ask: Callable[..., Awaitable[Any]],
        place: Place,
        *,
        project: str,
        token: int,
        lease: float,
        progress: bytes,
    ) -> None:
        self.place = place
        self.progress = progress
        self._ask = ask
        self._project = project
        self._token = token
        self._lease = lease
        self._in_hand: set[int] = set()
        self._next_look = FIRST_LOOK

    def __repr__(self) -> str:
        return f"<PostgresClaim {self.place}: {len(self._in_hand)} chunks in hand>"

    @property
    def _key(self) -> tuple[str, str, int]:
        return self._project, *self.place

    async def read(self, max_bytes: int) -> list[StoredChunk]:
        """Read the oldest chunks that are not in hand."""
        rows = await self._ask(
            READ,
            *self._key,
            self._token,
            sorted(self._in_hand),
            MOST_CHUNKS,
            max_bytes,
        )
        chunks = [
            StoredChunk(row["id"], row["chunk_id"], row["data"], row["stored_at"])
            for row in rows
        ]
        if chunks:
            self._in_hand.update([chunk.position for chunk in chunks])
            self._next_look = FIRST_LOOK
        return chunks

    async def wait(self, timeout: float) -> None:
        """Let some time pass: to read is to look, and nothing else would tell.

        Poolers carry no notifications.
        """
        pause = self._next_look
        self._next_look = min(pause * 2, LAST_LOOK)
        await asyncio.sleep(min(pause, timeout))

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Forget chunks, also those that an earlier claim has read."""
        if not positions:
            return
        ids = sorted(set(positions))
        swept = SWEPT + 2 * len(ids)
        await self._ask(ACKNOWLEDGE, *self._key, ids, swept)
        self._in_hand.difference_update(ids)

    async def renew(self) -> bool:
        """Begin the lease anew."""
        args = (*self._key, self._token, self._lease)
        return bool(await self._ask(RENEW, *args))

    async def note_progress(self, data: bytes) -> None:
        """Keep it in the lease row, while that is this claim's."""
        await self._ask(NOTE_PROGRESS, *self._key, self._token, data)

    async def release(self) -> None:
        """Give the place back; its token becomes nobody's."""
        await self._ask(RELEASE, *self._key, self._token)
