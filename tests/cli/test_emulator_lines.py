"""What the emulator command prints: events with their verdicts, requests if asked."""

import asyncio
import base64
import io
import json
import re
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from rich.console import Console
from typer.testing import CliRunner

from amplitude_async.cli.app import app
from amplitude_async.cli.news import (
    Allowance,
    Ticker,
    describe_request,
    describe_stats,
)
from amplitude_async.cli.terminal import progress_bar
from amplitude_async.emulator import Emulator, EmulatorStats, Fault, ReceivedRequest
from amplitude_async.emulator.news import NOTHING_SEEN

__all__: list[str] = []


async def post(
    emulator: Emulator, *events: dict[str, Any], path: str = "/2/httpapi"
) -> None:
    """Send events as any client might."""
    body = {"api_key": "key", "events": list(events)}
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.post(emulator.url + path, json=body) as response,
    ):
        await response.read()


def event(name: str = "Paid", user: str = "user-1", **fields: Any) -> dict[str, Any]:
    """Return an event."""
    return {"event_type": name, "user_id": user, **fields}


class Screen:
    """A terminal, or a file, that an emulator's news are printed to."""

    def __init__(
        self, emulator: Emulator, width: int | None = None, **options: Any
    ) -> None:
        self.now = 0.0
        self._file = io.StringIO()
        console = Console(
            file=self._file,
            width=width,
            force_terminal=width is not None,
            color_system=None,
        )
        self.ticker = Ticker(emulator, console, now=lambda: self.now, **options)

    def news(self) -> list[str]:
        """Print what is new, and return its lines without the time."""
        self._file.seek(0)
        self._file.truncate()
        self.ticker.print_news()
        lines = self._file.getvalue().splitlines()
        return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in lines]


async def test_each_event_is_a_line_with_its_verdict(emulator: Emulator) -> None:
    """Type, user, up to three properties, and what became of it, in words."""
    screen = Screen(emulator)
    properties = {"total": 9.5, "order": "o-1", "new": True, "more": 1}
    await post(emulator, event(insert_id="1", event_properties=properties))
    await post(emulator, event(insert_id="1"))
    await post(emulator, event(user="ab"))

    assert screen.news() == [
        'Paid  user-1  total=9.5  order="o-1"  new=true  stored',
        "Paid  user-1  duplicate: a copy of one that was stored before",
        (
            "Paid  ab  rejected: user_id has 2 characters and needs 5: "
            "lower options.min_id_length"
        ),
    ]


async def test_each_event_is_news_once(emulator: Emulator) -> None:
    """None is shown twice or left out, over a reset too."""
    screen = Screen(emulator)
    assert screen.news() == []
    await post(emulator, event("A"), event("B"))
    assert screen.news() == ["A  user-1  stored", "B  user-1  stored"]
    assert screen.news() == []
    await post(emulator, event("C"))
    assert screen.news() == ["C  user-1  stored"]
    emulator.reset()
    assert screen.news() == []
    await post(emulator, event("D"))
    assert screen.news() == ["D  user-1  stored"]


async def test_a_batch_is_a_line_for_each_of_its_events(emulator: Emulator) -> None:
    """MParticle's events are shown like the others."""
    screen = Screen(emulator)
    batch = {
        "environment": "development",
        "user_identities": {"customer_id": "user-1"},
        "events": [
            {
                "event_type": "custom_event",
                "data": {"event_name": name, "custom_event_type": "other"},
            }
            for name in ("Seen", "Liked")
        ],
    }
    pair = base64.b64encode(b"key:secret").decode()
    headers = {"Authorization": f"Basic {pair}"}
    async with (
        aiohttp.ClientSession(trust_env=False, headers=headers) as session,
        session.post(emulator.mparticle_url + "/events", json=batch) as response,
    ):
        assert response.status == 202

    lines = screen.news()
    assert [line.split()[:2] for line in lines] == [
        ["Seen", "user-1"],
        ["Liked", "user-1"],
    ]


