"""What an answer means for the events of its request: a verdict becomes a ruling. Pure.

A verdict is the server's word about a request, a ruling is what follows from it for
each event. The group at hand is ruled here; what concerns others (a hold, a refusal of
all) is left to the schedule, which knows them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.deciding.batcher import ByteTarget, Leaving
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.health import Condition
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Sort,
    Verdict,
)
from amplitude_async.delivery.outcome import (
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.storage.base import Record

__all__ = ["Endings", "Ruling", "Rulings"]

MAX_ROUNDS = 3
MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is to be done after an answer; what goes again is back in its group."""

    settled: list[Settlement] = field(default_factory=list)
    """Events whose fate is decided."""
    due: float | None = None
    """When the group goes on; None: at once, or never where nothing is left of it."""
    slowed: list[str] = field(default_factory=list)
    """Identities that the server throttles from now on."""
    refused: bool = False
    """The server refuses us: what waits elsewhere meets the same."""
    charged: bool = False
    """Some event may be at fault: others go before these go again, in small company."""
    first: bool = False
    """Nobody is at fault: the same events go again, before all others."""


class Endings:
    """Events that are given up for one reason; each is settled as it is taken out.

    So as many as there are may be given up at once and written down in shares. Events
    that were tried as often share one outcome: what is counted once costs once.

    Args:
        end: makes the outcome of an event that was tried so often.
    """

    def __init__(
        self,
        records: Leaving,
        attempts: Attempts,
        end: Callable[[int], Outcome],
    ) -> None:
        self._records = records
        self._attempts = attempts
        self._end = end

    def __len__(self) -> int:
        """Count those that are left."""
        return len(self._records)

    def __iter__(self) -> Iterator[Settlement]:
        """Take out one after the other; the past of each is forgotten."""
        attempts = self._attempts
        ends: dict[int, Outcome] = {}
        for record in self._records:
            tries = attempts.failures(record) if attempts else 0
            if tries not in ends:
                ends[tries] = self._end(tries)
            settlement = (record, ends[tries])
            if tries:
                attempts.forget((settlement,))
            yield settlement

    def __repr__(self) -> str:
        return f"<Endings {len(self)} left>"


