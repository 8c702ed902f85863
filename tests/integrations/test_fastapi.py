"""The client in FastAPI: the dependency, routes, and users that are never mixed up."""

import asyncio
import random
import runpy
import signal
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Annotated, Any

import aiohttp
import pytest

from amplitude_async import ConfigurationError, bind, bindings, bound
from amplitude_async.emulator import Emulator
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.testing import RecordingAmplitude, capture

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

from fastapi import (  # noqa: E402
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    WebSocket,
)

from amplitude_async.integrations.fastapi import (  # noqa: E402
    AmplitudeDep,
    get_amplitude,
)

with warnings.catch_warnings():
    # It asks for a fork of the library that it can do without.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

__all__: list[str] = []


def service(**options: Any) -> FastAPI:
    """Return a service whose handlers take the client."""
    app = FastAPI(**options)

    @app.get("/{user}")
    async def greet(user: str, amplitude: AmplitudeDep) -> str:
        await amplitude.track("Greeted", user_id=user)
        return type(amplitude).__name__

    @app.websocket("/{user}")
    async def chat(websocket: WebSocket, user: str, amplitude: AmplitudeDep) -> None:
        await websocket.accept()
        await amplitude.track("Chatted", user_id=user)
        await websocket.close()

    return app


# The dependency ---------------------------------------------------------------


def test_handlers_and_websockets_take_the_client() -> None:
    """It is the one that the lifespan opened."""
    app = service(lifespan=amplitude_lifespan())
    with capture() as events, TestClient(app) as http:
        assert http.get("/user-1").json() == "Amplitude"
        with http.websocket_connect("/user-2"):
            """Connected is enough."""

    assert [(event.name, event.user_id) for event in events] == [
        ("Greeted", "user-1"),
        ("Chatted", "user-2"),
    ]


def test_a_test_puts_another_client_in_its_place() -> None:
    """As with every dependency: neither a lifespan nor a key is needed."""
    client = RecordingAmplitude(opt_out=True)
    app = service(lifespan=amplitude_lifespan())
    app.dependency_overrides[get_amplitude] = lambda: client

    assert TestClient(app).get("/user-1").json() == "RecordingAmplitude"
    assert client.stats.accepted == 1


