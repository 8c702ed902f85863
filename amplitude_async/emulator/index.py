"""Finds what was stored of one user or device without looking at all the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .judgement import JsonObject
from .reading import text_of
from .seen import Seen

__all__ = ["LONGEST_ID", "Identities", "Key", "UserIndex", "event_keys", "listed_id"]

LONGEST_ID = 200
"""Characters of an id that are shown, and by which it is found."""

Key = tuple[str, str]
"""What an id is ("user", "device" or "alone") and the id.

A device stands "alone" where an event names it and no user.
"""

Identities = Callable[[JsonObject], Iterable[Key]]
"""Returns under which ids an event, or batch, is found."""


class UserIndex:
    """What is kept, by the ids in it, each in order of arrival.

    Args:
        identities: says where to find an event.
        kept: what is kept already.
    """

    def __init__(self, identities: Identities, kept: Iterable[Seen]) -> None:
        self._identities = identities
        # By number: the oldest go first, and a list would be moved for each.
        self._found: dict[Key, dict[int, Seen]] = {}
        for seen in kept:
            self.add(seen)

    def add(self, seen: Seen) -> None:
        """Find this one from now on."""
        for key in self._identities(seen.event):
            self._found.setdefault(key, {})[seen.number] = seen

    def forget(self, seen: Seen) -> None:
        """Find it no longer."""
        for key in self._identities(seen.event):
            found = self._found.get(key, {})
            found.pop(seen.number, None)
            if not found:
                self._found.pop(key, None)

    def names(self) -> list[str]:
        """Return the ids of users, and of devices that came without one."""
        wanted = (name for kind, name in self._found if kind in ("user", "alone"))
        return list(dict.fromkeys(wanted))

    def of(self, name: str) -> list[Seen]:
        """Return what is kept of a user, or else of a device."""
        for kind in ("user", "device"):
            found = self._found.get((kind, name))
            if found:
                return list(found.values())
        return []


def listed_id(name: str) -> str:
    """Return an id as lists have it: what is listed can be looked up."""
    return name[:LONGEST_ID]


def event_keys(event: JsonObject) -> Iterator[Key]:
    """Return under which ids an Amplitude event is found."""
    user, device = text_of(event.get("user_id")), text_of(event.get("device_id"))
    if user:
        yield "user", user
    if device:
        yield "device", device
        if not user:
            yield "alone", device
