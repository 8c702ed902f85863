"""Whatever servers, users and time do to a schedule, its promises hold."""

import random
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.schedule import Schedule
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
from amplitude_async.delivery.outcome import DeliveryStatus, Settlement
from amplitude_async.storage.base import Record
from tests.conftest import examples

__all__: list[str] = []

SLOTS = 3
EPOCH = 1_000_000.0
OK = Accept(200, "delivered")

indexes = st.lists(st.integers(0, 9), max_size=4)
waits = st.sampled_from([None, 0.0, 3.0, 300.0])
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.just(OK),
    st.builds(Broken, st.just(500), st.just("failed")),
    st.builds(Busy, st.just(429), st.just("slow"), waits, throttled=st.booleans()),
    st.just(Halve(413, "large")),
    st.just(Bisect(400, "unnamed")),
    st.just(Refuse(401, "refused")),
    st.builds(
        lambda bad, slow: Sort(
            429, "named", dict.fromkeys(bad, "bad"), frozenset(slow) - set(bad)
        ),
        indexes,
        indexes,
    ).filter(lambda sort: bool(sort.rejected or sort.throttled)),
)


class ScheduleMachine(RuleBasedStateMachine):
    """Random traffic of four identities against a server of any mood."""

    @initialize(
        seed=st.integers(0, 1_000),
        durable=st.booleans(),
        rate=st.sampled_from([None, 3.0]),
        max_age=st.sampled_from([150.0, 86_400.0]),
    )
    def build(
        self, seed: int, *, durable: bool, rate: float | None, max_age: float
    ) -> None:
        """Start with an empty schedule of narrow bounds."""
        self.schedule = Schedule(
            DeliveryConfig(
                flush_queue_size=4,
                max_batch_size=8,
                flush_max_retries=3,
                max_storage_capacity=40,
                max_events_per_second=rate,
            ),
            max_events=2_000,
            max_bytes=100,
            max_age=max_age,
            durable=durable,
            rng=random.Random(seed),
        )
        self.now = 0.0
        self.added = 0
        self.settled: set[int] = set()
        self.newest: dict[str, int] = {}
        self.flying: list[Group] = []
        self.requests = 0

    @rule(
        identities=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
        size=st.sampled_from([9, 9, 30, 200]),
    )
    def add(self, identities: list[str], size: int) -> None:
        """Accept some events."""
        records = []
        for identity in identities:
            self.added += 1
            number = self.added
            accepted_at = EPOCH + self.now
            records.append(
                Record(number, b"x" * size, identity, identity, None, "", accepted_at)
            )
        self.schedule.add(records, self.now)

    @rule(eager=st.booleans())
    def send(self, *, eager: bool) -> None:
        """Ask for the next request."""
        self.ask(eager=eager)

    def ask(self, *, eager: bool) -> bool:
        """Ask for the next request; none must mean that later is soon enough."""
        slots = SLOTS - len(self.flying)
        wall = EPOCH + self.now
        group = self.schedule.next(self.now, wall, slots=slots, eager=eager)
        self.collect()
        if group is not None:
            self.requests += 1
            self.flying.append(group)
        elif slots:
            due = self.schedule.next_request_at(self.now, eager=eager)
            assert due is None or due > self.now
        return group is not None

    @precondition(lambda self: self.flying)
    @rule(pick=st.randoms(use_true_random=False), verdict=verdicts)
    def answer(self, pick: random.Random, verdict: Verdict) -> None:
        """Answer one of the requests under way."""
        group = self.flying.pop(pick.randrange(len(self.flying)))
        if isinstance(verdict, Accept):
            for record in group.pieces[-1]:
                assert record.id > self.newest.get(record.identity, 0)
                self.newest[record.identity] = record.id
        self.write_down(self.schedule.apply(group, verdict, self.now))
        self.collect()

    @precondition(lambda self: self.flying)
    @rule(crash=st.booleans())
    def lose(self, *, crash: bool) -> None:
        """End a sender without an answer: by a fault of ours, or by no fault."""
        group = self.flying.pop(0)
        if crash:
            self.write_down(self.schedule.crashed(group, self.now))
        else:
            self.schedule.take_back(group, self.now)

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(identity=st.sampled_from("abcd"), odd=st.booleans())
    def purge(self, identity: str, *, odd: bool) -> None:
        """Give up some events of an identity."""

        def choose(records: Iterable[Record]) -> list[Record]:
            return [r for r in records if r.identity == identity and r.id % 2 == odd]

        self.write_down(self.schedule.purge(choose))

    @rule()
    def evict(self) -> None:
        """Make room for one event."""
        self.write_down(self.schedule.evict_oldest())

    def write_down(self, settlements: Iterable[Settlement]) -> None:
        """Note outcomes: of the undecided only, and once each."""
        flying = {r.id for group in self.flying for r in group.pieces[-1]}
        for record, outcome in settlements:
            assert record.id not in self.settled
            assert record.id not in flying
            assert outcome.status is not DeliveryStatus.STORED
            self.settled.add(record.id)

    @invariant()
    def the_account_adds_up(self) -> None:
        """What was added is settled or counted, and held events are among those."""
        schedule = self.schedule
        assert schedule.size == self.added - len(self.settled)
        assert 0 <= schedule.held <= min(schedule.size, 20)
        assert schedule.in_flight == len(self.flying)

    @invariant()
    def no_event_and_no_identity_is_under_way_twice(self) -> None:
        """Requests at the same time share neither."""
        pieces = [group.pieces[-1] for group in self.flying]
        flying = [record.id for piece in pieces for record in piece]
        owned = [name for piece in pieces for name in {r.identity for r in piece}]
        assert len(flying) == len(set(flying))
        assert len(owned) == len(set(owned))
        assert not self.settled & set(flying)

    def collect(self) -> None:
        """Write down what ended without an answer; no storage takes anything back."""
        left = self.schedule.collect_left()
        for record in left:
            self.schedule.shed(record)
        if left:
            self.schedule.catch_up(lambda _: False)
        self.write_down(self.schedule.collect())

    def teardown(self) -> None:
        """Once the server is well everything settles, in few requests."""
        if not hasattr(self, "schedule"):
            return
        begun = self.requests
        while self.schedule.size:
            while self.ask(eager=True):
                pass
            while self.flying:
                self.answer(random.Random(0), OK)
            self.collect()
            due = self.schedule.next_wake_at(self.now, EPOCH + self.now, eager=True)
            assert due is not None or not self.schedule.size
            if due is not None:
                self.now = max(self.now, due)
            assert self.requests - begun <= 2 * self.added + 10
        self.the_account_adds_up()
        assert self.schedule.held == 0
        assert self.schedule.remove_all() == []


TestSchedule = ScheduleMachine.TestCase
TestSchedule.settings = settings(
    max_examples=examples(150),
    stateful_step_count=40,
    deadline=None,
)
