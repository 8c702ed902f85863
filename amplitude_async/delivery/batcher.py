"""Which waiting events may share the next request, in order per identity. Pure.

Waiting events stand in one queue. A group takes events out of it and owns their
identities until every one of its events is decided; what the queue holds for an owned
identity is parked at the owner. So events of one identity never overtake each other and
each event is touched a fixed number of times.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from amplitude_async.storage.base import Record

__all__ = ["Batcher", "Group"]

PATIENCE = 3
MIN_PATIENCE = 1_000


class Group:
    """Events that travel together, whole or in pieces, one piece at a time."""

    __slots__ = (
        "crashes",
        "due",
        "identities",
        "in_flight",
        "parked",
        "pieces",
        "rounds",
        "window",
    )

    def __init__(self, pieces: list[list[Record]], window: int | None = None) -> None:
        self.pieces = pieces
        """A stack: the last piece goes next."""
        self.window = window
        """Most events in a request of a throttled identity; None for others."""
        self.identities: list[str] = []
        self.parked: dict[str, list[Record]] = {}
        self.in_flight = False
        self.rounds = 0
        """Answers in a row that named single events."""
        self.crashes = 0
        self.due: float | None = None
        """When it goes on; None while it does not wait for a time."""

    @property
    def throttled(self) -> bool:
        """True for the lane of one throttled identity."""
        return self.window is not None

    def waiting(self) -> Iterator[Record]:
        """Yield the events that are not in flight, in order per identity."""
        last = len(self.pieces) - 1 if self.in_flight else len(self.pieces)
        for piece in reversed(self.pieces[:last]):
            yield from piece
        for run in self.parked.values():
            yield from run

    def __repr__(self) -> str:
        sizes = [len(piece) for piece in reversed(self.pieces)]
        lane = f" window={self.window}" if self.throttled else ""
        return f"<Group {sizes} parked={sum(map(len, self.parked.values()))}{lane}>"


class Batcher:
    """The queue of waiting events and the owners of identities."""

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size
        self._queue: deque[Record] = deque()
        self._owners: dict[str, Group] = {}
        self._attempts: Mapping[int, int] = {}

    def watch(self, attempts: Mapping[int, int]) -> None:
        """Learn where failed requests per event are counted."""
        self._attempts = attempts

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> Record | None:
        """The event at the head of the queue."""
        return self._queue[0] if self._queue else None

    def add(self, records: Iterable[Record]) -> None:
        """Queue events behind all others."""
        self._queue.extend(records)

    def pop_oldest(self) -> Record | None:
        """Take the event at the head of the queue out of it."""
        return self._queue.popleft() if self._queue else None

    def owner(self, identity: str) -> Group | None:
        """Find the group that owns an identity."""
        return self._owners.get(identity)

    def groups(self) -> list[Group]:
        """List the groups that own an identity, each once."""
        return list({id(group): group for group in self._owners.values()}.values())

    def size_limit(self, record: Record) -> int:
        """Most events that may travel with an event that failed before.

        Halved at each failure, so that one poisonous event cannot take its neighbours
        with it.
        """
        return max(1, self._max_batch_size >> self._attempts.get(record.id, 0))

    def take(
        self, size: int, max_bytes: int, park: Callable[[Group, Record], None]
    ) -> Group | None:
        """Form a group of up to so many events and bytes from the head of the queue.

        ``park`` is told of each event whose identity another group owns.
        """
        queue, owners, attempts = self._queue, self._owners, self._attempts
        piece: list[Record] = []
        group = Group([piece])
        total = 0
        # The loop must not stand still while a long queue is parked: the rest of it
        # is looked at next time.
        patience = max(PATIENCE * size, MIN_PATIENCE)
        while queue and len(piece) < size:
            record = queue[0]
            owner = owners.get(record.identity)
            if owner is not None and owner is not group:
                park(owner, queue.popleft())
                patience -= 1
                if not patience:
                    break
                continue
            total += len(record.body) + 1
            if total > max_bytes and piece:
                break
            if attempts and (limit := self.size_limit(record)) < size:
                if len(piece) >= limit:
                    break
                size = limit
            piece.append(queue.popleft())
            if owner is None:
                owners[record.identity] = group
                group.identities.append(record.identity)
        return group if piece else None

    def take_head(self) -> Group | None:
        """Form a group of one: the head of the identity with the fewest failures."""
        best, fewest = -1, 0
        seen: set[str] = set()
        for index, record in enumerate(self._queue):
            if record.identity in seen or record.identity in self._owners:
                continue
            failures = self._attempts.get(record.id, 0)
            if best < 0 or failures < fewest:
                best, fewest = index, failures
            if not failures:
                break
            seen.add(record.identity)
        if best < 0:
            return None
        record = self._queue[best]
        del self._queue[best]
        group = Group([[record]])
        self.own(group, record.identity)
        return group

    def own(self, group: Group, identity: str) -> None:
        """Make a group the owner of an identity."""
        self._owners[identity] = group
        group.identities.append(identity)

    def park(self, group: Group, record: Record) -> None:
        """Keep an event until its identity is free again."""
        group.parked.setdefault(record.identity, []).append(record)

    def release(self, group: Group) -> int:
        """Free the identities of a group; its parked events go to the queue's head.

        They come out grouped by identity, so that the next requests share no identity
        and can be in flight together.

        Returns:
            How many events came back to the queue.
        """
        for identity in group.identities:
            if self._owners.get(identity) is group:
                del self._owners[identity]
        back = [record for run in group.parked.values() for record in run]
        self._queue.extendleft(reversed(back))
        group.identities = []
        group.parked = {}
        return len(back)

    def dissolve(self, group: Group) -> None:
        """Put all events of a group back at the head of the queue."""
        records = [record for piece in reversed(group.pieces) for record in piece]
        group.pieces = []
        self.release(group)
        self._queue.extendleft(reversed(records))

    def extract(self, group: Group, identity: str) -> list[Record]:
        """Take what a group still holds of one identity out of it, in order."""
        found: list[Record] = []
        for index in range(len(group.pieces) - 1, -1, -1):
            piece = group.pieces[index]
            found += [record for record in piece if record.identity == identity]
            group.pieces[index] = [r for r in piece if r.identity != identity]
        group.pieces = [piece for piece in group.pieces if piece]
        return found + group.parked.pop(identity, [])

    def remove(self, chosen: Callable[[Record], bool]) -> list[Record]:
        """Take the chosen events out, wherever they wait, except those in flight."""
        removed = [record for record in self._queue if chosen(record)]
        if removed:
            self._queue = deque(r for r in self._queue if not chosen(r))
        for group in self.groups():
            last = len(group.pieces) - 1 if group.in_flight else len(group.pieces)
            runs = group.pieces[:last] + list(group.parked.values())
            for run in runs:
                removed += [record for record in run if chosen(record)]
                run[:] = [record for record in run if not chosen(record)]
        return removed
