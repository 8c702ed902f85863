"""When groups go on, and how long a first event waits for company. Pure."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator

from amplitude_async.delivery.deciding.group import Group, Life

__all__ = ["Linger", "Timetable"]

FIRST_LINGER = 0.1
# So many groups are woken at once, and others the next time somebody looks.
WAKING_SHARE = 500


class Linger:
    """How long waiting events wait for company before they go as they are."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._first = True
        self.until: float | None = None
        """When the wait ends; None while nothing waits."""

    @property
    def length(self) -> float:
        """Seconds that a first waiting event waits; short before the first batch."""
        return min(FIRST_LINGER, self._interval) if self._first else self._interval

    def begin(self, since: float) -> None:
        """Wait from a moment on, unless that goes on already."""
        if self.until is None:
            self.until = since + self.length

    def hasten(self, when: float) -> None:
        """End at a given time, unless it ends earlier anyway."""
        if self.until is not None:
            self.until = min(self.until, when)

    def end(self, now: float = -math.inf) -> None:
        """What waits has waited long enough."""
        self.until = now

    def stop(self) -> None:
        """Nothing waits any more."""
        self.until = None

    def over(self, now: float) -> bool:
        """Say whether what waits has waited long enough."""
        return self.until is not None and now >= self.until

    def first_batch_left(self) -> None:
        """A newcomer has seen its first batch: from now on the interval counts."""
        self._first = False


class Timetable:
    """Groups that can go on at once, those that rest, and how many are out."""

    def __init__(self) -> None:
        self._ready: deque[Group] = deque()
        self._resting: list[tuple[float, int, Group]] = []
        # Groups of one moment go on in the order in which they came to rest.
        self._tickets = itertools.count()
        self.out = 0
        """Groups of which a piece is with the server."""

    def send(self, group: Group, now: float) -> None:
        """Note that a group's next piece goes out."""
        group.send(now)
        self.out += 1

    def answer(self, group: Group) -> None:
        """Note that nothing of a group is out any more."""
        group.answer()
        self.out -= 1

    def resume(self, group: Group) -> None:
        """Let a group go on at once, behind the others that can."""
        self._ready.append(group)

    def resume_first(self, group: Group) -> None:
        """Let a group go on at once, before the others that can."""
        self._ready.appendleft(group)

    def rest(self, group: Group, due: float) -> None:
        """Let a group go on at a given time."""
        group.rest(due)
        heapq.heappush(self._resting, (due, next(self._tickets), group))

    def ring(self, now: float) -> None:
        """Let the groups go on whose time has come, or the first of them."""
        for _ in range(WAKING_SHARE):
            group = self.pop_due(now)
            if group is None:
                return
            self._ready.append(group)

    def pop_due(self, now: float) -> Group | None:
        """Take out a group whose time has come, the first to be due."""
        if not self._resting or self._resting[0][0] > now:
            return None
        group = heapq.heappop(self._resting)[2]
        group.wake()
        return group

    def pop_ready(self) -> Group | None:
        """Take out the next group that can go on at once."""
        return self._ready.popleft() if self._ready else None

    def next_at(self, now: float) -> float:
        """Say when a group goes on at the earliest; infinity where none waits."""
        if self._ready:
            return now
        return self._resting[0][0] if self._resting else math.inf

    def clear_all_but_lanes(self, now: float) -> Iterator[Group]:
        """Take out every group that is not the lane of a throttled identity."""
        resting = [entry[2] for entry in self._resting]
        self._resting = [entry for entry in self._resting if entry[2].throttled]
        heapq.heapify(self._resting)
        ready = list(self._ready)
        self._ready.clear()
        for group in (*resting, *ready):
            if not group.throttled:
                yield group
        for group in ready:
            if group.throttled:
                self.rest(group, now)

    def forget_ended(self) -> None:
        """Strike groups out that are over, or idle."""
        resting, ready = Life.RESTING, Life.READY
        self._resting = [e for e in self._resting if e[2].life is resting]
        heapq.heapify(self._resting)
        self._ready = deque(group for group in self._ready if group.life is ready)

    def clear(self) -> None:
        """Strike every group out."""
        self._resting.clear()
        self._ready.clear()

    def __repr__(self) -> str:
        return (
            f"<Timetable {self.out} out, {len(self._ready)} ready, "
            f"{len(self._resting)} resting>"
        )
