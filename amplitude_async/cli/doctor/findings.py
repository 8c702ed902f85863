"""What an examination finds: one line each, with a verdict and a remedy."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, NamedTuple

from rich.text import Text

from amplitude_async.cli.terminal import printable

__all__ = ["Finding", "Verdict", "as_lines", "findings_json", "is_well"]

_LONGEST: Final = 500


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and may not be meant so."""
    TROUBLE = "trouble"
    """No event arrives, or with wrong contents."""
    SKIPPED = "skipped"
    """It was not asked for, or makes no sense here."""


class Finding(NamedTuple):
    """One line of the examination."""

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""


_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.TROUBLE: "red",
    Verdict.SKIPPED: "dim",
}


def as_lines(finding: Finding) -> Iterable[Text]:
    """Show a finding to a person."""
    line = Text(f"{finding.verdict.upper():8}", style=_STYLES[finding.verdict])
    line.append(f"{finding.check:9}", style="bold")
    line.append(printable(finding.text, _LONGEST), style="default")
    yield line
    if finding.remedy:
        yield Text(f"{'':17}-> {printable(finding.remedy, _LONGEST)}")


def is_well(findings: Iterable[Finding]) -> bool:
    """Say whether nothing stands in the way."""
    return all(one.verdict is not Verdict.TROUBLE for one in findings)


def findings_json(findings: list[Finding]) -> dict[str, Any]:
    """Return what was found as JSON values."""
    return {
        "well": is_well(findings),
        "findings": [
            {**one._asdict(), "verdict": one.verdict.value} for one in findings
        ],
    }
