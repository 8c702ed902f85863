"""What the middlewares take as options: a wrong one is told where it was written."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.shown import shown

__all__ = [
    "CAPTURES",
    "PROPERTIES",
    "checked_event",
    "checked_exclude",
    "checked_hops",
    "checked_identify",
    "checked_names",
    "headers_for",
]

CAPTURES: Final = ("ip", "user_agent", "language")
"""Fields of events that a request can fill."""

PROPERTIES: Final = ("path", "method", "host", "scheme")
"""Properties of events that a request can fill."""

# Asked for by name, and not to be had like this.
_REMEDIES: Final[Mapping[str, str]] = {
    "query": "it may hold anything: bind what you need of it in the handler",
    "route": "it is known after the response only: use request_event",
}

Given = TypeVar("Given")


def checked_names(
    field: str, given: Sequence[str], known: Sequence[str]
) -> tuple[str, ...]:
    """Take a list of names that are known."""
    listed = ", ".join(map(repr, known))
    if isinstance(given, str) or not isinstance(given, list | tuple | set | frozenset):
        msg = f"{field}={shown(given)} must be a list of names, of {listed}"
        raise ConfigurationError(msg)
    for name in given:
        if name not in known:
            remedy = _REMEDIES.get(name) if isinstance(name, str) else None
            msg = f"{field} has no {shown(name)}: {remedy or f'there are {listed}'}"
            raise ConfigurationError(msg)
    return tuple(given)


def headers_for(captured: Sequence[str], hops: int) -> frozenset[bytes]:
    """Say which headers must be looked at."""
    names = {"user_agent": b"user-agent", "language": b"accept-language"}
    if hops:
        names["ip"] = b"x-forwarded-for"
    return frozenset(names[name] for name in captured if name in names)


def checked_hops(given: int) -> int:
    """Take a number of proxies."""
    if type(given) is not int or given < 0:
        msg = (
            f"trusted_hops={shown(given)} must be a whole number, 0 or more: how many "
            "proxies of yours add to X-Forwarded-For"
        )
        raise ConfigurationError(msg)
    return given


def checked_identify(given: Given) -> Given:
    """Take a function of a request."""
    if given is not None and not callable(given):
        msg = f"identify={shown(given)} must be a function of the ASGI scope, or None"
        raise ConfigurationError(msg)
    return given


def checked_event(given: str | None) -> str | None:
    """Take an event type."""
    if given is not None and not (isinstance(given, str) and given):
        msg = (
            f"request_event={shown(given)} must be an event type, or None for no event"
        )
        raise ConfigurationError(msg)
    return given


def checked_exclude(given: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Take paths; gives those that are whole, and the beginnings of the others."""
    if isinstance(given, str) or not isinstance(given, list | tuple | set | frozenset):
        msg = f"exclude={shown(given)} must be a list of paths"
        raise ConfigurationError(msg)
    for path in given:
        if not (isinstance(path, str) and path.startswith("/")) or "*" in path[:-1]:
            msg = (
                f"exclude has {shown(path)}: a path begins with '/', and '*' may be "
                "its last character"
            )
            raise ConfigurationError(msg)
    prefixes = tuple(path[:-1] for path in given if path.endswith("*"))
    return frozenset(path for path in given if not path.endswith("*")), prefixes
