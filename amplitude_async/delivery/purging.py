"""Gives up what waits, in memory and in the storage, and books each event once."""

from collections.abc import Iterable

from amplitude_async.delivery.deciding.batcher import Choose
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.parts import Parts
from amplitude_async.storage.base import Record

__all__ = ["purge"]


_PURGED = Outcome.dropped(DropReason.PURGED, "purged by the client")


async def purge(parts: Parts, user_id: str | None) -> int:
    """Give up waiting events, all or of one user; those in flight go on.

    Returns:
        How many there were.
    """

    def choose(records: Iterable[Record]) -> list[Record]:
        if user_id is None:
            return list(records)
        return [record for record in records if record.user_id == user_id]

    among = None if user_id is None else choose
    count = _from_memory(parts, among)
    if parts.journal.unread and not parts.intake.closing:

        def settle(found: list[Record]) -> None:
            parts.room.take_in(found)  # settling frees their places
            parts.books.settle([(record, _PURGED) for record in found])

        count += await parts.journal.reading.purge(choose, settle)
        parts.schedule.catch_up(parts.journal.is_behind)
        # A page that was being read when this began is in memory by now.
        count += _from_memory(parts, among)
    await parts.books.settled()
    await parts.journal.settled()
    return count


def _from_memory(parts: Parts, choose: Choose | None) -> int:
    parts.intake.drain()
    purged = parts.schedule.purge(choose)
    blocked = parts.intake.remove(choose)
    count = len(purged) + len(blocked)  # each is settled as it is taken out
    parts.books.settle_in_shares(purged)
    parts.books.settle_in_shares([(record, _PURGED) for record in blocked])
    parts.intake.admit_waiters()
    parts.alarm.ring()
    return count
