"""What a web framework's request gives to events: the same for every framework.

Nothing here knows a framework. Headers come as bytes, since they are untrusted: they
may be long, no UTF-8, or full of control characters.
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, cast

from amplitude_async.amplitude.bound import bind
from amplitude_async.amplitude.events import EventFields
from amplitude_async.binding import fields_here
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter, named
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.shown import kind_of, shown

__all__ = [
    "CAPTURED",
    "PROPERTIES",
    "Resolver",
    "Wanted",
    "bind_identity",
    "client_address",
    "first_language",
    "is_identified",
    "plain_text",
    "request_properties",
]

CAPTURED: Final = ("ip", "user_agent", "language")
"""Fields of events that can be taken from a request."""

PROPERTIES: Final = ("path", "method", "host", "scheme")
"""Event properties that can be taken from a request."""

# Amplitude cuts strings there, and an id that long is an attack or a mistake.
MOST_TEXT: Final = 1024
MOST_ID: Final = 128
_MOST_HOPS: Final = 32
_LANGUAGE: Final = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,4}")
_PORT: Final = re.compile(r"(?:\[([^\]]+)\]|([^:]+))(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an application wants of its requests; checked once, when it is set up.

    Raises:
        ConfigurationError: an option is wrong; name, value and remedy are told.
    """

    capture: Iterable[str] = CAPTURED
    """Fields of `CAPTURED` that events take."""
    trusted_hops: int = 0
    """How many proxies of one's own stand before the service."""
    properties: Iterable[str] = ()
    """Event properties of `PROPERTIES` that events take."""
    request_event: str | None = None
    """Type of the event that each request is tracked as; None for none."""
    exclude: Iterable[str] = ()
    """Paths to leave alone; one that ends in ``*`` stands for all that begin so."""

    def __post_init__(self) -> None:
        for name in ("capture", "properties", "exclude"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ConfigurationError(f"{name}={shown(given)}: give a list of texts")
            object.__setattr__(self, name, tuple(given))
        _check_names("capture", self.capture, CAPTURED)
        _check_names("properties", self.properties, PROPERTIES)
        for path in self.exclude:
            if not isinstance(path, str):
                raise ConfigurationError(f"exclude has {shown(path)}: give texts")
        hops = self.trusted_hops
        if type(hops) is not int or not 0 <= hops <= _MOST_HOPS:
            raise ConfigurationError(
                f"trusted_hops={shown(hops)}: give the number of proxies of your own "
                f"before the service, 0 to {_MOST_HOPS}"
            )
        event = self.request_event
        if event is not None and (not isinstance(event, str) or not event):
            raise ConfigurationError(
                f"request_event={shown(event)}: give an event type, or None"
            )

    def excludes(self, path: str) -> bool:
        """Tell whether requests of a path are left alone."""
        return any(
            path.startswith(one[:-1]) if one.endswith("*") else path == one
            for one in self.exclude
        )

    def fields(
        self,
        header: Callable[[str], bytes | None],
        peer: str | None,
        forwarded: Callable[[], Iterable[bytes]],
        properties: Mapping[str, str],
    ) -> dict[str, Any]:
        """Give the fields that events of a request take.

        Args:
            header: gives the value of a header, by its name in small letters.
            peer: address of whoever is connected.
            forwarded: gives the lines of ``X-Forwarded-For``, in order.
            properties: what is known of `PROPERTIES`.
        """
        found: dict[str, Any] = {}
        if "ip" in self.capture:
            lines = forwarded() if self.trusted_hops else ()
            found["ip"] = client_address(peer, lines, self.trusted_hops)
        if "user_agent" in self.capture:
            found["user_agent"] = plain_text(header("user-agent"))
        if "language" in self.capture:
            found["language"] = first_language(header("accept-language"))
        known = {name: properties.get(name) for name in self.properties}
        cut = {name: value[:MOST_TEXT] for name, value in known.items() if value}
        if cut:
            found["event_properties"] = cut
        return {name: value for name, value in found.items() if value is not None}


def client_address(
    peer: str | None, forwarded: Iterable[bytes], trusted_hops: int
) -> str | None:
    """Find the address of the client; None where there is none.

    Each of one's own proxies has added one entry on the right, and only those can be
    believed. Where there are fewer, somebody came by another way: it is the peer then.
    """
    if not trusted_hops:
        return _address(peer)
    entries: list[bytes] = []
    for line in reversed(list(forwarded)):
        missing = trusted_hops - len(entries)
        # From the right, and never all: whoever sends thousands gains nothing.
        entries.extend(reversed(line.rsplit(b",", missing)[-missing:]))
        if len(entries) == trusted_hops:
            return _address(entries[-1].decode("ascii", "replace"))
    return _address(peer)


def plain_text(value: bytes | None) -> str | None:
    """Read a header: of bounded length, without what is no text; None where empty."""
    if not value:
        return None
    text = value[: 4 * MOST_TEXT].decode("utf-8", "replace")[:MOST_TEXT]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else " " for one in text)
    return text.strip() or None


