"""What an answer means for the events of its request: a verdict becomes a ruling. Pure.

A verdict is the server's word about a request, a ruling is what follows from it for
each event. The group at hand is ruled here; what concerns others (a hold, a refusal of
all) is left to the schedule, which knows them.
"""

from dataclasses import dataclass, field

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.deciding.batcher import ByteTarget
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.health import Health
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
from amplitude_async.delivery.outcome import (
    DeliveryStatus,
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.storage.base import Record

__all__ = ["Ruling", "Rulings"]

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


class Rulings:
    """Judges answers; health, failures and sizes learn from each."""

    def __init__(
        self,
        config: DeliveryConfig,
        health: Health,
        attempts: Attempts,
        target: ByteTarget,
        *,
        max_events: int,
    ) -> None:
        self._config = config
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
                return self._accepted(group, piece, verdict)
            case Retry():
                return self._failed(group, piece, verdict, now)
            case Pause():
                return self._paused(group, piece, verdict, now)
            case Halve() | Bisect():
                return self._divided(group, piece, verdict, now)
            case Sort():
                return self._sorted(group, piece, verdict, now)
            case Refuse():
                self._health.refused(now, verdict.code, verdict.message)
                group.put_back(piece)
                return Ruling(due=now, refused=True)

    def _accepted(self, group: Group, piece: list[Record], verdict: Accept) -> Ruling:
        self._health.succeeded()
        group.name_none()
        group.widen(self._max_events)
        self._target.grow()
        status, code, message = DeliveryStatus.DELIVERED, verdict.code, verdict.message
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
        return self._attempts.of(record) + 1

    def drop(
        self, record: Record, reason: DropReason, message: str, code: int = 0
    ) -> Outcome:
        """Build the end of an event that is given up."""
        return Outcome.dropped(reason, message, code, self._attempts.of(record))

    def _failed(
        self, group: Group, piece: list[Record], verdict: Retry, now: float
    ) -> Ruling:
        self._health.failed(now, verdict.wait)
        settled: list[Settlement] = []
        survivors: list[Record] = []
        most = 0
        for record in piece:
            tries = self._attempts.charge(record)
            most = max(most, tries)
            if tries > self._config.flush_max_retries:
                message = f"given up after {tries} failed requests: {verdict.message}"
                outcome = self.drop(record, DropReason.RETRIES, message, verdict.code)
                settled.append((record, outcome))
            else:
                survivors.append(record)
        if not survivors:
            return Ruling(settled)
        self.retries += 1
        group.put_back(survivors)
        return Ruling(settled, due=now + self._health.backoff(most))

    def _paused(
        self, group: Group, piece: list[Record], verdict: Pause, now: float
    ) -> Ruling:
        self._health.paused(now, verdict.wait)
        group.put_back(piece)
        return Ruling(due=self._health.not_before)

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

    def refuse(self, record: Record) -> Settlement:
        """Reject an event that waits, by the word of a server that refuses us."""
        message, code = self._health.refusal_message, self._health.refusal_code
        return record, Outcome.rejected(message, code, self._attempts.of(record))

    def __repr__(self) -> str:
        return f"<Rulings {self._health.state}, {self._attempts!r}>"
