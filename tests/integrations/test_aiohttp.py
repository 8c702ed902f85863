"""aiohttp.web with ``setup_amplitude``: real servers, real sockets, the emulator."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from amplitude_async import (
    Amplitude,
    ConfigurationError,
    DropReason,
    bind,
    bindings,
)
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.integrations.aiohttp import AMPLITUDE, setup_amplitude

__all__: list[str] = []

KEY = "test-key-of-an-aiohttp-service"
Serve = Callable[..., AbstractAsyncContextManager[TestClient[Any, Any]]]


@pytest.fixture
def serve(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Return what runs an application on the emulator, and drains it at the end."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", emulator.httpapi_url)

    @asynccontextmanager
    async def run(app: web.Application) -> AsyncIterator[TestClient[Any, Any]]:
        async with TestClient(TestServer(app)) as client:
            yield client

    return run


async def track(request: web.Request) -> web.Response:
    """Track an event that says which request it was tracked in."""
    client = request.config_dict[AMPLITUDE]
    number = request.match_info.get("number", "none")
    await client.track("Seen", event_properties={"number": number})
    return web.Response(text="ok")


def who(request: web.Request) -> dict[str, str]:
    """Tell the user, as a session or a token would."""
    return {"user_id": request.headers.get("X-User", "user-none")}


def application(**options: Any) -> web.Application:
    """Make an application with one handler."""
    app = web.Application()
    setup_amplitude(app, **{"identify": who, **options})
    app.router.add_get("/orders/{number}", track)
    return app


async def test_every_event_has_what_the_request_knows(
    serve: Serve, emulator: Emulator
) -> None:
    """Address, program, language, path and user stand in an event that names none."""
    headers = {
        "X-User": "user-1",
        "User-Agent": "shop/1.0",
        "Accept-Language": "de-AT,en;q=0.5",
        "X-Forwarded-For": "6.6.6.6, 9.9.9.9",
    }
    app = application(trusted_hops=1, properties=["path", "method"])
    async with serve(app) as client:
        await client.get("/orders/7", headers=headers)

    (event,) = emulator.events
    assert {n: event[n] for n in ("user_id", "ip", "user_agent", "language")} == {
        "user_id": "user-1",
        "ip": "9.9.9.9",
        "user_agent": "shop/1.0",
        "language": "de-AT",
    }
    assert event["event_properties"] == {
        "number": "7",
        "path": "/orders/7",
        "method": "GET",
    }


async def test_headers_of_proxies_are_not_believed_by_default(
    serve: Serve, emulator: Emulator
) -> None:
    """The address is that of the socket until somebody vouches for a proxy."""
    async with serve(application()) as client:
        await client.get("/orders/7", headers={"X-Forwarded-For": "6.6.6.6"})

    assert emulator.events[0]["ip"] == "127.0.0.1"


async def test_an_async_identify_binds_as_well(
    serve: Serve, emulator: Emulator
) -> None:
    """A user may have to be looked up."""

    async def look_up(request: web.Request) -> dict[str, str]:
        await asyncio.sleep(0)
        return who(request)

    async with serve(application(identify=look_up)) as client:
        await client.get("/orders/7", headers={"X-User": "user-2"})

    assert emulator.events[0]["user_id"] == "user-2"


async def test_an_identify_that_raises_breaks_no_request(
    serve: Serve, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered, the log says why its events have no user."""

    def fail(_: web.Request) -> dict[str, str]:
        raise asyncio.CancelledError

    async with serve(application(identify=fail)) as client:
        response = await client.get("/orders/7")

    assert (response.status, emulator.events) == (200, [])
    assert "identify raised CancelledError: the request goes on" in caplog.text


async def test_sub_applications_find_the_client_of_their_parent(
    serve: Serve, emulator: Emulator
) -> None:
    """The parent's client and scope are those of what is mounted in it."""
    app, sub = application(request_event="Request"), web.Application()
    sub.router.add_get("/orders/{number}", track)
    app.add_subapp("/shop", sub)
    async with serve(app) as client:
        await client.get("/shop/orders/1", headers={"X-User": "user-1"})

    seen, request = emulator.events
    assert (seen["user_id"], request["user_id"]) == ("user-1", "user-1")
    assert request["event_properties"]["route"] == "/shop/orders/{number}"


async def raise_not_found(_: web.Request) -> web.Response:
    """Answer by raising, as aiohttp's handlers may."""
    raise web.HTTPNotFound


async def crash(_: web.Request) -> web.Response:
    """Fail."""
    raise RuntimeError("out of order")


