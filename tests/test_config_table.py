"""The page of options says what the model says."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from amplitude_async import Config
from amplitude_async.config import read_environment

__all__: list[str] = []

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """Yield the script that writes the table, loaded as a module."""
    path = ROOT / "scripts" / "config_table.py"
    spec = importlib.util.spec_from_file_location("config_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["config_table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["config_table"]


def cells(table: str) -> list[list[str]]:
    """Return the cells of each row below the head."""
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def test_the_page_holds_the_table_of_the_model(script: ModuleType) -> None:
    """A change of an option that the page does not tell of fails here.

    The remedy: ``python scripts/config_table.py --write``.
    """
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert page == script.page_with(page, script.table())


def test_every_option_has_one_row_with_a_meaning(script: ModuleType) -> None:
    """No option is left out, and none stands there without an explanation."""
    rows = cells(script.table())

    assert sorted(row[0].strip("`") for row in rows) == sorted(Config.model_fields)
    assert [row[0] for row in rows if not (row[1] and row[2] and row[4])] == []


def test_the_variables_shown_are_those_that_are_read(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable of the table is read by `from_env`, and no other one is."""
    for name in Config.model_fields:
        monkeypatch.setenv(f"AMPLITUDE_{name.upper()}", "{}")

    shown = {row[0].strip("`"): row[3].strip("`") for row in cells(script.table())}

    assert {name for name, variable in shown.items() if variable} == set(
        read_environment(Config, "AMPLITUDE_")
    )


def test_the_script_prints_the_table(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an argument nothing is written."""
    script.main([])

    assert capsys.readouterr().out == script.table()


def test_a_page_without_marks_is_refused(script: ModuleType) -> None:
    """A lost mark is named instead of a table that goes nowhere."""
    with pytest.raises(ValueError, match="put back"):
        script.page_with("# Configuration\n", "")
