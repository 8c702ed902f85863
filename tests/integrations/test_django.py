"""Django, plain and async: views, sessions, streams, servers, the emulator."""
# ruff: noqa: E402 - what is imported below is there or the file is skipped

import asyncio
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

pytest.importorskip("django")
uvicorn = pytest.importorskip("uvicorn")

import django
from django.conf import settings
from django.contrib.auth import alogin, alogout, login, logout, user_logged_in
from django.core import checks
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, SystemCheckError
from django.core.wsgi import get_wsgi_application
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    StreamingHttpResponse,
)
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from amplitude_async import Identify, Revenue, bind, bindings
from amplitude_async.emulator import Emulator
from amplitude_async.integrations.django import (
    AmplitudeMiddleware,
    amplitude,
    with_lifespan,
)
from tests.conftest import free_port

__all__: list[str] = []

KEY = "test-key-of-a-django-service"
PACKAGE = "amplitude_async.integrations.django"
EXAMPLES = Path(__file__).parents[2] / "examples"
START_TIMEOUT = 20.0


def user(number: int) -> Any:
    """Make a user of Django's, who is in no database."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - needs settings

    return User(pk=number, username=f"u{number}")


class Backend:
    """Knows every user by number, without a database."""

    def get_user(self, user_id: int) -> Any:
        """Give the user of a number."""
        return user(user_id)

    async def aget_user(self, user_id: int) -> Any:
        """Give the user of a number to an async view."""
        return user(user_id)


# Views ------------------------------------------------------------------------


def seen(request: HttpRequest, number: str) -> HttpResponse:
    """Track in a plain view."""
    amplitude.track("Seen", event_properties={"number": number})
    return HttpResponse("ok")


async def aseen(request: HttpRequest, number: str) -> HttpResponse:
    """Track in an async view."""
    await amplitude.atrack("Seen", event_properties={"number": number})
    return HttpResponse("ok")


def idle(request: HttpRequest) -> HttpResponse:
    """Track nothing."""
    return HttpResponse(str(sorted(bindings())))


def bound_by_view(request: HttpRequest) -> HttpResponse:
    """Bind a user by hand: it wins over the one who is signed in."""
    bind(user_id="by-hand")
    amplitude.track("Seen")
    return HttpResponse()


def in_and_out(request: HttpRequest) -> HttpResponse:
    """Sign in and out within one request."""
    login(request, user(77), backend="django_site.Backend")
    amplitude.track("Signed In")
    logout(request)
    amplitude.track("Signed Out")
    return HttpResponse()


async def ain_and_out(request: HttpRequest) -> HttpResponse:
    """Sign in and out within one request, awaiting."""
    await alogin(request, user(77), backend="django_site.Backend")
    await amplitude.atrack("Signed In")
    await alogout(request)
    await amplitude.atrack("Signed Out")
    return HttpResponse()


def closing(request: HttpRequest) -> HttpResponse:
    """Shut the client down, as nobody should."""
    amplitude.client.shutdown(0)
    return HttpResponse()


def missing(request: HttpRequest) -> HttpResponse:
    """Answer that there is no such thing."""
    raise Http404


def crash(request: HttpRequest) -> HttpResponse:
    """Fail."""
    raise RuntimeError("out of order")


async def acrash(request: HttpRequest) -> HttpResponse:
    """Fail in an async view."""
    raise RuntimeError("out of order")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in parts, and track between them."""

    def parts() -> Iterator[str]:
        for number in range(3):
            amplitude.track("Part", event_properties={"number": number})
            yield "x"

    return StreamingHttpResponse(parts())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in parts from an async view."""

    async def parts() -> AsyncIterator[str]:
        for number in range(3):
            await amplitude.atrack("Part", event_properties={"number": number})
            yield "x"

    return StreamingHttpResponse(parts())


def left(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in parts, and track that the client has left."""

    def parts() -> Iterator[str]:
        try:
            yield from "xyz"
        finally:
            amplitude.track("Left")

    return StreamingHttpResponse(parts())


