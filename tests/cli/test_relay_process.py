"""The command `relay run` in processes of its own, on real logs: signals and heirs."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.fleet.addresses import log_at
from tests.conftest import free_port
from tests.fleet.nats_cluster import Cluster, nats_server
from tests.fleet.postgres_server import postgres_server
from tests.fleet.real_servers import project_name

__all__ = ["nats_server", "postgres_server", "project_name"]

KEY = "0123456789abcdef0123456789abcdef"
LIMIT = 60.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(LIMIT):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


class Site(NamedTuple):
    """One project of one log, and the server that events go to."""

    address: str
    project: str
    emulator: Emulator

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a relay, and no others of ours."""
        own = ("AMPLITUDE_", "MPARTICLE_")
        rest = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        return rest | {
            "AMPLITUDE_LOG": self.address,
            "AMPLITUDE_API_KEY": KEY,
            "AMPLITUDE_SERVER_URL": self.emulator.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
            "COLUMNS": "200",
        }

    async def produce(self, numbers: Sequence[int]) -> None:
        """Hand events over."""
        log = log_at(self.address, project=self.project)
        async with Amplitude(handover=log) as client:
            for number in numbers:
                await client.track(
                    "Paid",
                    user_id=f"user-{number % 5}",
                    event_properties={"n": number},
                )

    def delivered(self) -> list[int]:
        """Return the numbers of the events that arrived, in order of arrival."""
        return [one["event_properties"]["n"] for one in self.emulator.events]

    async def until_delivered(self, count: int) -> None:
        """Wait for events."""
        await until(lambda: len(self.emulator.events) >= count)

    async def run(self, *words: object) -> tuple[int | None, str, str]:
        """Run a command to its end: exit code, output, errors."""
        async with self.running(*words) as process:
            out, err = await asyncio.wait_for(process.communicate(), LIMIT)
        assert KEY not in (out + err).decode()
        return process.returncode, out.decode(), err.decode()

    @asynccontextmanager
    async def running(
        self, *words: object
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command, and leave no process behind."""
        command = (sys.executable, "-m", "amplitude_async", "relay", *map(str, words))
        process = await asyncio.create_subprocess_exec(
            *command,
            "--project",
            self.project,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture(params=["nats", "postgresql"])
async def site(
    request: pytest.FixtureRequest, project_name: str, emulator: Emulator
) -> Site:
    """Return a log that is set up: the promises are the same with each."""
    if request.param == "nats":
        cluster = request.getfixturevalue("nats_server")
        sizes = "max_bytes=67108864&dead_max_bytes=8388608"
        address = f"{cluster.url}?replicas=1&{sizes}"
    else:
        address = request.getfixturevalue("postgres_server").dsn
    made = Site(address, project_name, emulator)
    code, out, err = await made.run("setup", "--partitions", 2)
    assert (code, bool(out)) == (0, True), err
    return made


async def until_said(process: asyncio.subprocess.Process, text: str) -> list[str]:
    """Read lines of standard error up to one that has a text."""
    assert process.stderr
    lines = []
    async with asyncio.timeout(LIMIT):
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if text in line:
                return lines
    pytest.fail(f"{text!r} was not said: {lines}")


async def stopped(
    process: asyncio.subprocess.Process, number: int = signal.SIGTERM
) -> tuple[int | None, str]:
    """Send a signal, and return exit code and the last lines."""
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), LIMIT)
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_relay_delivers_and_gives_back(site: Site, number: int) -> None:
    """The account is told at the end, and the next relay has its places at once."""
    await site.produce(range(20))

    async with site.running("run", "--name", "first") as process:
        said = await until_said(process, "first has")
        await site.until_delivered(20)
        code, err = await stopped(process, number)

    async with site.running("run", "--lease", "60", "--name", "second") as process:
        await until_said(process, "second has amplitude.0, amplitude.1")
        await site.produce(range(20, 25))
        await site.until_delivered(25)
        assert (await stopped(process))[0] == 0
    assert code == 0, err
    assert f"project {site.project}" in said[0]
    assert "delivers to amplitude from" in said[0]
    assert "taken 20 = delivered 20 + rejected 0" in err
    assert "Traceback" not in err
    assert KEY not in "".join(said) + err
    assert sorted(site.delivered()) == list(range(25))


async def test_what_a_relay_could_not_deliver_is_the_next_ones(site: Site) -> None:
    """Nothing is lost, and each user's events stay in order."""
    site.emulator.faults.add(Fault(503, count=None))
    await site.produce(range(30))
    async with site.running("run") as process:
        await until_said(process, "has amplitude.")
        await until(lambda: site.emulator.stats.requests > 0)
        code, err = await stopped(process)
    site.emulator.faults.clear()

    async with site.running("run") as process:
        await site.until_delivered(30)
        assert (await stopped(process))[0] == 0

    assert code == 0, err
    assert "given back 0" not in err
    arrived = site.delivered()
    assert sorted(arrived) == list(range(30))
    for user in range(5):
        own = [number for number in arrived if number % 5 == user]
        assert own == sorted(own)


async def test_a_relay_that_is_killed_has_an_heir(site: Site) -> None:
    """After its lease the other has its places, and delivers."""
    async with (
        site.running("run", "--lease", "1", "--name", "gone") as gone,
        site.running("run", "--lease", "1", "--name", "heir") as heir,
    ):
        await until_said(gone, "gone has amplitude.")
        gone.kill()
        await gone.wait()
        await site.produce(range(10))
        await until_said(heir, "heir has amplitude.0, amplitude.1")
        await site.until_delivered(10)
        assert (await stopped(heir))[0] == 0


async def test_a_second_signal_ends_at_once(site: Site) -> None:
    """Who asks twice does not wait for a server that hangs."""
    site.emulator.faults.add(Fault(delay=30.0, count=None))
    await site.produce(range(3))
    async with site.running("run") as process:
        await until_said(process, "has amplitude.")
        await until(lambda: site.emulator.stats.requests > 0)
        process.send_signal(signal.SIGTERM)
        await until_said(process, "gives everything back")
        began = time.monotonic()
        while process.returncode is None and time.monotonic() - began < LIMIT:
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
        assert process.returncode == 143


async def test_health_of_a_process(site: Site) -> None:
    """Ready once it has the log, over the port that was asked for."""
    port = free_port()
    async with (
        site.running("run", "--health", f"127.0.0.1:{port}") as process,
        aiohttp.ClientSession() as session,
    ):
        said = await until_said(process, "delivers to")
        async with asyncio.timeout(LIMIT):
            while True:
                if await status_of(session, port, "ready") == 200:
                    break
                await asyncio.sleep(0.02)
        assert await status_of(session, port, "live") == 200
        code, out, err = await site.run("run", "--health", f"127.0.0.1:{port}")
        assert (await stopped(process))[0] == 0
    assert f"health on http://127.0.0.1:{port}" in said[-1]
    assert (code, out) == (2, "")
    assert f"--health cannot listen on 127.0.0.1 port {port}" in err


async def status_of(session: aiohttp.ClientSession, port: int, what: str) -> int:
    """Ask the health endpoint for its status."""
    async with session.get(f"http://127.0.0.1:{port}/{what}") as response:
        return response.status


async def test_dead_letters_go_round(site: Site) -> None:
    """Rejected, listed, sent again once the server takes them, and gone."""
    body = {
        "code": 400,
        "error": "Request missing required field",
        "events_with_invalid_fields": {"time": [0]},
    }
    site.emulator.faults.add(Fault(400, body=body))
    await site.produce([7])
    async with site.running("run") as process:
        await until_said(process, "rejected")
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(LIMIT):
            while not found:
                _, out, _ = await site.run("dead", "list", "--json")
                found = json.loads(out)["letters"]
        _, status, _ = await site.run("status")
        code, out, err = await site.run("dead", "send", found[0]["position"])
        await site.until_delivered(1)
        assert (await stopped(process))[0] == 0
    assert found[0]["code"] == 400
    assert "1 dead letter:" in status
    assert (code, out, err) == (0, "1 dead letter will be sent again\n", "")
    assert site.delivered() == [7]
    assert "No dead letters." in (await site.run("dead", "list"))[1]


@pytest.mark.long
async def test_a_log_that_hangs_holds_a_relay_up_for_seconds(
    tmp_path: Path, emulator: Emulator
) -> None:
    """It ends by itself, with words and another exit code."""
    server = Cluster(tmp_path, size=1, sync="")
    await asyncio.to_thread(server.start)
    try:
        site = Site(f"{server.url}?replicas=1&max_bytes=67108864", "shop", emulator)
        assert (await site.run("setup"))[0] == 0
        async with site.running("run") as process:
            await until_said(process, "has amplitude.0")
            server.signal(0, signal.SIGSTOP)
            began = time.monotonic()
            code, err = await stopped(process)
            took = time.monotonic() - began
    finally:
        server.signal(0, signal.SIGCONT)
        await asyncio.to_thread(server.stop)
    assert code == 3
    assert "not everything was given back" in err
    assert took < 20