async def put_something_else(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Use the name for something else."""
    yield {"amplitude": "loud"}


@pytest.mark.parametrize(
    ("options", "is_entered"),
    [
        ({}, True),
        ({"lifespan": amplitude_lifespan()}, False),
        ({"lifespan": asynccontextmanager(put_something_else)}, True),
    ],
)
def test_a_missing_lifespan_is_told_with_its_remedy(
    options: Any, is_entered: bool
) -> None:
    """Whether it was forgotten or a test has not entered it."""
    http = TestClient(service(**options))
    with ExitStack() as stack:
        if is_entered:
            stack.enter_context(http)
        with pytest.raises(ConfigurationError) as raised:
            http.get("/user-1")

    assert "FastAPI(lifespan=amplitude_lifespan())" in str(raised.value)
    assert "`with TestClient(app) as http:`" in str(raised.value)


def test_a_lifespan_without_its_brackets_is_told() -> None:
    """The service does not start, and the message says what to write."""
    app = service(lifespan=amplitude_lifespan)
    with (
        pytest.raises(ConfigurationError, match="lacks its brackets"),
        TestClient(app),
    ):
        pytest.fail("it has started")


# Scopes -----------------------------------------------------------------------


def in_a_thread() -> Iterator[None]:
    """Bind, and open a block, where FastAPI runs plain generators."""
    bind(device_id="device-1")
    with bound(user_id="of-the-thread"):
        yield
    bind(platform="after")


async def in_the_request() -> AsyncIterator[None]:
    """Open a block where FastAPI runs async generators."""
    with bound(carrier="of-the-block"):
        yield


def test_generator_dependencies_bind_into_the_request() -> None:
    """A block in one that runs in a thread stays there; `bind` does not."""
    seen: list[dict[str, Any]] = []
    app = FastAPI()
    app.add_middleware(AmplitudeMiddleware, capture=())

    @app.get("/", dependencies=[Depends(in_a_thread), Depends(in_the_request)])
    def handler(background: BackgroundTasks) -> None:
        seen.append(bindings())
        bind(country="AT")
        background.add_task(lambda: seen.append(bindings()))

    http = TestClient(app)
    for _ in range(2):
        assert http.get("/").status_code == 200

    assert seen[0] == seen[2] == {"device_id": "device-1", "carrier": "of-the-block"}
    assert seen[1] == seen[3]
    assert seen[1]["device_id"] == "device-1"


# Routes -----------------------------------------------------------------------


def routed() -> FastAPI:
    """Return a service with routers in routers and an application in it."""
    app = FastAPI(lifespan=amplitude_lifespan())
    app.add_middleware(
        AmplitudeMiddleware,
        identify=lambda _: {"user_id": "user-1"},
        request_event="Request",
    )
    inner = APIRouter(prefix="/inner")
    outer = APIRouter(prefix="/outer")
    below = FastAPI()

    for router in (app, inner, outer, below):

        @router.get("/items/{item:path}")
        async def read(item: str) -> str:
            return item

        @router.websocket("/chat/{room}")
        async def chat(websocket: WebSocket, room: str) -> None:
            await websocket.accept()
            await websocket.close(4001)

    outer.include_router(inner, prefix="/of/{tenant}")
    app.include_router(outer, prefix="/v1")
    app.mount("/below", below)
    return app


PREFIXES = [
    ("", ""),
    ("/v1/outer", "/v1/outer"),
    ("/v1/outer/of/acme/inner", "/v1/outer/of/{tenant}/inner"),
    ("/below", "/below"),
]


@pytest.mark.parametrize(("prefix", "shown"), PREFIXES)
def test_a_request_is_told_of_with_its_whole_route(prefix: str, shown: str) -> None:
    """Through included routers and mounted applications, of any depth."""
    with capture() as events, TestClient(routed()) as http:
        assert http.get(prefix + "/items/a/b").status_code == 200
        assert http.post(prefix + "/items/a/b").status_code == 405
        assert http.get(prefix + "/nothing/here").status_code == 404
        with http.websocket_connect(prefix + "/chat/7"):
            """The service closes it."""

    told = [event.properties for event in events.named("Request")]
    assert [(p.get("route"), p.get("status"), p.get("code")) for p in told] == [
        (shown + "/items/{item}", 200, None),
        (shown + "/items/{item}", 405, None),
        (None, 404, None),
        (shown + "/chat/{room}", None, 4001),
    ]


def test_a_response_that_is_streamed_is_told_of_at_its_end() -> None:
    """And work behind the response does not hold the event up."""
    from fastapi.responses import StreamingResponse  # noqa: PLC0415

    client = RecordingAmplitude()
    order = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            order.append(client.stats.accepted)
            yield b"%d" % number

    app = FastAPI(lifespan=amplitude_lifespan(client=client))
    app.add_middleware(AmplitudeMiddleware, request_event="Request")

    @app.get("/")
    async def stream(background: BackgroundTasks) -> StreamingResponse:
        bind(user_id="user-1")
        background.add_task(lambda: order.append(client.stats.accepted))
        return StreamingResponse(pieces(), background=background)

    with TestClient(app) as http:
        assert http.get("/").content == b"012"

    assert order == [0, 0, 0, 1]


# Isolation --------------------------------------------------------------------

ROUNDS = 3
REQUESTS = 1000
AT_ONCE = 100
SOCKETS = 100


async def pause(number: int) -> None:
    """Let others run, for as many turns as the dice say."""
    for _ in range(random.Random(number).randrange(5)):
        await asyncio.sleep(0)


class Watched:
    """A service that tracks from everywhere, and notes what it sees in threads."""

    def __init__(self) -> None:
        self.client = RecordingAmplitude(max_storage_capacity=100_000)
        self.tasks: set[asyncio.Task[None]] = set()
        self.in_threads: list[tuple[int, Any]] = []
        self.app = FastAPI(lifespan=amplitude_lifespan(client=self.client))
        self.app.add_middleware(
            AmplitudeMiddleware, properties=["path"], request_event="request"
        )
        self.app.get("/of/{number}")(self._handler())
        self.app.websocket("/of/{number}")(self._socket())

    async def track(self, place: str, number: int) -> None:
        """Track an event that says whose it should be."""
        await pause(number)
        await self.client.track(place, event_properties={"number": number})

    async def user(self, number: int, n: Annotated[int, Header()]) -> int:
        """Bind the user, as a dependency that read a token does."""
        await pause(number)
        bind(user_id=f"user-{n}")
        await self.track("dependency", n)
        return n

    def device(self, number: int) -> int:
        """Bind a device in the thread pool."""
        bind(device_id=f"device-{number}")
        self.in_threads.append((number, bindings()["device_id"]))
        return number

    async def late(self, number: int) -> None:
        """Outlive the request."""
        for _ in range(30):
            await asyncio.sleep(0)
        await self.track("task", number)

    def _handler(self) -> Callable[..., Any]:
        async def handler(
            number: int,
            background: BackgroundTasks,
            user: Annotated[int, Depends(self.user)],
            device: Annotated[int, Depends(self.device)],
        ) -> int:
            await self.track("handler", number)
            self.keep(asyncio.create_task(self.late(number)))
            background.add_task(self.track, "background", number)
            background.add_task(self.device, number)
            return user

        return handler

    def _socket(self) -> Callable[..., Any]:
        async def socket(
            websocket: WebSocket,
            number: int,
            user: Annotated[int, Depends(self.user)],
            device: Annotated[int, Depends(self.device)],
        ) -> None:
            await websocket.accept()
            async for _ in websocket.iter_text():
                await self.track("websocket", number)
                await websocket.send_text(str(bindings()["user_id"]))

        return socket

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Hold on to a task until it is done."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def check(self, places: dict[str, int]) -> None:
        """Fail unless every event is its request's user's, and none is missing."""
        await asyncio.gather(*self.tasks)
        await self.client.flush()
        found = dict.fromkeys(places, 0)
        for event in self.client.events:
            number = event["event_properties"]["path"].rpartition("/")[2]
            place = event["event_type"]
            found[place] += 1
            assert event["user_id"] == f"user-{number}"
            # The dependency came before the device, in some requests.
            assert event.get("device_id") in {f"device-{number}", None}
            assert place == "dependency" or event["device_id"]
            told = event["event_properties"].get("number", number)
            assert str(told) == number
        assert found == places
        assert [n for n, seen in self.in_threads if seen != f"device-{n}"] == []


async def at_once(turns: Iterable[Any]) -> None:
    """Run so many at once, each until its end."""
    free = asyncio.Semaphore(AT_ONCE)

    async def run(turn: Any) -> None:
        async with free:
            await turn

    async with asyncio.TaskGroup() as group:
        for turn in turns:
            group.create_task(run(turn))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens."""
    while not is_so():  # noqa: ASYNC110 - as it says
        await asyncio.sleep(0.01)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application with uvicorn on a socket of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    await until(lambda: bool(server.started))
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.long
async def test_uvicorn_mixes_up_nobody() -> None:
    """Three times 1,000 requests and 100 websockets at once, over real connections."""
    watched = Watched()

    async def ask(http: aiohttp.ClientSession, number: int) -> None:
        path = f"/of/{number}"
        async with http.get(path, headers={"n": str(number)}) as answer:
            assert await answer.json() == number

    async def talk(http: aiohttp.ClientSession, number: int) -> None:
        path = f"/of/{number}"
        async with http.ws_connect(path, headers={"n": str(number)}) as socket:
            for _ in range(5):
                await socket.send_str("")
                assert await socket.receive_str() == f"user-{number}"

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        served(watched.app) as url,
        aiohttp.ClientSession(url, connector=connector) as http,
    ):
        for _ in range(ROUNDS):
            turns = [ask(http, number) for number in range(REQUESTS)]
            turns += [talk(http, REQUESTS + number) for number in range(SOCKETS)]
            random.Random(1).shuffle(turns)
            await at_once(turns)
        # The last websockets are closing.
        expected = ROUNDS * (5 * REQUESTS + 7 * SOCKETS)
        await until(lambda: watched.client.stats.accepted >= expected)
        await watched.check(
            {
                "dependency": ROUNDS * (REQUESTS + SOCKETS),
                "handler": ROUNDS * REQUESTS,
                "task": ROUNDS * REQUESTS,
                "background": ROUNDS * REQUESTS,
                "websocket": ROUNDS * SOCKETS * 5,
                "request": ROUNDS * (REQUESTS + SOCKETS),
            }
        )


