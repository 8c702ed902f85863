"""Dead letters in a table of their own."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from amplitude_async.fleet.log import BuriedLetter, Letter, Place
from amplitude_async.fleet.postgres.sql import BURY, FORGET_LETTERS, LETTERS

__all__ = ["bury", "forget", "read"]

# A share of a statement: a chunk's letters may be as many as its events.
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_LETTERS: Final = 2_000
NUL: Final = "\0"


Ask = Callable[..., Awaitable[Any]]
"""Runs one statement of the log's."""


async def bury(ask: Ask, project: str, letters: Sequence[Letter]) -> None:
    """Keep letters, each once, in their order."""
    share: list[Letter] = []
    size = 0
    for letter in letters:
        size += len(letter.data)
        if share and (size > MOST_BYTES or len(share) >= MOST_LETTERS):
            await _bury_share(ask, project, share)
            share, size = [], len(letter.data)
        share.append(letter)
    if share:
        await _bury_share(ask, project, share)


async def _bury_share(ask: Ask, project: str, letters: Sequence[Letter]) -> None:
    await ask(
        BURY,
        project,
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


async def read(ask: Ask, project: str, *, after: int, limit: int) -> list[BuriedLetter]:
    """Read letters above a position, in order."""
    rows = await ask(LETTERS, project, after, limit)
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


async def forget(ask: Ask, project: str, positions: Sequence[int]) -> None:
    """Take letters away."""
    if positions:
        await ask(FORGET_LETTERS, project, list(positions))
