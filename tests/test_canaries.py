"""Secrets seeded everywhere one is taken, looked for in everything that goes out."""

import asyncio
import base64
import json
import logging
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError
from yarl import URL

from amplitude_async import (
    Amplitude,
    Config,
    ConfigurationError,
    DeliveryResult,
    DestinationPlugin,
)
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.delivery.sender import Sender
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    MParticle,
    MParticleConfig,
    MParticleError,
    UserIdentities,
)
from amplitude_async.mparticle.endpoint import MParticleEndpoint
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

KEY = "canary-key-0a1b2c3d4e5f"
SECRET = 'canary+sec/ret"<&>\\e5f6'
HEADER = "canary-header-77aa88bb"
PROXY_USER = "canary-proxy-user"
PROXY_PASSWORD = "canary proxy/p@ss"
QUERY = "canary-query-99ff"
URL_PASSWORD = "canary-url-pass"
SESSION_PASSWORD = "canary-session-pass"
SESSION_HEADER = "canary-session-header"
BASIC = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
SESSION_BASIC = base64.b64encode(f"me:{SESSION_PASSWORD}".encode()).decode()
CANARIES = [
    KEY,
    SECRET,
    json.dumps(SECRET)[1:-1],
    HEADER,
    PROXY_USER,
    PROXY_PASSWORD,
    "canary%20proxy%2Fp%40ss",
    QUERY,
    URL_PASSWORD,
    SESSION_PASSWORD,
    SESSION_HEADER,
    BASIC,
    SESSION_BASIC,
]
OF_EVENTS = "user-"
STATUSES = [302, 400, 401, 403, 404, 408, 413, 418, 429, 500, 503]
IMPATIENT: dict[str, Any] = {
    "flush_interval": 0.001,
    "flush_max_retries": 1,
    "retry_base_interval": 0.001,
    "retry_max_interval": 0.002,
    "retry_throttled_interval": 0.002,
    "shutdown_timeout": 0.3,
    "connection_timeout": 0.5,
}


class Lookout(logging.Handler):
    """Keeps all that a program shows of itself, with the local variables."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.shown: list[str] = []
        self.attributes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record down as the most talkative of handlers would."""
        self.shown += [record.getMessage(), repr(record.args), self.format(record)]
        # A handler that writes JSON prints whatever a record has.
        self.shown.append(repr(vars(record)))
        for name, value in vars(record).items():
            if name.startswith("amplitude_"):
                self.attributes.append(f"{name}={value!r}")
        if record.exc_info and record.exc_info[1]:
            self.look_into(record.exc_info[1])

    def look_at(self, *things: object) -> None:
        """Write down what printing something shows."""
        for thing in things:
            self.shown += [str(thing), repr(thing)]

    def look_into(self, error: BaseException) -> None:
        """Write an error down, and each frame of ours and of libraries with locals."""
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        self._tell(told)
        self.look_at(error, error.args, vars(error))
        hidden = error.__context__
        while hidden is not None:
            self.look_at(hidden, hidden.args)
            if isinstance(hidden, ValidationError):
                self.look_at(hidden.errors())
            hidden = hidden.__context__
        if isinstance(error, ValidationError):
            self.look_at(error.errors())

    def search(self, folder: Path) -> None:
        """Write down every byte of the files in a folder."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        self.shown += [path.read_bytes().decode("latin-1") for path in files]

    def _tell(self, told: traceback.TracebackException) -> None:
        self.shown += told.format_exception_only()
        for frame in told.stack:
            # The variables of this file are the canaries themselves.
            if Path(frame.filename) != Path(__file__):
                self.shown.append(f"{frame.name} {frame.locals}")
        for other in (told.__cause__, told.__context__):
            if other is not None:
                self._tell(other)

    def check(self) -> None:
        """Fail where a canary shows."""
        found = {
            (canary, text[:2000])
            for text in self.shown
            for canary in CANARIES
            if canary in text
        }
        assert found == set()
        # In the attributes of a record there is no word of an event either.
        assert [one for one in self.attributes if OF_EVENTS in one] == []


@pytest.fixture(autouse=True)
def lookout() -> Iterator[Lookout]:
    """Listen to every logger; fail the test if one canary was seen."""
    watching, root = Lookout(), logging.getLogger()
    before = {n: logging.getLogger(n).level for n in ("", "asyncio", "amplitude_async")}
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(watching)
    yield watching
    root.removeHandler(watching)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    watching.check()


# Servers --------------------------------------------------------------------

Speak = Callable[[bytes], bytes | None]


def echo(status: int) -> Speak:
    """Answer with this status and all that the request had in it."""

    def speak(request: bytes) -> bytes:
        told = request.decode("latin-1")
        body = json.dumps({"error": f"what is {told}", "code": status})
        lines = [
            f"HTTP/1.1 {status} No {KEY}",
            f"Content-Length: {len(body)}",
            f"X-Mp-Rate-Limit-Exceeded: {KEY}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", body]).encode()

    return speak


def mparticle_echo(status: int) -> Speak:
    """Answer as mParticle does, with the credentials in the error's message."""

    def speak(_request: bytes) -> bytes:
        errors = [{"code": BASIC, "message": f"no {KEY}, no {SECRET}"}]
        # As a server writes JSON that was warned of HTML.
        body = json.dumps({"errors": errors}).replace("<", "\\u003c")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}"
        return f"{head}\r\nConnection: close\r\n\r\n{body}".encode()

    return speak


