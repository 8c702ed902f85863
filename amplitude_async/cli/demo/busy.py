"""The demo's busy server: it takes a few requests a second and refuses the others."""

from typing import Final

from amplitude_async.cli.demo.report import Busy
from amplitude_async.emulator import EmulatorStats, Fault

__all__ = ["BUSY_FORECAST", "busy_faults", "busy_report"]

# A healthy server gets some 35 requests within a second.
_REQUESTS_PER_SECOND: Final = 2

BUSY_FORECAST: Final = (
    f"Busy: the server takes {_REQUESTS_PER_SECOND} requests a second, none at first, "
    "and answers 503 to the others. The client has its defaults."
)
"""What is going to happen, for the reader of the demo."""


def busy_faults() -> list[Fault]:
    """Make the server busy until the end of the demo, from the first request on.

    A slow machine may send no more than what the server takes: the first is refused in
    any case, so that there is something to see.
    """
    busy = Fault.busy(requests_per_second=_REQUESTS_PER_SECOND)
    return [Fault.server_error(503), busy]


def busy_report(stats: EmulatorStats) -> Busy:
    """Tell from the server's counters what it took and what it refused."""
    return Busy(taken=stats.by_status.get(200, 0), refused=stats.by_status.get(503, 0))
