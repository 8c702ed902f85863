"""When events go and what answers do to them, in virtual time and without a loop.

One file for one class: each test reads as a short script of requests and answers.
"""

import random

import pytest

from amplitude_async.delivery.deciding.batcher import Choose
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.endpoint import Accept, Bisect, Broken, Busy, Verdict
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.storage.base import Record
from tests.delivery.conftest import (
    FAILED,
    GONE,
    OK,
    REFUSED,
    SLOW,
    TOO_LARGE,
    UNAVAILABLE,
    UNNAMED,
    Book,
    always,
    health,
    many,
    naming,
    quiet,
    sent,
    series,
    unless,
)

__all__: list[str] = []


# Batching ---------------------------------------------------------------------------


def test_nothing_waits_for_nothing() -> None:
    """An empty schedule has no request and needs no timer."""
    book = Book()

    assert book.next(eager=True) is None
    assert book.schedule.next_request_at(book.now) is None
    assert book.schedule.next_wake_at(book.now, book.wall) is None


def test_the_first_batch_goes_soon_and_later_ones_wait_for_company() -> None:
    """A newcomer sees the first events after 0.1 s, then flush_interval counts."""
    book = Book(flush_interval=10.0)

    book.add("a1 b1")
    assert book.next() is None
    book.now += 0.1
    assert sent(book.take(eager=False)) == ["a1", "b1"]

    book.add("c1")
    book.now += 9.9
    book.add("d1")
    assert book.next() is None
    book.now += 0.1
    assert sent(book.take(eager=False)) == ["c1", "d1"]


def test_a_shorter_interval_also_shortens_the_first_wait() -> None:
    """flush_interval=0 sends at once, from the first event on."""
    book = Book(flush_interval=0.0)
    book.add("a1")

    assert book.next() is not None


def test_a_flush_does_not_wait_for_company() -> None:
    """Eager means now."""
    book = Book()
    book.add("a1")

    assert book.next(eager=True) is not None


def test_haste_brings_the_batch_forward_and_never_back() -> None:
    """An awaited handle shortens the wait; a later haste cannot lengthen it."""
    book = Book()
    book.add("a1")
    book.schedule.linger.hasten(book.now + 0.01)
    book.schedule.linger.hasten(book.now + 5.0)

    assert book.schedule.next_request_at(book.now) == book.now + 0.01


@pytest.mark.parametrize(
    ("waiting", "slots", "size"),
    [
        pytest.param(199, 4, None, id="too few"),
        pytest.param(200, 4, 200, id="just enough"),
        pytest.param(800, 4, 200, id="four full batches"),
        pytest.param(801, 4, 201, id="rounded up"),
        pytest.param(1_500, 4, 375, id="spread over the free places"),
        pytest.param(1_500, 1, 1_000, id="one free place"),
        pytest.param(9_000, 4, 1_000, id="never above max_batch_size"),
        pytest.param(9_000, 0, None, id="no free place"),
    ],
)
def test_batches_grow_with_the_backlog(
    waiting: int, slots: int, size: int | None
) -> None:
    """A batch is the backlog over the free places, between the two bounds."""
    book = Book(flush_queue_size=200, max_batch_size=1_000)
    book.add(many(waiting))

    group = book.next(slots=slots)

    assert (None if group is None else len(sent(group))) == size


def test_a_batch_stays_within_the_bytes_of_a_request() -> None:
    """Bytes are measured with the comma; what does not fit goes next."""
    book = Book(max_bytes=100)
    book.add("a1 b1 c1", size=49)

    assert sent(book.take()) == ["a1", "b1"]
    assert sent(book.take()) == ["c1"]


def test_an_event_as_large_as_a_request_goes_alone() -> None:
    """The first event of a batch always fits."""
    book = Book(max_bytes=100)
    book.add("a1")
    book.add("b1", size=100)
    book.add("c1")

    assert [sent(book.take()) for _ in range(3)] == [["a1"], ["b1"], ["c1"]]


def test_a_rest_that_is_left_over_keeps_its_own_time() -> None:
    """Sending a full batch does not hurry the few behind it."""
    book = Book(flush_queue_size=3, flush_interval=10.0)
    book.add("a1 b1 c1 d1")

    assert sent(book.take(eager=False)) == ["a1", "b1", "c1"]
    assert book.next() is None
    book.now += 10.0
    assert sent(book.take(eager=False)) == ["d1"]


def test_an_emptied_queue_forgets_its_linger() -> None:
    """After a purge the next event waits for company as long as any other."""
    book = Book(flush_interval=10.0)
    book.add("z1")
    book.answer(book.take(), OK)
    book.add("a1")
    book.now += 9.0
    book.write_down(book.schedule.purge(list))

    book.add("b1")

    assert book.schedule.next_request_at(book.now) == book.now + 10.0


# Order ------------------------------------------------------------------------------


def test_a_later_event_never_overtakes_its_identity() -> None:
    """While one event of an identity is under way its others are parked."""
    book = Book()
    book.add("a1 b1")
    first = book.take()
    book.add("a2 c1")

    assert sent(book.take()) == ["c1"]
    assert book.next(eager=True) is None
    book.answer(first, OK)
    assert sent(book.take()) == ["a2"]


def test_parked_events_come_back_in_runs_and_at_once() -> None:
    """Grouped by identity, the next requests share none and can go together."""
    book = Book(max_batch_size=2)
    book.add("a1 b1")
    first = book.take(slots=1)
    book.add("a2 b2 a3 b3")
    assert book.next(eager=True) is None

    book.answer(first, OK)

    assert sent(book.take(eager=False)) == ["a2", "a3"]
    assert sent(book.take(eager=False)) == ["b2", "b3"]


