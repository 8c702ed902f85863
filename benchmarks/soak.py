"""Ten minutes of outage at 2,000 events a second: does the client's memory stay flat?

    python benchmarks/soak.py
    python benchmarks/soak.py --seconds 60

The server is an emulator in a process of its own. It answers 503 for the whole time,
and well at the end: then what waits must arrive, and the account must add up. Exits
with 1 if memory grew by more than 5 % after the warm-up, or if an event is unaccounted
for.
"""

import argparse
import asyncio
import logging
import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from amplitude_async import Amplitude, Stats
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

USERS = 5_000
TICK = 0.01
REPORT_EVERY = 10.0
# The queue is full after ten seconds, and the allocator has seen everything by then.
WARM_UP = 30.0
ALLOWED_GROWTH = 1.05
DRAIN_TIMEOUT = 120.0
STATM = Path("/proc/self/statm")


@dataclass
class Soak:
    """What was measured."""

    warm_up: float
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, mebibytes of resident memory."""
    slowest_track: float = 0.0

    @property
    def growth(self) -> float:
        """The largest memory after the warm-up, over the memory at its end."""
        later = [size for when, size in self.samples if when >= self.warm_up]
        return max(later) / later[0] if later else 1.0


def resident() -> float:
    """Return the resident memory of this process in mebibytes."""
    if STATM.exists():
        pages = int(STATM.read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20
    # Elsewhere only the highest value so far is known, which serves as well here.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def serve(pipe: Connection) -> None:
    """Run an emulator that fails until it is told otherwise over HTTP."""

    async def run() -> None:
        async with Emulator(keep=1, keep_requests=1) as emulator:
            emulator.faults.add(Fault.server_error(503, count=None))
            pipe.send(emulator.url)
            await asyncio.to_thread(pipe.recv)
            pipe.send(emulator.stats.events_ingested)

    asyncio.run(run())


async def put_under_load(
    client: Amplitude, soak: Soak, *, rate: int, seconds: float
) -> None:
    """Track at a steady rate, and print memory every ten seconds."""
    began = time.perf_counter()
    next_report = REPORT_EVERY
    tracked = 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(int(passed * rate) - tracked):
            tracked += 1
            before = time.perf_counter()
            await client.track(
                "Checked Out",
                user_id=f"user-{tracked % USERS}",
                event_properties={"number": tracked, "price": tracked / 100},
            )
            took = time.perf_counter() - before
            soak.slowest_track = max(soak.slowest_track, took)
        if passed >= next_report:
            next_report += REPORT_EVERY
            report(client.stats, soak, passed)
        await asyncio.sleep(TICK)
    report(client.stats, soak, seconds)


def report(stats: Stats, soak: Soak, passed: float) -> None:
    """Print and keep one sample."""
    size = resident()
    soak.samples.append((passed, size))
    print(
        f"{passed:6.0f} s  {size:7.1f} MiB  accepted {stats.accepted:>9,}  "
        f"pending {stats.pending:>6,}  dropped {stats.dropped:>9,}  "
        f"requests {stats.requests:>5,}",
        flush=True,
    )


async def measure(url: str, *, rate: int, seconds: float) -> tuple[Soak, Stats]:
    """Run the outage and the recovery."""
    soak = Soak(warm_up=min(WARM_UP, seconds / 3))
    client = Amplitude("soak-key", server_url=f"{url}/2/httpapi", trust_env=False)
    async with client:
        await put_under_load(client, soak, rate=rate, seconds=seconds)
        async with aiohttp.ClientSession() as session:
            await session.delete(f"{url}/_emulator/faults")
        # A back-off of up to a minute may be under way.
        await client.flush(DRAIN_TIMEOUT)
    return soak, client.stats


def main() -> int:
    """Measure and judge; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,))
    server.start()
    soak, stats = asyncio.run(
        measure(pipe.recv(), rate=options.rate, seconds=options.seconds)
    )
    pipe.send("stop")
    arrived = pipe.recv()
    server.join()
    print(
        f"\ndelivered {stats.delivered:,}, at the server {arrived:,}, dropped "
        f"{dict(stats.dropped_by_reason)}, slowest track {soak.slowest_track:.3f} s"
    )
    law = stats.balanced and not stats.pending and stats.delivered == arrived
    flat = soak.growth <= ALLOWED_GROWTH
    print(f"account {'adds up' if law else 'DOES NOT ADD UP'}")
    print(f"memory {'flat' if flat else 'GREW'}: {soak.growth:.3f} x after the warm-up")
    return 0 if law and flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
