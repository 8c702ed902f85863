"""What is told while it happens, to pages that watch and to others that do not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault, feed
from amplitude_async.emulator.entries import entry

__all__: list[str] = []

MPARTICLE_KEY = {"Authorization": "Basic a2V5OnNlY3JldA=="}
Message = tuple[str, Any, str | None]


class Reader:
    """Reads server-sent events as a browser does."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._lines = response.content

    async def next(self, *wanted: str) -> Message:
        """Return the next message, or the next of these kinds."""
        while True:
            fields: dict[str, str] = {}
            while (line := (await self._lines.readline()).decode().rstrip("\n")) != "":
                name, _, value = line.partition(": ")
                fields[name] = value
            if "event" not in fields:
                assert not self._lines.at_eof()
            elif not wanted or fields["event"] in wanted:
                data = json.loads(fields["data"])
                return fields["event"], data, fields.get("id")

    async def entries(self, count: int) -> list[dict[str, Any]]:
        """Return so many entries."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += (await self.next("entries"))[1]
        return found


@asynccontextmanager
async def watching(
    emulator: Emulator, query: str = "", **headers: str
) -> AsyncIterator[Reader]:
    """Watch an emulator."""
    limit = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=limit, read_bufsize=2**22) as session,
        session.get(
            f"{emulator.url}/_emulator/feed{query}", headers=headers
        ) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Reader(response)


async def send(emulator: Emulator, *names: str, **fields: Any) -> int:
    """Send events of these types in one request; returns the status."""
    events = [{"event_type": name, "user_id": "user-1", **fields} for name in names]
    body = {"api_key": "top-secret", "events": events}
    async with (
        aiohttp.ClientSession() as session,
        session.post(emulator.httpapi_url, json=body) as response,
    ):
        return response.status


async def ask(emulator: Emulator, method: str, path: str, body: Any = None) -> Any:
    """Ask one of the emulator's own routes for JSON."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, f"{emulator.url}/_emulator/{path}", json=body
        ) as response,
    ):
        return await response.json()


async def test_it_says_hello_first(emulator: Emulator) -> None:
    """A page knows at once what is there, and asks for the rest."""
    await send(emulator, "before")
    emulator.faults.add(Fault(503, count=5))
    async with watching(emulator) as reader:
        kind, hello, number = await reader.next()
    assert (kind, number) == ("hello", None)
    assert hello["url"] == emulator.url
    assert (hello["oldest"], hello["newest"]) == (1, 1)
    assert hello["stats"]["events_ingested"] == 1
    assert hello["faults"][0]["left"] == 5
    assert hello["now"] > 1.7e9
    assert hello["version"]


async def test_what_comes_is_told(emulator: Emulator) -> None:
    """Entries, the request they came in and the counters, without being asked."""
    async with watching(emulator) as reader:
        await reader.next("hello")
        await send(emulator, "Paid", event_properties={"total": 9.5, "order": "o-1"})
        _, (told,), number = await reader.next("entries")
        _, (request,), _ = await reader.next("requests")
        _, stats, _ = await reader.next("stats")
    at = told.pop("at")
    assert at == emulator.requests[0].received_at
    assert told == {
        "n": 1,
        "vendor": "amplitude",
        "name": "Paid",
        "kind": "event",
        "user": "user-1",
        "device": None,
        "groups": None,
        "preview": [["total", "9.5"], ["order", '"o-1"']],
        "state": "stored",
        "reason": "",
        "local": False,
        "request": 1,
    }
    assert number == "1"
    assert (request["number"], request["path"], request["status"]) == (
        1,
        "/2/httpapi",
        200,
    )
    assert stats["events_ingested"] == 1


async def test_no_key_is_told(emulator: Emulator) -> None:
    """Neither keys nor headers are anybody's who watches."""
    async with watching(emulator) as reader:
        await reader.next("hello")
        await send(emulator, "Paid")
        told = [await reader.next() for _ in range(3)]
    assert "top-secret" not in str(told)
    assert "headers" not in str(told)


async def test_a_rejected_event_has_its_reason(emulator: Emulator) -> None:
    """Of a refused request each event is told, with what is wrong with it."""
    async with watching(emulator) as reader:
        await reader.next("hello")
        await send(emulator, "fine", "")
        good, bad = await reader.entries(2)
    assert (good["state"], bad["state"]) == ("rejected", "rejected")
    assert "event_type" in bad["reason"]


