"""Whatever stands in the head of a request, the emulator answers it, and never 500."""

from __future__ import annotations

import asyncio
import random

import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

NAMES = (
    *(b"Content-Type", b"Content-Encoding", b"Authorization", b"Origin", b"Host"),
    *(b"Access-Control-Request-Method", b"Access-Control-Request-Headers"),
    *(b"X-Anything", b"Expect", b"Cookie", b"Accept-Encoding", b"Range", b"If-Match"),
)
VALUES = (
    *(b"", b"application/json", b"application/json; charset=nonsense", b"text/plain"),
    *(
        b"\xff\xfe\x80",
        b"gzip",
        b"GZIP , br",
        b"null",
        b"*",
        b"a" * 7_000,
        b"[::1",
        b":",
    ),
    *(b"Basic", b"Basic \xff", b"Basic a2V5OnNlY3JldA==", b"Basic ====", b"bearer x"),
    *(b"127.0.0.1:1", b"[::1]:80:80", b"localhost", b"100-continue", b"\xe2\x80\xae"),
    *(b"http://127.0.0.1", b"POST", b"a, b\tc", b"bytes=0-", b';;;="', b"%00%ff"),
)
METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH")
PATHS = (
    *(b"/", b"/batch", b"/2/httpapi", b"/v2/events", b"/v2/bulkevents", b"/%ff%00"),
    *(b"/_emulator/events?limit=%ff", b"/_emulator/faults", b"/_emulator/reset"),
    *(b"/_emulator/stats?a=1&a=2", b"/_emulator/requests?after=99999999999999999"),
    *(b"//batch", b"/../batch", b"/batch?x=[red]", b"/_emulator", b"*"),
)
BODIES = (b"", b"{}", b"[]", b"\xff", b'{"status": 1}', b"[" * 5_000, b'{"kind": []}')


def a_request(dice: random.Random) -> bytes:
    """Make a request of parts that fit together or do not."""
    body = dice.choice(BODIES)
    head = [b"%b %b HTTP/1.1" % (dice.choice(METHODS), dice.choice(PATHS))]
    if dice.random() < 0.9:
        head.append(b"Host: 127.0.0.1")
    head += [
        b"%b: %b" % (dice.choice(NAMES), dice.choice(VALUES))
        for _ in range(dice.randrange(5))
    ]
    head += [b"Content-Length: %d" % len(body), b"Connection: close", b"", body]
    return b"\r\n".join(head)


@pytest.mark.parametrize("seed", range(5))
async def test_any_head_is_answered(emulator: Emulator, seed: int) -> None:
    """With what the head deserves, from 200 to 431."""
    dice = random.Random(seed)
    for _ in range(60):
        sent = a_request(dice)
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
        writer.write(sent)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        first = [one for one in answer.split(b"\r\n") if one.startswith(b"HTTP/1.")]
        statuses = [int(one.split()[1]) for one in first]
        assert statuses, sent
        assert all(status < 500 for status in statuses), (sent, answer)


@pytest.mark.parametrize(
    ("version", "expect", "status"),
    [
        (b"1.0", b"100-continue", 200),
        (b"1.1", b"100-continue", 100),
        (b"1.1", b"\xff", 417),
    ],
)
async def test_an_expectation_is_met_or_refused(
    emulator: Emulator, version: bytes, expect: bytes, status: int
) -> None:
    """An old client waits for nothing, a new one for what there is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    head = b"GET /_emulator/stats HTTP/%b\r\nHost: 127.0.0.1\r\nExpect: %b\r\n\r\n"
    writer.write(head % (version, expect))
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    assert int(line.split()[1]) == status
