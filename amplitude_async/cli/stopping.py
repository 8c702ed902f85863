"""Signals that end a command in an orderly way, and the exit codes that say so."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

__all__ = [
    "DONE",
    "INCOMPLETE",
    "IN_PART",
    "USAGE",
    "Flag",
    "Stop",
    "flag_on_signals",
    "stop_on_signals",
]

DONE: Final = 0
"""All of it was done."""
IN_PART: Final = 1
"""Some was rejected, or something needs a person."""
USAGE: Final = 2
"""The command line is wrong, and nothing was done."""
INCOMPLETE: Final = 3
"""It could not be brought to its end; the same command goes on."""

_SIGNAL_BASE: Final = 128


class Stop:
    """Whether to stop, and why: the first reason counts."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.code = DONE
        self.why = ""

    def ask(self, why: str, code: int) -> None:
        """Stop for a reason, which is told to the person who waits."""
        if not self.asked.is_set():
            self.why, self.code = why, code
            self.asked.set()


@contextlib.contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop.

    The second is what it always was: who presses Ctrl-C twice wants out.
    """
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        restore()
        loop.call_soon_threadsafe(stop.ask, "interrupted", _SIGNAL_BASE + number)

    for number in numbers:
        # signal() and not add_signal_handler(): that one does not exist on Windows.
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()


class Flag:
    """Whether to stop. No lock: a signal may come while its own thread holds it."""

    def __init__(self) -> None:
        self.is_up = False

    def put_up(self) -> None:
        """Stop soon."""
        self.is_up = True


@contextlib.contextmanager
def flag_on_signals() -> Iterator[Flag]:
    """Do as `stop_on_signals` does, in a command without a loop."""
    flag = Flag()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        restore()
        flag.put_up()

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield flag
    finally:
        restore()