async def test_a_copy_is_told_as_one(emulator: Emulator) -> None:
    """An event that comes twice is stored once."""
    async with watching(emulator) as reader:
        await reader.next("hello")
        await send(emulator, "Paid", "Paid", insert_id="same")
        states = [one["state"] for one in await reader.entries(2)]
    assert sorted(states) == ["duplicate", "stored"]


async def test_each_event_of_a_batch_is_told(emulator: Emulator) -> None:
    """An mParticle batch of two events makes two entries, numbered one by one."""
    batch = {
        "environment": "development",
        "user_identities": {"customer_id": "user-7"},
        "events": [
            {
                "event_type": "custom_event",
                "data": {
                    "event_name": "Paid",
                    "custom_event_type": "transaction",
                    "custom_attributes": {"total": "9"},
                },
            },
            {
                "event_type": "screen_view",
                "data": {"screen_name": "Home"},
            },
        ],
    }
    async with watching(emulator) as reader:
        await reader.next("hello")
        async with (
            aiohttp.ClientSession(headers=MPARTICLE_KEY) as session,
            session.post(f"{emulator.mparticle_url}/events", json=batch) as response,
        ):
            assert response.status == 202
        await send(emulator, "after")
        told = await reader.entries(3)
    assert [(one["n"], one["name"], one["kind"]) for one in told] == [
        (1, "Paid", "custom_event"),
        (2, "Home", "screen_view"),
        (3, "after", "event"),
    ]
    assert told[0]["user"] == "user-7"
    assert told[0]["preview"] == [["total", '"9"']]
    details = await ask(emulator, "GET", "entries/2")
    assert details["event"]["data"]["screen_name"] == "Home"
    assert details["batch"]["environment"] == "development"


@pytest.mark.parametrize("by", ["query", "header"])
async def test_a_reader_resumes_where_it_was(emulator: Emulator, by: str) -> None:
    """What came meanwhile is told first, in order, and nothing twice."""
    await send(emulator, "one", "two", "three")
    header = {"Last-Event-ID": "1"} if by == "header" else {}
    query = "?after=1" if by == "query" else "?after=0"
    async with watching(emulator, query, **header) as reader:
        await reader.next("hello")
        await send(emulator, "four")
        told = await reader.entries(3)
    assert [one["name"] for one in told] == ["two", "three", "four"]


async def test_a_reader_of_another_emulator_begins_anew(emulator: Emulator) -> None:
    """A page that was open before a restart knows numbers that mean nothing here."""
    await send(emulator, "one")
    async with watching(emulator, "?after=5000") as reader:
        (told,) = await reader.entries(1)
    assert told["name"] == "one"


async def test_who_is_far_behind_is_put_ahead(emulator: Emulator) -> None:
    """It is told what was left out, and never more than 500 entries at once."""
    for _ in range(3):
        await send(emulator, *["many"] * 900)
    async with watching(emulator, "?after=0") as reader:
        await reader.next("hello")
        _, skipped, _ = await reader.next("skipped")
        _, told, _ = await reader.next("entries")
    assert skipped == {"from": 1, "to": 2_200}
    assert [one["n"] for one in told] == list(range(2_201, 2_701))


async def test_who_is_not_far_behind_is_told_all(emulator: Emulator) -> None:
    """In pieces, of which each waits for the next turn."""
    for _ in range(2):
        await send(emulator, *["many"] * 900)
    async with watching(emulator, "?after=0") as reader:
        await reader.next("hello")
        pieces = [(await reader.next("entries", "skipped"))[1] for _ in range(4)]
    assert [len(piece) for piece in pieces] == [500, 500, 500, 300]


async def test_forgotten_entries_hold_up_nobody() -> None:
    """A reader goes on with what is kept, whatever is gone before it."""
    async with Emulator(keep=3) as emulator:
        await send(emulator, *["many"] * 900)
        async with watching(emulator, "?after=0") as reader:
            told = await reader.entries(3)
    assert [one["n"] for one in told] == [898, 899, 900]


