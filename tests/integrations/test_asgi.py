"""The middleware and the lifespan, driven by hand: no framework, no server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    ConfigurationError,
    bind,
    bindings,
    bound,
)
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.integrations.request_facts import (
    address_of,
    forwarded_address,
    host_of,
    language_of,
    text_of,
)
from amplitude_async.testing import CapturedEvents, RecordingAmplitude, capture

__all__: list[str] = []

App = Callable[..., Any]
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}


def http_scope(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """Return the scope of a request as a server makes it."""
    return {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": "/orders/o-1",
        "root_path": "",
        "client": ("192.0.2.7", 4711),
        "headers": list(headers),
        **more,
    }


async def no_receive() -> Any:
    """Fail: nobody but the application may read what a client sends."""
    pytest.fail("receive was touched")


class Server:
    """Keeps what an application sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        """Take a message."""
        self.sent.append(message)


async def serve(app: App, scope: Any = None) -> list[Any]:
    """Serve one request; returns what was sent."""
    server = Server()
    await app(http_scope() if scope is None else scope, no_receive, server.send)
    return server.sent


async def bound_in(scope: Any, **options: Any) -> dict[str, Any]:
    """Return what is bound in a request."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(bindings())

    await serve(AmplitudeMiddleware(app, **options), scope)
    return seen


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer as most applications do."""
    await send(START)
    await send(END)


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


@pytest.fixture
async def recording() -> AsyncIterator[RecordingAmplitude]:
    """Yield a client that delivers to a list."""
    async with RecordingAmplitude() as recording:
        yield recording


def requests_of(events: CapturedEvents) -> list[dict[str, Any]]:
    """Return the properties of the request events, without what differs each time."""
    found = [dict(event.properties) for event in events.named("Request")]
    for properties in found:
        assert 0 <= properties.pop("duration") < 60
    return found


def watching(app: App, client: Amplitude, **options: Any) -> AmplitudeMiddleware:
    """Put a middleware around an application that tells of each request."""

    def identify(scope: Any) -> dict[str, str]:
        return {"user_id": "user-1"}

    return AmplitudeMiddleware(
        app, identify=identify, request_event="Request", client=client, **options
    )


# Scopes -----------------------------------------------------------------------


async def test_what_a_request_binds_ends_with_it() -> None:
    """The next request on the same connection, in the same task, sees none of it."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(bindings().get("user_id"))
        bind(user_id="user-1")
        await asyncio.create_task(bind_device())
        seen.append(bindings()["device_id"])

    async def bind_device() -> None:
        bind(device_id="device-1")

    middleware = AmplitudeMiddleware(app)
    await serve(middleware)
    await serve(middleware)

    assert seen == [None, "device-1", None, "device-1"]
    assert bindings() == {}


@pytest.mark.parametrize("kind", ["lifespan", "mystery"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    """A lifespan, or what no specification knows yet, is none of our business."""
    passed: list[Any] = []

    async def app(*given: Any) -> None:
        passed.extend(given)
        bind(user_id="user-1")

    server = Server()
    scope = {"type": kind}
    given = (scope, no_receive, server.send)
    await AmplitudeMiddleware(app, request_event="Request")(*given)

    assert passed == list(given)
    assert scope == {"type": kind}


async def test_receive_and_the_scope_are_the_servers_own() -> None:
    """What the application gets is what the server gave."""
    passed: list[Any] = []

    async def app(*given: Any) -> None:
        passed.extend(given)

    scope, server = http_scope(), Server()
    await AmplitudeMiddleware(app)(scope, no_receive, server.send)

    assert passed[0] is scope
    assert passed[1:] == [no_receive, server.send]


async def test_two_middlewares_are_two_scopes() -> None:
    """The inner one has what the outer one bound, and its own wins."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bind(user_id="inner")
        seen.update(bindings())

    inner = AmplitudeMiddleware(app, capture=(), properties=["path"])
    outer = AmplitudeMiddleware(inner, identify=lambda _: {"user_id": "outer"})
    await serve(outer)

    assert seen == {
        "user_id": "inner",
        "ip": "192.0.2.7",
        "event_properties": {"path": "/orders/o-1"},
    }


