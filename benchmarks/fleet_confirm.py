"""How long a verb waits for the log, beside a bare publish of the same event.

    python benchmarks/fleet_confirm.py --log postgres

Both take turns in one run, so that the machine is the same for both.
"""

import asyncio
import json
import sys
import time
from statistics import median, quantiles
from typing import Final

from fleet_log import arguments_of, started_log

from amplitude_async import Amplitude
from amplitude_async.fleet.codec import encode
from amplitude_async.fleet.log import Chunk, Log, Place
from amplitude_async.storage.base import Record

__all__ = ["main"]

PROJECT: Final = "confirm"
BODY: Final = b'{"event_type":"Order Paid","user_id":"user-1","pad":"%b"}' % (
    b"x" * 270
)


async def one_caller(log: Log, client: Amplitude, rounds: int) -> dict[str, float]:
    """Track and publish in turns, one at a time; milliseconds."""
    tracked, published = [], []
    for number in range(rounds):
        began = time.perf_counter()
        await client.track(
            "Order Paid", user_id="user-1", event_properties={"pad": "x" * 200}
        )
        tracked.append(time.perf_counter() - began)
        began = time.perf_counter()
        await _publish(log, f"bare.{number}")
        published.append(time.perf_counter() - began)
    return {
        "track_p50_ms": round(median(tracked) * 1000, 2),
        "publish_p50_ms": round(median(published) * 1000, 2),
        "ratio": round(median(tracked) / median(published), 2),
    }


async def many_callers(log: Log, client: Amplitude, rounds: int) -> dict[str, float]:
    """Track from 64 callers at once, beside 64 bare publishes at once."""
    tracked: list[float] = []
    published: list[float] = []

    async def track(user: int) -> None:
        began = time.perf_counter()
        await client.track("Order Paid", user_id=f"user-{user:03}")
        tracked.append(time.perf_counter() - began)

    async def publish(name: str) -> None:
        began = time.perf_counter()
        await _publish(log, name)
        published.append(time.perf_counter() - began)

    for number in range(rounds):
        await asyncio.gather(*map(track, range(64)))
        await asyncio.gather(*(publish(f"many.{number}.{n}") for n in range(64)))
    return {
        "64_track_p50_ms": round(median(tracked) * 1000, 2),
        "64_track_p99_ms": round(quantiles(tracked, n=100)[98] * 1000, 2),
        "64_publish_p50_ms": round(median(published) * 1000, 2),
        "64_ratio": round(median(tracked) / median(published), 2),
    }


async def _publish(log: Log, name: str) -> None:
    record = Record(0, BODY, "user-1", "user-1", None, name, 1.7e9)
    chunk = Chunk(name, Place("amplitude", 0), encode([record]), 1)
    await log.publish(chunk)


async def run(kind: str, rounds: int) -> dict[str, float]:
    """Start a log and measure."""
    async with started_log(kind, PROJECT) as make:
        log = make()
        await log.open()
        async with Amplitude(handover=make()) as client:
            await one_caller(log, client, 50)  # warm
            found = await one_caller(log, client, rounds)
            found |= await many_callers(log, client, max(rounds // 10, 5))
        await log.close()
    return found


def main() -> int:
    """Read the arguments and run."""
    parser = arguments_of(__doc__, "nats")
    parser.add_argument("--rounds", type=int, default=500)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.log, arguments.rounds))
    print(json.dumps({"log": arguments.log, **found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