PIPELINED = 200


async def test_requests_that_come_at_once_on_one_connection_never_meet() -> None:
    """A server may start the second in the context of the first, as uvicorn does."""
    app = FastAPI()
    app.add_middleware(AmplitudeMiddleware, capture=(), exclude=["/health"])

    @app.get("/{path}")
    async def tell(path: str, user: Annotated[str | None, Header()] = None) -> str:
        before = dict(bindings())
        if user is not None:
            bind(user_id=user)
        return str(before)

    def request(number: int) -> bytes:
        path = ("orders", "health")[number % 3 == 0]
        user = f"user: user-{number}\r\n" if number % 2 else ""
        last = "connection: close\r\n" if number == PIPELINED - 1 else ""
        return f"GET /{path} HTTP/1.1\r\nhost: a\r\n{user}{last}\r\n".encode()

    async with served(app) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(map(request, range(PIPELINED))))
        answers = await reader.read()
        writer.close()

    assert answers.count(b'"{}"') == PIPELINED
    assert b"user-" not in answers


async def test_a_service_that_a_service_calls_in_process_is_another() -> None:
    """Its requests are its own: they have no user of the caller's."""
    inner = FastAPI()
    inner.add_middleware(AmplitudeMiddleware, capture=())

    @inner.get("/")
    async def tell() -> str:
        return str(bindings())

    outer = FastAPI()
    outer.add_middleware(AmplitudeMiddleware, capture=())

    async def get(app: FastAPI) -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
            return str((await http.get("/")).json())

    @outer.get("/")
    async def call() -> str:
        bind(user_id="user-1")
        return await get(inner)

    assert await get(outer) == "{}"
    with bound(platform="test"):
        assert await get(outer) == "{'platform': 'test'}"


