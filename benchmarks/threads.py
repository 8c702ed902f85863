"""What a verb costs the threads that call it: ``python benchmarks/threads.py``.

Sixteen threads track at once, as the workers of a threaded server do; each SDK in a
process and an environment of its own, in shuffled rounds. With ``--write-docs`` the
table of docs/performance.md is replaced.

Two clocks run at the caller. The *wall* time of a call holds what other threads did
meanwhile: one interpreter runs one of them at a time. The *CPU* time of the calling
thread, as the system counts it, is what the call itself costs.
"""

# ruff: noqa: S603 - every command line is made of names in this folder

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
from typing import Any, Final

from environments import HERE, command, ensure, version_of
from run import machine, sink

__all__ = ["main"]

PAGE: Final = HERE.parent / "docs" / "performance.md"
RUNNERS: Final = {
    "ours (SyncAmplitude)": ("plain", "ours_sync"),
    "segment": ("segment", "segment"),
    "amplitude": ("amplitude", "amplitude"),
    "posthog": ("posthog", "posthog"),
}
OURS: Final = "ours (SyncAmplitude)"
COLUMNS: Final = ("p50", "p99", "p999", "cpu", "lost")


def _run(label: str, url: str, *options: str) -> dict[str, Any]:
    environment, peer = RUNNERS[label]
    start = [*command(environment, "peers/threads.py"), peer, url, *options]
    environ = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    ended = subprocess.run(
        start, capture_output=True, check=True, env=environ, text=True, timeout=300
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _measure(rounds: int, options: list[str]) -> dict[str, list[dict[str, Any]]]:
    chance = random.Random(1)
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in RUNNERS}
    with sink() as url:
        for number in range(rounds):
            for label in chance.sample(list(RUNNERS), len(RUNNERS)):
                found[label].append(_run(label, url, *options))
                print(number, label, found[label][-1], file=sys.stderr)
    return found


def _table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    medians = {
        label: {c: statistics.median(run[c] for run in runs) for c in COLUMNS}
        for label, runs in found.items()
    }
    lines = [
        "| SDK | wall p50 µs | spread | p99 | CPU per call µs | ÷ ours | lost |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for label, values in sorted(medians.items(), key=lambda item: item[1]["p50"]):
        pairs = zip(found[label], found[OURS], strict=True)
        ratio = statistics.median(run["cpu"] / ours["cpu"] for run, ours in pairs)
        usual = [run["p50"] for run in found[label]]
        lines.append(
            f"| {label} | {values['p50']:.1f} | {min(usual):.1f} to {max(usual):.1f} | "
            f"{values['p99']:,.0f} | {values['cpu']:.1f} | {ratio:.1f} | "
            f"{values['lost']:,.0f} |"
        )
    return lines


def _write(lines: list[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = "\n".join(["<!-- bench:threads -->", *lines, "<!-- /bench:threads -->"])
    mark = r"<!-- bench:threads -->.*<!-- /bench:threads -->"
    PAGE.write_text(re.sub(mark, lambda _: block, text, flags=re.DOTALL), "utf-8")


def main() -> None:
    """Run every SDK, print the table, and put it into the page where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    for environment in ("tools", *(environment for environment, _ in RUNNERS.values())):
        ensure(environment)
    load = os.getloadavg()[0]
    options = [str(given.threads), str(given.events)]
    found = _measure(given.rounds, options)
    releases = ", ".join(version_of(RUNNERS[x][0]) for x in RUNNERS if x != OURS)
    about = machine()
    where = f"{about['cores']} cores, Python {about['python']}"
    setup = f"{given.threads} threads, {given.events} events each"
    told = (
        f"Measured {about['date']} on {where}, load average {load:.1f} before; "
        f"{setup}, medians of {given.rounds} rounds. Releases: {releases}."
    )
    lines = [
        told,
        "",
        *_table(found),
    ]
    print("\n".join(lines))
    if given.write_docs:
        _write(lines)


if __name__ == "__main__":
    main()
