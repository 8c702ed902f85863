"""Who hears of events that end before any server sees them."""

from collections.abc import Sequence
from typing import Protocol

from amplitude_async.delivery.outcome import Outcome, Settlement

__all__ = ["Witness"]


class Witness(Protocol):
    """Hears how events end; it may not wait, and harms nobody."""

    active: bool
    """True while it wants to hear: all that is asked where it does not."""

    def begin(self) -> None:
        """Find out whether it wants to hear, where the engine starts."""

    def note(self, source: object, outcome: Outcome) -> None:
        """Hear how an event, or its record, ended."""

    def note_all(self, settlements: Sequence[Settlement]) -> None:
        """Hear how many events ended."""

    async def end(self) -> None:
        """Finish, soon."""
