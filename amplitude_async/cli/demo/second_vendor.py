"""The demo's second vendor: the same purchases reach mParticle as commerce events."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from amplitude_async import Event
from amplitude_async.cli.demo.totals import Accounts
from amplitude_async.mparticle import (
    Batch,
    MParticle,
    MParticleConfig,
    MParticleDestination,
    to_batch,
)

__all__ = ["PURCHASED_AT", "accounts_of_batches", "purchase_batch", "second_vendor"]

PURCHASED_AT: Final = "purchased_at"
"""The custom attribute with the purchase's own time, in milliseconds."""


def second_vendor(
    base_url: str, options: Mapping[str, Any], *, room: int
) -> MParticleDestination:
    """Make the plugin that sends what the demo tracks to mParticle as well.

    Args:
        base_url: of an mParticle server on this machine.
        options: of the client's delivery.
        room: so many purchases may wait.
    """
    config = MParticleConfig(
        api_key="demo-key",
        api_secret="demo-secret",  # noqa: S106 - any will do
        base_url=base_url,
        # An own queue that is full sheds: it must not delay the first vendor.
        max_storage_capacity=room,
        trust_env=False,
        **options,
    )
    client = MParticle(config=config)
    return MParticleDestination(client, mapping=purchase_batch)


def purchase_batch(event: Event) -> Batch | None:
    """Turn a purchase into a commerce event of now that knows its own day.

    The log is of 1997 and 1998. mParticle's endpoint for what happens now is not for
    events older than 30 days, and what the one for history takes reaches neither event
    outputs nor warehouses (mParticle HTTP API documentation, "Historical data").
    """
    bought = event.time
    event.time = None
    event.event_properties = {**(event.event_properties or {}), PURCHASED_AT: bought}
    return to_batch(event, "development")


def accounts_of_batches(batches: Iterable[Mapping[str, Any]]) -> Accounts:
    """Enter the purchases in the batches that a server stored."""
    accounts = Accounts()
    for batch in batches:
        customer = str(batch.get("user_identities", {}).get("customer_id"))
        for event in batch.get("events", ()):
            if event["event_type"] == "commerce_event":
                accounts.enter(customer, _entry_of(event["data"]))
    return accounts


def _entry_of(data: Mapping[str, Any]) -> tuple[int | None, int, Decimal]:
    action = data["product_action"]
    units = sum(product.get("quantity", 0) for product in action["products"])
    # The text of a float from JSON is the number that was sent.
    amount = Decimal(str(action["total_amount"]))
    return data["custom_attributes"].get(PURCHASED_AT), units, amount
