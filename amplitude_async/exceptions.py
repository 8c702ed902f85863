"""Every error this package raises.

AmplitudeError
├── ConfigurationError (also a ValueError)   an option, key, URL or zone is wrong
├── ClientClosedError                        used after shutdown, where that must raise
├── QueueFullError                           no room, and the policy is Overflow.RAISE
├── LogError                                 the log of a fleet fails, or a chunk does
│   ├── LogFullError                         it has no room: nothing was stored
│   ├── LogUnreachableError                  nobody answers: likewise
│   ├── LogRefusedError                      no right to, or not set up: likewise
│   ├── ChunkTooLargeError                   more at once than it takes: likewise
│   ├── DamagedChunkError                    what it gives is not what was written
│   └── UnknownSchemaError                   a newer version has written it
└── StorageError                             a durable storage cannot be used
    ├── StorageFullError                     its own limits are reached
    └── UnstorableError                      it works, and cannot take this one event

Delivery trouble never raises into the host: it becomes a ``DeliveryResult``.
"""

__all__ = [
    "AmplitudeError",
    "ChunkTooLargeError",
    "ClientClosedError",
    "ConfigurationError",
    "DamagedChunkError",
    "LogError",
    "LogFullError",
    "LogRefusedError",
    "LogUnreachableError",
    "QueueFullError",
    "StorageError",
    "StorageFullError",
    "UnknownSchemaError",
    "UnstorableError",
]


class AmplitudeError(Exception):
    """Base of every error of this package."""


class ConfigurationError(AmplitudeError, ValueError):
    """An option is wrong; the message names the field, the value and the remedy."""


class ClientClosedError(AmplitudeError):
    """The client was shut down and cannot be used again."""


class QueueFullError(AmplitudeError):
    """The queue has no room for the event and the overflow policy is RAISE."""


class LogError(AmplitudeError):
    """The log of a fleet does not do what it should; the message says what to do.

    A chunk that was being published may be in the log or not.
    """


class LogFullError(LogError):
    """The log has no room; nothing was stored."""


class LogUnreachableError(LogError):
    """No server of the log answers; nothing was stored."""


class LogRefusedError(LogError):
    """The log is not set up, or gives no right to write; nothing was stored."""


class ChunkTooLargeError(LogError):
    """A chunk has more bytes than the log takes at once; nothing was stored."""


class DamagedChunkError(LogError):
    """A chunk of a log cannot be read: it is kept among the dead letters as it is."""


class UnknownSchemaError(LogError):
    """A chunk of a log is written in a form of a newer version: upgrade relays."""


class StorageError(AmplitudeError):
    """A storage cannot be opened, read or written; the message says what to do."""


class StorageFullError(StorageError):
    """A storage has reached its own limit of events or bytes."""


class UnstorableError(StorageError):
    """One event cannot be written, such as one with text that is none; others can."""
