"""The rate meter counts what was admitted within its window."""

from __future__ import annotations

import pytest

from amplitude_async.emulator.rates import RateMeter


def test_window_slides() -> None:
    """Events leave the count a window after they were admitted."""
    meter = RateMeter(10, window=1.0)
    assert meter.admit({"a": 6}, 0.0) == {}
    assert meter.admit({"a": 5}, 0.5) == {"a": 11}
    assert meter.admit({"a": 4}, 0.5) == {}
    assert meter.admit({"a": 6}, 1.0) == {}
    assert meter.admit({"a": 10}, 2.0) == {}


def test_refused_events_count_for_nobody() -> None:
    """A refusal counts neither the fast identity nor its neighbours."""
    meter = RateMeter(3)
    assert meter.admit({"fast": 4, "calm": 3}, 0.0) == {"fast": 4}
    assert meter.admit({"calm": 3}, 0.0) == {}


def test_longer_window_averages() -> None:
    """A burst is fine as long as the average over the window is."""
    meter = RateMeter(10, window=3.0)
    assert meter.admit({"a": 30}, 0.0) == {}
    assert meter.admit({"a": 30}, 1.0) == {"a": 20}


def test_clear_forgets() -> None:
    """After a clear everybody starts at zero."""
    meter = RateMeter(1)
    meter.admit({"a": 1}, 0.0)
    meter.clear()
    assert meter.admit({"a": 1}, 0.0) == {}


@pytest.mark.parametrize(
    ("threshold", "window", "name"),
    [(0, 1.0, "eps_threshold"), (1, 0.0, "eps_window"), (1, -1.0, "eps_window")],
)
def test_numbers_must_be_positive(threshold: float, window: float, name: str) -> None:
    """A rate or window of zero is an error that names it."""
    with pytest.raises(ValueError, match=name):
        RateMeter(threshold, window)
