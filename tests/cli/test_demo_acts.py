"""How the demo is shown: in acts, with counters, and a page that stays up."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from rich.console import Console

from amplitude_async.cli.demo.crash import run_crash_demo
from amplitude_async.cli.demo.purchases import parse_log, sample_log
from amplitude_async.cli.demo.run import run_demo
from amplitude_async.cli.demo.stage import Show

__all__: list[str] = []

TIMEOUT = 100.0
DEMO = (sys.executable, "-m", "amplitude_async", "demo")
PURCHASES = parse_log(
    "00004 1 19970101 2 29.33\n00021 2 19970101 3 63.34\n00004 1 19970118 1 0.00",
    "log",
)


def show(
    total: int, *, terminal: bool = False, width: int = 60
) -> tuple[Show, Console]:
    """Return a stage and its screen."""
    console = Console(
        file=io.StringIO(),
        width=60,
        force_terminal=terminal,
        no_color=True,
        legacy_windows=False,
    )
    return Show(console, total), console


def seen(console: Console) -> str:
    """Return all that was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_the_acts_are_lines_where_there_is_no_terminal() -> None:
    """Each with its title, and how the counters stood at its end."""
    stage, console = show(3)
    report = await run_demo(PURCHASES, stage=stage)

    lines = seen(console)
    assert report.ok
    assert re.findall(r"^Act (\d): ", lines, re.MULTILINE) == ["1", "2", "3", "4"]
    assert "3 purchases of 2 customers are posted" in lines
    assert re.search(r"^  3 tracked, \d delivered, \d+ requests, ", lines, re.MULTILINE)
    assert re.search(r"^  3 tracked, 3 delivered, 1 requests", lines, re.MULTILINE)
    assert max(map(len, lines.splitlines())) <= 60
    assert "\x1b" not in lines


@pytest.mark.allow_blocking  # a process is started
async def test_the_crash_is_an_act(tmp_path: Path) -> None:
    """One learns when the service was killed while it happens."""
    stage, console = show(60)
    report = await run_crash_demo(sample_log()[:60], tmp_path, stage=stage)

    lines = seen(console)
    assert report.ok
    assert re.search(r"^Act 3: the service is killed at purchase", lines, re.MULTILINE)
    assert re.search(r"^  60 posted, 60 stored, ", lines, re.MULTILINE)
    assert "Act 5: " in lines


async def test_on_a_terminal_the_counters_move() -> None:
    """They are drawn again in place, beside a bar; at the end a line remains."""
    stage, console = show(2, terminal=True)
    counted = {"tracked": 0}
    drawn = asyncio.Event()

    def counters() -> Mapping[str, int]:
        if counted["tracked"]:
            drawn.set()
        return counted

    async with stage.lit():
        stage.act("it begins.")
        stage.watch(counters)
        stage.step()
        counted["tracked"] = 1
        await asyncio.wait_for(drawn.wait(), TIMEOUT)
        counted["tracked"] = 2

    text = seen(console)
    assert "1/2" in text
    assert "1 tracked" in text
    assert "  2 tracked" in text.splitlines()[-1]


def test_json_is_alone_on_standard_output() -> None:
    """Whoever reads it gets no acts."""
    finished = subprocess.run(
        [*DEMO, "--json", "--limit", "5"],
        capture_output=True,
        check=True,
        text=True,
        timeout=TIMEOUT,
    )

    assert json.loads(finished.stdout)["ok"] is True
    assert finished.stderr == ""


@contextmanager
def left_up(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the demo with `--open`; yield it and its page's address once all is done."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    process = subprocess.Popen(
        [*DEMO, "--open", *words],
        env={name: text for name, text in os.environ.items() if name not in names},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        line = process.stderr.readline()
        found = re.search(r"stays up: (http://\S+) - 2 customers to browse", line)
        assert found, line
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "number"), [((), signal.SIGINT), (("--crash",), signal.SIGTERM)]
)
def test_the_page_stays_up_until_ctrl_c(
    words: tuple[str, ...], number: signal.Signals
) -> None:
    """The customers of the log can be looked at; the exit code is the report's."""
    # No proxy of the environment for what is near.
    opener = build_opener(ProxyHandler({}))
    with left_up("--limit", "6", *words) as (process, url):
        with opener.open(f"{url}/_emulator/users", timeout=TIMEOUT) as answer:
            users = json.load(answer)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)

    assert len(users["users"]) == 2
    assert "All 6 purchases arrived" in out
    assert (process.returncode, err) == (0, "")
