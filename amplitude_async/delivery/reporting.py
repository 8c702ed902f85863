"""What the on-call reads: at most one line a minute per cause, with counts."""

import asyncio
import logging
from contextlib import suppress

from amplitude_async.delivery.clock import Clock
from amplitude_async.exceptions import AmplitudeError

__all__ = ["Reporter", "in_words"]

QUIET_INTERVAL = 60.0


class Reporter:
    """Logs a cause at once, then at most once a minute with what was kept quiet."""

    def __init__(self, logger: logging.Logger, clock: Clock, name: str) -> None:
        self._logger = logger
        self._clock = clock
        self._name = name
        self._spoken: dict[str, float] = {}
        self._unspoken: dict[str, int] = {}

    def debug(self, message: str, *args: object) -> None:
        """Log one line per batch; built only where DEBUG is on."""
        if self._is_on(logging.DEBUG):
            self._log(logging.DEBUG, f"{self._name}: {message % args}")

    def warning(self, cause: str, message: str, *args: object, count: int = 1) -> None:
        """Log trouble that may pass."""
        self._report(logging.WARNING, cause, message, args, count)

    def error(
        self,
        cause: str,
        message: str,
        *args: object,
        count: int = 1,
        traceback: BaseException | None = None,
    ) -> None:
        """Log a loss, or something a person must mend."""
        self._report(logging.ERROR, cause, message, args, count, traceback)

    def _report(  # noqa: PLR0917 - private, called by two
        self,
        level: int,
        cause: str,
        message: str,
        args: tuple[object, ...],
        count: int,
        traceback: BaseException | None = None,
    ) -> None:
        now = self._clock.now()
        unspoken = self._unspoken.get(cause, 0) + count
        spoken = self._spoken.get(cause)
        if spoken is not None and now - spoken < QUIET_INTERVAL:
            self._unspoken[cause] = unspoken
            return
        self._spoken[cause] = now
        self._unspoken[cause] = 0
        text = f"{self._name}: {message % args} [{cause} x{unspoken}]"
        self._log(level, text, traceback)

    # Filters, handlers and loggers are the user's. What one raises is its own trouble
    # and no event's; nothing is awaited here, so that no cancellation is meant for us.

    def _is_on(self, level: int) -> bool:
        try:
            return self._logger.isEnabledFor(level)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - where to log it?
            return False

    def _log(
        self, level: int, text: str, traceback: BaseException | None = None
    ) -> None:
        with suppress(Exception, asyncio.CancelledError):
            self._logger.log(level, "%s", text, exc_info=traceback)


def in_words(error: BaseException) -> str:
    """Tell an error of ours by its message, and one of others by name and message."""
    return str(error) if isinstance(error, AmplitudeError) else repr(error)
