"""The report compares exactly, and says what does not agree."""

import io
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from amplitude_async import Stats
from amplitude_async.cli.demo.purchases import parse_log
from amplitude_async.cli.demo.replay import Replay
from amplitude_async.cli.demo.report import Crash, Report, print_report
from amplitude_async.cli.demo.totals import Accounts, Totals

__all__: list[str] = []

PURCHASES = parse_log(
    "00004 1 19970101 2 29.33\n00004 1 19970118 1 0.00\n00021 2 19970101 3 63.34",
    "log",
)


def event(customer: str, time: int, units: int, amount: float) -> dict[str, Any]:
    """Return a revenue event as a server stores it."""
    return {
        "event_type": "revenue_amount",
        "user_id": customer,
        "time": time,
        "event_properties": {"$quantity": units, "$revenue": amount},
    }


def arrived() -> list[dict[str, Any]]:
    """Return the events of all purchases, customers interleaved."""
    first, second, third = PURCHASES
    return [
        event(one.customer, one.time, one.units, float(one.amount))
        for one in (first, third, second)
    ]


def report(events: list[dict[str, Any]], **changes: Any) -> Report:
    """Return the report of a run without trouble, but for the changes."""
    good = Report(
        seconds=1.0,
        replay=Replay(answered=3),
        served=3,
        stats=Stats(accepted=3, delivered=3, requests=1),
        log=Accounts.of_log(PURCHASES),
        server=Accounts.of_events(events),
    )
    return replace(good, **changes)


def test_sums_are_exact() -> None:
    """Ten times ten cents are one dollar, though floats would say otherwise."""
    accounts = Accounts.of_events([event("00004", 0, 1, 0.1)] * 10)

    assert accounts.totals() == Totals(10, 1, 10, Decimal("1.0"))


def test_other_events_are_no_purchases() -> None:
    """Only revenue events count."""
    other = {**event("00004", 0, 1, 1.0), "event_type": "Signed Up"}

    assert Accounts.of_events([other]).totals() == Totals(0, 0, 0, Decimal())


def test_a_complete_run_is_ok() -> None:
    """What all agree on is no problem, and neither is a retry that helped."""
    stats = Stats(accepted=3, delivered=3, retries=1, last_error="503")
    found = report(arrived(), stats=stats)

    assert found.ok
    assert found.as_json()["emulator"] == {
        "purchases": 3,
        "customers": 2,
        "units": 6,
        "revenue": "92.67",
    }
    assert found.as_json()["customers_in_order"] == 2


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (arrived()[:2], "purchases at the emulator: 2, in the log: 3"),
        ([*arrived(), arrived()[0]], "purchases at the emulator: 4, in the log: 3"),
        (arrived()[:1], "customers at the emulator: 1, in the log: 2"),
        (
            [*arrived()[:2], event("00004", PURCHASES[1].time, 2, 0.0)],
            "units at the emulator: 7, in the log: 6",
        ),
        (
            [*arrived()[:2], event("00004", PURCHASES[1].time, 1, 0.01)],
            "revenue at the emulator: 92.68, in the log: 92.67",
        ),
        (
            arrived()[::-1],
            "customers whose purchases did not arrive complete and in order: 1",
        ),
    ],
)
def test_a_difference_at_the_server_is_a_problem(
    events: list[dict[str, Any]], problem: str
) -> None:
    """A purchase lost, doubled, changed or overtaken is told."""
    found = report(events)

    assert not found.ok
    assert problem in found.problems()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"served": 2}, "purchases served: 2, in the log: 3"),
        (
            {"stats": Stats(accepted=3, delivered=2, pending=1)},
            "purchases delivered: 2, in the log: 3",
        ),
        (
            {"stats": Stats(accepted=3, delivered=3, dropped=1)},
            "the client's account does not add up",
        ),
        (
            {"stats": Stats(accepted=3, delivered=2, rejected=1, last_error="why")},
            "the client's last error: why",
        ),
        (
            {"replay": Replay(2, 1, "status 500")},
            "requests to the service that failed: 1, the first: status 500",
        ),
    ],
)
def test_trouble_on_the_way_is_a_problem(changes: dict[str, Any], problem: str) -> None:
    """The run fails even where the totals agree by luck."""
    found = report(arrived(), **changes)

    assert not found.ok
    assert problem in found.problems()
    assert found.as_json()["problems"] == found.problems()


def test_after_a_crash_only_the_second_account_is_known() -> None:
    """It has to deliver what it accepted and what it recovered, no more."""
    known = Stats(accepted=1, recovered=2, delivered=3)
    crash = Crash(killed_at=2, duplicates=1)

    found = report(arrived(), stats=known, crash=crash)
    assert found.problems() == []
    assert found.as_json()["duplicates"] == 1

    lost = Stats(accepted=1, recovered=2, delivered=2, pending=1)
    found = report(arrived()[:2], stats=lost, crash=crash)
    assert "events not delivered after the restart: 1" in found.problems()


def test_the_table_shows_both_sides_and_the_problems() -> None:
    """A reader sees which total differs, and the sentences that say so."""
    screen = Console(file=io.StringIO(), width=100)

    print_report(report(arrived()[:2], served=2), screen)

    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "NO" in text
    assert "purchases served: 2, in the log: 3" in text
    assert "arrived, each once" not in text
