"""The demo of a fleet, as a newcomer runs it: processes are killed, nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from amplitude_async.cli.demo.fleet.log_servers import (
    LogServersError,
    NatsServers,
    PostgresServer,
    servers,
)
from amplitude_async.cli.demo.fleet.scene import Comparison
from amplitude_async.cli.demo.fleet.show import FleetReport
from tests.fleet.real_servers import REQUIRED

LIMIT = 170


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "amplitude_async", "demo", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["postgres", "nats"])
def test_one_of_each_is_killed_and_nothing_is_lost(kind: str) -> None:
    """A relay, the log's leader and a producer are killed, on a real log."""
    done = demo("--fleet", kind, "--json")
    if "cannot start a log" in done.stderr and not REQUIRED:
        pytest.skip(f"NO SERVER: the demo on {kind} is NOT tested: {done.stderr}")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert len(report["killed"]) == 3
    assert report["confirmed"] > 3_000
    assert (report["lost"], report["reordered"], report["troubles"]) == (0, 0, [])


def test_it_goes_with_no_other_show() -> None:
    """Whoever mixes it up is told, before anything starts."""
    done = demo("--fleet", "nats", "--chaos")

    assert done.returncode == 2
    assert "leave the rest out" in done.stderr


def test_there_are_two_kinds_of_logs(tmp_path: Path) -> None:
    """Others are refused by name."""
    assert isinstance(servers("postgres", tmp_path), PostgresServer)
    assert isinstance(servers("nats", tmp_path), NatsServers)
    with pytest.raises(LogServersError, match="kafka"):
        servers("kafka", tmp_path)


@pytest.mark.parametrize(
    ("found", "ok"),
    [
        (Comparison(10, 10, 0, 0, 3), True),
        (Comparison(10, 9, 1, 0, 0), False),
        (Comparison(10, 10, 0, 1, 0), False),
        (Comparison(10, 10, 0, 0, 0, ["unbalanced"]), False),
    ],
)
def test_the_verdict_is_that_of_the_figures(found: Comparison, ok: bool) -> None:
    """What was sent twice is no loss; anything else is told as what it is."""
    report = FleetReport("nats", 12.0, ["a relay"], found)

    assert report.ok is ok
    assert report.as_json()["ok"] is ok
    assert ("Nothing was lost." in report.lines()[-1]) is ok
