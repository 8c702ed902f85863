"""Where a server's usual settings lose events, and the settings that do not."""

import math
import re
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from amplitude_async.emulator import Emulator, Fault
from tests.servers.conftest import (
    BOUNDED_WORKER,
    STILL,
    UVICORN_WORKER,
    Command,
    Load,
    Serve,
    arrived,
    busy,
    row,
    until,
)

__all__: list[str] = []

pytestmark = pytest.mark.servers

UVICORN = row("uvicorn", "uvicorn")
AIOHTTP = row("aiohttp", "aiohttp")
EVERY = [
    UVICORN,
    row("gunicorn-uvicorn", "gunicorn", "-k", UVICORN_WORKER),
    row("gunicorn-asgi", "gunicorn", "-k", "asgi"),
    row("hypercorn", "hypercorn"),
    row("granian", "granian"),
    AIOHTTP,
]
# As the page recommends, but for the seconds.
BOUNDED = [
    row("uvicorn", "uvicorn", "--timeout-graceful-shutdown", "1"),
    row("gunicorn-uvicorn", "gunicorn", "-k", BOUNDED_WORKER),
    row("gunicorn-asgi", "gunicorn", "-k", "asgi", "-c", "python:gunicorn_asgi"),
    row("hypercorn", "hypercorn", "--graceful-timeout", "1"),
    AIOHTTP,
]
SHORT = ("--graceful-timeout", "2")
GUNICORN_UVICORN = row("gunicorn-uvicorn", "gunicorn", "-k", UVICORN_WORKER, *SHORT)
GUNICORN_ASGI = row("gunicorn-asgi", "gunicorn", "-k", "asgi", *SHORT)
GRANIAN = row("granian", "granian", "--workers-kill-timeout", "2")
HYPERCORN = row("hypercorn", "hypercorn")
HYPERCORN_2 = row("hypercorn-2", "hypercorn", workers=2)


async def restarted(
    command: Command, load: Load, emulator: Emulator, serve: Serve, **more: str
) -> None:
    """Start a server again, until all has arrived that was answered."""
    async with serve(command, **more):
        await until(lambda: load.answered.keys() <= arrived(emulator))


async def stopped_while_hanging(
    command: Command, emulator: Emulator, serve: Serve, **more: str
) -> tuple[Load, str]:
    """Stop a server while no request to Amplitude is answered; returns its log too."""
    emulator.faults.add(Fault(503, delay=math.inf, count=None))
    async with (
        serve(command, AMPLITUDE_SHUTDOWN_TIMEOUT="0.5", **more) as server,
        Load(server.url).running() as load,
    ):
        await load.until(lambda: len(load.answered) > 50)
        server.send(SIGTERM)
        await server.ended()
    return load, server.log


@pytest.mark.parametrize("command", BOUNDED)
async def test_a_bound_for_requests_saves_events(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """A request that does not end costs its bound, and no event."""
    async with busy(serve, command, emulator, shutdown_timeout=1) as (server, load):
        await server.busy_for_ever()
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()


@pytest.mark.parametrize("command", [UVICORN])
async def test_uvicorn_waits_for_requests_without_end(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """Without a bound it waits until it is killed, with all events in its memory."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        await server.busy_for_ever()
        server.send(SIGTERM)
        await until(lambda: "Waiting for connections to close" in server.log)
        await server.kill()

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", [GUNICORN_UVICORN, GUNICORN_ASGI, GRANIAN])
@pytest.mark.parametrize("spooled", [False, True])
async def test_a_worker_with_an_open_request_is_killed(
    command: Command, spooled: bool, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """It waits for the request until its master kills it, before it delivers."""
    more = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    async with busy(serve, command, emulator, **STILL, **more) as (server, load):
        await server.busy_for_ever()
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)
    if spooled:
        await restarted(command, load, emulator, serve, **more)


@pytest.mark.parametrize("command", [GUNICORN_UVICORN])
@pytest.mark.parametrize("spooled", [False, True])
async def test_uvicorns_worker_ignores_the_masters_sigint(
    command: Command, spooled: bool, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """Gunicorn passes SIGINT on as SIGQUIT, and kills the worker that ignores it."""
    more = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    async with busy(serve, command, emulator, **STILL, **more) as (server, load):
        server.send(SIGINT)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)
    if spooled:
        await restarted(command, load, emulator, serve, **more)


@pytest.mark.parametrize("command", [GUNICORN_ASGI])
async def test_gunicorns_asgi_worker_has_a_second_after_sigint(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """Then it ends, whatever the lifespan still delivers, and the log says so."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        emulator.faults.add(Fault(503, delay=3.0, count=None))
        server.send(SIGINT)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)
    assert "its event loop ended with" in server.log


@pytest.mark.parametrize("command", [HYPERCORN_2])
async def test_hypercorns_first_worker_to_end_ends_the_others(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """Of two workers the slower is terminated while it delivers."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        slow, fast = load.pids
        emulator.faults.add(
            Fault(
                503,
                delay=3.0,
                count=None,
                when=lambda request: any(
                    event["event_properties"] == {"pid": slow}
                    for event in request.events
                ),
            )
        )
        server.send(SIGTERM)
        await server.ended()

    assert load.by(slow) - arrived(emulator)
    assert load.by(fast) - arrived(emulator) == set()
    # It had no time to say what it lost, either.
    assert "shutdown" not in server.log


@pytest.mark.parametrize("command", [HYPERCORN])
async def test_hypercorns_workers_die_of_a_signal_to_all(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """SIGTERM to all processes, as systemd sends it by default, is a kill."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        server.send_all(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", [UVICORN, AIOHTTP])
async def test_sighup_kills_a_server_that_knows_no_reload(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """It ends at once, with what waits: so does a terminal that is closed."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        server.send(SIGHUP)
        assert await server.ended() == -SIGHUP

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", EVERY)
async def test_a_stop_while_amplitude_hangs_is_bounded(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """The server ends all the same, and the log says how many events were lost."""
    load, log = await stopped_while_hanging(command, emulator, serve)

    said = re.search(r"\[shutdown lost x(\d+)\]", log)
    assert said
    assert int(said[1]) >= len(load.answered)
    assert arrived(emulator) == set()


@pytest.mark.parametrize("command", [UVICORN, GUNICORN_ASGI])
async def test_a_stop_while_amplitude_hangs_keeps_a_spool(
    command: Command, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """What was not taken in time is stored, and the next start delivers it."""
    more = {"SPOOL": str(tmp_path / "spool")}
    load, log = await stopped_while_hanging(command, emulator, serve, **more)

    assert "shutdown lost" not in log
    assert arrived(emulator) == set()
    emulator.faults.clear()
    await restarted(command, load, emulator, serve, **more)


@pytest.mark.parametrize("command", EVERY)
async def test_a_request_under_way_is_waited_for(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """What it tracks after the signal arrives."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.until(lambda: load.answered)
        answer = await server.late()
        await load.stop()
        server.send(SIGTERM)
        text = await answer()
        await server.ended()

    assert any(name in text for name in arrived(emulator))
