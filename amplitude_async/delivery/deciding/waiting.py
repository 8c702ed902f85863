"""Where every waiting event stands: in the queue, in a group, a lane, or aside. Pure.

What goes next and what an answer means is decided by others; here an event is put
where it belongs, and found again. Events of one identity never overtake each other.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

from amplitude_async.delivery.deciding.attempts import Attempts, Held
from amplitude_async.delivery.deciding.batcher import Batcher, Choose, Leaving
from amplitude_async.delivery.deciding.behind import Behind
from amplitude_async.delivery.deciding.group import Group, Life
from amplitude_async.delivery.deciding.rulings import Ruling
from amplitude_async.delivery.deciding.timetable import Linger, Timetable
from amplitude_async.delivery.outcome import DropReason, Outcome, Settlement
from amplitude_async.storage.base import Record

__all__ = ["Waiting"]

PROBATION_WINDOW = 30
# So many events expire at once; the loop has a turn before the next.
EXPIRY_SHARE = 500
# So many groups are looked at for one that has not expired; likewise.
FRESHENING_SHARE = 100


class Waiting:
    """Every undecided event of one destination.

    Args:
        capacity: most events in memory; half of it may be held.
        most_bytes: most bytes of them; likewise, where a storage keeps the rest.
        durable: a storage keeps what is held beyond that; else it is shed.
        max_age: seconds after which an event is too old to go.
        interval: seconds that a first event waits for company.
    """

    def __init__(
        self,
        attempts: Attempts,
        *,
        capacity: int,
        max_age: float,
        interval: float,
        most_bytes: float = math.inf,
        durable: bool = False,
    ) -> None:
        self._attempts = attempts
        self._capacity = capacity
        self._max_age = max_age
        self._expired = f"not delivered within max_event_age={max_age:g} s"
        self._batcher = Batcher(attempts)
        self._held = Held(
            max(1, capacity // 2), most_bytes / 2 if durable else math.inf
        )
        self._behind = Behind(able=durable)
        self._eldest: deque[Record] = deque()
        """The oldest of all, looked out to be given up; in order of acceptance."""
        self._departed: list[Settlement] = []
        """Ended without an answer: expired or shed, not collected as yet."""
        self._spent: list[Record] | None = None
        """From the last call on: events that have had their last request."""
        self.timetable = Timetable()
        """When groups go on, and which are out."""
        self.linger = Linger(interval)
        """How long a first event waits for company."""

    # Reading -----------------------------------------------------------------

    def __len__(self) -> int:
        """Count the queue: not in flight, not backing off, not held."""
        return len(self._batcher) + len(self._eldest)

    @property
    def held(self) -> int:
        """Events in the lanes of throttled identities."""
        return self._held.count

    @property
    def held_bytes(self) -> int:
        """Their bytes."""
        return self._held.bytes

    @property
    def size(self) -> int:
        """Undecided events, those in flight included; counted anew at each call."""
        groups = sum(group.count for group in self._batcher.groups())
        aside = len(self._spent or ()) + len(self._eldest) + len(self._departed)
        return len(self._batcher) + groups + aside + len(self._behind)

    @property
    def last_call(self) -> bool:
        """True once every event goes for the last time."""
        return self._spent is not None

    def expires_at(self, wall: float) -> float:
        """Say in how many seconds the event at the queue's head is too old."""
        oldest = self._eldest[0] if self._eldest else self._batcher.oldest
        return math.inf if oldest is None else oldest.accepted_at + self._max_age - wall

    def __repr__(self) -> str:
        return f"<Waiting {len(self)} queued, {self.timetable!r}, {self._held!r}>"

    # Coming in and going out -------------------------------------------------

    def add(self, records: Sequence[Record], since: float) -> None:
        """Queue events; the linger began when the first of them was accepted."""
        if not len(self):
            self.linger.stop()  # it belonged to events that are gone
        self._batcher.add(records)
        if len(self._batcher):
            self.linger.begin(since)

    def take(self, size: int, max_bytes: int, wall: float) -> Group | None:
        """Form a group of up to so many events and bytes from the queue's head."""
        self._reinstate()
        group = self._batcher.take(
            size,
            max_bytes,
            self._park,
            horizon=wall - self._max_age,
            expire=self._expire,
        )
        if not len(self._batcher):
            self.linger.stop()
        if group is not None:
            self.linger.first_batch_left()
        return group

    def take_head(self, max_bytes: int) -> Group | None:
        """Form a group of one, to ask with: of each identity in turn.

        It may have expired: it is freshened before it goes.
        """
        self._reinstate()
        group = self._batcher.take_head()
        if group is None:
            # All that waits in the queue belongs to throttled identities: park it.
            self._batcher.take(len(self._batcher), max_bytes, self._park)
        if not len(self._batcher):
            self.linger.stop()
        return group

    def forget_probes(self) -> None:
        """Ask with the first identity again, the next time."""
        self._batcher.forget_probes()

    def freshen(self, group: Group, wall: float) -> bool:
        """Drop the expired events of a group; False where nothing is left of it."""
        self._reinstate()
        if group.throttled:
            group.line_up()
        horizon = wall - self._max_age
        for record in group.remove(lambda record: record.accepted_at <= horizon):
            self._expire(record)
        group.forget_empty_pieces()
        if not group.pieces:
            self.finish(group)
            self.expire(wall)
        return bool(group.pieces)

    def next_fresh(
        self, choose: Callable[[], Group | None], wall: float
    ) -> Group | None:
        """Choose groups until one has an event that may go; not too many at once."""
        for _ in range(FRESHENING_SHARE):
            group = choose()
            if group is None or self.freshen(group, wall):
                return group
        return None

    def answer(self, group: Group) -> None:
        """Note that nothing of a group is out any more: it may be the oldest now."""
        self._reinstate()
        self.timetable.answer(group)

    # Ends without an answer --------------------------------------------------

    def expire(self, wall: float) -> bool:
        """Drop what has become too old at the queue's head, or a share of it.

        Returns:
            True where there is more.
        """
        self._reinstate()
        horizon = wall - self._max_age
        for _ in range(EXPIRY_SHARE):
            oldest = self._batcher.oldest
            if oldest is None or oldest.accepted_at > horizon:
                return False
            self._batcher.pop_oldest()
            self._expire(oldest)
        return self.expires_at(wall) <= 0

    def _expire(self, record: Record) -> None:
        self._depart(record, DropReason.EXPIRED, self._expired)

    def _park(self, owner: Group, record: Record) -> None:
        if owner.window is None or self._may_hold(owner, record.identity):
            owner.park(record)
        else:
            self._leave(record)

    def _may_hold(self, lane: Group, identity: str) -> bool:
        """Say whether a lane may take one more event in."""
        if self._behind.able and lane.count >= self._held.share:
            return False
        return self._held.room > 0 and identity not in self._behind

    def _leave(self, record: Record) -> None:
        """Leave an event of a throttled identity to the storage, or shed it."""
        if self._behind.able:
            self._behind.leave(record)
        else:
            self.shed(record)

    def shed(self, record: Record) -> None:
        """Give an event of a throttled identity up."""
        message = (
            "events of throttled identities fill half of max_storage_capacity="
            f"{self._capacity}"
        )
        self._depart(record, DropReason.OVERFLOW, message)

    def _depart(self, record: Record, reason: DropReason, message: str) -> None:
        attempts = self._attempts.failures(record)
        outcome = Outcome.dropped(reason, message, attempts=attempts)
        self._departed.append((record, outcome))

    def collect(self) -> list[Settlement]:
        """Hand over the events that ended without an answer: expired or shed."""
        departed, self._departed = self._departed, []
        return departed

    # Where a group goes ------------------------------------------------------

    def hold(self, group: Group, identities: Sequence[str], due: float) -> None:
        """Move each identity to a lane of its own and leave it alone for a while."""
        for identity, records in group.extract(identities).items():
            if records:
                self._hold(identity, records, due)

    def _hold(self, identity: str, records: list[Record], due: float) -> None:
        most = self._held.share if self._behind.able else len(records)
        room = self._held.fitting(records, most)
        kept, rest = records[:room], records[room:]
        for record in rest:
            self._leave(record)
        lane = Group([kept] if kept else [], PROBATION_WINDOW, self._held)
        self._batcher.own(lane, identity)
        self.postpone(lane, due)

    def postpone(self, group: Group, due: float) -> None:
        """Let a group go on at a given time; after a last call at none."""
        if self._spent is None:
            self.timetable.rest(group, due)
        else:
            self.spend(group)

    def spend(self, group: Group) -> None:
        """Put a group's events aside: after a last call what is left goes nowhere."""
        if self._spent is not None:
            self._spent += group.unpack() + group.unpark()
            self.release(group)

    def go_on(self, group: Group, ruling: Ruling, now: float) -> None:
        """Send a group's next piece, or free its identities."""
        if not group.goes_on:
            self.finish(group)
        elif ruling.first and self.last_call:
            self.spend(group)  # it has had its last request
        elif ruling.charged and not group.throttled:
            # Its events part company, so that a bad one stands alone in the end.
            self.dissolve(group, now)
        elif ruling.first:
            self.timetable.resume_first(group)
        else:
            self.timetable.resume(group)

    def finish(self, group: Group) -> None:
        """Free a group's identities; a lane stays while the storage has more for it."""
        if self._waits_for_storage(group):
            group.idle()
            self._behind.run_dry(group.identities[0])
        else:
            self.release(group)

    def _waits_for_storage(self, group: Group) -> bool:
        if not group.throttled or self.last_call:
            return False
        return any(identity in self._behind for identity in group.identities)

    def release(self, group: Group) -> None:
        """Free a group's identities; what was parked there was due at that time."""
        if self._batcher.release(group):
            self.linger.end()

    def dissolve(self, group: Group, now: float) -> None:
        """Put a group's events back at the queue's head, to go at once."""
        self._batcher.dissolve(group)
        self.linger.end(now)

    def dissolve_all(self, now: float) -> None:
        """Put all but lanes back into the queue, so that probes find a head."""
        for group in self.timetable.clear_all_but_lanes(now):
            self._batcher.dissolve(group)
        if len(self._batcher):
            self.linger.end(now)

    # Taking out --------------------------------------------------------------

    def remove(self, choose: Choose) -> Leaving:
        """Take the chosen events out, except those in flight, and groups with them."""
        self._reinstate()
        records = self._batcher.remove(choose)
        ended = False
        owners = map(self._batcher.owner, {record.identity for record in records})
        for group in dict.fromkeys(owners):
            if group is None:
                continue
            group.forget_empty_pieces()
            if group.goes_on or group.out:
                continue
            if not self._waits_for_storage(group):
                self.release(group)
            elif group.life is Life.READY:
                self.finish(group)
            ended = True
        if ended:
            self.timetable.forget_ended()
        return Leaving(records)

    def clear(self) -> Leaving:
        """Take everything out that waits to be sent, and is not in flight."""
        self._reinstate()
        self.timetable.clear()  # nothing in it is in flight
        leaving = self._batcher.clear()
        for identity in self._behind.identities:
            if self._batcher.owner(identity) is None and not self.last_call:
                lane = Group([], PROBATION_WINDOW, self._held)
                self._batcher.own(lane, identity)
                self.finish(lane)
        return leaving

    def pop_eldest(self) -> Record | None:
        """Take out the oldest event of all, wherever it waits; None: all are out."""
        if not self._eldest:
            self._eldest.extend(self._batcher.take_eldest())
        return self._eldest.popleft() if self._eldest else None

    def _reinstate(self) -> None:
        """Put the oldest back to where they go before all others of their identity."""
        while self._eldest:
            record = self._eldest.pop()
            owner = self._batcher.owner(record.identity)
            self._batcher.put_first(record)
            # Others may have taken its place in the lane meanwhile.
            if owner is None or not owner.throttled:
                continue
            if self._held.overfull:
                self._leave(owner.pop_newest())
            self._wake(owner)

    def call_last(self, now: float) -> bool:
        """Let everything that waits go once more; False where nothing waits."""
        self._reinstate()
        if self._behind.identities:
            # They may not overtake what stays in the storage.
            for record in self._batcher.remove_queued(self._behind.among):
                self._behind.leave(record)
        for group in self._batcher.groups():
            if not group.out:
                self._batcher.dissolve(group)
        self.timetable.clear()
        self.linger.end(now)
        self._spent = []
        return bool(len(self._batcher))

    def remove_all(self) -> list[Record]:
        """Take out everything that is undecided and not in flight."""
        spent, self._spent = self._spent or [], None if self._spent is None else []
        return spent + self.clear().all() + self._behind.collect()

    # What is left to the storage ---------------------------------------------

    def passes_over(self, record: Record) -> bool:
        """Say whether a record that was read is left where it lies.

        It is where memory has no room for more of its identity, which is throttled.
        """
        if record.identity in self._behind:
            return True
        lane = self._batcher.owner(record.identity)
        if lane is None or not lane.throttled or not self._behind.able:
            return False
        if self._may_hold(lane, record.identity):
            return False
        self._behind.add(record.identity)
        return True

    def collect_left(self) -> list[Record]:
        """Hand over the events that go back to the storage."""
        return self._behind.collect()

    @property
    def wants_more(self) -> bool:
        """True where a lane has run dry, and there is room for more of it."""
        return self._behind.some_dry and self._held.room > 0 and not self.last_call

    def wanted(self) -> dict[str, int]:
        """Say of which identities more may come, and how much."""
        room, wanted = self._held.room, {}
        if not self.last_call:
            for identity in self._behind.dry:
                wanted[identity] = min(room, self._held.share)
                room -= wanted[identity]
                if room <= 0:
                    break
        return wanted

    @property
    def spare(self) -> float:
        """How many bytes more may come with them."""
        return self._held.spare

    def bring_back(self, records: Sequence[Record], now: float) -> None:
        """Take in what was left to the storage, in order of acceptance."""
        for record in records:
            lane = self._batcher.owner(record.identity)
            if lane is None or not lane.throttled:
                self.add((record,), now)
            else:
                lane.park(record)
                self._wake(lane)

    def give_way(self, lane: Group, keeps: Callable[[int], bool]) -> None:
        """Let a lane that was throttled again keep only what goes next.

        Where others have run dry and there is no room for more of them: each of many
        throttled identities has its turn.

        Args:
            lane: the group that was answered.
            keeps: says of an event whether it can go back to the storage.
        """
        starved = self._behind.some_dry and not self._held.room
        if not starved or lane.window is None or lane.life is not Life.RESTING:
            return
        while lane.count > lane.window and keeps(lane.newest.id):
            self._leave(lane.pop_newest())
        lane.forget_empty_pieces()

    def _wake(self, lane: Group) -> None:
        if lane.life is Life.IDLE and lane.goes_on:
            lane.resume()
            self.timetable.resume(lane)
            self._behind.supply(lane.identities[0])

    def catch_up(self, identity: str) -> None:
        """Note that the storage has no more of an identity."""
        self._behind.catch_up(identity)
        lane = self._batcher.owner(identity)
        if lane is not None and lane.life is Life.IDLE:
            self.release(lane)

    @property
    def behind(self) -> list[str]:
        """Identities of which a part is left to the storage."""
        return self._behind.identities
