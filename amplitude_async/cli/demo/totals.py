"""What a demo adds up, from the log and from the server, in exact decimals. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from amplitude_async.cli.demo.purchases import Purchase

__all__ = ["Entry", "Ledger", "Totals"]

Entry = tuple[int | None, int, Decimal]
"""Time, units and amount of one purchase."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The four sums that must agree."""

    purchases: int
    customers: int
    units: int
    revenue: Decimal

    def as_json(self) -> dict[str, int | str]:
        """Return the sums as JSON values; the revenue is text, to stay exact."""
        return {
            "purchases": self.purchases,
            "customers": self.customers,
            "units": self.units,
            "revenue": str(self.revenue),
        }


@dataclass(frozen=True, slots=True)
class Ledger:
    """The purchases of each customer, in order."""

    accounts: dict[str, list[Entry]] = field(default_factory=dict)

    @classmethod
    def of_log(cls, purchases: Iterable[Purchase]) -> "Ledger":
        """Enter the purchases of a log."""
        ledger = cls()
        for one in purchases:
            ledger.enter(one.customer, (one.time, one.units, one.amount))
        return ledger

    @classmethod
    def of_events(cls, events: Iterable[Mapping[str, Any]]) -> "Ledger":
        """Enter the revenue events that a server stored; others are left out."""
        ledger = cls()
        for event in events:
            if event.get("event_type") == "revenue_amount":
                ledger.enter(str(event.get("user_id")), _entry_of(event))
        return ledger

    def enter(self, customer: str, entry: Entry) -> None:
        """Add one purchase to a customer's account."""
        self.accounts.setdefault(customer, []).append(entry)

    def totals(self) -> Totals:
        """Add everything up."""
        entries = [entry for account in self.accounts.values() for entry in account]
        return Totals(
            purchases=len(entries),
            customers=len(self.accounts),
            units=sum(units for _, units, _ in entries),
            revenue=sum((amount for _, _, amount in entries), Decimal()),
        )

    def customers_equal_to(self, other: "Ledger") -> int:
        """Count the customers whose purchases are the same, in the same order."""
        theirs = other.accounts
        return sum(theirs.get(who) == mine for who, mine in self.accounts.items())


def _entry_of(event: Mapping[str, Any]) -> Entry:
    sold = event.get("event_properties", {})
    # The text of a float from JSON is the number that was sent.
    amount = Decimal(str(sold.get("$revenue", 0)))
    return event.get("time"), sold.get("$quantity", 0), amount