async def refuse(_: web.Request) -> web.Response:
    """Answer with an error."""
    return web.Response(status=409)


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer in pieces, and track between them."""
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(b"x")
        client = request.config_dict[AMPLITUDE]
        await client.track("Piece", event_properties={"number": number})
    await response.write_eof()
    return response


@pytest.mark.parametrize(
    ("handler", "status", "pieces"),
    [
        (raise_not_found, 404, 0),
        (crash, 500, 0),
        (refuse, 409, 0),
        (stream, 200, 3),
    ],
)
async def test_each_end_of_a_request_is_its_event(
    handler: Callable[[web.Request], Any],
    status: int,
    pieces: int,
    serve: Serve,
    emulator: Emulator,
) -> None:
    """However a handler answers, its client sees the same, and the event the status."""
    app = application(request_event="Request")
    app.router.add_get("/there/{id}", handler)
    async with serve(app) as client:
        response = await client.get("/there/1", headers={"X-User": "user-1"})

    assert response.status == status
    *inside, request = emulator.events
    assert [event["user_id"] for event in inside] == ["user-1"] * pieces
    assert request["event_type"] == "Request"
    properties = request["event_properties"]
    assert properties.pop("duration") >= 0
    assert properties == {"route": "/there/{id}", "method": "GET", "status": status}


async def test_an_event_that_raises_breaks_no_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is answered, the log says why it is not tracked."""

    async def close(request: web.Request) -> web.Response:
        await request.config_dict[AMPLITUDE].shutdown(0)
        return web.Response()

    app = application(request_event="Request", strict=True)
    app.router.add_get("/close", close)
    async with serve(app) as client:
        response = await client.get("/close")

    assert response.status == 200
    assert "a request was not tracked" in caplog.text


async def test_no_answer_waits_for_room_for_its_event(
    serve: Serve, emulator: Emulator
) -> None:
    """The event of the request is shed where the queue is full."""
    emulator.faults.add(Fault(delay=float("inf"), count=None))
    app = application(
        request_event="Request",
        max_storage_capacity=2,
        overflow_timeout=60.0,
        shutdown_timeout=0.05,
    )
    app.router.add_get("/", nothing)
    async with serve(app) as client, asyncio.timeout(20):
        for _ in range(5):
            assert (await client.get("/")).status == 200
        stats = app[AMPLITUDE].stats
        assert stats.dropped_by_reason == {DropReason.OVERFLOW: 3}


async def nothing(request: web.Request) -> web.Response:
    """Answer at once, and track nothing."""
    return web.Response()


