"""Who was seen, and which types of events, counted only when somebody asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

from .entries import brief, entries_of, properties_of
from .index import event_keys
from .seen import Seen
from .users import amount_of, batch_keys

__all__ = ["Overview"]

_MOST_USERS = 20_000
_MOST_TYPES = 1_000
_MOST_PROPERTIES = 100
_MOST_DEVICES = 20
_LONGEST = 200
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

    vendor: str
    devices: dict[str, None] = field(default_factory=dict)
    events: int = 0
    rejected: int = 0
    revenue: float = 0.0
    last_at: float = 0.0
    last_name: str = ""


@dataclass(slots=True)
class _Property:
    kinds: dict[str, None] = field(default_factory=dict)
    example: str = ""
    count: int = 0


@dataclass(slots=True)
class _Type:
    first_at: float
    count: int = 0
    rejected: int = 0
    last_at: float = 0.0
    properties: dict[str, _Property] = field(default_factory=dict)


class Overview:
    """Counts users and types of what came after `last`.

    Of more users than it has room for it forgets those who were quiet longest, and of
    more types or properties it takes no note.

    Args:
        known: names of types that are not new.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        self.last = 0
        """The number up to which everything is counted."""
        self.missed = 0
        """Events that were gone before anybody asked."""
        self._known = frozenset(known)
        self._people: OrderedDict[tuple[str, str], _Person] = OrderedDict()
        self._types: dict[str, _Type] = {}
        self._types_left_out = self._people_forgotten = 0

    @property
    def names(self) -> frozenset[str]:
        """The names of all types, those that were known before among them."""
        return frozenset(islice({*self._types, *self._known}, 10 * _MOST_TYPES))

    def add(self, seen: Seen) -> None:
        """Count what came next."""
        self.last = seen.last_number
        taken = seen.verdict != "duplicate"
        for shown in entries_of(seen) if taken else ():
            self._count_type(seen, shown)
        if taken:
            self._count_person(seen)

    def users(self, text: str, limit: int) -> dict[str, Any]:
        """Return users whose id or device has a text in it, the newest first."""
        text = text.lower()
        found = [
            (key, person)
            for key, person in reversed(self._people.items())
            if text in key[1].lower() or any(text in d.lower() for d in person.devices)
        ]
        return {
            "users": [
                {
                    "id": name,
                    "vendor": vendor,
                    "devices": list(person.devices),
                    "events": person.events,
                    "rejected": person.rejected,
                    "revenue": round(person.revenue, 6),
                    "last_at": person.last_at,
                    "last_name": person.last_name,
                }
                for (vendor, name), person in found[:limit]
            ],
            "total": len(found),
            "missed": self.missed,
            "forgotten": self._people_forgotten,
        }

    def types(self) -> dict[str, Any]:
        """Return all types, the most frequent first."""
        ranked = sorted(self._types.items(), key=lambda one: -one[1].count)
        return {
            "types": [self._shown(name, one) for name, one in ranked],
            "missed": self.missed,
            "left_out": self._types_left_out,
        }

    def _shown(self, name: str, one: _Type) -> dict[str, Any]:
        return {
            "name": name,
            "count": one.count,
            "rejected": one.rejected,
            "first_at": one.first_at,
            "last_at": one.last_at,
            "new": name not in self._known,
            "properties": [
                {
                    "name": key,
                    "kinds": list(own.kinds),
                    "example": own.example,
                    "count": own.count,
                }
                for key, own in one.properties.items()
            ],
        }

    def _count_type(self, seen: Seen, shown: Mapping[str, Any]) -> None:
        one = self._types.get(shown["name"])
        if one is None:
            if len(self._types) >= _MOST_TYPES:
                self._types_left_out += 1
                return
            one = self._types[shown["name"]] = _Type(seen.received_at)
        one.count += 1
        one.rejected += seen.verdict != "stored"
        one.last_at = seen.received_at
        properties = properties_of(seen, shown["n"])
        for name, value in islice(properties.items(), _MOST_PROPERTIES):
            _count_property(one.properties, str(name)[:_LONGEST], value)

    def _count_person(self, seen: Seen) -> None:
        batch = seen.unit == "batch"
        keys = list(batch_keys(seen.event) if batch else event_keys(seen.event))
        names = [name for kind, name in keys if kind in ("user", "alone")]
        if not names:
            return
        vendor = "mparticle" if batch else "amplitude"
        person = self._person(vendor, names[0][:_LONGEST])
        for kind, device in keys:
            if kind == "device" and device != names[0]:
                if len(person.devices) >= _MOST_DEVICES:
                    break
                person.devices.setdefault(device[:_LONGEST])
        person.last_at = seen.received_at
        newest = list(entries_of(seen))[-1] if batch else None
        person.last_name = newest["name"] if newest else seen.name[:_LONGEST]
        if seen.verdict != "stored":
            person.rejected += 1
            return
        person.events += seen.last_number - seen.number + 1
        person.revenue += (not batch and amount_of(seen.event)) or 0.0

    def _person(self, vendor: str, name: str) -> _Person:
        key = vendor, name
        person = self._people.get(key)
        if person is None:
            person = self._people[key] = _Person(vendor)
            if len(self._people) > _MOST_USERS:
                self._people.popitem(last=False)
                self._people_forgotten += 1
        else:
            self._people.move_to_end(key)
        return person


def _count_property(known: dict[str, _Property], name: str, value: object) -> None:
    own = known.get(name)
    if own is None:
        if len(known) >= _MOST_PROPERTIES:
            return
        own = known[name] = _Property(example=brief(value))
    own.count += 1
    own.kinds.setdefault(_VALUE_KINDS.get(type(value), "other"))