@pytest.mark.parametrize(
    ("path", "is_excluded"),
    [
        ("/health", True),
        ("/health/deep", False),
        ("/internal/", True),
        ("/internal/a/b", True),
        ("/internals", False),
        ("/healthy", False),
    ],
)
async def test_excluded_paths_are_left_alone(path: str, is_excluded: bool) -> None:
    """Neither an identity nor an address is asked for."""
    options = {"exclude": ["/health", "/internal/*"], "capture": ["ip"]}
    seen = await bound_in(http_scope(path=path), **options)
    below = await bound_in(http_scope(path="/v1" + path, root_path="/v1"), **options)

    assert (seen == {}) is is_excluded
    assert below == seen


# Identity ---------------------------------------------------------------------


async def whose(identify: Any) -> dict[str, Any]:
    """Return what a request is bound to by this function."""
    return await bound_in(http_scope(), identify=identify, capture=())


async def identify_later(scope: Any) -> dict[str, str]:
    """Take a turn of the loop to find out."""
    await asyncio.sleep(0)
    return {"user_id": "user-1"}


@pytest.mark.parametrize(
    ("identify", "expected"),
    [
        (lambda _: {"user_id": "user-1", "platform": "web"}, "user-1"),
        (identify_later, "user-1"),
        (lambda _: None, None),
        (lambda _: {}, None),
        (lambda _: {"user_id": None}, None),
        (lambda _: {"user_id": "u" * 128}, "u" * 128),
        (lambda _: {"user_id": "u" * 129}, None),
        (lambda _: {"user_id": 4711}, 4711),
        (lambda _: {"user_id": 10**200}, None),
        (lambda scope: bind(user_id=scope["path"]), "/orders/o-1"),
    ],
)
async def test_identify_says_whose_request_it_is(identify: Any, expected: Any) -> None:
    """A function, async or not, gives fields, or nothing for nobody."""
    assert (await whose(identify)).get("user_id") == expected


def raising(error: BaseException) -> Callable[[Any], None]:
    """Return a function that raises."""

    def identify(scope: Any) -> None:
        raise error

    return identify


async def cancelled_within(scope: Any) -> None:
    """Await a task of its own that is cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(10))
    task.cancel()
    await task


class Unreadable(Mapping[str, Any]):
    """A mapping that raises."""

    def __getitem__(self, key: str) -> Any:
        raise OSError

    def __iter__(self) -> Iterator[str]:
        raise OSError

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "identify",
    [
        raising(ValueError("secret-of-the-token")),
        raising(asyncio.CancelledError()),
        cancelled_within,
        lambda _: "user-1",
        lambda _: 42,
        lambda _: {"no_such_field": 1},
        lambda _: {"insert_id": "same-for-all"},
        lambda _: {1: 2},
        lambda _: Unreadable(),
    ],
)
async def test_what_identify_does_wrong_is_logged_once(
    identify: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The request goes on without an identity; a minute has one line."""
    middleware = AmplitudeMiddleware(answer, identify=identify)

    sent = [await serve(middleware) for _ in range(3)]

    assert sent == [[START, END]] * 3
    assert len(caplog.records) == 1
    assert "identify raised" in caplog.records[0].getMessage()