def test_events_of_one_identity_may_share_a_request() -> None:
    """Order inside a request is order of acceptance."""
    book = Book()
    book.add("a1 b1 a2 a3")

    assert sent(book.take()) == ["a1", "b1", "a2", "a3"]


def test_halves_go_left_then_right() -> None:
    """The second half waits for the first, so that order holds across them."""
    book = Book()
    book.add(series("a", 5))
    group = book.take()

    book.answer(group, TOO_LARGE)

    left = book.take()
    assert sent(left) == ["a1", "a2", "a3"]
    assert book.next(eager=True) is None
    book.answer(left, OK)
    assert sent(book.take()) == ["a4", "a5"]


@pytest.mark.parametrize("verdict", [FAILED, UNAVAILABLE, GONE, SLOW])
def test_a_failed_batch_goes_before_what_came_after_it(verdict: Verdict) -> None:
    """Busy or broken, the same events go again, first and in order."""
    book = Book()
    book.add("a1 a2 b1")
    book.answer(book.take(), verdict)
    book.add("a3 c1")
    assert book.next(eager=True) is None
    book.now += 60.0

    retried = book.take()
    assert sent(retried) == ["a1", "a2", "b1"]
    book.answer(retried, OK)
    book.now += 60.0
    assert sent(book.take()) == ["a3", "c1"]


# Success ----------------------------------------------------------------------------


def test_success_settles_every_event_of_the_request() -> None:
    """One try each where nothing had failed before."""
    book = Book()
    book.add("a1 b1")

    book.answer(book.take(), Accept(202, "delivered"))

    outcome = Outcome(DeliveryStatus.DELIVERED, 202, "delivered", None, 1)
    assert book.settled == {"a1": outcome, "b1": outcome}


# Failures ---------------------------------------------------------------------------


def test_attempts_are_counted_per_event() -> None:
    """The result says how many requests an event was part of."""
    book = Book()
    book.add("a1")
    book.answer(book.take(), FAILED)
    book.now += 1.0
    book.answer(book.take(), OK)

    assert book.settled["a1"].attempts == 2
    assert book.schedule.retries == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_event_is_given_up_after_its_retries(retries: int) -> None:
    """Exhaustion tells the last code, the last error and the tries; 0 is one try."""
    book = Book(flush_max_retries=retries)
    book.add("a1")

    assert book.run(always(Busy(503, "HTTP 503"))) == retries + 1
    message = f"given up after {retries + 1} failed requests: HTTP 503"
    assert book.settled["a1"] == Outcome.dropped(
        DropReason.RETRIES, message, 503, retries + 1
    )


