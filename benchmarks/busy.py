"""See what each SDK does to a server that is merely busy, and to its own events.

Three servers: one that takes 20 requests a second and answers 503 to the others, one
that takes 5, and one that takes a single request at a time, for 50 ms. Each SDK, in a
fresh process, is offered 4,000 events a second for six seconds, and has 30 more to
bring in what waits. Who is not done then has 90 more, or until nothing new has come for
20: what has not arrived by then is lost. What is counted are requests, since the SDKs
put different numbers of events into one.

The outcome lies in ``benchmarks/out``: busy.json, busy.txt and a plot. With
``--write-docs`` tables and plot of docs/faults.md and docs/performance.md are replaced.
"""

# ruff: noqa: S603 - every command line is made of names in this folder

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from environments import HERE, command, ensure, python_of, version_of
from run import OURS, OUT, PEERS, SNAPSHOT, Runner, ask, machine, sink, take_snapshot

__all__ = ["SERVERS", "Run", "main"]

SERVERS: Final = {
    "20 requests/s": ("--per-second", "20"),
    "5 requests/s": ("--per-second", "5"),
    "one at a time, 50 ms": ("--at-once", "1", "--delay", "0.05"),
}
# One configuration of each whose queue is large enough: what is lost was given up.
MEASURED: Final = {
    "amplitude",
    "segment lossless",
    "posthog lossless",
    "analytics-node",
}
RATE: Final = 4_000
SECONDS: Final = 6.0
DRAIN: Final = 30.0
LAST_CHANCE: Final = 90.0
SILENCE: Final = 20.0
LOOK: Final = 0.1
# Beyond the offering: starting an interpreter, and a blocking call at its end.
PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Run:
    """What one SDK did to one server."""

    server: str
    label: str
    round: int
    offered: int
    delivered: int
    """Within the time."""

    lost: int
    """Not even after the last chance."""

    duplicates: int
    requests: int
    taken: int
    drained_s: float | None
    """From the last offer to the last event; None: some never came."""


def _measure(server: str, runner: Runner, number: int, url: str) -> Run:
    ask(url, "/__reset")
    options = ["--url", url, "--tuning", runner.tuning]
    pace = ["--rate", str(RATE), "--seconds", str(SECONDS)]
    start = [*command(runner.environment, runner.script), "busy", *options, *pace]
    with _process(start) as process:
        offered = json.loads(_line_of(process))
        in_time = _wait_for(url, offered["events"], DRAIN)
        totals = _wait_for(url, offered["events"], LAST_CHANCE, SILENCE)
    lost = offered["events"] - totals["distinct"]
    late = (totals["last_new_ns"] - offered["ended_ns"]) / 1e9
    return Run(
        server=server,
        label=runner.label,
        round=number,
        offered=offered["events"],
        delivered=in_time["distinct"],
        lost=lost,
        duplicates=totals["events"] - totals["distinct"],
        requests=totals["requests"],
        taken=totals["requests"] - totals["refused"],
        drained_s=None if lost else max(late, 0.0),
    )


@contextmanager
def _process(start: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        start,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Some write a line for every request that failed.
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SNAPSHOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line_of(process: "subprocess.Popen[str]") -> str:
    if process.stdout is None:
        msg = "the process has no output"
        raise RuntimeError(msg)
    # A call that never returns is ended from here.
    signal.alarm(int(SECONDS + PATIENCE))
    try:
        return process.stdout.readline()
    finally:
        signal.alarm(0)


def _wait_for(
    url: str, events: int, seconds: float, silence: float = math.inf
) -> dict[str, Any]:
    """Wait for so many events, or until nothing new comes; returns the totals."""
    until = time.monotonic() + seconds
    while True:
        totals = ask(url, "/__totals")
        now = time.monotonic()
        quiet = now - totals["last_new_ns"] / 1e9
        if totals["distinct"] >= events or now >= until or quiet >= silence:
            return totals
        time.sleep(LOOK)


def _runs(rounds: int, only: str, seed: int) -> Iterator[Run]:
    chance = random.Random(seed)
    runners = [OURS, *(peer for peer in PEERS if peer.label in MEASURED)]
    found = [runner for runner in runners if ensure(runner.environment)]
    for number in range(rounds):
        due = [(s, r) for s in SERVERS for r in found if r.label.startswith(only)]
        chance.shuffle(due)
        for server, runner in due:
            # A server of its own: what one left in flight must not reach another's.
            with sink(*SERVERS[server]) as url:
                run = _measure(server, runner, number, url)
            print(run, file=sys.stderr)
            yield run


def _last(target: Path) -> dict[str, Any]:
    """Read what the last run found out."""
    if not target.exists():
        return {}
    content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return content


def _is_named(run: dict[str, Any], only: str) -> bool:
    label: str = run["label"]
    return label.startswith(only)


def main() -> None:
    """Run all of it and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="renew SDKs that start so")
    parser.add_argument("--report-only", action="store_true", help="of the last run")
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    # Ended from outside, it must still end its sinks and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("an SDK did not come back"))
    ensure("tools")
    OUT.mkdir(exist_ok=True)
    target = OUT / "busy.json"
    if not given.report_only:
        take_snapshot()
        where = machine()
        last = _last(target) if given.only else {}
        runs = [run for run in last.get("runs", ()) if not _is_named(run, given.only)]
        runs += [asdict(run) for run in _runs(given.rounds, given.only, given.seed)]
        # Rows that are kept were measured on the machine as it was then.
        loads = [where["load_before"], *last.get("loads", ())]
        names = dict.fromkeys(p.environment for p in PEERS if p.label in MEASURED)
        content = {
            "machine": where,
            "loads": loads,
            "rounds": given.rounds,
            "seconds": SECONDS,
            "versions": [version_of(name) for name in names],
            "runs": runs,
        }
        target.write_text(json.dumps(content, indent=1), encoding="utf-8")
    report = [python_of("tools"), str(HERE / "busy_report.py"), str(target)]
    subprocess.run([*report, *["--write-docs"] * given.write_docs], check=True)


if __name__ == "__main__":
    main()
