"""A local ingestion server that judges, counts and fails as the vendor's would.

It imports nothing from the rest of the package: a judge that shared code with
the client under test would share its mistakes.
"""

from .faults import Fault
from .ledger import EmulatorStats, ReceivedRequest
from .script import FaultScript
from .server import Emulator

__all__ = [
    "Emulator",
    "EmulatorStats",
    "Fault",
    "FaultScript",
    "ReceivedRequest",
]
