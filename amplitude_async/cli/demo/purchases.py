"""Purchase logs: one purchase a line, read into checked records. Pure but for files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

__all__ = [
    "Purchase",
    "PurchaseLogError",
    "histories",
    "parse_log",
    "read_log",
    "sample_log",
]

T = TypeVar("T")

_COLUMNS = "customer, number in the sample, date, units and amount"
# Amplitude HTTP V2 API, section "Device IDs and User IDs".
_SHORTEST_ID = 5


class PurchaseLogError(ValueError):
    """A purchase log cannot be read; the message names line, value and remedy."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase of one customer."""

    customer: str
    """Id in the full data set, five characters."""

    day: date
    """Day of the purchase; the log knows no hour."""

    units: int
    """Number of CDs."""

    amount: Decimal
    """What was paid for all of them, in dollars; 0 for free items."""

    @property
    def time(self) -> int:
        """The day's first millisecond in UTC, as Amplitude counts them."""
        start = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        return int(start.timestamp()) * 1000


def sample_log() -> list[Purchase]:
    """Read the log that comes with the package."""
    data = files("amplitude_async.cli.demo") / "data" / "cdnow_sample.txt"
    return parse_log(data.read_text(encoding="ascii"), "cdnow_sample.txt")


def read_log(path: Path) -> list[Purchase]:
    """Read a log from a file.

    Raises:
        PurchaseLogError: a line is wrong, or there is none.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path}, byte {error.start + 1}: not UTF-8; save the log as plain text"
        raise PurchaseLogError(msg) from None
    return parse_log(text, str(path))


def parse_log(text: str, name: str) -> list[Purchase]:
    """Read the lines of a log; blank ones are skipped.

    Args:
        text: the log; lines may end in LF or CRLF.
        name: what to call the log in messages.

    Raises:
        PurchaseLogError: a line is wrong, or there is none.
    """
    purchases = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                purchases.append(_parse_line(line))
        except ValueError as error:
            msg = f"{name}, line {number}: {error}"
            raise PurchaseLogError(msg) from None
    if not purchases:
        msg = f"{name} holds no purchase: give lines of {_COLUMNS}"
        raise PurchaseLogError(msg)
    return purchases


def histories(purchases: Iterable[Purchase]) -> dict[str, list[Purchase]]:
    """Return each customer's purchases, in the order of the log."""
    found: dict[str, list[Purchase]] = {}
    for purchase in purchases:
        found.setdefault(purchase.customer, []).append(purchase)
    return found


def _parse_line(line: str) -> Purchase:
    columns = line.split()
    if len(columns) != 5:
        msg = f"{len(columns)} columns, expected 5: {_COLUMNS}"
        raise ValueError(msg)
    # The second column numbers the sample's customers: too short for a user_id.
    customer, _, day, units, amount = columns
    if len(customer) < _SHORTEST_ID:
        msg = (
            f"customer={customer!r:.40} has {len(customer)} characters: Amplitude "
            f"wants {_SHORTEST_ID}, pad it with zeros"
        )
        raise ValueError(msg)
    return Purchase(
        customer,
        _field("day", day, _day, "a date written YYYYMMDD"),
        _field("units", units, _units, "a whole number, 1 or more"),
        _field("amount", amount, _amount, "dollars, 0 or more, written 29.33"),
    )


def _field(name: str, text: str, read: Callable[[str], T], wanted: str) -> T:
    try:
        return read(text)
    except (ValueError, InvalidOperation):
        msg = f"{name}={text!r:.40}: give {wanted}"
        raise ValueError(msg) from None


def _day(text: str) -> date:
    if len(text) != 8 or not _is_digits(text):
        raise ValueError(text)
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _units(text: str) -> int:
    if not _is_digits(text) or len(text) > 9 or int(text) < 1:
        raise ValueError(text)
    return int(text)


def _amount(text: str) -> Decimal:
    whole, _, cents = text.partition(".")
    # Decimal alone would read exponents, signs, NaN and foreign digits too.
    if not _is_digits(whole + cents) or len(whole) > 9 or len(cents) > 2:
        raise ValueError(text)
    return Decimal(text)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