def plain_echo(cut: int) -> Speak:
    """Answer with text that puts the key across the place where texts are cut."""

    def speak(_request: bytes) -> bytes:
        body = "x" * cut + KEY + "y" * 50
        return f"HTTP/1.1 500 X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    return speak


def garbage(_request: bytes) -> bytes:
    """Answer with what is no HTTP."""
    return f"HTTP/{KEY} {HEADER}\r\n{HEADER}\r\n\r\n".encode()


def silence(_request: bytes) -> None:
    """Answer nothing."""


@asynccontextmanager
async def serving(speak: Speak) -> AsyncIterator[str]:
    """Serve on a raw socket; yields host and port."""
    open_writers = set()

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        open_writers.add(writer)
        answer = speak(await reader.read(65536))
        if answer is None:
            return
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_writers:
            writer.close()


# Clients --------------------------------------------------------------------


def amplitude(address: str, **options: Any) -> Amplitude:
    """Make a client with a secret in each place that takes one."""
    given = {
        "server_url": f"http://{address}/2/httpapi?token={QUERY}",
        "headers": {"Authorization": f"Bearer {HEADER}", "X-Token": HEADER},
        "trust_env": False,
        **IMPATIENT,
        **options,
    }
    return Amplitude(KEY, **given)


async def walk(client: Amplitude, lookout: Lookout) -> None:
    """Track, flush and shut down; look at all that the client says."""
    results: list[DeliveryResult] = []
    lookout.look_at(client)
    deliveries = [await client.track("e", user_id=f"user-{n}") for n in range(3)]
    stats = await client.flush(0.5)
    lookout.look_at(client, client.config, stats, *deliveries)
    stats = await client.shutdown(0.3)
    results += [d.result for d in deliveries if d.result]
    assert len(results) == 3
    lookout.look_at(client, stats, *results, *(r.message for r in results))


@pytest.mark.parametrize("status", STATUSES)
async def test_a_server_that_repeats_all_it_was_sent(
    status: int, lookout: Lookout
) -> None:
    """Whatever its answer, what we say of it holds no secret."""
    async with serving(echo(status)) as address:
        await walk(amplitude(address), lookout)


@pytest.mark.parametrize("cut", range(165, 202, 4))
async def test_a_key_across_the_cut_is_no_half_key(cut: int, lookout: Lookout) -> None:
    """Texts are cleaned before they are cut: half of a key is most of a key."""
    async with serving(plain_echo(cut)) as address:
        await walk(amplitude(address), lookout)
    assert not any(KEY[:12] in text for text in lookout.shown)


