"""Tables and plots of a run, for the terminal and for docs/performance.md."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plots import draw
from study import (
    Row,
    Study,
    Target,
    cpu,
    json_size,
    lag,
    peak,
    rate,
    track,
    weight,
)

__all__ = ["PAGE", "PLOTS", "Table", "main", "print_tables", "tables", "write_page"]

ABSENT: Final = "-"
HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parent / "docs" / "performance.md"
PLOTS: Final = HERE.parent / "docs" / "benchmarks"
MPARTICLE: Final = ("ours mparticle", "floor mparticle", "mparticle")


@dataclass(frozen=True)
class Table:
    """Names and figures, the first column text and the others numbers."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Render for the page."""
        head = "| " + " | ".join(self.columns) + " |"
        rule = "|---|" + "--:|" * (len(self.columns) - 1)
        body = ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([head, rule, *body])

    def text(self) -> str:
        """Render for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(
                cell.ljust(width) if not index else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *shown])


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Row], float]
    form: str = "{:,.1f}"


def tables(study: Study) -> list[Table]:
    """Make every table that the run has figures for."""
    made = [
        _verdicts(study),
        _burst(study),
        _plain(study, "slow", "A server that answers after 100 ms", _SLOW),
        _plain(study, "memory", "Memory of a waiting event", _MEMORY),
        *(
            _plain(study, f"paced {speed}", f"An asyncio service, {speed}/s", _PACED)
            for speed in (2_000, 10_000)
        ),
        _plain(study, "large", "10,000 large events a second, 1 MB requests", _PACED),
        _mparticle(study),
    ]
    return [table for table in made if table.rows]


_SPEED: Final = _Column("events/s", rate, "{:,.0f}")
_LOST: Final = _Column("lost", lambda row: row.lost, "{:,.0f}")
_CPU: Final = _Column("CPU µs/event", cpu)
_SLOW: Final = (_SPEED, _CPU, _LOST)
_MEMORY: Final = (_Column("bytes/event", weight, "{:,.0f}"),)
_PACED: Final = (
    _Column("lag p50 ms", lag("p50"), "{:.2f}"),
    _Column("lag p99 ms", lag("p99"), "{:.2f}"),
    _Column("lag max ms", lag("max")),
    _CPU,
    _LOST,
)
_BURST: Final = (
    _SPEED,
    _Column("track p50 µs", track("p50")),
    _Column("p99", track("p99"), "{:,.0f}"),
    _Column("p99.9", track("p99.9"), "{:,.0f}"),
    _Column("peak RSS MB", peak, "{:,.0f}"),
    _Column("JSON B/event", json_size, "{:,.0f}"),
    _LOST,
)


def _verdicts(study: Study) -> Table:
    def line(target: Target) -> tuple[str, str, str]:
        return target.text, target.found, "met" if target.met else "**missed**"

    rows = [line(target) for target in study.targets()]
    return Table("targets", "Targets", ("target", "found", "verdict"), rows)


def _cells(
    study: Study, figure: str, label: str, columns: Sequence[_Column]
) -> list[str]:
    cells = []
    for column in columns:
        found = study.median(figure, label, column.value)
        cells.append(ABSENT if found is None else column.form.format(found))
    return cells


def _by_cost(study: Study, figure: str, value: Callable[[Row], float]) -> list[str]:
    labels = study.labels(figure)
    return sorted(labels, key=lambda label: study.median(figure, label, value) or 0)


def _plain(study: Study, figure: str, title: str, columns: Sequence[_Column]) -> Table:
    first = columns[0].value if figure == "memory" else cpu
    order = _by_cost(study, figure, first)
    if figure == "slow":
        order = _by_cost(study, figure, rate)[::-1]
    rows = [[label, *_cells(study, figure, label, columns)] for label in order]
    titles = [column.title for column in columns]
    return Table(figure.replace(" ", "-"), title, ["SDK", *titles], rows)


def _burst(study: Study) -> Table:
    rows = []
    for label in _by_cost(study, "burst", cpu):
        if label.endswith(" mparticle"):
            continue
        floor = study.ratio("burst", label, "floor", cpu)
        peer = study.ratio("burst", label, "amplitude", cpu)
        ratios = [ABSENT if r is None else f"{r:.2f}" for r in (floor, peer)]
        cost = _cells(study, "burst", label, [_CPU])
        rows.append([label, *cost, *ratios, *_cells(study, "burst", label, _BURST)])
    titles = [column.title for column in _BURST]
    columns = ["SDK", _CPU.title, "÷ floor", "÷ amplitude", *titles]
    return Table("burst", "A burst, as fast as it goes", columns, rows)


def _mparticle(study: Study) -> Table:
    rows = []
    for label in _by_cost(study, "burst", cpu):
        if not label.startswith(MPARTICLE):
            continue
        ratio = study.ratio("burst", label, "floor mparticle", cpu)
        floor = ABSENT if ratio is None else f"{ratio:.2f}"
        cost = _cells(study, "burst", label, [_CPU])
        rows.append([label, *cost, floor, *_cells(study, "burst", label, _BURST)])
    titles = [column.title for column in _BURST]
    columns = ["SDK", _CPU.title, "÷ floor", *titles]
    return Table("mparticle", "mParticle", columns, rows)


# The page ---------------------------------------------------------------------


def _sections(study: Study) -> dict[str, str]:
    sections = {table.name: table.markdown() for table in tables(study)}
    machine = study.machine
    sections["machine"] = (
        f"Measured {machine['date']} on {machine['cores']} cores "
        f"({machine['processor']}, {machine['system']}, Python {machine['python']}, "
        f"load average {machine['load_before']} before), {study.rounds} rounds"
        f"{', the quick form' if study.quick else ''}. Releases: "
        f"{', '.join(study.versions)}."
    )
    if study.failed:
        labels = ", ".join(sorted({row.label for row in study.failed}))
        sections["machine"] += (
            f" {len(study.failed)} processes failed and are left out ({labels})."
        )
    ahead = [f"- {line}" for line in study.ahead()]
    sections["ahead"] = "\n".join(ahead) or "- In no figure of this run."
    return sections


def write_page(sections: Mapping[str, str], page: Path) -> None:
    """Replace what stands between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if found and closed:
            text = f"{before}{start}\n{content}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def print_tables(made: Sequence[Table], target: Path) -> None:
    """Print tables, and write them as text."""
    plain = "\n\n".join(table.text().replace("**", "") for table in made)
    target.write_text(plain + "\n", encoding="utf-8")
    try:
        from rich.console import Console  # noqa: PLC0415 - a nicety
        from rich.table import Table as Rich  # noqa: PLC0415
    except ImportError:
        print(plain)
        return
    console = Console(width=140)
    for table in made:
        shown = Rich(title=table.title, title_justify="left")
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if index else "left")
        for row in table.rows:
            shown.add_row(*(cell.replace("**", "") for cell in row))
        console.print(shown)


def main() -> None:
    """Report on a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    study = Study.read(given.results)
    folder = given.results.parent
    print_tables(tables(study), folder / "report.txt")
    for line in study.ahead():
        print(f"ahead of us: {line}")
    for row in study.failed:
        print(f"failed: {row.figure} {row.label}: {row.problem}")
    for row in study.rows("check"):
        if row.sink["mismatches"] or row.sink["distinct"] != row.sink["events"]:
            print(f"the sink counted {row.label} in two ways: {row.sink}")
    draw(study, folder)
    if given.write_docs:
        draw(study, PLOTS)
        write_page(_sections(study), PAGE)


if __name__ == "__main__":
    main()