def test_a_group_that_was_charged_travels_in_smaller_pieces() -> None:
    """After k charges an event has at most max_batch_size >> k for company."""
    book = Book(max_batch_size=64)
    book.add(many(64))
    book.answer(book.take(), FAILED)
    sizes = []

    for charge in range(1, 8):
        # The destination took something since: it is not the server.
        book.now += 60.0
        book.schedule.health.succeeded(book.now, book.now)
        group = book.take(slots=1)
        sizes.append(len(sent(group)))
        assert len(sent(group)) == max(1, 64 >> (charge - 1))
        book.answer(group, FAILED)

    assert sizes == [64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("verdict", [UNAVAILABLE, GONE, SLOW, Busy(500, "500", 7.0)])
def test_a_busy_destination_charges_nobody_and_cuts_nothing(verdict: Verdict) -> None:
    """However often, and whatever it takes in between."""
    book = Book(max_batch_size=64)
    book.add(many(64))

    for _ in range(20):
        book.now += 400.0
        book.schedule.health.succeeded(book.now, book.now)
        group = book.take(slots=1)
        assert len(sent(group)) == 64
        book.answer(group, verdict)

    book.now += 400.0
    book.answer(book.take(), OK)
    assert len(book.ends(DeliveryStatus.DELIVERED)) == 64


def test_a_broken_request_is_no_evidence_while_nothing_is_taken() -> None:
    """Failures without a success between them cut nothing."""
    book = Book(max_batch_size=64)
    book.add(many(64))

    for _ in range(2):
        group = book.take(slots=1)
        assert len(sent(group)) == 64
        book.answer(group, FAILED)
        book.now += 60.0
    assert len(sent(book.take())) == 64


def test_events_that_were_charged_part_company() -> None:
    """A charged group is dissolved: others go before it, and it waits in the queue."""
    book = Book(max_batch_size=4)
    book.add("a1 b1 c1 d1")
    book.answer(book.take(), FAILED)
    book.schedule.health.succeeded(book.now, book.now)
    book.now += 60.0
    book.answer(book.take(), FAILED)

    assert book.schedule.waiting == 4
    book.now += 60.0
    assert sent(book.take(slots=1)) == ["a1", "b1"]


@pytest.mark.parametrize("place", [0, 40, 500, 990])
@pytest.mark.parametrize("seed", range(3))
def test_one_poisonous_event_takes_no_neighbour_with_it(place: int, seed: int) -> None:
    """Found among a thousand, given up alone, in few requests."""
    book = Book(seed=seed)
    names = many(1_000)
    book.add(names)
    poison = names.split()[place]

    assert book.run(unless(poison, FAILED), most=150) <= 150
    assert book.dropped(DropReason.RETRIES) == [poison]
    assert len(book.ends(DeliveryStatus.DELIVERED)) == 999


@pytest.mark.parametrize("poison", ["a1", "a2", "a500", "a1000"])
def test_a_poisonous_event_of_one_user_is_found_by_the_traffic_of_others(
    poison: str,
) -> None:
    """What others get through is the proof; then the user's own events go on."""
    book = Book(seed=1)
    names = series("a", 1_000)
    book.add(names)
    for step in range(200):
        if not book.schedule.size:
            break
        book.run_for(20.0, unless(poison, FAILED), most=100)
        if len(book.settled) < book.added:
            book.add(f"o{step}")
    book.run(unless(poison, FAILED), most=100)

    assert book.dropped(DropReason.RETRIES) == [poison]
    assert not book.dropped(DropReason.EXPIRED)
    delivered = book.ends(DeliveryStatus.DELIVERED)
    own = [name for name in delivered if name[0] == "a"]
    assert own == [name for name in names.split() if name != poison]


def test_a_poisonous_event_alone_is_given_up_once_there_is_other_traffic() -> None:
    """Alone it looks like an outage, and waits; among others it does not."""
    book = Book(seed=1)
    book.add("p1")
    book.run_for(3_600.0, unless("p1", FAILED), most=100)
    assert not book.settled

    for step in range(40):
        book.add(f"a{step}")
        book.run_for(70.0, unless("p1", FAILED), most=10)

    assert book.dropped(DropReason.RETRIES) == ["p1"]
    assert len(book.ends(DeliveryStatus.DELIVERED)) == 40


@pytest.mark.parametrize("place", [1, 500])
def test_where_all_traffic_is_of_one_identity_nobody_is_charged(place: int) -> None:
    """Without proof a poisonous event waits until it is too old, and its user with it.

    What goes before it is delivered, and so are the followers that are young enough.
    """
    book = Book(seed=1, max_age=7_200.0)
    poison, server = f"a{place}", unless(f"a{place}", FAILED)
    book.add(series("a", place))
    book.run_for(3_600.0, server, most=150)
    followers = series("a", 500, start=place + 1)
    book.add(followers)
    before = place - 1
    assert len(book.settled) == len(book.ends(DeliveryStatus.DELIVERED)) == before

    book.run(server, most=250)

    assert book.dropped(DropReason.EXPIRED) == [poison]
    delivered = book.ends(DeliveryStatus.DELIVERED)
    assert delivered[before:] == followers.split()


@pytest.mark.parametrize("place", [1, 500, 1_000])
def test_thirteen_successes_of_others_end_a_wait_without_proof(place: int) -> None:
    """Each is one proof, and what is charged more than twelve times is given up."""
    book = Book(seed=1)
    poison, server = f"a{place}", unless(f"a{place}", FAILED)
    names = series("a", 1_000)
    book.add(names)
    book.run_for(3_600.0, server, most=250)
    begun = len(book.requests)
    assert poison not in book.settled

    while poison not in book.settled:
        book.add(f"o{book.added}")
        book.run_for(120.0, server, most=20)
    book.run(server, most=20)

    assert book.dropped(DropReason.RETRIES) == [poison]
    delivered = book.ends(DeliveryStatus.DELIVERED)
    own = [name for name in delivered if name[0] == "a"]
    assert own == [name for name in names.split() if name != poison]
    assert len(book.requests) - begun <= 150
    assert len(delivered) - len(own) <= 40


def fail_three_times(book: Book, verdict: Verdict) -> None:
    """Make the destination FAILING, by one request after the other."""
    for _ in range(3):
        book.now += 60.0
        book.answer(book.take(), verdict)
    book.now += 60.0


def test_three_broken_requests_make_single_events_probe() -> None:
    """From then on one request at a time, one event each, until a success."""
    book = Book(max_batch_size=10)
    book.add(many(40))
    fail_three_times(book, FAILED)

    assert health(book) is Health.FAILING
    probe = book.take()
    assert len(sent(probe)) == 1
    assert book.next(eager=True) is None
    book.answer(probe, OK)
    assert health(book) is Health.HEALTHY
    book.now += 60.0
    assert len(sent(book.take())) == 10


@pytest.mark.parametrize("verdict", [UNAVAILABLE, GONE, SLOW])
def test_a_busy_destination_is_asked_with_whole_batches(verdict: Verdict) -> None:
    """One request at a time; nobody is suspected, so that nothing is taken apart."""
    book = Book(max_batch_size=10)
    book.add(many(40))
    fail_three_times(book, verdict)

    assert health(book) is Health.FAILING
    group = book.take()
    assert sent(group) == book.requests[0]
    assert book.next(eager=True) is None
    book.answer(group, OK)
    assert health(book) is Health.HEALTHY


def test_a_success_between_failures_keeps_a_destination_healthy() -> None:
    """Only failures in a row count."""
    book = Book(max_batch_size=1)
    book.add(many(6))

    for verdict in (FAILED, FAILED, OK, FAILED, FAILED):
        book.now += 60.0
        book.answer(book.take(), verdict)

    assert health(book) is Health.HEALTHY


def test_probes_are_the_heads_of_identities_in_turn() -> None:
    """So one poisonous head is not taken for an outage; then the turn begins anew."""
    book = Book(max_batch_size=3)
    book.add("a1 a2 b1 b2 c1 c2")
    fail_three_times(book, FAILED)
    probes = []

    for _ in range(6):
        probe = book.take()
        probes += sent(probe)
        book.answer(probe, FAILED)
        book.now += 60.0

    assert probes[:3] == ["a1", "b1", "c1"]
    assert sorted(probes[3:]) == ["a1", "b1", "c1"]


@pytest.mark.parametrize("hours", [1, 4])
@pytest.mark.parametrize(
    "verdict", [UNAVAILABLE, FAILED, GONE, Broken(0, "no complete answer"), SLOW]
)
def test_an_outage_costs_time_and_nothing_else(verdict: Verdict, hours: int) -> None:
    """No attempt limit is hit; ten seconds after the first success all is out."""
    book = Book(seed=hours)
    book.checks = False  # counting 20,000 events at each step takes minutes
    book.add(many(20_000))
    over = book.now + 3_600.0 * hours
    first: list[float] = []

    def server(_: list[str]) -> Verdict:
        if book.now <= over:
            return verdict
        first.append(book.now)
        return OK

    book.run(server)

    assert len(book.ends(DeliveryStatus.DELIVERED)) == 20_000
    assert first[0] - over <= 75.0
    assert book.now - first[0] <= 10.0


def test_an_outage_sees_few_requests() -> None:
    """With backoff up to a minute, an hour of outage is at most a few hundred."""
    book = Book(seed=2)
    book.add(many(300))
    over = book.now + 3_600.0
    during: list[int] = []

    def server(names: list[str]) -> Verdict:
        if book.now > over:
            return OK
        during.append(len(names))
        return FAILED

    book.run(server)

    assert len(during) < 250
    assert set(during[4:]) == {1}


@pytest.mark.parametrize(
    ("verdict", "wait"),
    [
        pytest.param(Busy(503, "HTTP 503", 17.0), 17.0, id="Retry-After"),
        pytest.param(Busy(429, "HTTP 429", 7.0), 7.0, id="429 with Retry-After"),
        pytest.param(SLOW, 30.0, id="bare 429"),
    ],
)
def test_a_wait_that_is_asked_for_is_kept(verdict: Verdict, wait: float) -> None:
    """Nothing goes before the time; then the same events go first."""
    book = Book()
    book.add("a1 b1")
    book.answer(book.take(), verdict)
    book.add("c1")

    quiet(book, wait)
    assert sent(book.take()) == ["a1", "b1"]


def test_by_default_only_charges_are_limited() -> None:
    """Failures without proof are told in attempts, and give nobody up."""
    book = Book()
    book.add("a1")
    failures: list[Verdict] = [SLOW, FAILED, UNAVAILABLE] * 10
    answers = iter([*failures, OK])

    book.run(lambda _: next(answers))

    assert book.settled["a1"].status is DeliveryStatus.DELIVERED
    assert book.settled["a1"].attempts == 31


@pytest.mark.parametrize("verdict", [FAILED, UNAVAILABLE, GONE, SLOW])
@pytest.mark.parametrize("retries", [0, 2])
def test_who_sets_a_number_of_retries_gets_that_number(
    verdict: Verdict, retries: int
) -> None:
    """As in the official SDKs: every failed request counts, for the whole batch."""
    book = Book(flush_max_retries=retries)
    book.add("a1")

    assert book.run(always(verdict)) == retries + 1
    assert book.settled["a1"].attempts == retries + 1
    assert book.dropped(DropReason.RETRIES) == ["a1"]


def test_one_event_outlives_six_seconds_of_503() -> None:
    """With intervals however short."""
    book = Book(
        retry_base_interval=0.001, retry_max_interval=0.004, flush_interval=0.005
    )
    book.add("a1")
    over = book.now + 6.0

    book.run(lambda _: OK if book.now > over else UNAVAILABLE, most=10_000)

    assert book.ends(DeliveryStatus.DELIVERED) == ["a1"]


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(Busy(429, "HTTP 429", 0.0), id="429"),
        pytest.param(Busy(503, "HTTP 503", 0.0), id="503"),
    ],
)
def test_retry_after_zero_makes_no_hot_loop(verdict: Verdict) -> None:
    """A server that always says "now" is asked ever more rarely."""
    book = Book(flush_max_retries=1_000, max_age=3_600.0, seed=5)
    book.add(many(50))

    assert book.run(always(verdict)) < 400
    assert len(book.dropped(DropReason.EXPIRED)) == 50


