"""Small decisions that a table or a long run does not show: found by changing them."""

import math
import random

import pytest

from amplitude_async.amplitude.endpoint import interpret
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.health import (
    FRUITLESS_ANSWERS,
    REFUSAL_PROBE_INTERVAL,
    Condition,
    Health,
    TokenBucket,
)
from amplitude_async.delivery.deciding.schedule import Schedule
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Response,
    Sort,
    Verdict,
)
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.storage.base import Record

__all__: list[str] = []

EPOCH = 1_000_000.0
HOLD = 30.0
OK = Accept(200, "delivered")
FAILED = Broken(500, "HTTP 500")
# Thu, 01 Jan 1970 00:01:40 GMT, read five seconds before.
RETRY_AT_100 = {"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}
JUST_BEFORE = 95.0


def record(number: int, identity: str = "a", *, size: int = 10) -> Record:
    """Make an event."""
    return Record(number, b"x" * size, identity, identity, None, str(number), EPOCH)


def schedule_of(
    *records: Record, max_bytes: int = 10**6, **options: object
) -> Schedule:
    """Make a schedule in which events wait."""
    schedule = Schedule(
        DeliveryConfig(**options),
        max_events=2_000,
        max_bytes=max_bytes,
        max_age=86_400.0,
        durable=False,
        rng=random.Random(1),
    )
    schedule.add(records, 0.0)
    return schedule


def take(schedule: Schedule, now: float) -> Group:
    """Take a request that must be there."""
    group = schedule.next(now, EPOCH, slots=4, eager=True)
    assert group is not None
    return group


def ids(group: Group) -> list[int]:
    """List the events of the request under way."""
    return [event.id for event in group.pieces[-1]]


def throttle(schedule: Schedule, now: float) -> None:
    """Send one request and let the server throttle all of it."""
    group = take(schedule, now)
    everything = frozenset(range(len(group.pieces[-1])))
    schedule.apply(group, Sort(429, "slow", {}, everything), now)


def fail(schedule: Schedule, times: int, now: float = 0.0) -> float:
    """Let so many requests in a row fail; returns when the last one did."""
    for _ in range(times):
        due = schedule.next_request_at(now, eager=True)
        assert due is not None
        now = max(now, due)
        schedule.apply(take(schedule, now), FAILED, now)
    return now


def make_failing(schedule: Schedule) -> None:
    """Make the destination FAILING by requests that broke, before the clock began."""
    for now in (-300.0, -200.0, -100.0):
        schedule.health.slowed(now, now, broken=True)
    assert schedule.health.state is Health.FAILING


# --- Probes ---


def test_a_held_identity_is_the_probe_where_nothing_else_waits() -> None:
    """An outage does not wait for ever for an event that is not throttled."""
    schedule = schedule_of(*map(record, range(1, 5)))
    throttle(schedule, 0.0)
    make_failing(schedule)

    assert schedule.next(HOLD - 1, EPOCH, slots=4) is None
    probe = take(schedule, HOLD)
    assert ids(probe) == [1]
    assert schedule.next(HOLD, EPOCH, slots=4) is None
    schedule.apply(probe, OK, HOLD)
    assert ids(take(schedule, HOLD + 1.0)) == [2, 3, 4]


def test_what_came_later_for_a_held_identity_is_parked_by_a_probe() -> None:
    """A queue full of held users does not hide the lane that may go."""
    schedule = schedule_of(record(1))
    throttle(schedule, 0.0)
    schedule.add([record(2), record(3)], 1.0)
    make_failing(schedule)

    assert schedule.next(1.0, EPOCH, slots=4) is None
    assert (schedule.waiting, schedule.held) == (0, 3)
    assert ids(take(schedule, HOLD)) == [1]


def test_an_expired_lane_is_no_probe() -> None:
    """Events too old are given up before they are sent, in a lane as elsewhere."""
    schedule = schedule_of(record(1))
    throttle(schedule, 0.0)
    make_failing(schedule)

    assert schedule.next(HOLD, EPOCH + 86_400.0, slots=4) is None
    assert [o.reason for _, o in schedule.collect()] == [DropReason.EXPIRED]
    assert (schedule.size, schedule.held) == (0, 0)


# --- Lanes and pieces ---


def test_a_lane_keeps_within_the_bytes_of_a_request() -> None:
    """What gathers in a lane is sent in requests the server can take."""
    schedule = schedule_of(record(1, size=40), max_bytes=100)
    throttle(schedule, 0.0)
    schedule.add([record(n, size=40) for n in range(2, 6)], 1.0)
    assert schedule.next(1.0, EPOCH, slots=4, eager=True) is None

    found = []
    while schedule.size:
        group = take(schedule, HOLD)
        found.append(ids(group))
        schedule.apply(group, OK, HOLD)
    assert found == [[1], [2, 3], [4, 5]]


def test_a_crashed_lane_gives_its_room_back() -> None:
    """Three faults of ours end a lane like any batch, and the account stays right."""
    schedule = schedule_of(record(1), record(2))
    throttle(schedule, 0.0)
    schedule.add([record(3)], 1.0)
    assert schedule.next(1.0, EPOCH, slots=4, eager=True) is None
    assert schedule.held == 3
    for crash in range(3):
        now = HOLD * (crash + 2)
        done = schedule.crashed(take(schedule, now), now)

    message = "sending this batch failed three times with an internal error"
    given_up = Outcome.dropped(DropReason.INTERNAL, message)
    assert [(event.id, o) for event, o in done] == [(1, given_up), (2, given_up)]
    assert (schedule.size, schedule.held, schedule.in_flight) == (1, 1, 0)


@pytest.mark.parametrize("ending", ["crashed", "take_back", "apply"])
def test_an_ended_request_frees_its_place(ending: str) -> None:
    """However a request ends, it is not counted as under way any more."""
    schedule = schedule_of(*(record(n, f"user-{n}") for n in range(3)))
    first = schedule.next(0.0, EPOCH, slots=4, eager=True)
    assert first is not None
    schedule.add([record(9, "another")], 0.0)
    take(schedule, 0.0)
    assert schedule.in_flight == 2
    match ending:
        case "crashed":
            schedule.crashed(first, 0.0)
        case "take_back":
            schedule.take_back(first, 0.0)
        case _:
            schedule.apply(first, OK, 0.0)

    assert schedule.in_flight == 1
    assert not first.out


def test_a_crash_before_a_success_is_forgotten() -> None:
    """Only faults in a row give a batch up."""
    schedule = schedule_of(record(1), record(2))
    group = take(schedule, 0.0)
    schedule.crashed(group, 0.0)
    schedule.apply(take(schedule, 100.0), Halve(413, "large"), 100.0)
    for _ in range(2):
        now = schedule.next_request_at(100.0) or 0.0
        assert schedule.crashed(take(schedule, now + 100.0), now) == []


@pytest.mark.parametrize("verdict", [OK, Halve(413, "large"), Bisect(400, "bare")])
def test_rounds_of_named_events_start_anew(verdict: Verdict) -> None:
    """Three answers in a row that name events are halved; one in between breaks it."""
    schedule = schedule_of(*map(record, range(1, 13)))
    group = take(schedule, 0.0)
    name_first = Sort(400, "named", {0: "bad"})
    for answer in (name_first, name_first, verdict):
        schedule.apply(group, answer, 0.0)
        if not group.pieces:
            return
        assert take(schedule, 0.0) is group
    assert group.rounds == 0


def test_an_index_beyond_the_request_throttles_nobody() -> None:
    """A server that counts from one cannot confuse us."""
    schedule = schedule_of(record(1), record(2, "b"))
    schedule.apply(take(schedule, 0.0), Sort(429, "slow", {}, frozenset({1, 2})), 0.0)

    assert schedule.held == 1
    assert ids(take(schedule, 0.0)) == [1]


# --- When ---


@pytest.mark.parametrize(
    ("waiting", "eager", "due"),
    [
        (1, False, 0.1),
        (1, True, 0.0),
        (3, False, 0.0),
        (2, False, 0.1),
        (4, False, 0.0),
    ],
)
def test_when_the_first_batch_may_go(waiting: int, eager: bool, due: float) -> None:
    """A full batch and a flush go at once, all else when the linger ends."""
    schedule = schedule_of(*map(record, range(waiting)), flush_queue_size=3)

    assert schedule.next_request_at(0.0, eager=eager) == due
    assert schedule.next_wake_at(0.0, EPOCH, eager=eager) == due


def test_while_unwell_nothing_waits_for_company() -> None:
    """A probe goes when the back-off is over, whatever the linger says."""
    schedule = schedule_of(record(1))
    make_failing(schedule)
    schedule.health.hold(0.05)

    assert schedule.next_request_at(0.0) == 0.05


def test_a_last_call_waits_for_nothing_but_the_limit() -> None:
    """In a last call neither a back-off nor the linger counts."""
    schedule = schedule_of(record(1), record(2, "b"))
    schedule.health.hold(300.0)
    assert schedule.last_call(0.0)

    assert schedule.next_request_at(0.0) == 0.0
    assert ids(take(schedule, 0.0)) == [1, 2]


def test_a_pause_ends_for_the_paused_batch_too() -> None:
    """After the pause that batch goes first, and not before."""
    schedule = schedule_of(record(1))
    schedule.apply(take(schedule, 0.0), Busy(429, "slow", 7.0), 0.0)

    assert schedule.next_request_at(0.0, eager=True) == 7.0


def test_the_rate_is_kept_exactly_at_its_edge() -> None:
    """A token that is whole but for rounding is whole; any other is waited for."""
    bucket = TokenBucket(2.0)
    assert bucket.available(0.0) == 2.0
    bucket.spend(2)

    assert bucket.next_at(0.0) == 0.5
    assert bucket.next_at(0.5) == 0.5
    almost = math.nextafter(0.5, 0.0)
    assert bucket.next_at(almost) == almost


def test_a_success_forgets_fruitless_answers() -> None:
    """The patience with refused batches is whole again after a success."""
    health = Condition(DeliveryConfig(), random.Random(1).uniform)
    for _ in range(FRUITLESS_ANSWERS):
        health.fruitless(0.0)
    health.succeeded(0.0, 0.0)
    for _ in range(FRUITLESS_ANSWERS):
        health.fruitless(0.0)
        assert health.not_before == -math.inf
    health.fruitless(0.0)
    assert health.not_before > 0.0


# --- What is told ---


def test_a_refusal_is_told_to_everybody() -> None:
    """Who waits hears the server's code and words, and how often it had been tried."""
    schedule = schedule_of(record(1), retry_base_interval=0.001)
    now = fail(schedule, 2)
    schedule.add([record(2, "b")], now)
    group = take(schedule, now + 1.0)
    settled = schedule.apply(group, Refuse(401, "go away"), now + 1.0)

    outcomes = {event.id: outcome for event, outcome in settled}
    assert outcomes == {
        1: Outcome.refusal("go away", 401, 3),
        2: Outcome.refusal("go away", 401, 0),
    }
    assert schedule.health.refusal_code == 401
    assert schedule.health.refusal_message == "go away"
    assert schedule.health.not_before == now + 1.0 + REFUSAL_PROBE_INTERVAL


def test_a_late_success_is_told_in_full() -> None:
    """An event that failed before hears code, words and its attempts."""
    schedule = schedule_of(record(1), record(2, "b"), retry_base_interval=0.001)
    now = fail(schedule, 2)
    assert schedule.retries == 2
    settled = schedule.apply(take(schedule, now + 1.0), OK, now + 1.0)

    assert [outcome for _, outcome in settled] == [
        Outcome(DeliveryStatus.DELIVERED, 200, "delivered", None, 3)
    ] * 2


@pytest.mark.parametrize("tries", [0, 1])
def test_what_the_purged_and_the_shed_hear(tries: int) -> None:
    """Why they were given up, that no server said so, and how often they were tried."""
    schedule = schedule_of(record(1), record(2, "b"), retry_base_interval=0.001)
    fail(schedule, tries)
    [(first, shed)] = schedule.evict_oldest()
    [(_, purged)] = schedule.purge(list)

    assert first.id == 1
    assert shed == Outcome.dropped(
        DropReason.OVERFLOW, "shed to make room for a newer event", 0, tries
    )
    assert purged == Outcome.dropped(
        DropReason.PURGED, "purged by the client", 0, tries
    )


def test_the_oldest_of_those_that_back_off_is_shed_first() -> None:
    """Where the queue is empty, the order of acceptance decides among the groups."""
    late, early = record(7, "zoe", size=1), record(3, "abe", size=99)
    schedule = schedule_of(late, early)
    fail(schedule, 1)

    assert [event.id for event, _ in schedule.evict_oldest()] == [3]


# --- What an answer means ---


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(199, Broken), (200, Accept), (299, Accept), (300, Broken), (402, Bisect)],
)
def test_the_edges_of_success(status: int, verdict: type[Verdict]) -> None:
    """Only 200 to 299 is success."""
    assert type(interpret(Response(status), [record(1)], 0.0)) is verdict


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_date_to_retry_at_is_read_by_the_wall_clock(status: int) -> None:
    """Retry-After may be a date (RFC 9110, 10.2.3): it counts from now."""
    verdict = interpret(Response(status, b"", RETRY_AT_100), [record(1)], JUST_BEFORE)

    assert isinstance(verdict, Busy)
    assert verdict.wait == 5.0


def test_a_bad_request_may_also_throttle() -> None:
    """A 400 that names a bad event and a throttled user does both."""
    body = (
        b'{"code":400,"error":"e","events_with_invalid_fields":{"time":[0]},'
        b'"throttled_users":{"b":12}}'
    )
    records = [record(1, "a"), record(2, "b"), record(3, "c"), record(4, "b")]
    verdict = interpret(Response(400, body), records, 0.0)

    assert isinstance(verdict, Sort)
    assert list(verdict.rejected) == [0]
    assert verdict.throttled == {1, 3}
