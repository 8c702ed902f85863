"""The client in ASGI applications: a scope for each request, and a lifespan.

No framework is imported here. The middleware never reads what a client sends: it gives
``receive`` on as it is, so that no body can get lost or hang in it.
"""

import asyncio
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
from inspect import isasyncgenfunction
from typing import Any, Self, TypeAlias, TypedDict, Unpack

import aiohttp
from pydantic import SecretStr

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import Config, ConfigFields
from amplitude_async.amplitude.filling import filled_fields
from amplitude_async.binding import (
    Opened,
    OpenedRequest,
    fields_here,
    is_in_request,
)
from amplitude_async.config import sealed
from amplitude_async.delivery.tasks import is_theirs_at_once
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.request_event import RequestWatch
from amplitude_async.integrations.request_scope import (
    CAPTURES,
    Resolver,
    Wanted,
    checked_identify,
    is_identified,
)
from amplitude_async.plugins import Plugin
from amplitude_async.shown import shown

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
        self._wanted = Wanted(capture, trusted_hops, properties, request_event, exclude)
        self._resolver = Resolver(checked_identify(identify, "the ASGI scope"))
        self._find_client = _checked_client(client)

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
        wanted = self._wanted
        with OpenedRequest(scope, _fields_of(scope, wanted), owns_context=True):
            await self._resolver.bind(scope)
            if wanted.request_event is None:
                await self._app(scope, receive, send)
            else:
                await self._watched(wanted.request_event, scope, receive, send)

    async def _left_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_in_request(scope):
            await self._app(scope, receive, send)
            return
        # What it binds all the same must stay in it.
        with OpenedRequest(scope, owns_context=True):
            await self._app(scope, receive, send)

    def _is_excluded(self, scope: Scope) -> bool:
        wanted = self._wanted
        if not wanted.exclude:
            return False
        return wanted.excludes(scope["path"].removeprefix(scope.get("root_path", "")))

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
            if bound is None or not is_identified():
                self._resolver.reporter.debug(
                    "a request of nobody was not tracked: it has no id"
                )
                return
            client = self._client_of(scope)
            if client is None:
                return
            own = {"event_properties": watch.properties()}
            fields = filled_fields(event_type, own, bound)
            # As fields of its own they are looked at once, and not filled in again.
            with Opened(alone=True):
                client.track_nowait(event_type, **fields)
        except BaseException as error:  # user code, fenced
            if not is_theirs_at_once(error):
                raise
            self._resolver.tell(error)

    def _client_of(self, scope: Scope) -> Any:
        if self._find_client is not None:
            client: Any = self._find_client(scope)
        else:
            client = scope.get("state", {}).get("amplitude")
        if client is None:
            self._resolver.reporter.error(
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


def _fields_of(scope: Scope, wanted: Wanted) -> dict[str, Any]:
    def headers(name: str) -> list[bytes]:
        key = name.encode()
        return [value for given, value in scope.get("headers", ()) if given == key]

    client = scope.get("client")
    # What is wanted as properties has the same names there.
    return wanted.fields(headers, client[0] if client else None, scope)


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
