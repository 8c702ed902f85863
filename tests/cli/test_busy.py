"""The demo against a busy server: requests are refused, and nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

__all__: list[str] = []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "amplitude_async", "demo", "--busy", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=100.0,
    )


def test_the_whole_log_gets_through_a_busy_server() -> None:
    """The server refuses requests, and the sums agree to the cent."""
    finished = run("--json")

    report = json.loads(finished.stdout)
    sums = {
        "purchases": 6919,
        "customers": 2357,
        "units": 16479,
        "revenue": "244091.94",
    }
    assert (finished.returncode, report["problems"]) == (0, [])
    assert report["emulator"] == report["log"] == sums
    assert report["accepted"] == report["delivered"] == 6919
    assert report["customers_in_order"] == 2357
    assert report["balanced"]
    assert report["refused"] > 0
    assert report["requests"] == report["taken"] + report["refused"]
    assert report["refused"] == report["retries"]
    # Seven full batches hold the log: a refusal makes no request smaller.
    assert report["taken"] < 100


def test_the_table_tells_what_the_server_did() -> None:
    """The reader learns how many requests were taken and how many refused."""
    finished = run("--limit", "40")

    assert finished.returncode == 0
    assert "the server takes 2 requests a second" in finished.stdout
    for row in ("requests taken by the busy server", "requests refused by it (503)"):
        assert row in finished.stdout
    assert "All 40 purchases arrived, each once and in order" in finished.stdout


def test_a_missing_purchase_fails_it(tmp_path: Path) -> None:
    """A purchase that does not arrive is an exit code of 1, busy or not."""
    log = tmp_path / "log.txt"
    log.write_text("00004 0001 19970101 2 29.33\nundefined 0002 19970101 1 5.00\n")

    finished = run("--log", str(log))

    assert finished.returncode == 1
    assert "purchases at the emulator: 1, in the log: 2" in finished.stdout


@pytest.mark.parametrize("other", ["--chaos", "--crash", "--mparticle"])
def test_it_stands_alone(other: str) -> None:
    """One kind of trouble at a time; the message says what goes together."""
    finished = run(other)

    assert finished.returncode == 2
    assert "--busy goes with --limit, --log, --open and --json" in finished.stderr
