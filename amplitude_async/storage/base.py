"""What a storage is: a journal of encoded events that knows no identity or HTTP."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

__all__ = ["DeadLetter", "Holdings", "Host", "Record", "Storage"]


class Record(NamedTuple):
    """One accepted event, encoded once and for all.

    A tuple of immutable values: a queue of these costs the garbage collector little.
    """

    id: int
    """Number in order of acceptance; 0 until one is given."""
    body: bytes
    """The event as JSON, exactly as it goes on the wire."""
    identity: str
    """Events of one identity reach the server in order."""
    user_id: str | None
    """For throttles and purges, which may name either id."""
    device_id: str | None
    """For throttles, which may name either id."""
    insert_id: str
    """The vendor's deduplication key."""
    accepted_at: float
    """Wall clock at acceptance, seconds since the epoch."""

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Make a record of a row that begins with its fields, in their order."""
        return cls(*row[: len(cls._fields)])


class DeadLetter(NamedTuple):
    """One rejected event, kept for people to look at and to send again."""

    record: Record
    code: int
    """HTTP status of the verdict; 0 for a local check."""
    message: str
    rejected_at: float
    """Wall clock, seconds since the epoch."""

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Make a letter of a row: the record's fields, then its own."""
        return cls(Record.from_row(row), *row[len(Record._fields) :])


class Holdings(NamedTuple):
    """What a storage knows of itself without looking."""

    size: int = 0
    """Encoded bytes of the unsettled records."""
    oldest: float | None = None
    """When the oldest of them was accepted, seconds since the epoch."""

    def age(self, now: float) -> float | None:
        """Say how old the oldest is, even where the clock was set back."""
        return None if self.oldest is None else max(now - self.oldest, 0.0)


class Host(Protocol):
    """The engine, as a storage sees it that is pushed to by others."""

    @property
    def ahead(self) -> int:
        """Events that have arrived and that nobody has fetched as yet."""

    def arrived(self, records: int) -> int:
        """Account for new events of others, unread as yet; returns the first id.

        Theirs are this one and those that follow, one for each. ``fetch`` has to have
        them before anything is awaited.
        """

    def look_again(self) -> None:
        """Ask soon what has lapsed, and whether what waits is hurried."""

    def share(self, part: float) -> None:
        """Keep to a part of the configured rate, between 0 and 1: others have more."""


class Storage(ABC):
    """A journal: append, read on, settle.

    One storage serves one client. Methods are awaited on the client's loop and may
    raise ``StorageError``; the engine then goes on in memory and says so. What they do
    to a record happens in the order in which they were called.
    """

    durable: bool = True
    """False where a record does not outlive the process."""
    dead_letters: int = 0
    """How many of the newest rejected events are kept; 0: none."""
    keeps_given_up: bool = False
    """True where dead letters are also of events that were dropped."""
    takes_appends: bool = True
    """False where events come from the storage only, and none by a verb."""
    default_max_age: float | None = None
    """Replaces the default ``max_event_age`` in seconds, where it is not None."""

    @abstractmethod
    async def open(self, destination: str, allot: Callable[[int], int]) -> int:
        """Make ready for records of a destination (a text without secrets).

        Args:
            destination: records of another one are never handed out.
            allot: gives the first of so many new ids; call it on the loop's thread.

        Returns:
            How many records of earlier processes were taken over, unread as yet.
        """

    @abstractmethod
    def append(self, records: Sequence[Record]) -> Awaitable[None]:
        """Write records under their ids; returns once they are durable.

        Calls end in the order in which they began. One that is cancelled may have
        written its records or not: the caller settles them.

        Raises:
            StorageFullError: the storage's own limit is reached; nothing was written.
            UnstorableError: the storage works, and cannot keep one of these; likewise.
                After any other error it is left alone for a minute.
        """

    @abstractmethod
    async def fetch(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Read unsettled records above an id, in order of id; one at least if any.

        A record that is damaged comes with an empty body, once.
        """

    @abstractmethod
    async def settle(self, ids: Sequence[int]) -> None:
        """Forget records whose fate is decided; unknown ids are no error."""

    @abstractmethod
    async def size(self) -> int:
        """Count the unsettled records."""

    async def confirm(self) -> None:  # noqa: B027 - optional
        """See that all that was written is still there, before it is called stored.

        Raises:
            StorageError: some of it is lost.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release everything; unsettled records stay for the next process."""

    def holdings(self) -> Holdings:
        """Say how much is stored and how old it is; counters ask, so never block."""
        return Holdings()

    async def bury(self, letters: Sequence[DeadLetter]) -> None:  # noqa: B027 - optional
        """Keep rejected records, where ``dead_letters`` is not 0."""

    # For a storage that others fill, and whose records others may claim ------

    def listen(self, host: Host) -> None:  # noqa: B027 - optional
        """Take note of whom to tell of new events; called before ``open``."""

    @property
    def hurried(self) -> bool:
        """True while nothing more is on its way: what was read goes at once."""
        return False

    def may_send(self, records: Sequence[Record]) -> bool:
        """Say at the last moment whether these records are still this process's."""
        return True

    def lapsed(self) -> Sequence[Record]:
        """List the unsettled records that are this process's no longer."""
        return ()

    def take_back(self, ids: Sequence[int]) -> None:  # noqa: B027 - optional
        """Take lapsed records back: nobody here sends or settles them any more.

        Those of a request under way are taken back when it has ended without deciding
        them.
        """

    async def adopt(self, allot: Callable[[int], int]) -> int:
        """Take over records that another process left; returns how many.

        As many as there is room for: what is left comes with later calls.
        """
        # Where no two processes share a storage, none leaves anything to another.
        return 0

    def after_fork(self) -> "Storage":
        """Build the storage a forked child uses; this one stays the parent's."""
        return type(self)()
