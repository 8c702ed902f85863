"""What of a storage others may claim: it is let go without an outcome."""

from collections.abc import Sequence

from amplitude_async.delivery.unread import Unread
from amplitude_async.storage.base import Host, Record, Storage

__all__ = ["Claims"]


class Claims:
    """The engine's side of a storage that others fill, and claim from.

    Args:
        storage: knows whose its records are.
        unread: how far it was read.
    """

    def __init__(self, storage: Storage, unread: Unread) -> None:
        self._storage = storage
        self._unread = unread

    def __repr__(self) -> str:
        return f"<Claims on {type(self._storage).__name__}>"

    @property
    def takes_appends(self) -> bool:
        """False where events come from the storage only."""
        return self._storage.takes_appends

    @property
    def hurried(self) -> bool:
        """True while no company is on its way to what was read of the storage."""
        return self._storage.hurried

    def listen(self, host: Host) -> None:
        """Let the storage know whom to tell of new events."""
        self._storage.listen(host)

    def arrive(self, records: int, first: int) -> None:
        """Note new events of others, from an id on."""
        self._unread.add(records, first)

    def may_send(self, records: Sequence[Record]) -> bool:
        """Say whether records are still ours to send."""
        return self._storage.may_send(records)

    def lapsed(self) -> Sequence[Record]:
        """List undecided records that are ours no longer, once nobody reads."""
        return () if self._unread.lock.locked() else self._storage.lapsed()

    def take_back(self, records: Sequence[Record], waiting: Sequence[Record]) -> int:
        """Let records go that are ours no longer.

        Args:
            records: all of them.
            waiting: those that were in memory, and in no request.

        Returns:
            How many were let go: these, and those that were unread.
        """
        unread = [record for record in records if self._unread.has(record)]
        self._unread.decided(unread)
        gone = [record.id for record in (*unread, *waiting)]
        if gone:
            self._storage.take_back(gone)
        return len(gone)
