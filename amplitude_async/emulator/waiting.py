"""Waits for events, woken by those that arrive, and says what came instead."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from itertools import islice
from threading import RLock
from typing import Any

from .judgement import JsonObject
from .reading import text_of
from .seen import Seen

__all__ = ["Waiters", "Wanted"]

_MOST_SHOWN = 3
_MOST_NAMES = 10
# A test that waits for one event shall not look through all of a hundred thousand.
_MOST_COMPARED = 1_000
_ABSENT = object()

Arrived = Callable[[], tuple[Sequence[Seen], Sequence[Seen]]]
"""Returns what was stored and what was not taken."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an event must be like, and how many of them are waited for."""

    event_type: str
    user_id: str | None
    device_id: str | None
    properties: Mapping[str, Any]
    times: int

    def __post_init__(self) -> None:
        """Refuse what would never come, or has come before it is waited for."""
        if not isinstance(self.event_type, str) or not self.event_type:
            raise _bad("event_type", self.event_type, "give the name of an event")
        if type(self.times) is not int or self.times < 1:
            raise _bad("times", self.times, "give 1 or more")

    def fits(self, event: JsonObject) -> bool:
        """Return whether this is such an event."""
        # The name first: most events fail there.
        return event.get("event_type") == self.event_type and not any(
            self.differences(event)
        )

    def differences(self, event: JsonObject) -> Iterator[str]:
        """Say in what this event is another one."""
        for field in ("event_type", "user_id", "device_id"):
            wanted = getattr(self, field)
            if wanted is not None and text_of(event.get(field)) != wanted:
                yield _difference(field, event.get(field, _ABSENT), wanted)
        inside = event.get("event_properties")
        held = inside if isinstance(inside, Mapping) else {}
        for name, wanted in self.properties.items():
            if name not in held or _differs(wanted, held[name]):
                yield _difference(name, held.get(name, _ABSENT), wanted)

    def __str__(self) -> str:
        """Say it in words."""
        ids = [
            f"{field} {value!r}"
            for field in ("user_id", "device_id")
            if (value := getattr(self, field)) is not None
        ]
        ids += [f"{name}={reprlib.repr(one)}" for name, one in self.properties.items()]
        like = f" with {', '.join(ids)}" if ids else ""
        return f"{self.event_type!r}{like}"


class _Waiter:
    """One call that waits: what it has found so far, and how to wake it."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.found: list[JsonObject] = []
        self.woken: Future[None] = Future()

    def offer(self, seen: Sequence[Seen]) -> None:
        if self.woken.done():
            return
        # It gave up just now where the state is invalid.
        with contextlib.suppress(InvalidStateError):
            try:
                self.found += [one.event for one in seen if self.wanted.fits(one.event)]
            except Exception as error:  # noqa: BLE001 - of the test's own comparison
                self.woken.set_exception(error)
                return
            if len(self.found) >= self.wanted.times:
                self.woken.set_result(None)


class Waiters:
    """All who wait for events of one emulator, in whichever thread or loop.

    `lock` is held by whoever writes down what arrived, so that nothing comes between
    looking at what is there and waiting for the rest.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._waiters: list[_Waiter] = []

    def offer(self, seen: Sequence[Seen]) -> None:
        """Show what has just been stored to all who wait; the caller has the lock."""
        for waiter in self._waiters if seen else ():
            waiter.offer(seen)

    def restart(self) -> None:
        """Let all wait for events from here on, since the former are forgotten."""
        with self.lock:
            for waiter in self._waiters:
                waiter.found.clear()

    async def wait(
        self, wanted: Wanted, timeout: float, arrived: Arrived
    ) -> list[JsonObject]:
        """Wait on a loop, whichever it is, and return the events.

        Raises:
            AssertionError: they did not come in time; it says what came instead.
        """
        waiter = self._begin(wanted, timeout, arrived)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(waiter.woken)
        except TimeoutError:
            pass
        finally:
            self._end(waiter)
        return _checked(waiter, timeout, arrived)

    def wait_blocking(
        self, wanted: Wanted, timeout: float, arrived: Arrived
    ) -> list[JsonObject]:
        """Wait in a thread that has no loop, and return the events.

        Raises:
            AssertionError: they did not come in time; it says what came instead.
        """
        waiter = self._begin(wanted, timeout, arrived)
        try:
            waiter.woken.result(timeout)
        except FutureTimeoutError:
            pass
        finally:
            self._end(waiter)
        return _checked(waiter, timeout, arrived)

    def _begin(self, wanted: Wanted, timeout: float, arrived: Arrived) -> _Waiter:
        # type() and not isinstance(): true and false are no seconds.
        if type(timeout) not in (int, float) or not 0 <= timeout < 1e6:
            raise _bad("timeout", timeout, "give seconds, 0 or more")
        waiter = _Waiter(wanted)
        with self.lock:
            waiter.offer(arrived()[0])
            self._waiters.append(waiter)
        return waiter

    def _end(self, waiter: _Waiter) -> None:
        with self.lock:
            self._waiters.remove(waiter)


