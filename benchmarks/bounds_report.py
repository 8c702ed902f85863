"""Table of a run of bounds.py, for the terminal and for the page on performance."""

import argparse
import json
from pathlib import Path
from typing import Any

from report import PAGE, Table, print_tables, write_page

__all__ = ["main"]


def _table(content: dict[str, Any]) -> Table:
    noise = content["noise"]
    rows = [
        [
            hold["scene"],
            f"{hold['step'] * 1e3:.1f}",
            f"{hold['step'] / noise:.1f}",
            f"{hold['garbage'] * 1e3:.1f}",
        ]
        for hold in sorted(content["holds"], key=lambda hold: -hold["step"])
    ]
    columns = ["at the bounds", "longest step ms", "x noise", "garbage ms"]
    return Table("bounds", "Longest hold of the loop at the bounds", columns, rows)


def main() -> None:
    """Report on a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    content = json.loads(given.results.read_text(encoding="utf-8"))
    table = _table(content)
    noise = f"{content['noise'] * 1e3:.1f} ms"
    print_tables([table], given.results.with_suffix(".txt"))
    print(f"The machine's own noise: {noise}")
    if given.write_docs:
        words = f"The machine's own noise in this run: {noise}."
        write_page({"bounds": f"{words}\n\n{table.markdown()}"}, PAGE)


if __name__ == "__main__":
    main()
