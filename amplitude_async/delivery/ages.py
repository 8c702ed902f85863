"""How old is an event: counted on a clock that does not jump within a process."""

from bisect import bisect_right
from collections.abc import Sequence

from amplitude_async.delivery.clock import Clock
from amplitude_async.storage.base import Record

__all__ = ["Ages"]

# Smaller differences between the clocks are corrections, not jumps.
SMALLEST_JUMP = 1.0
# An event that waited less for a disk is as old as it says.
SMALLEST_WAIT = 0.1


class Ages:
    """Wall time as this process began to see it, whatever is done to the wall clock.

    An event carries the wall clock's reading at its acceptance. Jumps of that clock are
    noted with the id that is given next, so that an event's reading can be put right:
    ids are given in order of time. An event of another process gets its id when it is
    taken over, and its age is what the wall clock says at that moment.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = self._gap = clock.wall() - clock.now()
        self._ids: list[int] = []
        self._jumps: list[float] = []
        self._adopted: tuple[float, float] | None = None

    def now(self) -> float:
        """Seconds that only ever grow."""
        return self._clock.now()

    def wall(self) -> float:
        """Seconds since the epoch that only ever grow."""
        return self._clock.now() + self._epoch

    def notice(
        self, next_id: int, fresh: Sequence[Record] = (), since: float = 0.0
    ) -> None:
        """See whether the wall clock has jumped since the last look.

        Args:
            next_id: the id that is given next.
            fresh: what was accepted since the last look, in order.
            since: when the first of that was accepted, on the clock that only grows.
        """
        gap = self._clock.wall() - self._clock.now()
        if -SMALLEST_JUMP < gap - self._gap < SMALLEST_JUMP:
            return
        known, jump = self._gap - self._epoch, gap - self._epoch
        # It jumped somewhere between these: before the first one that would be
        # impossible otherwise.
        earliest, latest = since + self._epoch, self.wall()
        for record in fresh:
            moment = record.accepted_at - known
            if not earliest - SMALLEST_JUMP < moment < latest + SMALLEST_JUMP:
                next_id = record.id
                break
        self._gap = gap
        self._ids.append(next_id)
        self._jumps.append(jump)

    def put_right(self, records: Sequence[Record]) -> Sequence[Record]:
        """Take jumps of the wall clock out of the times of acceptance."""
        if not self._jumps:
            return records
        return [
            r._replace(accepted_at=r.accepted_at - self._jump_at(r.id)) for r in records
        ]

    def put_right_fresh(
        self, records: Sequence[Record], since: float
    ) -> Sequence[Record]:
        """Take jumps out of the times of events that were all accepted since then.

        The clock may have jumped there and back between two looks. What it says can
        be no truer than that: no event of these is older, and none is of tomorrow.
        """
        right = self.put_right(records)
        earliest = since + self._epoch - SMALLEST_JUMP
        latest = self.wall() + SMALLEST_JUMP
        times = [record.accepted_at for record in right]
        if earliest <= min(times) and max(times) <= latest:
            return right
        return [
            r._replace(accepted_at=min(max(r.accepted_at, earliest), latest))
            for r in right
        ]

    def restamp(self, record: Record) -> Record:
        """Date an event that had to wait at its acceptance, which is now.

        It gets its id now, and the wall clock may have jumped while it waited.
        """
        return record._replace(accepted_at=self._clock.wall())

    def redate(self, record: Record) -> Record:
        """Date an event that had to wait, and keeps its id, at its acceptance."""
        accepted_at = self.wall() + self._jump_at(record.id)
        if abs(accepted_at - record.accepted_at) < SMALLEST_WAIT:
            return record
        return record._replace(accepted_at=accepted_at)

    def adopt(self) -> None:
        """Note that events of another process were taken over just now."""
        now = self._clock.now()
        self._adopted = now, self._clock.wall() - now

    def of_adopted(self, accepted_at: float | None) -> float:
        """Say how old an event of another process is, by when it says it was accepted.

        The wall clock counts as it went when it was taken over, the last of several.
        Where nobody knows its time, it is as old as that at least.
        """
        now = self._clock.now()
        adopted_at, epoch = self._adopted or (now, self._epoch)
        if accepted_at is None:
            return now - adopted_at
        return max(now + epoch - accepted_at, 0.0)

    def _jump_at(self, record_id: int) -> float:
        index = bisect_right(self._ids, record_id)
        return self._jumps[index - 1] if index else 0.0

    def __repr__(self) -> str:
        return f"<Ages {len(self._jumps)} jumps>"
