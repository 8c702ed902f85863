"""What the on-call reads: at most one line a minute per cause, with counts."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from traceback import format_exception
from types import MappingProxyType
from typing import Final, TypeAlias

from amplitude_async.delivery.clock import Clock
from amplitude_async.exceptions import AmplitudeError
from amplitude_async.redaction import Redactor, without_inputs
from amplitude_async.shown import printable

__all__ = ["Numbers", "Reporter", "in_words", "log_quietly", "named"]

QUIET_INTERVAL = 60.0

Numbers: TypeAlias = Mapping[str, int | float | str]
"""What a line says, for machines: never an id, a key or a word of an event."""

NO_NUMBERS: Final[Numbers] = MappingProxyType({})


class Reporter:
    """Logs a cause at once, then at most once a minute with what was kept quiet.

    Args:
        redact: takes secrets out of every line; by default what looks like credentials.
    """

    def __init__(
        self,
        logger: logging.Logger,
        clock: Clock,
        name: str,
        redact: Redactor | None = None,
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._name = name
        self.redact = redact or Redactor()
        """Takes secrets out of a text that goes elsewhere, such as into a result."""
        self._spoken: dict[str, float] = {}
        self._unspoken: dict[str, int] = {}

    def debug(self, message: str, *args: object, numbers: Numbers = NO_NUMBERS) -> None:
        """Log one line per batch; built only where DEBUG is on."""
        if self._is_on(logging.DEBUG):
            text = printable(self.redact(f"{self._name}: {_filled(message, args)}"))
            extra = {"destination": self._name, **numbers}
            log_quietly(self._logger, logging.DEBUG, text, numbers=extra)

    def warning(
        self,
        cause: str,
        message: str,
        *args: object,
        count: int = 1,
        numbers: Numbers = NO_NUMBERS,
    ) -> None:
        """Log trouble that may pass."""
        self._report(logging.WARNING, cause, message, args, count, numbers=numbers)

    def error(
        self,
        cause: str,
        message: str,
        *args: object,
        count: int = 1,
        numbers: Numbers = NO_NUMBERS,
        traceback: BaseException | None = None,
    ) -> None:
        """Log a loss, or something a person must mend."""
        self._report(logging.ERROR, cause, message, args, count, traceback, numbers)

    def _report(  # noqa: PLR0917 - private, called by two
        self,
        level: int,
        cause: str,
        message: str,
        args: tuple[object, ...],
        count: int,
        traceback: BaseException | None = None,
        numbers: Numbers = NO_NUMBERS,
    ) -> None:
        now = self._clock.now()
        unspoken = self._unspoken.get(cause, 0) + count
        spoken = self._spoken.get(cause)
        if spoken is not None and now - spoken < QUIET_INTERVAL:
            self._unspoken[cause] = unspoken
            return
        self._spoken[cause] = now
        self._unspoken[cause] = 0
        text = f"{self._name}: {_filled(message, args)} [{cause} x{unspoken}]"
        text = printable(self._cleaned(text))
        if traceback is not None:
            traceback = _without_inputs(traceback)
            told = "".join(format_exception(traceback))
            clean = self._cleaned(told)
            if clean != told:
                # A handler would print the error itself, and with it the rest.
                text, traceback = f"{text}\n{clean}", None
        extra = {
            "destination": self._name,
            "cause": self._cleaned(cause),
            "count": unspoken,
            **numbers,
        }
        log_quietly(self._logger, level, text, traceback, numbers=extra)

    def _cleaned(self, text: str) -> str:
        """Take out secrets, and what errors of models repeat of an event."""
        return without_inputs(self.redact(text))

    def _is_on(self, level: int) -> bool:
        try:
            return self._logger.isEnabledFor(level)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - where to log it?
            return False


def in_words(error: BaseException) -> str:
    """Tell an error of ours by its message, and one of others by name and message."""
    if isinstance(error, AmplitudeError):
        return str(error)
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - as below
        return type(error).__name__


def named(error: BaseException) -> str:
    """Tell an error of others by class and message, or by class alone.

    What turns it into text is user code, and may raise like any other.
    """
    name = type(error).__name__
    try:
        return f"{name}: {_without_inputs(error)}"
    except Exception:  # noqa: BLE001 - there are no words for it
        return name


def _without_inputs(error: BaseException) -> BaseException:
    """Let an error of a pydantic model name fields, and not the values of an event."""
    items = getattr(error, "errors", None)
    if not isinstance(error, ValueError) or not callable(items):
        return error
    try:
        words = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items()
        )
    except Exception:  # noqa: BLE001 - another kind of error, and not ours to mend
        return error
    return ValueError(words).with_traceback(error.__traceback__)


def _filled(message: str, args: tuple[object, ...]) -> str:
    """Fill words into a message; where one raises, kinds take their place."""
    try:
        return message % args
    except Exception:  # noqa: BLE001 - a repr or str of the user's, not ours to mend
        kinds = ", ".join(type(arg).__name__ for arg in args)
        return f"{message.replace('%', '')} ({kinds})"


def log_quietly(
    logger: logging.Logger,
    level: int,
    text: str,
    traceback: BaseException | None = None,
    *,
    numbers: Numbers = NO_NUMBERS,
) -> None:
    """Log a line, whatever the user's loggers, filters and handlers raise.

    That is their own trouble and no event's. Nothing is awaited here, so that no
    cancellation in it is meant for us.

    Args:
        logger: the user's, or one of the standard library.
        level: how bad it is.
        text: the line.
        traceback: what was raised.
        numbers: what the line says, for machines: attributes of its record, which
            begin with ``amplitude_`` so that they meet none of logging's own.
    """
    extra = {
        f"amplitude_{name}": printable(value) if isinstance(value, str) else value
        for name, value in numbers.items()
    }
    with suppress(Exception, asyncio.CancelledError):
        logger.log(level, "%s", text, exc_info=traceback, extra=extra)