# Unnamed faults and sizes -----------------------------------------------------------


def test_a_bisection_finds_the_event_at_fault() -> None:
    """Two requests a level find one bad event among 256, uncounted for the rest."""
    book = Book(max_batch_size=256, flush_queue_size=256)
    names = many(256)
    book.add(names)
    poison = names.split()[101]

    assert book.run(unless(poison, UNNAMED)) <= 2 * 8 + 1
    assert book.ends(DeliveryStatus.REJECTED) == [poison]
    assert {o.attempts for o in book.settled.values()} == {1}
    assert book.settled[poison].code == 400
    assert book.schedule.retries == 0


def test_a_server_that_turns_everything_down_is_not_stormed() -> None:
    """Each event is told alone, in a bounded number of requests over some time."""
    book = Book(seed=4)
    book.add(many(200))
    begun = book.now

    assert book.run(always(Bisect(403, "HTTP 403"))) < 2 * 200
    assert len(book.ends(DeliveryStatus.REJECTED)) == 200
    assert book.now - begun > 60.0


def test_a_too_large_request_is_sent_in_halves() -> None:
    """413 splits this batch, uncounted, until it fits."""
    book = Book()
    book.add(series("a", 8))

    requests = book.run(lambda names: TOO_LARGE if len(names) > 2 else OK)

    assert requests == 3 + 4
    assert book.ends(DeliveryStatus.DELIVERED) == series("a", 8).split()
    assert {o.attempts for o in book.settled.values()} == {1}


def test_one_event_that_is_too_large_is_rejected() -> None:
    """There is nothing left to split."""
    book = Book()
    book.add("a1")
    book.answer(book.take(), TOO_LARGE)

    assert book.settled["a1"] == Outcome.rejected("HTTP 413", 413, 1)


