"""Draw the road of an event with every exit, the picture in docs/index.md."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["PICTURE", "draw", "exits", "main"]

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "exits.svg"

SVG = "http://www.w3.org/2000/svg"
WIDTH = 760
LEFT, ROAD_WIDTH = 16, 238
EXITS, PILL = 288, 104
TOP, LINE, GAP = 20, 24, 26
PADDING = 9
KINDS = {
    "DELIVERED": "good",
    "HANDED_OVER": "good",
    "REJECTED": "bad",
    "DROPPED": "warn",
    "STORED": "kept",
}
# The colours are those of the emulator's page, and the picture paints its own ground.
STYLE = """\
text { font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 13px }
.name { font-weight: 600 }
.status { font-size: 11.5px; font-weight: 650; text-anchor: middle }
.line { fill: none; stroke-width: 1.5; stroke: #596273 }
.head { fill: #596273 }
.ground { fill: #ffffff; stroke: #e3e6ec }
.box { fill: #eceefd; stroke: #3f4dcc }
.name { fill: #1a1d24 }
.said { fill: #596273 }
.good { fill: #17703f } .good-back { fill: #e2f4ea }
.bad { fill: #b3231b } .bad-back { fill: #fdeceb }
.warn { fill: #85560a } .warn-back { fill: #fdf3dd }
.kept { fill: #3f4dcc } .kept-back { fill: #eceefd }
@media (prefers-color-scheme: dark) {
.line { stroke: #9ca5b4 }
.head { fill: #9ca5b4 }
.ground { fill: #171a20; stroke: #2a2f39 }
.box { fill: #232947; stroke: #9aa8ff }
.name { fill: #e6e8ed }
.said { fill: #9ca5b4 }
.good { fill: #6dcf98 } .good-back { fill: #17301f }
.bad { fill: #ff9a90 } .bad-back { fill: #3a1f1f }
.warn { fill: #ecb85f } .warn-back { fill: #35290f }
.kept { fill: #9aa8ff } .kept-back { fill: #232947 }
}
"""
ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5"'
    ' markerHeight="5" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker>'
    "</defs>"
)


class Exit(NamedTuple):
    """One end that an event can come to, and when it does."""

    status: str
    says: str
    reason: str = ""


class Stretch(NamedTuple):
    """One stretch of the road, and where it can be left."""

    name: str
    says: str
    exits: Sequence[Exit]


ROAD: Sequence[Stretch] = (
    Stretch(
        "await client.track(...)",
        "the event is accepted",
        (
            Exit("DROPPED", "you asked for it", "opt_out"),
            Exit("DROPPED", "after shutdown()", "closed"),
            Exit("DROPPED", "every destination was removed", "no_destination"),
        ),
    ),
    Stretch(
        "plugins",
        "add fields, or shed the event",
        (Exit("DROPPED", "one returned None, or failed", "plugin"),),
    ),
    Stretch(
        "local check",
        "would the server take it?",
        (Exit("REJECTED", "the message names field and remedy"),),
    ),
    Stretch(
        "queue",
        "memory, or the spool on the disk",
        (
            Exit("DROPPED", "it is full, and stays so", "overflow"),
            Exit("DROPPED", "older than max_event_age", "expired"),
            Exit("DROPPED", "client.purge()", "purged"),
            Exit("DROPPED", "a forked child: the parent has it", "fork"),
            Exit("DROPPED", "the deadline came first", "shutdown"),
            Exit("STORED", "in the spool, for the next process"),
        ),
    ),
    Stretch(
        "request",
        "sent again until it is answered",
        (Exit("DROPPED", "its requests broke, others passed", "retries"),),
    ),
    Stretch(
        "the server's answer",
        "a verdict on each event",
        (
            Exit("REJECTED", "the server's words, or a refused key"),
            Exit("DELIVERED", "the server took it"),
            Exit("HANDED_OVER", "in its place a fleet's log took it"),
        ),
    ),
    Stretch(
        "anywhere",
        "and the log has the traceback",
        (Exit("DROPPED", "a fault of ours", "internal"),),
    ),
)


def exits() -> Iterator[Exit]:
    """Yield every exit of the picture."""
    for stretch in ROAD:
        yield from stretch.exits


def draw() -> str:
    """Return the picture as SVG."""
    tops = list(_tops())
    height = tops[-1] + _height(ROAD[-1]) + TOP
    size = f'width="{WIDTH}" height="{height}"'
    ground = f'x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"'
    return "\n".join(
        (
            f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height}" {size} role="img">',
            "<title>The road of an event, with every exit</title>",
            f"<style>\n{STYLE}</style>",
            ARROW_HEAD,
            f'<rect class="ground" {ground}/>',
            *(
                line
                for stretch, top in zip(ROAD, tops, strict=True)
                for line in _stretch(stretch, top)
            ),
            *_ways(tops),
            "</svg>",
            "",
        )
    )


def _tops() -> Iterator[int]:
    top = TOP
    for stretch in ROAD:
        yield top
        top += _height(stretch) + GAP


def _height(stretch: Stretch) -> int:
    return 2 * PADDING + LINE * max(len(stretch.exits), 2) - 4


def _ways(tops: Sequence[int]) -> Iterator[str]:
    """Yield the arrows from one stretch to the next; "anywhere" is none of them."""
    x = LEFT + ROAD_WIDTH / 2
    for top in tops[1:-1]:
        yield _arrow(f"M{x:g} {top - GAP + 1}V{top - 2}")


def _stretch(stretch: Stretch, top: int) -> Iterator[str]:
    height = _height(stretch)
    middle = top + height / 2
    yield (
        f'<rect class="box" x="{LEFT}" y="{top}" width="{ROAD_WIDTH}"'
        f' height="{height}" rx="6"/>'
    )
    yield _text(LEFT + 14, middle - 4, stretch.name, "name")
    yield _text(LEFT + 14, middle + 15, stretch.says, "said")
    first = middle - LINE * (len(stretch.exits) - 1) / 2
    for number, one in enumerate(stretch.exits):
        yield from _exit(one, first + number * LINE)


def _exit(one: Exit, y: float) -> Iterator[str]:
    kind = KINDS[one.status]
    yield _arrow(f"M{LEFT + ROAD_WIDTH + 2} {y:g}H{EXITS - 4}")
    yield (
        f'<rect class="{kind}-back" x="{EXITS}" y="{y - 10:g}" width="{PILL}"'
        ' height="20" rx="10"/>'
    )
    yield _text(EXITS + PILL / 2, y + 4, one.status, f"status {kind}")
    x = EXITS + PILL + 8
    if one.reason:
        yield _text(x, y + 4.5, one.reason, "name")
        x += 112
    yield _text(x, y + 4.5, one.says, "said")


def _arrow(path: str) -> str:
    return f'<path class="line" marker-end="url(#head)" d="{path}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the picture, or write it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into the docs")
    if parser.parse_args(arguments).write:
        PICTURE.write_text(draw(), encoding="utf-8")
    else:
        print(draw(), end="")


if __name__ == "__main__":
    main()
