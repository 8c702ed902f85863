"""Purchase logs are read line by line, and a bad line is named."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from amplitude_async.cli.demo.purchases import (
    Purchase,
    PurchaseLogError,
    histories,
    parse_log,
    read_log,
    sample_log,
)

__all__: list[str] = []

GOOD = " 00004 0001 19970101  2   29.33"


def test_the_enclosed_log_is_complete() -> None:
    """The log has the purchases, customers, units and dollars it is known for."""
    purchases = sample_log()

    assert len(purchases) == 6919
    assert len({one.customer for one in purchases}) == 2357
    assert sum(one.units for one in purchases) == 16479
    assert sum(one.amount for one in purchases) == Decimal("244091.94")
    assert sum(one.amount == 0 for one in purchases) == 8
    assert len(purchases) - len(set(purchases)) == 21


def test_a_line_becomes_a_purchase() -> None:
    """The id is the first column, and the time is the start of the day in UTC."""
    (purchase,) = parse_log(GOOD + "\r\n\r\n", "log")

    assert purchase == Purchase("00004", date(1997, 1, 1), 2, Decimal("29.33"))
    assert purchase.time == 852076800000


def test_histories_keep_the_order_of_the_log() -> None:
    """Each customer's purchases stay in order, whoever bought in between."""
    first, other, second = parse_log(
        f"{GOOD}\n00021 0002 19970101 3 63.34\n00004 0001 19970118 2 29.73", "log"
    )

    found = histories([first, other, second])

    assert found == {"00004": [first, second], "00021": [other]}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("00004 0001 19970101 2", "4 columns, expected 5: customer, number"),
        ("0001 00004 19970101 2 1.00", "customer='0001' has 4 characters: .* pad it"),
        ("00004 1 1997-01-01 2 1.00", "day='1997-01-01': give a date written YYYYMMDD"),
        ("00004 1 19970231 2 1.00", "day='19970231': give a date"),
        ("00004 1 19970101 0 1.00", "units='0': give a whole number, 1 or more"),
        ("00004 1 19970101 2.5 1.00", "units='2.5': give a whole number"),
        ("00004 1 19970101 9999999999 1", "units='9999999999': give a whole"),
        ("00004 1 19970101 2 -1.00", "amount='-1.00': give dollars, 0 or more"),
        ("00004 1 19970101 2 NaN", "amount='NaN': give dollars"),
        ("00004 1 19970101 2 1.005", "amount='1.005': give dollars"),
        ("00004 1 19970101 2 .", r"amount='\.': give dollars"),
        ("00004 1 19970101 2 9999999999", "amount='9999999999': give dollars"),
    ],
)
def test_a_bad_line_is_named_with_value_and_remedy(line: str, problem: str) -> None:
    """The message tells where, which field, what stood there and what to write."""
    with pytest.raises(PurchaseLogError, match=f"^my.log, line 2: {problem}"):
        parse_log(f"{GOOD}\n{line}\n{GOOD}\n", "my.log")


def test_a_log_without_purchases_is_an_error(tmp_path: Path) -> None:
    """An empty file is more likely a mistake than a log."""
    path = tmp_path / "empty.txt"
    path.write_text("\n \n")

    with pytest.raises(PurchaseLogError, match=r"empty\.txt holds no purchase: give"):
        read_log(path)


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    """A spreadsheet or an archive gets a remedy instead of a decoding error."""
    path = tmp_path / "log.xls"
    path.write_bytes(b"0000\xff")

    with pytest.raises(PurchaseLogError, match="byte 5: not UTF-8; save"):
        read_log(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    """A log of one's own is read like the enclosed one."""
    path = tmp_path / "log.txt"
    path.write_text(GOOD)

    assert read_log(path) == parse_log(GOOD, "log")
