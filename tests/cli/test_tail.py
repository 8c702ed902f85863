"""The command `tail`: what is shown of a running emulator, and how it ends."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from amplitude_async import Amplitude
from amplitude_async.cli.tail.entries import Wanted, as_line, as_text
from amplitude_async.cli.tail.stream import FeedError, Message, messages
from amplitude_async.emulator import Emulator
from amplitude_async.emulator.filtering import Filter
from tests.cli.conftest import command_process, next_line

__all__: list[str] = []

TIMEOUT = 60.0


async def rest_of(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Return what the process prints up to its end."""
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT)
    return out.decode(), err.decode()


async def sent(emulator: Emulator, name: str, **fields: Any) -> None:
    """Send an event, and let the emulator judge it."""
    async with Amplitude("key", server_url=emulator.httpapi_url) as client:
        await (await client.track(name, **fields))


async def test_events_are_shown_as_they_come(emulator: Emulator) -> None:
    """First the last ones, then each new one with its verdict, until Ctrl-C."""
    await sent(
        emulator,
        "Paid",
        user_id="user-1",
        event_properties={"total": 9.5, "order": "o-1", "b": 1, "c": 2},
    )
    async with command_process("tail", emulator.url) as process:
        first = await next_line(process)
        await sent(emulator, "Later", device_id="device-1")
        second = await next_line(process)
        process.send_signal(signal.SIGINT)
        out, err = await rest_of(process)

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  Paid  user-1  total=9.5  order=\"o-1\"  .*stored\n", first
    )
    assert re.search(r"  Later  device-1 .*stored\n", second)
    assert (process.returncode, out, err) == (0, "", "")


async def test_only_what_is_wanted_is_shown(emulator: Emulator) -> None:
    """--name, --user, --rejected and --filter; --json gives the whole entry."""
    for name, user in (("Paid", "user-1"), ("Seen", "user-1"), ("Paid", "user-2")):
        await sent(emulator, name, user_id=user, event_properties={"n": 1})
    words = ("--name", "P*", "--user", "user-2", "--filter", "stored", "--json")
    async with command_process("tail", str(emulator.port), *words) as process:
        found = json.loads(await next_line(process))

    assert (found["name"], found["user"], found["state"]) == (
        "Paid",
        "user-2",
        "stored",
    )
    assert found["n"] == 3


async def test_a_reader_that_goes_away_ends_it(emulator: Emulator) -> None:
    """As in `tail | head`: no traceback, even where nothing comes any more."""
    await sent(emulator, "Paid", user_id="user-1")
    script = f"{sys.executable} -m amplitude_async tail {emulator.url} | head -1"
    process = await asyncio.create_subprocess_shell(
        script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await rest_of(process)
    finally:
        if process.returncode is None:
            process.kill()

    assert "Paid" in out
    assert err == ""


async def test_an_emulator_that_ends_ends_it() -> None:
    """It says so, and that is no failure."""
    async with Emulator() as emulator:
        await sent(emulator, "Paid", user_id="user-1")
        async with command_process("tail", emulator.url) as process:
            assert "Paid" in await next_line(process)
            await emulator.stop()
            _, err = await rest_of(process)

    assert process.returncode == 0
    assert err == f"The emulator at {emulator.url} has gone.\n"


async def test_without_an_emulator_it_says_how_to_start_one() -> None:
    """Code 3, one line."""
    async with command_process("tail", "127.0.0.1:1") as process:
        _, err = await rest_of(process)

    assert process.returncode == 3
    assert "no emulator answers at http://127.0.0.1:1" in err
    assert "amplitude-async emulator" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("ftp://x",), ("--filter", "x" * 1_000), ("http://",)]
)
async def test_a_wrong_command_is_refused(words: tuple[str, ...]) -> None:
    """Code 2, and what to write instead."""
    async with command_process("tail", *words) as process:
        _, err = await rest_of(process)

    assert process.returncode == 2
    assert err.startswith("Error: ")


@pytest.mark.parametrize(
    "answer", ["<html>", '{"entries": [1]}', "[]", '{"entries": [{"n": "x"}]}']
)
async def test_what_is_no_emulator_is_told(answer: str) -> None:
    """Another server on the port is no traceback."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    application = web.Application()
    application.router.add_get("/_emulator/entries", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with command_process("tail", str(runner.addresses[0][1])) as process:
            _, err = await rest_of(process)
    finally:
        await runner.cleanup()

    assert process.returncode == 3
    assert "no emulator answers" in err


# Messages and entries -----------------------------------------------------------


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Give bytes as they arrive."""
    for part in parts:
        yield part


async def test_messages_are_read_however_they_are_cut() -> None:
    """Comments, ids and unknown names are no matter."""
    text = b": hi\n\nid: 3\nevent: entries\ndata: [1,\ndata: 2]\n\ndata: 7\n\nid: 4\n\n"

    for size in range(1, len(text)):
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        found = [message async for message in messages(chunks(*parts))]
        assert found == [Message("entries", [1, 2]), Message("message", 7)]


async def test_a_message_that_is_no_json_is_told() -> None:
    """What answers is no emulator then."""
    with pytest.raises(FeedError, match="no JSON"):
        _ = [one async for one in messages(chunks(b"data: {\n\n"))]


async def test_a_message_without_an_end_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No server can fill the memory."""
    monkeypatch.setattr("amplitude_async.cli.tail.stream._LARGEST", 10)
    with pytest.raises(FeedError, match="more than 10 bytes"):
        _ = [one async for one in messages(chunks(b"data: {", b"x" * 20))]


HOSTILE = {
    "n": 1,
    "at": "never",
    "name": "Odd\u202e\x1b[31m[red]",
    "user": None,
    "device": "\x07",
    "preview": [["a\n", '"\x1b]0;x\x07"'], "odd", ["one"]],
    "state": "rejected",
    "reason": "because\r\nof \u2066it",
    "local": True,
}


def test_nothing_in_an_entry_steers_the_terminal() -> None:
    """Controls and direction marks are spelt out, brackets are no markup."""
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(as_text(HOSTILE))
    shown = captured.get()

    assert shown.isascii()
    assert shown.rstrip("\n").isprintable()
    assert "Odd\\u202e\\x1b[31m[red]" in shown
    assert "rejected locally: because\\r\\nof \\u2066it" in shown
    assert shown.startswith("--:--:--")
    assert as_line(HOSTILE).isascii()
    assert as_line(HOSTILE).isprintable()


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        (Wanted(), True),
        (Wanted(rejected=True), True),
        (Wanted(name="Odd*"), True),
        (Wanted(name="Paid"), False),
        (Wanted(user="\x07"), True),
        (Wanted(user="user-1"), False),
        (Wanted(words=Filter("rejected")), True),
        (Wanted(words=Filter("stored")), False),
    ],
)
def test_each_filter_must_hold(wanted: Wanted, held: bool) -> None:
    """A filter that is not given asks nothing."""
    assert wanted.holds(HOSTILE) is held
    assert not Wanted(rejected=True).holds({"state": "stored"})