def first_language(value: bytes | None) -> str | None:
    """Give the first language that a client asks for, such as ``de-AT``."""
    if not value:
        return None
    first = value[:MOST_ID].split(b",", 1)[0].split(b";", 1)[0]
    tag = first.decode("ascii", "replace").strip()
    return tag if _LANGUAGE.fullmatch(tag) else None


def bind_identity(found: object) -> None:
    """Bind what the application says about who makes a request.

    Raises:
        TypeError: it is no mapping of fields that can be bound.
        ValueError: an id is too long; it is not cut, as two users could become one.
    """
    if found is None:
        return
    if not isinstance(found, Mapping):
        raise TypeError(
            f"identify returned {kind_of(found)}: return fields of Event in a dict, "
            'as {"user_id": "user-1"}, or None'
        )
    for name in ("user_id", "device_id"):
        value = found.get(name)
        if isinstance(value, str) and len(value) > MOST_ID:
            raise ValueError(
                f"identify returned a {name} of {len(value)} characters: give at most "
                f"{MOST_ID}"
            )
    bind(**cast("EventFields", dict(found)))


class Resolver:
    """Asks the application who makes a request; no fault of it breaks the request.

    Args:
        identify: plain or async; gives fields of ``Event`` in a mapping, or None.
        config: whose logger is told, at most once a minute, what went wrong.
    """

    def __init__(
        self, identify: Callable[[Any], object] | None, config: DeliveryConfig
    ) -> None:
        self._identify = identify
        self._reporter = Reporter(config.logger, LoopClock(), "amplitude")

    async def bind(self, request: object) -> None:
        """Ask, and bind what is answered in the scope of the request."""
        if self._identify is None:
            return
        try:
            found = self._identify(request)
            bind_identity(await found if inspect.isawaitable(found) else found)
        except (Exception, asyncio.CancelledError) as error:
            if not is_theirs(error):
                raise
            self.complain("identify", error)

    def bind_at_once(self, request: object) -> None:
        """Ask where nothing can be awaited, and bind what is answered."""
        if self._identify is None:
            return
        try:
            bind_identity(self._identify(request))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - theirs
            self.complain("identify", error)

    def complain(self, what: str, error: BaseException) -> None:
        """Say what failed; the request goes on without it."""
        text = "a request went on without %s: %s"
        self._reporter.warning(what, text, what, named(error))

    def __repr__(self) -> str:
        return f"<Resolver {'idle' if self._identify is None else 'asks'}>"


def is_identified() -> bool:
    """Tell whether an event tracked here would have the id that it needs."""
    fields: Mapping[str, Any] = fields_here() or {}
    return bool(fields.get("user_id") or fields.get("device_id"))


def request_properties(
    route: str | None, method: str, status: int, seconds: float
) -> dict[str, Any]:
    """Give the properties of the event that a request is tracked as.

    Args:
        route: the template that the path matched, never the path: it may hold ids.
        method: the HTTP method.
        status: the HTTP status of the response.
        seconds: how long it took.
    """
    found = {"method": method[:MOST_ID], "status": status}
    if route:
        found["route"] = route[:MOST_TEXT]
    return {**found, "duration_ms": round(seconds * 1000, 1)}


def _address(text: str | None) -> str | None:
    if text is None:
        return None
    # Some proxies add a port, and an IPv6 address has brackets then.
    text = text.strip()
    if text.count(":") < 2 or text.startswith("["):
        match = _PORT.fullmatch(text)
        text = (match[1] or match[2]) if match else text
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _check_names(name: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    for one in given:
        if one not in known:
            raise ConfigurationError(
                f"{name} has {shown(one)}: give some of {', '.join(known)}"
            )
