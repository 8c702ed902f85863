"""Makes a log of an address, as a command line or an environment names it."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.log import DEFAULT_PROJECT, Log
from amplitude_async.shown import shown

__all__ = ["log_at"]

_POSTGRES: Final = ("postgres", "postgresql")
_NATS: Final = ("nats", "tls")
# What JetStreamLog takes beside its servers; PostgreSQL's driver reads its own.
_NATS_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "credentials": str,
    "dead_max_bytes": int,
    "max_bytes": int,
    "monitoring": str,
    "replicas": int,
}


def log_at(address: str, *, project: str = DEFAULT_PROJECT, **options: Any) -> Log:
    """Make the log that an address names; nothing is connected to.

    Args:
        address: ``postgresql://user@host/db``, or ``nats://a,b,c``; the latter may end
            in options of ``JetStreamLog``, as in ``nats://a?replicas=1``.
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

        servers, _, query = address.partition("?")
        return JetStreamLog(servers, project=project, **_options_of(query), **options)
    # Not the address itself: it may hold a password.
    msg = (
        "the log's address has no scheme that is known: give postgresql://host/db or "
        "nats://a,b,c"
    )
    raise ConfigurationError(msg)


def _options_of(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        read = _NATS_OPTIONS.get(name)
        try:
            if read is not None:
                found[name] = read(value)
                continue
        except ValueError:
            pass
        # Not the value: it may be a secret in a wrong place.
        msg = (
            f"the log's address has {shown(name)} behind its ?, which is not known or "
            f"has no number: use {', '.join(_NATS_OPTIONS)}"
        )
        raise ConfigurationError(msg)
    return found
