"""What a destination that hangs does to the other one of the same relay.

    python benchmarks/fleet_stuck.py --log postgres

Spells with a server that answers and spells with one that never does take turns in one
run; what is compared is the time from a verb's call to the event's arrival.
"""

import asyncio
import json
import sys
import time
from statistics import quantiles
from typing import Final

from aiohttp import web
from fleet_log import arguments_of, started_log

from amplitude_async import Amplitude
from amplitude_async.fleet import Relay
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    CustomEventType,
    MParticle,
    UserIdentities,
)

__all__ = ["main"]

PROJECT: Final = "stuck"
KEY: Final = "key-0123456789abcdef"
USERS: Final = 16
PAUSE: Final = 0.02
SPELL: Final = 4.0


class Sink:
    """Takes both vendors' requests, notes when an event came, and may hang."""

    def __init__(self) -> None:
        self.arrivals: dict[str, float] = {}
        self.hangs = False
        self.url = ""
        self._going = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/2/httpapi", self._amplitude)
        app.router.add_post("/v2/bulkevents", self._mparticle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Let all go and close."""
        self.let_go()
        if self._runner is not None:
            await self._runner.cleanup()

    def let_go(self) -> None:
        """Answer what hangs."""
        self.hangs = False
        self._going.set()
        self._going = asyncio.Event()

    async def _amplitude(self, request: web.Request) -> web.Response:
        now = time.perf_counter()
        for event in (await request.json())["events"]:
            self.arrivals[event["insert_id"]] = now
        return web.json_response({"code": 200})

    async def _mparticle(self, request: web.Request) -> web.Response:
        await request.read()
        if self.hangs:
            await self._going.wait()
        return web.Response(status=202)


async def spell(client: Amplitude, other: MParticle, sink: Sink) -> list[float]:
    """Track for a while to both; returns how long each event took to arrive."""
    began: dict[str, float] = {}
    end = time.perf_counter() + SPELL

    async def one(user: int) -> None:
        name = f"user-{user:03}"
        event = CustomEvent(event_name="Tick", custom_event_type=CustomEventType.OTHER)
        while time.perf_counter() < end:
            at = time.perf_counter()
            delivery = await client.track("Tick", user_id=name)
            began[delivery.insert_id] = at
            identities = UserIdentities(customer_id=name)
            batch = Batch(
                environment="development", user_identities=identities, events=[event]
            )
            await other.send(batch)
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*map(one, range(USERS)))
    for _ in range(200):  # what comes is counted, not told
        if began.keys() <= sink.arrivals.keys():
            break
        await asyncio.sleep(0.05)
    return [sink.arrivals[name] - at for name, at in began.items()]


async def run(kind: str, turns: int) -> dict[str, float]:
    """Start a log and a relay and measure."""
    sink = Sink()
    well: list[float] = []
    stuck: list[float] = []
    async with started_log(kind, PROJECT) as make:
        await sink.start()
        to = [
            Amplitude(KEY, server_url=f"{sink.url}/2/httpapi"),
            MParticle(KEY, KEY, base_url=f"{sink.url}/v2"),
        ]
        handed = make()
        client, other = Amplitude(handover=handed), MParticle(handover=handed)
        try:
            async with Relay(make(), to), client, other:
                await spell(client, other, sink)  # warm
                for _ in range(turns):
                    well += await spell(client, other, sink)
                    sink.hangs = True
                    stuck += await spell(client, other, sink)
                    sink.let_go()
        finally:
            await sink.stop()
    return _figures(well, stuck)


def _figures(well: list[float], stuck: list[float]) -> dict[str, float]:
    of_well, of_stuck = quantiles(well, n=100), quantiles(stuck, n=100)
    return {
        "events": len(well) + len(stuck),
        "p50_ms": round(of_well[49] * 1000, 1),
        "p50_stuck_ms": round(of_stuck[49] * 1000, 1),
        "p99_ms": round(of_well[98] * 1000, 1),
        "p99_stuck_ms": round(of_stuck[98] * 1000, 1),
        "p99_ratio": round(of_stuck[98] / of_well[98], 3),
    }


def main() -> int:
    """Read the arguments and run."""
    parser = arguments_of(__doc__, "postgres")
    parser.add_argument("--turns", type=int, default=4)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.log, arguments.turns))
    print(json.dumps({"log": arguments.log, **found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