async def test_requests_are_shown_when_asked_for(emulator: Emulator) -> None:
    """Each stands before the events that came in it, without its bytes or keys."""
    screen = Screen(emulator, requests=True)
    await post(emulator, event("A"))
    await post(emulator, event("B"))

    lines = screen.news()
    assert [line.partition("  ")[0] for line in lines] == [
        "HTTP 200",
        "A",
        "HTTP 200",
        "B",
    ]
    assert re.fullmatch(r"HTTP 200  /2/httpapi  1 event, \d+ bytes", lines[0])


async def test_a_request_without_events_that_failed_is_always_shown(
    emulator: Emulator,
) -> None:
    """Otherwise nobody would learn of a wrong address: no event tells of it."""
    screen = Screen(emulator)
    emulator.faults.add(Fault(hang_up="before", name="gone"))
    with pytest.raises(aiohttp.ClientError):
        await post(emulator, event())
    await post(emulator, event(), path="/2/http")
    await post(emulator)

    lines = screen.news()
    assert len(lines) == 3
    assert lines[0] == "HTTP ---  /2/httpapi  0 events, 0 bytes  fault: gone"
    assert lines[1].startswith("HTTP 404  /2/http  0 events")
    assert lines[2].startswith("HTTP 400  /2/httpapi  0 events")


async def test_nothing_in_an_event_steers_the_terminal(emulator: Emulator) -> None:
    """Controls and direction marks are spelt out, markup and emoji left alone."""
    screen = Screen(emulator)
    evil = "\x1b[31m\u202e[red]:smile:\n"
    await post(emulator, event(evil, event_properties={evil: evil}))

    [line] = screen.news()
    assert line.isprintable()
    assert line.startswith(r"\x1b[31m\u202e[red]:smile:\n  user-1  ")


@pytest.mark.parametrize("width", [60, 100])
async def test_a_line_fits_the_terminal(emulator: Emulator, width: int) -> None:
    """Properties give way; what became of the event is always there."""
    screen = Screen(emulator, width)
    properties = dict.fromkeys(("first", "second", "third"), "x" * 8)
    await post(emulator, event("Order Completed", event_properties=properties))

    [line] = screen.news()
    assert len("12:00:00  ") + len(line) <= width
    assert line.startswith("Order Completed  user-1  first=")
    assert line.endswith("  stored")


async def test_json_has_all_there_is(emulator: Emulator) -> None:
    """One object a line: events as `tail --json` has them, requests, what was left."""
    screen = Screen(emulator, requests=True, as_json=True)
    await post(emulator, event("\u202e:smile:", insert_id="1"))

    request, entry = map(json.loads, screen.news())
    assert (request["number"], request["status"], request["events"]) == (1, 200, 1)
    assert (entry["name"], entry["state"]) == ("\u202e:smile:", "stored")
    assert entry["request"] == request["number"]


async def test_of_a_flood_it_says_how_many_are_not_shown(emulator: Emulator) -> None:
    """100,000 events cost a bounded number of lines, and the newest are shown."""
    screen = Screen(emulator)
    for number in range(50):
        many = [event(f"E{number}-{at}", "user-1") for at in range(2_000)]
        await post(emulator, *many, path="/batch")
    first = screen.news()
    screen.now += 1.0
    await post(emulator, *([event("Last")] * 800))
    then = screen.news()
    screen.now += 60.0
    await post(emulator, event("Calm"))

    assert first[0] == "... 99,000 events came too fast to show: see the page"
    assert (len(first), first[-1]) == (1_001, "E49-1999  user-1  stored")
    assert then[0] == "... 300 events came too fast to show: see the page"
    assert len(then) == 501
    assert screen.news() == ["Calm  user-1  stored"]


def test_the_allowance_fills_up_with_time() -> None:
    """A burst, so many a second after it, and never more than a burst."""
    allowance = Allowance(burst=10, per_second=2.0, now=100.0)
    allowance.spend(10)

    assert allowance.left(100.0) == 0
    assert allowance.left(101.0) == 2
    assert allowance.left(100.0) == 2  # a clock that goes back takes nothing away
    assert allowance.left(500.0) == 10