async def test_a_long_id_is_logged_without_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An id from a token that somebody blew up is in no log."""
    seen = await whose(lambda _: {"user_id": "u" * 500, "device_id": "device-1"})

    assert seen == {"device_id": "device-1"}
    assert "user_id of more than 128 characters" in caplog.text
    assert "uuu" not in caplog.text


async def test_a_request_that_is_cancelled_in_identify_ends() -> None:
    """A cancellation from outside is no error of the function's."""
    began = asyncio.Event()

    async def identify(scope: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(serve(AmplitudeMiddleware(answer, identify=identify)))
    await began.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_identify_may_track(client: Amplitude, events: CapturedEvents) -> None:
    """An event from within it has what is captured."""

    async def identify(scope: Any) -> None:
        await client.track("Token Read", device_id="device-1")

    await serve(AmplitudeMiddleware(answer, identify=identify))

    assert events.named("Token Read")[0]["ip"] == "192.0.2.7"


# What is captured -------------------------------------------------------------


async def test_address_program_and_language_are_bound() -> None:
    """The three are what Amplitude asks a server to send."""
    seen = await bound_in(
        http_scope(
            (b"user-agent", b"Mozilla/5.0"),
            (b"accept-language", b"en-GB,en;q=0.8"),
            (b"x-forwarded-for", b"198.51.100.1"),
        )
    )

    assert seen == {"ip": "192.0.2.7", "user_agent": "Mozilla/5.0", "language": "en-GB"}


async def test_no_header_is_an_identity() -> None:
    """Whoever sends a request may write there what he likes."""
    headers = [(b"x-user-id", b"user-1"), (b"authorization", b"Basic dXNlcjp4")]

    assert set(await bound_in(http_scope(*headers))) == {"ip"}


@pytest.mark.parametrize(
    "client_of", [None, ("", 0), ("testclient", 50000), ("/s", None)]
)
async def test_a_peer_without_an_address_has_none(client_of: Any) -> None:
    """A unix socket or a test has no address to bind."""
    assert await bound_in(http_scope(client=client_of)) == {}


@pytest.mark.parametrize(
    ("hops", "headers", "expected"),
    [
        (0, [b"198.51.100.1"], "192.0.2.7"),
        (1, [b"203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        (2, [b"203.0.113.9, 198.51.100.1"], "203.0.113.9"),
        (2, [b"203.0.113.9", b"198.51.100.1"], "203.0.113.9"),
        (3, [b"6.6.6.6,203.0.113.9", b"198.51.100.1, 10.0.0.1"], "203.0.113.9"),
        (3, [b"203.0.113.9, 198.51.100.1"], "192.0.2.7"),
        (1, [b"203.0.113.9, unknown"], "192.0.2.7"),
        (1, [b""], "192.0.2.7"),
        (1, [b"203.0.113.9,"], "192.0.2.7"),
        (1, [b"\xff\xfe\x00"], "192.0.2.7"),
        (1, [b"198.51.100.1\r\nX: y"], "192.0.2.7"),
        (1, [b"1" * 1_000_000], "192.0.2.7"),
        (2, [b"6.6.6.6," * 50_000 + b"203.0.113.9,198.51.100.1"], "203.0.113.9"),
        (1, [b"[2001:DB8::1]:4711"], "2001:db8::1"),
        (1, [b"2001:db8:0::1"], "2001:db8::1"),
        (1, [b"198.51.100.1:4711"], "198.51.100.1"),
        (1, [b"::ffff:198.51.100.1"], "198.51.100.1"),
        (1, [], "192.0.2.7"),
    ],
)
async def test_the_address_is_the_one_a_trusted_proxy_saw(
    hops: int, headers: list[bytes], expected: str
) -> None:
    """Counted from the right: what stands further left, anybody may have written."""
    scope = http_scope(*((b"x-forwarded-for", value) for value in headers))
    seen = await bound_in(scope, capture=["ip"], trusted_hops=hops)

    assert seen == {"ip": expected}


def test_thousands_of_forwarded_addresses_cost_nothing() -> None:
    """A header as large as servers let through is not taken apart."""
    values = [b"6.6.6.6," * 125_000 + b"203.0.113.9"] * 20
    before = time.process_time()
    for _ in range(20):
        assert forwarded_address(values, 1) == "203.0.113.9"

    assert time.process_time() - before < 0.2


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4 ",
        "256.1.1.1",
        "1" * 65,
        ":",
        "::g",
        "::1\n",
        "[]",
        "fe80::1%eth0",
        "a\0b",
        7,
        None,
    ],
)
def test_what_is_no_address_is_none(text: Any) -> None:
    """An address is whole and clean, or there is none."""
    assert address_of(text) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"de", "de"),
        (b" pt-BR ;q=0.9, en", "pt-BR"),
        (b"zh-Hant-TW", "zh-Hant-TW"),
        (b"*", None),
        (b"", None),
        (b",en", None),
        (b"<script>", None),
        (b"en\x00", None),
        (b"\xff\xff", None),
        (b"en_GB", None),
        (b"a" * 1_000_000, None),
        (b"abcdefgh-" * 12, None),
    ],
)
def test_a_language_is_a_tag_or_none(value: bytes, expected: str | None) -> None:
    """The first tag alone, and nothing that is none."""
    assert language_of(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Example.org:8443", "example.org:8443"),
        (b"[2001:db8::1]:80", "[2001:db8::1]:80"),
        (b"evil.example/<script>", None),
        (b"a" * 1_000_000, None),
        (b"", None),
        (b"\xffx", None),
    ],
)
def test_a_host_is_a_name_or_none(value: bytes, expected: str | None) -> None:
    """A Host header is the client's; what no name has in it is not taken."""
    assert host_of(value) == expected


