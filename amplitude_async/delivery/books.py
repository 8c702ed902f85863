"""Writes every outcome down, once: account, handles, journal, waiters and callback."""

from collections.abc import Sequence

from amplitude_async.delivery.callbacks import CallbackRunner
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.endpoint import Endpoint
from amplitude_async.delivery.flushes import Flushes
from amplitude_async.delivery.handle import Delivery, Ledger, Principal
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.journal import Journal
from amplitude_async.delivery.observing import Observers
from amplitude_async.delivery.outcome import (
    GIVEN_UP,
    QUIET_REASONS,
    TAKEN,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    Outcome,
    Settlement,
)
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.room import Room
from amplitude_async.delivery.shares import Shares, SizedIterable
from amplitude_async.delivery.stats import Counters
from amplitude_async.redaction import without_values
from amplitude_async.storage.base import DeadLetter, Record

__all__ = ["Books"]


class Books:
    """The account of one destination and everybody who must hear of an outcome."""

    def __init__(
        self,
        endpoint: Endpoint,
        reporter: Reporter,
        journal: Journal,
        room: Room,
        *,
        principal: Principal,
        clock: Clock,
        callbacks: CallbackRunner | None,
        observers: Observers,
    ) -> None:
        self._observers = observers
        self._endpoint = endpoint
        self._reporter = reporter
        self._journal = journal
        self._principal = principal
        self._clock = clock
        self._room = room
        self._ledger = Ledger()
        self.counters = Counters()
        self.callbacks = callbacks
        self.flushes = Flushes(clock)
        """Those who wait for outcomes."""
        self._due = Shares(self.settle, f"{endpoint.name} settling")

    # Accepting ---------------------------------------------------------------

    def enter(self, record: Record) -> Delivery:
        """Account for an accepted event and make its handle."""
        self.counters.accepted += 1  # not by its verb: every event comes by here
        page = self._ledger.enter(record.id, self._clock.now())
        return Delivery(self._principal, record, page)

    def is_more(self, pending: int) -> bool:
        """Say whether so many undecided events are more than came in by a verb.

        Those of other processes are settled at some time: then nothing is counted.
        """
        recovered = self.counters.recovered - self._ledger.others
        return recovered > 0 and pending > self._ledger.undecided

    @property
    def oldest_age(self) -> float | None:
        """How long the oldest of them has waited; None where there is none."""
        return self._ledger.oldest_age(self._clock.now())

    @property
    def is_behind(self) -> bool:
        """True while a slow callback has results waiting in each of its places."""
        return self.callbacks is not None and self.callbacks.full

    async def wait_to_tell(self) -> None:
        """Wait until one more result has its place with the callback, not too long."""
        if self.callbacks is not None:
            await self.callbacks.room()

    def settle_record(
        self, record: Record, outcome: Outcome, *, must_tell: bool
    ) -> Delivery:
        """Accept an encoded event and settle it at once."""
        return self.settle_at_door(
            record, record.insert_id, outcome, must_tell=must_tell
        )

    async def settle_in_turn(self, record: Record, outcome: Outcome) -> Delivery:
        """Settle an event at once when its result has a place behind the callback."""
        await self.wait_to_tell()
        return self.settle_record(record, outcome, must_tell=True)

    def settle_at_door(
        self,
        source: object,
        insert_id: str,
        outcome: Outcome,
        *,
        must_tell: bool = False,
    ) -> Delivery:
        """Accept an event and settle it at once.

        Args:
            source: the event, or its record.
            insert_id: its deduplication key.
            outcome: its end.
            must_tell: the callback hears of it, however full its queue is; otherwise
                only where there is room.
        """
        self.counters.accept()
        self.counters.count(outcome)
        body = source.body if isinstance(source, Record) else source
        delivery = Delivery.settled(self._principal, body, insert_id, outcome)
        if INTERCEPTION.capturing:
            name = self._endpoint.name
            INTERCEPTION.tell(name, body, insert_id=insert_id, outcome=outcome)
        elif isinstance(source, Record) and self._journal.keeps_dead_letters:
            self._bury([(source, outcome)])
            self._journal.settle_soon([])
        if self._observers.hear_ends:
            self._observers.ended(source, outcome)
        if delivery.result is not None:
            self._hand_over(delivery.result, must_tell=must_tell)
        if outcome.status not in TAKEN:
            self._report(outcome, 1)
        return delivery

    # Settling ----------------------------------------------------------------

    def settle_in_shares(self, settlements: SizedIterable[Settlement]) -> None:
        """Write down what may be all that waits: the loop has its turns meanwhile.

        Until an event is written down it is pending, and keeps its place.
        """
        self._due.add(settlements)

    async def settled(self) -> None:
        """Wait until all that is being settled in shares is settled."""
        await self._due.done()

    def settle(self, settlements: list[Settlement], *, must_tell: bool = True) -> None:
        """Write outcomes down; the callback hears of them in any case, or if it can."""
        if not settlements:
            return
        settle = self._ledger.settle
        freed = 0
        tally: dict[Outcome, int] = {}
        last, run = settlements[0][1], 0
        for record, outcome in settlements:
            settle(record.id, outcome)
            freed += len(record.body)
            if outcome is not last:
                # Outcomes come in runs: a batch mostly shares one.
                tally[last] = tally.get(last, 0) + run
                last, run = outcome, 0
            run += 1
        tally[last] = tally.get(last, 0) + run
        self._room.free(len(settlements), freed)
        for outcome, count in tally.items():
            self.counters.count(outcome, count)
        if self.callbacks is not None:
            for record, outcome in settlements:
                result = self._result(record, outcome)
                self._hand_over(result, must_tell=must_tell)
        if self.flushes:
            self.flushes.settled([record.id for record, _ in settlements])
        if self._journal.keeps_dead_letters:
            self._bury(settlements)
        if self._journal.writes:
            self._journal.settle_soon(
                [r.id for r, outcome in settlements if not self._stays(outcome)]
            )
        if self._observers.hear_ends:
            self._observers.all_ended(settlements)
        # Last: a logging handler is user code, and may look at the account.
        self._report_all(tally)

    def _stays(self, outcome: Outcome) -> bool:
        """Say whether the storage keeps an event of this end: for the next process.

        A fault of ours is no reason to delete what somebody else may still send, unless
        it is kept among the dead letters.
        """
        if outcome.status is DeliveryStatus.STORED:
            return True
        internal = outcome.reason is DropReason.INTERNAL
        return internal and not self._journal.keeps_given_up

    def _bury(self, settlements: list[Settlement]) -> None:
        now, given_up = self._clock.wall(), self._journal.keeps_given_up
        letters = [
            DeadLetter(record, outcome.code, outcome.message, now)
            for record, outcome in settlements
            if outcome.status is DeliveryStatus.REJECTED
            or (given_up and outcome.reason in GIVEN_UP)
        ]
        if letters:
            self._journal.bury_soon(letters)

    def give_back(self, records: Sequence[Record], unread: int) -> None:
        """Account for events that another process is to deliver.

        Args:
            records: those that were in memory; they leave their places.
            unread: how many others there are.
        """
        self._room.free(len(records), sum([len(record.body) for record in records]))
        self.counters.give_back(len(records) + unread)
        if self.flushes:
            self.flushes.settled([record.id for record in records])

    def settle_handles(self, outcome: Outcome) -> None:
        """Tell the handles of all undecided events; nothing is counted."""
        self._ledger.settle_rest(outcome)

    def call_back(self, record: Record, outcome: Outcome) -> None:
        """Give the callback a result that is counted already."""
        self._hand_over(self._result(record, outcome), must_tell=True)

    def write_off(self, count: int, outcome: Outcome) -> None:
        """Count events that cannot even be named any more."""
        self.counters.count(outcome, count)
        self._report(outcome, count)

    def store_rest(self, count: int, outcome: Outcome) -> None:
        """Settle what is only in the storage, by number: its records stay there."""
        self.settle_handles(outcome)
        self.counters.count(outcome, count)

    def withdraw(self, record_id: int) -> None:
        """Let nobody wait for an event that was not accepted in the end."""
        self.flushes.settled((record_id,))

    def _result(self, record: Record, outcome: Outcome) -> DeliveryResult:
        return DeliveryResult(
            outcome,
            record.body,
            insert_id=record.insert_id,
            destination=self._endpoint.name,
            decode=self._endpoint.decode,
        )

    def _hand_over(self, result: DeliveryResult, *, must_tell: bool) -> None:
        if self.callbacks is None:
            return
        if must_tell:
            self.callbacks.put(result)
        elif not self.callbacks.put_if_room(result):
            self._reporter.error(
                "callback_overflow", "a slow callback: a result came without its call"
            )

    # Reporting ---------------------------------------------------------------

    def _report_all(self, tally: dict[Outcome, int]) -> None:
        refused = {o: count for o, count in tally.items() if o.refused}
        if refused:
            first = next(iter(refused))
            self.report_refusal(first.code, first.message, sum(refused.values()))
        for outcome, count in tally.items():
            if not outcome.refused and outcome.status not in TAKEN:
                self._report(outcome, count)

    def report_refusal(self, code: int, message: str, count: int = 1) -> None:
        """Say that the server refuses us, and how many events met that."""
        self._reporter.error(
            "refused",
            "the server refuses us (%s %s): check key, zone and URL",
            code,
            message,
            count=count,
            numbers={"status": code},
        )

    def _report(self, outcome: Outcome, count: int) -> None:
        status = outcome.status
        if outcome.refused:
            self.report_refusal(outcome.code, outcome.message, count)
        elif status is DeliveryStatus.REJECTED:
            log = self._reporter.error if outcome.code else self._reporter.warning
            # A check of our own names the value, which is no business of the log's.
            text = outcome.message if outcome.code else without_values(outcome.message)
            numbers = {"status": outcome.code}
            log("rejected", "event rejected: %s", text, count=count, numbers=numbers)
        elif outcome.reason in QUIET_REASONS or status is DeliveryStatus.STORED:
            self._reporter.debug(
                "%d events: %s", count, outcome.message, numbers={"events": count}
            )
        else:
            # A late verb is the host's own affair; the rest is a loss of ours.
            late = outcome.reason is DropReason.CLOSED
            log = self._reporter.warning if late else self._reporter.error
            log(
                f"dropped {outcome.reason}",
                "event dropped: %s",
                outcome.message,
                count=count,
            )

    def rebind(self) -> None:
        """Forget those who waited on a closed loop."""
        self._due.rebind()
        self.flushes.clear()
        if self.callbacks is not None:
            self.callbacks.rebind()

    def __repr__(self) -> str:
        ends = self.counters.ends.items()
        told = "".join(f", {count} {status}" for status, count in ends if count)
        return f"<Books {self.counters.accepted} accepted{told}>"