async def test_news_are_bounded_and_say_what_they_leave_out(
    emulator: Emulator,
) -> None:
    """The newest are there, and the mark goes on behind all of them."""
    await post(emulator, event("A"), event("B"), event("C"))
    await post(emulator, event("D"))

    news = emulator.news(most=2)
    assert [entry["name"] for entry in news.entries] == ["C", "D"]
    assert (news.events_left_out, news.requests_left_out) == (2, 0)
    assert news.mark == (4, 2)
    assert emulator.news(news.mark).entries == []
    none = emulator.news(NOTHING_SEEN, 0)
    assert (none.entries, none.requests) == ([], [])
    assert (none.events_left_out, none.requests_left_out) == (4, 2)


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (
            ReceivedRequest("/batch", 200, ({}, {}), body_bytes=1234),
            "  HTTP 200  /batch  2 events, 1,234 bytes",
        ),
        (
            ReceivedRequest("/batch", 0, fault="hang up before"),
            "  HTTP ---  /batch  0 events, 0 bytes  fault: hang up before",
        ),
        (
            ReceivedRequest("/batch", 413, note="3000 events [red]"),
            "  HTTP 413  /batch  0 events, 0 bytes  3000 events [red]",
        ),
        (
            ReceivedRequest("/v2/events", 202, batches=({"events": [{}, {}]},)),
            "  HTTP 202  /v2/events  1 batch with 2 events, 0 bytes",
        ),
        (
            ReceivedRequest("/v2/bulkevents", 400, batches=({"events": 7}, {})),
            "  HTTP 400  /v2/bulkevents  2 batches with 0 events, 0 bytes",
        ),
        (
            ReceivedRequest("/\x1b[31m" + "x" * 100, 404),
            "  HTTP 404  /\\x1b[31m" + "x" * 71 + "...  0 events, 0 bytes",
        ),
    ],
)
def test_a_request_is_one_safe_line(request_: ReceivedRequest, shown: str) -> None:
    """The line tells status and size, and nothing in it steers the terminal."""
    assert str(describe_request(request_)).endswith(shown)


def test_the_summary_counts_events_and_answers() -> None:
    """What was stored, what not, and the statuses; dropped connections by that name."""
    quiet = EmulatorStats(0, {}, 0, 0, 0, 0, 0, 0)
    busy = EmulatorStats(3, {200: 2, 0: 1}, 1500, 1000, 500, 9000, 1, 1)
    both = replace(
        busy,
        events_rejected=4,
        batches_received=3,
        batches_ingested=2,
        batch_duplicates=1,
        events_forgotten=7,
        batches_forgotten=1,
        local_rejected=5,
        local_dropped=1,
    )

    assert describe_stats(quiet) == (
        "0 events stored, 0 duplicates, 0 rejected; 0 requests."
    )
    assert describe_stats(busy) == (
        "1,000 events stored, 500 duplicates, 0 rejected; 3 requests (1 x dropped, "
        "2 x 200)."
    )
    assert describe_stats(both) == (
        "1,000 events stored, 2 batches stored, 501 duplicates, 4 rejected, 6 rejected "
        "or dropped locally, 8 no longer kept; 3 requests (1 x dropped, 2 x 200)."
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals_only(terminal: bool) -> None:
    """A log file or a pipe gets no bar."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=80)

    with progress_bar(console, 2) as advance:
        advance()
        advance()

    assert ("2/2" in screen.getvalue()) is terminal


def test_the_command_passes_names_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `--allowed-host` may be used to look at the emulator."""
    served: list[Emulator] = []
    options: dict[str, Any] = {}

    def serve(server: Emulator, _: Console, **found: Any) -> None:
        served.append(server)
        options.update(found)

    monkeypatch.setattr("amplitude_async.cli.app.serve", serve)
    words = ["emulator", "--port", "0", "--requests"]
    for name in ("one.test", "two.test"):
        words += ["--allowed-host", name]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert options == {"requests": True, "as_json": False}
    [server] = served

    async def look() -> None:
        async with server, aiohttp.ClientSession() as session:
            for name, status in (("one.test", 200), ("two.test", 200), ("x.test", 403)):
                url = f"{server.url}/_emulator/stats"
                async with session.get(url, headers={"Host": name}) as response:
                    assert response.status == status

    asyncio.run(look())
