"""The command `doctor`: each way in which a way can be barred, and what it says."""

import json
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async.cli.app import app
from amplitude_async.emulator import Emulator, Fault
from tests.conftest import self_signed

__all__: list[str] = []

KEY = "0123456789abcdef0123456789abcdef"

pytestmark = pytest.mark.allow_blocking


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take nothing of the machine's own."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")


def doctor(url: str | None, *words: str) -> Result:
    """Run the command to its end."""
    more = [] if url is None else ["--server-url", url]
    return CliRunner().invoke(
        app, ["doctor", *more, "--timeout", "2", *words], catch_exceptions=False
    )


def found(url: str | None, *words: str) -> dict[str, dict[str, str]]:
    """Return what the command finds, by check."""
    report = json.loads(doctor(url, *words, "--json").stdout)
    return {one["check"]: one for one in report["findings"]}


@contextmanager
def server(
    answer: Callable[[bytes], bytes], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Answer each connection with bytes of the test's own; yields the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                connection.settimeout(5)
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                connection.sendall(answer(connection.recv(65_536)))
            except OSError:
                pass
            finally:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        # A close alone would not wake the thread.
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def response(status: str, *headers: str) -> Callable[[bytes], bytes]:
    """Give an answer of HTTP without a body."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers])
    return lambda _: f"{head}\r\nConnection: close\r\n\r\n".encode()


def dated(**ahead: float) -> str:
    """Give a header with the time as a clock that is wrong has it."""
    return f"Date: {format_datetime(datetime.now(UTC) + timedelta(**ahead))}"


def test_all_is_well_with_an_emulator(background_emulator: Emulator) -> None:
    """Each check has a line, and with --send one event arrives."""
    result = doctor(background_emulator.httpapi_url, "--send")

    checks = [line.split()[1] for line in result.stdout.splitlines()[:-1]]
    assert result.exit_code == 0
    assert checks == [
        *("versions", "key", "zone", "proxy", "dns", "connect", "http", "clock"),
        "send",
    ]
    assert result.stdout.endswith("Nothing stands in the way.\n")
    assert len(background_emulator.events) == 1


def test_nothing_is_sent_unasked(background_emulator: Emulator) -> None:
    """No event goes without --send."""
    assert found(background_emulator.httpapi_url)["send"]["verdict"] == "skipped"
    assert background_emulator.events == []


def test_a_refused_event_is_trouble(background_emulator: Emulator) -> None:
    """The server's words, and where to look."""
    background_emulator.faults.add(Fault(401, count=None))

    result = doctor(background_emulator.httpapi_url, "--send")

    assert result.exit_code == 1
    assert "TROUBLE send     the test event was not taken" in result.stdout
    assert "-> look at key and zone" in result.stdout
    assert "Nothing stands in the way" not in result.stdout


def test_a_closed_port_is_told() -> None:
    """The way ends there, and no event is tried."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]

    checks = found(f"http://127.0.0.1:{port}/2/httpapi", "--send")

    assert checks["connect"]["verdict"] == "trouble"
    assert "refused" in checks["connect"]["text"]
    assert checks["send"]["text"] == "there is no way to the server"
    assert "http" not in checks


def test_a_name_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the resolver says is repeated."""

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    checks = found("http://no-such-name.invalid/2/httpapi")

    assert checks["dns"]["verdict"] == "trouble"
    assert "has no address: Name or service not known" in checks["dns"]["text"]
    assert "connect" not in checks


def test_a_resolver_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step is bounded, and so is the end of the command."""
    done = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        done.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        checks = found("http://slow-name.invalid/2/httpapi", "--timeout", "0.2")
    finally:
        done.set()

    assert "no answer about slow-name.invalid" in checks["dns"]["text"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_that_nobody_trusts_is_told(tmp_path: Path) -> None:
    """It is told apart from a server without TLS, with what to do."""
    context = self_signed(tmp_path)

    with server(response("200 OK"), context) as port:
        checks = found(f"https://127.0.0.1:{port}/2/httpapi")

    assert checks["tls"]["verdict"] == "trouble"
    assert "is not trusted: self-signed certificate" in checks["tls"]["text"]
    assert "SSL_CERT_FILE" in checks["tls"]["remedy"]

    with (
        pytest.MonkeyPatch.context() as patch,
        server(response("405 No", dated()), context) as port,
    ):
        patch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        tls = found(f"https://127.0.0.1:{port}/2/httpapi")["tls"]
    assert tls["verdict"] == "warn"
    assert "the certificate ends in 2.0 days" in tls["text"]


def test_a_server_without_tls_is_told() -> None:
    """Plain HTTP behind an https URL is no question of certificates."""
    with server(response("200 OK")) as port:
        checks = found(f"https://127.0.0.1:{port}/2/httpapi")

    assert checks["tls"]["verdict"] == "trouble"
    assert "no TLS with 127.0.0.1" in checks["tls"]["text"]


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    """Neither the handshake nor the answer has more than its time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        tls = found(f"https://127.0.0.1:{port}/2/httpapi", "--timeout", "0.2")
        plain = found(f"http://127.0.0.1:{port}/2/httpapi", "--timeout", "0.2")

    assert "no TLS handshake within 0.2 s" in tls["tls"]["text"]
    assert "no answer within 0.2 s" in plain["http"]["text"]


@pytest.mark.parametrize(
    ("answer", "verdict", "text"),
    [
        (response("503 Busy"), "trouble", "HTTP 503"),
        (response("301 Moved", "Location: /x"), "trouble", "leads elsewhere"),
        (response("404 No"), "warn", "no such path"),
        (response("405 No"), "ok", "a server answers"),
        (lambda _: b"SSH-2.0-x\r\n", "trouble", "no answer: "),
    ],
)
def test_each_answer_has_its_verdict(
    answer: Callable[[bytes], bytes], verdict: str, text: str
) -> None:
    """What listens there is told from what should."""
    with server(answer) as port:
        http = found(f"http://127.0.0.1:{port}/2/httpapi")["http"]

    assert http["verdict"] == verdict
    assert text in http["text"]


@pytest.mark.parametrize(
    ("header", "verdict", "text"),
    [
        (dated, "ok", "it agrees"),
        (partial(dated, minutes=2), "warn", "s behind the server's"),
        (partial(dated, hours=-3), "trouble", "s ahead of the server's"),
        (lambda: "Date: noon", "skipped", "did not say"),
        (lambda: "X: y", "skipped", "did not say"),
    ],
)
def test_the_clock_is_compared(
    header: Callable[[], str], verdict: str, text: str
) -> None:
    """A clock that is wrong gives events a wrong time."""
    with server(response("405 No", header())) as port:
        clock = found(f"http://127.0.0.1:{port}/2/httpapi")["clock"]

    assert clock["verdict"] == verdict
    assert text in clock["text"]


@pytest.mark.parametrize(
    ("scheme", "status", "remedy"),
    [
        ("https", "403 No", "NO_PROXY"),
        ("https", "407 Who", "user and password"),
        ("http", "407 Who", "user and password"),
    ],
)
def test_a_proxy_that_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch, scheme: str, status: str, remedy: str
) -> None:
    """The way leads to it, and its password is nowhere."""
    with server(response(status)) as port:
        proxy = f"http://me:hidden-word@127.0.0.1:{port}"
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        result = doctor(f"{scheme}://api.example.test/2/httpapi", "--json")

    checks = {one["check"]: one for one in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert f"by 127.0.0.1:{port}" in checks["proxy"]["text"]
    assert checks["http"]["verdict"] == "trouble"
    assert status[:3] in checks["http"]["text"]
    assert remedy in checks["http"]["remedy"]
    assert "hidden-word" not in result.output


def test_a_proxy_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable is the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")

    connect = found("https://api.example.test/2/httpapi")["connect"]

    assert connect["verdict"] == "trouble"
    assert "HTTPS_PROXY" in connect["remedy"]


# Settings ---------------------------------------------------------------------


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no name have an address: nothing outside is asked."""

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "not in a test")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.usefixtures("without_network")
@pytest.mark.parametrize(
    ("key", "verdict", "text"),
    [
        (KEY, "ok", "32 hexadecimal digits"),
        ("secret-of-mine", "warn", "it has 14 characters"),
        (f"'{KEY}'", "warn", "quotes around it"),
        (f" {KEY}", "warn", "blanks"),
        ("", "trouble", "there is none"),
    ],
)
def test_the_form_of_the_key_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, key: str, verdict: str, text: str
) -> None:
    """The key itself is never shown."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", key)

    result = doctor(None, "--json")

    [one] = [x for x in json.loads(result.stdout)["findings"] if x["check"] == "key"]
    assert one["verdict"] == verdict
    assert text in one["text"]
    assert not key.strip() or key.strip("' ") not in result.output


