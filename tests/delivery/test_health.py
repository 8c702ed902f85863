"""How well a destination is, and how fast it may be asked."""

import math
import random

import pytest

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.health import Condition, Health, TokenBucket

__all__: list[str] = []

NOW = 1_000.0


def health(**options: float) -> Condition:
    """Return a state that draws the longest wait each time."""
    return Condition(DeliveryConfig.model_validate(options), max)


def test_a_new_destination_is_healthy() -> None:
    """Nothing is known against it."""
    state = health()

    assert state.state is Health.HEALTHY
    assert state.not_before == -math.inf


@pytest.mark.parametrize(
    ("failures", "ceiling"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (10, 51.2), (11, 60.0), (12, 60.0), (5_000, 60.0)],
)
def test_backoff_doubles_up_to_its_cap_with_full_jitter(
    failures: int, ceiling: float
) -> None:
    """A wait is drawn between a floor above zero and the doubled ceiling."""
    state = Condition(DeliveryConfig(), random.Random(7).uniform)

    waits = [state.backoff(failures) for _ in range(500)]

    assert ceiling / 10 <= min(waits) < ceiling * 0.2
    assert ceiling * 0.9 < max(waits) <= ceiling


@pytest.mark.parametrize("broken", [False, True])
def test_three_failures_in_a_row_are_a_failing_destination(*, broken: bool) -> None:
    """The third one leaves one request at a time; each makes the pause longer."""
    state = health()
    seen = []
    now = NOW
    for _ in range(5):
        state.slowed(now, now, broken=broken)
        seen.append((state.state, state.not_before - now, state.places))
        now = state.not_before

    assert [s for s, _, _ in seen[:2]] == [Health.HEALTHY] * 2
    assert [s for s, _, _ in seen[2:]] == [Health.FAILING] * 3
    assert [places for _, _, places in seen[2:]] == [1, 1, 1]
    waits = [wait for _, wait, _ in seen]
    assert waits == sorted(waits)
    assert waits[0] >= 0.1
    assert waits[4] == pytest.approx(16 * waits[0])


def test_only_broken_requests_make_it_ask_with_single_events() -> None:
    """A busy server is asked with what it was busy for."""
    for broken in (False, True):
        state = health()
        for now in (NOW, NOW + 10.0, NOW + 20.0):
            state.slowed(now, now, broken=broken)
        assert state.probes is broken


def test_answers_of_one_moment_are_one_trouble() -> None:
    """Four requests that were out together slow down once."""
    state = health()
    for answered in (NOW + 0.1, NOW + 0.2, NOW + 0.3):
        state.slowed(answered, NOW, broken=False)

    assert state.state is Health.HEALTHY
    assert state.pace.failures == 1


def test_a_hold_is_kept_through_a_success() -> None:
    """A server that asks for a wait means it, whatever else it answers meanwhile."""
    state = health()
    state.hold(NOW + 20.0)
    state.succeeded(NOW, NOW - 1.0)

    assert state.not_before == NOW + 20.0


def test_how_long_nothing_was_taken_counts_from_the_first_failure() -> None:
    """A hiccup is told from an outage by its length."""
    state = health()
    assert not state.takes_nothing(NOW, 0.0)
    state.slowed(NOW, NOW, broken=True)
    state.slowed(NOW + 5.0, NOW + 5.0, broken=True)
    assert not state.takes_nothing(NOW + 1.0, 1.0)
    assert state.takes_nothing(NOW + 1.1, 1.0)

    state.succeeded(NOW + 6.0, NOW + 6.0)
    assert not state.takes_nothing(NOW + 60.0, 1.0)


def test_one_success_makes_all_well() -> None:
    """No failure before it counts any more."""
    state = health()
    now = NOW
    for _ in range(4):
        state.slowed(now, now, broken=True)
        now = state.not_before
    state.succeeded(now, now)

    assert state.state is Health.HEALTHY
    assert state.pace.failures == 0
    assert not state.broken
    state.slowed(now, now, broken=True)
    assert state.state is Health.HEALTHY


def test_who_refused_us_and_now_does_not_answer_is_failing() -> None:
    """Then it is not our key that is in the way."""
    state = health()
    state.refused(NOW, 401, "HTTP 401")
    state.slowed(NOW + 60.0, NOW + 60.0, broken=False)

    assert state.state is Health.FAILING


def test_a_refusal_is_remembered_and_probed_after_a_minute() -> None:
    """Code and words are kept for the events that meet it."""
    state = health()
    state.refused(NOW, 401, "HTTP 401")

    assert state.state is Health.REFUSED
    assert (state.refusal_code, state.refusal_message) == (401, "HTTP 401")
    assert state.not_before == NOW + 60.0


def test_a_long_row_of_fruitless_answers_slows_down() -> None:
    """One bisection passes unhindered; what goes on after it is braked."""
    state = health()

    for _ in range(12):
        state.fruitless(NOW)
    assert state.not_before == -math.inf
    assert state.state is Health.HEALTHY

    for _ in range(4):
        state.fruitless(NOW)
    assert state.not_before == pytest.approx(NOW + 0.8)
    state.succeeded(NOW, NOW)
    state.fruitless(NOW)
    assert state.not_before == -math.inf


def test_without_a_limit_the_bucket_is_bottomless() -> None:
    """No rate, no wait."""
    bucket = TokenBucket(None)
    bucket.spend(10**9)

    assert bucket.available(NOW) == math.inf
    assert bucket.next_at(NOW) == NOW


def test_a_bucket_allows_a_burst_of_one_second_and_refills() -> None:
    """Ten at once, then one each tenth of a second, never more than ten saved up."""
    bucket = TokenBucket(10.0)

    assert bucket.available(NOW) == 10.0
    bucket.spend(10)
    assert bucket.next_at(NOW) == pytest.approx(NOW + 0.1)
    assert bucket.available(NOW + 0.5) == pytest.approx(5.0)
    assert bucket.available(NOW + 60.0) == 10.0


def test_a_rate_below_one_still_lets_single_events_go() -> None:
    """One event each two seconds at half an event a second."""
    bucket = TokenBucket(0.5)

    assert bucket.available(NOW) == 1.0
    bucket.spend(1)
    assert bucket.next_at(NOW) == NOW + 2.0
    assert bucket.next_at(NOW + 2.0) == NOW + 2.0


def test_a_clock_that_stands_still_gives_nothing_away() -> None:
    """Asking often does not fill the bucket."""
    bucket = TokenBucket(10.0)
    bucket.available(NOW)
    bucket.spend(10)

    assert [bucket.available(NOW) for _ in range(3)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [0.1, 0.3, 3.0, 7.7, 1e6])
def test_the_moment_promised_is_the_moment_kept(rate: float) -> None:
    """At the time that ``next_at`` names an event may go, whatever is rounded."""
    bucket = TokenBucket(rate)
    now = 123_456.789
    for _ in range(200):
        bucket.available(now)
        bucket.spend(max(int(bucket.available(now)), 1))
        now = bucket.next_at(now)
        assert bucket.next_at(now) == now
