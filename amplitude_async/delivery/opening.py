"""Opens a storage in a task of its own: nobody waits long, and nothing stays open."""

import asyncio
import math
from collections.abc import Callable
from functools import partial

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import has_ended, is_theirs, spawn
from amplitude_async.exceptions import AmplitudeError, StorageError
from amplitude_async.shown import shown
from amplitude_async.storage.base import Storage

__all__ = ["Allotted", "Opening", "counted"]


class Opening:
    """Whether a storage is open, and the one task that opens it.

    Args:
        storage: is opened, and closed again where nobody wants it any more.
        destination: whose records it keeps.
        reporter: hears of what fails while nobody waits.
        clock: says how long it takes.
    """

    def __init__(
        self,
        storage: Storage,
        destination: str,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._destination = destination
        self._reporter = reporter
        self._clock = clock
        self._begin: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem: AmplitudeError | None = None
        self._given_up = False
        self.done = False
        """True while the storage is open."""
        self.late = False
        """True while events go on without the storage."""

    def begin(
        self, allot: Callable[[int], int], joined: Callable[[int, float], None]
    ) -> None:
        """Open the storage where it is neither open nor being opened.

        Args:
            allot: reserves ids for events that are taken over.
            joined: is told how many those are, and the first id of them.
        """
        self._begin = partial(self.begin, allot, joined)
        if self.done or self._given_up:
            return
        if self._task is None or self._task.done():
            self._problem = None
            self._task = spawn(self._open(allot, joined), "opening")

    def begin_again(self) -> None:
        """Open the storage as was tried before."""
        if self._begin is not None:
            self._begin()

    async def _open(
        self, allot: Callable[[int], int], joined: Callable[[int, float], None]
    ) -> None:
        ids = Allotted(allot)
        try:
            opening = self._storage.open(self._destination, ids.allot)
            recovered = counted(await opening)
        except BaseException as error:  # a storage may raise anything
            cancelled = isinstance(error, asyncio.CancelledError)
            if not (is_theirs(error) or (cancelled and self._given_up)):
                raise
            self._failed(error)
        else:
            if not self._given_up:
                self._note_open()
                joined(recovered, ids.first)
        if self._given_up:
            await self._close()

    def _note_open(self) -> None:
        was_late, self.done, self.late = self.late, True, False
        if was_late:
            self._reporter.warning(
                "storage_recovered",
                "the storage is open: new events survive the process",
            )

    def _failed(self, error: BaseException) -> None:
        problem = error
        if not isinstance(problem, AmplitudeError):
            msg = f"the storage cannot be opened: {in_words(error)}"
            problem = StorageError(msg)
            problem.__cause__ = error
        self._problem = problem
        if self.late and not self._given_up:
            self._report(problem)

    def _report(self, problem: AmplitudeError) -> None:
        self._reporter.error(
            "storage",
            "%s; events are kept in memory only until it is open and do not survive "
            "the process",
            in_words(problem),
        )

    async def _close(self) -> None:
        """Close what was opened for nobody; one that is not open takes no harm."""
        try:
            await self._storage.close()
        except BaseException as error:  # as above
            if not is_theirs(error):
                raise
            self._reporter.error("storage_close", "%s", in_words(error))

    async def wait(self, seconds: float) -> bool:
        """Wait until the storage is open, or is not needed; False: it takes longer.

        Who gives up waiting stops nothing.

        Raises:
            AmplitudeError: it cannot be opened.
        """
        task = self._task
        if self.done or task is None:
            return True
        if not await has_ended(task, seconds, self._clock):
            return False
        if self._given_up:
            return True
        if self._problem is not None:
            raise self._problem
        return self.done

    def go_on_without(self, seconds: float) -> None:
        """Note that so many seconds are all that a verb waits for."""
        self.late = True
        self._report(self.too_slow(seconds))

    def too_slow(self, seconds: float) -> StorageError:
        """Say that the storage has not opened in time."""
        return StorageError(
            f"the storage {type(self._storage).__name__} has not opened within "
            f"{seconds:g} s: see whether its disk or its server answers"
        )

    async def end(self) -> bool:
        """Let a storage go that is being opened; True, once, where it is open.

        Its opening is cancelled. Where it ends in spite of that, however late, the
        storage is closed.
        """
        self._given_up = True
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        was_open, self.done = self.done, False
        return was_open

    def rebind(self) -> None:
        """Forget the task of a closed loop."""
        self._task = None
        self.late = False

    def __repr__(self) -> str:
        return f"<Opening {'done' if self.done else 'late' if self.late else 'to do'}>"


class Allotted:
    """Gives ids out as an engine does, and remembers the first."""

    def __init__(self, allot: Callable[[int], int]) -> None:
        self._allot = allot
        self.first = math.inf

    def allot(self, count: int) -> int:
        """Reserve so many ids; returns the first."""
        first = self._allot(count)
        self.first = min(self.first, first)
        return first

    def __repr__(self) -> str:
        return f"<Allotted from {self.first:g} on>"


def counted(count: int) -> int:
    """Hold a number of events against what is possible.

    Raises:
        StorageError: it is something else.
    """
    if isinstance(count, int) and count >= 0:
        return count
    msg = (
        f"the storage took over {shown(count)} events: it must say how many, as an int"
    )
    raise StorageError(msg)