def test_later_batches_are_smaller_after_a_413_and_grow_again() -> None:
    """The byte target follows what the server takes and recovers by successes."""
    book = Book(flush_queue_size=1)
    book.add(many(100), size=999)
    book.answer(book.take(slots=1), TOO_LARGE)
    for _ in range(2):
        book.answer(book.take(slots=1), OK)
    sizes = []

    for number in range(60):
        book.add(many(200, f"n{number}n"), size=999)
        group = book.take(slots=1)
        sizes.append(len(sent(group)))
        book.answer(group, OK)
        book.write_down(book.schedule.purge(list))

    assert 50 <= sizes[0] < 60
    assert sizes == sorted(sizes)
    assert sizes[-1] > 100


# Named faults -----------------------------------------------------------------------


def test_named_events_are_rejected_and_the_rest_goes_again_at_once() -> None:
    """Nobody else's attempts are touched."""
    book = Book(flush_max_retries=0)
    book.add("a1 b1 c1 d1")
    book.answer(book.take(), naming(1, 2))

    assert book.ends(DeliveryStatus.REJECTED) == ["b1", "c1"]
    assert book.settled["b1"] == Outcome.rejected("bad field", 400, 1)
    rest = book.take(eager=False)
    assert sent(rest) == ["a1", "d1"]
    book.answer(rest, OK)
    assert book.settled["a1"].attempts == 1


def test_an_index_that_means_no_event_is_ignored() -> None:
    """What lies beyond the batch names nobody."""
    book = Book()
    book.add("a1 b1")
    book.answer(book.take(), naming(1, 2, -1, slow=(5, -3)))

    assert book.ends(DeliveryStatus.REJECTED) == ["b1"]
    assert book.schedule.held == 0


def test_a_server_that_names_one_event_at_a_time_is_met_by_halves() -> None:
    """After three rounds the batch is split, so a good half gets through."""
    book = Book()
    names = many(64).split()
    book.add(" ".join(names))
    bad = set(names[:6])

    def server(sent_names: list[str]) -> Verdict:
        found = [i for i, name in enumerate(sent_names) if name in bad]
        return naming(found[0]) if found else OK

    requests = book.run(server)

    assert set(book.ends(DeliveryStatus.REJECTED)) == bad
    assert len(book.ends(DeliveryStatus.DELIVERED)) == 58
    assert [len(names) for names in book.requests[:5]] == [64, 63, 62, 31, 30]
    assert requests <= 6 + 8


# Throttles --------------------------------------------------------------------------


def test_a_throttled_identity_is_held_alone() -> None:
    """Its neighbours go on at once; its own later events wait with it."""
    book = Book()
    book.add("a1 b1 a2 c1")
    book.answer(book.take(), naming(slow=(0,), code=429))
    assert book.schedule.held == 2

    rest = book.take(eager=False)
    assert sent(rest) == ["b1", "c1"]
    book.answer(rest, OK)
    book.add("a3 b2")
    assert sent(book.take()) == ["b2"]
    assert book.schedule.held == 3
    quiet(book, 30.0)
    for names in (["a1", "a2"], ["a3"]):
        lane = book.take(eager=False)
        assert sent(lane) == names
        book.answer(lane, OK)


def test_a_throttle_costs_no_attempt() -> None:
    """Ages limit a throttled event, retries do not."""
    book = Book(flush_max_retries=0)
    book.add("a1")
    answers = iter([naming(slow=(0,), code=429)] * 4 + [OK])

    assert book.run(lambda _: next(answers)) == 5
    assert book.settled["a1"].attempts == 1
    assert book.schedule.held == 0


def test_a_lane_comes_back_small_and_doubles_until_it_is_free() -> None:
    """30 events, 60, 120: each success opens it, at once and one request at a time."""
    book = Book()
    book.add(series("a", 250))
    book.answer(book.take(slots=1), naming(slow=(7,), code=429))
    quiet(book, 30.0)
    sizes = []

    for _ in range(4):
        group = book.take()
        assert book.next(eager=True) is None
        sizes.append(len(sent(group)))
        book.answer(group, OK)

    assert sizes == [30, 60, 120, 40]
    assert book.schedule.held == 0
    assert book.ends(DeliveryStatus.DELIVERED) == series("a", 250).split()
    book.add(series("a", 250, start=251))
    assert len(sent(book.take(slots=1))) == 250


def test_a_lane_halves_at_each_further_throttle() -> None:
    """30, 15, 7, ... and never below one event, each after another hold."""
    book = Book()
    book.add(series("a", 100))
    book.answer(book.take(slots=1), naming(slow=(0,), code=429))
    sizes = []

    for _ in range(7):
        quiet(book, 30.0)
        group = book.take()
        sizes.append(len(sent(group)))
        book.answer(group, naming(slow=(0,), code=429))

    assert sizes == [30, 15, 7, 3, 1, 1, 1]
    assert book.schedule.held == 100


def test_several_identities_are_held_apart() -> None:
    """Each throttled identity has a lane of its own."""
    book = Book()
    book.add("a1 b1 a2 b2")
    book.answer(book.take(), naming(slow=(0, 1), code=429))
    quiet(book, 30.0)

    assert [sent(book.take()), sent(book.take())] == [["a1", "a2"], ["b1", "b2"]]


def test_a_throttle_reaches_pieces_that_still_wait() -> None:
    """Events of the identity in the other half are held too, in order."""
    book = Book()
    book.add("a1 b1 a2 b2")
    book.answer(book.take(), TOO_LARGE)

    book.answer(book.take(), naming(slow=(0,), code=429))

    assert book.schedule.held == 2
    assert sent(book.take()) == ["b1"]


