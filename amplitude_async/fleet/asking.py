"""How a relay asks its log: whatever that raises means that it does not answer."""

from collections.abc import Awaitable
from typing import Final, TypeVar

from amplitude_async.delivery.answer import describe_fault
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.tasks import is_theirs, within
from amplitude_async.exceptions import ConfigurationError, LogError

__all__ = ["NO_ANSWER", "asked"]

T = TypeVar("T")

# What a log raises that does not do as it should, be it away or set up wrongly.
NO_ANSWER: Final = (LogError, OSError, ConfigurationError)


async def asked(seconds: float, clock: Clock, work: Awaitable[T]) -> T:
    """Await a log's answer, at most so long.

    A log may be somebody else's, and so is what is below it. What it raises without a
    promise, a CancelledError of a task of its own too, ends no task of the relay's.

    Raises:
        LogError: it says so, or it raised what it never should.
        OSError: it says so, or it takes longer.
        ConfigurationError: it says so.
    """
    try:
        return await within(seconds, clock, work)
    except NO_ANSWER:
        raise
    except BaseException as error:
        if not is_theirs(error):
            raise
        msg = f"the log failed: {describe_fault(error)}"
        raise LogError(msg) from error
