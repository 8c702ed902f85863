"""Measure every SDK on the same course: ``nox -s bench`` or this script.

Each figure comes from a fresh process that sends to a sink on 127.0.0.1. Jobs are
shuffled in every round, so that what else the machine does falls on all alike; ratios
compare runs of one round, and what is shown is the median over the rounds.

The outcome lies in ``benchmarks/out``: results.json, report.txt and plots. With
``--write-docs`` the tables and plots of docs/performance.md are replaced as well.
"""

# ruff: noqa: S603 - every command line is made of names in this folder

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from environments import HERE, command, ensure, python_of, version_of

__all__ = [
    "OURS",
    "OUT",
    "PEERS",
    "SNAPSHOT",
    "Job",
    "Plan",
    "Result",
    "Runner",
    "ask",
    "machine",
    "main",
    "sink",
    "take_snapshot",
]

OUT: Final = HERE / "out"
SNAPSHOT: Final = OUT / "tree"
TIMEOUT: Final = 300.0
SLOW_ANSWER: Final = 0.1


@dataclass(frozen=True)
class Runner:
    """One SDK in one configuration."""

    label: str
    environment: str
    script: str
    tuning: str = "default"


FLOOR: Final = Runner("floor", "plain", "floor.py")
OURS: Final = Runner("ours", "plain", "peers/ours.py")
OURS_FAST: Final = Runner("ours + speed", "ours", "peers/ours.py")
OURS_TUNED: Final = Runner("ours tuned", "ours", "peers/ours.py", "tuned")
AMPLITUDE: Final = Runner("amplitude", "amplitude", "peers/amplitude_python.py")
NOTHING: Final = Runner("no SDK", "plain", "peers/nothing.py")
FLOOR_MPARTICLE: Final = Runner("floor mparticle", "plain", "floor_mparticle.py")
OURS_MPARTICLE: Final = Runner("ours mparticle", "plain", "peers/ours_mparticle.py")


def _tunings(label: str, environment: str, script: str, *names: str) -> list[Runner]:
    shown = {"default": label}
    return [
        Runner(shown.get(name, f"{label} {name}"), environment, script, name)
        for name in names
    ]


PEERS: Final = [
    AMPLITUDE,
    *_tunings("amplitude", "amplitude", "peers/amplitude_python.py", "tuned"),
    *_tunings(
        "segment",
        "segment",
        "peers/segment_python.py",
        "default",
        "lossless",
        "tuned",
    ),
    *_tunings(
        "posthog",
        "posthog",
        "peers/posthog_threaded.py",
        "default",
        "lossless",
        "tuned",
    ),
    *_tunings(
        "posthog async",
        "posthog",
        "peers/posthog_async.py",
        "default",
        "lossless",
        "tuned",
    ),
    *_tunings(
        "rudder", "rudder", "peers/rudder_python.py", "default", "lossless", "tuned"
    ),
    *_tunings("snowplow", "snowplow", "peers/snowplow_python.py", "default", "tuned"),
    *_tunings(
        "mparticle",
        "mparticle",
        "peers/mparticle_python.py",
        "default",
        "tuned",
        "twenty",
    ),
    *_tunings("analytics-node", "node", "peers/amplitude_node.cjs", "default", "tuned"),
]
QUICK_PEERS: Final = {"amplitude", "segment tuned", "snowplow tuned"}

# One configuration of each that loses nothing, where queues matter.
LOSSLESS: Final = {
    "amplitude",
    "segment lossless",
    "posthog lossless",
    "posthog async lossless",
    "rudder lossless",
    "snowplow tuned",
    "mparticle",
    "analytics-node",
}


@dataclass(frozen=True)
class Job:
    """One process to run."""

    figure: str
    """What it measures; rows of one figure are compared with each other."""

    runner: Runner
    mode: str
    sink: str
    options: tuple[str, ...] = ()
    rounds: int = 5


