"""The engine as the host of a storage that others fill, and claim from."""

from collections.abc import Callable

from amplitude_async.delivery.parts import Parts, Site

__all__ = ["Hosting"]


class Hosting:
    """Tells the engine of what comes and goes behind its back.

    Args:
        recover: accounts for events that were taken over, and reads them.
    """

    def __init__(
        self, site: Site, parts: Parts, recover: Callable[[int], None]
    ) -> None:
        self._clock = site.clock
        self._parts = parts
        self._recover = recover

    def __repr__(self) -> str:
        return f"<Hosting, {self.ahead} ahead>"

    # What the storage calls --------------------------------------------------

    @property
    def ahead(self) -> int:
        """Events that have arrived and that nobody has fetched as yet."""
        return self._parts.journal.ahead

    def arrived(self, records: int) -> int:
        """Account for new events of others, unread as yet; returns the first id."""
        first = self._parts.intake.allot(records)
        self._parts.journal.claims.arrive(records, first)
        self._recover(records)
        return first

    def look_again(self) -> None:
        """Look soon for what is somebody else's, or has no company to wait for."""
        self._parts.alarm.ring()

    def share(self, part: float) -> None:
        """Keep to a part of the configured rate."""
        self._parts.schedule.share(part, self._clock.now())
        self._parts.alarm.ring()

    # What the engine calls ---------------------------------------------------

    def recall(self) -> None:
        """Let go what is somebody else's by now, except what is in flight."""
        parts = self._parts
        lapsed = parts.journal.claims.lapsed()
        if not lapsed:
            return
        ids = {record.id for record in lapsed}
        waiting = parts.schedule.recall(
            lambda records: [record for record in records if record.id in ids]
        )
        gone = parts.journal.claims.take_back(lapsed, waiting)
        parts.books.give_back(waiting, gone - len(waiting))
        parts.schedule.catch_up(parts.journal.is_behind)
