"""How much may be in a spool, and how much is: what came, what went, what was taken.

Each count is changed by one thread alone, so that none needs a lock: what is appended
by the loop's, the others by the spool's.
"""

from amplitude_async.storage.spool.file import Amount

__all__ = ["Allowance"]

# Each process takes over what it has room for: the others take the rest.
_SHARE = 4


class Allowance:
    """Counts the events and bytes of one spool against its limits.

    Args:
        max_events: most events in the spool.
        max_bytes: most encoded bytes of events in the spool.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._appended_events = self._appended_size = 0
        # What was taken over counts less than nothing here.
        self._settled_events = self._settled_size = 0
        self._held_events = self._held_size = 0

    def __repr__(self) -> str:
        return (
            f"<Allowance {self.events} of {self.max_events} events, "
            f"{self.size} of {self.max_bytes} bytes>"
        )

    @property
    def events(self) -> int:
        """How many events are in the spool."""
        return self._appended_events - self._settled_events

    @property
    def size(self) -> int:
        """How many bytes their bodies have."""
        return self._appended_size - self._settled_size

    def begin(self) -> None:
        """Count from nothing, before anything is written or taken over."""
        self._appended_events = self._appended_size = 0
        self._settled_events = self._settled_size = 0
        self.hold_nothing()

    # Of the spool's own events -----------------------------------------------

    def take(self, events: int, size: int) -> bool:
        """Count what is appended; False where there is no room. On the loop's thread.

        Without a lock: at worst a limit is felt a moment early or late.
        """
        count = self._appended_events + events - self._settled_events
        total = self._appended_size + size - self._settled_size
        if (
            count > self.max_events or total > self.max_bytes
        ) and not self._is_room_of_own(count, total):
            return False
        self._appended_events += events
        self._appended_size += size
        return True

    def _is_room_of_own(self, events: int, size: int) -> bool:
        """Say whether so much is too much only for what was taken over."""
        # One file of another process can be as large as a spool may be: half of the
        # room stays for events of our own.
        events -= max(self._held_events - self.max_events // 2, 0)
        size -= max(self._held_size - self.max_bytes // 2, 0)
        return events <= self.max_events and size <= self.max_bytes

    def give_back(self, events: int, size: int) -> None:
        """Count what is in no file any more, or never came to be."""
        self._settled_events += events
        self._settled_size += size

    # Of what is taken over ---------------------------------------------------

    @property
    def is_used_up(self) -> bool:
        """True where nothing more should be taken over for now."""
        return bool(self._held_events) and (
            self._held_events >= self.max_events // _SHARE
            or self._held_size >= self.max_bytes // _SHARE
        )

    def has_place_for(self, amount: Amount) -> bool:
        """Say whether so much may be taken over: anything, where nothing is held."""
        return not self._held_events or (
            self._held_events + amount.events <= self.max_events // _SHARE
            and self._held_size + amount.size <= self.max_bytes // _SHARE
        )

    def take_over(self, amount: Amount) -> None:
        """Count what another process has left."""
        self.give_back(-amount.events, -amount.size)
        self.let_go(Amount(-amount.events, -amount.size))

    def let_go(self, amount: Amount) -> None:
        """Hold so much less of what was taken over."""
        self._held_events -= amount.events
        self._held_size -= amount.size

    def hold_nothing(self) -> None:
        """Hold nothing of others, as their files are left."""
        self._held_events = self._held_size = 0
