"""The demo's report: what was counted on the way, what must agree, and whether."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from amplitude_async import Stats
from amplitude_async.cli.replay import Replay
from amplitude_async.cli.totals import Ledger, Totals

__all__ = ["Report", "print_report"]

_COUNTERS = ("accepted", "delivered", "rejected", "dropped", "retries", "requests")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo found out."""

    seconds: float
    """From the start to the last event's outcome."""

    replay: Replay
    """The requests to the service."""

    served: int
    """Purchases the service took."""

    stats: Stats
    """The client's account after its shutdown."""

    log: Ledger
    """What the log says."""

    server: Ledger
    """What the server stored."""

    @property
    def ok(self) -> bool:
        """Whether every purchase arrived, once, unchanged and in order."""
        return not self.problems()

    def problems(self) -> list[str]:
        """Return a sentence for each thing that does not agree."""
        found = [*self._on_the_way(), *self._at_the_server()]
        # Alone it is no problem: a retry may have mended it.
        if found and self.stats.last_error:
            found.append(f"the client's last error: {self.stats.last_error}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        counters = {name: getattr(self.stats, name) for name in _COUNTERS}
        return {
            "ok": self.ok,
            "problems": self.problems(),
            "seconds": round(self.seconds, 3),
            "served": self.served,
            **counters,
            "balanced": self.stats.balanced,
            "log": self.log.totals().as_json(),
            "emulator": self.server.totals().as_json(),
            "customers_in_order": self.log.customers_equal_to(self.server),
        }

    def _on_the_way(self) -> Iterator[str]:
        if self.replay.failed:
            yield (
                f"requests to the service that failed: {self.replay.failed:,}, "
                f"the first: {self.replay.first_failure}"
            )
        expected = self.log.totals().purchases
        for name, count in (
            ("served", self.served),
            ("accepted", self.stats.accepted),
            ("delivered", self.stats.delivered),
        ):
            if count != expected:
                yield f"purchases {name}: {count:,}, in the log: {expected:,}"
        if not self.stats.balanced:
            yield "the client's account does not add up"

    def _at_the_server(self) -> Iterator[str]:
        log, server = self.log.totals(), self.server.totals()
        for name, expected, found in _pairs(log, server):
            if expected != found:
                yield f"{name} at the emulator: {found:,}, in the log: {expected:,}"
        same = self.log.customers_equal_to(self.server)
        if same != log.customers:
            yield (
                "customers whose purchases did not arrive complete and in order: "
                f"{log.customers - same:,}"
            )


def print_report(report: Report, console: Console) -> None:
    """Print the report as tables, and a verdict."""
    console.print(_way(report))
    console.print(_comparison(report))
    if report.ok:
        count = report.log.totals().purchases
        console.print(
            f"All {count:,} purchases arrived, each once and in order, "
            f"in {report.seconds:.1f} s.",
            style="green",
            highlight=False,
        )
    for problem in report.problems():
        # Not markup: a problem may quote what a server said.
        console.print(problem, style="red", markup=False, highlight=False)


def _way(report: Report) -> Table:
    table = Table(title="On the way", title_justify="left", min_width=40)
    table.add_column("step")
    table.add_column("count", justify="right")
    stats = report.stats
    for step, count in (
        ("requests served", report.served),
        ("events accepted", stats.accepted),
        ("events delivered", stats.delivered),
        ("events rejected", stats.rejected),
        ("events dropped", stats.dropped),
        ("retries", stats.retries),
        ("requests sent", stats.requests),
    ):
        table.add_row(step, f"{count:,}")
    return table


def _comparison(report: Report) -> Table:
    table = Table(title="Where they went", title_justify="left", min_width=40)
    table.add_column("total")
    for name in ("in the log", "at the emulator", "same"):
        table.add_column(name, justify="right")
    log, server = report.log.totals(), report.server.totals()
    for name, expected, found in _pairs(log, server):
        table.add_row(name, f"{expected:,}", f"{found:,}", _tick(expected == found))
    same = report.log.customers_equal_to(report.server)
    table.add_row(
        "customers in order",
        f"{log.customers:,}",
        f"{same:,}",
        _tick(log.customers == same),
    )
    return table


def _pairs(log: Totals, server: Totals) -> list[tuple[str, Any, Any]]:
    return [
        (name, getattr(log, name), getattr(server, name))
        for name in ("purchases", "customers", "units", "revenue")
    ]


def _tick(same: object) -> str:
    return "yes" if same else "NO"
