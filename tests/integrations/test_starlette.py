"""The ASGI parts in Starlette: templates of routes, mounts, other middlewares."""

import asyncio
import signal
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from amplitude_async import Amplitude, bind, bindings
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.testing import CapturedEvents, capture

pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

from starlette.applications import Starlette  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Host, Mount, Route, WebSocketRoute  # noqa: E402
from starlette.websockets import WebSocket  # noqa: E402

with warnings.catch_warnings():
    # It asks for a fork of the library that it can do without.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__: list[str] = []


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """Yield what every client of a test tracks; nothing is sent."""
    with capture() as events:
        yield events


@pytest.fixture
async def client(events: CapturedEvents) -> AsyncIterator[Amplitude]:
    """Yield a client whose events are seen as soon as they are tracked."""
    async with Amplitude("key") as client:
        yield client


async def greet(request: Request) -> PlainTextResponse:
    """Greet somebody."""
    return PlainTextResponse("hello")


async def unlucky(request: Request) -> PlainTextResponse:
    """Fail."""
    raise LookupError


class Anything:
    """An application that is no framework's."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        await PlainTextResponse("anything")(scope, receive, send)


ROUTES = [
    Route("/orders/{order:int}", greet),
    Route("/unlucky/{number}", unlucky),
    Mount(
        "/v1",
        routes=[
            Route("/users/{user}", greet),
            Mount("/deep", routes=[Route("/er/{level}", greet)]),
            Mount("/any", app=Anything()),
        ],
    ),
    Mount("/of/{tenant}", routes=[Route("/users/{user}", greet)]),
    Host("{tenant}.example", app=Starlette(routes=[Route("/x/{y}", greet)])),
]


def application(client: Amplitude, **options: Any) -> Starlette:
    """Return an application that tells of each request."""
    middleware = Middleware(
        AmplitudeMiddleware,
        identify=lambda _: {"user_id": "user-1"},
        request_event="Request",
        client=client,
        **options,
    )
    return Starlette(routes=ROUTES, middleware=[middleware])


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/orders/7", "/orders/{order}", 200),
        ("/orders/seven", None, 404),
        ("/unlucky/7", "/unlucky/{number}", 500),
        ("/nowhere/else", None, 404),
        ("/v1/users/ada", "/v1/users/{user}", 200),
        ("/v1/deep/er/9", "/v1/deep/er/{level}", 200),
        ("/v1/any/file", "/v1/any/{path}", 200),
        ("/v1/nobody", "/v1/{path}", 404),
        ("/of/acme/users/ada", None, 200),
        ("/orders/7/", None, 307),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/behind"])
async def test_a_request_is_told_of_with_its_route(
    path: str,
    route: str | None,
    status: int,
    root_path: str,
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """A template, with the places it is mounted at; where it cannot be told, none."""
    transport = httpx.ASGITransport(
        application(client), raise_app_exceptions=False, root_path=root_path
    )
    async with httpx.AsyncClient(
        transport=transport, base_url="http://service"
    ) as http:
        answer = await http.get(root_path + path)

    [event] = events.named("Request")
    properties = event.properties
    assert answer.status_code == status
    assert (properties.get("route"), properties["status"]) == (route, status)
    assert "aborted" not in properties or status == 500


async def test_a_host_with_a_name_in_it_is_no_route(
    client: Amplitude, events: CapturedEvents
) -> None:
    """The name would stand there as it is."""
    transport = httpx.ASGITransport(application(client))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as h:
        assert (await h.get("/x/7")).status_code == 200

    [event] = events.named("Request")
    assert "route" not in event.properties


@pytest.mark.parametrize("is_outside", [True, False])
async def test_the_middleware_that_breaks_context_variables_breaks_no_scope(
    is_outside: bool,
) -> None:
    """With it around ours or inside, a request's own things are its own (1525)."""
    seen: list[Any] = []

    async def handler(request: Request) -> PlainTextResponse:
        seen.append(dict(bindings()))
        bind(user_id=request.path_params["user"])
        return PlainTextResponse(bindings()["user_id"])

    async def through(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        seen.append(bindings().get("user_id"))
        return response

    ours = Middleware(AmplitudeMiddleware, capture=())
    theirs = Middleware(BaseHTTPMiddleware, dispatch=through)
    app = Starlette(
        routes=[Route("/{user}", handler)],
        middleware=[theirs, ours] if is_outside else [ours, theirs],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://s") as http:
        for user in ("user-1", "user-2"):
            assert (await http.get(f"/{user}")).text == user

    after = [None, None] if is_outside else ["user-1", "user-2"]
    assert seen == [{}, after[0], {}, after[1]]


def test_a_websocket_is_a_scope(events: CapturedEvents) -> None:
    """Each connection has its own, and what it binds is on its events."""

    async def chat(websocket: WebSocket) -> None:
        bind(user_id=websocket.path_params["user"])
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.state.amplitude.track(text)
            await websocket.send_text(bindings()["user_id"])

    app = Starlette(
        routes=[WebSocketRoute("/chat/{user}", chat)],
        middleware=[Middleware(AmplitudeMiddleware, request_event="Request")],
        lifespan=amplitude_lifespan(),
    )
    with (
        TestClient(app) as http,
        http.websocket_connect("/chat/user-1") as one,
        http.websocket_connect("/chat/user-2") as two,
    ):
        for _ in range(3):
            one.send_text("One")
            two.send_text("Two")
            assert one.receive_text() == "user-1"
            assert two.receive_text() == "user-2"

    assert {(event.name, event.user_id) for event in events} == {
        ("One", "user-1"),
        ("Two", "user-2"),
        ("Request", "user-1"),
        ("Request", "user-2"),
    }
    told = {event.properties["route"] for event in events.named("Request")}
    assert told == {"/chat/{user}"}


async def test_a_server_without_state_is_told(client: Amplitude) -> None:
    """The service does not start, as its handlers would find no client."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = Starlette(lifespan=amplitude_lifespan(client=client))
    with pytest.raises(RuntimeError, match='does not support "state"'):
        await app({"type": "lifespan"}, receive, send)

    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert (await client.track("Late", user_id="user-1")).result is not None


async def test_a_client_that_leaves_a_stream_is_told_of(events: CapturedEvents) -> None:
    """Under a real server: the stream is cut, and the request has its event."""
    left = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)
        finally:
            left.set()

    async def stream(request: Request) -> StreamingResponse:
        bind(user_id="user-1")
        return StreamingResponse(endless())

    app = Starlette(
        routes=[Route("/stream", stream)],
        middleware=[Middleware(AmplitudeMiddleware, request_event="Request")],
        lifespan=amplitude_lifespan(),
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readline()
    writer.transport.abort()
    await left.wait()
    server.should_exit = True
    await task

    [event] = events.named("Request")
    told = dict(event.properties)
    del told["duration"]
    assert told == {
        "route": "/stream",
        "method": "GET",
        "status": 200,
        "aborted": True,
    }


async def test_the_example_delivers_before_it_stops(
    sign_up_at: Callable[..., Any],
) -> None:
    """Events of requests served, and the requests, are there with their users."""
    ended = await sign_up_at("starlette_service.py")

    assert ended.exit_code == -signal.SIGTERM
    assert ended.requests == {("/users/{user_id}", 200)}