def test_quota_and_throttle_part_the_events_of_an_answer() -> None:
    """Over quota is final, throttled is held, the others go on."""
    book = Book()
    book.add("a1 b1 c1")
    book.answer(book.take(), naming(0, slow=(1,), code=429))

    assert book.settled["a1"].code == 429
    assert book.schedule.held == 1
    assert sent(book.take(eager=False)) == ["c1"]


def test_held_events_fill_at_most_half_of_the_capacity() -> None:
    """Beyond that the throttled identity's own newest events are shed."""
    book = Book(max_storage_capacity=20)
    book.add(series("a", 12))
    book.answer(book.take(), naming(slow=(0,), code=429))

    assert book.schedule.held == 10
    assert book.dropped(DropReason.OVERFLOW) == ["a11", "a12"]
    book.add("a13 b1")
    assert sent(book.take()) == ["b1"]
    assert book.dropped(DropReason.OVERFLOW) == ["a11", "a12", "a13"]
    assert "max_storage_capacity=20" in book.settled["a13"].message


def test_many_throttled_identities_keep_to_the_same_bound() -> None:
    """The bound is one for all lanes together."""
    book = Book(max_storage_capacity=20)
    book.add(many(15))
    book.answer(book.take(), naming(slow=tuple(range(15)), code=429))

    assert book.schedule.held == 10
    assert len(book.dropped(DropReason.OVERFLOW)) == 5


def test_held_events_keep_to_the_bound_while_the_oldest_make_room() -> None:
    """The oldest are looked out from lane and queue, and come back to the lane."""
    book = Book(max_storage_capacity=20)
    book.add(series("a", 10))
    book.answer(book.take(), naming(slow=(0,), code=429))
    assert book.schedule.held == 10

    book.add("a11 a12 a13 a14 a15")
    book.write_down(book.schedule.evict_oldest())
    assert book.next(eager=True) is None
    assert book.schedule.held == 10
    assert book.dropped(DropReason.OVERFLOW) == ["a1", "a15", "a14", "a13", "a12"]


def test_a_held_event_expires_like_any_other() -> None:
    """Throttles count against the age."""
    book = Book(max_age=100.0)
    book.add("a1")
    requests = book.run(always(naming(slow=(0,), code=429)))

    assert requests == 4
    assert book.dropped(DropReason.EXPIRED) == ["a1"]
    assert book.schedule.held == 0


def test_a_lane_survives_an_outage() -> None:
    """Held events stay in their lane while the destination fails, in order."""
    book = Book(max_batch_size=4)
    book.add("a1 a2 b1 c1")
    book.answer(book.take(), naming(slow=(0,), code=429))
    for _ in range(3):
        book.now += 5.0
        book.answer(book.take(), FAILED)
    book.add("a3")

    book.run(always(OK))

    delivered = book.ends(DeliveryStatus.DELIVERED)
    assert [name for name in delivered if name[0] == "a"] == ["a1", "a2", "a3"]
    assert book.schedule.held == 0


# Refusals ---------------------------------------------------------------------------


def test_a_refusal_rejects_all_that_waits_in_memory() -> None:
    """They get the server's code; a request under way has its own answer."""
    book = Book(max_batch_size=2)
    book.add("a1 b1 c1 d1 e1")
    first, second = book.take(), book.take()
    book.answer(first, REFUSED)

    assert health(book) is Health.REFUSED
    assert set(book.ends(DeliveryStatus.REJECTED)) == {"a1", "b1", "e1"}
    assert {o.code for o in book.settled.values()} == {401}
    book.answer(second, OK)
    assert book.schedule.size == 0


def test_a_refused_destination_is_probed_once_a_minute() -> None:
    """A spool is not consumed by a refusal: it waits, whole, for the key to work."""
    book = Book(durable=True)
    book.add(many(10))
    book.answer(book.take(), REFUSED)

    for _ in range(3):
        quiet(book, 60.0)
        probe = book.take()
        assert len(sent(probe)) == 1
        book.answer(probe, REFUSED)

    assert book.settled == {}
    quiet(book, 60.0)
    book.run(always(OK))
    assert len(book.ends(DeliveryStatus.DELIVERED)) == 10


def test_a_refusal_also_rejects_lanes_and_retries() -> None:
    """Held and backing-off events are waiting events."""
    book = Book(max_batch_size=2)
    book.add("a1 b1 c1 d1 e1 f1")
    first, second, third = book.take(), book.take(), book.take()
    book.answer(first, naming(slow=(0,), code=429))
    book.answer(second, FAILED)
    book.answer(third, REFUSED)

    assert len(book.ends(DeliveryStatus.REJECTED)) == 6
    assert book.schedule.held == 0
    assert book.next(eager=True) is None


# Ages -------------------------------------------------------------------------------


def test_a_waiting_event_expires() -> None:
    """In the queue by a timer and not by chance, elsewhere when its turn comes."""
    book = Book(max_age=60.0)
    book.add("a1")
    book.answer(book.take(), Busy(503, "HTTP 503", 300.0))
    book.add("b1")

    assert book.schedule.next_wake_at(book.now, book.wall) == book.now + 60.0
    book.now += 60.0
    assert book.next() is None
    assert book.dropped(DropReason.EXPIRED) == ["b1"]
    assert "max_event_age=60 s" in book.settled["b1"].message
    book.now += 240.0
    assert book.next() is None
    assert book.dropped(DropReason.EXPIRED) == ["b1", "a1"]