@pytest.mark.usefixtures("without_network")
def test_without_a_key_the_way_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever opens a firewall need not have it; nothing is sent without one."""
    monkeypatch.delenv("AMPLITUDE_API_KEY", raising=False)

    found = json.loads(doctor(None, "--send", "--json").stdout)["findings"]

    checks = {one["check"]: one for one in found}
    assert [*checks] == ["versions", "key", "zone", "proxy", "dns", "send"]
    assert checks["key"]["verdict"] == "trouble"
    assert checks["send"]["text"] == "there is no key to send with"


@pytest.mark.usefixtures("without_network")
@pytest.mark.parametrize(
    ("words", "verdict", "text"),
    [
        ((), "ok", "US, https://api2.amplitude.com/2/httpapi"),
        (("--zone", "eu"), "ok", "EU, https://api.eu.amplitude.com/2/httpapi"),
        (
            ("--server-url", "https://api.eu.amplitude.com/2/httpapi"),
            "warn",
            "AMPLITUDE_SERVER_ZONE is US",
        ),
    ],
)
def test_zone_and_url_are_compared(
    words: tuple[str, ...], verdict: str, text: str
) -> None:
    """A URL of the other zone is noticed."""
    zone = found(None, *words)["zone"]

    assert zone["verdict"] == verdict
    assert text in zone["text"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("AMPLITUDE_SERVER_ZONE", "MARS", "server_zone"),
        ("AMPLITUDE_HEADERS", "{", "JSON"),
        ("AMPLITUDE_OPT_OUT", "true", "nothing is sent"),
    ],
)
def test_a_wrong_variable_is_trouble(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    """It is named, and the examination ends."""
    monkeypatch.setenv(name, value)

    result = doctor(None)

    assert result.exit_code == 1
    assert re_joined(text) in re_joined(result.stdout)


def re_joined(text: str) -> str:
    """Take line ends out of what was wrapped."""
    return " ".join(text.split())
