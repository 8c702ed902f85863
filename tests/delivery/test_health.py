"""How well a destination is, and how fast it may be asked."""

import math
import random

import pytest

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.health import Health, HealthState, TokenBucket

__all__: list[str] = []

NOW = 1_000.0


def health(**options: float) -> Health:
    """Return a state that draws the longest wait each time."""
    return Health(DeliveryConfig.model_validate(options), max)


def test_a_new_destination_is_healthy() -> None:
    """Nothing is known against it."""
    state = health()

    assert state.state is HealthState.HEALTHY
    assert state.not_before == -math.inf


@pytest.mark.parametrize(
    ("failures", "ceiling"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (10, 51.2), (11, 60.0), (12, 60.0), (5_000, 60.0)],
)
def test_backoff_doubles_up_to_its_cap_with_full_jitter(
    failures: int, ceiling: float
) -> None:
    """A wait is drawn between a floor above zero and the doubled ceiling."""
    state = Health.seeded(DeliveryConfig(), random.Random(7))

    waits = [state.backoff(failures) for _ in range(500)]

    assert ceiling / 10 <= min(waits) < ceiling * 0.2
    assert ceiling * 0.9 < max(waits) <= ceiling


def test_three_failures_in_a_row_are_a_failing_destination() -> None:
    """The third one changes the state and starts the backoff."""
    state = health()
    seen = []

    for _ in range(5):
        state.failed(NOW, None)
        seen.append((state.state, state.not_before - NOW))

    assert seen[:2] == [(HealthState.HEALTHY, -math.inf)] * 2
    assert [s for s, _ in seen[2:]] == [HealthState.FAILING] * 3
    assert [wait for _, wait in seen[2:]] == pytest.approx([0.1, 0.2, 0.4])


def test_a_retry_after_counts_at_once_and_is_kept() -> None:
    """A server that asks for a wait has said that it is not well."""
    state = health()
    state.failed(NOW, 20.0)

    assert state.state is HealthState.FAILING
    assert state.not_before == NOW + 20.0


def test_a_short_retry_after_does_not_shorten_the_backoff() -> None:
    """Whichever wait is longer."""
    state = health()
    for _ in range(10):
        state.failed(NOW, 0.0)

    assert state.not_before == pytest.approx(NOW + 12.8)


@pytest.mark.parametrize(("asked", "wait"), [(None, 30.0), (5.0, 5.0), (0.0, 0.1)])
def test_a_pause_waits_as_asked(asked: float | None, wait: float) -> None:
    """By default retry_throttled_interval, and never nothing."""
    state = health()
    state.paused(NOW, asked)

    assert state.state is HealthState.FAILING
    assert state.not_before == pytest.approx(NOW + wait)


def test_repeated_pauses_without_a_wait_grow() -> None:
    """A server that always says "at once" is believed less each time."""
    state = health()
    for _ in range(8):
        state.paused(NOW, 0.0)

    assert state.not_before == pytest.approx(NOW + 12.8)


def test_one_success_makes_all_well() -> None:
    """No failure before it counts any more."""
    state = health()
    for _ in range(4):
        state.failed(NOW, None)

    state.succeeded()

    assert state.state is HealthState.HEALTHY
    assert state.not_before == -math.inf
    state.failed(NOW, None)
    state.failed(NOW, None)
    assert state.state is HealthState.HEALTHY


def test_a_refusal_is_remembered_and_probed_after_a_minute() -> None:
    """Code and words are kept for the events that meet it."""
    state = health()
    state.refused(NOW, 401, "HTTP 401")

    assert state.state is HealthState.REFUSED
    assert (state.refusal_code, state.refusal_message) == (401, "HTTP 401")
    assert state.not_before == NOW + 60.0


def test_a_long_row_of_fruitless_answers_slows_down() -> None:
    """One bisection passes unhindered; what goes on after it is braked."""
    state = health()

    for _ in range(12):
        state.fruitless(NOW)
    assert state.not_before == -math.inf
    assert state.state is HealthState.HEALTHY

    for _ in range(4):
        state.fruitless(NOW)
    assert state.not_before == pytest.approx(NOW + 0.8)
    state.succeeded()
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
