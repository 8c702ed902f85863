"""What has come since somebody last looked, and no more of it than they can show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from .entries import entry
from .ledger import Ledger
from .records import ReceivedRequest

__all__ = ["NOTHING_SEEN", "Mark", "News", "news_of"]

Mark = tuple[int, int]
"""How far somebody has looked: the last numbers of events and of requests."""

NOTHING_SEEN: Mark = (0, 0)
"""How far somebody has looked who has not looked yet."""


@dataclass(frozen=True, slots=True)
class News:
    """What has come since a mark."""

    entries: list[dict[str, Any]]
    """Of each event what it came to, in order, the newest of them."""

    requests: list[ReceivedRequest]
    """The requests, likewise."""

    events_left_out: int
    """How many events came before the first entry here."""

    requests_left_out: int
    """Requests, likewise."""

    mark: Mark
    """Where to look on from."""


def news_of(ledger: Ledger, after: Mark, most: int) -> News:
    """Return what has come since a mark, at most so many of each kind."""
    # Before what is read: whatever comes meanwhile is news the next time.
    mark = ledger.newest
    first = max(after[0], mark[0] - most) + 1
    numbers = (
        (seen, number)
        for seen in ledger.log.newest(first - 1, most)
        for number in range(max(seen.number, first), seen.last_number + 1)
    )
    entries = [
        entry(seen, number)
        for seen, number in islice(numbers, 2 * most)
        if number <= mark[0]
    ]
    found = ledger.requests_after(after[1], most) if most else []
    requests = [one for one in found if one.number <= mark[1]]
    return News(
        entries=entries,
        requests=requests,
        events_left_out=mark[0] - after[0] - len(entries),
        requests_left_out=mark[1] - after[1] - len(requests),
        mark=mark,
    )
