"""aiohttp.web: one client for the life of an application, a scope for each request.

``setup_amplitude(app)`` is all that a service needs; handlers find the client as
``request.config_dict[AMPLITUDE]``, in sub-applications too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Unpack

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.amplitude.events import Event
from amplitude_async.binding import OpenedRequest, Scope
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.request_event import request_properties
from amplitude_async.integrations.request_scope import (
    CAPTURES,
    Resolver,
    Wanted,
    checked_identify,
    is_identified,
)

__all__ = ["AMPLITUDE", "Identify", "setup_amplitude"]

AMPLITUDE: Final = web.AppKey("AMPLITUDE", Amplitude)
"""Where an application keeps its client: ``request.config_dict[AMPLITUDE]``."""

Identify = Callable[[web.Request], object | Awaitable[object]]
"""Gives the fields of events that tell who makes a request, or None."""


def setup_amplitude(
    app: web.Application,
    *,
    client: Amplitude | None = None,
    identify: Identify | None = None,
    capture: Iterable[str] = CAPTURES,
    trusted_hops: int = 0,
    properties: Iterable[str] = (),
    request_event: str | None = None,
    exclude: Iterable[str] = (),
    **options: Unpack[ConfigFields],
) -> None:
    """Give an application a client, and each of its requests a scope of bound fields.

    The client is made when the application starts, and drained within
    ``shutdown_timeout`` after everything else of it was cleaned up. Call this after
    adding the middlewares that ``identify`` needs, such as one for sessions.

    Args:
        app: the outermost application; its sub-applications share all this.
        client: one to use instead; it is started and flushed here, and whoever made it
            shuts it down.
        identify: plain or async; gives fields of ``Event`` that tell who asks. What it
            raises is logged, and breaks no request.
        capture: what events take of each request: ip, user_agent, language.
        trusted_hops: how many proxies of one's own add to ``X-Forwarded-For``.
        properties: event properties to take: path, method, host, scheme.
        request_event: track each request that has a user or device as an event of this
            type, with route, method, status and duration in seconds.
        exclude: paths to leave alone, ``/static/*`` for all below one.
        options: fields of ``Config``; they win over ``AMPLITUDE_*``.

    Raises:
        ConfigurationError: an option of requests is wrong, or the application has a
            client already; options of the client are checked when it starts.
        TypeError: a client was given, and options for another one.
    """
    if client is not None and options:
        names = ", ".join(sorted(options))
        raise TypeError(f"client= is given, so give it its options yourself: {names}")
    if _SERVICE in app:
        raise ConfigurationError("this application has a client: set it up once")
    wanted = Wanted(capture, trusted_hops, properties, request_event, exclude)
    identify = checked_identify(identify, "the request")
    app[_SERVICE] = service = _Service(wanted, identify)
    # Before all others, so that what they track while they end is still taken.
    app.cleanup_ctx.insert(0, partial(service.lifetime, client, options))
    app.middlewares.append(service.middleware())


class _Service:
    """What one application's requests go through."""

    def __init__(self, wanted: Wanted, identify: Identify | None) -> None:
        self._wanted = wanted
        self._identify = identify
        self._resolver: Resolver | None = None

    async def lifetime(
        self, given: Amplitude | None, options: ConfigFields, app: web.Application
    ) -> AsyncIterator[None]:
        """Start the client with the application, and drain it at its end."""
        client = Amplitude.from_env(**options) if given is None else given
        await client.start()
        app[AMPLITUDE] = client
        self._resolver = Resolver(self._identify, client.config)
        yield
        await (client.shutdown() if given is None else client.flush())

    def middleware(self) -> Middleware:
        """Make the function that each request goes through."""

        @web.middleware
        async def amplitude(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            resolver = self._resolver
            if resolver is None or self._wanted.excludes(request.path):
                # What it binds all the same must stay in it: the next request of this
                # connection runs in the same task.
                with OpenedRequest(request, owns_context=False, key=_SCOPE):
                    return await handler(request)
            fields = _fields_of(request, self._wanted)
            with OpenedRequest(request, fields, owns_context=False, key=_SCOPE):
                await resolver.bind(request)
                if self._wanted.request_event is None:
                    return await handler(request)
                return await self._tracked(resolver, request, handler)

        return amplitude

    async def _tracked(
        self, resolver: Resolver, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Let a request be handled, and track it as an event, however it ends."""
        begun = time.monotonic()
        status: int | None = 500
        try:
            response = await handler(request)
            # Whoever forgets to return one is told so by aiohttp itself.
            status = getattr(response, "status", status)
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = None
            raise
        finally:
            if is_identified():
                seconds = time.monotonic() - begun
                self._track(resolver, request, status, seconds)

    def _track(
        self,
        resolver: Resolver,
        request: web.Request,
        status: int | None,
        seconds: float,
    ) -> None:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        event = Event(
            event_type=self._wanted.request_event or "",
            event_properties=request_properties(route, request.method, status, seconds),
        )
        client = request.config_dict[AMPLITUDE]
        try:
            # No answer waits for room, and this very task may be being cancelled.
            client.track_nowait(event)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - fenced
            resolver.tell(error)


def _fields_of(request: web.Request, wanted: Wanted) -> dict[str, Any]:
    def headers(name: str) -> list[bytes]:
        # As aiohttp has decoded them.
        values = request.headers.getall(name, ())
        return [value.encode("utf-8", "surrogateescape") for value in values]

    about: Mapping[str, str] = {}
    if wanted.properties:
        about = {
            "path": request.path,
            "method": request.method,
            "scheme": request.scheme,
        }
    return wanted.fields(headers, request.remote, about)


_SERVICE: Final = web.AppKey("AMPLITUDE_SERVICE", _Service)
_SCOPE: Final = web.RequestKey("AMPLITUDE_SCOPE", Scope)
