"""The client in ASGI applications: a scope for each request, and a lifespan.

No framework is imported here. The middleware never reads what a client sends: it gives
``receive`` on as it is, so that no body can get lost or hang in it.
"""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from contextvars import copy_context
from copy import copy
from inspect import isasyncgenfunction, isawaitable
from math import log2
from typing import Any, Final, Self, TypeAlias, TypedDict, Unpack

import aiohttp
from pydantic import SecretStr

from amplitude_async.amplitude.bound import bind
from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import Config, ConfigFields
from amplitude_async.amplitude.fields import few_properties
from amplitude_async.amplitude.filling import filled_fields
from amplitude_async.binding import (
    OpenedRequest,
    fields_here,
    innermost,
    is_in_request,
)
from amplitude_async.config import sealed
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.request_event import RequestWatch
from amplitude_async.integrations.request_facts import (
    address_of,
    forwarded_address,
    host_of,
    language_of,
    text_of,
)
from amplitude_async.integrations.request_options import (
    CAPTURES,
    PROPERTIES,
    checked_event,
    checked_exclude,
    checked_hops,
    checked_identify,
    checked_names,
    headers_for,
)
from amplitude_async.plugins import Plugin
from amplitude_async.shown import kind_of, shown

__all__ = [
    "AmplitudeMiddleware",
    "ClientFinder",
    "ClientOptions",
    "Identifier",
    "InnerLifespan",
    "Lifespan",
    "MiddlewareOptions",
    "amplitude_lifespan",
]

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Fields: TypeAlias = Mapping[str, Any] | None
Identifier: TypeAlias = Callable[[Scope], Fields | Awaitable[Fields]]
"""Says whose request a scope is: event fields, or None for nobody."""

ClientFinder: TypeAlias = Callable[[Scope], Amplitude | None]
"""Finds the client of a scope."""

InnerLifespan: TypeAlias = Callable[
    [Any], AbstractAsyncContextManager[Mapping[str, Any] | None]
]
"""An application's own lifespan; it may yield state."""

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
"""What Starlette and FastAPI take as ``lifespan=``."""

MOST_ID: Final = 128
"""Characters of an id that `identify` may give."""

_IDS: Final = ("user_id", "device_id")


class MiddlewareOptions(TypedDict, total=False):
    """Options of `AmplitudeMiddleware`, whose meanings stand there."""

    identify: Identifier | None
    capture: Sequence[str]
    trusted_hops: int
    properties: Sequence[str]
    request_event: str | None
    exclude: Sequence[str]


class ClientOptions(ConfigFields, total=False):
    """What ``Amplitude.from_env`` takes."""

    api_key: str | SecretStr | None
    session: aiohttp.ClientSession | None
    plugins: Iterable[Plugin | Callable[[Any], Any]]


