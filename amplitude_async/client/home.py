"""Where a client lives: the event loop and the process of its tasks and sockets."""

import asyncio
import contextvars
import os
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, Final
from weakref import WeakSet

from amplitude_async.delivery.callbacks import inside_user_code
from amplitude_async.delivery.tasks import spawn
from amplitude_async.exceptions import AmplitudeError

__all__ = ["Home", "Move"]


class Move(Enum):
    """What a call from here means for a client."""

    NONE = auto()
    """It is at home."""
    IN = auto()
    """It had no home yet."""
    FORK = auto()
    """It is in a forked child of the process it lived in."""
    LOOP = auto()
    """It is on another event loop: the old one was closed."""


class Home:
    """The loop and process a client belongs to, and what it has only there.

    Args:
        may_move: False where something that was handed in belongs to the first loop.
    """

    def __init__(self, *, may_move: bool) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that the client's tasks run on."""
        self.start_lock: asyncio.Lock | None = None
        """Held by whoever starts the client, so that nobody else does."""
        self.farewell: asyncio.Task[None] | None = None
        """The shutdown, once it has begun: later callers join it."""
        self._pid = 0
        self._may_move = may_move
        _HOMES.add(self)

    def leave(self) -> None:
        """Be nowhere, as in a forked child: the next verb moves in.

        The short road compares loops and no processes, since to ask for the process
        takes a call of the system. A child may well be on the very same loop object.
        """
        self.loop = None

    @property
    def is_here(self) -> bool:
        """True in the process that the client lives in."""
        return self._pid == os.getpid()

    @property
    def is_inherited(self) -> bool:
        """True in a forked child that has not moved in: all here is its parent's."""
        return self._pid not in {0, os.getpid()}

    def enter(self) -> Move:
        """Notice a fork or another event loop, and make this one the home.

        Raises:
            AmplitudeError: the client cannot leave its loop.
        """
        loop, pid = asyncio.get_running_loop(), os.getpid()
        if loop is self.loop and pid == self._pid:
            return Move.NONE
        move = self._judge(pid)
        self.loop, self._pid = loop, pid
        self.start_lock = asyncio.Lock()
        self.farewell = None
        return move

    def _judge(self, pid: int) -> Move:
        # The fork rule goes first: the parent's loop looks alive in the child for ever,
        # and would forbid what the child may well do.
        if self._pid and pid != self._pid:
            return Move.FORK
        if self.loop is None:
            return Move.IN
        if not self.loop.is_closed():
            msg = (
                "this client belongs to another event loop that is still alive: use "
                "one client per loop"
            )
            raise AmplitudeError(msg)
        if not self._may_move:
            msg = (
                "this client's event loop was closed and the session it was given "
                "belongs to it: construct a new client with a new session"
            )
            raise AmplitudeError(msg)
        return Move.LOOP

    def take_leave(self, shutdown: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin the shutdown in a task that outlives its first caller."""
        # Of the caller's context only what keeps user code from waiting for itself.
        context = contextvars.Context()
        context.run(inside_user_code.set, inside_user_code.get())
        self.farewell = spawn(shutdown, "shutdown", context)
        return self.farewell

    def __repr__(self) -> str:
        return f"<Home process {self._pid or 'none'}, loop {self.loop!r}>"


# The one exception to "no state in modules": a hook of the interpreter cannot be taken
# back, so that one for each client would stay for ever. Nothing is kept alive here.
_HOMES: Final[WeakSet[Home]] = WeakSet()


def _leave_all() -> None:
    for home in _HOMES:
        home.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
