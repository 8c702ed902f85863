"""What a thread waits for while the loop works on it."""

import threading
from typing import Generic, TypeVar, cast

from amplitude_async.delivery.interception import INTERCEPTION

__all__ = ["Reply"]

T = TypeVar("T")


class Reply(Generic[T]):
    """A value, or an error, that the loop gives and one thread waits for.

    A future of ``concurrent.futures`` has a lock that its waiter holds in some of its
    steps. A signal's handler that runs in one of them, and waits for the loop itself,
    would wait for ever: the loop stands at that lock. And what a handler raises there
    may leave it locked. Here nobody holds anything, in no step.
    """

    __slots__ = ("_error", "_gate", "_value", "caller", "done")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._value: T | None = None
        self._error: BaseException | None = None
        self.done = False
        """True once it was given."""
        self.caller = INTERCEPTION.locate() if INTERCEPTION.active else None
        """The line that waits, where a test's guard would want to name it."""

    def give(self, value: T) -> None:
        """Let the waiter go on; the first to give or fail decides."""
        if not self.done:
            self._value = value
            self._open()

    def fail(self, error: BaseException) -> None:
        """Raise an error where the thread waits."""
        if not self.done:
            self._error = error
            self._open()

    def _open(self) -> None:
        self.done = True
        self._gate.release()

    def wait(self, timeout: float | None = None) -> T:
        """Wait for it; raises the error that was given in its place.

        Raises:
            TimeoutError: there is none as yet.
        """
        limit = -1.0 if timeout is None else max(0.0, timeout)
        self._gate.acquire(timeout=min(limit, threading.TIMEOUT_MAX))
        if not self.done:
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def __repr__(self) -> str:
        return f"<Reply {'given' if self.done else 'awaited'}>"
