"""Which waiting events may share the next request, in order per identity. Pure.

Waiting events stand in one queue. A group takes events out of it and owns their
identities until every one of its events is decided; what the queue holds for an owned
identity is parked at the owner. So events of one identity never overtake each other and
each event is touched a fixed number of times.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.deciding.group import Group, Life
from amplitude_async.storage.base import Record

__all__ = ["Batcher", "ByteTarget", "Choose", "Leaving"]

Choose = Callable[[Iterable[Record]], list[Record]]
"""Picks some of many events: a call for each of them would hold the loop."""

PATIENCE = 3
MIN_PATIENCE = 1_000
MIN_BYTE_TARGET = 16 * 1024
BYTE_TARGET_GROWTH = 1.02
# When the oldest must go, so many are looked out at once, and at least one in so many
# of those that are looked at: that costs each of them a fixed number of steps.
LEAST_ELDEST = 500
ELDEST_PART = 16


class ByteTarget:
    """How many bytes of events a request aims at: less after a 413, recovering."""

    __slots__ = ("_now", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        """What the API itself allows."""
        self._now = float(most)

    @property
    def now(self) -> int:
        """Bytes that the next request should stay below."""
        return int(self._now)

    def grow(self) -> None:
        """A request went well."""
        self._now = min(self._now * BYTE_TARGET_GROWTH, self.most)

    def shrink(self, piece: Iterable[Record]) -> None:
        """A request was too large: aim at half of it."""
        half = sum(len(record.body) + 1 for record in piece) / 2
        self._now = max(min(self._now, half), MIN_BYTE_TARGET)


class Leaving:
    """Events that were taken out together; given away one by one.

    Thousands of groups are unpacked and freed as it is their turn: all at once would
    hold the loop.
    """

    def __init__(self, records: Iterable[Record], groups: Iterable[Group] = ()) -> None:
        self._records = deque(records)
        self._groups = deque(groups)
        self._left = len(self._records) + sum([g.count for g in self._groups])

    def __len__(self) -> int:
        """Count those that are left."""
        return self._left

    def __iter__(self) -> Iterator[Record]:
        """Give one away after the other."""
        records, groups = self._records, self._groups
        while records or groups:
            if not records:
                records.extend(groups.popleft().clear())
            self._left -= 1
            yield records.popleft()

    def all(self) -> list[Record]:
        """Give all of them away at once."""
        records = list(self._records)
        for group in self._groups:
            records += group.clear()
        self._records.clear()
        self._groups.clear()
        self._left = 0
        return records

    def __repr__(self) -> str:
        return f"<Leaving {self._left}>"


class Batcher:
    """The queue of waiting events and the owners of identities."""

    def __init__(self, attempts: Attempts) -> None:
        self._queue: deque[Record] = deque()
        # So many at the head, or fewer, came back and stand in no order of acceptance;
        # behind them all do.
        self._back = 0
        self._owners: dict[str, Group] = {}
        self._attempts = attempts
        self._probed: set[str] = set()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> Record | None:
        """The event at the head of the queue."""
        return self._queue[0] if self._queue else None

    def add(self, records: Iterable[Record]) -> None:
        """Queue events behind all others; in order of acceptance among themselves."""
        queue = self._queue
        length, last = len(queue), queue[-1].id if queue else 0
        queue.extend(records)
        if len(queue) > length and queue[length].id < last:
            # From a storage, which had them while later ones came in.
            self._back = len(queue)

    def pop_oldest(self) -> Record | None:
        """Take the event at the head of the queue out of it."""
        self._back = max(0, self._back - 1)
        return self._queue.popleft() if self._queue else None

    def _put_back(self, records: list[Record]) -> None:
        """Put events at the head of the queue."""
        self._queue.extendleft(reversed(records))
        self._back += len(records)

    def owner(self, identity: str) -> Group | None:
        """Find the group that owns an identity."""
        return self._owners.get(identity)

    def groups(self) -> list[Group]:
        """List the groups that own an identity, each once."""
        return list(dict.fromkeys(self._owners.values()))

    def take(
        self,
        size: int,
        max_bytes: int,
        park: Callable[[Group, Record], None],
        *,
        horizon: float = -math.inf,
        expire: Callable[[Record], None] | None = None,
    ) -> Group | None:
        """Form a group of up to so many events and bytes from the head of the queue.

        Args:
            size: most events.
            max_bytes: most bytes of them, with a comma each.
            park: is told of each event whose identity another group owns.
            horizon: an event that was accepted before is too old to go.
            expire: is told of each event that is.
        """
        queue, owners, attempts = self._queue, self._owners, self._attempts
        piece: list[Record] = []
        group = Group([])
        total = 0
        # The loop must not stand still while a long queue is parked: the rest of it
        # is looked at next time.
        patience = max(PATIENCE * size, MIN_PATIENCE)
        # Hardly any event was charged with a failure: ask only where one was.
        some_charged = attempts.charged > 0
        length = len(queue)
        while queue and len(piece) < size:
            record = queue[0]
            if record.accepted_at <= horizon and expire is not None:
                expire(queue.popleft())
                patience -= 1
                if not patience:
                    break
                continue
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
            if some_charged and (limit := attempts.size_limit(record)) < size:
                if len(piece) >= limit:
                    break
                size = limit
            piece.append(queue.popleft())
            if owner is None:
                owners[record.identity] = group
                group.identities.append(record.identity)
        self._back = max(0, self._back - (length - len(queue)))
        if not piece:
            return None
        group.put_back(piece)
        return group

    def take_head(self) -> Group | None:
        """Form a group of one: the head of an identity, of each identity in turn.

        So one event that cannot be taken is not mistaken for an outage.
        """
        index = self._next_head()
        if index is None and self._probed:
            self._probed.clear()
            index = self._next_head()
        if index is None:
            return None
        record = self._queue[index]
        del self._queue[index]
        self._probed.add(record.identity)
        group = Group([[record]])
        self.own(group, record.identity)
        return group

    def _next_head(self) -> int | None:
        probed, owners = self._probed, self._owners
        for index, record in enumerate(self._queue):
            if record.identity not in probed and record.identity not in owners:
                return index
        return None

    def forget_probes(self) -> None:
        """Begin with the first identity again: something was taken."""
        self._probed.clear()

    def own(self, group: Group, identity: str) -> None:
        """Make a group the owner of an identity."""
        self._owners[identity] = group
        group.identities.append(identity)

    def park(self, group: Group, record: Record) -> None:
        """Keep an event at the owner of its identity."""
        group.park(record)

    def release(self, group: Group) -> int:
        """Free the identities of a group; its parked events go to the queue's head.

        They come out grouped by identity, so that the next requests share no identity
        and can be in flight together.

        Returns:
            How many events came back to the queue.
        """
        for identity in group.identities:
            # An identity that was throttled meanwhile has a lane of its own.
            if self._owners.get(identity) is group:
                del self._owners[identity]
        group.identities.clear()
        back = group.unpark()
        self._put_back(back)
        group.end()
        return len(back)

    def dissolve(self, group: Group) -> None:
        """Put all events of a group back at the head of the queue."""
        records = group.unpack()
        self.release(group)
        self._put_back(records)

    def put_first(self, record: Record) -> None:
        """Put an event back to where it goes before all others of its identity."""
        owner = self._owners.get(record.identity)
        if owner is None:
            self._put_back([record])
        else:
            owner.put_first(record)

    def remove(self, choose: Choose) -> list[Record]:
        """Take the chosen events out, wherever they wait, except those in flight."""
        removed = self.remove_queued(choose)
        for group in self.groups():
            if group.count and (chosen := choose(group.waiting())):
                removed += group.remove(frozenset(chosen).__contains__)
        return removed

    def remove_queued(self, choose: Choose) -> list[Record]:
        """Take the chosen events out of the queue, and out of no group."""
        removed = choose(self._queue)
        if removed:
            gone = {record.id for record in removed}
            self._queue = deque([r for r in self._queue if r.id not in gone])
            self._back = min(self._back, len(self._queue))
        return removed

    def take_eldest(self) -> list[Record]:
        """Take out some events, the oldest of all that are not in flight.

        Behind those that came back the queue stands in order of acceptance: there the
        oldest are the first. Groups stay, however empty: a hold goes on without those
        who are held.

        Returns:
            The oldest, in order of acceptance; empty where nothing waits.
        """
        parted: list[Record] = []
        for group in self.groups():
            parted += group.waiting()
        looked_at = len(parted) + self._back
        most = max(LEAST_ELDEST, looked_at // ELDEST_PART)
        head = list(islice(self._queue, self._back + most))
        numbers = sorted([record.id for record in chain(parted, head)])
        if not numbers:
            return []
        newest = numbers[:most][-1]
        eldest = [record for record in chain(parted, head) if record.id <= newest]
        owners = [self._owners.get(r.identity) for r in parted if r.id <= newest]
        for owner in dict.fromkeys(owners):
            if owner is not None:
                owner.remove(lambda record: record.id <= newest)
        for _ in head:
            self._queue.popleft()
        kept = [record for record in head if record.id > newest]
        self._queue.extendleft(reversed(kept))
        self._back = min(self._back, len(kept))
        return sorted(eldest)  # records are tuples and begin with their number

    def clear(self) -> "Leaving":
        """Take all out that is not in flight, and forget the groups it was in."""
        leaving, self._queue, self._back = self._queue, deque(), 0
        idle: list[Group] = []
        for group in self.groups():
            if group.life is Life.OUT:
                leaving.extend(group.clear())
            elif group.count:
                idle.append(group)
        owners = self._owners.items()
        self._owners = {key: group for key, group in owners if group.life is Life.OUT}
        return Leaving(leaving, idle)

    def __repr__(self) -> str:
        return f"<Batcher {len(self._queue)} queued, {len(self._owners)} owned>"
