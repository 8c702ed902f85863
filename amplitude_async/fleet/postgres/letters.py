"""Dead letters in a table of their own."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from amplitude_async.fleet.log import BuriedLetter, Letter, Place
from amplitude_async.fleet.postgres.sql import BURY, FORGET_LETTERS, LETTERS

__all__ = ["bury", "forget", "read"]

# A share of a statement: a chunk's letters may be as many as its events.
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_LETTERS: Final = 2_000
NUL: Final = "\0"


class _Asking(Protocol):
    project: str

    async def ask(self, statement: str, *args: Any) -> Any: ...


async def bury(log: _Asking, letters: Sequence[Letter]) -> None:
    """Keep letters, each once, in their order."""
    share: list[Letter] = []
    size = 0
    for letter in letters:
        size += len(letter.data)
        if share and (size > MOST_BYTES or len(share) >= MOST_LETTERS):
            await _bury_share(log, share)
            share, size = [], len(letter.data)
        share.append(letter)
    if share:
        await _bury_share(log, share)


async def _bury_share(log: _Asking, letters: Sequence[Letter]) -> None:
    await log.ask(
        BURY,
        log.project,
        [letter.place.destination for letter in letters],
        [letter.place.partition for letter in letters],
        [letter.key for letter in letters],
        [letter.data for letter in letters],
        [letter.code for letter in letters],
        [_storable(letter.message) for letter in letters],
        [letter.raw for letter in letters],
    )


def _storable(text: str) -> str:
    """Replace what the database's text cannot hold; it is a vendor's."""
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace(NUL, "\N{REPLACEMENT CHARACTER}")


async def read(log: _Asking, after: int, limit: int) -> list[BuriedLetter]:
    """Read letters above a position, in order."""
    rows = await log.ask(LETTERS, log.project, after, limit)
    return [
        BuriedLetter(
            row["id"],
            row["buried_at"],
            Letter(
                row["key"],
                Place(row["destination"], row["partition"]),
                row["data"],
                row["code"],
                row["message"],
                raw=row["raw"],
            ),
        )
        for row in rows
    ]


async def forget(log: _Asking, positions: Sequence[int]) -> None:
    """Take letters away."""
    if positions:
        await log.ask(FORGET_LETTERS, log.project, list(positions))
