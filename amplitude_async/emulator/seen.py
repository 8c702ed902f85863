"""One event or batch with what became of it, and lists of those that were taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, overload

from .judgement import JsonObject
from .reading import text_of

__all__ = ["Seen", "Taken", "Verdict", "count_of"]

Verdict = Literal["stored", "duplicate", "rejected", "dropped"]


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
    """One event, or mParticle batch, that arrived, and what became of it."""

    number: int
    """Counts what arrived from 1, in order of arrival; a batch counts its events."""

    received_at: float
    """Seconds since the epoch, on the emulator's clock."""

    verdict: Verdict
    """Whether it was stored, is a copy of one that was, or was not taken.

    Only a client drops events, and tells so where it is asked to."""

    reason: str
    """Why it was not taken, in words the vendor would not send."""

    status: int
    """HTTP status its request was answered with, 0 where it got no answer."""

    request: int
    """Number of the request it came in."""

    index: int
    """Its place in that request, from 0."""

    event: JsonObject = field(compare=False)
    """The event, or batch, as it was sent."""

    unit: Literal["event", "batch"] = "event"
    """What it is: an Amplitude event, or an mParticle batch."""

    local: bool = False
    """Whether it never came: a client told what it rejected or dropped by itself."""

    @property
    def last_number(self) -> int:
        """The number of its last event, its own where it is no batch."""
        return self.number + count_of(self.unit, self.event) - 1

    @property
    def name(self) -> str:
        """The event's type, no text where it has none."""
        return text_of(self.event.get("event_type"))

    @property
    def user_id(self) -> str:
        """The event's user, no text where it has none."""
        return text_of(self.event.get("user_id"))

    @property
    def device_id(self) -> str:
        """The event's device, no text where it has none."""
        return text_of(self.event.get("device_id"))

    def __repr__(self) -> str:
        """Say what became of it, without what is in it."""
        why = f" {self.status}: {self.reason}" if self.reason else ""
        return f"<Seen {self.number} {self.name[:80]!r} {self.verdict}{why}>"


def count_of(unit: Literal["event", "batch"], sent: JsonObject) -> int:
    """Return how many numbers it takes: a batch one for each of its events."""
    if unit == "event":
        return 1
    events = sent.get("events")
    return max(1, len(events)) if isinstance(events, list) else 1


class Taken(list[JsonObject]):
    """What was stored, each once, in order of arrival; call it for what was not.

    Args:
        stored: the events or batches.
        rejected: returns those that were not taken.
    """

    __slots__ = ("_rejected",)

    def __init__(
        self,
        stored: Iterable[JsonObject] = (),
        rejected: Callable[[], list[Seen]] = list,
    ) -> None:
        super().__init__(stored)
        self._rejected = rejected

    @overload
    def __call__(self, *, rejected: Literal[False] = False) -> list[JsonObject]: ...

    @overload
    def __call__(self, *, rejected: Literal[True]) -> list[Seen]: ...

    @overload
    def __call__(self, *, rejected: bool) -> list[JsonObject] | list[Seen]: ...

    def __call__(self, *, rejected: bool = False) -> list[JsonObject] | list[Seen]:
        """Return what was stored, or what was not taken, each with its reason."""
        return self._rejected() if rejected else list(self)

    def __reduce__(self) -> tuple[type[list[JsonObject]], tuple[list[JsonObject]]]:
        """Be a plain list where it is pickled, as for another process."""
        return list, (list(self),)
