"""Drain a million events out of a real log by two relays, and count each of them.

    python benchmarks/fleet_drain.py --log nats --events 1000000

The sink is a process of its own, which answers at once and keeps each insert id.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiohttp import web

from amplitude_async.cli.demo.fleet.log_servers import servers
from amplitude_async.cli.demo.fleet.parties import Relay
from amplitude_async.fleet.addresses import log_at
from amplitude_async.fleet.codec import chunk_id, encode, partition_of
from amplitude_async.fleet.log import Chunk, Log, Place
from amplitude_async.storage.base import Record

__all__ = ["main"]

PROJECT: Final = "drain"
PARTITIONS: Final = 4
IN_CHUNK: Final = 1_000
USERS: Final = 20_000
AT_ONCE: Final = 4
LIMIT: Final = 600.0
MEBIBYTE: Final = 1024 * 1024


def sink(reports: Connection) -> None:
    """Answer every request at once; tell the address, and on request what came."""
    asyncio.run(_sink(reports))


async def _sink(reports: Connection) -> None:
    seen: set[str] = set()
    newest: dict[str, int] = {}
    figures = {"received": 0, "reordered": 0, "requests": 0}

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, 31)
        events = json.loads(body)["events"]
        figures["received"] += len(events)
        figures["requests"] += 1
        for event in events:
            name, user = event["insert_id"], event["user_id"]
            if name not in seen:
                seen.add(name)
                number = event["event_properties"]["n"]
                figures["reordered"] += number < newest.get(user, -1)
                newest[user] = number
        return web.json_response({"code": 200})

    app = web.Application(client_max_size=64 * MEBIBYTE)
    app.router.add_post("/2/httpapi", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reports.send(f"http://127.0.0.1:{port}/2/httpapi")
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, reports.recv):
        reports.send({**figures, "unique": len(seen)})
    await runner.cleanup()


def chunks_of(events: int) -> list[tuple[int, int]]:
    """Cut numbers of events into chunks: first number and length."""
    return [
        (first, min(IN_CHUNK, events - first)) for first in range(0, events, IN_CHUNK)
    ]


async def fill(log: Log, events: int) -> float:
    """Publish events of about 330 bytes; returns the seconds that took."""
    began = time.monotonic()
    lanes: dict[int, list[str]] = {}
    for user in range(USERS):
        name = f"user-{user:06}"
        lanes.setdefault(partition_of(name, PARTITIONS), []).append(name)
    share = events // PARTITIONS
    await asyncio.gather(
        *(_fill_lane(log, number, lanes[number], share) for number in range(PARTITIONS))
    )
    return time.monotonic() - began


async def _fill_lane(log: Log, number: int, users: list[str], events: int) -> None:
    for first, length in chunks_of(events):
        records = []
        for index in range(first, first + length):
            user = users[index % len(users)]
            name = f"{number}-{index}"
            event = {
                "event_type": "Order Paid",
                "user_id": user,
                "insert_id": name,
                "time": 1_700_000_000_000,
                "event_properties": {"n": index, "pad": "x" * 190},
            }
            body = json.dumps(event, separators=(",", ":")).encode()
            records.append(Record(index, body, user, user, None, name, time.time()))
        place = Place("amplitude", number)
        chunk = Chunk(
            chunk_id(f"fill{number}", records), place, encode(records), length
        )
        await log.publish(chunk)


def peak(process: Any) -> float:
    """Return the most memory that a process has had, in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


async def run(kind: str, events: int) -> dict[str, Any]:
    """Fill, drain, count."""
    events -= events % PARTITIONS
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=sink, args=(theirs,))
    process.start()
    url = ours.recv()

    def figures() -> dict[str, int]:
        ours.send(True)
        found: dict[str, int] = ours.recv()
        return found

    with TemporaryDirectory(prefix="fleet-drain-") as folder:
        fleet = servers(kind, Path(folder))
        await fleet.start()
        try:
            log = log_at(fleet.address, project=PROJECT)
            await log.setup(PARTITIONS)
            await log.open()
            filled = await fill(log, events)
            relays = [Relay(Path(folder) / f"relay{number}.log") for number in range(2)]
            began = time.monotonic()
            for relay in relays:
                await relay.start(
                    address=fleet.address, project=PROJECT, server_url=url, lease=5.0
                )
            found = figures()
            while found["unique"] < events and time.monotonic() - began < LIMIT:
                await asyncio.sleep(0.2)
                found = figures()
            took = time.monotonic() - began
            held = [sum(one.holder is not None for one in await log.backlog())]
            peaks = [peak(relay.process) for relay in relays]
            for relay in relays:
                await relay.end(signal.SIGTERM)
            found = figures()
            left = sum(one.chunks for one in await log.backlog())
            await log.close()
        finally:
            await fleet.stop()
    ours.send(False)
    process.join()
    return {
        "log": kind,
        "events": events,
        "fill_per_s": round(events / filled),
        "drain_per_s": round(events / took),
        "lost": events - found["unique"],
        "doubled": found["received"] - found["unique"],
        "reordered": found["reordered"],
        "requests": found["requests"],
        "peak_mb": [round(one) for one in peaks],
        "places_held": held[0],
        "left_in_log": left,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", choices=["postgres", "nats"], default="nats")
    parser.add_argument("--events", type=int, default=1_000_000)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.log, arguments.events))
    print(json.dumps(found, indent=1))
    return 0 if not found["lost"] and not found["reordered"] else 1


if __name__ == "__main__":
    sys.exit(main())