def _checked(waiter: _Waiter, timeout: float, arrived: Arrived) -> list[JsonObject]:
    if len(waiter.found) >= waiter.wanted.times:
        return waiter.found
    raise AssertionError(_explanation(waiter, timeout, *arrived()))


def _explanation(
    waiter: _Waiter, timeout: float, stored: Sequence[Seen], rejected: Sequence[Seen]
) -> str:
    wanted = waiter.wanted
    head = (
        f"waited {timeout:g} s for {wanted}: {len(waiter.found):,} of "
        f"{wanted.times:,} came"
    )
    lines = [
        head,
        f"stored were {_names(stored)}",
        *_nearest(wanted, stored),
        *_rejected(wanted, rejected),
    ]
    return "\n  ".join(lines)


def _names(stored: Sequence[Seen]) -> str:
    if not stored:
        return "none"
    counts = Counter(seen.name for seen in stored)
    shown = [f"{name[:80]!r} ({n:,})" for name, n in counts.most_common(_MOST_NAMES)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more names" if more > 0 else "")


def _nearest(wanted: Wanted, stored: Sequence[Seen]) -> Iterator[str]:
    ratios: dict[str, float] = {}
    ranked = []
    for seen in islice(reversed(stored), _MOST_COMPARED):
        differences = list(wanted.differences(seen.event))
        if not differences:
            continue
        name = seen.name[:80]
        if name not in ratios:
            ratios[name] = _likeness(name, wanted.event_type)
        ranked.append((-ratios[name], len(differences), -seen.number, seen))
    # Of many that differ alike one is enough.
    lines: dict[str, None] = {}
    for _, _, _, seen in sorted(ranked, key=lambda one: one[:3]):
        what = "; ".join(islice(wanted.differences(seen.event), _MOST_SHOWN))
        lines.setdefault(f"near: {seen.name[:80]!r}, but {what}")
        if len(lines) == _MOST_SHOWN:
            break
    yield from lines


def _rejected(wanted: Wanted, rejected: Sequence[Seen]) -> Iterator[str]:
    if not rejected:
        return
    yield f"not taken were {len(rejected):,}:"
    newest = islice(reversed(rejected), _MOST_COMPARED)
    ranked = sorted(newest, key=lambda one: one.name != wanted.event_type)
    for seen in ranked[:_MOST_SHOWN]:
        yield f"  {seen.name[:80]!r}, answered {seen.status}: {seen.reason}"


def _likeness(name: str, wanted: str) -> float:
    if name == wanted:
        return 2.0
    return difflib.SequenceMatcher(None, name.lower(), wanted[:80].lower()).ratio()


def _differs(wanted: object, held: object) -> bool:
    # To JSON true is no number, though to Python it equals one.
    if isinstance(held, bool) and type(wanted) in {int, float}:
        return True
    if isinstance(wanted, bool) and not isinstance(held, bool):
        return True
    # The wanted one decides: it may be a mock that is equal to anything.
    return bool(wanted != held)


def _difference(field: str, value: object, wanted: object) -> str:
    if value is _ABSENT:
        return f"{field} is absent and not {reprlib.repr(wanted)}"
    return f"{field} is {reprlib.repr(value)} and not {reprlib.repr(wanted)}"


def _bad(name: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"{name} is {reprlib.repr(value)}: {remedy}")
