"""What requests give to events, from headers that anybody may write."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from amplitude_async import Config, ConfigurationError, bindings, bound
from amplitude_async.integrations.request_event import request_properties
from amplitude_async.integrations.request_scope import (
    PROPERTIES,
    Headers,
    Resolver,
    Wanted,
    is_identified,
)

__all__: list[str] = []


def headers_of(**values: list[bytes]) -> Headers:
    """Make headers of a request; underscores stand for dashes."""
    return lambda name: values.get(name.replace("-", "_"), [])


@pytest.mark.parametrize(
    ("lines", "hops", "address"),
    [
        ([], 0, "10.0.0.9"),
        ([b"1.1.1.1"], 0, "10.0.0.9"),
        ([b"1.1.1.1"], 1, "1.1.1.1"),
        ([b"6.6.6.6, 1.1.1.1, 2.2.2.2"], 2, "1.1.1.1"),
        ([b"6.6.6.6", b"1.1.1.1", b"2.2.2.2"], 2, "1.1.1.1"),
        # Somebody came by fewer proxies than there are.
        ([b"6.6.6.6"], 2, "10.0.0.9"),
        ([], 1, "10.0.0.9"),
        ([b"6.6.6.6," * 100_000 + b" 1.1.1.1"], 1, "1.1.1.1"),
    ],
)
def test_only_ones_own_proxies_are_believed(
    lines: list[bytes], hops: int, address: str
) -> None:
    """An entry counts from the right, as each proxy adds one there."""
    wanted = Wanted(capture=["ip"], trusted_hops=hops)

    found = wanted.fields(headers_of(x_forwarded_for=lines), "10.0.0.9", {})

    assert found == {"ip": address}


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/service.sock"])
def test_a_peer_without_an_address_has_none(peer: str | None) -> None:
    """A socket file or a test client is no place in the world."""
    assert Wanted().fields(headers_of(), peer, {}) == {}


def test_everything_that_is_wanted_is_taken() -> None:
    """Fields and properties by the names that the options have."""
    headers = headers_of(
        user_agent=[b"curl/8"], accept_language=[b"de-AT,en;q=0.5"], host=[b"Shop.test"]
    )
    about = {"path": "/a", "method": "GET", "scheme": "https"}

    found = Wanted(properties=PROPERTIES).fields(headers, "10.0.0.9", about)

    assert found == {
        "ip": "10.0.0.9",
        "user_agent": "curl/8",
        "language": "de-AT",
        "event_properties": {**about, "host": "shop.test"},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capture": ["ip", "cookie"]}, "capture has no 'cookie': there are 'ip'"),
        ({"properties": ["body"]}, "properties has no 'body': there are 'path'"),
        ({"capture": "ip"}, "capture='ip' must be a list"),
        ({"capture": None}, "capture=None must be a list"),
        ({"properties": ["query"]}, "properties has no 'query': it may hold"),
        ({"exclude": "/health"}, "exclude='/health' must be a list"),
        ({"exclude": [1]}, "exclude has 1: a path begins"),
        ({"exclude": ["/a*b"]}, "exclude has '/a*b': a path begins"),
        ({"trusted_hops": -1}, "trusted_hops=-1 must be a whole number"),
        ({"trusted_hops": True}, "trusted_hops=True must be a whole number"),
        ({"trusted_hops": "1"}, "trusted_hops='1' must be a whole number"),
        ({"request_event": ""}, "request_event='' must be an event type"),
    ],
)
def test_a_wrong_option_is_told_at_once(options: dict[str, Any], message: str) -> None:
    """The error names the option, its value and what to give."""
    with pytest.raises(ConfigurationError) as caught:
        Wanted(**options)

    assert message in str(caught.value)


def test_paths_are_excluded_whole_or_by_their_beginning() -> None:
    """A star at the end stands for everything below."""
    wanted = Wanted(exclude=["/health", "/static/*"])

    excluded = [*filter(wanted.excludes, ["/health", "/health/2", "/static/a", "/"])]

    assert excluded == ["/health", "/static/a"]


def test_only_what_is_asked_for_is_taken() -> None:
    """Headers that nobody asked for are not even read."""
    asked: list[str] = []

    def headers(name: str) -> list[bytes]:
        asked.append(name)
        return [b"x"]

    wanted = Wanted(capture=["ip", "user_agent"], properties=["path"])
    found = wanted.fields(headers, "10.0.0.9", {"path": "/p" * 9999})

    assert asked == ["user-agent"]
    assert found == {
        "ip": "10.0.0.9",
        "user_agent": "x",
        "event_properties": {"path": "/p" * 256},
    }


async def _later() -> Mapping[str, str]:
    return {"user_id": "user-1"}


async def _never() -> Mapping[str, str]:
    raise RuntimeError("no session")


@pytest.mark.parametrize(
    "identify", [lambda _: {"user_id": "user-1"}, lambda _: _later()]
)
async def test_who_asks_is_bound(identify: Any) -> None:
    """A plain function may tell it, or an async one."""
    with bound():
        before = is_identified()
        await Resolver(identify, Config("key")).bind(None)

        assert (before, is_identified()) == (False, True)
        assert bindings() == {"user_id": "user-1"}


@pytest.mark.parametrize(
    ("identify", "words"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: _never(), "no session"),
        (lambda _: "user-1", "identify returned str"),
        (lambda _: {"user": "user-1"}, "user"),
        (lambda _: {"insert_id": "1"}, "insert_id cannot be bound"),
        (lambda _: {1: 2}, "identify raised"),
    ],
)
async def test_what_identify_does_wrong_is_logged_and_binds_nothing(
    identify: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No request fails because of it, and the log tells why the user is missing."""
    resolver = Resolver(identify, Config("key"))
    with bound():
        await resolver.bind(None)
        await resolver.bind(None)

        assert bindings() == {}
    (line,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "the request goes on without its fields" in line.getMessage()
    assert words in caplog.text


async def test_an_id_that_is_too_long_is_left_out_and_not_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two users whose ids begin alike do not become one."""
    long = {"user_id": "x" * 129, "device_id": "d" * 128}
    with bound():
        await Resolver(lambda _: long, Config("key")).bind(None)

        assert bindings() == {"device_id": "d" * 128}
    assert "identify gave a user_id of more than 128 characters" in caplog.text


def test_where_nothing_can_be_awaited_a_plain_function_tells() -> None:
    """A synchronous view has its user as well."""
    with bound():
        Resolver(lambda _: {"user_id": "user-1"}, Config("key")).bind_at_once(None)
        Resolver(None, Config("key")).bind_at_once(None)

        assert bindings() == {"user_id": "user-1"}


@pytest.mark.parametrize("kind", [BaseException, asyncio.CancelledError, KeyError])
def test_where_nothing_can_be_awaited_no_error_breaks_a_request(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Of whatever class it is; but who ends the process does."""

    def identify(_: object) -> None:
        raise kind

    def leave(_: object) -> None:
        raise KeyboardInterrupt

    Resolver(identify, Config("key")).bind_at_once(None)
    assert f"identify raised {kind.__name__}" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        Resolver(leave, Config("key")).bind_at_once(None)


def test_an_async_function_cannot_tell_where_nothing_is_awaited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said, and no coroutine is left behind."""
    with bound():
        Resolver(lambda _: _later(), Config("key")).bind_at_once(None)

        assert bindings() == {}
    assert "identify returned coroutine" in caplog.text


def test_a_request_is_told_by_its_route() -> None:
    """The template stands for the path, which holds ids."""
    assert request_properties("/u/{id}", "GET", 200, 0.01234) == {
        "route": "/u/{id}",
        "method": "GET",
        "status": 200,
        "duration": 0.01234,
    }
    assert request_properties(None, "GET", None, 0.0) == {
        "method": "GET",
        "duration": 0.0,
        "aborted": True,
    }