def test_an_expired_event_behind_a_younger_one_is_not_sent() -> None:
    """Whatever stands before it in the queue."""
    book = Book(max_age=60.0, max_batch_size=10)
    young, old = [
        Record(n, b"x", f"user-{n}", f"user-{n}", None, f"user-{n}", book.wall - age)
        for n, age in ((1, 0.0), (2, 61.0))
    ]
    book.added = 2
    book.schedule.add([young, old], book.now)

    assert sent(book.take()) == ["user-1"]
    assert book.dropped(DropReason.EXPIRED) == ["user-2"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_expired_event_is_sent(seed: int) -> None:
    """In queue, piece or lane: its end may be late, its request never is."""
    dice = random.Random(seed)
    book = Book(seed=seed, max_age=60.0, max_batch_size=dice.choice([2, 8, 64]))
    throttled = naming(slow=(0,), code=429)
    held = Busy(503, "HTTP 503", 300.0)
    answers: list[Verdict] = [
        OK,
        FAILED,
        UNAVAILABLE,
        held,
        TOO_LARGE,
        UNNAMED,
        throttled,
        naming(0),
    ]
    born: dict[str, float] = {}
    for _ in range(150):
        for _ in range(dice.randrange(4)):
            name = f"{dice.choice('abcdefgh')}{book.added}"
            book.add(name)
            born[name] = book.now
        group = book.next(eager=True)
        if group is None:
            book.now += dice.choice([1.0, 5.0, 30.0])
        else:
            assert min(born[name] for name in sent(group)) > book.now - 60.0
            book.answer(group, dice.choice(answers))

    assert book.dropped(DropReason.EXPIRED)


def test_events_that_back_off_expire() -> None:
    """An expired event is not sent again; what is parked behind it goes."""
    book = Book(max_age=5.0, retry_base_interval=10.0)
    book.add("a1 b1")
    book.answer(book.take(), FAILED)
    book.now += 4.0
    book.add("a2")
    assert book.next(eager=True) is None
    book.now += 6.0
    book.add("b2")

    assert book.dropped(DropReason.EXPIRED) == []
    # a2 is too old by now as well.
    assert book.run(always(OK)) == 1
    assert set(book.dropped(DropReason.EXPIRED)) == {"a1", "b1", "a2"}
    assert book.ends(DeliveryStatus.DELIVERED) == ["b2"]


def test_what_is_parked_behind_expired_events_is_not_forgotten() -> None:
    """Freed events are due at once: they had waited before they were parked."""
    book = Book(max_age=10.0, retry_base_interval=10.0)
    book.add("a1")
    group = book.take()
    book.now += 6.0
    book.add("a2")
    assert book.next(eager=True) is None
    book.answer(group, Busy(503, "HTTP 503", 5.0))
    book.schedule.health.succeeded(book.now, book.now)
    book.now += 5.0

    book.schedule.health.pace.next_at = book.now
    assert sent(book.take(eager=False)) == ["a2"]
    assert book.dropped(DropReason.EXPIRED) == ["a1"]


# The client-side limit --------------------------------------------------------------


def test_a_client_side_limit_shapes_the_flow() -> None:
    """A burst of one second, then events as the rate allows."""
    book = Book(max_events_per_second=10.0)
    book.add(many(25))
    begun = book.now

    book.run(always(OK))

    assert len(book.requests[0]) == 10
    assert book.now - begun == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("rate", [0.3, 1.0, 3.0, 7.7])
def test_an_odd_rate_never_spins(rate: float) -> None:
    """Rounding cannot make the schedule promise a time at which nothing may go."""
    book = Book(max_events_per_second=rate)
    book.add(many(20))

    assert book.run(always(OK), most=20) <= 20


# Removing ---------------------------------------------------------------------------


def of(*identities: str) -> Choose:
    """Return a choice of the events of some identities."""
    return lambda records: [r for r in records if r.identity in identities]


def test_a_purge_reaches_whatever_is_not_in_flight() -> None:
    """Queued, parked, held and backing-off events of the user are given up."""
    book = Book(max_batch_size=2)
    book.add("a1 b1 c1 a2")
    first = book.take()
    book.answer(first, naming(slow=(0,), code=429))
    under_way = book.take()
    assert sent(under_way) == ["b1"]
    book.add("a3 b2")

    book.write_down(book.schedule.purge(of("a", "b")))
    book.check()

    assert set(book.dropped(DropReason.PURGED)) == {"a1", "a2", "a3", "b2"}
    assert book.schedule.held == 0
    book.answer(under_way, OK)
    assert sent(book.take()) == ["c1"]


def test_a_purge_frees_those_parked_behind_the_purged() -> None:
    """An event that waited only for a purged one is due at once."""
    book = Book()
    book.add("a1")
    group = book.take()
    book.add("a2")
    assert book.next(eager=True) is None
    book.answer(group, FAILED)

    book.write_down(
        book.schedule.purge(lambda records: [r for r in records if r.insert_id == "a1"])
    )
    book.check()

    book.now += 60.0
    assert sent(book.take(eager=False)) == ["a2"]


def test_the_oldest_event_makes_room() -> None:
    """By order of acceptance, wherever it waits: in the queue, backing off or held."""
    book = Book()
    book.add("a1 b1")
    book.answer(book.take(), naming(slow=(0,), code=429))
    under_way = book.take()
    book.add("c1 d1")
    evicted = []

    while settlements := book.schedule.evict_oldest():
        book.write_down(settlements)
        book.check()
        evicted += [record.insert_id for record, _ in settlements]

    assert evicted == ["a1", "c1", "d1"]
    assert book.dropped(DropReason.OVERFLOW) == ["a1", "c1", "d1"]
    assert book.schedule.held == 0
    book.answer(under_way, OK)
    assert book.schedule.size == 0


def test_eviction_frees_those_parked_behind_the_evicted() -> None:
    """The next event of the identity is not left behind."""
    book = Book()
    book.add("a1")
    group = book.take()
    book.add("a2")
    assert book.next(eager=True) is None
    book.answer(group, FAILED)

    book.write_down(book.schedule.evict_oldest())
    book.check()

    assert book.dropped(DropReason.OVERFLOW) == ["a1"]
    book.now += 60.0
    assert sent(book.take(eager=False)) == ["a2"]


def test_an_interrupted_request_blames_nobody() -> None:
    """Taken back, its events go again first, with no attempt counted."""
    book = Book()
    book.add("a1 b1")
    group = book.take()
    book.add("a2")

    book.schedule.take_back(group, book.now)
    book.check()

    again = book.take(eager=False)
    assert sent(again) == ["a1", "b1", "a2"]
    book.answer(again, OK)
    assert {o.attempts for o in book.settled.values()} == {1}


def test_an_interrupted_lane_stays_a_lane() -> None:
    """Taking back does not set a throttled identity free."""
    book = Book()
    book.add(series("a", 40))
    book.answer(book.take(), naming(slow=(0,), code=429))
    quiet(book, 30.0)
    group = book.take()

    book.schedule.take_back(group, book.now)
    book.check()

    assert book.schedule.held == 40
    assert len(sent(book.take())) == 30


def test_a_batch_that_kills_its_sender_three_times_is_given_up() -> None:
    """Two more tries with backoff; then DROPPED internal, and others go on."""
    book = Book(max_batch_size=2)
    book.add("a1 b1 c1")
    for _ in range(3):
        group = book.take()
        assert sent(group) == ["a1", "b1"]
        book.write_down(book.schedule.crashed(group, book.now))
        book.check()
        book.now += 60.0

    assert book.dropped(DropReason.INTERNAL) == ["a1", "b1"]
    assert book.run(always(OK)) == 1


def test_a_crash_waits_before_the_next_try() -> None:
    """A fault of ours makes no hot loop either."""
    book = Book()
    book.add("a1")
    book.write_down(book.schedule.crashed(book.take(), book.now))

    quiet(book, 0.1)
    assert sent(book.take()) == ["a1"]


# The end ----------------------------------------------------------------------------


def test_a_last_call_sends_what_was_held_back() -> None:
    """Held, backing off, lingering: everything gets one more request."""
    book = Book(max_batch_size=2)
    book.add("a1 b1 c1 d1")
    first, second = book.take(), book.take()
    book.answer(first, naming(slow=(0,), code=429))
    book.answer(second, Busy(503, "HTTP 503", 300.0))
    book.add("e1")

    assert book.schedule.last_call(book.now)
    book.check()
    while (group := book.next()) is not None:
        book.answer(group, OK)

    assert set(book.ends(DeliveryStatus.DELIVERED)) == {"a1", "b1", "c1", "d1", "e1"}


@pytest.mark.parametrize(
    "verdict",
    [FAILED, SLOW, UNNAMED, TOO_LARGE, naming(0), naming(slow=(0,)), REFUSED],
    ids=lambda verdict: type(verdict).__name__,
)
@pytest.mark.parametrize("failing", [False, True], ids=["healthy", "failing"])
def test_a_last_call_ends_whatever_the_server_says(
    verdict: Verdict, failing: bool
) -> None:
    """The number of its requests is bounded, and what is left can be taken out."""
    book = Book(max_batch_size=8, durable=True)
    book.add(many(16))
    if failing:
        book.answer(book.take(), Busy(503, "HTTP 503", 300.0))
    book.schedule.last_call(book.now)

    for _ in range(100):
        group = book.next()
        if group is None:
            break
        book.answer(group, verdict)
    else:
        pytest.fail("a storm of requests")

    left = book.schedule.remove_all()
    assert len(left) == len({record.id for record in left})
    assert len(left) + len(book.settled) == 16
    assert book.schedule.size == 0
    assert book.schedule.held == 0


def test_a_last_call_counts_lanes_that_are_under_way() -> None:
    """An answer that comes after the last call leaves the account in order."""
    book = Book()
    book.add("a1 a2")
    book.answer(book.take(), naming(slow=(0,), code=429))
    quiet(book, 30.0)
    lane = book.take()

    book.schedule.last_call(book.now)
    book.check()
    book.answer(lane, OK)

    assert book.schedule.held == 0
    assert book.schedule.size == 0


def test_no_last_call_where_nothing_can_come_of_it() -> None:
    """An empty schedule has no use for it, nor has one that is refused."""
    empty, refused = Book(), Book(durable=True)
    refused.add("a1")
    refused.answer(refused.take(), REFUSED)

    assert not empty.schedule.last_call(empty.now)
    assert not refused.schedule.last_call(refused.now)


def test_all_that_is_left_can_be_taken_out() -> None:
    """Queued, parked, held and backing off; never what is in flight."""
    book = Book(max_batch_size=3)
    book.add("a1 b1 c1 d1")
    book.answer(book.take(), naming(slow=(0,), code=429))
    under_way = book.take()
    book.add("b2 a2")

    left = {record.insert_id for record in book.schedule.remove_all()}

    assert left == {"a1", "a2", "b2", "d1"}
    assert book.schedule.size == len(sent(under_way)) == 2


def test_group_reprs_name_no_event() -> None:
    """What a debugger shows is sizes."""
    book = Book()
    book.add("a1 b1")

    assert repr(book.take()) == "<Group out [2] parked=0>"
