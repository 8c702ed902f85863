"""When may an event go, and what does an answer mean for it. Pure.

Nothing here awaits: time comes in as a parameter, and what is to be done goes out as
groups to send and settlements to write down.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.batcher import Batcher, Group
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Halve,
    Pause,
    Refuse,
    Retry,
    Sort,
    Verdict,
)
from amplitude_async.delivery.health import Health, HealthState, TokenBucket
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.storage.base import Record

__all__ = ["Schedule", "Settlement"]

Settlement = tuple[Record, Outcome]

PROBATION_WINDOW = 30
FIRST_LINGER = 0.1
MAX_ROUNDS = 3
MAX_CRASHES = 3
MIN_BYTE_TARGET = 16 * 1024
BYTE_TARGET_GROWTH = 1.02


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
        self._max_bytes = max_bytes
        self._byte_target = float(max_bytes)
        self._max_age = max_age
        self._durable = durable
        self._bucket = TokenBucket(config.max_events_per_second)
        self._attempts: dict[int, int] = {}
        self._batcher = Batcher(self._max_events)
        self._batcher.watch(self._attempts)
        self._resume: deque[Group] = deque()
        self._timetable: list[tuple[float, int, Group]] = []
        self._tickets = itertools.count()
        self._casualties: list[Settlement] = []
        self._linger: float | None = None
        self._first_batch = True
        self._last_call = False
        self._spent: list[Record] = []
        self.health = Health.seeded(config, rng)
        self.in_flight = 0
        """Requests under way."""
        self.size = 0
        """Undecided events, those in flight included."""
        self.held = 0
        """Events in the lanes of throttled identities."""
        self.retries = 0

    # Intake ------------------------------------------------------------------

    def add(self, records: Sequence[Record], since: float) -> None:
        """Queue events; the linger began when the first of them was accepted."""
        if not len(self._batcher):
            self._linger = None  # it belonged to events that are gone
        self._batcher.add(records)
        self.size += len(records)
        self._start_linger(since)

    def hasten(self, when: float) -> None:
        """Let the linger end at a given time, unless it ends earlier anyway."""
        if self._linger is not None:
            self._linger = min(self._linger, when)

    @property
    def waiting(self) -> int:
        """Events in the queue: not in flight, not backing off, not held."""
        return len(self._batcher)

    def linger_for(self) -> float:
        """Seconds that a first waiting event waits for company."""
        interval = self._config.flush_interval
        return min(FIRST_LINGER, interval) if self._first_batch else interval

    def _start_linger(self, since: float) -> None:
        if self._linger is None and len(self._batcher):
            self._linger = since + self.linger_for()

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
        if self._last_call:
            if self._bucket.next_at(now) > now:
                return None
            return self._next_due(now, wall) or self._take(now, self._max_events)
        if now < self.health.not_before:
            return None
        if self.health.state is not HealthState.HEALTHY:
            return self._probe(now, wall) if not self.in_flight else None
        if self._bucket.next_at(now) > now:
            return None
        return self._next_due(now, wall) or self._next_batch(now, slots, eager=eager)

    def _next_due(self, now: float, wall: float) -> Group | None:
        while self._timetable and self._timetable[0][0] <= now:
            self._resume.append(self._pop_due())
        while self._resume:
            group = self._resume.popleft()
            if self._freshen(group, wall):
                return self._start(group, now)
        return None

    def _pop_due(self) -> Group:
        group = heapq.heappop(self._timetable)[2]
        group.due = None
        return group

    def _next_batch(self, now: float, slots: int, *, eager: bool) -> Group | None:
        waiting = len(self._batcher)
        config = self._config
        due = eager or waiting >= config.flush_queue_size
        if not due and (self._linger is None or now < self._linger):
            return None
        size = max(math.ceil(waiting / slots), config.flush_queue_size)
        return self._take(now, min(size, self._max_events))

    def _take(self, now: float, size: int) -> Group | None:
        size = int(min(size, max(1, self._bucket.available(now))))
        group = self._batcher.take(size, int(self._byte_target), self._park)
        if not len(self._batcher):
            self._linger = None
        if group is None:
            return None
        self._first_batch = False
        return self._start(group, now)

    def _probe(self, now: float, wall: float) -> Group | None:
        group = self._batcher.take_head()
        if group is None:
            # All that waits in the queue belongs to throttled identities: park it.
            self._batcher.take(len(self._batcher), self._max_bytes, self._park)
        if not len(self._batcher):
            self._linger = None
        if group is not None:
            return self._start(group, now)
        while self._timetable and self._timetable[0][0] <= now:
            lane = self._pop_due()
            if self._freshen(lane, wall):
                self._cut(lane, 1, self._max_bytes)
                return self._start(lane, now)
        return None

    def _start(self, group: Group, now: float) -> Group:
        limit = group.window or self._max_events
        if self._attempts and not self._last_call:
            limit = min(limit, *map(self._batcher.size_limit, group.pieces[-1]))
        limit = int(max(1, min(limit, self._bucket.available(now))))
        self._cut(group, limit, self._max_bytes)
        group.in_flight = True
        self.in_flight += 1
        self._bucket.spend(len(group.pieces[-1]))
        return group

    def _cut(self, group: Group, limit: int, max_bytes: int) -> None:
        """Shorten the piece that goes next to so many events and bytes."""
        piece = group.pieces[-1]
        total = 0
        for index, record in enumerate(piece):
            total += len(record.body) + 1
            if index >= limit or (total > max_bytes and index):
                group.pieces[-1:] = [piece[index:], piece[:index]]
                return

    def _freshen(self, group: Group, wall: float) -> bool:
        """Drop the expired events of a group; False where nothing is left of it."""
        if group.throttled:
            for run in group.parked.values():
                group.pieces.insert(0, run)
            group.parked = {}
        horizon = wall - self._max_age
        for index, piece in enumerate(group.pieces):
            stale = [r for r in piece if r.accepted_at <= horizon]
            if stale:
                group.pieces[index] = [r for r in piece if r.accepted_at > horizon]
                self.held -= len(stale) if group.throttled else 0
                self._casualties += map(self._expired, stale)
        group.pieces = [piece for piece in group.pieces if piece]
        if not group.pieces:
            self._release(group)
            self._expire(wall)
        return bool(group.pieces)

    # Ages, casualties, wake-ups ----------------------------------------------

    def _expire(self, wall: float) -> None:
        horizon = wall - self._max_age
        oldest = self._batcher.oldest
        while oldest is not None and oldest.accepted_at <= horizon:
            self._batcher.pop_oldest()
            self._casualties.append(self._expired(oldest))
            oldest = self._batcher.oldest

    def _expired(self, record: Record) -> Settlement:
        message = f"not delivered within max_event_age={self._max_age:g} s"
        return record, self._drop(record, DropReason.EXPIRED, message)

    def _drop(
        self, record: Record, reason: DropReason, message: str, code: int = 0
    ) -> Outcome:
        attempts = self._attempts.get(record.id, 0)
        return Outcome.dropped(reason, message, code, attempts)

    def _park(self, owner: Group, record: Record) -> None:
        if owner.throttled:
            if self.held >= self._most_held:
                self._casualties.append(self._shed(record))
                return
            self.held += 1
        self._batcher.park(owner, record)

    @property
    def _most_held(self) -> int:
        return max(1, self._config.max_storage_capacity // 2)

    def _shed(self, record: Record) -> Settlement:
        message = (
            "events of throttled identities fill half of max_storage_capacity="
            f"{self._config.max_storage_capacity}"
        )
        return record, self._drop(record, DropReason.OVERFLOW, message)

    def collect(self) -> list[Settlement]:
        """Hand over the events that ended without an answer: expired or shed."""
        casualties, self._casualties = self._casualties, []
        return self._closed(casualties)

    def _closed(self, settlements: list[Settlement]) -> list[Settlement]:
        self.size -= len(settlements)
        if self._attempts:
            for record, _ in settlements:
                self._attempts.pop(record.id, None)
        return settlements

    def next_request_at(self, now: float, *, eager: bool = False) -> float | None:
        """Say when a request may go at the earliest; None where nothing waits."""
        times: list[float] = []
        unwell = self.health.state is not HealthState.HEALTHY and not self._last_call
        if unwell and self.in_flight:
            return None
        if self._resume:
            times.append(now)
        if self._timetable:
            times.append(self._timetable[0][0])
        if len(self._batcher):
            full = len(self._batcher) >= self._config.flush_queue_size
            linger = now if self._linger is None else self._linger
            hurried = eager or full or unwell or self._last_call
            times.append(now if hurried else linger)
        if not times:
            return None
        well_at = now if self._last_call else self.health.not_before
        return max(min(times), well_at, self._bucket.next_at(now))

    def next_wake_at(
        self, now: float, wall: float, *, eager: bool = False
    ) -> float | None:
        """Say when to look again: for a request or for an event that expires."""
        times = [t for t in (self.next_request_at(now, eager=eager),) if t is not None]
        oldest = self._batcher.oldest
        if oldest is not None:
            times.append(now + oldest.accepted_at + self._max_age - wall)
        return min(times, default=None)

    # What an answer means ----------------------------------------------------

    def apply(self, group: Group, verdict: Verdict, now: float) -> list[Settlement]:
        """Carry out a verdict on the piece in flight.

        Returns:
            The events it decides; all others wait again, where they belong.
        """
        self.in_flight -= 1
        group.in_flight = False
        group.crashes = 0
        piece = group.pieces.pop()
        before = len(piece)
        match verdict:
            case Accept():
                done = self._accepted(group, piece, verdict)
            case Retry():
                done = self._failed(group, piece, verdict, now)
            case Pause():
                done = self._paused(group, piece, verdict, now)
            case Halve() | Bisect():
                done = self._divided(group, piece, verdict, now)
            case Sort():
                done = self._sorted(group, piece, verdict, now)
            case Refuse():
                done = self._refused(group, piece, verdict, now)
        if group.throttled and not isinstance(verdict, Refuse):
            self.held -= min(len(done), before)
        self._go_on(group, now)
        return self._closed(done)

    def crashed(self, group: Group, now: float) -> list[Settlement]:
        """Take back a group whose sender died of a fault of ours; give up at three."""
        self.in_flight -= 1
        group.in_flight = False
        group.crashes += 1
        done: list[Settlement] = []
        if group.crashes >= MAX_CRASHES:
            message = "sending this batch failed three times with an internal error"
            reason = DropReason.INTERNAL
            done = [(r, self._drop(r, reason, message)) for r in group.pieces.pop()]
            self.held -= len(done) if group.throttled else 0
            self._go_on(group, now)
        else:
            self._postpone(group, now + self.health.backoff(group.crashes))
        return self._closed(done)

    def take_back(self, group: Group, now: float) -> None:
        """Queue a group again whose request was interrupted: nobody is to blame."""
        self.in_flight -= 1
        group.in_flight = False
        if group.throttled:
            self._postpone(group, now)
        else:
            self._batcher.dissolve(group)
            self._linger = now

    def _accepted(
        self, group: Group, piece: list[Record], verdict: Accept
    ) -> list[Settlement]:
        self.health.succeeded()
        group.rounds = 0
        if group.window is not None:
            group.window = min(group.window * 2, self._max_events)
        grown = self._byte_target * BYTE_TARGET_GROWTH
        self._byte_target = min(grown, self._max_bytes)
        status, code, message = DeliveryStatus.DELIVERED, verdict.code, verdict.message
        if not self._attempts:
            outcome = Outcome(status, code, message, None, 1)
            return [(record, outcome) for record in piece]
        return [
            (record, Outcome(status, code, message, None, self._tries(record)))
            for record in piece
        ]

    def _tries(self, record: Record) -> int:
        return self._attempts.get(record.id, 0) + 1

    def _failed(
        self, group: Group, piece: list[Record], verdict: Retry, now: float
    ) -> list[Settlement]:
        self.health.failed(now, verdict.wait)
        done: list[Settlement] = []
        survivors: list[Record] = []
        limit = self._config.flush_max_retries
        most = 0
        for record in piece:
            tries = self._attempts[record.id] = self._tries(record)
            most = max(most, tries)
            if tries > limit:
                message = f"given up after {tries} failed requests: {verdict.message}"
                outcome = self._drop(record, DropReason.RETRIES, message, verdict.code)
                done.append((record, outcome))
            else:
                survivors.append(record)
        if survivors:
            self.retries += 1
            group.pieces.append(survivors)
            self._postpone(group, now + self.health.backoff(most))
        return done

    def _paused(
        self, group: Group, piece: list[Record], verdict: Pause, now: float
    ) -> list[Settlement]:
        self.health.paused(now, verdict.wait)
        group.pieces.append(piece)
        self._postpone(group, self.health.not_before)
        return []

    def _divided(
        self, group: Group, piece: list[Record], verdict: Halve | Bisect, now: float
    ) -> list[Settlement]:
        self.health.fruitless(now)
        if len(piece) == 1:
            record = piece[0]
            outcome = Outcome.rejected(
                verdict.message, verdict.code, self._tries(record)
            )
            return [(record, outcome)]
        middle = (len(piece) + 1) // 2
        group.pieces += [piece[middle:], piece[:middle]]
        group.rounds = 0
        if isinstance(verdict, Halve):
            half = sum(len(record.body) + 1 for record in piece) / 2
            self._byte_target = max(min(self._byte_target, half), MIN_BYTE_TARGET)
        return []

    def _sorted(
        self, group: Group, piece: list[Record], verdict: Sort, now: float
    ) -> list[Settlement]:
        rejected = {i: m for i, m in verdict.rejected.items() if 0 <= i < len(piece)}
        done: list[Settlement] = [
            (piece[i], Outcome.rejected(text, verdict.code, self._tries(piece[i])))
            for i, text in sorted(rejected.items())
        ]
        slowed = {piece[i].identity for i in verdict.throttled if 0 <= i < len(piece)}
        rest = [record for i, record in enumerate(piece) if i not in rejected]
        if rest:
            group.pieces.append(rest)
        if group.throttled and slowed:
            group.window = max(1, (group.window or 1) // 2)
            if group.pieces:
                self._postpone(group, now + self._config.retry_throttled_interval)
            return done
        for identity in sorted(slowed):
            self._hold(group, identity, now)
        group.rounds += 1
        if rejected and group.rounds >= MAX_ROUNDS and rest and not slowed:
            # The API may name one event at a time: finding the others by halves
            # bounds the requests.
            piece = group.pieces.pop()
            middle = (len(piece) + 1) // 2
            group.pieces += [half for half in (piece[middle:], piece[:middle]) if half]
            group.rounds = 0
        return done

    def _hold(self, group: Group, identity: str, now: float) -> None:
        """Move one identity to a lane of its own and leave it alone for a while."""
        records = self._batcher.extract(group, identity)
        if not records:
            return
        room = max(0, self._most_held - self.held)
        kept, shed = records[:room], records[room:]
        self._casualties += map(self._shed, shed)
        lane = Group([kept] if kept else [], PROBATION_WINDOW)
        self._batcher.own(lane, identity)
        self.held += len(kept)
        self._postpone(lane, now + self._config.retry_throttled_interval)

    def _refused(
        self, group: Group, piece: list[Record], verdict: Refuse, now: float
    ) -> list[Settlement]:
        self.health.refused(now, verdict.code, verdict.message)
        group.pieces.append(piece)
        if self._durable:
            self._postpone(group, now)
            return []
        # Everything that waits meets the same refusal; in flight are only others.
        return self._reject_waiting(verdict)

    def _reject_waiting(self, verdict: Refuse) -> list[Settlement]:
        records = self._batcher.remove(_everything)
        self._forget_empty_groups()
        return [
            (
                r,
                Outcome.rejected(
                    verdict.message, verdict.code, self._attempts.get(r.id, 0)
                ),
            )
            for r in records
        ]

    def _postpone(self, group: Group, due: float) -> None:
        if self._last_call:
            # It has had its last request: what is left of it goes nowhere.
            left = list(group.waiting())
            self._spent += left
            self.held -= len(left) if group.throttled else 0
            group.pieces, group.parked = [], {}
            return
        group.due = due
        heapq.heappush(self._timetable, (due, next(self._tickets), group))

    def _go_on(self, group: Group, now: float) -> None:
        """Send a group's next piece, let it wait, or free its identities."""
        if not _goes_on(group):
            self._release(group)
        elif group.due is None:
            self._resume.append(group)
        # In a last call nothing is probed: pieces stay pieces, or halving a batch
        # would never end.
        if self.health.state is not HealthState.HEALTHY and not self._last_call:
            self._dissolve_all(now)

    def _release(self, group: Group) -> None:
        """Free a group's identities; what was parked there was due at that time."""
        if self._batcher.release(group):
            self._linger = -math.inf

    def _dissolve_all(self, now: float) -> None:
        """While the destination is unwell events queue, so that probes find a head."""
        keep = [entry for entry in self._timetable if entry[2].throttled]
        for _, _, group in self._timetable:
            if not group.throttled:
                self._batcher.dissolve(group)
        for group in self._resume:
            if group.throttled:
                group.due = now
                keep.append((now, next(self._tickets), group))
            else:
                self._batcher.dissolve(group)
        self._resume.clear()
        heapq.heapify(keep)
        self._timetable = keep
        if len(self._batcher):
            self._linger = now

    def _forget_empty_groups(self) -> None:
        for group in self._batcher.groups():
            group.pieces = [piece for piece in group.pieces if piece]
            if not _goes_on(group):
                self._release(group)
        waiting = [entry for entry in self._timetable if _goes_on(entry[2])]
        heapq.heapify(waiting)
        self._timetable = waiting
        self._resume = deque(filter(_goes_on, self._resume))
        self._count_held()

    def _count_held(self) -> None:
        self.held = sum(
            len(run)
            for group in self._batcher.groups()
            if group.throttled
            for run in (*group.pieces, *group.parked.values())
        )

    # Removing, shutting down -------------------------------------------------

    def purge(self, chosen: Callable[[Record], bool]) -> list[Settlement]:
        """Give up the chosen events that are not in flight."""
        records = self._batcher.remove(chosen)
        self._forget_empty_groups()
        reason, message = DropReason.PURGED, "purged by the client"
        return self._closed([(r, self._drop(r, reason, message)) for r in records])

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
            self._batcher.remove(lambda r: r.id == oldest)
            self._forget_empty_groups()
        message = "shed to make room for a newer event"
        return self._closed(
            [(record, self._drop(record, DropReason.OVERFLOW, message))]
        )

    def last_call(self, now: float) -> bool:
        """Let everything that waits go once more, whatever holds it back.

        Returns:
            False where nothing waits or the server refuses us anyway.
        """
        if self.health.state is HealthState.REFUSED:
            return False
        for group in self._batcher.groups():
            if not group.in_flight:
                self._batcher.dissolve(group)
        self._timetable.clear()
        self._resume.clear()
        self._count_held()
        self._linger = now
        self._last_call = True
        return bool(len(self._batcher))

    def remove_all(self) -> list[Record]:
        """Take out everything that is undecided and not in flight."""
        records = self._spent + self._batcher.remove(_everything)
        self._spent = []
        self._forget_empty_groups()
        self.size -= len(records)
        return records


def _goes_on(group: Group) -> bool:
    """Say whether a group has more to send; a lane also sends what is parked at it."""
    return bool(group.pieces) or (group.throttled and any(group.parked.values()))


def _everything(_: Record) -> bool:
    return True
