"""What a run of the benchmark says: medians, ratios of one round, and verdicts."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Row", "Study", "Target"]

FAIR_FORMS: Final = 1.02
"""Two ways to track cost the same within what a clock tells apart."""

NOT_PEERS: Final = ("ours", "floor", "no SDK")


@dataclass(frozen=True)
class Row:
    """One process: who, in which round, with what figures."""

    figure: str
    label: str
    round: int
    events: int
    client: dict[str, Any]
    sink: dict[str, Any]
    problem: str

    @property
    def delivered(self) -> int:
        """Different events that arrived; all of them where there is no SDK."""
        if self.label == "no SDK":
            return self.events
        count: int = self.sink["distinct"]
        return count

    @property
    def cpu_us(self) -> float:
        """CPU time of the client per delivered event."""
        return float(self.client["cpu_s"]) * 1e6 / max(self.delivered, 1)

    @property
    def per_second(self) -> float:
        """Delivered events between the first ``track`` and the last byte."""
        span = self.sink["last_byte_ns"] - self.client["started_ns"]
        return float(self.delivered * 1e9 / span)

    @property
    def lost(self) -> int:
        """Events that never arrived."""
        return self.events - self.delivered


@dataclass(frozen=True)
class Target:
    """One target of the project and what this run says to it."""

    text: str
    found: str
    met: bool


class Study:
    """All rows of a run."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = content["machine"]
        self.versions: list[str] = content["versions"]
        self.rounds: int = content["rounds"]
        self.quick: bool = content["quick"]
        rows = [Row(**result) for result in content["results"]]
        self.failed = [row for row in rows if row.problem]
        self._rows = [row for row in rows if not row.problem]

    @classmethod
    def read(cls, path: Path) -> "Study":
        """Read the results of a run."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    # Reading -----------------------------------------------------------------

    def rows(self, figure: str, label: str | None = None) -> list[Row]:
        """List the rows of a figure, of one label or of all."""
        return [
            row
            for row in self._rows
            if row.figure == figure and label in {None, row.label}
        ]

    def labels(self, figure: str) -> list[str]:
        """List who has a figure, in no special order."""
        return sorted({row.label for row in self.rows(figure)})

    def peers(self, figure: str) -> list[str]:
        """List the other SDKs that have a figure."""
        labels = self.labels(figure)
        return [label for label in labels if not label.startswith(NOT_PEERS)]

    def median(
        self, figure: str, label: str, value: Callable[[Row], float]
    ) -> float | None:
        """Give the median of a value over the rounds; None where there is none."""
        found = [value(row) for row in self.rows(figure, label)]
        return statistics.median(found) if found else None

    def worst(self, figure: str, label: str, value: Callable[[Row], float]) -> float:
        """Give the largest value of all rounds, or 0."""
        return max((value(row) for row in self.rows(figure, label)), default=0.0)

    def ratio(
        self, figure: str, label: str, other: str, value: Callable[[Row], float]
    ) -> float | None:
        """Give the median of the ratios that runs of one round have."""
        others = {row.round: value(row) for row in self.rows(figure, other)}
        found = [
            value(row) / others[row.round]
            for row in self.rows(figure, label)
            if others.get(row.round)
        ]
        return statistics.median(found) if found else None

    # Verdicts ----------------------------------------------------------------

    def targets(self) -> list[Target]:
        """Say of each target whether this run met it; without figures, nothing."""
        return [*self._cost(), *self._caller(), *self._loop(), *self._growth()]

    def _cost(self) -> Iterable[Target]:
        floor = self.ratio("burst", "ours", "floor", cpu)
        if floor is not None:
            text = "CPU per event at most 1.35 times the floor"
            yield Target(text, f"{floor:.2f} times", floor <= 1.35)
        peer = self.ratio("burst", "ours", "amplitude", cpu)
        if peer is not None:
            text = "CPU per event at most 1/8 of amplitude-analytics"
            yield Target(text, f"1/{1 / peer:.1f}", peer <= 1 / 8)
        yield from self._below_peers()
        bytes_each = self.median("memory", "ours", weight)
        size = self.median("burst", "ours", json_size)
        if bytes_each is not None and size is not None:
            text = "memory per waiting event at most twice its JSON + 200 bytes"
            found = f"{bytes_each:.0f} B, JSON {size:.0f} B"
            yield Target(text, found, bytes_each <= 2 * size + 200)
        ours = self.ratio("burst", "ours mparticle", "floor mparticle", cpu)
        if ours is not None:
            text = "mParticle batches of 20: CPU at most 1.35 times their floor"
            yield Target(text, f"{ours:.2f} times", ours <= 1.35)

    def _below_peers(self) -> Iterable[Target]:
        ours = self.median("burst", "ours", cpu)
        others = {
            label: self.median("burst", label, cpu) or 0.0
            for label in self.peers("burst")
            if not label.startswith("analytics-node")
        }
        if ours is None or not others:
            return
        best = min(others, key=lambda label: others[label])
        text = "CPU per event below every Python SDK in its best tuning"
        found = f"{ours:.1f} µs, {best} {others[best]:.1f} µs"
        yield Target(text, found, ours < others[best])

    def _caller(self) -> Iterable[Target]:
        name = self.median("forms", "ours", lambda row: row.client["name"])
        event = self.median("forms", "ours", lambda row: row.client["event"])
        if name is not None and event is not None:
            text = "`track(name, ...)` not dearer than constructing an Event first"
            found = f"{name:.1f} and {event:.1f} µs"
            yield Target(text, found, name <= event * FAIR_FORMS)
        median = self.median("burst", "ours", track("p50"))
        rare = self.median("burst", "ours", track("p99.9"))
        if median is not None and rare is not None:
            text = "`track` p50 at most 10 µs, p99.9 at most 150 µs"
            found = f"{median:.1f} and {rare:.0f} µs"
            yield Target(text, found, median <= 10 and rare <= 150)
        slow = self.median("slow", "ours", rate)
        if slow is not None:
            others = [self.median("slow", p, rate) or 0 for p in self.peers("slow")]
            best = max(others, default=0)
            text = "server of 100 ms: at least 20,000 events/s and more than any other"
            found = f"{slow:,.0f}, the best other {best:,.0f}"
            yield Target(text, found, slow >= 20_000 and slow > best)

    def _loop(self) -> Iterable[Target]:
        for figure, what in (
            ("paced 10000", "10,000 events/s"),
            ("large", "10,000 events/s in 1 MB gzip requests"),
        ):
            p99 = self.median(figure, "ours", lag("p99"))
            if p99 is None:
                continue
            most = self.worst(figure, "ours", lag("max"))
            idle = self.worst(figure, "no SDK", lag("max"))
            text = f"loop lag at {what}: p99 under 2 ms, none over 10 ms"
            found = f"{p99:.1f} and {most:.1f} ms (without SDK {idle:.1f} ms)"
            yield Target(text, found, p99 < 2 and most <= 10)

    def _growth(self) -> Iterable[Target]:
        base = self.median("growth base", "ours", cpu)
        for figure, what in (
            ("growth events", "with 1,000,000 events of 10,000 identities"),
            ("growth waiting", "with 100,000 events waiting in memory"),
        ):
            cost = self.median(figure, "ours", cpu)
            if base and cost:
                text = f"cost per event {what} within 15 % of that of 10,000"
                yield Target(
                    text, f"{(cost / base - 1) * 100:+.0f} %", cost <= base * 1.15
                )

    def ahead(self) -> list[str]:
        """Say in which figures which other SDK is ahead of ours by default."""
        return [line for line in map(self._ahead_in, _COMPARED) if line]

    def _ahead_in(self, compared: "_Compared") -> str:
        ours = self.median(compared.figure, compared.ours, compared.value)
        if ours is None:
            return ""
        better = []
        for peer in self.peers(compared.figure):
            if not peer.startswith(compared.among):
                continue
            theirs = self.median(compared.figure, peer, compared.value)
            if theirs is not None and (theirs - ours) * compared.sign < 0:
                better.append((theirs * compared.sign, peer, theirs))
        if not better:
            return ""
        named = ", ".join(
            f"{peer}{self._loss(compared.figure, peer)} {theirs:,.1f}"
            for _, peer, theirs in sorted(better)
        )
        return f"{compared.text}: {compared.ours} {ours:,.1f}; {named}"

    def _loss(self, figure: str, label: str) -> str:
        """Say how much a label loses on the way to its figure."""
        if figure == "memory":
            return ""
        share = self.median(figure, label, lambda row: row.lost / row.events) or 0
        return f" (loses {share:.0%})" if share else ""


@dataclass(frozen=True)
class _Compared:
    text: str
    figure: str
    value: Callable[[Row], float]
    sign: int = 1
    """1 where less is better, -1 where more is."""

    ours: str = "ours"
    among: str = ""
    """The peers that do the same, by the start of their labels; nothing: all."""


def cpu(row: Row) -> float:
    """CPU per delivered event."""
    return row.cpu_us


def rate(row: Row) -> float:
    """Delivered events per second."""
    return row.per_second


def weight(row: Row) -> float:
    """Resident bytes per waiting event."""
    return float(row.client["bytes_per_event"])


def peak(row: Row) -> float:
    """Peak resident memory of the process in MB."""
    return float(row.client["peak_rss_mb"])


def json_size(row: Row) -> float:
    """Encoded bytes per event, the frame of the request included."""
    size: int = row.sink["body_bytes"]
    return size / max(int(row.sink["events"]), 1)


def track(name: str) -> Callable[[Row], float]:
    """Read a percentile of the caller's cost of one ``track`` in microseconds."""
    return lambda row: float(row.client["track_us"][name])


