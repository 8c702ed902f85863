"""Throttled identities of which a part is left to the storage. Pure.

An identity is behind from its first event that goes back until the storage has no more
of it. Whatever comes for it meanwhile goes back as well, so that order holds.
"""

from collections.abc import Iterable

from amplitude_async.storage.base import Record

__all__ = ["Behind"]


class Behind:
    """Who is behind, whose lane has run dry, and what goes back now.

    Args:
        able: a storage keeps what memory has no room for; else it is shed.
    """

    def __init__(self, *, able: bool) -> None:
        self.able = able
        """True where there is a storage to leave events to."""
        self._identities: set[str] = set()
        # In the order in which their lanes ran dry: first come, first served.
        self._dry: dict[str, None] = {}
        self._back: list[Record] = []

    def __contains__(self, identity: str) -> bool:
        return identity in self._identities

    def __len__(self) -> int:
        """Count the events that go back and were not collected as yet."""
        return len(self._back)

    def among(self, records: Iterable[Record]) -> list[Record]:
        """Pick those whose identity is behind."""
        return [record for record in records if record.identity in self._identities]

    def add(self, identity: str) -> None:
        """Leave the rest of an identity to the storage from now on."""
        self._identities.add(identity)

    def leave(self, record: Record) -> None:
        """Give an event back to the storage."""
        self._identities.add(record.identity)
        self._back.append(record)

    def collect(self) -> list[Record]:
        """Hand over the events that go back."""
        back, self._back = self._back, []
        return back

    def run_dry(self, identity: str) -> None:
        """Note that memory has nothing of an identity any more."""
        self._dry[identity] = None

    def supply(self, identity: str) -> None:
        """Note that more of an identity has come."""
        self._dry.pop(identity, None)

    def catch_up(self, identity: str) -> None:
        """Note that the storage has no more of an identity."""
        self._identities.discard(identity)
        self._dry.pop(identity, None)

    @property
    def identities(self) -> list[str]:
        """All that are behind."""
        return list(self._identities)

    @property
    def dry(self) -> list[str]:
        """Those of which memory has nothing, the first to run dry first."""
        return list(self._dry)

    @property
    def some_dry(self) -> bool:
        """True where an identity waits for more of its events."""
        return bool(self._dry)

    def __repr__(self) -> str:
        return f"<Behind {len(self._identities)}, {len(self._dry)} of them dry>"