@pytest.mark.long
async def test_a_test_client_mixes_up_nobody() -> None:
    """Three times 1,000 requests at once, in one loop with the test."""
    watched = Watched()
    transport = httpx.ASGITransport(watched.app)
    async with (
        watched.client,
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):

        async def ask(number: int) -> None:
            answer = await http.get(f"/of/{number}", headers={"n": str(number)})
            assert answer.json() == number

        watched.app.router.lifespan_context = amplitude_lifespan(client=watched.client)
        for _ in range(ROUNDS):
            await at_once(ask(number) for number in range(REQUESTS))
        places = ("dependency", "handler", "task", "background")
        await watched.check({**dict.fromkeys(places, ROUNDS * REQUESTS), "request": 0})


def test_websockets_of_a_test_client_are_not_mixed_up() -> None:
    """Twenty connections that talk in turn, each with its user."""
    watched = Watched()
    with TestClient(watched.app) as http:
        opened = [
            http.websocket_connect(f"/of/{number}", headers={"n": str(number)})
            for number in range(20)
        ]
        sockets = [one.__enter__() for one in opened]
        for _ in range(3):
            for socket in sockets:
                socket.send_text("")
            for user, socket in enumerate(sockets):
                assert socket.receive_text() == f"user-{user}"
        for one in opened:
            one.__exit__(None, None, None)


# Examples ---------------------------------------------------------------------


async def test_the_small_service_knows_its_users(
    emulator: Emulator, start_example: Callable[..., Any]
) -> None:
    """Every event of the service is at the server, with its user, after SIGTERM."""
    token_of = runpy.run_path("examples/orders_service.py")["token_of"]
    async with start_example("orders_service.py") as service:
        async with aiohttp.ClientSession(service.url) as http:
            async with http.post("/orders/o-0?total=1") as refused:
                assert refused.status == 401
            for number in range(1, 11):
                token = token_of(f"user-{number}")
                async with http.post(
                    f"/orders/o-{number}?total=9.5",
                    headers={"Authorization": f"Bearer {token}"},
                ) as paid:
                    assert paid.status == 200
        ended, log = await service.stop()

    assert (ended, "Traceback" in log) == (-signal.SIGTERM, False)
    by_type: dict[str, list[dict[str, Any]]] = {}
    for event in emulator.events:
        by_type.setdefault(event["event_type"], []).append(event)
    assert {kind: len(events) for kind, events in by_type.items()} == {
        "Report Mailed": 1,
        "revenue_amount": 10,
        "Order Paid": 10,
    }
    [report] = by_type["Report Mailed"]
    assert report["user_id"] == "user-1"
    assert report["event_properties"] == {"job": "nightly"}
    assert "ip" not in report
    for paid_for, event in zip(
        by_type["revenue_amount"], by_type["Order Paid"], strict=True
    ):
        order = event["event_properties"]["order"]
        user = order.replace("o-", "user-")
        assert event["user_id"] == paid_for["user_id"] == user
        assert event["ip"] == "127.0.0.1"
        assert event["user_agent"].startswith("Python")
        assert event["event_properties"] == {
            "order": order,
            "path": f"/orders/{order}",
        }
        assert paid_for["insert_id"] == f"paid-{order}"
        assert paid_for["event_properties"]["path"] == f"/orders/{order}"
