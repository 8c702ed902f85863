"""The demo's report: what was counted on the way, what must agree, and whether."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from amplitude_async import Stats
from amplitude_async.cli.demo.replay import Replay
from amplitude_async.cli.demo.totals import Accounts, Totals
from amplitude_async.emulator import EmulatorStats

__all__ = ["Busy", "Crash", "Report", "print_report"]

_COUNTERS = ("accepted", "delivered", "rejected", "dropped", "retries", "requests")


@dataclass(frozen=True, slots=True)
class Crash:
    """What is known of a killed service; its counters died with it."""

    killed_at: int
    """How many purchases were through."""

    duplicates: int
    """Events that reached the server twice, and were stored once."""


@dataclass(frozen=True, slots=True)
class Busy:
    """What a busy server made of the requests it got."""

    taken: int
    """Requests answered with 200."""

    refused: int
    """Requests answered with 503, whose events had to come again."""


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

    log: Accounts
    """What the log says."""

    server: Accounts
    """What the server stored."""

    trouble: EmulatorStats | None = None
    """The server's counters, where it was told to fail."""

    crash: Crash | None = None
    """Where the service was killed; the client's account begins after that."""

    busy: Busy | None = None
    """What the server took, where it was told to be busy."""

    mparticle: Accounts | None = None
    """What mParticle's side of the server stored, where it was fed too."""

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
            **{name: count for name, _, count in self.troubles()},
            "balanced": self.stats.balanced,
            "log": self.log.totals().as_json(),
            "emulator": self.server.totals().as_json(),
            "customers_in_order": self.log.customers_equal_to(self.server),
            **self._second_vendor(),
        }

    def _second_vendor(self) -> dict[str, Any]:
        if self.mparticle is None:
            return {}
        account = self.stats.destinations["mparticle"]
        return {
            "mparticle": {
                **self.mparticle.totals().as_json(),
                "customers_in_order": self.log.customers_equal_to(self.mparticle),
                **{name: getattr(account, name) for name in _COUNTERS},
                "balanced": account.balanced,
            }
        }

    def sides(self) -> Iterator[tuple[str, Accounts]]:
        """Yield each place that must have every purchase, and what it has."""
        yield "the emulator", self.server
        if self.mparticle is not None:
            yield "mParticle", self.mparticle

    def troubles(self) -> Iterator[tuple[str, str, int]]:
        """Yield key, words and count of what went wrong; nothing on a calm day."""
        if self.crash is not None:
            yield "killed_at", "service killed at purchase", self.crash.killed_at
            yield "repeated", "requests repeated, no answer", self.replay.repeated
            yield "recovered", "recovered after restart", self.stats.recovered
        if self.busy is not None:
            yield "taken", "requests taken by the busy server", self.busy.taken
            yield "refused", "requests refused by it (503)", self.busy.refused
        if self.trouble is not None:
            seen = self.trouble
            yield "faults", "faults fired", seen.faults_fired
            yield "connections_dropped", "connections dropped", seen.connections_dropped
        witness = self.trouble or self.crash
        if witness is not None:
            yield "duplicates", "duplicates removed by insert_id", witness.duplicates

    def _on_the_way(self) -> Iterator[str]:
        if self.replay.failed:
            yield (
                f"requests to the service that failed: {self.replay.failed:,}, "
                f"the first: {self.replay.first_failure}"
            )
        expected = self.log.totals().purchases
        for name, count in self._must_be_all():
            if count != expected:
                yield f"purchases {name}: {count:,}, in the log: {expected:,}"
        lost = self.stats.accepted + self.stats.recovered - self.stats.delivered
        if self.crash is not None and lost:
            yield f"events not delivered after the restart: {lost:,}"
        if not self.stats.balanced:
            yield "the client's account does not add up"
        for name, account in self.stats.destinations.items():
            if account.delivered != expected or not account.balanced:
                yield (
                    f"purchases delivered to {name}: {account.delivered:,}, "
                    f"in the log: {expected:,}"
                )

    def _must_be_all(self) -> Iterator[tuple[str, int]]:
        yield "served", self.served
        if self.crash is None:
            yield "accepted", self.stats.accepted
            yield "delivered", self.stats.delivered

    def _at_the_server(self) -> Iterator[str]:
        log = self.log.totals()
        for place, accounts in self.sides():
            for name, expected, found in _pairs(log, accounts.totals()):
                if expected != found:
                    yield f"{name} at {place}: {found:,}, in the log: {expected:,}"
            same = self.log.customers_equal_to(accounts)
            if same != log.customers:
                yield (
                    "customers whose purchases did not arrive complete and in order"
                    f"{'' if accounts is self.server else f' at {place}'}: "
                    f"{log.customers - same:,}"
                )


def print_report(report: Report, console: Console) -> None:
    """Print the report as tables, and a verdict."""
    console.print(_way(report))
    for place, accounts in report.sides():
        console.print(_comparison(report.log, place, accounts))
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
    title = "On the way"
    if report.crash is not None:
        title += " (events: since the restart)"
    table = Table(title=title, title_justify="left", min_width=40)
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
        *((words, count) for _, words, count in report.troubles()),
    ):
        table.add_row(step, f"{count:,}")
    return table


def _comparison(log: Accounts, place: str, accounts: Accounts) -> Table:
    table = Table(title="Where they went", title_justify="left", min_width=40)
    table.add_column("total")
    for name in ("in the log", f"at {place}", "same"):
        table.add_column(name, justify="right")
    wanted = log.totals()
    for name, expected, found in _pairs(wanted, accounts.totals()):
        table.add_row(name, f"{expected:,}", f"{found:,}", _tick(expected == found))
    same = log.customers_equal_to(accounts)
    table.add_row(
        "customers in order",
        f"{wanted.customers:,}",
        f"{same:,}",
        _tick(wanted.customers == same),
    )
    return table


def _pairs(log: Totals, server: Totals) -> list[tuple[str, Any, Any]]:
    return [
        (name, getattr(log, name), getattr(server, name))
        for name in ("purchases", "customers", "units", "revenue")
    ]


def _tick(same: object) -> str:
    return "yes" if same else "NO"
