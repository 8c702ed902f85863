"""Kill one part of a fleet after the other, many times, and count what comes of it.

Each round has two producers and two relays in processes of their own, a real log on
real servers, and a fault in the middle. What the log confirmed must arrive, in order.

    python benchmarks/fleet_faults.py --log nats --rounds 20 --json out.json
    python benchmarks/fleet_faults.py --report pg.json nats.json --write-docs
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from fleet_log import KINDS, arguments_of

from amplitude_async import Amplitude, Delivery, DeliveryStatus
from amplitude_async.cli.demo.fleet.parties import KEY
from amplitude_async.cli.demo.fleet.scene import Comparison, Scene
from amplitude_async.fleet import Relay
from amplitude_async.fleet.addresses import log_at

__all__ = ["FAULTS", "Round", "main"]

DOCS: Final = Path(__file__).parents[1] / "docs" / "operate" / "fleet-faults.md"
LEASE: Final = 2.0
WARM_UP: Final = 400
ZOMBIE: Final = 6.0
STEP_LIMIT: Final = 60.0
HEAD: Final = (
    "fault",
    "log",
    "rounds",
    "events",
    "lost",
    "out of order",
    "sent twice, median (most)",
    "longest `track`, s",
    "silence, median (longest), s",
)
MOST_SPELLS: Final = 500
FULL_BYTES: Final = 4 * 1024 * 1024


@dataclass
class Round:
    """What came of one fault."""

    log: str
    fault: str
    confirmed: int
    lost: int
    reordered: int
    doubled: int
    longest_track: float
    """Seconds that a verb took, at the most; 0 where the producer was killed."""
    silence: float
    """Longest time in which nothing arrived at the server, in seconds."""
    took: float
    troubles: list[str]
    load: float


Fault = Callable[[Scene], Awaitable[None]]


async def kill_relay(scene: Scene) -> None:
    """SIGKILL."""
    await _running_relays(scene)[0].end(signal.SIGKILL)


async def stop_relay(scene: Scene) -> None:
    """SIGTERM: it gives its partitions back."""
    await _running_relays(scene)[0].end(signal.SIGTERM)


async def pause_relay(scene: Scene) -> None:
    """SIGSTOP for three leases: a zombie with events in its memory."""
    relay = _running_relays(scene)[0]
    relay.send(signal.SIGSTOP)
    await asyncio.sleep(ZOMBIE)
    relay.send(signal.SIGCONT)


async def kill_producer(scene: Scene) -> None:
    """SIGKILL, right after verbs returned."""
    await next(p for p in scene.producers if p.runs).end(signal.SIGKILL)


async def kill_leader(scene: Scene) -> None:
    """SIGKILL of the server that takes writes, and its start."""
    number = await scene.servers.leader()
    await scene.servers.kill(number)
    await scene.servers.start_again(number)


async def kill_follower(scene: Scene) -> None:
    """SIGKILL of another server, and its start."""
    number = (await scene.servers.leader() + 1) % scene.servers.size
    await scene.servers.kill(number)
    await scene.servers.start_again(number)


async def kill_all(scene: Scene, down: float = 0.0) -> None:
    """SIGKILL of all servers, and their start after so many seconds."""
    size = scene.servers.size
    await asyncio.gather(*(scene.servers.kill(n) for n in range(size)))
    await asyncio.sleep(down)
    await asyncio.gather(*(scene.servers.start_again(n) for n in range(size)))


async def pause_leader(scene: Scene) -> None:
    """SIGSTOP of the server that takes writes, for six seconds."""
    number = await scene.servers.leader()
    scene.servers.suspend(number)
    await asyncio.sleep(ZOMBIE)
    scene.servers.resume(number)


FAULTS: Final[dict[str, tuple[Fault, tuple[str, ...]]]] = {
    "relay killed": (kill_relay, KINDS),
    "relay stopped (SIGTERM)": (stop_relay, KINDS),
    "relay paused for 3 leases": (pause_relay, KINDS),
    "producer killed": (kill_producer, KINDS),
    "leader killed": (kill_leader, ("nats",)),
    "follower killed": (kill_follower, ("nats",)),
    "all servers killed": (kill_all, KINDS),
    "leader paused for 6 s": (pause_leader, ("nats",)),
}
FULL: Final = "log full"
"""The one fault that needs a small log, and is made in one process."""


def _running_relays(scene: Scene) -> list[Any]:
    return [relay for relay in scene.relays if relay.runs]


class _Silence:
    """Watches for the longest time without an arrival."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.longest = 0.0

    async def watch(self) -> None:
        newest, since = self._scene.arrived, time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            if self._scene.arrived != newest:
                newest, since = self._scene.arrived, now
            self.longest = max(self.longest, now - since)


