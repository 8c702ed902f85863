"""Draw a fleet: producers, a log, relays; the picture in docs/operate/fleet.md."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["PICTURE", "draw", "main"]

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "fleet.svg"

SVG = "http://www.w3.org/2000/svg"
WIDTH, HEIGHT = 760, 566
# The colours are those of the emulator's page, and the picture paints its own ground.
STYLE = """\
text { font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 13px }
.name { font-weight: 600 }
.middle { text-anchor: middle }
.line { fill: none; stroke-width: 1.5; stroke: #596273 }
.again { stroke-dasharray: 5 4 }
.head { fill: #596273 }
.ground { fill: #ffffff; stroke: #e3e6ec }
.band { fill: #f3f4f8; stroke: #e3e6ec }
.box { fill: #eceefd; stroke: #3f4dcc }
.place { fill: #e2f4ea; stroke: #17703f }
.dead { fill: #fdeceb; stroke: #b3231b }
.vendor { fill: #ffffff; stroke: #596273 }
.name { fill: #1a1d24 }
.said { fill: #596273 }
@media (prefers-color-scheme: dark) {
.line { stroke: #9ca5b4 }
.head { fill: #9ca5b4 }
.ground { fill: #171a20; stroke: #2a2f39 }
.band { fill: #101217; stroke: #2a2f39 }
.box { fill: #232947; stroke: #9aa8ff }
.place { fill: #17301f; stroke: #6dcf98 }
.dead { fill: #3a1f1f; stroke: #ff9a90 }
.vendor { fill: #171a20; stroke: #9ca5b4 }
.name { fill: #e6e8ed }
.said { fill: #9ca5b4 }
}
"""
ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5"'
    ' markerHeight="5" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker>'
    "</defs>"
)


class Box(NamedTuple):
    """Something with a name, and a word of what it does."""

    kind: str
    x: int
    y: int
    width: int
    height: int
    name: str
    says: str = ""

    @property
    def middle(self) -> float:
        """Where its arrows begin and end."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> int:
        """Where it ends."""
        return self.y + self.height


PRODUCERS: Sequence[Box] = (
    Box("box", 24, 44, 224, 62, "a service", "memory under it, or a spool"),
    Box("box", 268, 44, 224, 62, "a service", "memory under it, or a spool"),
    Box("box", 512, 44, 224, 62, "a worker", "memory under it, or a spool"),
)
LOG = Box("band", 24, 172, 712, 112, "the log", "PostgreSQL, or JetStream on 3 servers")
PLACES: Sequence[Box] = (
    Box("place", 40, 212, 124, 54, "amplitude.0", "chunk by chunk"),
    Box("place", 174, 212, 124, 54, "amplitude.1", "chunk by chunk"),
    Box("place", 308, 212, 124, 54, "mparticle.0", "chunk by chunk"),
    Box("place", 442, 212, 124, 54, "mparticle.1", "chunk by chunk"),
)
DEAD = Box("dead", 586, 212, 134, 54, "dead letters", "kept for people")
RELAYS: Sequence[Box] = (
    Box("box", 40, 350, 258, 62, "a relay", "has amplitude.0 and mparticle.0"),
    Box("box", 442, 350, 278, 62, "a relay", "has amplitude.1 and mparticle.1"),
)
# Which relay has which of the places.
CLAIMS: Sequence[tuple[int, int]] = ((0, 0), (2, 0), (1, 1), (3, 1))
VENDORS: Sequence[Box] = (
    Box("vendor", 96, 480, 202, 42, "Amplitude"),
    Box("vendor", 442, 480, 202, 42, "mParticle"),
)


def draw() -> str:
    """Return the picture as SVG."""
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    ground = f'x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="8"'
    return "\n".join(
        (
            f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {HEIGHT}" {size} role="img">',
            "<title>A fleet: services hand over to a log, relays deliver</title>",
            f"<style>\n{STYLE}</style>",
            ARROW_HEAD,
            f'<rect class="ground" {ground}/>',
            *_lines(),
            "</svg>",
            "",
        )
    )


def _lines() -> Iterator[str]:
    yield _text(24, 30, "Amplitude(handover=log): no key here", "said")
    yield _rect(LOG)
    yield _text(LOG.x + 16, LOG.y + 26, LOG.name, "name")
    yield _text(LOG.x + 76, LOG.y + 26, LOG.says, "said")
    yield from _handing_over()
    yield from _claiming()
    yield from _delivering()
    for box in (*PRODUCERS, *PLACES, DEAD, *RELAYS, *VENDORS):
        yield from _box(box)


def _handing_over() -> Iterator[str]:
    for box in PRODUCERS:
        yield _arrow(f"M{box.middle:g} {box.bottom + 2}V{LOG.y - 3}")
    for (left, right), words in zip(
        pairwise(PRODUCERS),
        (
            ("chunks, under an id", "until the log answers"),
            ("by identity:", "in order"),
        ),
        strict=True,
    ):
        x = (left.middle + right.middle) / 2
        for line, word in enumerate(words):
            yield _text(x, 134 + 18 * line, word, "said middle")


def _claiming() -> Iterator[str]:
    for place, relay in CLAIMS:
        box, owner = PLACES[place], RELAYS[relay]
        share = 0.25 if place in (0, 1) else 0.46
        x = owner.x + owner.width * share
        start, end = box.bottom + 2, owner.y - 3
        yield _arrow(
            f"M{box.middle:g} {start}C{box.middle:g} {start + 44} {x:g} {end - 44}"
            f" {x:g} {end}"
        )
    yield _text(370, 372, "each is claimed by", "said middle")
    yield _text(370, 390, "one relay at a time", "said middle")
    x = RELAYS[1].x + RELAYS[1].width - 67
    yield _arrow(f"M{x} {RELAYS[1].y - 2}V{DEAD.bottom + 3}", "again")
    yield _text(x - 8, 318, "rejected", "said end")


def _delivering() -> Iterator[str]:
    for relay in RELAYS:
        for vendor in VENDORS:
            near = abs(relay.middle - vendor.middle) < WIDTH / 4
            x = vendor.middle + (0 if near else 60 if vendor is VENDORS[0] else -60)
            start, end = relay.bottom + 2, vendor.y - 3
            yield _arrow(
                f"M{relay.middle:g} {start}C{relay.middle:g} {start + 40} {x:g}"
                f" {end - 40} {x:g} {end}"
            )
    yield _text(WIDTH / 2, 548, "the rate is divided among relays", "said middle")


def _box(box: Box) -> Iterator[str]:
    yield _rect(box)
    middle = box.y + box.height / 2
    yield _text(box.middle, middle + (-4 if box.says else 5), box.name, "name middle")
    if box.says:
        yield _text(box.middle, middle + 15, box.says, "said middle")


def _rect(box: Box) -> str:
    return (
        f'<rect class="{box.kind}" x="{box.x}" y="{box.y}" width="{box.width}"'
        f' height="{box.height}" rx="6"/>'
    )


def _arrow(path: str, kind: str = "") -> str:
    name = f"line {kind}".strip()
    return f'<path class="{name}" marker-end="url(#head)" d="{path}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    anchor = ' text-anchor="end"' if "end" in kind.split() else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{anchor}>{escape(text)}</text>'


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
