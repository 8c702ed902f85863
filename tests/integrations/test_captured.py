"""What requests give to events, from headers that anybody may write."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from amplitude_async import Config, ConfigurationError, bindings, bound
from amplitude_async.integrations._captured import (
    Resolver,
    Wanted,
    client_address,
    first_language,
    is_identified,
    plain_text,
    request_properties,
)

__all__: list[str] = []


@pytest.mark.parametrize(
    ("lines", "hops", "address"),
    [
        ([], 0, "10.0.0.9"),
        ([b"1.1.1.1"], 0, "10.0.0.9"),
        ([b"1.1.1.1"], 1, "1.1.1.1"),
        ([b"6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),
        ([b"6.6.6.6, 1.1.1.1, 2.2.2.2"], 2, "1.1.1.1"),
        ([b"6.6.6.6", b"1.1.1.1", b"2.2.2.2"], 2, "1.1.1.1"),
        ([b"6.6.6.6, 1.1.1.1", b"2.2.2.2"], 2, "1.1.1.1"),
        # Somebody came by fewer proxies than there are.
        ([b"6.6.6.6"], 2, "10.0.0.9"),
        ([], 1, "10.0.0.9"),
        # What is no address is nobody's.
        ([b"unknown"], 1, None),
        ([b"1.1.1.1\x00"], 1, None),
        ([b"\xff\xfe"], 1, None),
        ([b""], 1, None),
        # With a port, and the new kind of address.
        ([b"1.1.1.1:4711"], 1, "1.1.1.1"),
        ([b"[2001:db8::1]:4711"], 1, "2001:db8::1"),
        ([b"2001:DB8:0::1"], 1, "2001:db8::1"),
        ([b"::ffff:1.1.1.1"], 1, "1.1.1.1"),
    ],
)
def test_only_ones_own_proxies_are_believed(
    lines: list[bytes], hops: int, address: str | None
) -> None:
    """An entry counts from the right, as each proxy adds one there."""
    assert client_address("10.0.0.9", lines, hops) == address


def test_thousands_of_forwarded_entries_change_nothing() -> None:
    """What a client made up stands on the left of what a proxy added."""
    line = b"6.6.6.6," * 100_000 + b" 1.1.1.1"

    assert client_address("10.0.0.9", [b"6.6.6.6"] * 10_000 + [line], 1) == "1.1.1.1"


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/service.sock"])
def test_a_peer_without_an_address_has_none(peer: str | None) -> None:
    """A socket file or a test client is no place in the world."""
    assert client_address(peer, [], 0) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (b"", None),
        (b"  ", None),
        (b"curl/8", "curl/8"),
        ("Bücher/1".encode(), "Bücher/1"),
        (b"a\xffb", "a�b"),
        (b"a\x00b\x1b[31mc\r\nd", "a b [31mc  d"),
        (b"x" * 1_000_000, "x" * 1024),
        ("ü".encode() * 500_000, "ü" * 1024),
    ],
)
def test_headers_become_bounded_text(value: bytes | None, text: str | None) -> None:
    """Whatever a client sends is text of 1,024 characters at most."""
    assert plain_text(value) == text


@pytest.mark.parametrize(
    ("value", "language"),
    [
        (None, None),
        (b"de-AT,de;q=0.9,en;q=0.8", "de-AT"),
        (b"fr;q=0.9", "fr"),
        (b"*", None),
        (b"<script>", None),
        (b"\xff", None),
        (b"de" * 500_000, None),
        (b"en," * 500_000, "en"),
    ],
)
def test_the_first_language_is_taken(value: bytes | None, language: str | None) -> None:
    """A browser names first what its user prefers."""
    assert first_language(value) == language


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capture": ["ip", "cookie"]}, "capture has 'cookie': give some of ip"),
        ({"capture": "ip"}, "capture='ip': give a list"),
        ({"capture": None}, "capture=None: give a list"),
        ({"properties": ["query"]}, "properties has 'query': give some of path"),
        ({"exclude": "/health"}, "exclude='/health': give a list"),
        ({"exclude": [1]}, "exclude has 1: give texts"),
        ({"trusted_hops": -1}, "trusted_hops=-1: give the number"),
        ({"trusted_hops": True}, "trusted_hops=True: give the number"),
        ({"trusted_hops": "1"}, "trusted_hops='1': give the number"),
        ({"request_event": ""}, "request_event='': give an event type"),
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

    def header(name: str) -> bytes:
        asked.append(name)
        return b"x"

    def forwarded() -> Iterable[bytes]:
        raise AssertionError

    wanted = Wanted(capture=["ip", "user_agent"], properties=["path", "host"])
    found = wanted.fields(header, "10.0.0.9", forwarded, {"path": "/p" * 9999})

    assert asked == ["user-agent"]
    assert found == {
        "ip": "10.0.0.9",
        "user_agent": "x",
        "event_properties": {"path": ("/p" * 512)},
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
        (lambda _: {1: 2}, ""),
        (lambda _: {"user_id": "x" * 129}, "a user_id of 129 characters"),
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
    (line,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "a request went on without identify" in line.getMessage()
    assert words in line.getMessage()


def test_where_nothing_can_be_awaited_a_plain_function_tells() -> None:
    """A synchronous view has its user as well."""
    with bound():
        Resolver(lambda _: {"user_id": "user-1"}, Config("key")).bind_at_once(None)
        Resolver(None, Config("key")).bind_at_once(None)

        assert bindings() == {"user_id": "user-1"}


def test_a_request_is_told_by_its_route() -> None:
    """The template stands for the path, which holds ids."""
    assert request_properties("/u/{id}", "GET", 200, 0.01234) == {
        "route": "/u/{id}",
        "method": "GET",
        "status": 200,
        "duration_ms": 12.3,
    }
    assert "route" not in request_properties(None, "GET", 404, 0.0)
