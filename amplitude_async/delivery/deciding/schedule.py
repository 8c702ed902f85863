"""When may an event go, and who else is concerned by an answer. Pure.

Nothing here awaits: time comes in as a parameter, and what is to be done goes out as
groups to send and settlements to write down.
"""

import math
import random
import sys
from collections.abc import Callable, Sequence

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.deciding.batcher import ByteTarget, Choose
from amplitude_async.delivery.deciding.group import Group, Life
from amplitude_async.delivery.deciding.health import Condition, Health, TokenBucket
from amplitude_async.delivery.deciding.rulings import Endings, Ruling, Rulings
from amplitude_async.delivery.deciding.timetable import Linger
from amplitude_async.delivery.deciding.waiting import Waiting
from amplitude_async.delivery.endpoint import Verdict
from amplitude_async.delivery.outcome import DropReason, Settlement
from amplitude_async.storage.base import Record

__all__ = ["Schedule"]


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
        self._config = config
        self._max_events = min(config.max_batch_size, max_events)
        self._durable = durable
        self._bucket = TokenBucket(config.max_events_per_second)
        self._attempts = Attempts(self._max_events)
        self._target = ByteTarget(max_bytes)
        self._waiting = Waiting(
            self._attempts,
            capacity=config.max_storage_capacity,
            max_age=max_age,
            interval=config.flush_interval,
            most_bytes=config.max_storage_bytes,
            durable=durable,
        )
        self.health = Condition(config, rng.uniform)
        """How well the destination is, and how fast it may be asked."""
        self._rulings = Rulings(
            config,
            self.health,
            self._attempts,
            self._target,
            max_events=self._max_events,
            durable=durable,
        )

    # Reading -----------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._waiting.timetable.out

    @property
    def waiting(self) -> int:
        """Events in the queue: not in flight, not backing off, not held."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Events in the lanes of throttled identities."""
        return self._waiting.held

    @property
    def held_bytes(self) -> int:
        """Their bytes."""
        return self._waiting.held_bytes

    @property
    def size(self) -> int:
        """Undecided events, those in flight included; counted anew at each call."""
        return self._waiting.size

    @property
    def linger(self) -> Linger:
        """How long a first event waits for company."""
        return self._waiting.linger

    @property
    def retries(self) -> int:
        """Requests that failed and whose events were sent again."""
        return self._rulings.retries

    def __repr__(self) -> str:
        return (
            f"<Schedule {self.health.state}: {self.in_flight} out, "
            f"{self.waiting} waiting, {self.held} held>"
        )

    # What goes next ----------------------------------------------------------

    def add(self, records: Sequence[Record], since: float) -> None:
        """Queue events; the linger began when the first of them was accepted."""
        self._waiting.add(records, since)

    def next(
        self,
        now: float,
        wall: float,
        *,
        slots: int,
        eager: bool = False,
        most: int | None = None,
    ) -> Group | None:
        """Choose the next request; None where nothing may go now.

        Args:
            now: monotonic seconds.
            wall: seconds since the epoch, for ages.
            slots: free places for requests.
            eager: do not wait for company.
            most: events that it may carry; None: as many as the API takes.
        """
        if slots <= 0:
            return None
        more = self._waiting.expire(wall)
        if more or self._bucket.next_at(now) > now:
            return None
        most = self._max_events if most is None else min(most, self._max_events)
        if self._waiting.last_call:
            return self._next_due(now, wall, most) or self._take(now, wall, most)
        health = self.health
        if health.state is Health.REFUSED:
            due = now >= health.not_before and not self.in_flight
            return self._probe(now, wall) if due else None
        if not health.may_ask(now, self.in_flight):
            if self._presses(now):
                health.pace.press()
            return None
        if health.probes:
            return self._probe(now, wall)
        # While requests keep their distance, the next one need not leave anything to
        # others: it goes as full as it can.
        free = 1 if health.pace.gap else min(slots, health.places - self.in_flight)
        return self._next_due(now, wall, most) or self._next_batch(
            now, wall, min(most, self._batch_size(free)), eager=eager
        )

    def _presses(self, now: float) -> bool:
        """Say whether the pace holds up what would fill a request."""
        full = len(self._waiting) >= self._max_events
        return full or self._waiting.timetable.next_at(now) <= now

    def _batch_size(self, slots: int) -> int:
        """Share what waits among the free places for requests."""
        share = math.ceil(len(self._waiting) / slots)
        return max(share, self._config.flush_queue_size)

    def _next_due(self, now: float, wall: float, most: int) -> Group | None:
        timetable = self._waiting.timetable
        timetable.ring(now)
        group = self._waiting.next_fresh(timetable.pop_ready, wall)
        return self._start(group, now, most) if group is not None else None

    def _next_batch(
        self, now: float, wall: float, size: int, *, eager: bool
    ) -> Group | None:
        waiting = len(self._waiting)
        due = eager or waiting >= self._config.flush_queue_size
        if waiting and (due or self.linger.over(now)):
            return self._take(now, wall, size)
        return None

    def _take(self, now: float, wall: float, size: int) -> Group | None:
        size = int(min(size, max(1, self._bucket.available(now))))
        group = self._waiting.take(size, self._target.now, wall)
        return self._start(group, now, size) if group is not None else None

    def _probe(self, now: float, wall: float) -> Group | None:
        waiting, most = self._waiting, self._target.most
        group = waiting.next_fresh(
            lambda: waiting.take_head(most) or waiting.timetable.pop_due(now), wall
        )
        return self._start(group, now, 1) if group is not None else None

    def _start(self, group: Group, now: float, most: int) -> Group:
        limit = min(group.window or most, most)
        if self._attempts.charged and not self._waiting.last_call:
            limit = min(limit, self._attempts.size_limit_of(group.piece))
        limit = int(max(1, min(limit, self._bucket.available(now))))
        group.cut(limit, self._target.most)
        self._waiting.timetable.send(group, now)
        self.health.pace.started(now)
        self._bucket.spend(len(group.piece))
        return group

    # When to look again ------------------------------------------------------

    def next_request_at(self, now: float, *, eager: bool = False) -> float | None:
        """Say when a request may go at the earliest; None where nothing waits."""
        health, last = self.health, self._waiting.last_call
        if not last and self.in_flight >= health.places:
            return None
        soonest = self._waiting.timetable.next_at(now)
        if len(self._waiting):
            full = len(self._waiting) >= self._config.flush_queue_size
            linger = now if self.linger.until is None else self.linger.until
            hurried = eager or full or health.probes or last
            soonest = min(soonest, now if hurried else linger)
        if soonest == math.inf:
            return None
        well_at = now if last else health.not_before
        return max(soonest, well_at, self._bucket.next_at(now))

    def next_wake_at(
        self, now: float, wall: float, *, eager: bool = False
    ) -> float | None:
        """Say when to look again: for a request or for an event that expires."""
        due = self.next_request_at(now, eager=eager)
        wake_at = now + self._waiting.expires_at(wall)
        wake_at = wake_at if due is None else min(due, wake_at)
        return None if wake_at == math.inf else wake_at

    # What an answer means ----------------------------------------------------

    def apply(self, group: Group, verdict: Verdict, now: float) -> list[Settlement]:
        """Carry out a verdict on the piece in flight.

        Returns:
            The events it decides; all others wait again, where they belong.
        """
        self._waiting.answer(group)
        group.survive()
        ruling = self._rulings.rule(group, group.take_piece(), verdict, now)
        return self._carry_out(group, ruling, now)

    def crashed(self, group: Group, now: float) -> list[Settlement]:
        """Take back a group whose sender died of a fault of ours; give up at three."""
        self._waiting.answer(group)
        ruling = self._rulings.crash(group, now)
        if ruling.due is None:
            return self._carry_out(group, ruling, now)
        self._waiting.postpone(group, ruling.due)
        return []

    def take_back(self, group: Group, now: float) -> None:
        """Queue a group again whose request was interrupted: nobody is to blame."""
        self._waiting.answer(group)
        if group.throttled:
            self._waiting.postpone(group, now)
        else:
            self._waiting.dissolve(group, now)

    def _carry_out(self, group: Group, ruling: Ruling, now: float) -> list[Settlement]:
        waiting, settled = self._waiting, ruling.settled
        if ruling.slowed:
            due = now + self._config.retry_throttled_interval
            waiting.hold(group, ruling.slowed, due)
        if ruling.refused and not self._durable:
            # Everything that waits meets the same refusal; in flight are only others.
            rest = waiting.clear().all()
            settled = [*settled, *self._rulings.refuse_all(rest)]
        elif ruling.due is not None:
            waiting.postpone(group, ruling.due)
        if group.life is Life.READY:
            waiting.go_on(group, ruling, now)
        self._look_at_health(now)
        return self._closed(settled)

    def _look_at_health(self, now: float) -> None:
        health = self.health
        if health.state is Health.HEALTHY:
            self._waiting.forget_probes()
        elif health.probes and not self._waiting.last_call:
            # In a last call nothing is probed: pieces stay pieces, or halving a batch
            # would never end.
            self._waiting.dissolve_all(now)

    def collect(self) -> list[Settlement]:
        """Hand over the events that ended without an answer: expired or shed."""
        return self._closed(self._waiting.collect())

    def _closed(self, settlements: list[Settlement]) -> list[Settlement]:
        self._attempts.forget(settlements)
        return settlements

    # What is left to the storage ---------------------------------------------

    def passes_over(self, record: Record) -> bool:
        """Say whether a record that was read is left where it lies."""
        return self._waiting.passes_over(record)

    def collect_left(self) -> list[Record]:
        """Hand over the events of throttled identities that go back to the storage."""
        return self._waiting.collect_left()

    def shed(self, record: Record) -> None:
        """Give an event up that cannot go back."""
        self._waiting.shed(record)

    def give_way(self, group: Group, keeps: Callable[[int], bool]) -> None:
        """Let a lane that was throttled again leave room for others.

        Args:
            group: the one that was answered.
            keeps: says of an event whether it can go back to the storage.
        """
        self._waiting.give_way(group, keeps)

    @property
    def wants_more(self) -> bool:
        """True where a throttled identity can go on with what went back."""
        return self._waiting.wants_more

    def wanted(self) -> tuple[dict[str, int], int]:
        """Say how many events of which identities may come, and their bytes."""
        spare = self._waiting.spare
        return self._waiting.wanted(), sys.maxsize if spare == math.inf else int(spare)

    def bring_back(self, records: Sequence[Record], now: float) -> None:
        """Take in what went back to the storage, in order of acceptance."""
        self._waiting.bring_back(records, now)

    def catch_up(self, is_behind: Callable[[str], bool]) -> None:
        """Note of which identities the storage has no more."""
        for identity in self._waiting.behind:
            if not is_behind(identity):
                self._waiting.catch_up(identity)

    # Removing, shutting down -------------------------------------------------

    def purge(self, choose: Choose | None = None) -> Endings:
        """Give up the chosen events that are not in flight; without a choice all."""
        reason, message = DropReason.PURGED, "purged by the client"
        waiting = self._waiting
        records = waiting.clear() if choose is None else waiting.remove(choose)
        return self._rulings.drop_all(records, reason, message)

    def recall(self, choose: Choose) -> list[Record]:
        """Take the chosen events out that are not in flight: others send them."""
        records = self._waiting.remove(choose).all()
        if self._attempts:
            self._attempts.forget_records(records)
        return records

    def share(self, part: float, now: float) -> None:
        """Keep to a part of the configured rate."""
        self._bucket.share(part, now)

    def evict_oldest(self) -> list[Settlement]:
        """Give up the oldest waiting event, to make room for a newer one.

        Returns:
            Its settlement; nothing where all events are in flight.
        """
        record = self._waiting.pop_eldest()
        if record is None:
            return []
        message = "shed to make room for a newer event"
        outcome = self._rulings.drop(record, DropReason.OVERFLOW, message)
        return self._closed([(record, outcome)])

    def last_call(self, now: float) -> bool:
        """Let everything that waits go once more, whatever holds it back.

        Returns:
            False where nothing waits or the server refuses us anyway.
        """
        if self.health.state is Health.REFUSED:
            return False
        return self._waiting.call_last(now)

    def remove_all(self) -> list[Record]:
        """Take out everything that is undecided and not in flight."""
        return self._waiting.remove_all()