def lag(name: str) -> Callable[[Row], float]:
    """Read a percentile of how late the event loop was, in milliseconds."""
    return lambda row: float(row.client["lag_ms"][name])


_COMPARED: Final = (
    _Compared("CPU µs per event", "burst", cpu),
    _Compared("events per second to a local server", "burst", rate, -1),
    _Compared("events per second, server of 100 ms", "slow", rate, -1),
    _Compared("`track` p50 µs", "burst", track("p50")),
    _Compared("`track` p99 µs", "burst", track("p99")),
    _Compared("`track` p99.9 µs", "burst", track("p99.9")),
    _Compared("peak memory MB", "burst", peak),
    _Compared("bytes per waiting event", "memory", weight),
    _Compared("loop lag p99 ms at 10,000/s", "paced 10000", lag("p99")),
    _Compared("loop lag max ms at 10,000/s", "paced 10000", lag("max")),
    _Compared("CPU µs per event at 10,000/s", "paced 10000", cpu),
    _Compared("loop lag p99 ms at 2,000/s", "paced 2000", lag("p99")),
    _Compared("CPU µs per event at 2,000/s", "paced 2000", cpu),
    _Compared("CPU µs per event", "burst", cpu, 1, "ours mparticle", "mparticle"),
    _Compared("events per second", "burst", rate, -1, "ours mparticle", "mparticle"),
)