def test_text_of_a_client_is_short_and_printable() -> None:
    """Whatever bytes a program's name has."""
    assert text_of("Zoë/1.0".encode()) == "Zoë/1.0"
    assert text_of(b"a\xffb\x00c\r\nd\x1b[0m") == "a�bcd[0m"
    assert text_of(b"x" * 1_000_000) == "x" * 512
    assert text_of("/a\u202eb") == "/ab"


async def test_properties_that_were_asked_for_are_bound() -> None:
    """They go into the event properties of whatever is tracked in the request."""
    scope = http_scope((b"host", b"shop.example"))
    names = ["path", "method", "host", "scheme"]
    seen = await bound_in(scope, properties=names, capture=[])

    assert seen == {
        "event_properties": {
            "path": "/orders/o-1",
            "method": "GET",
            "host": "shop.example",
            "scheme": "https",
        }
    }


async def test_a_websocket_has_no_method() -> None:
    """What is not there is left out."""
    scope = http_scope(type="websocket", scheme="wss")
    del scope["method"], scope["headers"], scope["client"]
    seen = await bound_in(scope, properties=["method", "host", "scheme"])

    assert seen == {"event_properties": {"scheme": "wss"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capture": "ip"}, "capture='ip' must be a list of names"),
        ({"capture": ["ip", "cookies"]}, "capture has no 'cookies': there are 'ip', "),
        ({"properties": ["query"]}, "properties has no 'query': it may hold anything"),
        ({"properties": ["route"]}, "properties has no 'route': it is known after"),
        ({"properties": [7]}, "properties has no 7: there are 'path', "),
        ({"trusted_hops": -1}, "trusted_hops=-1 must be a whole number, 0 or more"),
        ({"trusted_hops": True}, "trusted_hops=True must be a whole number"),
        ({"identify": "user"}, "identify='user' must be a function of the ASGI scope"),
        ({"request_event": ""}, "request_event='' must be an event type"),
        ({"exclude": "/health"}, "exclude='/health' must be a list of paths"),
        ({"exclude": ["health"]}, "exclude has 'health': a path begins with '/'"),
        ({"exclude": ["/a*b"]}, "exclude has '/a*b': a path begins with '/'"),
        ({"client": "amplitude"}, "client='amplitude' must be an Amplitude"),
    ],
)
def test_a_wrong_option_is_told_at_once(options: Any, message: str) -> None:
    """Name, value and remedy, where the middleware is made."""
    with pytest.raises(ConfigurationError) as raised:
        AmplitudeMiddleware(answer, **options)

    assert message in str(raised.value)


# What became of a request -----------------------------------------------------


