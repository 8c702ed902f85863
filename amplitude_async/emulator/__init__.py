"""A local ingestion server that judges, counts and fails as the vendor's would.

It imports nothing from the rest of the package: a judge that shared code with
the client under test would share its mistakes.
"""

from .faults import Fault
from .records import EmulatorStats, ReceivedRequest
from .script import FaultScript
from .seen import Seen, Taken
from .server import Emulator
from .users import SeenMParticleUser, SeenUser, UnknownUserError

__all__ = [
    "Emulator",
    "EmulatorStats",
    "Fault",
    "FaultScript",
    "ReceivedRequest",
    "Seen",
    "SeenMParticleUser",
    "SeenUser",
    "Taken",
    "UnknownUserError",
]
