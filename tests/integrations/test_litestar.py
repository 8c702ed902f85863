"""The plugin for Litestar: client, dependency, scope and lifespan in one."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async import Amplitude, ConfigurationError, bind, bindings
from amplitude_async.testing import RecordingAmplitude, capture

pytest.importorskip("litestar")

from litestar import Litestar, Request, Router, WebSocket, get, websocket
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.testing import TestClient

from amplitude_async.integrations.litestar import AmplitudePlugin

__all__: list[str] = []


def named(user: FromPath[str]) -> str:
    """Bind the user, in a thread."""
    bind(user_id=user)
    return user


@get("/users/{user:str}", dependencies={"bound": Provide(named, sync_to_thread=True)})
async def greet(
    user: FromPath[str],
    bound: NamedDependency[str],
    amplitude: NamedDependency[Amplitude],
) -> str:
    """Greet whom the dependency bound."""
    await amplitude.track("Greeted")
    return str(bindings()["user_id"])


@get("/unlucky")
async def unlucky() -> None:
    """Fail."""
    bind(user_id="user-1")
    raise LookupError


@websocket("/chat/{user:str}")
async def chat(
    socket: WebSocket[Any, Any, Any],
    user: FromPath[str],
    amplitude: NamedDependency[Amplitude],
) -> None:
    """Talk once."""
    bind(user_id=user)
    await socket.accept()
    await amplitude.track("Chatted")
    await socket.close(4001)


def application(client: Amplitude | None, **options: Any) -> Litestar:
    """Return an application with the plugin."""
    plugin = AmplitudePlugin(client=client, request_event="Request", **options)
    router = Router("/v1", route_handlers=[greet, unlucky, chat])
    # Its own configuration would take the handlers of these tests away.
    return Litestar([router], plugins=[plugin], logging_config=None)


def test_the_plugin_brings_all_of_it() -> None:
    """Handlers get the client by name, requests are scopes, and each is told of."""
    app = application(None, properties=["path"])
    with capture() as events, TestClient(app) as http:
        assert http.get("/v1/users/user-1").text == "user-1"
        assert http.get("/v1/users/user-2").text == "user-2"
        assert http.get("/v1/unlucky").status_code == 500
        with http.websocket_connect("/v1/chat/user-3"):
            """The service closes it."""

    assert [(event.name, event.user_id) for event in events] == [
        ("Greeted", "user-1"),
        ("Request", "user-1"),
        ("Greeted", "user-2"),
        ("Request", "user-2"),
        ("Request", "user-1"),
        ("Chatted", "user-3"),
        ("Request", "user-3"),
    ]
    told = [event.properties for event in events.named("Request")]
    assert [(p["route"], p.get("status"), p.get("code")) for p in told] == [
        ("/v1/users/{user}", 200, None),
        ("/v1/users/{user}", 200, None),
        ("/v1/unlucky", 500, None),
        ("/v1/chat/{user}", None, 4001),
    ]
    assert events[0].properties == {"path": "/v1/users/user-1"}


def test_what_goes_wrong_on_every_route_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Litestar makes a middleware for each route, and the log has one of the plugin."""

    def identify(scope: Any) -> None:
        raise LookupError

    with TestClient(application(RecordingAmplitude(), identify=identify)) as http:
        http.get("/v1/users/user-1")
        http.get("/v1/unlucky")

    assert caplog.text.count("identify raised LookupError") == 1


def test_the_name_of_the_dependency_is_free() -> None:
    """The client is under the same name in the application's state."""
    client = RecordingAmplitude()

    @get("/")
    async def handler(analytics: NamedDependency[Amplitude], state: State) -> bool:
        return analytics is state.analytics

    plugin = AmplitudePlugin(key="analytics", client=client)
    with TestClient(Litestar([handler], plugins=[plugin])) as http:
        assert http.get("/").json() is True


def test_what_the_application_says_itself_wins() -> None:
    """Its own lifespan runs within the client's, and its own dependency is taken."""
    client, own = RecordingAmplitude(), RecordingAmplitude(opt_out=True)
    life = []

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        life.append(app.state.amplitude)
        yield
        await client.track("Ending", user_id="user-1")

    async def provide() -> Amplitude:
        return own

    @get("/")
    async def handler(
        amplitude: NamedDependency[Amplitude], request: Request[Any, Any, Any]
    ) -> bool:
        return amplitude is own

    app = Litestar(
        [handler],
        plugins=[AmplitudePlugin(client=client)],
        lifespan=[lifespan],
        dependencies={"amplitude": Provide(provide)},
    )
    with TestClient(app) as http:
        assert http.get("/").json() is True

    assert life == [client]
    assert [event["event_type"] for event in client.events] == ["Ending"]


def test_a_lifespan_that_has_not_run_is_told_with_its_remedy() -> None:
    """As in a test that has not entered its client."""
    app = application(RecordingAmplitude())
    app.debug = True
    answer = TestClient(app).get("/v1/users/user-1")

    assert answer.status_code == 500
    assert "`with TestClient(app) as http:`" in answer.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "my client"}, "key='my client' must be a name"),
        ({"capture": ["cookies"]}, "capture has no 'cookies'"),
        ({"client": RecordingAmplitude(), "opt_out": True}, "together with opt_out"),
    ],
)
def test_a_wrong_option_is_told_at_once(options: Any, message: str) -> None:
    """Name, value and remedy, where the plugin is made."""
    with pytest.raises(ConfigurationError) as raised:
        AmplitudePlugin(**options)

    assert message in str(raised.value)


async def test_the_example_delivers_before_it_stops(
    sign_up_at: Callable[..., Any],
) -> None:
    """Events of requests served, and the requests, are there with their users."""
    ended = await sign_up_at("litestar_service.py")

    assert ended.exit_code == -signal.SIGTERM
    assert ended.requests == {("/users/{user_id}", 201)}
