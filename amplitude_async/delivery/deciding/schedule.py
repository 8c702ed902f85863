"""When may an event go, and who else is concerned by an answer. Pure.

Nothing here awaits: time comes in as a parameter, and what is to be done goes out as
groups to send and settlements to write down.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.attempts import Attempts, Held
from amplitude_async.delivery.deciding.batcher import Batcher, ByteTarget
from amplitude_async.delivery.deciding.group import Group, Life
from amplitude_async.delivery.deciding.health import Health, HealthState, TokenBucket
from amplitude_async.delivery.deciding.rulings import Ruling, Rulings
from amplitude_async.delivery.deciding.timetable import Linger, Timetable
from amplitude_async.delivery.endpoint import Verdict
from amplitude_async.delivery.outcome import DropReason, Settlement
from amplitude_async.storage.base import Record

__all__ = ["Schedule"]

PROBATION_WINDOW = 30


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a request may carry, how old an event may get, and what is at stake."""

    max_events: int
    max_bytes: int
    max_age: float
    durable: bool


class Schedule:
    """Decides for one destination what goes next and what becomes of each event."""

    def __init__(
        self,
        config: DeliveryConfig,
        *,
        max_events: int,
        max_bytes: int,
        max_age: float,
        durable: bool,
        rng: random.Random,
    ) -> None:
        most = min(config.max_batch_size, max_events)
        self._config = config
        self._bounds = _Bounds(most, max_bytes, max_age, durable)
        self._bucket = TokenBucket(config.max_events_per_second)
        self._attempts = Attempts(most)
        self._target = ByteTarget(max_bytes)
        self._batcher = Batcher(self._attempts)
        self._timetable = Timetable()
        self._held = Held(max(1, config.max_storage_capacity // 2))
        self.linger = Linger(config.flush_interval)
        """How long a first event waits for company."""
        self.health = Health(config, rng.uniform)
        self._rulings = Rulings(
            config,
            self.health,
            self._attempts,
            self._target,
            max_events=most,
            durable=durable,
        )
        self._departed: list[Settlement] = []
        """Ended without an answer: expired or shed, not collected as yet."""
        self._spent: list[Record] | None = None
        """From the last call on: events that have had their last request."""

    # Reading -----------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._timetable.out

    @property
    def waiting(self) -> int:
        """Events in the queue: not in flight, not backing off, not held."""
        return len(self._batcher)

    @property
    def held(self) -> int:
        """Events in the lanes of throttled identities."""
        return self._held.count

    @property
    def size(self) -> int:
        """Undecided events, those in flight included; counted anew at each call."""
        groups = sum(group.count for group in self._batcher.groups())
        spent = len(self._spent) if self._spent else 0
        return len(self._batcher) + groups + spent + len(self._departed)

    @property
    def retries(self) -> int:
        """Requests that failed and whose events were sent again."""
        return self._rulings.retries

    @property
    def _last_call(self) -> bool:
        return self._spent is not None

    def __repr__(self) -> str:
        return (
            f"<Schedule {self.health.state}: {self.in_flight} out, "
            f"{self.waiting} waiting, {self.held} held>"
        )

    # Intake ------------------------------------------------------------------

    def add(self, records: Sequence[Record], since: float) -> None:
        """Queue events; the linger began when the first of them was accepted."""
        if not len(self._batcher):
            self.linger.stop()  # it belonged to events that are gone
        self._batcher.add(records)
        if len(self._batcher):
            self.linger.begin(since)

    # What goes next ----------------------------------------------------------

    def next(
        self, now: float, wall: float, *, slots: int, eager: bool = False
    ) -> Group | None:
        """Choose the next request; None where nothing may go now.

        Args:
            now: monotonic seconds.
            wall: seconds since the epoch, for ages.
            slots: free places for requests.
            eager: do not wait for company.
        """
        if slots <= 0:
            return None
        self._expire(wall)
        if self._bucket.next_at(now) > now:
            return None
        if self._last_call:
            most = self._bounds.max_events
            return self._next_due(now, wall) or self._take(now, wall, most)
        health = self.health
        if health.state is HealthState.REFUSED:
            due = now >= health.not_before and not self.in_flight
            return self._probe(now, wall) if due else None
        if not health.may_ask(now, self.in_flight):
            if self._presses(now, eager=eager):
                health.pace.press()
            return None
        if health.broken and health.state is HealthState.FAILING:
            return self._probe(now, wall)
        # While requests keep their distance, the next one need not leave anything to
        # others: it goes as full as it can.
        free = 1 if health.pace.gap else min(slots, health.places - self.in_flight)
        return self._next_due(now, wall) or self._next_batch(
            now, wall, free, eager=eager
        )

    def _presses(self, now: float, *, eager: bool) -> bool:
        """Say whether anything would go now if the pace allowed it."""
        return self._timetable.next_at(now) <= now or self._batch_is_due(
            now, eager=eager
        )

    def _next_due(self, now: float, wall: float) -> Group | None:
        self._timetable.ring(now)
        while (group := self._timetable.pop_ready()) is not None:
            if self._freshen(group, wall):
                return self._start(group, now)
        return None

    def _batch_is_due(self, now: float, *, eager: bool) -> bool:
        waiting = len(self._batcher)
        if not waiting:
            return False
        full = waiting >= self._config.flush_queue_size
        return eager or full or self.linger.over(now)

    def _next_batch(
        self, now: float, wall: float, slots: int, *, eager: bool
    ) -> Group | None:
        if not self._batch_is_due(now, eager=eager):
            return None
        least = self._config.flush_queue_size
        size = max(math.ceil(len(self._batcher) / slots), least)
        return self._take(now, wall, min(size, self._bounds.max_events))

    def _take(self, now: float, wall: float, size: int) -> Group | None:
        group = self._batcher.take(
            int(min(size, max(1, self._bucket.available(now)))),
            self._target.now,
            self._park,
            horizon=wall - self._bounds.max_age,
            expire=self._expire_one,
        )
        if not len(self._batcher):
            self.linger.stop()
        if group is None:
            return None
        self.linger.first_batch_left()
        return self._start(group, now)

    def _probe(self, now: float, wall: float) -> Group | None:
        group = self._batcher.take_head()
        if group is None:
            # All that waits in the queue belongs to throttled identities: park it.
            self._batcher.take(len(self._batcher), self._bounds.max_bytes, self._park)
        if not len(self._batcher):
            self.linger.stop()
        if group is not None:
            return self._start(group, now)
        while (lane := self._timetable.pop_due(now)) is not None:
            if self._freshen(lane, wall):
                lane.cut(1, self._bounds.max_bytes)
                return self._start(lane, now)
        return None

    def _start(self, group: Group, now: float) -> Group:
        limit = group.window or self._bounds.max_events
        if self._attempts.charged and not self._last_call:
            limit = min(limit, self._attempts.size_limit_of(group.piece))
        limit = int(max(1, min(limit, self._bucket.available(now))))
        group.cut(limit, self._bounds.max_bytes)
        self._timetable.send(group, now)
        self.health.pace.started(now)
        self._bucket.spend(len(group.piece))
        return group

    def _freshen(self, group: Group, wall: float) -> bool:
        """Drop the expired events of a group; False where nothing is left of it."""
        if group.throttled:
            group.line_up()
        horizon = wall - self._bounds.max_age
        stale = group.remove(lambda record: record.accepted_at <= horizon)
        self._departed += map(self._expired, stale)
        group.forget_empty_pieces()
        if not group.pieces:
            self._release(group)
            self._expire(wall)
        return bool(group.pieces)

    # Ages, sheds, wake-ups ---------------------------------------------------

    def _expire(self, wall: float) -> None:
        horizon = wall - self._bounds.max_age
        oldest = self._batcher.oldest
        while oldest is not None and oldest.accepted_at <= horizon:
            self._batcher.pop_oldest()
            self._expire_one(oldest)
            oldest = self._batcher.oldest

    def _expire_one(self, record: Record) -> None:
        self._departed.append(self._expired(record))

    def _expired(self, record: Record) -> Settlement:
        message = f"not delivered within max_event_age={self._bounds.max_age:g} s"
        return record, self._rulings.drop(record, DropReason.EXPIRED, message)

    def _park(self, owner: Group, record: Record) -> None:
        if owner.window is not None and not self._held.room:
            self._departed.append(self._shed(record))
        else:
            owner.park(record)

    def _shed(self, record: Record) -> Settlement:
        message = (
            "events of throttled identities fill half of max_storage_capacity="
            f"{self._config.max_storage_capacity}"
        )
        return record, self._rulings.drop(record, DropReason.OVERFLOW, message)

    def collect(self) -> list[Settlement]:
        """Hand over the events that ended without an answer: expired or shed."""
        departed, self._departed = self._departed, []
        return self._closed(departed)

    def _closed(self, settlements: list[Settlement]) -> list[Settlement]:
        self._attempts.forget(settlements)
        return settlements

    def next_request_at(self, now: float, *, eager: bool = False) -> float | None:
        """Say when a request may go at the earliest; None where nothing waits."""
        health, last = self.health, self._last_call
        if not last and self.in_flight >= health.places:
            return None
        unwell = health.state is not HealthState.HEALTHY and not last
        soonest = self._timetable.next_at(now)
        if len(self._batcher):
            full = len(self._batcher) >= self._config.flush_queue_size
            linger = now if self.linger.until is None else self.linger.until
            hurried = eager or full or unwell or last
            soonest = min(soonest, now if hurried else linger)
        if soonest == math.inf:
            return None
        well_at = now if last else health.not_before
        return max(soonest, well_at, self._bucket.next_at(now))

    def next_wake_at(
        self, now: float, wall: float, *, eager: bool = False
    ) -> float | None:
        """Say when to look again: for a request or for an event that expires."""
        times = [t for t in (self.next_request_at(now, eager=eager),) if t is not None]
        oldest = self._batcher.oldest
        if oldest is not None:
            times.append(now + oldest.accepted_at + self._bounds.max_age - wall)
        return min(times, default=None)

    # What an answer means ----------------------------------------------------

    def apply(self, group: Group, verdict: Verdict, now: float) -> list[Settlement]:
        """Carry out a verdict on the piece in flight.

        Returns:
            The events it decides; all others wait again, where they belong.
        """
        self._timetable.answer(group)
        group.survive()
        ruling = self._rulings.rule(group, group.take_piece(), verdict, now)
        return self._carry_out(group, ruling, now)

    def crashed(self, group: Group, now: float) -> list[Settlement]:
        """Take back a group whose sender died of a fault of ours; give up at three."""
        self._timetable.answer(group)
        ruling = self._rulings.crash(group, now)
        if ruling.due is None:
            return self._carry_out(group, ruling, now)
        self._postpone(group, ruling.due)
        return []

    def take_back(self, group: Group, now: float) -> None:
        """Queue a group again whose request was interrupted: nobody is to blame."""
        self._timetable.answer(group)
        if group.throttled:
            self._postpone(group, now)
        else:
            self._batcher.dissolve(group)
            self.linger.end(now)

    def _carry_out(self, group: Group, ruling: Ruling, now: float) -> list[Settlement]:
        for identity in ruling.slowed:
            self._hold(group, identity, now)
        settled = ruling.settled
        if ruling.refused and not self._bounds.durable:
            # Everything that waits meets the same refusal; in flight are only others.
            rest = self._remove(_everything)
            settled = settled + [self._rulings.refuse(record) for record in rest]
        elif ruling.due is not None:
            self._postpone(group, ruling.due)
        self._go_on(group, ruling, now)
        return self._closed(settled)

    def _hold(self, group: Group, identity: str, now: float) -> None:
        """Move one identity to a lane of its own and leave it alone for a while."""
        records = group.extract(identity)
        if not records:
            return
        room = self._held.room
        kept, shed = records[:room], records[room:]
        self._departed += map(self._shed, shed)
        lane = Group([kept] if kept else [], PROBATION_WINDOW, self._held)
        self._batcher.own(lane, identity)
        self._postpone(lane, now + self._config.retry_throttled_interval)

    def _postpone(self, group: Group, due: float) -> None:
        if self._last_call:
            self._spend(group)
        else:
            self._timetable.rest(group, due)

    def _go_on(self, group: Group, ruling: Ruling, now: float) -> None:
        """Send a group's next piece, let it wait, or free its identities."""
        if group.life is Life.READY:
            if not group.goes_on:
                self._release(group)
            elif self._last_call and ruling.first:
                # It has had its last request: what is left of it goes nowhere.
                self._spend(group)
            elif ruling.charged and not group.throttled:
                # Its events part company, so that a bad one stands alone in the end.
                self._batcher.dissolve(group)
                self.linger.end(now)
            elif ruling.first:
                self._timetable.resume_first(group)
            else:
                self._timetable.resume(group)
        # In a last call nothing is probed: pieces stay pieces, or halving a batch
        # would never end.
        health = self.health
        probes = health.state is HealthState.REFUSED or (
            health.broken and health.state is HealthState.FAILING
        )
        if probes and not self._last_call:
            self._dissolve_all(now)
        if health.state is HealthState.HEALTHY:
            self._batcher.forget_probes()

    def _spend(self, group: Group) -> None:
        """Put a group's events aside: in a last call each goes once."""
        if self._spent is not None:
            self._spent += group.unpack() + group.unpark()
            self._release(group)

    def _release(self, group: Group) -> None:
        """Free a group's identities; what was parked there was due at that time."""
        if self._batcher.release(group):
            self.linger.end()

    def _dissolve_all(self, now: float) -> None:
        """While the destination is unwell events queue, so that probes find a head."""
        for group in self._timetable.clear_all_but_lanes(now):
            self._batcher.dissolve(group)
        if len(self._batcher):
            self.linger.end(now)

    # Removing, shutting down -------------------------------------------------

    def _remove(self, chosen: Callable[[Record], bool]) -> list[Record]:
        """Take the chosen events out, except those in flight, and groups with them."""
        records = self._batcher.remove(chosen)
        for group in self._batcher.groups():
            group.forget_empty_pieces()
            if not group.goes_on:
                self._release(group)
        self._timetable.forget_ended()
        return records

    def purge(self, chosen: Callable[[Record], bool]) -> list[Settlement]:
        """Give up the chosen events that are not in flight."""
        reason, message = DropReason.PURGED, "purged by the client"
        drop = self._rulings.drop
        return self._closed(
            [(r, drop(r, reason, message)) for r in self._remove(chosen)]
        )

    def evict_oldest(self) -> list[Settlement]:
        """Give up the oldest waiting event, to make room for a newer one.

        Returns:
            Its settlement; nothing where all events are in flight.
        """
        record = self._batcher.pop_oldest()
        if record is None:
            waiting = (r for g in self._batcher.groups() for r in g.waiting())
            record = min(waiting, key=lambda r: r.id, default=None)
            if record is None:
                return []
            oldest = record.id
            self._remove(lambda r: r.id == oldest)
        message = "shed to make room for a newer event"
        outcome = self._rulings.drop(record, DropReason.OVERFLOW, message)
        return self._closed([(record, outcome)])

    def last_call(self, now: float) -> bool:
        """Let everything that waits go once more, whatever holds it back.

        Returns:
            False where nothing waits or the server refuses us anyway.
        """
        if self.health.state is HealthState.REFUSED:
            return False
        for group in self._batcher.groups():
            if not group.out:
                self._batcher.dissolve(group)
        self._timetable.clear()
        self.linger.end(now)
        self._spent = []
        return bool(len(self._batcher))

    def remove_all(self) -> list[Record]:
        """Take out everything that is undecided and not in flight."""
        spent, self._spent = self._spent or [], None if self._spent is None else []
        return spent + self._remove(_everything)


def _everything(_: Record) -> bool:
    return True