class Rulings:
    """Judges answers; health, failures and sizes learn from each."""

    def __init__(
        self,
        config: DeliveryConfig,
        health: Condition,
        attempts: Attempts,
        target: ByteTarget,
        *,
        max_events: int,
        durable: bool,
    ) -> None:
        self._config = config
        self._durable = durable
        # Who sets a number of retries means it, as in the official SDKs.
        self._counts_all = "flush_max_retries" in config.model_fields_set
        self._health = health
        self._attempts = attempts
        self._target = target
        self._max_events = max_events
        self.retries = 0
        """Requests that failed and whose events were sent again."""

    def rule(
        self, group: Group, piece: list[Record], verdict: Verdict, now: float
    ) -> Ruling:
        """Say what a verdict means for the piece that was with the server."""
        match verdict:
            case Accept():
                return self._accepted(group, piece, verdict, now)
            case Busy():
                return self._busy(group, piece, verdict, now)
            case Broken():
                return self._broken(group, piece, verdict, now)
            case Halve() | Bisect():
                return self._divided(group, piece, verdict, now)
            case Sort():
                return self._sorted(group, piece, verdict, now)
            case Refuse():
                return self._refused(group, piece, verdict, now)

    def _accepted(
        self, group: Group, piece: list[Record], verdict: Accept, now: float
    ) -> Ruling:
        self._health.succeeded(now, group.sent_at)
        group.name_none()
        group.widen(self._max_events)
        self._target.grow()
        status, code, message = verdict.status, verdict.code, verdict.message
        if not self._attempts:
            # One outcome for the whole batch: what is counted once costs once.
            outcome = Outcome(status, code, message, None, 1)
            return Ruling([(record, outcome) for record in piece])
        return Ruling(
            [
                (record, Outcome(status, code, message, None, self.tries(record)))
                for record in piece
            ]
        )

    def tries(self, record: Record) -> int:
        """Count the requests of an event, the one at hand included."""
        return self._attempts.failures(record) + 1

    def drop(
        self, record: Record, reason: DropReason, message: str, code: int = 0
    ) -> Outcome:
        """Build the end of an event that is given up."""
        return Outcome.dropped(reason, message, code, self._attempts.failures(record))

    def _busy(
        self, group: Group, piece: list[Record], verdict: Busy, now: float
    ) -> Ruling:
        """The destination takes nothing just now: nobody is charged, nothing is cut."""
        self._health.slowed(now, group.sent_at, broken=False)
        if verdict.throttled:
            self._health.hold(now + self._config.retry_throttled_interval)
        elif verdict.wait is not None:
            self._health.hold(now + verdict.wait)
        for record in piece:
            self._attempts.fail(record, self._health.taken, broken=False)
        return self._again(group, piece, verdict)

    def _broken(
        self, group: Group, piece: list[Record], verdict: Broken, now: float
    ) -> Ruling:
        """The request came to nothing: the server's fault, until there is proof."""
        charged = False
        for record in piece:
            charged |= self._attempts.fail(record, self._health.taken, broken=True)
        # What may be an event's fault is no reason to slow down for all the others.
        if not charged:
            self._health.slowed(now, group.sent_at, broken=True)
        return self._again(group, piece, verdict, charged=charged)

    def _again(
        self,
        group: Group,
        piece: list[Record],
        verdict: Busy | Broken,
        *,
        charged: bool = False,
    ) -> Ruling:
        """Let events go again, except those that have failed too often."""
        most = self._config.flush_max_retries
        count = self._attempts.failures if self._counts_all else self._attempts.charges
        settled: list[Settlement] = []
        survivors: list[Record] = []
        for record in piece:
            if count(record) <= most:
                survivors.append(record)
                continue
            failures = self._attempts.failures(record)
            message = f"given up after {failures} failed requests: {verdict.message}"
            outcome = self.drop(record, DropReason.RETRIES, message, verdict.code)
            settled.append((record, outcome))
        if survivors:
            self.retries += 1
            group.put_back(survivors)
        return Ruling(settled, charged=charged, first=not charged)

    def _divided(
        self, group: Group, piece: list[Record], verdict: Halve | Bisect, now: float
    ) -> Ruling:
        self._health.fruitless(now)
        if len(piece) == 1:
            return Ruling([(piece[0], self._rejected(piece[0], verdict))])
        group.put_back_halves(piece)
        group.name_none()
        if isinstance(verdict, Halve):
            self._target.shrink(piece)
        return Ruling()

    def _rejected(self, record: Record, verdict: Halve | Bisect) -> Outcome:
        return Outcome.rejected(verdict.message, verdict.code, self.tries(record))

    def _sorted(
        self, group: Group, piece: list[Record], verdict: Sort, now: float
    ) -> Ruling:
        named = range(len(piece))
        rejected = {i: text for i, text in verdict.rejected.items() if i in named}
        settled = [
            (piece[i], Outcome.rejected(text, verdict.code, self.tries(piece[i])))
            for i, text in sorted(rejected.items())
        ]
        slowed = {piece[i].identity for i in verdict.throttled if i in named}
        rest = [record for i, record in enumerate(piece) if i not in rejected]
        if group.throttled and slowed:
            group.put_back(rest)
            group.narrow()
            hold = now + self._config.retry_throttled_interval
            return Ruling(settled, due=hold if group.pieces else None)
        rounds = group.name_some()
        if rejected and rounds >= MAX_ROUNDS and not slowed:
            # The API may name one event at a time: finding the others by halves
            # bounds the requests.
            group.put_back_halves(rest)
            group.name_none()
        else:
            group.put_back(rest)
        return Ruling(settled, slowed=sorted(slowed))

    def crash(self, group: Group, now: float) -> Ruling:
        """Say what follows where sending died of a fault of ours; give up at three."""
        crashes = group.crash()
        if crashes < MAX_CRASHES:
            return Ruling(due=now + self._health.backoff(crashes))
        message = "sending this batch failed three times with an internal error"
        reason = DropReason.INTERNAL
        records = group.take_piece()
        return Ruling([(r, self.drop(r, reason, message)) for r in records])

    def _refused(
        self, group: Group, piece: list[Record], verdict: Refuse, now: float
    ) -> Ruling:
        self._health.refused(now, verdict.code, verdict.message)
        if self._durable:
            # A refusal never consumes a spool.
            group.put_back(piece)
            return Ruling(due=now, refused=True)
        message, code = verdict.message, verdict.code
        return Ruling(
            [(r, Outcome.refusal(message, code, self.tries(r))) for r in piece],
            refused=True,
        )

    def drop_all(self, records: Leaving, reason: DropReason, message: str) -> Endings:
        """Settle events that are given up for one reason."""
        return Endings(
            records,
            self._attempts,
            lambda tries: Outcome.dropped(reason, message, 0, tries),
        )

    def refuse_all(self, records: list[Record]) -> list[Settlement]:
        """Reject events that wait, by the word of a server that refuses us."""
        message, code = self._health.refusal_message, self._health.refusal_code

        def end(tries: int) -> Outcome:
            return Outcome.refusal(message, code, tries)

        if not self._attempts:
            outcome = end(0)
            return [(record, outcome) for record in records]
        return list(Endings(Leaving(records), self._attempts, end))

    def __repr__(self) -> str:
        return f"<Rulings {self._health.state}, {self._attempts!r}>"
