"""Writes records into a storage, and finds out when that does not work."""

from amplitude_async.delivery.appends import Appends, in_background
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.outages import Loose, Outage
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.settling import Settler
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import (
    StorageError,
    StorageFullError,
    UnstorableError,
)
from amplitude_async.storage.base import Record, Storage

__all__ = ["Writer"]


class Writer:
    """The one who appends: what is under way, in memory only, or has failed.

    Args:
        storage: takes the records.
        settler: forgets those that nobody waited for.
        reporter: hears of what fails.
        clock: says how long an append takes.
        patience: seconds after which an append that has not ended has failed.
    """

    def __init__(
        self,
        storage: Storage,
        settler: Settler,
        reporter: Reporter,
        clock: Clock,
        *,
        patience: float,
    ) -> None:
        self._storage = storage
        self._settler = settler
        self._reporter = reporter
        self._clock = clock
        self.appends = Appends(clock, patience, self._written_late)
        """Those that verbs wait for."""
        self.loose = Loose(settler.settle, clock)
        """Records that do not survive the process."""
        self.outage = Outage(clock)
        """Whether the storage works."""

    def _written_late(self, record_id: int) -> None:
        """Forget a record once more: it was not there yet when it was undone."""
        self._settler.pass_over([record_id])
        self._settler.settle([record_id])

    async def append(self, record: Record) -> bool:
        """Write a record; False where the storage has failed or takes long.

        A cancelled append is undone: the record was not accepted.

        Raises:
            StorageFullError: its own limit is reached.
        """
        number = record.id
        try:
            await self.appends.begin(number, self._storage.append((record,)))
        except StorageError as error:
            self._not_written(error)
            if isinstance(error, StorageFullError):
                raise
            return False
        except BaseException as error:
            # Only a StorageError says that nothing was written.
            slow = self.appends.gave_up(number)
            self._settler.undo(number, error)
            if not is_theirs(error):
                raise
            self._not_written(self._too_slow() if slow else error, slow=slow)
            return False
        finally:
            self.appends.end(number)
        if self.outage.failed:
            self.outage.end()
            self._reporter.warning(
                "storage_recovered",
                "the storage works again: new events survive the process",
            )
        return True

    def _too_slow(self) -> StorageError:
        return StorageError(
            "the storage takes longer than the overflow_timeout of "
            f"{self.appends.patience:g} s to write an event"
        )

    def append_soon(self, record: Record) -> None:
        """Write a record that is in memory already, in the background."""
        number = record.id
        self.loose.add(number)
        if self.loose.waits_since < self._clock.now() - self.appends.patience:
            # Nobody waits for these, but they must not pile up.
            self._not_written(self._too_slow(), slow=True)
            return
        self._settler.pass_over([number])
        try:
            writing = in_background(self._storage.append((record,)))
        except BaseException as error:  # as above
            self._not_written_soon(error, number)
            if not is_theirs(error):
                raise
            return
        self.loose.watch(number, writing, self._not_written_soon)

    def _not_written_soon(self, error: BaseException, record_id: int) -> None:
        if isinstance(error, StorageError):
            self._settler.find(record_id)
        else:
            self._settler.undo(record_id, error)
        self._not_written(error)

    def _not_written(self, error: BaseException, *, slow: bool = False) -> None:
        if isinstance(error, StorageFullError):
            # Its own limit is no failure: it works, and says no.
            self._reporter.error("storage_full", "%s", error)
            return
        if isinstance(error, UnstorableError):
            # Nor is this: the next one may well be written.
            self._reporter.error(
                "storage_event",
                "%s; this event is in memory only and does not survive the process",
                in_words(error),
            )
            return
        self.outage.begin(slow=slow)
        self._reporter.error(
            "storage",
            "%s; events are kept in memory only from now on and do not survive "
            "the process",
            in_words(error),
        )

    def rebind(self) -> None:
        """Forget what belongs to a closed loop."""
        self.appends.rebind()
        self.outage.rebind()
        self.loose.rebind()

    def __repr__(self) -> str:
        return f"<Writer {len(self.appends)} being written>"
