"""The demo with both vendors: the same purchases at each, to the cent."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest

from amplitude_async import Event, Revenue
from amplitude_async.cli.demo.purchases import sample_log
from amplitude_async.cli.demo.run import run_demo
from amplitude_async.cli.demo.second_vendor import (
    PURCHASED_AT,
    accounts_of_batches,
    purchase_batch,
)

__all__: list[str] = []

SUMS = {
    "purchases": 6919,
    "customers": 2357,
    "units": 16479,
    "revenue": "244091.94",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "amplitude_async", "demo", "--mparticle", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=100.0,
    )


@pytest.mark.long
def test_the_whole_log_reaches_both_vendors() -> None:
    """Every purchase is a commerce event once, and both sums agree with the log."""
    finished = run("--json")

    report = json.loads(finished.stdout)
    assert (finished.returncode, finished.stderr, report["problems"]) == (0, "", [])
    assert report["emulator"] == report["log"] == SUMS
    mparticle = report["mparticle"]
    assert {name: mparticle[name] for name in SUMS} == SUMS
    assert mparticle["accepted"] == mparticle["delivered"] == 6919
    assert mparticle["customers_in_order"] == 2357
    assert mparticle["balanced"]


def test_a_bad_day_for_both_vendors() -> None:
    """With --chaos too: nothing is lost or doubled on either side."""
    finished = run("--chaos", "--json", "--limit", "1500")

    report = json.loads(finished.stdout)
    assert (finished.returncode, report["problems"]) == (0, [])
    assert report["mparticle"]["retries"] > 0
    assert report["mparticle"]["purchases"] == 1500


def test_the_table_has_both() -> None:
    """A reader sees one comparison for each vendor."""
    finished = run("--limit", "20")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.count("Where they went") == 2
    assert "at the emulator" in finished.stdout
    assert "at mParticle" in finished.stdout


def test_not_together_with_a_crash() -> None:
    """The demo with a spool has one vendor; the command says so."""
    finished = run("--crash")

    assert finished.returncode == 2
    assert "--mparticle and --crash do not go together" in finished.stderr


def test_what_is_missing_at_mparticle_is_a_problem() -> None:
    """A difference there fails the run, and is told apart from Amplitude's."""
    report = asyncio.run(run_demo(sample_log()[:30], mparticle=True))
    assert report.ok
    assert report.mparticle is not None
    accounts = dict(report.mparticle.by_customer)
    accounts.popitem()
    account = replace(report.stats.destinations["mparticle"], delivered=29, rejected=1)
    short = replace(
        report,
        mparticle=replace(report.mparticle, by_customer=accounts),
        stats=replace(report.stats, destinations={"mparticle": account}),
    )

    problems = "\n".join(short.problems())
    assert "customers at mParticle:" in problems
    assert "complete and in order at mParticle: 1" in problems
    assert "purchases delivered to mparticle: 29, in the log: 30" in problems


def test_a_purchase_as_a_batch() -> None:
    """It is of now, and knows its own day."""
    revenue = Revenue(revenue=Decimal("29.33"), quantity=2)
    event = revenue.to_event(user_id="00004", time=852_076_800_000)
    batch = purchase_batch(event)
    assert batch is not None
    wire = batch.to_wire()

    data = wire["events"][0]["data"]
    assert "timestamp_unixtime_ms" not in data
    assert data["custom_attributes"] == {PURCHASED_AT: 852_076_800_000}
    entry = (852_076_800_000, 2, Decimal("29.33"))
    assert accounts_of_batches([wire]).by_customer == {"00004": [entry]}


@pytest.mark.parametrize("event_type", ["Signed Up", "$identify"])
def test_other_batches_are_no_purchases(event_type: str) -> None:
    """Only commerce events count."""
    properties = {"$set": {"a": 1}}
    event = Event(event_type=event_type, user_id="00004", user_properties=properties)
    batch = purchase_batch(event)
    assert batch is not None

    assert accounts_of_batches([batch.to_wire()]).by_customer == {}