async def test_a_request_is_told_of_when_it_was_answered(
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """Method, status and duration, with what was bound in the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bind(event_properties={"plan": "pro"})
        with bound(user_id="somebody-else"):
            await answer(scope, receive, send)

    await serve(watching(app, client))

    assert requests_of(events) == [{"plan": "pro", "method": "GET", "status": 200}]
    [event] = events
    assert (event["user_id"], event["ip"]) == ("user-1", "192.0.2.7")


async def test_the_answer_does_not_wait_for_the_event(
    client: Amplitude,
) -> None:
    """The event comes after the last message, and before the work behind it."""
    accepted = []

    async def send(message: Any) -> None:
        accepted.append(client.stats.accepted)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, receive, send)
        accepted.append(client.stats.accepted)

    await watching(app, client)(http_scope(), no_receive, send)

    assert accepted == [0, 0, 1]


def chunk(body: bytes, *, more: bool) -> dict[str, Any]:
    """Return a piece of a streamed answer."""
    return {"type": "http.response.body", "body": body, "more_body": more}


TRAILERS = {"type": "http.response.trailers", "headers": [], "more_trailers": False}
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "streamed": [START, chunk(b"a", more=True), chunk(b"b", more=False)],
    "with trailers": [{**START, "trailers": True}, END, TRAILERS],
    "a file": [START, {"type": "http.response.pathsend", "path": "/etc/motd"}],
    "pushed and hinted": [
        {"type": "http.response.push", "path": "/a.css", "headers": []},
        {"type": "http.response.early_hint", "links": []},
        START,
        {"type": "http.response.zerocopysend", "file": 3, "more_body": False},
    ],
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_kind_of_answer_passes_as_it_is(
    name: str, client: Amplitude, events: CapturedEvents
) -> None:
    """Messages of extensions, too; the event comes with the last one, once."""
    accepted: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in ANSWERS[name]:
            accepted.append(client.stats.accepted)
            await send(message)

    sent = await serve(watching(app, client))

    assert sent == ANSWERS[name]
    assert all(mine is theirs for mine, theirs in zip(sent, ANSWERS[name], strict=True))
    assert accepted == [0] * len(sent)
    assert requests_of(events) == [{"method": "GET", "status": 200}]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], {"method": "GET", "status": 500, "aborted": True}),
        ([START], {"method": "GET", "status": 200, "aborted": True}),
        ([START, END], {"method": "GET", "status": 200}),
    ],
)
async def test_an_application_that_raises_is_told_of(
    messages: list[Any],
    expected: dict[str, Any],
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """What it raised goes on, and the status is what the client was told, or 500."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise LookupError

    with pytest.raises(LookupError):
        await serve(watching(app, client))

    assert requests_of(events) == [expected]


async def test_a_client_that_goes_away_is_told_of(
    client: Amplitude, events: CapturedEvents
) -> None:
    """The cancellation goes on; there is no status where nothing was answered."""
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(serve(watching(app, client)))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert requests_of(events) == [{"method": "GET", "aborted": True}]


async def test_a_server_that_takes_nothing_more_is_told_of(
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """Servers raise where the connection is gone, and that error goes on."""

    async def send(message: Any) -> None:
        if message is END:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await watching(answer, client)(http_scope(), no_receive, send)

    assert requests_of(events) == [{"method": "GET", "status": 200, "aborted": True}]


async def test_an_application_that_answers_nothing_is_told_of(
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """Without a response there is no status."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Return."""

    await serve(watching(app, client))

    assert requests_of(events) == [{"method": "GET", "aborted": True}]


class Left(Exception):  # noqa: N818 - as frameworks tell that a client left
    """What a framework raises in a handler whose client has left."""

    code = 1001


ACCEPT = {"type": "websocket.accept"}
WEBSOCKETS: list[tuple[list[Any], Exception | None, dict[str, Any]]] = [
    ([ACCEPT, {"type": "websocket.close", "code": 4000}], None, {"code": 4000}),
    ([ACCEPT, {"type": "websocket.close"}], None, {"code": 1000}),
    ([ACCEPT], None, {}),
    ([ACCEPT], Left(), {"code": 1001}),
    ([ACCEPT], LookupError(), {"code": 1011}),
    ([{"type": "websocket.close", "code": 1008}], None, {"status": 403}),
    ([], LookupError(), {"status": 500}),
    (
        [
            {"type": "websocket.http.response.start", "status": 401, "headers": []},
            {"type": "websocket.http.response.body", "body": b""},
        ],
        None,
        {"status": 401},
    ),
]


@pytest.mark.parametrize(("messages", "error", "expected"), WEBSOCKETS)
async def test_a_websocket_is_told_of_at_its_end(
    messages: list[Any],
    error: Exception | None,
    expected: dict[str, Any],
    client: Amplitude,
    events: CapturedEvents,
) -> None:
    """With the code it was closed with, or the status it was refused with."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    server = Server()
    try:
        scope = http_scope(type="websocket")
        await watching(app, client)(scope, no_receive, server.send)
    except (Left, LookupError) as raised:
        server.sent.append(raised)

    assert server.sent == [*messages, *([error] if error else [])]

    assert requests_of(events) == [{"method": "WEBSOCKET", **expected}]


async def test_a_request_of_nobody_is_not_tracked(client: Amplitude) -> None:
    """Amplitude takes no event without an id, and a warning for each is of no use."""
    middleware = AmplitudeMiddleware(answer, request_event="Request", client=client)
    await serve(middleware)

    assert client.stats.accepted == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "request_event finds no client"),
        ({"client": lambda _: None}, "request_event finds no client"),
        ({"client": lambda _: object()}, "a request was not tracked: AttributeError"),
        ({"client": raising(KeyError("x"))}, "a request was not tracked: KeyError"),
        (
            {"client": raising(asyncio.CancelledError())},
            "a request was not tracked: CancelledError",
        ),
        (
            {"client": raising(BaseException("odd"))},
            "a request was not tracked: BaseException",
        ),
        (
            {"client": Amplitude("key", opt_out=True)},
            "track_nowait needs a started client",
        ),
    ],
)
async def test_an_event_that_fails_fails_no_request(
    options: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong with the client is told once a minute, and the answer is given."""
    middleware = AmplitudeMiddleware(
        answer,
        identify=lambda _: {"user_id": "user-1"},
        request_event="Request",
        **options,
    )

    assert [await serve(middleware) for _ in range(3)] == [[START, END]] * 3
    assert len(caplog.records) == 1
    assert words in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    "more",
    [
        {"method": "X" * 1000, "state": {}},
        {"route": object()},
        {"path_template": 7},
        {"path_template": "/" + "x" * 1000},
        {"fastapi": {}, "route": None},
    ],
)
async def test_a_route_that_cannot_be_told_is_left_out(
    more: dict[str, Any], client: Amplitude, events: CapturedEvents
) -> None:
    """There is no route rather than a raw path."""
    await serve(watching(answer, client), http_scope(**more))

    [properties] = requests_of(events)
    assert properties == {"method": more.get("method", "GET")[:512], "status": 200}


# Lifespans --------------------------------------------------------------------


def own_lifespan(state: Mapping[str, Any] | None, life: list[str]) -> Any:
    """Return a lifespan of an application's own."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        life.append(f"up {app}")
        yield state
        life.append("down")

    return lifespan


@pytest.mark.parametrize("state", [None, {}, {"pool": 1}])
async def test_a_lifespan_goes_around_the_applications_own(
    state: Mapping[str, Any] | None,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is open before it, and drained after it, from the environment."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", emulator.httpapi_url)
    life: list[str] = []
    lifespan = amplitude_lifespan(own_lifespan(state, life), flush_interval=3600)

    for _ in range(2):  # each start of the service has a client of its own
        async with lifespan("app") as found:
            client = found["amplitude"]
            assert {**found} == {"amplitude": client, **(state or {})}
            assert client.config.flush_interval == 3600
            await client.track("Served", user_id="user-1")

    assert life == ["up app", "down"] * 2
    assert [event["event_type"] for event in emulator.events] == ["Served"] * 2


async def test_a_lifespan_takes_a_client(recording: RecordingAmplitude) -> None:
    """It is started and shut down by it, as by an ``async with``."""
    lifespan = amplitude_lifespan(client=recording)
    async with lifespan(None) as state:
        assert state == {"amplitude": recording}
        state["amplitude"].track_nowait("Served", user_id="user-1")

    assert recording.stats.delivered == 1
    assert (await recording.track("Late", user_id="user-1")).result is not None


async def test_a_lifespan_that_fails_at_the_start_shuts_down(
    recording: RecordingAmplitude,
) -> None:
    """What the application raised goes on, and what it tracked goes out."""

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[None]:
        await recording.track("Started Badly", user_id="user-1")
        raise LookupError
        yield

    with pytest.raises(LookupError):
        async with amplitude_lifespan(inner, client=recording)(None):
            pytest.fail("it has started")

    assert recording.stats.delivered == 1


async def undecorated(app: Any) -> AsyncIterator[None]:
    """Lack what makes a context manager of it."""
    yield


def test_a_lifespan_that_is_wrong_is_told_at_once() -> None:
    """Name, value and remedy."""
    with pytest.raises(ConfigurationError, match="inner=7 must be a lifespan"):
        amplitude_lifespan(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must be a lifespan"):
        amplitude_lifespan(undecorated)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="together with flush_interval: make"):
        amplitude_lifespan(client=Amplitude("key"), flush_interval=1)


def test_a_lifespan_shows_no_key() -> None:
    """Whoever prints the local variables of a traceback sees none of it."""
    lifespan: Any = amplitude_lifespan(api_key="0123456789-secret")

    cells = lifespan.__wrapped__.__closure__
    assert "0123456789-secret" not in repr([cell.cell_contents for cell in cells])


async def test_a_teardown_that_is_cancelled_still_drains(emulator: Emulator) -> None:
    """Pressed to stop again and again, a service still delivers what waits."""
    delay = Fault(200, delay=0.03)
    emulator.faults.add(delay)
    client = Amplitude("key", server_url=emulator.httpapi_url, flush_interval=3600)
    up = asyncio.Event()

    async def live() -> None:
        async with amplitude_lifespan(client=client)(None):
            await client.track("Served", user_id="user-1")
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await up.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)

    assert task.cancelled()
    assert client.stats.delivered + client.stats.dropped == 1
    assert client.stats.pending == 0


async def test_a_teardown_that_is_cancelled_is_bounded(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that never answers holds it up for the shutdown timeout only."""
    caplog.set_level(logging.CRITICAL, logger="amplitude_async")
    emulator.faults.add(Fault(500, delay=float("inf"), count=None))
    client = Amplitude("key", server_url=emulator.httpapi_url, shutdown_timeout=0.05)
    up = asyncio.Event()

    async def live() -> None:
        async with amplitude_lifespan(client=client)(None):
            await client.track("Served", user_id="user-1")
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await up.wait()
    async with asyncio.timeout(5):
        while not task.done():
            task.cancel()
            await asyncio.sleep(0.001)

    assert client.stats.dropped_by_reason == {"shutdown": 1}


# Pages ------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["fastapi", "starlette", "litestar", "quart"])
def test_a_page_shows_the_example_that_is_tested(name: str) -> None:
    """Every line of the file, in its order, but for what it says of itself."""
    page = (ROOT / f"docs/integrations/{name}.md").read_text("utf-8")
    example = (ROOT / f"examples/{name}_service.py").read_text("utf-8")
    code = example.split('"""', 2)[2]
    shown = iter(page.splitlines())
    lines = [line for line in code.splitlines() if line]

    assert [line for line in lines if line not in shown] == []
