"""The message of an assertion that failed: what was wanted, what there is instead."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from amplitude_async.shown import printable, shown
from amplitude_async.testing.captured import AMPLITUDE, Captured, Missing
from amplitude_async.testing.matching import near_names
from amplitude_async.testing.wanted import Wanted

__all__ = ["tell_of_failures", "tell_of_some", "why_nothing_fits"]

_MOST_NEAR: Final = 3
_MOST_SHOWN: Final = 6
_MOST_FAILURES: Final = 4
_LONGEST_LINE: Final = 240


def why_nothing_fits(
    headline: str,
    wanted: Wanted,
    events: Sequence[Captured],
    failed: Sequence[Captured],
) -> str:
    """Say what there is instead of an event that was wanted.

    Args:
        headline: what is wrong, in words.
        wanted: what was asked for.
        events: those that would have been sent.
        failed: those that were rejected or dropped.
    """
    lines = [headline, *_told_fates(wanted, failed)]
    lines += _hints(wanted, events)
    near = _nearest(wanted, events)
    if near:
        every = "the only event" if len(events) == 1 else f"of {len(events)} events"
        lines.append(f"nearest {every}:" if len(events) > 1 else f"{every}:")
    elif not events:
        lines.append("no event was captured that would have been sent")
    for number, event in enumerate(near, 1):
        lines.append(f"  {number}. {event.told()}")
        lines += _told_differences(wanted, event)
    lines += tell_of_failures(failed)
    return _joined(lines)


def tell_of_some(headline: str, found: Sequence[Captured]) -> str:
    """Say which events there are, where there should be none, or not so many."""
    lines = [headline]
    shown_ones = found[: 2 * _MOST_NEAR]
    lines += [
        f"  {number}. {event.told()}" for number, event in enumerate(shown_ones, 1)
    ]
    if len(found) > len(shown_ones):
        lines.append(f"  and {len(found) - len(shown_ones)} more")
    return _joined(lines)


def tell_of_failures(
    failed: Sequence[Captured], most: int = _MOST_FAILURES
) -> Iterator[str]:
    """List what would not have been sent, in lines."""
    if not failed:
        return
    yield f"not sent: {len(failed)}"
    where: dict[str, dict[str, None]] = {}
    for event in failed:
        reason = f" ({event.reason})" if event.reason else ""
        told = f"{event.status}{reason} {shown(event.name)}"
        text = f"{told}: {printable(event.message)[:_LONGEST_LINE]}"
        where.setdefault(text, {})[event.destination] = None
    # The same verdict of several destinations, or of many events, is one line.
    for text, destinations in [*where.items()][-most:]:
        names = ", ".join(shown(name, 40)[1:-1] for name in [*destinations][:4])
        yield f"  {text}" if names == AMPLITUDE else f"  {text} [{names}]"
    if len(where) > most:
        yield f"  and {len(where) - most} others before them"


def _joined(lines: Sequence[str]) -> str:
    # A value may hold an escape that a terminal obeys.
    return "\n".join(printable(line)[:_LONGEST_LINE] for line in lines)


def _may_be_meant(wanted: Wanted, event: Captured) -> bool:
    """Say whether an event that was not sent may be the one that was wanted.

    Where its fields could not be read it has none, which contradicts nothing.
    """
    if not wanted.is_of_kind(event):
        return False
    some = islice(wanted.differences(event), _MOST_SHOWN)
    return all(isinstance(one.found, Missing) for one in some)


def _told_fates(wanted: Wanted, failed: Sequence[Captured]) -> list[str]:
    """Say first what became of the event that was wanted, where it was not sent."""
    fates: dict[str, None] = {}
    for event in failed:
        if _may_be_meant(wanted, event):
            reason = f" ({event.reason})" if event.reason else ""
            fate = f"{event.status.upper()}{reason}: {event.message}"
            fates[f"it was tracked, but {fate}"] = None
    return list(fates)[:_MOST_NEAR]


def _hints(wanted: Wanted, events: Sequence[Captured]) -> Iterator[str]:
    if wanted.name is None:
        return
    names = list(dict.fromkeys(event.name for event in events))
    if wanted.name in names:
        return
    if near := near_names(wanted.name, names):
        yield "did you mean " + " or ".join(map(shown, near)) + "?"


def _nearest(wanted: Wanted, events: Sequence[Captured]) -> list[Captured]:
    """Find the events that come closest, each at one destination only."""
    pool: Sequence[Captured] = [e for e in events if wanted.is_of_kind(e)]
    if not pool and wanted.name is not None:
        near = set(near_names(wanted.name, [*dict.fromkeys(e.name for e in events)]))
        pool = [event for event in events if event.name in near]
    pool = pool or events
    best: dict[str, tuple[int, str]] = {}
    for event in pool:
        mine = (event.rank, event.destination)
        best[event.key] = min(best.get(event.key, mine), mine)
    ranked: Iterator[tuple[int, int]] = (
        (wanted.count(event), -number)
        for number, event in enumerate(pool)
        # What another destination had as well is one event.
        if wanted.destination is not None or best[event.key][1] == event.destination
    )
    # Of those that are equally near the latest.
    return [pool[-number] for _, number in heapq.nsmallest(_MOST_NEAR, ranked)]


def _told_differences(wanted: Wanted, event: Captured) -> Iterator[str]:
    if not wanted.is_of_kind(event) and wanted.name is not None:
        yield f"       name: wanted {shown(wanted.name)}, is {shown(event.name)}"
    found: list[Any] = list(islice(wanted.differences(event), _MOST_SHOWN + 1))
    for difference in found[:_MOST_SHOWN]:
        yield f"       {difference}"
    if not found and wanted.is_of_kind(event):
        yield "       fits"
    if len(found) > _MOST_SHOWN:
        more = wanted.count(event) - _MOST_SHOWN
        yield f"       and {more} more" if more < 40 else "       and many more"