@dataclass
class Result:
    """What one process reported, and what arrived."""

    figure: str
    label: str
    round: int
    events: int
    client: dict[str, Any] = field(default_factory=dict)
    sink: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Plan:
    """Which jobs are run, and how often."""

    def __init__(self, *, quick: bool, rounds: int) -> None:
        self.quick = quick
        self.rounds = 2 if quick else rounds
        self.events = 20_000 if quick else 50_000

    def jobs(self, runners: Sequence[Runner]) -> list[Job]:
        """List every job of one round."""
        ours = [r for r in runners if r.script.endswith("ours.py")]
        sending = [r for r in runners if r is not NOTHING]
        jobs = [self._check(runner) for runner in sending]
        jobs += [self._burst(runner) for runner in sending]
        lossless = [r for r in runners if r.label in LOSSLESS]
        default = [r for r in ours if r.tuning == "default"]
        jobs += [self._slow(runner) for runner in [*default, *lossless]]
        jobs += [self._memory(runner) for runner in [OURS, *lossless]]
        paced = [NOTHING, *default, *lossless]
        jobs += [self._paced(runner, rate) for runner in paced for rate in self.rates]
        jobs += [self._large(runner) for runner in [NOTHING, *default]]
        jobs += self._growth()
        forms = ("--events", "30000")
        jobs.append(Job("forms", OURS, "forms", "fast", forms, self.rounds))
        return jobs

    @property
    def rates(self) -> tuple[int, ...]:
        """Events a second of the paced runs."""
        return (10_000,) if self.quick else (2_000, 10_000)

    def _check(self, runner: Runner) -> Job:
        # Here the sink parses every body: too slow to be the far end of a measurement.
        return Job("check", runner, "burst", "checking", ("--events", "5000"), 1)

    def _burst(self, runner: Runner) -> Job:
        options = ("--events", str(self.events))
        return Job("burst", runner, "burst", "fast", options, self.rounds)

    def _slow(self, runner: Runner) -> Job:
        # The others need 20 seconds for what takes us one.
        events = "5000" if self.quick else "20000"
        rounds = 1 if self.quick else min(self.rounds, 3)
        return Job("slow", runner, "burst", "slow", ("--events", events), rounds)

    def _memory(self, runner: Runner) -> Job:
        events = "20000" if self.quick else "100000"
        rounds = 1 if self.quick else min(self.rounds, 3)
        return Job("memory", runner, "memory", "stalled", ("--events", events), rounds)

    def _paced(self, runner: Runner, rate: int) -> Job:
        seconds = "1.5" if self.quick else "6"
        options = ("--rate", str(rate), "--seconds", seconds)
        rounds = 1 if self.quick else min(self.rounds, 3)
        return Job(f"paced {rate}", runner, "paced", "fast", options, rounds)

    def _large(self, runner: Runner) -> Job:
        seconds = "1.5" if self.quick else "6"
        options = ("--rate", "10000", "--seconds", seconds, "--padding", "950")
        return Job("large", runner, "paced", "fast", options, min(self.rounds, 3))

    def _growth(self) -> Iterator[Job]:
        warm = ("--warmup", "2000")
        few = (*warm, "--events", "10000")
        yield Job("growth base", OURS, "burst", "fast", few, self.rounds)
        if self.quick:
            return
        many = (*warm, "--events", "1000000", "--users", "10000")
        waiting = (*warm, "--events", "100000")
        rounds = min(self.rounds, 3)
        yield Job("growth events", OURS, "burst", "fast", many, rounds)
        yield Job("growth waiting", OURS, "backlog", "fast", waiting, rounds)


# Running ----------------------------------------------------------------------


@contextmanager
def sink(*options: str) -> Iterator[str]:
    """Run a sink for as long as the block takes; gives its URL."""
    start = [python_of("tools"), str(HERE / "sink.py"), *options]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            msg = "the sink has no output"
            raise RuntimeError(msg)
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def ask(url: str, path: str) -> dict[str, Any]:
    """Ask a sink for its totals, or tell it something."""
    with urllib.request.urlopen(url + path) as answer:  # noqa: S310 - loopback
        figures: dict[str, Any] = json.load(answer)
        return figures