async def aleft(request: HttpRequest) -> StreamingHttpResponse:
    """The same from an async view, without an end."""

    async def parts() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0.01)
        finally:
            await amplitude.atrack("Left")

    return StreamingHttpResponse(parts())


def bound_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer in parts, and bind between them."""

    def parts() -> Iterator[str]:
        bind(user_id="streamed")
        yield "x"

    return StreamingHttpResponse(parts())


def file(request: HttpRequest) -> FileResponse:
    """Send a file."""
    return FileResponse(Path(__file__).open("rb"))


def every_verb(request: HttpRequest) -> HttpResponse:
    """Use each verb of a plain view."""
    amplitude.identify(Identify().set("plan", "pro"))
    amplitude.set_group("company", "acme")
    amplitude.group_identify("company", "acme", Identify().set("size", 3))
    amplitude.revenue(Revenue(price=3.0))
    return HttpResponse()


async def aevery_verb(request: HttpRequest) -> HttpResponse:
    """Use each verb of an async view."""
    await amplitude.aidentify(Identify().set("plan", "pro"))
    await amplitude.aset_group("company", "acme")
    await amplitude.agroup_identify("company", "acme", Identify().set("size", 3))
    await amplitude.arevenue(Revenue(price=3.0))
    return HttpResponse()


def crossing(request: HttpRequest, number: str) -> HttpResponse:
    """Track in a view and in a thread of it."""
    amplitude.track("Seen", event_properties={"number": number, "place": "view"})
    bind(device_id=f"device-{number}")
    amplitude.track("Seen", event_properties={"number": number, "place": "bound"})
    return HttpResponse()


async def acrossing(request: HttpRequest, number: str) -> HttpResponse:
    """Track in a view, a task and a thread of it."""
    place = {"number": number, "place": "view"}
    await asyncio.sleep(int(number) % 7 / 1000)
    await amplitude.atrack("Seen", event_properties=place)
    # What a thread binds, the request sees.
    await asyncio.to_thread(bind, device_id=f"device-{number}")
    there = {**place, "place": "bound"}
    await asyncio.create_task(amplitude.atrack("Seen", event_properties=there))
    return HttpResponse()


class Urls:
    """The routes of the site."""

    urlpatterns = (
        path("orders/<str:number>/", seen),
        path("async/orders/<str:number>/", aseen),
        path("idle/", idle),
        path("by-hand/", bound_by_view),
        path("in-and-out/", in_and_out),
        path("async/in-and-out/", ain_and_out),
        path("closing/", closing),
        path("missing/", missing),
        path("crash/", crash),
        path("async/crash/", acrash),
        path("stream/", stream),
        path("async/stream/", astream),
        path("left/", left),
        path("async/left/", aleft),
        path("bound-stream/", bound_stream),
        path("file/", file),
        path("verbs/", every_verb),
        path("async/verbs/", aevery_verb),
        path("cross/<str:number>/", crossing),
        path("async/cross/<str:number>/", acrossing),
    )


def by_header(request: HttpRequest) -> dict[str, str]:
    """Tell the user by a header."""
    return {"user_id": request.headers["X-User"]}


async def aby_header(request: HttpRequest) -> dict[str, str]:
    """Tell the user by a header, after a moment."""
    await asyncio.sleep(0)
    return by_header(request)


@pytest.fixture(scope="session", autouse=True)
def site() -> None:
    """Configure Django, once in this process."""
    module: Any = ModuleType("django_site")
    module.Backend, module.by_header = Backend, by_header
    sys.modules["django_site"] = module
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=Urls,
        SECRET_KEY="made-up-for-the-tests-of-this-file-alone-and-long",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        AUTHENTICATION_BACKENDS=["django_site.Backend"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            f"{PACKAGE}.AmplitudeConfig",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            f"{PACKAGE}.AmplitudeMiddleware",
        ],
        AMPLITUDE={},
        USE_TZ=True,
    )
    django.setup()
    # Nobody here is in a database.
    user_logged_in.disconnect(dispatch_uid="update_last_login")


Configure = Callable[..., None]


@pytest.fixture
def configure(emulator: Emulator) -> Iterator[Configure]:
    """Return what sets AMPLITUDE for the rest of a test."""
    used: list[override_settings] = []

    def use(**options: Any) -> None:
        given = {"api_key": KEY, "server_url": emulator.httpapi_url, **options}
        override = override_settings(AMPLITUDE=given)
        override.enable()
        used.append(override)

    yield use
    for override in reversed(used):
        override.disable()


async def in_thread(call: Callable[[], Any]) -> Any:
    """Call what is plain, and so runs on no loop; then deliver what was tracked."""
    answer = await asyncio.to_thread(call)
    await asyncio.to_thread(amplitude.client.flush)
    return answer


async def ask(kind: str, url: str, **options: Any) -> Any:
    """Ask for a page by one of the two test clients, as nobody or as a user."""
    signed_in = options.pop("signed_in", None)

    def plain() -> Any:
        client = Client(raise_request_exception=False)
        if signed_in is not None:
            client.force_login(user(signed_in), "django_site.Backend")
        answer = client.get(url, **options)
        return b"".join(answer) and answer if answer.streaming else answer

    if kind == "wsgi":
        return await in_thread(plain)
    client = AsyncClient(raise_request_exception=False)
    if signed_in is not None:
        await client.aforce_login(user(signed_in), "django_site.Backend")
    answer = await client.get(url, **options)
    if answer.streaming:
        async for _ in answer:
            pass
    await asyncio.to_thread(amplitude.client.flush)
    return answer


# A view of each kind, under a handler of each kind: the two odd ones cross over.
EACH = [
    ("wsgi", "/orders/7/"),
    ("asgi", "/orders/7/"),
    ("wsgi", "/async/orders/7/"),
    ("asgi", "/async/orders/7/"),
]
each = pytest.mark.parametrize(("kind", "url"), EACH)


@each
async def test_every_event_has_what_the_request_knows(
    kind: str, url: str, configure: Configure, emulator: Emulator
) -> None:
    """Address, program, language, path and user stand in an event that names none."""
    configure(trusted_hops=1, properties=["path", "method"])
    headers = {
        "User-Agent": "shop/1.0",
        "Accept-Language": "de-AT,en;q=0.5",
        "X-Forwarded-For": "6.6.6.6, 9.9.9.9",
    }
    answer = await ask(kind, url, headers=headers, signed_in=42)

    # The session was read, and a cache must know.
    assert answer.headers["Vary"] == "Cookie"
    (event,) = emulator.events
    assert {n: event[n] for n in ("user_id", "ip", "user_agent", "language")} == {
        "user_id": "42",
        "ip": "9.9.9.9",
        "user_agent": "shop/1.0",
        "language": "de-AT",
    }
    properties = {"number": "7", "path": url, "method": "GET"}
    assert event["event_properties"] == properties


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
async def test_who_tracks_nothing_touches_no_session(
    kind: str, configure: Configure
) -> None:
    """A page that may be cached for all stays so, for users and for nobody."""
    configure(capture=[])
    for signed_in in (None, 42):
        answer = await ask(kind, "/idle/", signed_in=signed_in)

        assert answer.content == b"[]"
        assert "Cookie" not in answer.headers.get("Vary", "")
        assert answer.cookies == {}


@each
@pytest.mark.allow_blocking  # to change a setting waits for the client's end
async def test_nobody_gets_no_session_for_being_counted(
    kind: str, url: str, configure: Configure, emulator: Emulator
) -> None:
    """An event of a request without a session cookie reads none, and makes none."""
    configure(identify=None)
    anonymous = await ask(kind, url)
    configure()
    answer = await ask(kind, url)

    for response in (anonymous, answer):
        assert response.status_code == 200
        assert "Vary" not in response.headers
        assert response.cookies == {}
    assert emulator.events == []


@each
@pytest.mark.parametrize("identify", [by_header, aby_header, "django_site.by_header"])
async def test_an_identify_of_any_kind_tells_any_view(
    identify: Any, kind: str, url: str, configure: Configure, emulator: Emulator
) -> None:
    """Plain or async, itself or its path, for plain and async views."""
    configure(identify=identify)
    await ask(kind, url, headers={"X-User": "user-1"})

    assert [event["user_id"] for event in emulator.events] == ["user-1"]


@each
async def test_an_identify_that_raises_breaks_no_request(
    kind: str,
    url: str,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request is answered, the log says why its event has no user."""
    configure(identify=by_header)
    answer = await ask(kind, url)

    assert answer.status_code == 200
    assert "identify raised KeyError: the request goes on" in caplog.text


