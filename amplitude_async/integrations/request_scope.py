"""What an application wants of its requests, and what it knows of who makes them.

The options mean the same in each framework. Nothing here knows one.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Any, Final, TypeVar, cast

from amplitude_async.amplitude.bound import bind
from amplitude_async.amplitude.events import EventFields
from amplitude_async.amplitude.fields import few_properties
from amplitude_async.binding import fields_here
from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import is_theirs, is_theirs_at_once
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
    "checked_identify",
    "is_identified",
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

# Asked for by name, and not to be had like this.
_REMEDIES: Final[Mapping[str, str]] = {
    "query": "it may hold anything: bind what you need of it in the handler",
    "route": "it is known after the response only: use request_event",
}

Given = TypeVar("Given")


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
    _beginnings: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "capture", _checked_names("capture", self.capture, CAPTURES))
        put(
            self,
            "properties",
            _checked_names("properties", self.properties, PROPERTIES),
        )
        put(self, "exclude", _checked_paths(self.exclude))
        stars = [path[:-1] for path in self.exclude if path.endswith("*")]
        put(self, "_beginnings", tuple(stars))
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
        return path in cast("tuple[str, ...]", self.exclude) or path.startswith(
            self._beginnings
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
        config: whose logger is told, at most once a minute, what went wrong; None
            where no client is known yet.
    """

    def __init__(
        self,
        identify: Callable[[Any], object] | None,
        config: DeliveryConfig | None = None,
    ) -> None:
        self._identify = identify
        logger, redactor = logging.getLogger("amplitude_async"), None
        if config is not None:
            logger, redactor = config.logger, config.redactor
        self.reporter = Reporter(logger, LoopClock(), "requests", redactor)
        """Tells of requests; each cause at most once a minute."""

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
            if not is_theirs_at_once(error):
                raise
            self._complain(error)

    def tell(self, error: BaseException) -> None:
        """Say that the event of a request was not tracked, and why."""
        self.reporter.error(
            "request_event",
            "a request was not tracked: %s",
            in_words(error),
            traceback=error,
        )

    def _complain(self, error: BaseException) -> None:
        self.reporter.error(
            "identify",
            "identify raised %s: the request goes on without its fields",
            kind_of(error),
            traceback=error,
        )

    def _bind(self, found: object) -> None:
        if not found:
            return
        read = few_properties(found)
        if not isinstance(read, dict):
            msg = f"identify returned {kind_of(found)}: return a dict of event fields"
            raise TypeError(msg)
        fields = dict(read)
        for name in _IDS:
            # Not cut: two users could become one.
            if _is_long(fields.get(name)):
                del fields[name]
                self.reporter.warning(
                    "long_id",
                    "identify gave a %s of more than %d characters, which is not "
                    "bound: give a shorter one",
                    name,
                    MOST_ID,
                )
        bind(**cast("EventFields", fields))

    def __repr__(self) -> str:
        return f"<Resolver {'idle' if self._identify is None else 'asks'}>"


def is_identified() -> bool:
    """Tell whether an event tracked here would have the id that it needs."""
    fields: Mapping[str, Any] = fields_here() or {}
    return any(map(fields.get, _IDS))


def checked_identify(given: Given, argument: str) -> Given:
    """Take a function that tells who makes a request, or None.

    Args:
        given: what the application has given.
        argument: what it is called with, in words.

    Raises:
        ConfigurationError: it is no function.
    """
    if given is not None and not callable(given):
        msg = f"identify={shown(given)} must be a function of {argument}, or None"
        raise ConfigurationError(msg)
    return given


def _checked_names(
    option: str, given: Iterable[str], known: Sequence[str]
) -> tuple[str, ...]:
    listed = ", ".join(map(repr, known))
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = f"{option}={shown(given)} must be a list of names, of {listed}"
        raise ConfigurationError(msg)
    names = tuple(given)
    for name in names:
        if name not in known:
            remedy = _REMEDIES.get(name) if isinstance(name, str) else None
            msg = f"{option} has no {shown(name)}: {remedy or f'there are {listed}'}"
            raise ConfigurationError(msg)
    return names


def _checked_paths(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = f"exclude={shown(given)} must be a list of paths"
        raise ConfigurationError(msg)
    paths = tuple(given)
    for path in paths:
        if not (isinstance(path, str) and path.startswith("/")) or "*" in path[:-1]:
            msg = (
                f"exclude has {shown(path)}: a path begins with '/', and '*' may be "
                "its last character"
            )
            raise ConfigurationError(msg)
    return paths


def _is_long(value: object) -> bool:
    if isinstance(value, str):
        return str.__len__(value) > MOST_ID
    # Not by its digits, which take longer to find than a hostile number to send.
    return isinstance(value, int) and int.bit_length(value) > MOST_ID * log2(10)
