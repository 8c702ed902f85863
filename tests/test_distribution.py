"""What goes out with a release: its papers, and what they say of themselves."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from tests.cli.test_hostile_spools import COMMANDS, SEEDS
from tests.faults.hostile_server import ATTACKS

__all__: list[str] = []

ROOT = Path(__file__).parents[1]


@pytest.fixture
def included() -> set[str]:
    """Return what the source distribution is told to hold, beside its defaults."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    targets = project["tool"]["hatch"]["build"]["targets"]
    return {name.lstrip("/") for name in targets["sdist"]["include"]}


@pytest.mark.parametrize(
    "name", ["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"]
)
def test_the_source_distribution_holds_its_papers(
    name: str, included: set[str]
) -> None:
    """Who has the source has what was promised about it."""
    assert name in included
    assert (ROOT / name).is_file()


def test_all_that_is_included_exists(included: set[str]) -> None:
    """A file that was moved is not left out in silence."""
    assert [name for name in included if not (ROOT / name).exists()] == []


def test_the_security_page_tells_how_many_attacks_there_are() -> None:
    """Its exact numbers are those of the tests, and the tests it names exist."""
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"| {len(ATTACKS)}, four at once |" in page
    assert f"| {len(COMMANDS) * len(SEEDS)} | no traceback" in page
    named = re.findall(r"`(tests/[\w/]+\.py)`", page)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_purchase_log_names_its_source_and_terms() -> None:
    """Data of others goes with a note of whose it is."""
    folder = files("amplitude_async.cli.demo") / "data"
    note = (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "cdnow_sample.txt").is_file()
    assert "Source: " in note
    assert "Terms: " in note