async def play(kind: str, name: str) -> Round:
    """Play one round on servers of its own."""
    fault, _ = FAULTS[name]
    began = time.monotonic()
    with TemporaryDirectory(prefix="fleet-faults-") as folder:
        async with Scene(kind, Path(folder), lease=LEASE) as scene:
            for _ in range(2):
                await scene.add_relay()
            for _ in range(2):
                await scene.add_producer()
            await scene.go_on(WARM_UP, STEP_LIMIT)
            silence = _Silence(scene)
            watching = asyncio.create_task(silence.watch())
            await fault(scene)
            await scene.go_on(WARM_UP, STEP_LIMIT)
            watching.cancel()
            await scene.settle(STEP_LIMIT)
            found = await scene.compare()
            accounts = [p.account for p in scene.producers if p.account]
    return _round(
        kind,
        name,
        found,
        began=began,
        longest_track=max(map(_longest, accounts), default=0.0),
        silence=silence.longest,
    )


def _round(
    kind: str,
    fault: str,
    found: Comparison,
    *,
    began: float,
    longest_track: float,
    silence: float = 0.0,
) -> Round:
    """Write down what came of a fault, and how the machine was."""
    return Round(
        log=kind,
        fault=fault,
        confirmed=found.confirmed,
        lost=found.lost,
        reordered=found.reordered,
        doubled=found.doubled,
        longest_track=round(longest_track, 3),
        silence=round(silence, 2),
        took=round(time.monotonic() - began, 1),
        troubles=found.troubles,
        load=round(os.getloadavg()[0], 1),
    )


def _longest(account: str) -> float:
    return float(account.partition("longest=")[2].split(" ", 1)[0])


async def play_full(kind: str) -> Round:
    """Fill a small log while no relay runs, then let one run."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="fleet-faults-") as folder:
        async with Scene(kind, Path(folder), lease=LEASE) as scene:
            options: dict[str, Any] = {"project": "small", "max_bytes": FULL_BYTES}
            log = log_at(scene.servers.address, **options)
            await log.setup(1)
            await log.close()
            longest, confirmed, troubles = await _fill(scene, options)
            arrived = {event["insert_id"] for event in scene.emulator.events}
            found = replace(
                await scene.compare(),
                confirmed=len(confirmed),
                lost=len(confirmed - arrived),
                troubles=troubles,
            )
    return _round(kind, FULL, found, began=began, longest_track=longest)


async def play_outage(kind: str, seconds: float) -> Round:
    """Let no server run for a while; the producers have a spool under the log."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="fleet-faults-") as folder:
        async with Scene(kind, Path(folder), lease=LEASE) as scene:
            for _ in range(2):
                await scene.add_relay()
                await scene.add_producer(users=4, spooled=True, confirm=0.05)
            await scene.go_on(WARM_UP, STEP_LIMIT)
            await kill_all(scene, seconds)
            await scene.go_on(WARM_UP, STEP_LIMIT)
            # What lies in the spools goes before what comes: all of it in order.
            await asyncio.sleep(min(seconds, STEP_LIMIT))
            await scene.settle(2 * STEP_LIMIT)
            found = await scene.compare()
            accounts = [p.account for p in scene.producers if p.account]
    left = [one for one in accounts if "dropped=0 stored=0" not in one]
    return _round(
        kind,
        f"no server for {seconds:.0f} s, spool",
        replace(found, troubles=[*found.troubles, *left]),
        began=began,
        longest_track=max(map(_longest, accounts), default=0.0),
    )


async def _fill(
    scene: Scene, options: dict[str, Any]
) -> tuple[float, set[str], list[str]]:
    """Fill the log and drain it; seconds of a verb, what it took, what is wrong."""
    client = Amplitude(handover=log_at(scene.servers.address, **options))
    async with client:
        longest, handles = await _track_until_full(client)
        was_full = client.stats.pending > 0
        relay = Relay(
            log_at(scene.servers.address, **options),
            [Amplitude(KEY, server_url=scene.emulator.httpapi_url)],
            lease=LEASE,
        )
        async with relay:
            await client.flush(STEP_LIMIT)
            wanted = {
                one.insert_id
                for one in handles
                if one.result and one.result.status is DeliveryStatus.HANDED_OVER
            }
            await scene.until(lambda: scene.arrived >= len(wanted), STEP_LIMIT)
        troubles = [] if client.stats.balanced else ["unbalanced producer"]
        if not was_full:
            troubles.append("the log was never full")
        dropped = len(handles) - len(wanted)
        if dropped:
            troubles.append(f"{dropped} events did not end as handed over")
    return longest, wanted, troubles


