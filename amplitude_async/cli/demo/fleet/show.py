"""The demo of a fleet: one of each is killed, and nothing is lost."""

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amplitude_async.cli.demo.fleet.scene import Comparison, Scene
from amplitude_async.cli.demo.stage import Stage

__all__ = ["FleetReport", "run_fleet_demo"]

WARM_UP: Final = 1_000
GOES_ON: Final = 1_000
LIMIT: Final = 60.0
NAMES: Final = {"postgres": "PostgreSQL", "nats": "NATS JetStream on three servers"}


@dataclass(frozen=True)
class FleetReport:
    """What came of it."""

    kind: str
    """Of the log."""
    seconds: float
    """That it took in all."""
    killed: list[str]
    """Who was, in words."""
    comparison: Comparison
    """Of what was confirmed and what arrived."""

    @property
    def ok(self) -> bool:
        """True where nothing was lost or out of order."""
        return self.comparison.ok

    def as_json(self) -> dict[str, Any]:
        """Give it as an object of JSON."""
        found = self.comparison
        return {
            "log": self.kind,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "killed": self.killed,
            "confirmed": found.confirmed,
            "arrived": found.arrived,
            "lost": found.lost,
            "reordered": found.reordered,
            "sent_twice": found.doubled,
            "troubles": found.troubles,
        }

    def lines(self) -> list[str]:
        """Give it as lines of text."""
        found = self.comparison
        told = [
            f"killed: {', '.join(self.killed)}",
            f"{found.confirmed:,} events were confirmed by the log",
            f"{found.arrived:,} arrived at the server",
            f"{found.doubled:,} were sent twice under their insert id, and count once",
            f"lost: {found.lost:,}; out of order: {found.reordered:,}",
            *found.troubles,
        ]
        verdict = "Nothing was lost." if self.ok else "Something is wrong: see above."
        return [*told, f"{verdict} ({self.seconds:.0f} s)"]


async def run_fleet_demo(
    kind: str, folder: Path, stage: Stage | None = None
) -> FleetReport:
    """Bring up a log, two relays and a producer; kill one of each.

    Args:
        kind: of log: ``"postgres"`` or ``"nats"``.
        folder: an empty one, for all that is stored.
        stage: where a person looks on.

    Raises:
        LogServersError: a log cannot be started here.
    """
    began = time.monotonic()
    stage = stage or Stage()
    killed: list[str] = []
    stage.act(f"{NAMES.get(kind, kind)} starts, and a local Amplitude.")
    async with Scene(kind, folder) as scene:
        stage.act("two relays start, and a producer that tracks for eight users.")
        await scene.add_relay()
        await scene.add_relay()
        await scene.add_producer()
        await scene.go_on(WARM_UP, LIMIT)

        stage.act("a relay is killed (SIGKILL); the other takes its partitions over.")
        await scene.relays[0].end(signal.SIGKILL)
        killed.append("a relay")
        await scene.go_on(GOES_ON, LIMIT)

        number = await scene.servers.leader()
        stage.act("the server that leads the log is killed, and starts again.")
        await scene.servers.kill(number)
        await scene.servers.start_again(number)
        killed.append("the log's leading server")
        await scene.go_on(GOES_ON, LIMIT)

        stage.act("the producer is killed; another one goes on.")
        await scene.producers[0].end(signal.SIGKILL)
        killed.append("the producer")
        await scene.add_producer()
        await scene.go_on(GOES_ON, LIMIT)

        stage.act("the producer ends, and what the log confirmed is compared.")
        await scene.settle()
        found = await scene.compare()
    return FleetReport(kind, time.monotonic() - began, killed, found)
