"""What the emulator command prints about requests."""

import io
from collections.abc import Sequence
from dataclasses import replace

import aiohttp
import pytest
from rich.console import Console
from typer.testing import CliRunner

from amplitude_async.cli.app import app
from amplitude_async.cli.emulator import RequestWatch, describe_request, describe_stats
from amplitude_async.cli.terminal import progress_bar
from amplitude_async.emulator import Emulator, EmulatorStats, ReceivedRequest

__all__: list[str] = []


async def visit(emulator: Emulator, *paths: str) -> None:
    """Ask for paths that the emulator does not know."""
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.get(emulator.url + path):
                pass


def paths(requests: Sequence[ReceivedRequest]) -> list[str]:
    """Return the paths of some requests."""
    return [request.path for request in requests]


async def test_each_request_is_news_once(emulator: Emulator) -> None:
    """No request is shown twice or left out, over a reset too."""
    watch = RequestWatch(emulator)
    assert watch.news() == []
    await visit(emulator, "/a", "/b")
    assert paths(watch.news()) == ["/a", "/b"]
    assert watch.news() == []
    await visit(emulator, "/c")
    assert paths(watch.news()) == ["/c"]
    emulator.reset()
    assert watch.news() == []
    await visit(emulator, "/d", "/e")
    assert paths(watch.news()) == ["/d", "/e"]


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (
            ReceivedRequest("/batch", 200, ({}, {}), body_bytes=1234),
            " 200 /batch 2 events, 1,234 bytes",
        ),
        (
            ReceivedRequest("/batch", 0, fault="hang up before"),
            " --- /batch 0 events, 0 bytes fault: hang up before",
        ),
        (
            ReceivedRequest("/batch", 413, note="3000 events [red]"),
            " 413 /batch 0 events, 0 bytes 3000 events [red]",
        ),
        (
            ReceivedRequest("/v2/events", 202, batches=({"events": [{}, {}]},)),
            " 202 /v2/events 1 batch with 2 events, 0 bytes",
        ),
        (
            ReceivedRequest("/v2/bulkevents", 400, batches=({"events": 7}, {})),
            " 400 /v2/bulkevents 2 batches with 0 events, 0 bytes",
        ),
        (
            ReceivedRequest("/\x1b[31m" + "x" * 100, 404),
            " 404 /\\x1b[31m" + "x" * 71 + "... 0 events, 0 bytes",
        ),
    ],
)
def test_a_request_is_one_safe_line(request_: ReceivedRequest, shown: str) -> None:
    """The line tells status and size, and nothing in it steers the terminal."""
    assert str(describe_request(request_)).endswith(shown)


def test_the_summary_counts_answers() -> None:
    """Statuses are listed, dropped connections by that name."""
    quiet = EmulatorStats(0, {}, 0, 0, 0, 0, 0, 0)
    busy = EmulatorStats(3, {200: 2, 0: 1}, 1500, 1000, 500, 9000, 1, 1)

    both = replace(
        busy,
        batches_received=3,
        batches_ingested=2,
        batch_duplicates=1,
        events_forgotten=7,
        batches_forgotten=1,
    )

    assert describe_stats(quiet).startswith("Stopped after 0 requests (none): 0 events")
    assert describe_stats(busy) == (
        "Stopped after 3 requests (1 x dropped, 2 x 200): 1,000 events stored, "
        "500 duplicates, 9,000 bytes."
    )
    assert describe_stats(both).endswith(
        "1,000 events stored, 2 batches stored, 501 duplicates, 8 no longer "
        "kept, 9,000 bytes."
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

    async def serve(server: Emulator, _: Console) -> None:
        served.append(server)
        async with server, aiohttp.ClientSession() as session:
            for name, status in (("one.test", 200), ("two.test", 200), ("x.test", 403)):
                url = f"{server.url}/_emulator/stats"
                async with session.get(url, headers={"Host": name}) as response:
                    assert response.status == status

    monkeypatch.setattr("amplitude_async.cli.app.serve", serve)
    words = ["emulator", "--port", "0"]
    for name in ("one.test", "two.test"):
        words += ["--allowed-host", name]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert len(served) == 1
