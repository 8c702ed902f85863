"""Table and plot of a run of busy.py, for the terminal and for two pages."""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from plots import STYLE, colour, save
from report import PAGE, PLOTS, Table, print_tables, write_page

__all__ = ["main"]

FAULTS: Final = PAGE.parent / "faults.md"
COLUMNS: Final = (
    "SDK",
    "offered/s",
    "delivered",
    "lost",
    "requests per request taken",
    "events per request taken",
    "s to drain",
    "doubled",
)


@dataclass(frozen=True)
class Line:
    """The medians of one SDK at one server."""

    label: str
    offered: float
    """Events a second."""

    share: float
    lost: float
    """Events that never came."""

    asked: float
    """Requests per request taken."""

    events: float
    """Events per request taken."""

    drained: float | None
    """Seconds; None where a round lost something."""

    duplicates: float

    @classmethod
    def of(cls, label: str, runs: list[dict[str, Any]], seconds: float) -> "Line":
        """Take the medians of some rounds, and the worst of what must not happen."""
        drained = [run["drained_s"] for run in runs]
        return cls(
            label=label,
            offered=median(run["offered"] for run in runs) / seconds,
            share=min(run["delivered"] / run["offered"] for run in runs),
            lost=max(run["lost"] for run in runs),
            asked=median(run["requests"] / max(run["taken"], 1) for run in runs),
            events=median(
                (run["offered"] - run["lost"]) / max(run["taken"], 1) for run in runs
            ),
            drained=None if None in drained else median(drained),
            duplicates=max(run["duplicates"] for run in runs),
        )

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sort by what matters: what was lost, how soon the rest came, at what cost."""
        late = self.drained
        return -self.share, math.inf if late is None else late, self.asked

    @property
    def shown_share(self) -> str:
        """Say what arrived; all of it only where it was all."""
        return f"{int(self.share * 1000) / 10:.1f} %"

    @property
    def shown_drained(self) -> str:
        """Say how long it took."""
        return "-" if self.drained is None else f"{self.drained:.1f}"

    def cells(self) -> list[str]:
        """Fill a row of the table."""
        shares = f"{self.offered:,.0f}", self.shown_share, f"{self.lost:,.0f}"
        numbers = f"{self.asked:.2f}", f"{self.events:,.0f}", self.shown_drained
        return [self.label, *shares, *numbers, f"{self.duplicates:,.0f}"]


# The less, the better.
FIGURES: Final[dict[str, Callable[[Line], float]]] = {
    "share delivered in time": lambda line: -line.share,
    "events lost": lambda line: line.lost,
    "s to drain": lambda line: math.inf if line.drained is None else line.drained,
    "requests per request taken": lambda line: line.asked,
    "doubled": lambda line: line.duplicates,
}
DRAIN: Final = 30
ROUNDING: Final = 0.005


def _lines(content: dict[str, Any]) -> dict[str, list[Line]]:
    runs, seconds = content["runs"], content["seconds"]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        found.setdefault(run["server"], {}).setdefault(run["label"], []).append(run)
    order = sorted(found, key=_place)
    return {
        server: sorted(
            (Line.of(label, its, seconds) for label, its in found[server].items()),
            key=lambda line: line.rank,
        )
        for server in order
    }


def _place(server: str) -> int:
    """Put the servers of N requests a second first, the fastest before the others."""
    first = server.partition(" ")[0]
    return -int(first) if first.isdigit() else 0


def _tables(lines: dict[str, list[Line]]) -> list[Table]:
    return [
        Table(
            f"busy-{number}", server, COLUMNS, [line.cells() for line in lines[server]]
        )
        for number, server in enumerate(lines, 1)
    ]


def _draw(lines: dict[str, list[Line]], folder: Path) -> None:
    """Draw the share delivered, and write beside it what that cost."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        rows = max(len(its) for its in lines.values())
        size = (7.2, len(lines) * (0.6 + 0.24 * rows))
        shape, panels = plt.subplots(len(lines), figsize=size, squeeze=False)
        for axes, (server, its) in zip(panels[:, 0], lines.items(), strict=True):
            axes.set_title(
                f"delivered within {DRAIN} s, {server}", loc="left", fontsize=10
            )
            axes.set_xlim(0, 165)
            axes.set_xticks(range(0, 101, 25))
            for place, line in enumerate(reversed(its)):
                percent = line.share * 100
                axes.barh(line.label, percent, color=colour(line.label))
                text = f" {line.shown_share}, {line.asked:.2f} requests per taken"
                late = f", {line.lost:,.0f} lost"
                if line.drained is not None:
                    late = f", {line.shown_drained} s"
                axes.text(percent, place, text + late, va="center", fontsize=8)
        save(shape, folder / "busy")


def _ahead(lines: dict[str, list[Line]]) -> str:
    """List every figure in which another did better than ours."""
    found: list[str] = []
    for server, its in lines.items():
        ours = next((line for line in its if line.label == "ours"), None)
        if ours is None:
            continue
        others = [line for line in its if line is not ours]
        for name, value in FIGURES.items():
            mark = value(ours)
            better = [o for o in others if value(o) < mark - ROUNDING]
            if better:
                shown = ", ".join(
                    f"{o.label} {abs(value(o)):.2f} (delivers {o.shown_share})"
                    for o in better
                )
                found.append(f"- {server}, {name}: ours {abs(mark):.2f}; {shown}")
    return "\n".join(found) or "- In no figure of this run."


def _sittings(count: int) -> str:
    """Say whether some SDKs were measured again later."""
    return "in one go" if count == 1 else f"in {count} sittings"


def _sections(
    content: dict[str, Any], tables: list[Table], ahead: str
) -> dict[str, str]:
    where = content["machine"]
    return {
        "busy": "\n\n".join(f"{t.title}:\n\n{t.markdown()}" for t in tables),
        "busy-ahead": ahead,
        "busy-machine": (
            f"Measured {where['date']} on {where['cores']} cores, Python "
            f"{where['python']}, load average up to {max(content['loads'])} before; "
            f"{content['rounds']} rounds, {_sittings(len(content['loads']))}. "
            f"Releases: {', '.join(content['versions'])}."
        ),
    }


def main() -> None:
    """Report on a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    content = json.loads(given.results.read_text(encoding="utf-8"))
    lines = _lines(content)
    tables = _tables(lines)
    print_tables(tables, given.results.with_suffix(".txt"))
    print(_ahead(lines))
    _draw(lines, given.results.parent)
    if given.write_docs:
        _draw(lines, PLOTS)
        for page in (PAGE, FAULTS):
            write_page(_sections(content, tables, _ahead(lines)), page)


if __name__ == "__main__":
    main()
