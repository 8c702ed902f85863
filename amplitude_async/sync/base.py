"""What both synchronous clients share: threads in front, an asyncio client behind."""

import logging
import warnings
from collections.abc import Callable, Coroutine
from math import isnan
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from amplitude_async.client.base import BaseClient
from amplitude_async.client.life import UNSET, Unset
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.observing import Observer
from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.delivery.stats import Stats
from amplitude_async.plugins import Plugin
from amplitude_async.sync.hatch import Hatch
from amplitude_async.sync.loop import LoopEndedError, refuse_gevent, refuse_on_loop
from amplitude_async.sync.process import GRACE, PROCESS

__all__ = ["SyncClient"]

# For a loop that answers at its deadline, to have done so here.
_MOMENT: Final = 0.2

SeatT = TypeVar("SeatT", bound=Any)


class SyncClient(Generic[SeatT]):
    """A client for threads and scripts; any thread may call it.

    The first verb starts it, and with it, once per process, the loop thread. What a
    forked child uses starts there anew.
    """

    _seat: SeatT

    def __init__(self, seat: SeatT) -> None:
        self._hatch: Hatch | None = None
        refuse_gevent()
        self._seat = seat

    def _way_in(self) -> Hatch:
        """Give this process's hatch, started; to be asked before each event."""
        hatch = self._hatch
        if hatch is None or hatch.inherited or not hatch.started:
            hatch = self._here()
            hatch.start()
        return hatch

    def _here(self) -> Hatch:
        """Give this process's hatch, whether or not the client was started."""
        refuse_on_loop(type(self).__name__)
        with PROCESS.lock:
            if not self._is_here:
                made = Hatch(self._seat, PROCESS.thread(), type(self).__name__)
                # A signal's handler may have come by meanwhile, on this very thread.
                if not self._is_here:
                    self._hatch = made
                    PROCESS.enlist(made)
            return cast("Hatch", self._hatch)

    @property
    def _is_here(self) -> bool:
        """True where there is a hatch, and it is this process's."""
        return self._hatch is not None and not self._hatch.inherited

    # Reading -----------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """The account, as of one moment; what was handed over counts as pending."""
        hatch = self._hatch
        if hatch is None or hatch.inherited or hatch.thread.has_ended:
            return self._own_stats
        if not hatch.thread.is_here:
            refuse_on_loop(type(self).__name__)
        try:
            return hatch.thread.ask(lambda: hatch.stats)
        except LoopEndedError:
            return self._own_stats

    @property
    def _own_stats(self) -> Stats:
        stats: Stats = self._seat.stats
        return stats

    @property
    def opt_out(self) -> bool:
        """True accepts no new event; waiting ones are still sent."""
        return bool(self._seat.opt_out)

    @opt_out.setter
    def opt_out(self, value: bool) -> None:
        def opt() -> None:
            self._seat.opt_out = value

        hatch = self._hatch
        if hatch is None or hatch.inherited or hatch.thread.has_ended:
            return opt()
        return hatch.thread.ask(opt)

    # Seen from outside -------------------------------------------------------

    @property
    def destination(self) -> str:
        """Name of the client's own destination: ``"amplitude"`` or ``"mparticle"``."""
        name: str = self._seat.destination
        return name

    @property
    def health(self) -> Health:
        """What the last answers say about the client's own destination."""
        health: Health = self._seat.health
        return health

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Let somebody hear of each request; it is called on the loop's thread.

        Returns:
            What ends it.
        """
        seat: BaseClient = self._seat
        return seat.observe(observer)

    # Plugins -----------------------------------------------------------------

    def add(
        self, plugin: Plugin | Callable[[Any], Any], *, replace: bool = False
    ) -> Self:
        """Set a plugin up and install it; it runs on the loop's thread.

        Args:
            plugin: a plugin, or a function ``f(event) -> Event | None``.
            replace: put it where the plugin of its name is, and tear that one down.

        Raises:
            TypeError: it is no plugin, or one whose type does not fit.
            ValueError: the name is taken and ``replace`` is False, or there is none to
                replace by.
            ClientClosedError: the client was shut down.
            Exception: whatever the plugin's setup raised; it is not installed then.
        """
        seat: BaseClient = self._seat
        self._here().thread.run(seat.add(plugin, replace=replace))
        return self

    def remove(self, plugin: Plugin | str) -> None:
        """Take a plugin out, drain it where it is a destination, tear it down.

        Raises:
            ValueError: no plugin of that name is installed.
        """
        seat: BaseClient = self._seat
        self._here().thread.run(seat.remove(plugin))

    # Life --------------------------------------------------------------------

    def flush(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Send now and wait for the outcome of every event accepted so far.

        Args:
            timeout: seconds; None: no limit; ``Config.flush_timeout`` by default.

        Raises:
            TypeError: the timeout is no number.
        """
        hatch = self._way_in()
        default = self._seat.config.flush_timeout
        limit = _longest(timeout, default, _MOMENT)
        return self._bounded(hatch, hatch.flush(timeout, default), limit)

    def purge(self, user_id: str | None = None) -> int:
        """Give up waiting events, of one user or all: they become DROPPED purged.

        Events in flight go on. Returns how many events were given up.
        """
        hatch = self._way_in()
        return hatch.thread.run(hatch.purge(user_id))

    def shutdown(self, timeout: float | Unset | None = UNSET) -> Stats:
        """Stop intake, drain until the deadline, settle what is left; for good.

        Idempotent, and any thread may do so; a second call joins the first.

        Args:
            timeout: seconds; None: no limit; ``Config.shutdown_timeout`` by default.

        Raises:
            TypeError: the timeout is no number; the client is open as before.
        """
        hatch = self._here()
        if hatch.thread.has_ended:
            return self._own_stats
        limit = _longest(timeout, self._seat.config.shutdown_timeout, GRACE)
        return self._bounded(hatch, hatch.shutdown(timeout), limit)

    def _bounded(
        self, hatch: Hatch, work: Coroutine[Any, Any, Stats], limit: float | None
    ) -> Stats:
        """Run a verb no longer than it may take, also where the loop stands still."""
        try:
            return hatch.thread.run(work, limit)
        except LoopEndedError:
            return self._own_stats
        except TimeoutError:
            text = (
                f"the loop of {type(self).__name__} does not answer: a plain plugin or "
                f"callback blocks it, and {hatch.left} events wait"
            )
            log_quietly(self._seat.config.logger, logging.ERROR, text)
            return hatch.stats

    def start(self) -> None:
        """Open the storage, set up the plugins and start sending.

        The first verb does it where nobody did. It waits for the storage no longer
        than ``overflow_timeout`` and goes on in memory; this waits half a minute.

        Raises:
            ClientClosedError: the client was shut down.
            StorageError: the storage cannot be opened, or takes longer than that.
        """
        hatch = self._here()
        seat: BaseClient = self._seat
        hatch.thread.run(seat.start())
        hatch.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # `with` calls no __exit__ now: let go what is open already.
            if self._hatch is not None:
                self._hatch.abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __del__(self) -> None:
        # A constructor that raised has left no hatch.
        hatch = getattr(self, "_hatch", None)
        if hatch is None or not hatch.is_open:
            return
        hatch.abandon()
        warnings.warn(
            f"unclosed {type(self).__name__} with {hatch.left} undelivered events: use "
            "`with` or call shutdown(); they are sent in the background",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def __repr__(self) -> str:
        seat = getattr(self, "_seat", None)
        if seat is None:
            return f"<{type(self).__name__} half-built>"
        return f"<{type(self).__name__} of {seat!r}>"


def _longest(given: object, default: float | None, more: float) -> float | None:
    """Say how long a caller waits for the loop; None: for ever."""
    limit = default if isinstance(given, Unset) else given
    if not isinstance(limit, float | int) or isnan(limit):
        return None
    return max(0.0, limit) + more
