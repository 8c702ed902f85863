"""What signals mean to a relay: the first stops it, a later one ends it at once."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Signals", "heard_signals"]

# A terminal and what stands between may both pass one Ctrl-C on.
ECHO: Final = 0.3
_SIGNAL_BASE: Final = 128


class Signals:
    """Hears signals from before there is a loop; tells the loop of the first."""

    def __init__(self) -> None:
        self._first_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_first: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Signals: {'none' if self._first_at is None else 'stop'}>"

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal, wherever the program is."""
        now = time.monotonic()
        if self._first_at is not None:
            if now - self._first_at > ECHO:
                # Not the default: process 1 of a container would go on.
                os.write(2, b"ended at once by a second signal\n")
                os._exit(_SIGNAL_BASE + number)
            return
        self._first_at = now
        if self._loop is not None and self._on_first is not None:
            self._loop.call_soon_threadsafe(self._on_first)

    def tell(self, on_first: Callable[[], None]) -> None:
        """Call this on the running loop at the first signal, also if it came before."""
        self._loop, self._on_first = asyncio.get_running_loop(), on_first
        if self._first_at is not None:
            on_first()


@contextmanager
def heard_signals() -> Iterator[Signals]:
    """Hear SIGINT and SIGTERM while the block runs."""
    signals = Signals()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # signal() and not add_signal_handler(): there is no loop as yet.
    before = {number: signal.signal(number, signals.hear) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