async def test_an_entry_is_made_once_for_all(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five who watch cost little more than one, and nobody costs nothing."""
    made: list[int] = []

    def counting(seen: Any, number: int) -> dict[str, Any]:
        made.append(number)
        return entry(seen, number)

    monkeypatch.setattr(feed, "entry", counting)
    await send(emulator, "alone")
    assert made == []
    async with (
        watching(emulator) as first,
        watching(emulator) as second,
        watching(emulator) as third,
    ):
        readers = (first, second, third)
        for reader in readers:
            await reader.next("hello")
        await send(emulator, "one", "two")
        for reader in readers:
            assert len(await reader.entries(2)) == 2
    assert made == [2, 3]


async def test_faults_are_told_with_what_is_left(emulator: Emulator) -> None:
    """Armed from anywhere, fired and removed."""
    async with watching(emulator) as reader:
        await reader.next("hello")
        posted = await ask(emulator, "POST", "faults", {"preset": "broken", "count": 2})
        (armed,) = (await reader.next("faults"))[1]
        assert [armed] == posted["faults"]
        await send(emulator, "Paid")
        assert [one["left"] for one in (await reader.next("faults"))[1]] == [1]
        assert await ask(emulator, "DELETE", f"faults/{armed['id']}") == {"faults": []}
        assert (await reader.next("faults"))[1] == []
    assert "500" in armed["text"]
    assert "error" in await ask(emulator, "DELETE", f"faults/{armed['id']}")


async def test_clear_and_undo_are_told(emulator: Emulator) -> None:
    """All pages that are open forget, and remember."""
    await send(emulator, "one")
    async with watching(emulator) as reader:
        await reader.next("hello")
        token = (await ask(emulator, "POST", "clear", {}))["undo"]
        cleared = (await reader.next("cleared"))[1]
        assert cleared == {"before": 1, "undo": token}
        await send(emulator, "two")
        assert [one["n"] for one in await reader.entries(1)] == [2]
        await ask(emulator, "POST", "undo", {"undo": token})
        assert (await reader.next("restored"))[1] == {"oldest": 1, "newest": 2}
        emulator.reset()
        assert (await reader.next("cleared"))[1] == {"before": 2, "undo": None}


async def test_there_is_room_for_twenty(emulator: Emulator) -> None:
    """One more is told why it is turned away, until somebody leaves."""
    url = f"{emulator.url}/_emulator/feed"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        responses = [await session.get(url) for _ in range(feed.MOST_READERS)]
        refused = await session.get(url)
        assert refused.status == 503
        assert "20 readers" in (await refused.json())["error"]
        responses.pop().close()
        async with asyncio.timeout(5):
            while (again := await session.get(url)).status != 200:  # noqa: ASYNC110 - the server notices when it does
                await asyncio.sleep(0.01)
        again.close()
        for response in responses:
            response.close()


async def test_who_reads_no_more_is_dropped(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a bounded number of bytes, and then its connection."""
    monkeypatch.setattr(feed, "_WRITE_SECONDS", 0.05)
    bell = emulator._book._bell  # noqa: SLF001 - nobody else knows who listens
    loop = asyncio.get_running_loop()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.setblocking(False)
        await loop.sock_connect(stuck, ("127.0.0.1", emulator.port))
        head = "GET /_emulator/feed HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        await loop.sock_sendall(stuck, head.encode())
        await loop.sock_recv(stuck, 10)
        assert bell.listeners == 1
        async with asyncio.timeout(15):
            while bell.listeners:
                await send(emulator, *["x" * 200] * 500)


async def test_a_foreign_page_watches_nothing(emulator: Emulator) -> None:
    """Neither its origin nor a name that points here lets it in."""
    for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "a.example"}):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{emulator.url}/_emulator/feed", headers=headers) as response,
        ):
            assert response.status == 403


async def test_a_head_is_answered_at_once(emulator: Emulator) -> None:
    """Who asks only what there is becomes no reader."""
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"{emulator.url}/_emulator/feed") as response,
    ):
        assert response.content_type == "text/event-stream"
    assert emulator._book._bell.listeners == 0  # noqa: SLF001 - nobody else knows


async def test_an_emulator_with_readers_stops_at_once() -> None:
    """They are let go; nobody has to close a page first."""
    emulator = Emulator()
    await emulator.start()
    async with watching(emulator) as reader:
        await reader.next("hello")
        async with asyncio.timeout(0.9):
            await emulator.stop()


async def test_a_wrong_place_is_named(emulator: Emulator) -> None:
    """As in the other routes."""
    answer = await ask(emulator, "GET", "feed?after=x")
    assert answer["error"] == "after is 'x': give a whole number, 0 or more"


async def test_nothing_in_a_name_leaves_its_line(emulator: Emulator) -> None:
    """No text of an event makes a message of its own, or acts on a terminal."""
    name = 'a\n\nevent: cleared\ndata: {}\r\x1b[2J\u2028\u202e"'
    async with watching(emulator) as reader:
        await reader.next("hello")
        await send(emulator, name)
        _, (told,), _ = await reader.next()
    assert told["name"] == name
