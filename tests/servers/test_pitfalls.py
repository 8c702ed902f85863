"""Where a server's usual settings lose events, and the settings that do not."""

import math
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from amplitude_async.emulator import Emulator, Fault
from tests.servers.conftest import (
    BOUNDED_WORKER,
    UVICORN_WORKER,
    Command,
    Load,
    Serve,
    arrived,
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
    row("granian", "granian"),
    AIOHTTP,
]
KILLED_BY_MASTER = [
    row(f"gunicorn-{name}", "gunicorn", "-k", kind, "--graceful-timeout", "2")
    for name, kind in (("uvicorn", UVICORN_WORKER), ("asgi", "asgi"))
]
HYPERCORN_2 = row("hypercorn-2", "hypercorn", workers=2)


@pytest.mark.parametrize("command", BOUNDED)
async def test_a_bound_for_requests_saves_events(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """A request that does not end costs its bound, and no event."""
    async with (
        serve(command, shutdown_timeout=1) as server,
        Load(server.url).running() as load,
    ):
        await load.waiting(emulator, command.workers)
        await server.busy_for_ever()
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()


@pytest.mark.parametrize("command", [UVICORN])
async def test_uvicorn_waits_for_requests_without_end(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """Without a bound it waits until it is killed, with all events in its memory."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        await server.busy_for_ever()
        server.send(SIGTERM)
        await until(lambda: "Waiting for connections to close" in server.log)
        await server.kill()

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", KILLED_BY_MASTER)
async def test_gunicorn_kills_a_worker_with_an_open_request(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """The worker waits as long as the master does, and dies before it delivers."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        await server.busy_for_ever()
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", KILLED_BY_MASTER[:1])
@pytest.mark.parametrize("spooled", [False, True])
async def test_uvicorns_worker_ignores_the_masters_sigint(
    command: Command, spooled: bool, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """gunicorn passes SIGINT on as SIGQUIT, and kills the worker that ignores it."""
    more = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    async with serve(command, **more) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        server.send(SIGINT)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)
    if spooled:
        async with serve(command, **more):
            await until(lambda: load.answered.keys() <= arrived(emulator))


@pytest.mark.parametrize("command", [HYPERCORN_2])
async def test_hypercorns_first_worker_to_end_ends_the_others(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """Of two workers the slower is terminated while it delivers."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
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


@pytest.mark.parametrize("command", [row("hypercorn", "hypercorn")])
async def test_hypercorns_workers_die_of_a_signal_to_all(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """SIGTERM to all processes, as systemd sends it by default, is a kill."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        server.send_all(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", [UVICORN, AIOHTTP])
async def test_sighup_kills_a_server_that_knows_no_reload(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """It ends at once, with what waits: so does a terminal that is closed."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.waiting(emulator, command.workers)
        server.send(SIGHUP)
        assert await server.ended() == -SIGHUP

    assert load.answered.keys() - arrived(emulator)


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("spooled", [False, True])
async def test_a_stop_while_amplitude_hangs(
    command: Command, spooled: bool, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """The server ends all the same, says what it lost, and with a spool loses none."""
    more = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    emulator.faults.add(Fault(503, delay=math.inf, count=None))
    async with (
        serve(command, AMPLITUDE_SHUTDOWN_TIMEOUT="0.5", **more) as server,
        Load(server.url).running() as load,
    ):
        await load.waiting(emulator, command.workers)
        server.send(SIGTERM)
        await server.ended()

    assert arrived(emulator) == set()
    assert "shutdown" in server.log
    print("@@", [l for l in server.log.splitlines() if "shutdown" in l.lower()])
    if spooled:
        emulator.faults.clear()
        async with serve(command, **more):
            await until(lambda: load.answered.keys() <= arrived(emulator))