async def test_a_handler_that_returns_nothing_is_told_so_by_aiohttp(
    serve: Serve, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The middleware changes no message."""

    async def forgetful(_: web.Request) -> Any:
        return None

    app = application(request_event="Request")
    app.router.add_get("/", forgetful)
    async with serve(app) as client:
        assert (await client.get("/")).status == 500

    assert "Missing return statement on request handler" in caplog.text
    assert "attribute 'status'" not in caplog.text
    (event,) = emulator.events
    assert event["event_properties"]["status"] == 500


async def test_a_path_without_a_handler_has_no_route(
    serve: Serve, emulator: Emulator
) -> None:
    """What strangers try is counted, and their paths make no new values."""
    async with serve(application(request_event="Request")) as client:
        await client.get("/wp-login.php")

    assert "route" not in emulator.events[0]["event_properties"]
    assert emulator.events[0]["event_properties"]["status"] == 404


async def test_a_request_without_anybody_is_no_event(
    serve: Serve, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """An event needs a user or a device, so there is none, and no warning either."""
    app = application(request_event="Request", identify=lambda _: None)
    async with serve(app) as client:
        await client.get("/nowhere")

    assert emulator.events == []
    assert [one for one in caplog.records if one.levelno > logging.INFO] == []


async def test_excluded_paths_are_left_alone(serve: Serve, emulator: Emulator) -> None:
    """A probe costs nothing, asks for no user and is no event."""
    seen: list[dict[str, Any]] = []

    async def health(_: web.Request) -> web.Response:
        seen.append(bindings())
        return web.Response()

    app = application(request_event="Request", exclude=["/health"])
    app.router.add_get("/health", health)
    async with serve(app) as client:
        await client.get("/health")

    assert (seen, emulator.events) == ([{}], [])


async def test_the_next_request_of_a_connection_knows_nothing_of_the_last(
    serve: Serve,
) -> None:
    """Both run in one task, and a proxy sends those of two users by one connection."""
    seen: list[dict[str, Any]] = []

    @web.middleware
    async def outside(request: web.Request, handler: Any) -> web.StreamResponse:
        if "X-User" in request.headers:
            bind(user_id=request.headers["X-User"])
        answer: web.StreamResponse = await handler(request)
        return answer

    async def handle(request: web.Request) -> web.Response:
        seen.append(bindings())
        if "X-User" in request.headers:
            bind(device_id=request.headers["X-User"])
        assert request.transport is not None
        return web.Response(text=str(request.transport.get_extra_info("peername")))

    app = web.Application(middlewares=[outside])
    setup_amplitude(app, capture=(), exclude=["/health"], opt_out=True)
    app.router.add_get("/{path}", handle)
    peers = set()
    async with serve(app) as client:
        for path in ("/health", "/orders"):
            async with client.get(path, headers={"X-User": "user-1"}) as answer:
                peers.add(await answer.text())
            for other in ("/health", "/orders"):
                async with client.get(other) as answer:
                    peers.add(await answer.text())

    assert len(peers) == 1
    assert seen == [{}] * 6


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_client_that_leaves_cancels_nothing_of_ours(
    cancelled: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that is cancelled ends so, and its request is told as aborted."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", emulator.httpapi_url)
    begun, ended = asyncio.Event(), asyncio.Event()
    outcome: list[str] = []

    async def wait(request: web.Request) -> web.Response:
        begun.set()
        try:
            await (asyncio.Event().wait() if cancelled else asyncio.sleep(0.02))
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        finally:
            ended.set()
        return web.Response()

    app = application(request_event="Request")
    app.router.add_get("/wait", wait)
    runner = web.AppRunner(app, handler_cancellation=cancelled)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\nX-User: user-1\r\n\r\n")
    await begun.wait()
    writer.close()
    await asyncio.wait_for(ended.wait(), 10)
    await runner.cleanup()

    assert outcome == (["cancelled"] if cancelled else [])
    (event,) = emulator.events
    properties = event["event_properties"]
    assert properties.get("status") == (None if cancelled else 200)
    assert properties.get("aborted", False) == cancelled
    assert event["user_id"] == "user-1"


async def test_a_websocket_is_one_scope(serve: Serve, emulator: Emulator) -> None:
    """All that is tracked while it is open has the user that it was opened by."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await request.config_dict[AMPLITUDE].track(message.data)
            await socket.send_str("done")
        return socket

    app = application(request_event="Request")
    app.router.add_get("/talk", talk)
    async with serve(app) as client:
        socket = await client.ws_connect("/talk", headers={"X-User": "user-1"})
        for word in ("Hello", "Bye"):
            await socket.send_str(word)
            await socket.receive()
        await socket.close()

    assert [event["event_type"] for event in emulator.events] == [
        "Hello",
        "Bye",
        "Request",
    ]
    assert {event["user_id"] for event in emulator.events} == {"user-1"}
    assert emulator.events[2]["event_properties"]["status"] == 101


HOSTILE = [
    b"User-Agent: \xff\xfe\x80bad\r\n",
    b"Accept-Language: \xff\xff\r\n",
    b"X-Forwarded-For: " + b"6.6.6.6," * 900 + b"1.1.1.1\r\n",
    b"X-Forwarded-For: a\tb\r\n" * 100,
    b"User-Agent: a\tb\r\n",
    b"X-Forwarded-For: \xf0\x9f\x92\xa9\r\nX-Forwarded-For:\r\n",
]


@pytest.mark.parametrize("header", HOSTILE)
async def test_hostile_headers_harm_nothing(
    header: bytes, serve: Serve, emulator: Emulator
) -> None:
    """A request with any header is answered, and its event is taken."""
    async with serve(application(trusted_hops=1)) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(b"GET /orders/1 HTTP/1.1\r\nHost: a\r\n" + header)
        writer.write(b"Connection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200")
    assert len(emulator.events) == 1


async def test_large_headers_harm_nothing(serve: Serve, emulator: Emulator) -> None:
    """Where a server takes a header of a megabyte, an event takes 512 characters."""
    size = 1_000_000
    app = application()
    server = TestServer(app)
    await server.start_server(max_field_size=2 * size, max_line_size=2 * size)
    async with TestClient(server) as client:
        await client.get("/orders/1", headers={"User-Agent": "x" * size})

    assert emulator.events[0]["user_agent"] == "x" * 512


async def test_a_client_that_is_given_stays_its_makers(
    emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """Two applications may share one; the end of the first delivers, and closes not."""
    client = connect(flush_interval=60.0)
    for number in ("1", "2"):
        async with TestClient(TestServer(application(client=client))) as http:
            assert http.app is not None
            assert http.app[AMPLITUDE] is client
            await http.get(f"/orders/{number}")
        assert len(emulator.events) == int(number)

    assert client.stats.pending == 0


def test_a_client_is_set_up_once_and_its_options_fit() -> None:
    """Mistakes of the set-up are told where it is written."""
    app = application()
    with pytest.raises(ConfigurationError, match="set it up once"):
        setup_amplitude(app)
    with pytest.raises(TypeError, match="flush_interval"):
        setup_amplitude(web.Application(), client=Amplitude("key"), flush_interval=1.0)
    with pytest.raises(ConfigurationError, match="trusted_hops=-1"):
        setup_amplitude(web.Application(), trusted_hops=-1)
    wrong: Any = "user"
    with pytest.raises(ConfigurationError, match="identify='user' must be a function"):
        setup_amplitude(web.Application(), identify=wrong)


async def test_a_wrong_option_of_the_client_stops_the_start() -> None:
    """An application without a usable client does not begin to serve."""
    runner = web.AppRunner(application(api_key=KEY, max_in_flight=0))
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        await runner.setup()
    await runner.cleanup()


async def test_two_applications_in_a_process_have_two_clients(
    serve: Serve, emulator: Emulator
) -> None:
    """One that ends takes nothing from the other."""
    first, second = application(), application()
    async with serve(second) as other:
        async with serve(first) as client:
            await client.get("/orders/1")
            assert first[AMPLITUDE] is not second[AMPLITUDE]
        await other.get("/orders/2")

    numbers = [event["event_properties"]["number"] for event in emulator.events]
    assert sorted(numbers) == ["1", "2"]


@pytest.mark.long
async def test_no_event_crosses_over_to_another_user(
    serve: Serve, emulator: Emulator
) -> None:
    """1,000 interleaved requests, three times: handler, task, thread, each its own."""

    async def crossing(request: web.Request) -> web.Response:
        number = request.match_info["number"]
        client = request.config_dict[AMPLITUDE]
        place = {"number": number, "place": "handler"}
        await asyncio.sleep(int(number) % 7 / 1000)
        await client.track("Seen", event_properties=place)
        # What a thread binds, the request sees.
        await asyncio.to_thread(bind, device_id=f"device-{number}")

        async def beside() -> None:
            await asyncio.sleep(0)
            await client.track("Seen", event_properties={**place, "place": "task"})

        await asyncio.gather(*(asyncio.create_task(beside()) for _ in range(2)))
        return web.Response()

    async def by_path(request: web.Request) -> dict[str, str]:
        number = request.match_info["number"]
        await asyncio.sleep(int(number) % 3 / 1000)
        return {"user_id": f"user-{number}"}

    app = application(identify=by_path, flush_queue_size=1000)
    app.router.add_get("/cross/{number}", crossing)
    gate = asyncio.Semaphore(100)
    async with serve(app) as client:

        async def ask(number: int) -> None:
            async with gate, client.get(f"/cross/{number}") as response:
                assert response.status == 200

        for round_ in range(3):
            await asyncio.gather(*(ask(round_ * 1000 + n) for n in range(1000)))

    assert len(emulator.events) == 9000
    crossed = [
        event
        for event in emulator.events
        if event["user_id"] != f"user-{event['event_properties']['number']}"
        or event.get("device_id", f"device-{event['event_properties']['number']}")
        != f"device-{event['event_properties']['number']}"
    ]
    assert crossed == []
    tasks = [e for e in emulator.events if e["event_properties"]["place"] == "task"]
    assert sum("device_id" in event for event in tasks) == 6000


async def test_the_example_delivers_with_its_user(
    emulator: Emulator, start_example: Callable[..., Any]
) -> None:
    """The service on the docs' page runs, and SIGTERM loses nothing."""
    users = [f"user-{number}" for number in range(20)]
    async with start_example("aiohttp_service.py") as service:
        async with aiohttp.ClientSession(service.url) as session:
            for user in users:
                headers = {"Authorization": f"Bearer {user}"}
                async with session.post("/orders/7", headers=headers) as response:
                    assert response.status == 200
        exit_code, _ = await service.stop()

    assert exit_code == 0
    paid = Counter(event["user_id"] for event in emulator.events)
    assert paid == Counter(users)
    assert {event["event_type"] for event in emulator.events} == {"Order Paid"}
    assert {event["ip"] for event in emulator.events} == {"127.0.0.1"}


def test_the_page_shows_the_example_that_runs() -> None:
    """What a reader copies is the file that is tested."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "integrations" / "aiohttp.md").read_text(encoding="utf-8")

    assert (root / "examples" / "aiohttp_service.py").read_text(
        encoding="utf-8"
    ) in page
