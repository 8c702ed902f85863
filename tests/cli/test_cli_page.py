"""The command line as a whole: its page in the docs, help, narrow terminals, pipes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from amplitude_async.cli.app import app

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
ROW = re.compile(r"^\| `(\w+)` \| `(-[^`]+)` \| (.+) \|$", re.MULTILINE)
TIMEOUT = 60.0
COMMANDS = ("dev", "emulator", "demo", "send", "tail", "doctor")


def commands() -> dict[str, Any]:
    """Return the commands by name."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def options() -> list[tuple[str, str, str]]:
    """Return command, option and meaning as the program has them."""
    return [
        (name, ", ".join(one.opts), one.help)
        for name in COMMANDS
        for one in commands()[name].params
        if one.param_type_name == "option" and "--help" not in one.opts
    ]


def test_the_page_lists_the_options_that_there_are() -> None:
    """Each option with its words, in order, and no other."""
    assert ROW.findall(PAGE.read_text(encoding="utf-8")) == options()


def test_the_page_names_each_command() -> None:
    """A command that was added or renamed is on the page."""
    named = re.findall(r"^\| `(\w+)` \| [^`-]", PAGE.read_text(), re.MULTILINE)

    assert {*COMMANDS, "spool"} <= set(named)


def test_the_exit_codes_on_the_page_are_those_of_the_help() -> None:
    """Who reads one reads the same as who reads the other."""
    page = PAGE.read_text(encoding="utf-8")
    table = page.split("## Exit codes")[1].split("##")[0]
    told = {
        name: set(
            re.findall(r"\b(\d+) ", commands()[name].help.split("Exit codes:")[1])
        )
        for name in COMMANDS
    }
    rows = [
        (code, cells.split("|"))
        for code, cells in re.findall(
            r"^\| (\d+)[\d, ]* \|(.*)\|$", table, re.MULTILINE
        )
    ]
    for place, name in enumerate(COMMANDS):
        listed = {code for code, cells in rows if cells[place].strip()} - {"141"}
        assert listed == told[name], name


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_into_60_columns(
    words: list[str], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short and long, without colours where none are wanted."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    result = CliRunner().invoke(app, [*words, flag])

    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 60
    assert "\x1b" not in result.stdout


def test_completion_is_offered() -> None:
    """The shell can learn the commands."""
    result = CliRunner().invoke(app, ["-h"])

    assert "--install-completion" in result.stdout


@pytest.mark.parametrize("words", [("demo", "--limit", "20"), ("send", "-h")])
def test_a_closed_pipe_is_no_traceback(words: tuple[str, ...]) -> None:
    """As in `demo | head`: nothing on standard error, and the code of SIGPIPE."""
    process = subprocess.Popen(
        [sys.executable, "-m", "amplitude_async", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    try:
        shown = process.stderr.read()
        code = process.wait(TIMEOUT)
    finally:
        process.kill()
        process.stderr.close()

    assert (code, shown) == (141, "")
