"""How long a claim is ours for sure, by clocks that may stand still or jump."""

from typing import Final

from amplitude_async.delivery.clock import Clock

__all__ = ["Lease"]

# Before others may claim the place, by so large a part of the lease, we stop.
CAUTION: Final = 0.1


class Lease:
    """A time that begins with each renewal, before that is even sent.

    The clock that does not jump may stand still while a machine sleeps, and the wall
    clock may be set: whichever of the two went further counts. So a claim may be taken
    for lost that is not, and never the other way round.

    Args:
        length: seconds until the log lets others claim.
    """

    def __init__(self, length: float, clock: Clock) -> None:
        self.length = length
        self._clock = clock
        self._began = clock.now(), clock.wall()

    def moment(self) -> tuple[float, float]:
        """Read both clocks, before a renewal is sent."""
        return self._clock.now(), self._clock.wall()

    def begin(self, moment: tuple[float, float]) -> None:
        """Count from a moment on at which a renewal was sent that succeeded."""
        self._began = moment

    @property
    def age(self) -> float:
        """Seconds since the last renewal began."""
        began, began_wall = self._began
        return max(self._clock.now() - began, self._clock.wall() - began_wall)

    @property
    def valid(self) -> bool:
        """True while nobody else can have the place."""
        return self.age < self.length * (1 - CAUTION)

    def __repr__(self) -> str:
        return f"<Lease of {self.length:g} s, {self.age:.1f} s old>"
