"""What servers lose when they are told to stop or to reload: nothing."""

import signal
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from amplitude_async.emulator import Emulator
from tests.servers.conftest import (
    UVICORN_WORKER,
    Command,
    Load,
    Serve,
    arrived,
    busy,
    row,
)

__all__: list[str] = []

pytestmark = pytest.mark.servers

UVICORN_2 = row("uvicorn-2", "uvicorn", workers=2)
# Where a new worker takes longer to start than the usual 5 s, a reload is given up.
UVICORN_PATIENT = row(
    "uvicorn-2", "uvicorn", "--timeout-worker-healthcheck", "60", workers=2
)
GUNICORN_UVICORN = row("gunicorn-uvicorn", "gunicorn", "-k", UVICORN_WORKER, workers=2)
GUNICORN_ASGI = row("gunicorn-asgi", "gunicorn", "-k", "asgi", workers=2)
HYPERCORN = row("hypercorn", "hypercorn")
GRANIAN = row("granian", "granian")
GRANIAN_2 = row("granian-2", "granian", workers=2)

UVICORN = row("uvicorn", "uvicorn")
AIOHTTP = row("aiohttp", "aiohttp")
TERMINATED = [
    UVICORN,
    UVICORN_2,
    GUNICORN_UVICORN,
    GUNICORN_ASGI,
    HYPERCORN,
    row("hypercorn-0", "hypercorn", "--workers", "0"),
    GRANIAN,
    GRANIAN_2,
    AIOHTTP,
]
# uvicorn's worker in gunicorn does not know of SIGINT: see the pitfalls.
INTERRUPTED = [UVICORN, UVICORN_2, GUNICORN_ASGI, HYPERCORN, GRANIAN_2, AIOHTTP]
PRELOADED = [
    row(f"gunicorn-{name}", "gunicorn", "-k", kind, "--preload", workers=2)
    for name, kind in (("uvicorn", UVICORN_WORKER), ("asgi", "asgi"))
]
SPENT = [
    row(f"gunicorn-{name}", "gunicorn", "-k", kind, "--max-requests", "40")
    for name, kind in (("uvicorn", UVICORN_WORKER), ("asgi", "asgi"))
]


async def stopped_under_load(
    command: Command, number: signal.Signals, emulator: Emulator, serve: Serve
) -> Load:
    """Stop a server that is busy, with events waiting in all of its workers."""
    async with busy(serve, command, emulator) as (server, load):
        server.send(number)
        await server.ended()
    return load


@pytest.mark.parametrize("command", TERMINATED)
async def test_sigterm_loses_nothing(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """What was answered before the stop and during it arrives, each event once."""
    load = await stopped_under_load(command, SIGTERM, emulator, serve)

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0


@pytest.mark.parametrize("command", INTERRUPTED)
async def test_sigint_loses_nothing(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """It is the same to most servers."""
    load = await stopped_under_load(command, SIGINT, emulator, serve)

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0


@pytest.mark.parametrize("command", PRELOADED)
async def test_a_client_made_before_the_fork_loses_nothing(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """A client of the master's module, entered in each worker, is each worker's own."""
    async with busy(serve, command, emulator, CLIENT_AT_IMPORT="1") as (server, load):
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0


@pytest.mark.parametrize("command", SPENT)
async def test_workers_with_a_limit_lose_nothing(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """A worker that has served its requests ends in good order, under load."""
    async with serve(command) as server, Load(server.url).running() as load:
        await load.until(lambda: len(load.pids) > 2)
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0


@pytest.mark.parametrize(
    "command", [UVICORN_PATIENT, GUNICORN_UVICORN, GUNICORN_ASGI, HYPERCORN, GRANIAN]
)
async def test_a_reload_loses_nothing(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """SIGHUP puts other workers in the place of the old ones, which deliver first."""
    async with busy(serve, command, emulator) as (server, load):
        old = load.pids
        server.send(SIGHUP)
        await load.until(lambda: len(load.pids - old) >= command.workers)
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0


@pytest.mark.parametrize(
    "command", [UVICORN_2, GUNICORN_UVICORN, GUNICORN_ASGI, GRANIAN_2]
)
@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
async def test_a_signal_to_all_processes_loses_nothing(
    command: Command, number: signal.Signals, emulator: Emulator, serve: Serve
) -> None:
    """Ctrl-C in a terminal, and systemd by default, signal workers as well."""
    async with busy(serve, command, emulator) as (server, load):
        server.send_all(number)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()
    assert emulator.stats.duplicates == 0