async def test_what_a_view_binds_wins(configure: Configure, emulator: Emulator) -> None:
    """A view may know better who it is that asks."""
    configure()
    for kind in ("wsgi", "asgi"):
        await ask(kind, "/by-hand/", signed_in=42)

    assert [event["user_id"] for event in emulator.events] == ["by-hand"] * 2


async def test_a_user_who_signs_in_is_known_at_once(
    configure: Configure, emulator: Emulator
) -> None:
    """The request that signs somebody in, or out, is that user's."""
    configure()
    for kind in ("wsgi", "asgi"):
        await ask(kind, "/in-and-out/")
        await ask(kind, "/async/in-and-out/")

    names = [(event["event_type"], event["user_id"]) for event in emulator.events]
    assert names == [("Signed In", "77"), ("Signed Out", "77")] * 4


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("url", ["/stream/", "/async/stream/"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
async def test_a_stream_is_in_its_request(
    kind: str, url: str, configure: Configure, emulator: Emulator
) -> None:
    """What is tracked between two parts of an answer has the request's user."""
    configure(properties=["path"])
    await ask(kind, url, signed_in=42)

    assert [event["user_id"] for event in emulator.events] == ["42"] * 3
    paths = {event["event_properties"]["path"] for event in emulator.events}
    assert paths == {url}
    assert bindings() == {}


async def test_a_stream_that_nobody_reads_to_its_end_is_in_its_request(
    configure: Configure, emulator: Emulator
) -> None:
    """What it tracks as it is closed has the user, under both kinds of servers."""
    configure(identify=by_header, flush_interval=60.0)

    def plain() -> None:
        answer = Client().get("/left/", headers={"X-User": "user-1"})
        next(iter(answer))
        answer.close()

    await in_thread(plain)
    application = get_asgi_application()
    async with serving(with_lifespan(application)) as address:
        url = f"{address}/async/left/"
        async with aiohttp.ClientSession(headers={"X-User": "user-2"}) as session:
            answer = await session.get(url)
            assert await answer.content.readexactly(1) == b"x"
            answer.close()
        # The last one comes when the server has seen that its client has left.
        flush = amplitude.client.flush
        while (await asyncio.to_thread(flush)).accepted < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

    assert [(event["event_type"], event["user_id"]) for event in emulator.events] == [
        ("Left", "user-1"),
        ("Left", "user-2"),
    ]


def test_a_file_is_left_to_the_server(configure: Configure) -> None:
    """A server may send it by a call of the system, which needs the file itself."""
    configure()
    middleware = AmplitudeMiddleware(file)
    answer = middleware(RequestFactory().get("/file/"))

    assert answer.file_to_stream is not None
    answer.close()


@pytest.mark.parametrize(
    ("url", "status", "route"),
    [
        ("/idle/", 200, "/idle/"),
        ("/missing/", 404, "/missing/"),
        ("/crash/", 500, "/crash/"),
        ("/async/crash/", 500, "/async/crash/"),
        ("/nowhere/", 404, None),
        ("/cross/7/", 200, "/cross/<str:number>/"),
    ],
)
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
async def test_each_end_of_a_request_is_its_event(
    kind: str,
    url: str,
    status: int,
    route: str | None,
    configure: Configure,
    emulator: Emulator,
) -> None:
    """However a view ends, the event tells the route and the status."""
    configure(request_event="Request")
    answer = await ask(kind, url, signed_in=42)

    assert answer.status_code == status
    (event,) = (e for e in emulator.events if e["event_type"] == "Request")
    properties = event["event_properties"]
    assert event["user_id"] == "42"
    assert properties.pop("duration") >= 0
    known = {"method": "GET", "status": status, "route": route}
    assert properties == {n: v for n, v in known.items() if v is not None}


async def test_a_request_of_nobody_is_no_event(
    configure: Configure, emulator: Emulator
) -> None:
    """Without a user there is no event, and an excluded path has no scope at all."""
    configure(request_event="Request", exclude=["/idle/"])
    for kind in ("wsgi", "asgi"):
        await ask(kind, "/missing/")
        answer = await ask(kind, "/idle/", signed_in=42)
        assert answer.content == b"[]"

    assert emulator.events == []


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
async def test_an_event_that_raises_breaks_no_request(
    kind: str, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered, the log says why it is not tracked."""
    who = {"user_id": "user-1"}
    configure(request_event="Request", identify=lambda _: who, strict=True)
    answer = await ask(kind, "/closing/")

    assert answer.status_code == 200
    assert "a request was not tracked" in caplog.text


@pytest.mark.parametrize("prefix", ["", "/async"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
async def test_every_verb_works_in_both_kinds_of_views(
    kind: str, prefix: str, configure: Configure, emulator: Emulator
) -> None:
    """All but the change of a group are the user's."""
    configure()
    await ask(kind, f"{prefix}/verbs/", signed_in=42)

    found = Counter((e["event_type"], e.get("user_id")) for e in emulator.events)
    assert found == {
        ("$identify", "42"): 2,
        ("$groupidentify", None): 1,
        ("revenue_amount", "42"): 1,
    }


async def test_hostile_headers_harm_nothing(
    configure: Configure, emulator: Emulator
) -> None:
    """A request with any header is answered, and its event is taken."""
    configure(trusted_hops=1, identify=lambda _: {"user_id": "user-1"})
    hostile = [
        {"User-Agent": "x" * 1_000_000},
        {"User-Agent": "a\x00b\x1b[31m"},
        {"Accept-Language": "\xff\xff" * 1000},
        {"X-Forwarded-For": "6.6.6.6," * 100_000},
        {"X-Forwarded-For": "\xf0\x9f\x92\xa9"},
        {"User-Agent": "\u20ac"},
    ]
    for headers in hostile:
        answer = await ask("wsgi", "/orders/1/", headers=headers)
        assert answer.status_code == 200

    assert len(emulator.events) == len(hostile)
    assert emulator.events[0]["user_agent"] == "x" * 512


async def test_a_plain_verb_in_an_async_view_names_the_other(
    configure: Configure,
) -> None:
    """It would block every other request: the error says what to use."""
    configure()

    with pytest.raises(Exception, match="running event loop"):
        amplitude.track("Seen", user_id="user-1")


async def test_outside_of_requests_the_caller_names_the_user(
    configure: Configure, emulator: Emulator
) -> None:
    """A management command tracks by the same verbs."""
    configure()

    class Command(BaseCommand):  # type: ignore[misc]  # Django brings no types
        def handle(self, *_: Any, **__: Any) -> None:
            amplitude.track("Report Mailed", user_id="user-1")

    await in_thread(lambda: call_command(Command()))

    assert [event["user_id"] for event in emulator.events] == ["user-1"]


# The setting --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flush_intervall": 1}, "flush_intervall"),
        ({"capture": ["cookie"]}, "capture has no 'cookie'"),
        ({"identify": "no.such.function"}, "identify='no.such.function'"),
        ({"identify": 7}, "identify=7: give a function"),
        ({"api_key": ""}, "api_key is empty"),
    ],
)
def test_a_wrong_setting_is_told_by_the_check(
    options: dict[str, Any], words: str
) -> None:
    """``manage.py check`` finds it before a server starts."""
    with override_settings(AMPLITUDE={"api_key": KEY, **options}):
        (error,) = checks.run_checks()
        assert error.id == "amplitude.E001"
        assert words in error.msg
        with pytest.raises(SystemCheckError, match="AMPLITUDE"):
            call_command("check")
    with override_settings(AMPLITUDE=[KEY]):
        (error,) = checks.run_checks()
        assert "AMPLITUDE is list: make it a dict" in error.msg
    with override_settings(AMPLITUDE={"opt_out": True}):
        assert checks.run_checks() == []


def test_a_middleware_without_its_application_names_what_is_missing() -> None:
    """Two lines belong into the settings, and one was forgotten."""
    with (
        override_settings(INSTALLED_APPS=[]),
        pytest.raises(ImproperlyConfigured, match="AmplitudeConfig"),
    ):
        AmplitudeMiddleware(lambda _: None)


def test_primary_keys_are_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a user is an id, unless the environment says otherwise."""
    with override_settings(AMPLITUDE={"api_key": KEY}):
        assert amplitude.client.config.min_id_length == 1
    monkeypatch.setenv("AMPLITUDE_MIN_ID_LENGTH", "3")
    with override_settings(AMPLITUDE={"api_key": KEY}):
        assert amplitude.client.config.min_id_length == 3


def test_threads_that_come_together_get_one_client() -> None:
    """The first requests of a process make it once."""
    barrier = threading.Barrier(16)

    def first(_: int) -> int:
        barrier.wait()
        return id(amplitude.client)

    with override_settings(AMPLITUDE={"api_key": KEY}), ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(first, range(16)))) == 1
    assert "Tracking of Django" in repr(amplitude)


# Under real servers ---------------------------------------------------------------


@asynccontextmanager
async def serving(application: Any) -> AsyncIterator[str]:
    """Run an ASGI application under uvicorn; yields its address."""
    config = uvicorn.Config(application, port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(START_TIMEOUT):
        while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to await
            await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    await running


def check_users(events: list[dict[str, Any]], requests: int) -> None:
    """Fail unless each event has the ids of the request it was tracked in."""
    assert len(events) == 2 * requests
    for event in events:
        properties = event["event_properties"]
        number, place = properties["number"], properties["place"]
        assert event["user_id"] == f"user-{number}"
        expected = f"device-{number}" if place == "bound" else None
        assert event.get("device_id") == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("url", "identify"),
    [("/cross/{}/", by_header), ("/async/cross/{}/", aby_header)],
)
async def test_no_event_crosses_over_under_uvicorn(
    url: str, identify: Any, configure: Configure, emulator: Emulator
) -> None:
    """1,000 interleaved requests, three times; the lifespan's end delivers the rest."""
    configure(identify=identify, flush_interval=60.0)
    gate = asyncio.Semaphore(100)
    async with (
        serving(with_lifespan(get_asgi_application())) as address,
        aiohttp.ClientSession(address) as session,
    ):

        async def get(number: int) -> None:
            headers = {"X-User": f"user-{number}"}
            async with (
                gate,
                session.get(url.format(number), headers=headers) as response,
            ):
                assert response.status == 200

        for round_ in range(3):
            await asyncio.gather(*(get(round_ * 1000 + n) for n in range(1000)))

    check_users(emulator.events, 3000)


@pytest.mark.long
async def test_no_event_crosses_over_among_threads(
    configure: Configure, emulator: Emulator
) -> None:
    """1,000 interleaved requests on 16 threads, three times."""
    configure(identify=by_header)
    get_wsgi_application()

    def get(number: int) -> int:
        headers = {"X-User": f"user-{number}"}
        status: int = Client().get(f"/cross/{number}/", headers=headers).status_code
        return status

    def all_of_them() -> set[int]:
        with ThreadPoolExecutor(16) as pool:
            return {
                status
                for round_ in range(3)
                for status in pool.map(get, range(round_ * 1000, round_ * 1000 + 1000))
            }

    assert await in_thread(all_of_them) == {200}
    check_users(emulator.events, 3000)


async def test_the_next_request_of_a_thread_knows_nothing_of_the_last(
    configure: Configure, emulator: Emulator
) -> None:
    """Not even of one whose path is left alone: a pool keeps the thread's context."""
    configure(exclude=["/by-hand/", "/bound-stream/"], capture=())
    get_wsgi_application()

    def ask_all() -> list[str]:
        found = []
        for url in ("/by-hand/", "/bound-stream/"):
            b"".join(Client().get(url))
            found.append(Client().get("/idle/").content.decode())
        return found

    assert await in_thread(ask_all) == ["[]", "[]"]
    (event,) = emulator.events
    assert event["user_id"] == "by-hand"


async def test_a_client_that_leaves_cancels_nothing_of_ours(
    configure: Configure, emulator: Emulator
) -> None:
    """Django cancels the view; its request is told as aborted."""
    configure(request_event="Request", identify=by_header)
    begun = asyncio.Event()
    outcome: list[str] = []

    async def wait(request: HttpRequest) -> HttpResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        raise AssertionError

    class Waiting:
        urlpatterns = (path("wait/", wait),)

    with override_settings(ROOT_URLCONF=Waiting):
        async with serving(with_lifespan(get_asgi_application())) as address:
            port = int(address.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /wait/ HTTP/1.1\r\nHost: a\r\nX-User: user-1\r\n\r\n")
            await begun.wait()
            writer.close()

    assert outcome == ["cancelled"]
    (event,) = emulator.events
    assert event["user_id"] == "user-1"
    assert event["event_properties"]["aborted"] is True
    assert "status" not in event["event_properties"]


async def ask_all(url: str, users: list[str]) -> None:
    """Let each user pay and ship."""
    async with aiohttp.ClientSession(url) as session:
        for user in users:
            headers = {"Authorization": f"Bearer {user}"}
            for what in ("pay", "ship"):
                async with session.get(f"/orders/7/{what}", headers=headers) as answer:
                    assert answer.status == 200


def check_orders(emulator: Emulator, users: list[str]) -> None:
    """Fail unless each user's two events have arrived."""
    found = Counter((e["event_type"], e["user_id"]) for e in emulator.events)
    assert found == Counter(
        (name, user) for user in users for name in ("Order Paid", "Order Shipped")
    )


USERS = [f"user-{number}" for number in range(20)]


async def test_the_example_delivers_under_uvicorn(
    emulator: Emulator, start_example: Callable[..., Any]
) -> None:
    """The service on the docs' page runs, and SIGTERM loses nothing."""
    async with start_example(
        "django_service.py", AMPLITUDE_FLUSH_INTERVAL="60"
    ) as service:
        await ask_all(service.url, USERS)
        await service.stop()

    check_orders(emulator, USERS)


@pytest.mark.parametrize(
    "options",
    [
        ["-k", "sync", "-w", "2"],
        ["-k", "gthread", "--threads", "8"],
        ["-k", "gthread", "--threads", "8", "--preload"],
    ],
    ids=["sync", "gthread", "preload"],
)
async def test_the_example_delivers_under_gunicorn(
    options: list[str], emulator: Emulator
) -> None:
    """Plain workers drain at the exit of each."""
    pytest.importorskip("gunicorn")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", "django_service:wsgi"),
        *("-b", f"127.0.0.1:{port}", "--chdir", str(EXAMPLES), *options),
        env={
            **os.environ,
            "AMPLITUDE_API_KEY": KEY,
            "AMPLITUDE_SERVER_URL": emulator.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
            "AMPLITUDE_FLUSH_INTERVAL": "60",
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until_listening(port, lambda: process.returncode is None)
        await ask_all(f"http://127.0.0.1:{port}", USERS)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), START_TIMEOUT) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    check_orders(emulator, USERS)


async def until_listening(port: int, runs: Callable[[], bool]) -> None:
    """Wait until a service accepts connections."""
    async with asyncio.timeout(START_TIMEOUT):
        while runs():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
    pytest.fail("the service ended before it listened")


def test_the_page_shows_the_example_that_runs() -> None:
    """What a reader copies is the file that is tested."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "integrations" / "django.md").read_text(encoding="utf-8")

    assert (root / "examples" / "django_service.py").read_text(encoding="utf-8") in page
