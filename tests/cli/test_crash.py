"""The demo's crash: a real service is killed half-way, and every purchase arrives."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from amplitude_async import Amplitude
from amplitude_async.cli.demo.crash import run_crash_demo
from amplitude_async.cli.demo.purchase_service import (
    KEY_HEADER,
    PURCHASE_JSON,
    PurchaseService,
)
from amplitude_async.cli.demo.purchases import parse_log, sample_log
from amplitude_async.cli.demo.replay import replay_stubbornly
from amplitude_async.cli.demo.service_process import ServiceProcess, ServiceProcessError
from amplitude_async.emulator import Emulator

__all__: list[str] = []

PURCHASES = parse_log(
    "00004 1 19970101 2 29.33\n00021 2 19970101 3 63.34\n00004 1 19970118 1 0.00",
    "log",
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "amplitude_async", "demo", "--crash", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=100.0,
    )


def test_the_whole_log_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL half-way, a new process on the same spool, and the sums agree."""
    finished = run("--json", TMPDIR=str(tmp_path))

    report = json.loads(finished.stdout)
    sums = {
        "purchases": 6919,
        "customers": 2357,
        "units": 16479,
        "revenue": "244091.94",
    }
    assert (finished.returncode, report["problems"]) == (0, [])
    assert report["emulator"] == report["log"] == sums
    assert report["customers_in_order"] == 2357
    assert 6919 // 2 <= report["killed_at"] < 6919 // 2 + 32
    assert report["recovered"] > 0
    assert report["accepted"] + report["recovered"] == report["delivered"]
    assert list(tmp_path.iterdir()) == []


def test_the_table_tells_of_the_crash() -> None:
    """A reader learns when it was killed, what came back, and what came twice."""
    finished = run("--limit", "60")

    assert (finished.returncode, finished.stderr) == (0, "")
    for row in (
        "service killed at purchase",
        "recovered after restart",
        "duplicates removed",
    ):
        assert row in finished.stdout
    assert "All 60 purchases arrived, each once and in order" in finished.stdout


@pytest.mark.allow_blocking  # a process is started
async def test_a_bad_day_and_a_crash_together(tmp_path: Path) -> None:
    """Failing requests before and after the kill change nothing in the sums."""
    report = await run_crash_demo(sample_log()[:300], tmp_path, chaos=True)

    assert report.problems() == []
    assert {"killed_at", "faults", "duplicates"} <= report.as_json().keys()


def test_a_service_that_cannot_start_is_told(tmp_path: Path) -> None:
    """The demo ends with one line of its own and 2, and leaves nothing behind."""
    program = (
        "import sys\n"
        "from amplitude_async.cli.demo import crash\n"
        "from amplitude_async.cli.app import app\n"
        "import amplitude_async.cli.demo.service_process as service\n"
        "service._MODULE = 'amplitude_async.cli.nothing'\n"
        "app(['demo', '--crash', '--limit', '3'])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
        timeout=100.0,
    )

    assert finished.returncode == 2
    assert "Error: the service process ended with exit code 1" in finished.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.allow_blocking  # a process is started
async def test_a_service_that_does_not_come_back_ends_the_demo(tmp_path: Path) -> None:
    """The replay does not wait for ever for a service that cannot start again."""
    spool = tmp_path / "spool"

    def ruin() -> None:
        if spool.is_dir():
            spool.rename(tmp_path / "gone")
            spool.touch()

    with pytest.raises(ServiceProcessError, match="exit code 1"):
        await run_crash_demo(PURCHASES, spool, ruin)


@pytest.mark.allow_blocking  # a process is started
async def test_a_service_ends_when_its_starter_lets_go(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Stopped and not killed, it delivers what it has and gives its account."""
    options = {"server_url": emulator.httpapi_url, "trust_env": False}
    async with ServiceProcess(tmp_path, options) as service:  # type: ignore[arg-type]
        result = await replay_stubbornly(PURCHASES, service.address, lambda: None)
        stats = await service.stop()

    assert (result.answered, result.repeated, stats.delivered) == (3, 0, 3)
    assert {event["insert_id"] for event in emulator.events} == {
        "00004-1",
        "00004-2",
        "00021-1",
    }


async def test_a_request_sent_twice_is_one_event(emulator: Emulator) -> None:
    """The key of a request becomes the event's insert_id, which undoes the copy."""
    async with (
        Amplitude("key", server_url=emulator.httpapi_url) as client,
        PurchaseService(client) as service,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(2):
            async with session.post(
                service.url,
                data=PURCHASE_JSON.dump_json(PURCHASES[0]),
                headers={KEY_HEADER: "00004-1"},
            ) as response:
                assert (await response.json())["insert_id"] == "00004-1"
        await client.flush()

    assert [event["insert_id"] for event in emulator.events] == ["00004-1"]
    assert emulator.stats.duplicates == 1


async def test_an_unanswered_request_is_repeated_with_its_key() -> None:
    """A connection that breaks is no verdict: the same purchase is posted again."""
    keys: list[str] = []

    async def break_off_once(request: web.Request) -> web.Response:
        keys.append(request.headers[KEY_HEADER])
        if len(keys) == 1:
            assert request.transport
            request.transport.abort()
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/", break_off_once)
    advanced: list[None] = []
    async with TestServer(app) as server:

        async def address() -> str:
            return str(server.make_url("/"))

        result = await replay_stubbornly(
            PURCHASES[:1], address, lambda: advanced.append(None)
        )

    assert keys == ["00004-1", "00004-1"]
    assert (result.answered, result.repeated, result.failed) == (1, 1, 0)
    assert len(advanced) == 1


async def test_a_service_that_is_gone_for_good_is_counted(unused_tcp_port: int) -> None:
    """Repeating has an end, and then the purchase has failed."""

    async def address() -> str:
        await asyncio.sleep(0)
        return f"http://127.0.0.1:{unused_tcp_port}/"

    result = await replay_stubbornly(PURCHASES[:1], address, lambda: None)

    assert (result.failed, result.repeated) == (1, 320)
    assert str(result.first_failure).startswith("no answer from the service")
