"""What a kill costs: what waited in the worker, and with a spool nothing."""

import os
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from amplitude_async.emulator import Emulator
from tests.servers.conftest import (
    STILL,
    UVICORN_WORKER,
    Command,
    Serve,
    arrived,
    busy,
    row,
    until,
)

__all__: list[str] = []

pytestmark = pytest.mark.servers

REPLACED = [
    row("uvicorn-2", "uvicorn", workers=2),
    row("gunicorn-uvicorn", "gunicorn", "-k", UVICORN_WORKER, workers=2),
    row("gunicorn-asgi", "gunicorn", "-k", "asgi", workers=2),
    row("granian-2", "granian", "--respawn-failed-workers", workers=2),
]
ALONE = [
    row("uvicorn", "uvicorn"),
    row("hypercorn", "hypercorn"),
    row("granian", "granian"),
    row("aiohttp", "aiohttp"),
]
HYPERCORN_2 = row("hypercorn-2", "hypercorn", workers=2)
GRANIAN_2 = row("granian-2", "granian", workers=2)


@pytest.mark.parametrize("command", REPLACED)
async def test_a_killed_worker_loses_what_waited_in_it(
    command: Command, emulator: Emulator, serve: Serve
) -> None:
    """It is replaced; what it had delivered stays so, and the other loses nothing."""
    async with busy(serve, command, emulator, **STILL) as (server, load):
        victim = max(load.pids, key=lambda pid: len(load.by(pid) - arrived(emulator)))
        delivered = arrived(emulator)
        os.kill(victim, SIGKILL)
        await load.until(lambda: len(load.pids) > command.workers)
        server.send(SIGTERM)
        await server.ended()

    lost = load.answered.keys() - arrived(emulator)
    assert lost
    assert lost <= load.by(victim) - delivered


@pytest.mark.parametrize("command", REPLACED)
async def test_with_a_spool_the_next_worker_delivers_it(
    command: Command, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """Whoever takes the killed one's place takes over its file, at once."""
    async with busy(
        serve, command, emulator, SPOOL=str(tmp_path / "spool"), **STILL
    ) as (server, load):
        victim = max(load.pids, key=lambda pid: len(load.by(pid) - arrived(emulator)))
        os.kill(victim, SIGKILL)
        await load.until(lambda: load.by(victim) <= arrived(emulator))
        server.send(SIGTERM)
        await server.ended()

    assert load.answered.keys() - arrived(emulator) == set()


@pytest.mark.parametrize("command", ALONE)
async def test_with_a_spool_a_restart_delivers_what_a_kill_left(
    command: Command, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """All processes are killed as by a lack of memory; the next start makes it good."""
    spool = str(tmp_path / "spool")
    async with busy(serve, command, emulator, SPOOL=spool, **STILL) as (server, load):
        await server.kill()

    assert load.answered.keys() - arrived(emulator)
    async with serve(command, SPOOL=spool):
        await until(lambda: load.answered.keys() <= arrived(emulator))


@pytest.mark.parametrize("command", [HYPERCORN_2, GRANIAN_2])
async def test_a_killed_worker_ends_the_whole_server(
    command: Command, emulator: Emulator, serve: Serve, tmp_path: Path
) -> None:
    """Neither replaces it unasked: a spool and a restart make it good."""
    spool = str(tmp_path / "spool")
    async with busy(serve, command, emulator, SPOOL=spool, **STILL) as (server, load):
        os.kill(max(load.pids), SIGKILL)
        await server.ended()

    async with serve(command, SPOOL=spool):
        await until(lambda: load.answered.keys() <= arrived(emulator))
