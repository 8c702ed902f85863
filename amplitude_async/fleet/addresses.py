"""Makes a log of an address, as a command line or an environment names it."""

from typing import Any, Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.log import DEFAULT_PROJECT, Log

__all__ = ["log_at"]

_POSTGRES: Final = ("postgres", "postgresql")
_NATS: Final = ("nats", "tls")


def log_at(address: str, *, project: str = DEFAULT_PROJECT, **options: Any) -> Log:
    """Make the log that an address names; nothing is connected to.

    Args:
        address: ``postgresql://user@host/db``, or ``nats://a,b,c``.
        project: whose events it has.
        options: further arguments of ``PostgresLog`` or ``JetStreamLog``.

    Raises:
        ConfigurationError: it is neither, or an extra is not installed.
    """
    scheme = address.partition("://")[0].strip().lower() if "://" in address else ""
    # What each of them uses is loaded only where it is asked for.
    if scheme in _POSTGRES:
        from amplitude_async.fleet.postgres import PostgresLog  # noqa: PLC0415

        return PostgresLog(address, project=project, **options)
    if scheme in _NATS:
        from amplitude_async.fleet.nats import JetStreamLog  # noqa: PLC0415

        return JetStreamLog(address, project=project, **options)
    # Not the address itself: it may hold a password.
    msg = (
        "the log's address has no scheme that is known: give postgresql://host/db or "
        "nats://a,b,c"
    )
    raise ConfigurationError(msg)
