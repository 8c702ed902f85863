"""The demo's bad weather: what the server does to the client, and for how long."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.cli.demo.purchases import Purchase
from amplitude_async.emulator import Fault

__all__ = ["CHAOS_OPTIONS", "FORECAST", "chaos_faults"]

FORECAST: Final = (
    "Chaos: the server fails 10 % of the requests with 500, drops 2 % of the "
    "connections (half of them after storing), calls 5 % too large and throttles a few "
    "customers. So that this takes seconds and not minutes, the client sends small "
    "batches, retries after 0.02 s instead of 0.1 s and holds throttled customers for "
    "0.3 s instead of 30 s."
)
"""What is going to happen, for the reader of the demo."""

CHAOS_OPTIONS: Final[ConfigFields] = {
    "flush_queue_size": 10,
    "max_batch_size": 50,
    "flush_interval": 0.1,
    "retry_base_interval": 0.02,
    "retry_max_interval": 0.5,
    "retry_throttled_interval": 0.3,
}
"""Options of a client that is to meet many faults in a short time."""

_THROTTLED_CUSTOMERS = 5


def chaos_faults(purchases: Sequence[Purchase]) -> list[Fault]:
    """Write the script of a bad day; each kind of fault happens once at least."""
    busiest = Counter(one.customer for one in purchases).most_common(
        _THROTTLED_CUSTOMERS
    )
    too_large = Fault.too_large(5)
    # The first that matches a request fires: those that have to happen come before
    # those that are drawn by lot.
    return [
        *(Fault.throttle([customer], count=2) for customer, _ in busiest),
        Fault(hang_up="before"),
        Fault(hang_up="after"),
        replace(too_large, count=1),
        Fault.server_error(),
        Fault(hang_up="before", count=None, rate=0.01),
        Fault(hang_up="after", count=None, rate=0.01),
        replace(too_large, rate=0.05),
        replace(Fault.server_error(count=None), rate=0.1),
    ]