@pytest.mark.parametrize("speak", [garbage, silence])
async def test_an_answer_that_is_none(speak: Speak, lookout: Lookout) -> None:
    """What the network library quotes of an answer is cleaned, too."""
    async with serving(speak) as address:
        await walk(amplitude(address, connection_timeout=0.05), lookout)


async def test_a_connection_that_is_refused(
    lookout: Lookout, unused_tcp_port: int
) -> None:
    """Nobody listens."""
    await walk(amplitude(f"127.0.0.1:{unused_tcp_port}"), lookout)


PROXIES = [
    "http://{user}:{password}@{address}",
    "http://{user}:{plain}@{address}",
    "{user}:{password}@{address}",
    "//{user}:{password}@{address}",
    "socks5://{user}:{password}@{address}",
    "http://{user}:{password}@{address}:port",
    "http://{user}:{password}@no-such-host.invalid:1",
]


# The proxy is on this machine, and the address behind it is that of nobody.
@pytest.mark.amplitude(live=True)
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_with_a_password(
    proxy: str, scheme: str, lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its address is right or wrong, and whatever it answers."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serving(echo(407)) as address:
        url = proxy.format(
            user=PROXY_USER,
            password="canary%20proxy%2Fp%40ss",
            plain=PROXY_PASSWORD,
            address=address,
        )
        monkeypatch.setenv(f"{scheme}_proxy", url)
        target = f"{scheme}://api.invalid/?token={QUERY}"
        await walk(amplitude(address, server_url=target, trust_env=True), lookout)


async def test_a_session_with_credentials(lookout: Lookout) -> None:
    """What the caller's own session adds is as secret as ours."""
    async with (
        serving(echo(500)) as address,
        aiohttp.ClientSession(headers={"X-Session": SESSION_HEADER}) as session,
    ):
        await walk(amplitude(address, session=session, headers={}), lookout)
    with warnings.catch_warnings():
        # On its way out of aiohttp, and in use for years to come.
        warnings.simplefilter("ignore", DeprecationWarning)
        auth = aiohttp.BasicAuth("me", SESSION_PASSWORD)
        async with (
            serving(echo(500)) as address,
            aiohttp.ClientSession(auth=auth) as session,
        ):
            await walk(amplitude(address, session=session, headers={}), lookout)


def tail_echo(status: int) -> Speak:
    """Answer with the headers that hold secrets alone, so that none is cut off."""

    def speak(request: bytes) -> bytes:
        marks = ("cookie", "x-", "proxy-", "authorization")
        lines = request.decode("latin-1").split("\r\n")
        told = "|".join(line for line in lines if line.lower().startswith(marks))
        body = json.dumps({"error": f"no {told}", "code": status})
        return (
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    return speak


async def _middleware(request: Any, handler: Any) -> Any:
    request.headers["X-Between"] = SESSION_HEADER
    return await handler(request)


def _with_cookies() -> aiohttp.ClientSession:
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(cookies={"sid": SESSION_HEADER}, cookie_jar=jar)


SESSIONS: dict[str, Callable[[], aiohttp.ClientSession]] = {
    "cookies": _with_cookies,
    "a middleware": lambda: aiohttp.ClientSession(middlewares=(_middleware,)),
    "a header that came later": aiohttp.ClientSession,
}
"""What adds something to each request that the client was never told."""


@pytest.mark.parametrize("status", [400, 413, 500])
@pytest.mark.parametrize("make", SESSIONS.values(), ids=SESSIONS.keys())
async def test_what_a_session_adds_by_itself(
    make: Callable[[], aiohttp.ClientSession], status: int, lookout: Lookout
) -> None:
    """Cookies, middlewares and late headers are told from what was sent."""
    async with serving(tail_echo(status)) as address, make() as session:
        client = amplitude(address, session=session)
        if make is aiohttp.ClientSession:
            session.headers["X-Late"] = SESSION_HEADER
        await walk(client, lookout)
    assert any("**********" in text for text in lookout.shown)


async def test_what_an_answer_that_is_none_repeats_of_a_cookie(
    lookout: Lookout,
) -> None:
    """What the network library quotes may be a cookie, too."""

    def speak(_request: bytes) -> bytes:
        return f"HTTP/1.1 {SESSION_HEADER}\r\n\r\n".encode()

    async with serving(speak) as address, _with_cookies() as session:
        await walk(amplitude(address, session=session), lookout)


class Broken(aiohttp.TraceConfig):
    """A trace of a session that raises, with what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.on_request_headers_sent.append(self._raise)

    async def _raise(self, _session: Any, _context: Any, params: Any) -> None:
        raise LookupError(f"odd headers: {params.headers}")


async def test_a_session_that_raises(lookout: Lookout) -> None:
    """Frames of the network library hold headers in plain: they are not shown."""
    async with (
        serving(silence) as address,
        aiohttp.ClientSession(trace_configs=[Broken()]) as session,
    ):
        await walk(amplitude(address, session=session), lookout)
    assert any("LookupError" in text for text in lookout.shown)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (AmplitudeEndpoint, "interpret"),
        (Sender, "_decided"),
        (AmplitudeEndpoint, "frame"),
    ],
)
async def test_a_fault_of_ours(
    owner: type, name: str, lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback of a request that failed inside us shows no body and no header."""

    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("a fault of ours")

    async with serving(echo(500)) as address:
        client = amplitude(address)
        if name == "_decided":
            await client.start()
            sender = client._own._engine._flusher.sender  # noqa: SLF001
            monkeypatch.setattr(sender, "_decide", fail)
        else:
            monkeypatch.setattr(owner, name, fail)
        await walk(client, lookout)
    assert any("a fault of ours" in text for text in lookout.shown)


class Indiscreet(DestinationPlugin):
    """A destination whose error tells all."""

    name = "indiscreet"

    async def execute(self, event: Any) -> None:  # noqa: ARG002
        """Fail."""
        raise ValueError(f"cannot log in with {KEY} and Basic {BASIC}")


async def test_user_code_that_tells_a_secret(lookout: Lookout) -> None:
    """Errors of plugins and callbacks are cleaned on their way into log and result."""

    def call(_result: DeliveryResult) -> None:
        raise ValueError(f"callback with {KEY}")

    async def enrich(_event: Any) -> None:
        raise ValueError(f"plugin with {KEY}")

    async with serving(echo(400)) as address:
        plugins = [Indiscreet(), enrich]
        await walk(amplitude(address, plugins=plugins, callback=call), lookout)


async def test_a_spool_and_its_dead_letters(lookout: Lookout, tmp_path: Path) -> None:
    """Not one byte on the disk is one of a secret."""
    for status in (400, 500):
        async with serving(echo(status)) as address:
            storage = SQLiteStorage(tmp_path / "spool", dead_letters=10)
            await walk(amplitude(address, storage=storage), lookout)
    lookout.search(tmp_path)


# mParticle ------------------------------------------------------------------


def batch() -> Batch:
    """Make a batch of one event."""
    return Batch(
        environment="development",
        user_identities=UserIdentities(customer_id="user-1"),
        events=[CustomEvent(event_name="e", custom_event_type="other")],
    )


@pytest.mark.parametrize("speak", [echo, mparticle_echo])
@pytest.mark.parametrize("status", STATUSES)
async def test_an_upload_to_a_server_that_repeats_its_credentials(
    speak: Callable[[int], Speak], status: int, lookout: Lookout
) -> None:
    """Neither the error nor its result holds key, secret or token."""
    async with serving(speak(status)) as address:
        client = MParticle(
            KEY,
            SECRET,
            base_url=f"http://{address}/v2",
            headers={"X-Token": HEADER},
            trust_env=False,
            **IMPATIENT,
        )
        lookout.look_at(client)
        with pytest.raises(MParticleError) as caught:
            await client.upload(batch())
        lookout.look_into(caught.value)
        lookout.look_at(caught.value.result)
        [result] = await client.upload_many([batch()])
        delivery = await client.send(batch())
        await client.flush(0.5)
        stats = await client.shutdown(0.3)
        lookout.look_at(result, delivery, delivery.result, stats, client, client.config)


async def test_a_success_may_repeat_credentials_too(lookout: Lookout) -> None:
    """What came with a 202 is in the result as well."""
    async with serving(mparticle_echo(202)) as address:
        client = MParticle(
            KEY, SECRET, base_url=f"http://{address}/v2", trust_env=False, **IMPATIENT
        )
        result = await client.upload(batch())
        assert result.ok
        assert result.errors
        lookout.look_at(result, *result.errors)
        await client.shutdown(0.3)


# Options --------------------------------------------------------------------


def with_options(make: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    """Give what makes something with these options."""
    return lambda: make(**options)


BAD = {
    "a wrong option": with_options(Amplitude, api_key=KEY, flush_queue_size=0),
    "no such option": with_options(Amplitude, apikey=KEY),
    "a secret too many": with_options(Amplitude, api_key=KEY, api_secret=SECRET),
    "a list": with_options(Amplitude, api_key=[KEY]),
    "a line end": with_options(Amplitude, api_key=KEY + "\n"),
    "half a character": with_options(Amplitude, api_key=KEY + "\udc80"),
    "half a character in a secret": with_options(
        MParticle, api_key=KEY, api_secret=SECRET + "\udc80"
    ),
    "bytes": with_options(Amplitude, api_key=KEY.encode() + b"\xff"),
    "headers": with_options(
        Amplitude, api_key=KEY, headers={"Authorization": [HEADER]}
    ),
    "headers as text": with_options(Amplitude, api_key=KEY, headers=HEADER),
    "a password in the address": with_options(
        Amplitude, api_key=KEY, server_url=f"http://me:{URL_PASSWORD}@host/?t={QUERY}"
    ),
    "a password that ends the host": with_options(
        Amplitude, api_key=KEY, server_url=f"http://me:{URL_PASSWORD}/x@host/"
    ),
    "a password that looks like a query": with_options(
        Amplitude, api_key=KEY, server_url=f"http://me:x?{URL_PASSWORD}@host/"
    ),
    "a password without a scheme": with_options(
        Amplitude, api_key=KEY, server_url=f"me:{URL_PASSWORD}@host"
    ),
    "a password in a base that is none": with_options(
        MParticle,
        api_key=KEY,
        api_secret=SECRET,
        base_url=f"http://me:{URL_PASSWORD}:x@host",
    ),
    "an address of another kind": with_options(
        Amplitude, api_key=KEY, server_url=f"ftp://me:{URL_PASSWORD}@host/?t={QUERY}"
    ),
    "Config": with_options(Config, api_key=KEY, max_in_flight=0),
    "model_validate": lambda: Config.model_validate(
        {"api_key": KEY, "max_in_flight": 0, "headers": {"a": HEADER}}
    ),
    "model_validate_json": lambda: Config.model_validate_json(
        json.dumps({"api_key": KEY, "max_in_flight": 0})
    ),
    "broken JSON": lambda: Config.model_validate_json(f'{{"api_key": "{KEY}"'),
    "an address that is no text": with_options(
        Amplitude, api_key=KEY, server_url=[f"http://me:{URL_PASSWORD}@h/?t={QUERY}"]
    ),
    "an address in bytes": with_options(
        Amplitude, api_key=KEY, server_url=f"http://me:{URL_PASSWORD}@h/".encode()
    ),
    "a copy": lambda: Config(api_key=KEY).model_copy(
        update={"server_url": f"ftp://me:{URL_PASSWORD}@h/?t={QUERY}"}
    ),
    "JSON nested too deep": lambda: Config.model_validate_json(
        f'{{"api_key": "{KEY}", "headers": ' + "[" * 100_000
    ),
    "an assignment": lambda: setattr(Config(api_key="key"), "api_key", KEY),
    "MParticle": with_options(
        MParticle, api_key=KEY, api_secret=SECRET, flush_queue_size=0
    ),
    "a colon": with_options(MParticle, api_key=KEY + ":", api_secret=SECRET),
    "a base with a password": with_options(
        MParticle,
        api_key=KEY,
        api_secret=SECRET,
        base_url=f"https://me:{URL_PASSWORD}@host/v2",
    ),
    "a base with a query": with_options(
        MParticleConfig, api_key=KEY, api_secret=SECRET, base_url=f"http://h/?t={QUERY}"
    ),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_an_option_that_is_refused(make: Callable[[], Any], lookout: Lookout) -> None:
    """Its error, what it came from and every frame of ours hold no secret."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.__context__ is None
    lookout.look_into(caught.value)


MISPLACED = {
    "a zone": with_options(Amplitude, api_key=KEY, server_zone=KEY),
    "a pod": with_options(MParticle, api_key=KEY, api_secret=SECRET, pod=KEY),
    "a logger": with_options(Amplitude, api_key=KEY, logger=KEY),
    "a storage": with_options(
        Amplitude, api_key=KEY, storage=f"http://me:{URL_PASSWORD}@host"
    ),
    "an address that is an object": with_options(
        Amplitude, api_key=KEY, server_url=URL(f"http://me:{URL_PASSWORD}@h/?t={QUERY}")
    ),
}


@pytest.mark.parametrize("make", MISPLACED.values(), ids=MISPLACED.keys())
def test_a_secret_in_the_wrong_place(make: Callable[[], Any], lookout: Lookout) -> None:
    """What is refused there is not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    lookout.look_at(caught.value, caught.value.args)


@pytest.mark.parametrize("name", ["HEADERS", "SERVER_URL"])
def test_a_variable_that_is_refused(
    name: str, lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment holds secrets more than anything else does."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv(f"AMPLITUDE_{name}", f"ftp://me:{URL_PASSWORD}@h/?t={HEADER}")
    with pytest.raises(ConfigurationError) as caught:
        Amplitude.from_env()
    lookout.look_into(caught.value)


def test_what_a_configuration_shows_of_itself(lookout: Lookout) -> None:
    """Printed, dumped, as JSON or as a dict; and it can be read back."""
    config = Config(
        api_key=KEY,
        server_url=f"https://host/in?token={QUERY}",
        headers={"Authorization": f"Bearer {HEADER}"},
    )
    dump = config.model_dump()
    lookout.look_at(config, dump, vars(config), config.redactor)
    lookout.look_at(config.model_dump_json(exclude={"logger"}))
    for part in (config.headers["Authorization"], config.server_url):
        assert part is not None
        lookout.shown += [repr(part), repr(part[:80])]

    copy = Config(api_key="key-of-none").model_copy(
        update={
            "api_key": KEY,
            "server_url": str(config.server_url),
            "headers": dict(config.headers),
        }
    )
    assert copy == config
    lookout.look_at(copy, vars(copy), copy.model_dump())

    assert Config(**dump) == config
    assert config.headers == {"Authorization": f"Bearer {HEADER}"}
    assert config.server_url == f"https://host/in?token={QUERY}"
    assert "https://host/in" in repr(config)


@pytest.mark.parametrize(
    "kind",
    [
        Amplitude,
        AmplitudeEndpoint,
        Config,
        MParticle,
        MParticleConfig,
        MParticleEndpoint,
        SQLiteStorage,
    ],
)
def test_what_is_half_built_can_be_shown(kind: type[Any]) -> None:
    """A debugger in a constructor prints what is not there yet."""
    assert repr(object.__new__(kind))
