"""What an application wants of its requests, and what it knows of who makes them.

The options mean the same in each framework. Nothing here knows one.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from amplitude_async.amplitude.bound import bind
from amplitude_async.amplitude.events import EventFields
from amplitude_async.amplitude.fields import few_properties
from amplitude_async.binding import fields_here
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.request_facts import (
    address_of,
    forwarded_address,
    host_of,
    language_of,
    text_of,
)
from amplitude_async.shown import kind_of, shown

__all__ = [
    "CAPTURES",
    "PROPERTIES",
    "Headers",
    "Resolver",
    "Wanted",
    "is_identified",
    "request_properties",
]

CAPTURES: Final = ("ip", "user_agent", "language")
"""Fields of events that can be taken from a request."""

PROPERTIES: Final = ("path", "method", "host", "scheme")
"""Event properties that can be taken from a request."""

MOST_ID: Final = 128
"""Characters of an id that ``identify`` may give."""

Headers = Callable[[str], Sequence[bytes]]
"""Gives the values of a header, by its name in small letters, in their order."""

_IDS: Final = ("user_id", "device_id")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an application wants of its requests; checked once, when it is set up.

    Raises:
        ConfigurationError: an option is wrong; name, value and remedy are told.
    """

    capture: Iterable[str] = CAPTURES
    """Fields of `CAPTURES` that events take."""
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
                raise ConfigurationError(f"{name}={shown(given)} must be a list")
            object.__setattr__(self, name, tuple(given))
        _check_names("capture", self.capture, CAPTURES)
        _check_names("properties", self.properties, PROPERTIES)
        for path in self.exclude:
            if not (isinstance(path, str) and path.startswith("/")) or "*" in path[:-1]:
                raise ConfigurationError(
                    f"exclude has {shown(path)}: a path begins with '/', and '*' may "
                    "be its last character"
                )
        hops, event = self.trusted_hops, self.request_event
        if type(hops) is not int or hops < 0:
            raise ConfigurationError(
                f"trusted_hops={shown(hops)} must be a whole number, 0 or more: how "
                "many proxies of yours add to X-Forwarded-For"
            )
        if event is not None and not (isinstance(event, str) and event):
            raise ConfigurationError(
                f"request_event={shown(event)} must be an event type, or None for no "
                "event"
            )

    def excludes(self, path: str) -> bool:
        """Tell whether requests of a path are left alone."""
        return any(
            path.startswith(one[:-1]) if one.endswith("*") else path == one
            for one in self.exclude
        )

    def fields(
        self, headers: Headers, peer: str | None, about: Mapping[str, str]
    ) -> dict[str, Any]:
        """Give the fields that events of a request take.

        Args:
            headers: those of the request; only what is wanted is asked for.
            peer: address of whoever is connected.
            about: what is known of `PROPERTIES`, but for the host.
        """
        found: dict[str, Any] = {}
        if "ip" in self.capture:
            found["ip"] = self._address(headers, peer)
        if "user_agent" in self.capture:
            programs = headers("user-agent")
            found["user_agent"] = text_of(programs[0]) if programs else None
        if "language" in self.capture:
            languages = headers("accept-language")
            found["language"] = language_of(languages[0]) if languages else None
        if self.properties:
            found["event_properties"] = self._described(headers, about)
        return {name: value for name, value in found.items() if value}

    def _address(self, headers: Headers, peer: str | None) -> str | None:
        hops = self.trusted_hops
        entries = headers("x-forwarded-for") if hops else ()
        found = forwarded_address(entries, hops) if entries else None
        return found or address_of(peer)

    def _described(self, headers: Headers, about: Mapping[str, str]) -> dict[str, str]:
        known = {n: text_of(about.get(n, "")) for n in self.properties if n != "host"}
        if "host" in self.properties:
            hosts = headers("host")
            known["host"] = (host_of(hosts[0]) if hosts else None) or ""
        return {name: value for name, value in known.items() if value}


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
        self._reporter = Reporter(
            config.logger, LoopClock(), "requests", config.redactor
        )

    async def bind(self, request: object) -> None:
        """Ask, and bind what is answered in the scope of the request."""
        if self._identify is None:
            return
        try:
            found = self._identify(request)
            if type(found) is not dict and inspect.isawaitable(found):
                found = await found
            self._bind(found)
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._complain(error)

    def bind_at_once(self, request: object) -> None:
        """Ask where nothing can be awaited, and bind what is answered."""
        if self._identify is None:
            return
        try:
            found = self._identify(request)
            if inspect.iscoroutine(found):
                found.close()
            self._bind(found)
        except BaseException as error:  # user code, fenced
            # Nothing is awaited here, so that no cancellation is meant for us.
            if not (isinstance(error, asyncio.CancelledError) or is_theirs(error)):
                raise
            self._complain(error)

    def tell(self, error: BaseException) -> None:
        """Say that the event of a request was not tracked, and why."""
        text = "a request was not tracked: %s"
        self._reporter.error("request event", text, kind_of(error), traceback=error)

    def _complain(self, error: BaseException) -> None:
        self._reporter.error(
            "identify",
            "identify raised %s: the request goes on without its fields",
            kind_of(error),
            traceback=error,
        )

    def _bind(self, found: object) -> None:
        if found is None:
            return
        read = few_properties(found)
        if not isinstance(read, dict):
            msg = f"identify returned {kind_of(found)}: return a dict of event fields"
            raise TypeError(msg)
        fields = dict(read)
        for name in _IDS:
            value = fields.get(name)
            # Not cut: two users could become one.
            if isinstance(value, str) and len(value) > MOST_ID:
                del fields[name]
                self._reporter.warning(
                    "long id",
                    "identify gave a %s of %d characters, which is not bound: the "
                    "most are %d",
                    name,
                    len(value),
                    MOST_ID,
                )
        bind(**cast("EventFields", fields))

    def __repr__(self) -> str:
        return f"<Resolver {'idle' if self._identify is None else 'asks'}>"


def is_identified() -> bool:
    """Tell whether an event tracked here would have the id that it needs."""
    fields: Mapping[str, Any] = fields_here() or {}
    return any(name in fields for name in _IDS)


def request_properties(
    route: str | None, method: str, status: int | None, seconds: float
) -> dict[str, Any]:
    """Give the properties of the event that a request is tracked as.

    Args:
        route: the template that the path matched, never the path: it may hold ids.
        method: the HTTP method.
        status: the HTTP status of the response; None where none was sent.
        seconds: how long it took.
    """
    found: dict[str, Any] = {
        "route": text_of(route) if route else None,
        "method": text_of(method),
        "status": status,
        "duration": round(seconds, 6),
        "aborted": True if status is None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_names(name: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    for one in given:
        if one not in known:
            raise ConfigurationError(
                f"{name} has no {shown(one)}: there are {', '.join(map(repr, known))}"
            )
