"""The demo on a bad day: everything that can go wrong does, and nothing is lost."""

import asyncio
import json
import subprocess
import sys

import pytest

from amplitude_async.cli.demo.chaos import chaos_faults
from amplitude_async.cli.demo.purchases import sample_log
from amplitude_async.cli.demo.run import run_demo

__all__: list[str] = []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "amplitude_async", "demo", "--chaos", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=100.0,
    )


@pytest.mark.long
def test_the_whole_log_survives_a_bad_day() -> None:
    """Failures, lost answers and throttles on the way, and the sums agree exactly."""
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
    assert report["faults"] > 20
    assert report["retries"] > 5
    assert report["connections_dropped"] >= 2
    assert report["duplicates"] > 0


def test_the_table_tells_what_happened() -> None:
    """The reader learns what the server does and why it goes so fast."""
    finished = run("--limit", "200")

    assert finished.returncode == 0
    assert "retries after 0.02 s instead of 0.1 s" in finished.stdout
    for row in ("faults fired", "connections dropped", "duplicates removed"):
        assert row in finished.stdout
    assert "All 200 purchases arrived, each once and in order" in finished.stdout


def test_a_calm_day_has_no_trouble() -> None:
    """Without --chaos the report says nothing about faults."""
    report = asyncio.run(run_demo(sample_log()[:30]))

    assert report.ok
    assert "faults" not in report.as_json()


def test_every_kind_of_fault_is_in_the_script() -> None:
    """Errors, both ways of hanging up, requests too large, and throttled customers."""
    faults = chaos_faults(sample_log())

    assert {fault.status for fault in faults} == {None, 413, 429, 500}
    assert {fault.hang_up for fault in faults} == {None, "before", "after"}
    rates = {fault.label: fault.rate for fault in faults if fault.count is None}
    assert rates == {
        "hang up before": 0.01,
        "hang up after": 0.01,
        "too_large": 0.05,
        "server_error": 0.1,
    }