def _run(job: Job, number: int, url: str) -> Result:
    ask(url, "/__reset")
    options = ["--url", url, "--tuning", job.runner.tuning, *job.options]
    start = [*command(job.runner.environment, job.runner.script), job.mode, *options]
    named = dict(zip(job.options[::2], job.options[1::2], strict=True))
    result = Result(job.figure, job.runner.label, number, int(named.get("--events", 0)))
    try:
        ended = subprocess.run(
            start,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "PYTHONPATH": str(SNAPSHOT)},
        )
        result.client = json.loads(ended.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        result.problem = f"not done after {TIMEOUT:g} s"
    except (IndexError, ValueError):
        lines = ended.stderr.strip().splitlines() or ["it said nothing"]
        result.problem = next((x for x in lines if "Error" in x), lines[-1])[:200]
    result.sink = ask(url, "/__totals")
    # The warm-up arrived as well, and does not count.
    result.sink["distinct"] -= int(named.get("--warmup", 0))
    result.events = result.client.get("events", result.events)
    return result


def _rounds(
    plan: Plan, runners: Sequence[Runner], only: str, seed: int
) -> Iterator[Result]:
    chance = random.Random(seed)
    jobs = [job for job in plan.jobs(runners) if job.figure.startswith(only)]
    total = sum(job.rounds for job in jobs)
    began, done = time.monotonic(), 0
    with ExitStack() as stack:
        urls = {
            "fast": stack.enter_context(sink()),
            "checking": stack.enter_context(sink("--check")),
            "slow": stack.enter_context(sink("--delay", str(SLOW_ANSWER))),
            "stalled": stack.enter_context(sink("--stall")),
        }
        for number in range(plan.rounds):
            due = [job for job in jobs if number < job.rounds]
            chance.shuffle(due)
            for job in due:
                result = _run(job, number, urls[job.sink])
                done += 1
                spent = time.monotonic() - began
                print(
                    f"{done}/{total} {spent:4.0f} s  {job.figure}: {job.runner.label}"
                    f" {result.problem}",
                    file=sys.stderr,
                )
                yield result


def _runners(*, quick: bool) -> list[Runner]:
    """List what can be run here, its environments made."""
    wanted = [FLOOR, OURS, OURS_FAST, OURS_TUNED, NOTHING]
    wanted += [p for p in PEERS if not quick or p.label in QUICK_PEERS]
    found = [runner for runner in wanted if ensure(runner.environment)]
    probe = [
        python_of("plain"),
        "-c",
        "from amplitude_async.mparticle import MParticle",
    ]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        found += [FLOOR_MPARTICLE, OURS_MPARTICLE]
    return found


def take_snapshot() -> None:
    """Copy the package, so that work on it during the run changes no figure."""
    shutil.rmtree(SNAPSHOT, ignore_errors=True)
    package = "amplitude_async"
    shutil.copytree(
        HERE.parent / package,
        SNAPSHOT / package,
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def machine() -> dict[str, Any]:
    """Describe this machine and how busy it is."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _bounds(given: argparse.Namespace) -> None:
    """See how long one step of ours holds the loop where everything is full."""
    target = OUT / "bounds.json"
    if not given.report_only:
        measure = [python_of("ours"), str(HERE / "bounds.py"), "--json"]
        with target.open("w", encoding="utf-8") as figures:
            subprocess.run(
                [*measure, *["--quick"] * given.quick], stdout=figures, check=True
            )
    report = [python_of("tools"), str(HERE / "bounds_report.py"), str(target)]
    subprocess.run([*report, *["--write-docs"] * given.write_docs], check=True)


def main() -> None:
    """Run the benchmark and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in under two minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="figures that start so")
    parser.add_argument("--report-only", action="store_true", help="of the last run")
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    # Ended from outside, it must still end its sinks.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ensure("tools")
    OUT.mkdir(exist_ok=True)
    target = OUT / "results.json"
    if not given.report_only:
        take_snapshot()
        runners = _runners(quick=given.quick)
        where = machine()
        plan = Plan(quick=given.quick, rounds=given.rounds)
        results = list(_rounds(plan, runners, given.only, given.seed))
        names = dict.fromkeys(r.environment for r in runners)
        content = {
            "machine": where,
            "quick": given.quick,
            "rounds": plan.rounds,
            "versions": [version_of(name) for name in names if name != "ours"],
            "results": [asdict(result) for result in results],
        }
        target.write_text(json.dumps(content, indent=1), encoding="utf-8")
    report = [python_of("tools"), str(HERE / "report.py"), str(target)]
    subprocess.run([*report, *["--write-docs"] * given.write_docs], check=True)
    if not given.only:
        _bounds(given)


if __name__ == "__main__":
    main()
