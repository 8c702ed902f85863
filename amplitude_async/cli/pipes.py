"""What a command does where nobody reads what it prints: ``tail | head``."""

import os
import select
import sys
from contextlib import suppress
from typing import Final

__all__ = ["PIPE_CLOSED", "nobody_reads", "silence", "standard_output"]

PIPE_CLOSED: Final = 141
"""The exit code of a command whose reader went away: as SIGPIPE would leave it."""


def standard_output() -> int | None:
    """Give a second handle on standard output; None where there is none.

    The first one may be turned elsewhere by whoever finds that nobody reads.
    """
    try:
        return os.dup(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return None  # closed, or no file at all


def nobody_reads(handle: int | None) -> bool:
    """Tell whether a handle is a pipe whose other end is closed."""
    poll = getattr(select, "poll", None)  # Windows has none
    if poll is None or handle is None:
        return False
    asked = poll()
    asked.register(handle, 0)
    return any(found & select.POLLERR for _, found in asked.poll(0))


def silence() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
