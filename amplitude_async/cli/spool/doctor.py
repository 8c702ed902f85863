"""What an examination of a spool found, shown to people and to machines."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import typer

from amplitude_async.cli.spool.tables import file_json, holdings, owner
from amplitude_async.cli.terminal import printable
from amplitude_async.storage.spool.checkup import Checked, Finding

__all__ = ["checkup_json", "print_checkup"]

_LONGEST = 500
_NARROWEST = 40


def print_checkup(found: Iterable[Checked]) -> bool:
    """Print what was found as it is found; returns whether all is well."""
    count = bad = 0
    for one in found:
        count += 1
        bad += not one.well
        typer.echo(f"{'ok' if one.well else 'TROUBLE':9}{_safe(one.name)}")
        for line in _lines(one):
            typer.echo(_filled(line))
    typer.echo(
        f"{bad:,} of {count:,} {'needs' if bad == 1 else 'need'} a person."
        if bad
        else "All is well."
    )
    return not bad


def _lines(one: Checked) -> Iterable[str]:
    if one.status is not None:
        yield f"{owner(one.status)}, for {_safe(one.status.destination)}"
        yield from holdings([one.status])
    for finding in one.findings:
        yield f"{finding.level}: {_safe(finding.text)}"
        yield f"  -> {_safe(finding.remedy)}"


def _filled(line: str) -> str:
    """Break a line between words, as wide as the terminal is."""
    indent = 9 + len(line) - len(line.lstrip())
    return textwrap.fill(
        line.lstrip(),
        max(shutil.get_terminal_size().columns, _NARROWEST),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        # A path or a command is copied whole.
        break_long_words=False,
        break_on_hyphens=False,
    )


def _safe(text: str) -> str:
    return printable(text, _LONGEST)


def checkup_json(found: Sequence[Checked]) -> dict[str, Any]:
    """Return what was found as JSON values."""
    return {
        "well": all(one.well for one in found),
        "checked": [
            {
                "name": one.name,
                "well": one.well,
                "holds": None if one.status is None else file_json(one.status),
                "findings": [_finding_json(each) for each in one.findings],
            }
            for one in found
        ],
    }


def _finding_json(finding: Finding) -> dict[str, str]:
    return {**asdict(finding), "level": finding.level.value}
