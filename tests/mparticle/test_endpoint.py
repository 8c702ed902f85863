"""What mParticle's answers mean, and what each request carries. No network."""

import base64
import json
from typing import Any

import pytest

from amplitude_async import __version__
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Response,
)
from amplitude_async.mparticle import ApiError, MParticleConfig
from amplitude_async.mparticle.endpoint import (
    MParticleEndpoint,
    interpret,
    parse_errors,
    tell,
)

__all__: list[str] = []

WALL = 1_700_000_000.0
ERRORS = json.dumps(
    {"errors": [{"code": "BAD_REQUEST", "message": "environment is missing"}]}
).encode()


def endpoint(**options: Any) -> MParticleEndpoint:
    """Build the endpoint of a configuration."""
    given = {"api_key": "key", "api_secret": "secret", **options}
    return MParticleEndpoint(MParticleConfig(**given))


@pytest.mark.parametrize(
    ("response", "verdict", "wait"),
    [
        (Response(202), Accept, None),
        (Response(200, b"<html>"), Accept, None),
        (Response(299), Accept, None),
        (Response(301, headers={"location": "http://x"}), Broken, None),
        (Response(400, ERRORS), Bisect, None),
        (Response(422), Bisect, None),
        (Response(401, ERRORS), Refuse, None),
        (Response(403), Refuse, None),
        (Response(404), Refuse, None),
        (Response(405), Refuse, None),
        (Response(408), Broken, None),
        (Response(413), Halve, None),
        (Response(429), Busy, None),
        (Response(429, headers={"retry-after": "2"}), Busy, 2.0),
        (Response(429, headers={"retry-after": "-2"}), Busy, None),
        (Response(429, headers={"retry-after": "soon"}), Busy, None),
        (Response(429, headers={"retry-after": "99999"}), Busy, 300.0),
        (
            Response(429, headers={"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}),
            Busy,
            10.0,
        ),
        (Response(500), Broken, None),
        (Response(500, headers={"retry-after": "3"}), Busy, 3.0),
        (Response(401, headers={"retry-after": "3"}), Busy, 3.0),
        (Response(400, headers={"retry-after": "3"}), Busy, 3.0),
        (Response(502), Busy, None),
        (Response(503), Busy, None),
        (Response(503, headers={"retry-after": "3"}), Busy, 3.0),
        (Response(504), Busy, None),
        (Response(0, error="refused", sent=False), Busy, None),
        (Response(0, error="no answer"), Broken, None),
        (Response(401, error="broke off"), Broken, None),
    ],
)
def test_what_an_answer_means(
    response: Response, verdict: type, wait: float | None
) -> None:
    """The table of answers: permanent, temporary, too large, too fast."""
    found = interpret(response, [], WALL)

    assert type(found) is verdict
    assert getattr(found, "wait", None) == wait
    bare = response.status == 429 and wait is None
    assert getattr(found, "throttled", False) is bare
    assert found.code == response.status
    assert found.message


def test_what_the_server_says_is_kept_in_short() -> None:
    """Codes and messages of its errors, and whose rate limit it was."""
    refused = interpret(Response(400, ERRORS), [], WALL)
    throttled = interpret(
        Response(429, headers={"x-mp-rate-limit-exceeded": '"workspace"'}), [], WALL
    )
    page = interpret(Response(502, b"<html>" + b"x" * 5000), [], WALL)

    assert refused.message == "HTTP 400: BAD_REQUEST: environment is missing"
    assert throttled.message == "rate limit of workspace: HTTP 429"
    assert len(page.message) < 250


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{", b"[]", b"null", b'{"errors": "x"}', b'{"errors": [1]}'],
)
def test_an_unreadable_error_is_none(body: bytes) -> None:
    """HTML, broken and foreign bodies give no errors and no exception."""
    assert parse_errors(body) == ()


def test_errors_are_read() -> None:
    """Each has a code and a message, and at most three are told."""
    assert parse_errors(ERRORS) == (
        ApiError(code="BAD_REQUEST", message="environment is missing"),
    )
    many = [ApiError(code=str(number), message="m") for number in range(9)]
    assert tell(many) == "0: m; 1: m; 2: m"


@pytest.mark.parametrize(
    ("key", "secret"), [("key", "secret"), ("k\u00e9y", "s\u00e9cret\u20ac")]
)
def test_basic_authentication(key: str, secret: str) -> None:
    """Key and secret as UTF-8, in base64, as the Go and Python SDKs do it."""
    headers = endpoint(api_key=key, api_secret=secret).headers
    scheme, token = headers["Authorization"].split()

    assert scheme == "Basic"
    assert base64.b64decode(token) == f"{key}:{secret}".encode()


def test_headers_can_be_added_but_not_these() -> None:
    """Authorization and Content-Type stay, in whatever case somebody names them."""
    extra = {
        "authorization": "none",
        "CONTENT-TYPE": "text/plain",
        "user-agent": "mine",
        "X-Trace": "t",
    }
    headers = endpoint(headers=extra).headers
    names = [name.lower() for name in headers]

    assert len(names) == len(set(names))
    assert headers["Authorization"].startswith("Basic ")
    assert headers["Content-Type"] == "application/json"
    assert (headers["user-agent"], headers["X-Trace"]) == ("mine", "t")
    assert endpoint().headers["User-Agent"] == f"amplitude-async/{__version__}"


def test_the_endpoint_shows_no_secret() -> None:
    """Neither its repr nor its fingerprint gives key or secret away."""
    made = endpoint(api_key="key-k", api_secret="secret-s", pod="eu1")

    shown = repr(made) + made.fingerprint()
    assert "key-k" not in shown
    assert "secret-s" not in shown
    assert "s2s.eu1.mparticle.com" in made.fingerprint()
    assert made.fingerprint() != endpoint(pod="eu1").fingerprint()


def test_bulk_requests() -> None:
    """A request body is the batches in brackets, within the documented limits."""
    made = endpoint()

    assert made.url == "https://s2s.mparticle.com/v2/bulkevents"
    assert made.frame([b"{}", b"{}"], WALL) == b"[{},{}]"
    assert (made.max_events, made.max_bytes) == (100, 256_000)
    assert not made.compress
