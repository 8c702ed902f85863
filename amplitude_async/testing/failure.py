"""The message of an assertion that failed: what was wanted, what there is instead."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from amplitude_async.shown import printable, shown
from amplitude_async.testing.captured import Captured, Missing
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
    lines = [headline]
    culprits = [event for event in failed if _may_be_meant(wanted, event)]
    for culprit in culprits[:_MOST_NEAR]:
        fate = culprit.status.upper()
        reason = f" ({culprit.reason})" if culprit.reason else ""
        lines.append(f"it was tracked, but {fate}{reason}: {culprit.message}")
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


def tell_of_failures(failed: Sequence[Captured]) -> Iterator[str]:
    """List what would not have been sent, in lines."""
    if not failed:
        return
    yield f"not sent: {len(failed)}"
    for event in failed[-_MOST_FAILURES:]:
        reason = f" ({event.reason})" if event.reason else ""
        yield f"  {event.status}{reason} {shown(event.name)}: {event.message}"
    if len(failed) > _MOST_FAILURES:
        yield f"  and {len(failed) - _MOST_FAILURES} before them"


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
    seen: dict[str, str] = {}
    ranked: Iterator[tuple[int, int]] = (
        (wanted.count(event), -number)
        for number, event in enumerate(pool)
        # What another destination had as well is one event.
        if wanted.destination is not None
        or seen.setdefault(event.key, event.destination) == event.destination
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
