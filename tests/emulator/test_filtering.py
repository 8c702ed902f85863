"""What a person types to see some of the entries; the page keeps the same table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.emulator.filtering import MOST_CHARACTERS, MOST_WORDS, Filter

__all__: list[str] = []

TABLE: dict[str, Any] = json.loads(
    Path(__file__).with_name("filter_cases.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("typed", "expected"), TABLE["cases"])
def test_a_filter_finds_what_it_says(typed: str, expected: list[str]) -> None:
    """All words must hold, each as its key says."""
    wanted = Filter(typed)
    entries = TABLE["entries"].items()

    assert [name for name, entry in entries if wanted.holds(entry)] == expected


def test_all_properties_can_be_asked_for() -> None:
    """The preview shows three of them, and an event may have many more."""
    entry = TABLE["entries"]["bad"]

    assert Filter("deep:1").holds(entry, {"deep": "1"})
    assert not Filter("deep:1").holds(entry)
    assert Filter('cut:a"b c"*').holds(entry, {"cut": '"ab c and so on…'})


def test_a_filter_that_asks_nothing_says_so() -> None:
    """So nobody has to look at entries for it."""
    assert not Filter(' - user: ""')
    assert Filter("x")


def test_a_filter_has_bounds() -> None:
    """Nobody types that much, and each word costs time for each entry."""
    assert Filter("a " * MOST_WORDS)
    with pytest.raises(ValueError, match=f"q has 21 words: give at most {MOST_WORDS}"):
        Filter("a " * 21)
    assert Filter("a" * MOST_CHARACTERS)
    with pytest.raises(ValueError, match="q has 501 characters"):
        Filter("a" * 501)


def test_stars_cost_no_more_than_letters() -> None:
    """No pattern makes it look for a long time."""
    entry = {"name": "a" * 200}
    assert not Filter("type:" + "*a" * 200 + "*b").holds(entry)
