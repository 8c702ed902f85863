"""How much was asked of a consumer and has not come yet: numbers, and no waiting."""

from typing import Final

__all__ = ["Pulls"]

MOST: Final = 256
FIRST_GUESS: Final = 64 * 1024
# Of a new size so much goes into the average.
WEIGHT: Final = 0.2


class Pulls:
    """Keeps the books of the pull requests of one claim.

    Args:
        window: bytes that may be read ahead.
        expires: seconds after which the server forgets a request.
    """

    def __init__(self, window: int, expires: float) -> None:
        self._window = window
        self._expires = expires
        self._open: dict[str, list[float]] = {}
        self._average = float(FIRST_GUESS)
        self._number = 0

    def __repr__(self) -> str:
        return f"<Pulls: {self.asked} asked for>"

    @property
    def asked(self) -> int:
        """How many messages may still come by themselves."""
        return int(sum(left for left, _ in self._open.values()))

    def wanted(self, kept: int, now: float) -> int:
        """Say how many more to ask for, where `kept` bytes lie there unread."""
        for name, (_, until) in list(self._open.items()):
            if until < now:
                del self._open[name]
        asked = self.asked
        room = min(int((self._window - kept) / self._average), MOST)
        # Half a window at a time: a request for each message would cost more than it.
        return room - asked if room > 0 and asked <= room // 2 else 0

    def ask(self, count: int, now: float) -> str:
        """Note a request; returns the name that its statuses come under."""
        self._number += 1
        name = f"p{self._number}"
        if count:
            self._open[name] = [count, now + self._expires]
        return name

    def came(self, size: int) -> None:
        """Note a message."""
        self._average += (max(size, 1) - self._average) * WEIGHT
        for name, entry in self._open.items():
            entry[0] -= 1
            if entry[0] <= 0:
                del self._open[name]
            return

    def ended(self, name: str) -> None:
        """Note that the server forgot a request."""
        self._open.pop(name, None)
