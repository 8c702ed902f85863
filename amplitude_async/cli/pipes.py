"""What a command does where nobody reads what it prints: ``tail | head``."""

import os
import select
import sys
from contextlib import suppress
from typing import Final

__all__ = ["PIPE_CLOSED", "nobody_reads", "silence"]

PIPE_CLOSED: Final = 141
"""The exit code of a command whose reader went away: as SIGPIPE would leave it."""


def nobody_reads() -> bool:
    """Tell whether standard output is a pipe whose other end is closed."""
    poll = getattr(select, "poll", None)  # Windows has none
    if poll is None:
        return False
    try:
        asked = poll()
        asked.register(sys.stdout.fileno(), 0)
        return any(found & select.POLLERR for _, found in asked.poll(0))
    except (OSError, ValueError):
        return False  # closed, or no file at all


def silence() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
