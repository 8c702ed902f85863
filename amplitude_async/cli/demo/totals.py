"""What a demo adds up, from the log and from the server, in exact decimals. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from amplitude_async.cli.demo.purchases import Purchase

__all__ = ["Accounts", "Entry", "Totals"]

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
class Accounts:
    """The purchases of each customer, in order."""

    by_customer: dict[str, list[Entry]] = field(default_factory=dict)

    @classmethod
    def of_log(cls, purchases: Iterable[Purchase]) -> "Accounts":
        """Enter the purchases of a log."""
        accounts = cls()
        for one in purchases:
            accounts.enter(one.customer, (one.time, one.units, one.amount))
        return accounts

    @classmethod
    def of_events(cls, events: Iterable[Mapping[str, Any]]) -> "Accounts":
        """Enter the revenue events that a server stored; others are left out."""
        accounts = cls()
        for event in events:
            if event.get("event_type") == "revenue_amount":
                accounts.enter(str(event.get("user_id")), _entry_of(event))
        return accounts

    def enter(self, customer: str, entry: Entry) -> None:
        """Add one purchase to a customer's account."""
        self.by_customer.setdefault(customer, []).append(entry)

    def totals(self) -> Totals:
        """Add everything up."""
        entries = [entry for account in self.by_customer.values() for entry in account]
        return Totals(
            purchases=len(entries),
            customers=len(self.by_customer),
            units=sum(units for _, units, _ in entries),
            revenue=sum((amount for _, _, amount in entries), Decimal()),
        )

    def customers_equal_to(self, other: "Accounts") -> int:
        """Count the customers whose purchases are the same, in the same order."""
        theirs = other.by_customer
        return sum(theirs.get(who) == mine for who, mine in self.by_customer.items())


def _entry_of(event: Mapping[str, Any]) -> Entry:
    sold = event.get("event_properties", {})
    # The text of a float from JSON is the number that was sent.
    amount = Decimal(str(sold.get("$revenue", 0)))
    return event.get("time"), sold.get("$quantity", 0), amount
