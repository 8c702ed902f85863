"""Who was seen, and which types of events, counted only when somebody asks."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

from .entries import brief, name_at, properties_of
from .index import event_keys, listed_id
from .seen import Seen
from .timeline import Timeline
from .turns import in_turns
from .users import amount_of, batch_keys

__all__ = ["Overview"]

_MOST_USERS = 20_000
_MOST_TYPES = 1_000
_MOST_PROPERTIES = 100
_MOST_DEVICES = 20
_MOST_SERIES = 6
_LONGEST = 200
# A client that tells of an event may have a clock that says anything.
_TOLD_LATE = 3600.0
_VALUE_KINDS: Mapping[type, str] = MappingProxyType(
    {
        str: "text",
        bool: "true or false",
        int: "number",
        float: "number",
        list: "list",
        dict: "object",
        type(None): "null",
    }
)


@dataclass(slots=True)
class _Person:
    """One user, or a device that came without one."""

    devices: dict[str, None] = field(default_factory=dict)
    events: int = 0
    rejected: int = 0
    revenue: float = 0.0
    last_at: float = 0.0
    last_name: str = ""

    def add(self, seen: Seen, devices: Iterable[str]) -> None:
        """Count what they did next."""
        for device in devices:
            if len(self.devices) < _MOST_DEVICES:
                self.devices.setdefault(listed_id(device))
        self.last_at = seen.received_at
        self.last_name = name_at(seen, seen.last_number)
        if seen.verdict != "stored":
            self.rejected += 1
            return
        self.events += seen.last_number - seen.number + 1
        if seen.unit == "event":
            self.revenue += amount_of(seen.event) or 0.0

    def shown(self) -> dict[str, Any]:
        """Return what there is to say in a line."""
        return {
            "devices": list(self.devices),
            "events": self.events,
            "rejected": self.rejected,
            "revenue": round(self.revenue, 6),
            "last_at": self.last_at,
            "last_name": self.last_name,
        }


@dataclass(slots=True)
class _Property:
    """One property of a type, with the kinds of values it was seen with."""

    example: str
    kinds: dict[str, None] = field(default_factory=dict)
    count: int = 0

    def add(self, value: object) -> None:
        """Count its next value."""
        self.count += 1
        self.kinds.setdefault(_VALUE_KINDS.get(type(value), "other"))

    def shown(self, name: str) -> dict[str, Any]:
        """Return it as JSON values."""
        kinds = list(self.kinds)
        own = {"kinds": kinds, "example": self.example, "count": self.count}
        return {"name": name, **own}


@dataclass(slots=True)
class _Type:
    """One type of events."""

    first_at: float
    count: int = 0
    rejected: int = 0
    last_at: float = 0.0
    properties: dict[str, _Property] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def stored(self) -> int:
        """How many of them were stored."""
        return self.count - self.rejected

    def add(self, seen: Seen, properties: Mapping[str, Any], at: float) -> None:
        """Count the next event, which came at a time."""
        self.count += 1
        self.rejected += seen.verdict != "stored"
        self.timeline.add(at, stored=seen.verdict == "stored")
        self.last_at = seen.received_at
        known = self.properties
        for key, value in islice(properties.items(), _MOST_PROPERTIES):
            name = str(key)[:_LONGEST]
            own = known.get(name)
            if own is None:
                if len(known) >= _MOST_PROPERTIES:
                    continue
                own = known[name] = _Property(brief(value))
            own.add(value)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "count": self.count,
            "rejected": self.rejected,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "properties": [own.shown(name) for name, own in self.properties.items()],
        }


class Overview:
    """Counts users and types of what came after `last`.

    Of more users than it has room for it forgets those who were quiet longest, and of
    more types or properties it takes no note.

    Args:
        known: names of types that are not new.
        clock: seconds since the epoch.
    """

    def __init__(
        self, known: Collection[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self.last = 0
        """The number up to which everything is counted."""
        self._missed = 0
        self._known = frozenset(known)
        self._people: OrderedDict[tuple[str, str], _Person] = OrderedDict()
        self._types: dict[str, _Type] = {}
        self._types_left_out = self._people_forgotten = 0
        self._clock = clock
        self._timeline = Timeline()
        self._arrived = 0.0
        self._dropped = 0

    @property
    def names(self) -> frozenset[str]:
        """The names of all types, those that were known before among them."""
        return frozenset(islice({*self._types, *self._known}, 10 * _MOST_TYPES))

    def miss(self, events: int) -> None:
        """Note how many events are kept no more, counted or not."""
        self._missed = events

    def add(self, seen: Seen) -> None:
        """Count what came next."""
        self.last = seen.last_number
        taken = seen.verdict != "duplicate"
        if not taken:
            return
        at = self._time_of(seen)
        for number in range(seen.number, seen.last_number + 1):
            self._timeline.add(at, stored=seen.verdict == "stored")
            self._dropped += seen.verdict == "dropped"
            self._count_type(seen, number, at)
        self._count_person(seen)

    async def users(self, text: str, limit: int) -> dict[str, Any]:
        """Return users whose id or device has a text in it, the newest first."""
        found, total = await self._found(text.lower(), limit)
        return {
            "users": [
                {"id": name, "vendor": vendor, **person.shown()}
                for (vendor, name), person in found
            ],
            "total": total,
            "missed": self._missed,
            "forgotten": self._people_forgotten,
        }

    async def _found(
        self, text: str, limit: int
    ) -> tuple[list[tuple[tuple[str, str], _Person]], int]:
        newest = reversed(self._people.items())
        if not text:
            return list(islice(newest, limit)), len(self._people)
        found: list[tuple[tuple[str, str], _Person]] = []
        total = 0
        async for key, person in in_turns(list(newest)):
            named = text in key[1].lower()
            if named or any(text in device.lower() for device in person.devices):
                total += 1
                if len(found) < limit:
                    found.append((key, person))
        return found, total

    async def types(self) -> list[dict[str, Any]]:
        """Return all types, the most frequent first."""
        ranked = sorted(self._types.items(), key=lambda one: -one[1].count)
        return [
            {"name": name, "new": name not in self._known, **one.shown()}
            async for name, one in in_turns(ranked)
        ]

    def counts(self) -> dict[str, int]:
        """Return what the types leave out."""
        return {"missed": self._missed, "left_out": self._types_left_out}

    def chart(self, name: str | None = None) -> dict[str, Any] | None:
        """Return what came when: of all types, or of one; None: it is not known.

        The most frequent types have a series of what was stored each, and all others
        one together, as has what was not stored.
        """
        now = self._clock()
        if name is None:
            line = self._timeline
            first = heapq.nlargest(
                _MOST_SERIES, self._types.items(), key=lambda one: one[1].stored
            )
        elif name in self._types:
            line = self._types[name].timeline
            first = [(name, self._types[name])]
        else:
            return None
        last = line.last(now)
        stored, rejected = line.bars(line.step, last)
        series = [(own, one.timeline.bars(line.step, last)[0]) for own, one in first]
        rest = [
            max(0, count - sum(own))
            for count, *own in zip(
                stored, *(counts for _, counts in series), strict=True
            )
        ]
        return {
            "now": now,
            "step": line.step,
            "last": last * line.step,
            "series": [
                {"name": own, "counts": counts} for own, counts in series if any(counts)
            ],
            "others": rest,
            "rejected": rejected,
            "dropped": self._dropped > 0,
        }

    def _time_of(self, seen: Seen) -> float:
        """Return when it came, or, of what a client tells, about when."""
        now = self._clock()
        if not seen.local:
            self._arrived = min(seen.received_at, now)
            return self._arrived
        return min(max(seen.received_at, (self._arrived or now) - _TOLD_LATE), now)

    def _count_type(self, seen: Seen, number: int, at: float) -> None:
        name = name_at(seen, number)
        one = self._types.get(name)
        if one is None:
            if len(self._types) >= _MOST_TYPES:
                self._types_left_out += 1
                return
            one = self._types[name] = _Type(seen.received_at)
        one.add(seen, properties_of(seen, number), at)

    def _count_person(self, seen: Seen) -> None:
        batch = seen.unit == "batch"
        keys = list(batch_keys(seen.event) if batch else event_keys(seen.event))
        names = [name for kind, name in keys if kind in ("user", "alone")]
        if not names:
            return
        vendor = "mparticle" if batch else "amplitude"
        devices = (own for kind, own in keys if kind == "device" and own != names[0])
        self._person(vendor, listed_id(names[0])).add(seen, devices)

    def _person(self, vendor: str, name: str) -> _Person:
        key = vendor, name
        person = self._people.get(key)
        if person is None:
            person = self._people[key] = _Person()
            if len(self._people) > _MOST_USERS:
                self._people.popitem(last=False)
                self._people_forgotten += 1
        else:
            self._people.move_to_end(key)
        return person
