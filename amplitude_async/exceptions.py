"""Every error this package raises.

AmplitudeError
├── ConfigurationError (also a ValueError)   an option, key, URL or zone is wrong
├── ClientClosedError                        used after shutdown, where that must raise
├── QueueFullError                           no room, and the policy is Overflow.RAISE
└── StorageError                             a durable storage cannot be used
    ├── StorageFullError                     its own limits are reached
    └── UnstorableError                      it works, and cannot take this one event

Delivery trouble never raises into the host: it becomes a ``DeliveryResult``.
"""

__all__ = [
    "AmplitudeError",
    "ClientClosedError",
    "ConfigurationError",
    "QueueFullError",
    "StorageError",
    "StorageFullError",
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


class StorageError(AmplitudeError):
    """A storage cannot be opened, read or written; the message says what to do."""


class StorageFullError(StorageError):
    """A storage has reached its own limit of events or bytes."""


class UnstorableError(StorageError):
    """One event cannot be written, such as one with text that is none; others can."""
