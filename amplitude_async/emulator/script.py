"""The script of faults: which of them fires for which request."""

from __future__ import annotations

import inspect
import itertools
import math
import random
import reprlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields
from threading import RLock
from types import TracebackType
from typing import Any, Self

from .admission import Admission
from .faults import Fault
from .records import ReceivedRequest

__all__ = ["FaultScript", "Turn", "describe", "in_words", "parse_faults"]

_KINDS = (
    "throttle",
    "quota",
    "silenced",
    "too_large",
    "invalid_key",
    "server_error",
    "html",
    "busy",
)
# A function cannot be written in JSON.
_FIELDS = frozenset(one.name for one in fields(Fault)) - {"when"}


class _Entry:
    """A fault, how often it may still fire, and for whom it does not."""

    __slots__ = ("admission", "fault", "left", "number")

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault = fault
        self.number = number
        self.left = fault.count
        per_second, at_once = fault.requests_per_second, fault.at_once
        busy = per_second is not None or at_once is not None
        self.admission = Admission(per_second, at_once) if busy else None


class FaultScript:
    """Faults in the order they were added; the first that matches a request fires.

    Any thread may add and clear while requests are answered.

    Args:
        seed: of the draws for `Fault.rate`, so that a run can be repeated.
        changed: is told when a fault was added, fired or went.
    """

    def __init__(
        self, seed: int = 0, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._changed = changed
        self._numbers = itertools.count(1)
        self._seed = seed
        self._random = random.Random(seed)
        self._entries: list[_Entry] = []
        # Reentrant: a signal's handler may add a fault while one is being added.
        self._lock = RLock()

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that can still fire."""
        return tuple(entry.fault for entry in self._all())

    def add(self, *faults: Fault | str) -> None:
        """Append faults to the script, presets by their name.

        Raises:
            ValueError: there is no preset of such a name; none is added.
            TypeError: something else is no fault, likewise.
        """
        entries = [_Entry(_fault(one), next(self._numbers)) for one in faults]
        with self._lock:
            self._entries.extend(entries)
        self._changed()

    def remove(self, number: int) -> bool:
        """Remove the fault whose `id` this is; False where it is there no more."""
        with self._lock:
            found = [one for one in self._entries if one.number == number]
            for entry in found:
                self._entries.remove(entry)
        self._changed()
        return bool(found)

    def clear(self) -> None:
        """Remove all faults and start the draws anew."""
        with self._lock:
            self._entries.clear()
            self._random.seed(self._seed)
        self._changed()

    def turn(self) -> Turn:
        """Begin choosing a fault for one request."""
        return Turn(self, iter(self._all()))

    def describe(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return the pending faults as JSON objects, at most so many."""
        return [
            {
                "id": entry.number,
                "text": in_words(entry.fault, entry.left),
                **describe(entry.fault, entry.left),
            }
            for entry in self._all()[:most]
        ]

    def _all(self) -> tuple[_Entry, ...]:
        with self._lock:
            return tuple(self._entries)

    def _concerns(self, entry: _Entry, request: ReceivedRequest) -> bool:
        # Another request may have used it up while this one's body was read.
        if entry not in self._all():
            return False
        when = entry.fault.when
        return when is None or bool(when(request))

    def _draw(self, entry: _Entry) -> bool:
        fault = entry.fault
        with self._lock:
            # Another thread may have cleared it while its `when` was asked.
            if entry not in self._entries:
                return False
            if fault.rate < 1 and self._random.random() >= fault.rate:
                return False
            if entry.left is not None:
                entry.left -= 1
                if entry.left == 0:
                    self._entries.remove(entry)
        self._changed()
        return True


class Turn:
    """One request's way through the script, which halts while its body is read.

    Use it as `with script.turn() as turn:` around the whole of it: so long the request
    is under way.
    """

    def __init__(self, script: FaultScript, entries: Iterator[_Entry]) -> None:
        self._script = script
        self._entries = entries
        self._next: _Entry | None = None
        self._entered: list[Admission] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Make room for others at each fault that let this request through."""
        for admission in self._entered:
            admission.leave()

    def before_reading(self, request: ReceivedRequest) -> Fault | None:
        """Return the fault that hangs up now, if the script has come to one."""
        for entry in self._matching(request.path):
            if entry.fault.hang_up != "before":
                self._next = entry
                return None
            if self._fires(entry, request):
                return entry.fault
        return None

    def after_reading(self, request: ReceivedRequest) -> Fault | None:
        """Return the fault for a request that was read and judged."""
        entry = self._next
        while entry is not None:
            if self._fires(entry, request):
                return entry.fault
            entry = next(self._matching(request.path), None)
        return None

    def _fires(self, entry: _Entry, request: ReceivedRequest) -> bool:
        script, admission = self._script, entry.admission
        if not script._concerns(entry, request):  # noqa: SLF001 - one class in two
            return False
        if admission is not None and admission.admit(request.received_at):
            self._entered.append(admission)
            return False
        return script._draw(entry)  # noqa: SLF001 - as above

    def _matching(self, path: str) -> Iterator[_Entry]:
        for entry in self._entries:
            if entry.fault.path in (None, path):
                yield entry


def _fault(given: Fault | str) -> Fault:
    if isinstance(given, str):
        return Fault.preset(given)
    if not isinstance(given, Fault):
        msg = f'expected a Fault, got {given!r}: write Fault(503), or "outage"'
        raise TypeError(msg)
    return given


def describe(fault: Fault, left: int | None) -> dict[str, Any]:
    """Return a fault as a JSON object: its name, what is left, and what it sets."""
    shown: dict[str, Any] = {"name": fault.label, "left": left}
    for one in fields(fault):
        value = getattr(fault, one.name)
        plain = isinstance(value, (str, int, float))
        if one.name not in ("name", "count", "body") and plain and value != one.default:
            shown[one.name] = str(value) if value == float("inf") else value
    return shown


def in_words(fault: Fault, left: int | None) -> str:
    """Say what a fault does, to whom, and how often it still does."""
    what = "; ".join(filter(None, _deeds(fault))) or "changes nothing"
    if fault.name:
        what = f"{fault.name[:80]}: {what}"
    whom = f", on {fault.path[:80]}" if fault.path else ""
    chance = f", {fault.rate:.0%} of the time" if fault.rate < 1 else ""
    some = ", where its condition holds" if fault.when else ""
    if left is None:
        often = ", until it is removed"
    else:
        often = f", {left:,} more {'time' if left == 1 else 'times'}"
    return what + whom + chance + some + often


def _deeds(fault: Fault) -> Iterator[str]:
    if fault.requests_per_second is not None:
        yield f"takes {fault.requests_per_second:g} requests a second"
    if fault.at_once is not None:
        yield f"takes {fault.at_once:,} requests at once"
    if fault.delay:
        endless = math.isinf(fault.delay)
        yield "never answers" if endless else f"waits {fault.delay:g} s"
    if fault.status is not None:
        yield f"answers {fault.status}"
    if fault.hang_up:
        yield f"hangs up {fault.hang_up} the answer"
    if fault.trickle:
        yield f"{fault.trickle:g} s between bytes"
    if fault.endless:
        yield "an answer without end"
    if fault.ingest:
        yield "stores the events all the same"


def parse_faults(value: object) -> list[Fault]:
    """Read one fault or a list of faults from JSON.

    Raises:
        ValueError: a fault is none; the message names key, value and remedy.
    """
    return [_parse(one) for one in (value if isinstance(value, list) else [value])]


def _parse(value: object) -> Fault:
    if not isinstance(value, dict):
        shown = reprlib.repr(value)
        msg = f'a fault must be a JSON object, got {shown}: send {{"status": 503}}'
        raise ValueError(msg)  # noqa: TRY004 - one error type for a bad request
    given = dict(value)
    kind = given.pop("kind", None)
    if kind is None:
        preset = given.pop("preset", None)
        _check_keys(given, _FIELDS, "a fault")
        return Fault(**given) if preset is None else Fault.preset(preset, **given)
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        msg = f"fault kind is {reprlib.repr(kind)}: use one of {known}, or leave it out"
        raise ValueError(msg)
    build = getattr(Fault, kind)
    _check_keys(given, set(inspect.signature(build).parameters), f"a {kind} fault")
    try:
        fault: Fault = build(**given)
    except TypeError as error:
        # The only way left is a parameter without a default.
        msg = f"a {kind} fault lacks a key: {error}"
        raise ValueError(msg) from error
    return fault


def _check_keys(
    given: Mapping[str, object], known: AbstractSet[str], what: str
) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        shown = reprlib.repr(unknown[0])
        msg = f"{what} has no key {shown}: use {', '.join(sorted(known))}"
        raise ValueError(msg)
