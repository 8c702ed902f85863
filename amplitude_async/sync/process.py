"""What the synchronous clients of one process share: a thread, an exit, a fork."""

import asyncio
import atexit
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.sync.loop import LoopThread, logger

if TYPE_CHECKING:
    from amplitude_async.sync.hatch import Hatch

__all__ = ["GRACE", "PROCESS", "Process"]

# For the loop to answer after the deadline: settling and logging take a moment.
GRACE: Final = 1.0


class Process:
    """Starts the one loop thread, and sees to the exit and to forks."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may come by while its thread is in here.
        self.lock = threading.RLock()
        """Held while something begins."""
        self._forking = threading.RLock()
        self._thread: LoopThread | None = None
        self._inherited: list[LoopThread] = []
        self._is_forked = False
        self._hatches: set[Hatch] = set()

    def thread(self) -> LoopThread:
        """Give the loop thread; start it where nobody has.

        Raises:
            AmplitudeError: gevent or eventlet has replaced threads.
        """
        with self.lock:
            if self._thread is None:
                made = LoopThread()
                # A signal's handler may have come by meanwhile, on this very thread.
                if self._thread is None:
                    # In this order: who is interrupted in between has no thread that
                    # the exit does not know.
                    self._expect_the_end()
                    self._thread = made
                else:
                    made.stop()
            return self._thread

    def enlist(self, hatch: "Hatch") -> None:
        """See to a client at the exit, also where nobody holds it any more."""
        self._hatches.add(hatch)

    def dismiss(self, hatch: "Hatch") -> None:
        """Forget a client that was shut down."""
        self._hatches.discard(hatch)

    # The exit ----------------------------------------------------------------

    def _expect_the_end(self) -> None:
        """Be told of the exit where `atexit` is not called.

        A child that multiprocessing has forked, or Celery's version of it, leaves
        without; it has functions of its own for that, and each child forgets them. A
        child of Celery's pool calls not even those: it sends a signal, and is gone.
        """
        for library in ("multiprocessing.util", "billiard.util"):
            if library in sys.modules:
                sys.modules[library].Finalize(None, self.end, exitpriority=0)
        # Only there does it mean that the process ends: a test may send it anywhere.
        if self._is_forked and "celery.signals" in sys.modules:
            ending = sys.modules["celery.signals"].worker_process_shutdown
            ending.connect(self.end, weak=False)

    def end(self, **_: object) -> None:
        """Drain every client within its ``shutdown_timeout``, and stop the thread."""
        with self.lock:
            thread, hatches = self._thread, list(self._hatches)
        if thread is None or thread.loop.is_closed():
            return
        if hatches:
            try:
                thread.run(_drained(hatches), _longest(hatches))
            except TimeoutError:
                text = (
                    "the loop did not answer at the exit: "
                    f"{sum(hatch.left for hatch in hatches)} events are lost"
                )
                log_quietly(logger, logging.ERROR, text)
                return
        thread.stop()

    # Forks -------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let the loop stand still, so that a child inherits nothing half done."""
        self._forking.acquire()
        if self._thread is not None:
            self._thread.stand_still()

    def after_fork_in_parent(self) -> None:
        """Let the loop go on."""
        if self._thread is not None:
            self._thread.go_on()
        self._forking.release()

    def after_fork_in_child(self) -> None:
        """Begin with nothing: all that waits is the parent's.

        The inherited loop is kept and never closed: it shares its selector with the
        parent's.
        """
        self.lock, self._forking = threading.RLock(), threading.RLock()
        self._is_forked = True
        if self._thread is not None:
            self._thread.inherit()
            self._inherited.append(self._thread)
            self._thread = None
        self._hatches = set()

    def __repr__(self) -> str:
        return f"<Process {self._thread!r}, {len(self._hatches)} clients>"


def _longest(hatches: "list[Hatch]") -> float | None:
    limits = [hatch.patience for hatch in hatches]
    known = [limit for limit in limits if limit is not None]
    return max(known) + GRACE if len(known) == len(limits) else None


async def _drained(hatches: "list[Hatch]") -> None:
    ends = (hatch.shutdown() for hatch in hatches)
    await asyncio.gather(*ends, return_exceptions=True)


# An exception to "no state in modules", as in `client/home.py`: a thread for all
# clients of a process needs a place that all of them know, and hooks of the interpreter
# cannot be taken back. It is empty until a first client is used.
PROCESS: Final = Process()

# Now and not with the first client: what others register later runs earlier, and may
# still track, be it the first event of all.
atexit.register(PROCESS.end)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=PROCESS.before_fork,
        after_in_parent=PROCESS.after_fork_in_parent,
        after_in_child=PROCESS.after_fork_in_child,
    )
