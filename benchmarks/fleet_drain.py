"""A million events through two relays of one process: how fast, in how much memory?

    python benchmarks/fleet_drain.py
    python benchmarks/fleet_drain.py --events 100000

The log is in the process as well, as is the server: no socket is in the way, and what
is measured is ours. Each event has to come once, and those of a user in order; exits
with 1 where one does not, where memory grew by more than 50 MB after the first tenth,
or where the loop was held for longer than a quarter of a second.
"""

import argparse
import asyncio
import gzip
import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from amplitude_async import Amplitude
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.transport import Transport
from amplitude_async.exceptions import LogFullError
from amplitude_async.fleet import Relay
from amplitude_async.fleet.codec import encode, partition_of
from amplitude_async.fleet.log import Chunk, Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.storage.base import Record

__all__: list[str] = []

PARTITIONS = 4
USERS = 20_000
CHUNK = 100
BACKLOG_BYTES = 32 * 1024 * 1024
TICK = 0.002
ALLOWED_GROWTH = 50.0
ALLOWED_HOLD = 0.25
STATM = Path("/proc/self/statm")
MEBIBYTE = 1024 * 1024


class Sink:
    """Takes every request, and looks whether its events come once and in order."""

    def __init__(self) -> None:
        self.taken = 0
        self.wrong = 0
        self._last: dict[str, int] = {}

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """Take a request."""
        del url, timeout
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for event in json.loads(body)["events"]:
            user, number = event["user_id"], event["event_properties"]["n"]
            self.wrong += number != self._last.get(user, -1) + 1
            self._last[user] = number
            self.taken += 1
        await asyncio.sleep(0)
        return Response(200)

    async def close(self) -> None:
        """Close nothing."""

    def abandon(self) -> None:
        """Forget nothing."""


class Client(Amplitude):
    """A client of the sink."""

    sink: Sink

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        return self.sink


class Holds:
    """Watches how long the loop is held at a time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.most = 0.0
        self.first = 0.0

    async def watch(self, sink: Sink, events: int) -> None:
        """Look until the task is cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            held = time.perf_counter() - before - TICK
            self.longest = max(self.longest, held)
            now = resident()
            if sink.taken < events / 10:
                self.first = max(self.first, now)
            self.most = max(self.most, now)


def resident() -> float:
    """Say how many MB of memory the process has now."""
    pages = int(STATM.read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MEBIBYTE


async def fill(log: MemoryLog, events: int) -> None:
    """Publish events as fast as there is room in the log."""
    lanes: dict[int, list[Record]] = {number: [] for number in range(PARTITIONS)}
    number = 0
    for number in range(events):
        user = f"user-{number % USERS:06}"
        body = json.dumps(
            {
                "event_type": "Order Paid",
                "user_id": user,
                "insert_id": f"{number:032}",
                "event_properties": {"n": number // USERS, "text": "x" * 180},
            }
        ).encode()
        record = Record(0, body, user, user, None, f"{number:032}", time.time())
        lane = lanes[partition_of(user, PARTITIONS)]
        lane.append(record)
        if len(lane) == CHUNK:
            await publish(log, lane, number)
    for lane in lanes.values():
        if lane:
            number += 1
            await publish(log, lane, number)


async def publish(log: MemoryLog, lane: list[Record], number: int) -> None:
    """Publish a chunk; waits while the log is full."""
    place = Place("amplitude", partition_of(lane[0].identity, PARTITIONS))
    chunk = Chunk(f"c.{number}", place, encode(lane), len(lane))
    lane.clear()
    while True:
        try:
            await log.publish(chunk)
        except LogFullError:
            await asyncio.sleep(0.01)
        else:
            return


async def measure(events: int) -> bool:
    """Drain so many events; returns whether all was as it should be."""
    log = MemoryLog(partitions=PARTITIONS, max_bytes=BACKLOG_BYTES)
    await log.open()
    sink, holds = Sink(), Holds()
    clients = []
    for _ in range(2):
        client = type("Client", (Client,), {"sink": sink})("key-of-the-benchmark")
        clients.append(client)
    relays = [Relay(log.handle(), [client]) for client in clients]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    watching = asyncio.create_task(holds.watch(sink, events))
    started = time.perf_counter()
    await fill(log, events)
    while sink.taken < events:  # noqa: ASYNC110 - a sink tells nobody
        await asyncio.sleep(0.01)
    took = time.perf_counter() - started
    watching.cancel()
    shares = [len(relay.places) for relay in relays]
    for relay in relays:
        relay.stop()
    await asyncio.gather(*running)
    balanced = all(client.stats.balanced for client in clients)
    counts = [client.stats.delivered for client in clients]
    growth = holds.most - holds.first
    print(f"{events / took:,.0f} events/s, {took:.1f} s; {shares} places, {counts}")
    print(f"memory {holds.first:.0f} MB, most {holds.most:.0f} MB")
    print(f"loop held {holds.longest * 1000:.0f} ms at most")
    print(f"taken {sink.taken}, out of order or double {sink.wrong}, {balanced=}")
    whole = sink.taken == events and not sink.wrong and balanced
    return whole and growth <= ALLOWED_GROWTH and holds.longest <= ALLOWED_HOLD


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    return 0 if asyncio.run(measure(parser.parse_args().events)) else 1


if __name__ == "__main__":
    sys.exit(main())
