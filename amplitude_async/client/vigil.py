"""Notices that a client's loop closes, or that nobody holds the client any more."""

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable

from amplitude_async.delivery.reporting import Numbers, log_quietly

__all__ = ["Vigil"]

# Never reached; a loop that closes lets go of all its timers.
FAR_OFF = 10 * 365 * 86_400.0


class _Candle:
    """What a loop holds as a timer, and drops when it closes."""

    def __init__(self, went_out: Callable[[], None]) -> None:
        self._went_out = went_out

    def __call__(self) -> None:
        """Nothing: that its time comes does not matter."""

    def __del__(self) -> None:
        self._went_out()


class Vigil:
    """Says, once, how many events are undecided when a client is left unclosed.

    It knows nothing of the client, which should be collected as soon as nobody holds
    it.

    Args:
        pending: counts the undecided events.
        concerns: False in a process where they are not ours, as in a forked child.
    """

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        *,
        pending: Callable[[], int],
        concerns: Callable[[], bool],
    ) -> None:
        self._logger = logger
        self._name = name
        self._pending = pending
        self._concerns = concerns
        # Weak: the loop alone is to hold it.
        self._timer: weakref.ref[asyncio.TimerHandle] | None = None
        self._watching = False

    def begin(self) -> None:
        """Watch over the running loop."""
        self.end()
        self._watching = True
        # No event loop tells that it closes, but each of them drops its timers then.
        candle = _Candle(lambda: self.tell("its event loop ended"))
        self._timer = weakref.ref(
            asyncio.get_running_loop().call_later(
                FAR_OFF, candle, context=contextvars.Context()
            )
        )

    def tell(self, what: str) -> None:
        """Say that the client was left, unless that is known or nothing is lost."""
        watching, self._watching = self._watching, False
        pending = self._pending()
        if watching and pending and self._concerns():
            text = (
                f"{self._name}: unclosed client: {what} with {pending} undecided "
                "events: use `async with` or await shutdown()"
            )
            numbers: Numbers = {"destination": self._name, "pending": pending}
            log_quietly(self._logger, logging.WARNING, text, numbers=numbers)

    def end(self) -> None:
        """Watch no longer: the client was shut down, or is at home elsewhere."""
        self._watching = False
        timer = self._timer() if self._timer is not None else None
        if timer is not None:
            timer.cancel()
        self._timer = None

    def __repr__(self) -> str:
        return f"<Vigil {'watching' if self._watching else 'over'}>"
