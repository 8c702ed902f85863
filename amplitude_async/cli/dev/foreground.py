"""To whom the terminal belongs, as a shell decides it for the jobs it starts."""

import contextlib
import os
import signal
import sys

__all__ = ["Foreground"]


class Foreground:
    """Lends the terminal to a process group: its keys go there, Ctrl-C above all.

    So a command gets each Ctrl-C once, and may read what is typed, as debuggers do.
    Without a terminal, or in the background of one, nothing is lent.
    """

    def __init__(self) -> None:
        self._terminal = _terminal()

    @property
    def is_there(self) -> bool:
        """Whether there is a terminal to lend."""
        return self._terminal is not None

    def lend(self, group: int) -> None:
        """Let a process group have the terminal, if this process has it."""
        if sys.platform == "win32" or self._terminal is None:
            return
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(self._terminal) == os.getpgrp():
                os.tcsetpgrp(self._terminal, group)
        # Who is in the background and prints, or reaches for the terminal, would be
        # stopped where the user has it so (stty tostop).
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)

    def take_back(self, group: int) -> None:
        """Have the terminal again, if that process group has it."""
        if sys.platform == "win32" or self._terminal is None:
            return
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(self._terminal) == group:
                os.tcsetpgrp(self._terminal, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _terminal() -> int | None:
    """Return the terminal that is typed into, if this process has it now."""
    if sys.platform == "win32":
        return None
    try:
        handle = sys.stdin.fileno()
        return handle if os.tcgetpgrp(handle) == os.getpgrp() else None
    except (OSError, ValueError, AttributeError):
        return None  # no terminal, or no input at all