async def _track_until_full(client: Amplitude) -> tuple[float, list[Delivery]]:
    longest, handles = 0.0, []
    for number in range(MOST_SPELLS):
        if client.stats.pending:
            break
        # Thirty users at once, 10 kB each.
        began = time.monotonic()
        handles += await asyncio.gather(
            *(
                client.track(
                    "Tick",
                    user_id=f"p0-user-{user}",
                    event_properties={"n": number, "pad": "x" * 10_000},
                )
                for user in range(30)
            )
        )
        longest = max(longest, time.monotonic() - began)
        await asyncio.sleep(0.02)  # a log may look once a second how full it is
    return longest, handles


def chosen(kind: str, only: str) -> Iterator[str]:
    """Name the faults that apply to a log, and that were asked for."""
    for name in (*FAULTS, FULL):
        kinds = FAULTS[name][1] if name in FAULTS else KINDS
        if kind in kinds and only in name:
            yield name


async def run(arguments: argparse.Namespace) -> list[Round]:
    """Play all rounds; each is written down as it ends."""
    rounds: list[Round] = []
    for number in range(arguments.rounds):
        for name in chosen(arguments.log, arguments.only):
            try:
                game = play_full(arguments.log) if name == FULL else None
                found = await (game or play(arguments.log, name))
            except Exception as error:  # noqa: BLE001 - told, and the next round goes on
                print(f"{arguments.log} {name} {number}: failed: {error!r}", flush=True)
                continue
            rounds.append(found)
            print(number, json.dumps(asdict(found)), flush=True)
            if arguments.json:
                text = json.dumps([asdict(one) for one in rounds], indent=1)
                arguments.json.write_text(text)
    return rounds


# The report -----------------------------------------------------------------


def table(rounds: list[Round]) -> str:
    """Draw the table of all rounds, a line for each fault and log."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    names = {"postgres": "PostgreSQL", "nats": "JetStream"}
    others = sorted({r.fault for r in rounds} - {*FAULTS, FULL})
    for name in (*FAULTS, FULL, *others):
        for kind in KINDS:
            found = [r for r in rounds if (r.log, r.fault) == (kind, name)]
            if not found:
                continue
            doubled = [r.doubled for r in found]
            silence = [r.silence for r in found]
            lines.append(
                f"| {name} | {names[kind]} | {len(found)} "
                f"| {sum(r.confirmed for r in found):,} "
                f"| {sum(r.lost for r in found)} | {sum(r.reordered for r in found)} "
                f"| {median(doubled):.0f} ({max(doubled)}) "
                f"| {max(r.longest_track for r in found):.2f} "
                f"| {median(silence):.1f} ({max(silence):.1f}) |"
            )
    return "\n".join(lines)


def report(files: list[Path], *, write: bool) -> None:
    """Print the table of what was measured before, or put it into the page."""
    rounds = [Round(**one) for file in files for one in json.loads(file.read_text())]
    text = table(rounds)
    print(text)
    for one in rounds:
        if one.lost or one.reordered or one.troubles:
            print(asdict(one))
    if write:
        page = DOCS.read_text("utf-8")
        start, end = "<!-- rounds -->\n", "\n<!-- end of rounds -->"
        before, rest = page.split(start)
        machine = f"Measured with Python {platform.python_version()} on two cores."
        after = rest.split(end)[1]
        DOCS.write_text(f"{before}{start}{text}\n\n{machine}{end}{after}", "utf-8")


def main() -> int:
    """Read the arguments and run."""
    parser = arguments_of(__doc__, "nats")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a fault's name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--down", type=float, help="one outage of so many seconds")
    parser.add_argument("--report", type=Path, nargs="+")
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.report, write=arguments.write_docs)
        return 0
    if arguments.down:
        rounds = [asyncio.run(play_outage(arguments.log, arguments.down))]
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(one) for one in rounds]))
        print(rounds)
    else:
        rounds = asyncio.run(run(arguments))
    print(table(rounds))
    wrong = [one for one in rounds if one.lost or one.reordered or one.troubles]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
