"""Past one machine: producers hand over to a log, relays deliver from it.

``PostgresLog`` needs the extra ``postgres``, ``JetStreamLog`` the extra ``nats``: what
they use is loaded when one is opened.
"""

from amplitude_async.fleet.log import (
    Backlog,
    BuriedLetter,
    Chunk,
    Claim,
    Letter,
    Log,
    Place,
    Settings,
    StoredChunk,
)
from amplitude_async.fleet.nats import JetStreamLog
from amplitude_async.fleet.postgres import PostgresLog
from amplitude_async.fleet.relay import Relay

__all__ = [
    "Backlog",
    "BuriedLetter",
    "Chunk",
    "Claim",
    "JetStreamLog",
    "Letter",
    "Log",
    "Place",
    "PostgresLog",
    "Relay",
    "Settings",
    "StoredChunk",
]
