"""The table of mParticle's situations names tests that exist."""

import re
from pathlib import Path

import pytest

__all__: list[str] = []

TESTS = Path(__file__).parent
ROWS = [
    line.split("|")[1:4]
    for line in (TESTS / "situations.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d", line)
]


@pytest.mark.parametrize(("number", "situation", "tests"), ROWS)
def test_a_situation_has_a_test(number: str, situation: str, tests: str) -> None:
    """Each situation is held by a test that is there."""
    named = re.findall(r"`(\w+\.py)::(\w+)`", tests)
    assert named, f"{number}: {situation}"
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text("utf-8")


def test_no_situation_is_missing() -> None:
    """The table is complete."""
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 65))
