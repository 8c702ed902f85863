"""Django: one client per process, for plain and async views, commands and tests.

Name ``AmplitudeConfig`` in ``INSTALLED_APPS`` and ``AmplitudeMiddleware`` in
``MIDDLEWARE``; options stand in the setting ``AMPLITUDE``. Views track by `amplitude`:
``amplitude.track(...)`` in plain ones, ``await amplitude.atrack(...)`` in async ones.

The client is a ``SyncAmplitude``, which lives in a thread of its own: a plain view has
no event loop, and an async one under WSGI has another for each request.
"""

import asyncio
import os
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Unpack, cast

from asgiref.sync import (
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)
from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import FileResponse, HttpRequest, HttpResponseBase
from django.utils.functional import LazyObject
from django.utils.module_loading import import_string

from amplitude_async.amplitude.events import Event, EventFields, EventOptions
from amplitude_async.amplitude.identify import Identify
from amplitude_async.amplitude.revenue import Revenue
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.binding import Kind, Scope, around_request
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.request_event import request_properties
from amplitude_async.integrations.request_scope import (
    Resolver,
    Wanted,
    is_identified,
)
from amplitude_async.shown import kind_of, shown
from amplitude_async.sync import SyncAmplitude, SyncDelivery
from amplitude_async.sync.loop import running_loop

__all__ = [
    "AmplitudeConfig",
    "AmplitudeMiddleware",
    "Tracking",
    "amplitude",
    "with_lifespan",
]

SETTING: Final = "AMPLITUDE"

