"""The plots of a run, as SVG and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from study import Row, Study, cpu, lag, rate, track, weight

__all__ = ["STYLE", "colour", "draw", "save"]

OURS: Final = "#1f6feb"
FLOOR: Final = "#8c959f"
OTHER: Final = "#d0a25c"
DPI: Final = 110

# The same run gives the same file, so that the page's history shows changes alone.
STYLE: Final = {
    "svg.hashsalt": "amplitude_async",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(study: Study, folder: Path) -> None:
    """Draw every plot that the run has figures for."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        _bars(
            study,
            "burst",
            cpu,
            title="CPU µs per delivered event",
            target=folder / "cpu",
        )
        _bars(
            study,
            "slow",
            rate,
            title="events/s, server of 100 ms",
            target=folder / "slow",
        )
        _bars(
            study,
            "memory",
            weight,
            title="bytes per waiting event",
            target=folder / "memory",
        )
        _ranges(
            study,
            "burst",
            _TRACK,
            title="cost of one track, µs",
            target=folder / "track",
        )
        _ranges(
            study,
            "paced 10000",
            _LAG,
            title="loop lag, ms, 10,000/s",
            target=folder / "lag",
        )


_TRACK: Final = {name: track(name) for name in ("p50", "p99", "p99.9")}
_LAG: Final = {name: lag(name) for name in ("p50", "p99", "max")}


def colour(label: str) -> str:
    """Choose the colour of an SDK: ours, the floor or another."""
    if label.startswith("ours"):
        return OURS
    return FLOOR if label.startswith(("floor", "no SDK")) else OTHER


def _labels(study: Study, figure: str, value: Callable[[Row], float]) -> list[str]:
    labels = [la for la in study.labels(figure) if not la.endswith(" mparticle")]
    return sorted(labels, key=lambda la: study.median(figure, la, value) or 0)[::-1]


def _bars(
    study: Study,
    figure: str,
    value: Callable[[Row], float],
    *,
    title: str,
    target: Path,
) -> None:
    labels = _labels(study, figure, value)
    if not labels:
        return
    values = [study.median(figure, label, value) or 0 for label in labels]
    shape, axes = _axes(labels, title)
    axes.barh(labels, values, color=[colour(label) for label in labels])
    for index, found in enumerate(values):
        shown = f" {found:,.0f}" if found >= 100 else f" {found:.1f}"
        axes.text(found, index, shown, va="center", fontsize=8)
    save(shape, target)


def _ranges(
    study: Study,
    figure: str,
    values: dict[str, Callable[[Row], float]],
    *,
    title: str,
    target: Path,
) -> None:
    labels = _labels(study, figure, next(iter(values.values())))
    if not labels:
        return
    shape, axes = _axes(labels, f"{title} ({', '.join(values)})")
    axes.set_xscale("log")
    for index, label in enumerate(labels):
        found = [study.median(figure, label, value) or 0 for value in values.values()]
        axes.plot(found, [index] * len(found), color=colour(label), linewidth=1.5)
        for size, x in zip((26, 38, 52), found, strict=True):
            axes.scatter(x, index, s=size, color=colour(label))
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(axis="x", alpha=0.3)
    save(shape, target)


def _axes(labels: Sequence[str], title: str) -> tuple[Any, Any]:
    shape, axes = plt.subplots(figsize=(7.2, 0.8 + 0.24 * len(labels)))
    axes.set_title(title, loc="left", fontsize=10)
    return shape, axes


def save(shape: Any, target: Path) -> None:
    """Write a plot as SVG and PNG, and forget it."""
    shape.tight_layout()
    shape.savefig(target.with_suffix(".svg"), metadata={"Date": None})
    shape.savefig(target.with_suffix(".png"), dpi=DPI)
    plt.close(shape)