class AmplitudeMiddleware:
    """Opens a scope of bound fields for each HTTP request and websocket.

    What ``bind`` binds in a request, its dependencies, threads and tasks, goes into
    every event tracked there, and into no other request's.

    Args:
        app: the application around which this one stands.
        identify: tells from the ASGI scope whose request it is: a function, async or
            not, that gives event fields such as ``{"user_id": ...}``, or None. Should
            it raise, that is logged and the request goes on. Ids of more than 128
            characters are left out. Headers are nobody's identity by themselves.
        capture: which of ``ip``, ``user_agent`` and ``language`` to bind.
        trusted_hops: how many proxies of your own stand in front and add an entry to
            X-Forwarded-For; 0 takes the address of the connection.
        properties: which of ``path``, ``method``, ``host`` and ``scheme`` to bind as
            event properties.
        request_event: the type of an event to be tracked when the answer to a request
            was sent: with route template, method, status and duration.
        exclude: paths of which nothing is looked at; ``/internal/*`` is all below.
        client: tracks the request event; by default the one of `amplitude_lifespan`.

    Raises:
        ConfigurationError: an option is wrong; name, value and remedy are told.
    """

    def __init__(
        self,
        app: App,
        *,
        identify: Identifier | None = None,
        capture: Sequence[str] = CAPTURES,
        trusted_hops: int = 0,
        properties: Sequence[str] = (),
        request_event: str | None = None,
        exclude: Sequence[str] = (),
        client: Amplitude | ClientFinder | None = None,
    ) -> None:
        self._app = app
        self._identify = checked_identify(identify)
        captured = checked_names("capture", capture, CAPTURES)
        self._trusted_hops = checked_hops(trusted_hops)
        self._captures_address = "ip" in captured
        self._headers = headers_for(captured, trusted_hops)
        self._properties = checked_names("properties", properties, PROPERTIES)
        self._request_event = checked_event(request_event)
        self._paths, self._prefixes = checked_exclude(exclude)
        self._find_client = _checked_client(client)
        logger = logging.getLogger("amplitude_async")
        self._reporter = Reporter(logger, LoopClock(), "requests")

    def around(self, app: App) -> Self:
        """Make one with the same options around another application."""
        another = copy(self)
        another._app = app  # noqa: SLF001 - of our own class
        return another

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if self._is_excluded(scope):
            await self._left_alone(scope, receive, send)
            return
        with OpenedRequest(scope, self._captured(scope), is_alone=True):
            if self._identify is not None:
                await self._bind_identity(self._identify, scope)
            if self._request_event is None:
                await self._app(scope, receive, send)
            else:
                await self._watched(self._request_event, scope, receive, send)

    async def _left_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_in_request(scope):
            await self._app(scope, receive, send)
            return
        # What it binds all the same must stay in it.
        with OpenedRequest(scope, is_alone=True):
            await self._app(scope, receive, send)

    def _is_excluded(self, scope: Scope) -> bool:
        if not self._paths and not self._prefixes:
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._paths or path.startswith(self._prefixes)

    # What is bound from the beginning -----------------------------------------

    def _captured(self, scope: Scope) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        wanted = self._headers
        forwarded: list[bytes] = []
        if wanted:
            for name, value in scope.get("headers", ()):
                if name not in wanted:
                    continue
                if name == b"x-forwarded-for":
                    forwarded.append(value)
                elif name == b"user-agent":
                    fields.setdefault("user_agent", text_of(value))
                else:
                    fields.setdefault("language", language_of(value))
        if self._captures_address:
            fields["ip"] = self._address(scope, forwarded)
        if self._properties:
            fields["event_properties"] = self._described(scope)
        # Left out rather than None, which would take out what an outer scope has.
        return {name: value for name, value in fields.items() if value}

    def _address(self, scope: Scope, forwarded: Sequence[bytes]) -> str | None:
        if forwarded:
            found = forwarded_address(forwarded, self._trusted_hops)
            if found is not None:
                return found
        client = scope.get("client")
        return address_of(client[0]) if client else None

    def _described(self, scope: Scope) -> dict[str, str]:
        found: dict[str, str | None] = {}
        for name in self._properties:
            if name == "host":
                headers = scope.get("headers", ())
                value = next((v for key, v in headers if key == b"host"), b"")
                found[name] = host_of(value)
            else:
                found[name] = text_of(scope.get(name, ""))
        return {name: value for name, value in found.items() if value}

    # Whose request it is ------------------------------------------------------

    async def _bind_identity(self, identify: Identifier, scope: Scope) -> None:
        try:
            found = identify(scope)
            if type(found) is not dict and isawaitable(found):
                found = await found
            if found:
                bind(**self._checked_identity(found))
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._reporter.error(
                "identify",
                "identify raised %s: the request goes on without its fields",
                kind_of(error),
                traceback=error,
            )

    def _checked_identity(self, found: object) -> dict[str, Any]:
        read = few_properties(found)
        if not isinstance(read, dict):
            msg = f"identify returned {kind_of(found)}: return a dict of event fields"
            raise TypeError(msg)
        fields = dict(read)
        for name in _IDS:
            if _is_long(fields.get(name)):
                del fields[name]
                self._reporter.warning(
                    "long_id",
                    "identify gave a %s of more than %d characters, which is not "
                    "bound: give a shorter one",
                    name,
                    MOST_ID,
                )
        return fields

    # What became of it --------------------------------------------------------

    async def _watched(
        self, event_type: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        context = copy_context()

        def tell(watch: RequestWatch) -> None:
            # Here and not where the last message was sent from: a block within the
            # request may have bound another user for itself.
            context.run(self._track, event_type, scope, watch)

        watch = RequestWatch(scope, send, tell)
        try:
            await self._app(scope, receive, watch.send)
        except BaseException as error:
            watch.fail(error)
            raise
        finally:
            watch.end()

    def _track(self, event_type: str, scope: Scope, watch: RequestWatch) -> None:
        try:
            bound = fields_here()
            if bound is None or not (bound.get("user_id") or bound.get("device_id")):
                self._reporter.debug(
                    "a request of nobody was not tracked: it has no id"
                )
                return
            client = self._client_of(scope)
            if client is None:
                return
            own = {"event_properties": watch.properties()}
            fields = filled_fields(event_type, own, bound)
            # As fields of its own they are looked at once, and not filled in again.
            innermost.set(None)
            client.track_nowait(event_type, **fields)
        except BaseException as error:  # user code, fenced
            # Nothing is awaited here, so that no cancellation is meant for us.
            if not (isinstance(error, asyncio.CancelledError) or is_theirs(error)):
                raise
            self._reporter.error(
                "request_event",
                "a request was not tracked: %s",
                in_words(error),
                traceback=error,
            )

    def _client_of(self, scope: Scope) -> Any:
        if self._find_client is not None:
            client: Any = self._find_client(scope)
        else:
            client = scope.get("state", {}).get("amplitude")
        if client is None:
            self._reporter.error(
                "no_client",
                "request_event finds no client, so that requests are not tracked: "
                "start the service with lifespan=amplitude_lifespan(), or give the "
                "middleware client=",
            )
        return client


def amplitude_lifespan(
    inner: InnerLifespan | None = None,
    *,
    client: Amplitude | None = None,
    **options: Unpack[ClientOptions],
) -> Lifespan:
    """Make a lifespan that opens a client with the service and drains it at its end.

    The client is in the state of every request: ``request.state.amplitude``.

    Args:
        inner: the application's own lifespan; it runs while the client is open, and
            what it yields is added to the state.
        client: takes the place of ``Amplitude.from_env(**options)``. It is started and
            shut down like that, so it serves one lifespan.
        options: as for ``Amplitude.from_env``, which is called when the service starts.

    Raises:
        ConfigurationError: both a client and options are given.
    """
    # No local variable may hold a key in plain: see `redaction`.
    given = sealed(Config, options)
    del options
    if client is not None and given:
        msg = (
            f"client= was given together with {', '.join(given)}: make the client "
            "with these options"
        )
        raise ConfigurationError(msg)
    _check_inner(inner)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            opened = Amplitude.from_env(**given) if client is None else client
            stack.push_async_callback(_shut_down, opened)
            await opened.start()
            state: dict[str, Any] = {"amplitude": opened}
            if inner is not None:
                own = await stack.enter_async_context(inner(app))
                state.update(own or {})
            yield state

    return lifespan


def _check_inner(inner: object) -> None:
    if hasattr(inner, "state"):
        # The application itself, which called us as if we were the lifespan.
        msg = (
            "lifespan=amplitude_lifespan lacks its brackets: write (), as it makes one"
        )
        raise ConfigurationError(msg)
    if inner is not None and (not callable(inner) or isasyncgenfunction(inner)):
        msg = (
            f"inner={shown(inner)} must be a lifespan: a function of the application "
            "that returns an async context manager, as @asynccontextmanager makes one"
        )
        raise ConfigurationError(msg)


async def _shut_down(client: Amplitude) -> None:
    """Wait for the end of the drain, also while somebody cancels the wait.

    A server that is pressed to stop cancels its lifespan, and the loop ends with it.
    The drain has a deadline of its own, so that this has one, too.
    """
    ending = asyncio.ensure_future(client.shutdown())
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _is_long(value: object) -> bool:
    if isinstance(value, str):
        return str.__len__(value) > MOST_ID
    # Not by its digits, which take longer to find than a hostile number to send.
    return isinstance(value, int) and int.bit_length(value) > MOST_ID * log2(10)


def _checked_client(given: Amplitude | ClientFinder | None) -> ClientFinder | None:
    if isinstance(given, Amplitude):
        return lambda _: given
    if given is not None and not callable(given):
        msg = (
            f"client={shown(given)} must be an Amplitude, or a function that finds one "
            "for an ASGI scope"
        )
        raise ConfigurationError(msg)
    return given