_OF_REQUESTS: Final = frozenset(
    {"capture", "trusted_hops", "properties", "request_event", "exclude"}
)

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, as ``get_asgi_application`` makes it."""


class Tracking:
    """The verbs for views: as those of ``Amplitude``, and with an ``a`` to await.

    The first event of a request asks who makes it, so that a request that tracks
    nothing never touches the session. There is one of these, `amplitude`.
    """

    @property
    def client(self) -> SyncAmplitude:
        """The client of this process, made when it is first asked for."""
        return _parts().client

    def track(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track an event in a plain view, a command or a thread."""
        return self._at_once().track(event, options, **fields)

    async def atrack(
        self,
        event: Event | TypedEvent | str,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track an event in an async view."""
        client = await self._asked()
        return await asyncio.to_thread(client.track, event, options, **fields)

    def identify(
        self,
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change user properties."""
        return self._at_once().identify(identify, options, **fields)

    async def aidentify(
        self,
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change user properties in an async view."""
        client = await self._asked()
        return await asyncio.to_thread(client.identify, identify, options, **fields)

    def group_identify(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change the properties of a group."""
        client = self.client
        return client.group_identify(
            group_type, group_name, identify, options, **fields
        )

    async def agroup_identify(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        identify: Identify,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Change the properties of a group in an async view."""
        verb = self.client.group_identify
        return await asyncio.to_thread(
            verb, group_type, group_name, identify, options, **fields
        )

    def set_group(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Put a user into a group, or into several of one type."""
        return self._at_once().set_group(group_type, group_name, options, **fields)

    async def aset_group(
        self,
        group_type: str,
        group_name: str | Sequence[str],
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Put a user into a group in an async view."""
        verb = (await self._asked()).set_group
        return await asyncio.to_thread(verb, group_type, group_name, options, **fields)

    def revenue(
        self,
        revenue: Revenue,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track a sale or a refund."""
        return self._at_once().revenue(revenue, options, **fields)

    async def arevenue(
        self,
        revenue: Revenue,
        options: EventOptions | None = None,
        /,
        **fields: Unpack[EventFields],
    ) -> SyncDelivery:
        """Track a sale or a refund in an async view."""
        client = await self._asked()
        return await asyncio.to_thread(client.revenue, revenue, options, **fields)

    def _at_once(self) -> SyncAmplitude:
        """Make sure that the user of the request is known."""
        visit = _visit.get()
        if visit is not None and running_loop() is None:
            visit.ask_at_once()
        return self.client

    async def _asked(self) -> SyncAmplitude:
        visit = _visit.get()
        if visit is not None:
            await visit.ask()
        return self.client

    def __repr__(self) -> str:
        return "<Tracking of Django>"


amplitude: Final = Tracking()
"""What views track by; it holds nothing itself."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the setting asks for."""

    client: SyncAmplitude
    wanted: Wanted
    plain: Resolver
    awaited: Resolver


class AmplitudeConfig(AppConfig):  # type: ignore[misc]  # Django brings no types
    """The application for ``INSTALLED_APPS``: it keeps the client of the process."""

    name = "amplitude_async.integrations.django"
    label = "amplitude"
    verbose_name = "Amplitude"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        self._lock = threading.Lock()
        self._parts: _Parts | None = None

    def ready(self) -> None:
        """Let ``manage.py check`` look at the setting, and tests override it."""
        checks.register(_check)
        setting_changed.connect(_forget, dispatch_uid=self.name)

    def parts(self) -> _Parts:
        """Give what the setting asks for, made once.

        Raises:
            ConfigurationError: the setting is wrong; option, value and remedy are told.
        """
        parts = self._parts
        if parts is None:
            with self._lock:
                parts = self._parts = self._parts or _made()
        return parts

    def forget(self) -> None:
        """Drain the client and read the setting anew: a test has changed it."""
        parts, self._parts = self._parts, None
        if parts is not None:
            # In another thread, since this may be the one of a loop.
            ending = threading.Thread(target=parts.client.shutdown)
            ending.start()
            ending.join()


def _check(**_: object) -> list[Any]:
    try:
        _parts()
    except ConfigurationError as error:
        hint = "the key may be absent where AMPLITUDE has opt_out=True"
        return [checks.Error(f"{SETTING}: {error}", hint, id="amplitude.E001")]
    return []


def _forget(*, setting: str, **_: object) -> None:
    if setting == SETTING and apps.is_installed(AmplitudeConfig.name):
        apps.get_app_config(AmplitudeConfig.label).forget()


def _parts() -> _Parts:
    try:
        config = apps.get_app_config(AmplitudeConfig.label)
    except LookupError:
        raise ImproperlyConfigured(
            f'add "{AmplitudeConfig.name}.AmplitudeConfig" to INSTALLED_APPS'
        ) from None
    return cast("AmplitudeConfig", config).parts()


def _made() -> _Parts:
    given = getattr(settings, SETTING, {})
    if not isinstance(given, dict):
        msg = f"{SETTING} is {kind_of(given)}: make it a dict of options"
        raise ConfigurationError(msg)
    options = dict(given)
    wanted = Wanted(**{name: options.pop(name) for name in _OF_REQUESTS & set(options)})
    plain, awaited = _identify(options.pop("identify", signed_in_user))
    if "AMPLITUDE_MIN_ID_LENGTH" not in os.environ:
        # A primary key is a small number, and the server wants 5 characters.
        options.setdefault("min_id_length", 1)
    client = SyncAmplitude.from_env(**options)
    config = client.config
    return _Parts(client, wanted, Resolver(plain, config), Resolver(awaited, config))


def _identify(given: Any) -> tuple[Any, Any]:
    """Make of one function a plain and an async one."""
    if given is None:
        return None, None
    try:
        found = import_string(given) if isinstance(given, str) else given
    except ImportError as error:
        raise ConfigurationError(f"identify={shown(given)}: {error}") from None
    if not callable(found):
        raise ConfigurationError(
            f"identify={shown(given)}: give a function of the request, or its path"
        )
    if found is signed_in_user:
        return signed_in_user, _asigned_in_user
    if iscoroutinefunction(found):
        return async_to_sync(found), found
    # It may well ask the database.
    return found, sync_to_async(found, thread_sensitive=True)


# Who makes a request ----------------------------------------------------------


def signed_in_user(request: HttpRequest) -> dict[str, str] | None:
    """Give the primary key of the user who is signed in, as ``user_id``.

    A request without a session cookie is not asked: no session is read or made.
    """
    user = _set_user(request)
    if user is None and _has_session(request):
        user = getattr(request, "user", None)
    return _fields_of_user(user)


async def _asigned_in_user(request: HttpRequest) -> dict[str, str] | None:
    user = _set_user(request)
    if user is None and _has_session(request) and hasattr(request, "auser"):
        user = await request.auser()
    return _fields_of_user(user)


def _set_user(request: HttpRequest) -> Any:
    """Give the user whom a login or a middleware has set; a lazy one is not asked."""
    user = request.__dict__.get("user")
    return None if isinstance(user, LazyObject) else user


def _has_session(request: HttpRequest) -> bool:
    session = getattr(request, "session", None)
    return session is not None and (
        session.accessed or settings.SESSION_COOKIE_NAME in request.COOKIES
    )


def _fields_of_user(user: Any) -> dict[str, str] | None:
    if user is None or not user.is_authenticated or user.pk is None:
        return None
    return {"user_id": str(user.pk)}


class _Visit:
    """One request: its scope, and the question who makes it."""

    def __init__(self, request: HttpRequest, parts: _Parts) -> None:
        self._request = request
        self._parts = parts
        # What binds in it all the same must stay in it: a thread serves many requests.
        self._is_left_alone = parts.wanted.excludes(request.path_info)
        fields = {} if self._is_left_alone else _fields_of(request, parts.wanted)
        self._scope = Scope(around_request(owns_context=False), Kind.REQUEST, fields)

    @property
    def event_type(self) -> str | None:
        """Of the event that this request is to be tracked as."""
        return None if self._is_left_alone else self._parts.wanted.request_event

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the request, also where its context is not: in its stream."""
        visit = _visit.set(self)
        try:
            with self._scope.entered():
                yield
        finally:
            _visit.reset(visit)

    def ask_at_once(self) -> None:
        """Bind who makes the request, until that is known."""
        if self._is_unknown():
            with self.entered():
                self._parts.plain.bind_at_once(self._request)

    async def ask(self) -> None:
        """Bind who makes the request, until that is known, from an async view."""
        if self._is_unknown():
            with self.entered():
                await self._parts.awaited.bind(self._request)

    def _is_unknown(self) -> bool:
        # A view that has bound a user itself knows better.
        return not self._is_left_alone and "user_id" not in self._scope.fields

    def __repr__(self) -> str:
        return f"<Visit {self._scope!r}>"


_visit: Final[ContextVar[_Visit | None]] = ContextVar("amplitude_visit", default=None)


# The middleware ---------------------------------------------------------------


class AmplitudeMiddleware:
    """Opens a scope of bound fields for each request; for ``MIDDLEWARE``.

    What a view binds, its threads and tasks see, and a stream that it returns.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._parts = _parts()
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve a request, or give what is to be awaited for its response."""
        if self._awaits:
            return self._serve(request)
        visit, begun = _Visit(request, self._parts), time.monotonic()
        with visit.entered():
            response = self._get_response(request)
            if visit.event_type is not None:
                self._tell_at_once(visit, self._event(request, response, begun))
            _continue_in_stream(response, visit)
        return response

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        visit, begun = _Visit(request, self._parts), time.monotonic()
        response: HttpResponseBase | None = None
        with visit.entered():
            try:
                response = await self._get_response(request)
            finally:
                # The client may have left, which cancels the view.
                if visit.event_type is not None:
                    await self._tell(visit, self._event(request, response, begun))
            _continue_in_stream(response, visit)
        return response

    def _event(
        self, request: HttpRequest, response: HttpResponseBase | None, begun: float
    ) -> Event:
        match = getattr(request, "resolver_match", None)
        route = getattr(match, "route", None)
        properties = request_properties(
            route if route is None or route.startswith("^") else f"/{route}",
            request.method or "",
            None if response is None else response.status_code,
            time.monotonic() - begun,
        )
        event_type = self._parts.wanted.request_event or ""
        return Event(event_type=event_type, event_properties=properties)

    def _tell_at_once(self, visit: _Visit, event: Event) -> None:
        try:
            visit.ask_at_once()
            if is_identified():
                self._parts.client.track(event)
        except Exception as error:  # noqa: BLE001 - no request fails because of us
            self._parts.plain.tell(error)

    async def _tell(self, visit: _Visit, event: Event) -> None:
        try:
            await visit.ask()
            if is_identified():
                await asyncio.to_thread(self._parts.client.track, event)
        except Exception as error:  # noqa: BLE001 - no request fails because of us
            self._parts.awaited.tell(error)

    def __repr__(self) -> str:
        kind = "async" if self._awaits else "plain"
        return f"<AmplitudeMiddleware {kind} of {self._parts.client!r}>"


def _fields_of(request: HttpRequest, wanted: Wanted) -> dict[str, Any]:
    def headers(name: str) -> list[bytes]:
        value = request.META.get(f"HTTP_{name.replace('-', '_').upper()}")
        # As WSGI and Django's ASGI handler have decoded them.
        return [] if value is None else [value.encode("latin-1", "replace")]

    about: Mapping[str, str] = {}
    if wanted.properties:
        about = {
            "path": request.path,
            "method": request.method or "",
            "scheme": request.scheme or "",
        }
    return wanted.fields(headers, request.META.get("REMOTE_ADDR"), about)


def _continue_in_stream(response: Any, visit: _Visit) -> None:
    """Let what a response yields later be in the request as well."""
    # A file tracks nothing, and servers may send it without reading it.
    if not response.streaming or isinstance(response, FileResponse):
        return
    content = response.streaming_content
    if response.is_async:
        response.streaming_content = _awaited_parts(content, visit)
    else:
        context = copy_context()
        # Where the client leaves, what is left of the content runs as it is closed.
        closers: list[Callable[[], object]] = getattr(response, "_resource_closers", [])
        closers[:] = [partial(context.run, close) for close in closers]
        response.streaming_content = _parts_within(iter(content), context)


def _parts_within(content: Iterator[bytes], context: Context) -> Iterable[bytes]:
    nothing: Final = object()
    while (part := context.run(next, content, nothing)) is not nothing:
        yield cast("bytes", part)


async def _awaited_parts(
    content: AsyncIterator[bytes], visit: _Visit
) -> AsyncIterator[bytes]:
    while True:
        # In the task of whoever sends it, so set and taken back for each part.
        with visit.entered():
            try:
                part = await anext(content)
            except StopAsyncIteration:
                return
        yield part


# The end of an ASGI server ----------------------------------------------------


def with_lifespan(application: ASGIApp) -> ASGIApp:
    """Drain the client when an ASGI server ends, within ``shutdown_timeout``.

    Django knows no lifespan, and uvicorn ends by a signal, so that nothing else would.
    A WSGI server needs none of this: the interpreter's exit drains.

    Args:
        application: what ``get_asgi_application()`` gave.
    """

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(amplitude.client.shutdown)
        await send({"type": "lifespan.shutdown.complete"})

    return asgi
