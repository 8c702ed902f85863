"""A command that runs as a job of this process, with all that it starts itself."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from amplitude_async.cli.dev.foreground import Foreground

__all__ = ["Child"]

_SIGNAL_BASE: Final = 128
# So long those whom the command left behind have to end.
_STRAGGLERS: Final = 1.0
_POLL: Final = 0.02


class Child:
    """A command in a process group of its own; use it as ``with Child(...) as child:``.

    What it prints and reads is what it would without us.

    Args:
        command: the program and its arguments.
        environment: its variables, all of them.
        grace: seconds it has to end once it was told to.

    Raises:
        OSError: at the start of the block, where it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], grace: float
    ) -> None:
        self.was_killed = False
        """Whether it had to be killed."""
        self._command = command
        self._environment = environment
        self._grace = grace
        self._foreground = Foreground()
        self._process: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        self._pending: int | None = None
        self._deadline: float | None = None

    def __enter__(self) -> Self:
        """Start it."""
        if sys.platform == "win32":
            self._process = subprocess.Popen(self._command, env=self._environment)  # noqa: S603 - the user's own
            return self
        self._process = subprocess.Popen(  # noqa: S603 - the user's own
            self._command, env=self._environment, process_group=0
        )
        self._foreground.lend(self._process.pid)
        # Where it was faster and reached for the terminal, it was stopped.
        self._signal_all(signal.SIGCONT)
        if self._pending is not None:
            self.pass_on(self._pending)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing of it behind."""
        if self._process is None:
            return
        if self.poll() is None:
            self.pass_on(signal.SIGTERM)
            while self.poll() is None:
                time.sleep(_POLL)
        self._end_stragglers()
        self._foreground.take_back(self._process.pid)

    def poll(self) -> int | None:
        """Return its exit code as a shell would, None while it runs.

        One that does not end in time, once it was told to, is killed.
        """
        if self._code is None:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill()
            self._code = self._look()
        return self._code

    def pass_on(self, number: int) -> None:
        """Pass on a signal; it may come at any time, also before the start."""
        if self._process is None:
            self._pending = number
            return
        if self._code is not None:
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace
        if number == signal.SIGTERM or sys.platform == "win32":
            # As from a supervisor: who starts others tells them what it wants.
            with contextlib.suppress(OSError, ValueError):
                self._process.send_signal(number)
        else:
            # As from a terminal.
            self._signal_all(number)

    def _look(self) -> int | None:
        process = self._process
        if process is None:
            return None
        if sys.platform == "win32":
            return process.poll()
        pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
        if not pid:
            return None
        if os.WIFSTOPPED(status):
            self._stop_along()
            return None
        code = os.waitstatus_to_exitcode(status)
        # It is told so: it would wait for a process that is gone.
        process.returncode = code
        return _SIGNAL_BASE - code if code < 0 else code

    def _stop_along(self) -> None:
        """Stop as the command was, by Ctrl-Z, and go on with it."""
        if sys.platform == "win32" or not self._foreground.is_there:
            return
        assert self._process is not None  # noqa: S101 - it was stopped
        group = self._process.pid
        self._foreground.take_back(group)
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        self._foreground.lend(group)
        self._signal_all(signal.SIGCONT)

    def _kill(self) -> None:
        self.was_killed = True
        self._deadline = None
        if sys.platform == "win32":
            if self._process is not None:
                self._process.kill()
        else:
            self._signal_all(signal.SIGKILL)

    def _end_stragglers(self) -> None:
        """End those whom it started and did not end itself."""
        if sys.platform == "win32" or not self._signal_all(signal.SIGTERM):
            return
        until = time.monotonic() + _STRAGGLERS
        while self._signal_all(0):
            if time.monotonic() >= until:
                self._signal_all(signal.SIGKILL)
                return
            time.sleep(_POLL)

    def _signal_all(self, number: int) -> bool:
        """Send a signal to its process group; False where that is empty."""
        if sys.platform == "win32" or self._process is None:
            return False
        try:
            os.killpg(self._process.pid, number)
        except OSError:
            return False
        return True
