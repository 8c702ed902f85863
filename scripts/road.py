"""Draw the road of an event, the picture in docs/architecture.md."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["PICTURE", "draw", "main", "rooms"]

PICTURE = Path(__file__).parents[1] / "docs" / "road.svg"

SVG = "http://www.w3.org/2000/svg"
WIDTH = 760
MARGIN = 12
LEFT, SIDE = 150, 492
MAIN_WIDTH, SIDE_WIDTH = 290, 244
TOP, ROW, BOX = 20, 66, 46
GAP = 10
# The picture paints its own ground: a page may have chosen other colours than the
# reader's system, which is all that a picture is told of.
STYLE = """\
text { font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 11.5px }
text.file { font-family: ui-monospace, monospace; font-size: 11.5px }
.file { font-weight: 600 }
.middle { text-anchor: middle }
.line { fill: none; stroke-width: 1.5 }
.back { stroke-dasharray: 5 4 }
.ground { fill: #ffffff; stroke: #c9d1d9 }
.band { fill: #eef1f4 }
.box { fill: #ffffff; stroke: #7d8894 }
.pure { fill: #e3effb; stroke: #2f6fb0 }
.file, .band-name { fill: #1f2328 }
.said { fill: #4a545e }
.line { stroke: #4a545e }
.head { fill: #4a545e }
@media (prefers-color-scheme: dark) {
.ground { fill: #171b20; stroke: #3d444d }
.band { fill: #22272e }
.box { fill: #2d333b; stroke: #7d8894 }
.pure { fill: #1d3a58; stroke: #6aa8e6 }
.file, .band-name { fill: #e6edf3 }
.said { fill: #b6c0ca }
.line { stroke: #b6c0ca }
.head { fill: #b6c0ca }
}
"""
ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5"'
    ' markerHeight="5" orient="auto-start-reverse">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
)


class Room(NamedTuple):
    """One file, or a few of one folder, and what it does on the road."""

    files: str
    says: str
    pure: bool = False
    """It awaits nothing and reads no clock."""


class Step(NamedTuple):
    """One stretch of the road, and whom it asks or tells."""

    room: Room
    beside: Room | None = None
    then: str = ""
    """What goes on to the next step."""


BANDS: Sequence[tuple[str, Sequence[Step]]] = (
    (
        "the caller's task",
        (
            Step(
                Room("amplitude/client.py", "the verbs that a service awaits"),
                Room("amplitude/compose.py", "what was given becomes one event"),
                "event",
            ),
            Step(
                Room("client/base.py", "short road or long; opt-out, shutdown"),
                Room("client/timeline.py", "the long road: plugins, in order"),
                "event",
            ),
            Step(
                Room("client/destination.py", "lets the door judge and encode"),
                Room("amplitude/door.py encoder.py", "as the server would; bytes"),
                "record",
            ),
            Step(
                Room("delivery/intake.py", "a place, or the overflow policy"),
                Room("delivery/room.py", "places by count and bytes, who waits"),
                "record, where the storage is durable",
            ),
            Step(
                Room("delivery/journal.py", "append first: then there is a handle"),
                Room("storage/", "memory, or the spool on the disk"),
                "the queue; alarm.py rings",
            ),
        ),
    ),
    (
        "the flush task",
        (
            Step(
                Room("delivery/flusher.py", "a turn: drains, starts, settles"),
                Room("delivery/reader.py", "in its own task: reads the storage"),
                "records",
            ),
            Step(
                Room("delivery/deciding/schedule.py", "what may go now", pure=True),
                Room(
                    "batcher.py group.py timetable.py",
                    "order per identity, and times",
                    pure=True,
                ),
                "group",
            ),
        ),
    ),
    (
        "a request's task",
        (
            Step(
                Room("delivery/sender.py", "frame, compress, post"),
                Room("delivery/transport.py", "the server, and what came back"),
                "response",
            ),
            Step(
                Room("amplitude/endpoint.py", "what the answer says", pure=True),
                None,
                "verdict",
            ),
            Step(
                Room(
                    "delivery/deciding/rulings.py",
                    "what it means for each event",
                    pure=True,
                ),
                Room("health.py attempts.py", "the pace; failures so far", pure=True),
                "settlements: an event and its outcome",
            ),
            Step(Room("delivery/books.py", "writes each outcome down, once")),
        ),
    ),
)
HEARERS = (
    Room("room.py", "a place is free"),
    Room("handle.py", "the caller"),
    Room("flushes.py", "flush, shutdown"),
    Room("callbacks.py", "task of its own"),
    Room("settling.py", "task of its own"),
)
HEARERS_BAND = "who hears of it"
LEGEND = "Blue: decides, awaits nothing, is told the time. Dashed: the way back."


def rooms() -> Iterator[Room]:
    """Yield every room of the picture."""
    for _, steps in BANDS:
        for step in steps:
            yield step.room
            if step.beside is not None:
                yield step.beside
    yield from HEARERS


def draw() -> str:
    """Return the picture as SVG."""
    steps = sum(len(steps) for _, steps in BANDS)
    height = TOP + (steps + 1) * ROW + 34
    size = f'width="{WIDTH}" height="{height}"'
    ground = f'x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"'
    return "\n".join(
        (
            f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height}" {size} role="img">',
            "<title>The road of an event</title>",
            f"<style>\n{STYLE}</style>",
            ARROW_HEAD,
            f'<rect class="ground" {ground}/>',
            *_bands(),
            *_steps(),
            *_hearers(_y(steps)),
            _way_back(_y(4), _y(0), "handle"),
            _way_back(_y(9), _y(6), "again"),
            # From the storage to who reads it, and not by the flush task.
            _arrow(SIDE + SIDE_WIDTH / 2, _y(4) + BOX, _y(5)),
            _text(LEFT, height - 14, LEGEND, "said"),
            "</svg>",
            "",
        )
    )


def _y(row: int) -> int:
    """Return the upper edge of the boxes of a row."""
    return TOP + row * ROW


def _bands() -> Iterator[str]:
    row = 0
    for name, steps in (*((name, len(steps)) for name, steps in BANDS), ("", 1)):
        top = _y(row) - GAP + 2
        yield (
            f'<rect class="band" x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}"'
            f' height="{steps * ROW - 4}" rx="6"/>'
        )
        yield _text(MARGIN + 8, top + 18, name or HEARERS_BAND, "band-name")
        row += steps


def _steps() -> Iterator[str]:
    steps = [step for _, steps in BANDS for step in steps]
    for row, step in enumerate(steps):
        y = _y(row)
        yield from _box(step.room, LEFT, y, MAIN_WIDTH)
        if step.beside is not None:
            yield from _box(step.beside, SIDE, y, SIDE_WIDTH)
            middle, start = y + BOX / 2, LEFT + MAIN_WIDTH + 3
            heads = 'marker-start="url(#head)" marker-end="url(#head)"'
            yield f'<path class="line" {heads} d="M{start} {middle}H{SIDE - 3}"/>'
        if step.then:
            x = LEFT + 40
            yield _arrow(x, y + BOX, y + ROW)
            yield _text(x + 10, y + BOX + 14, step.then, "said")


def _hearers(y: int) -> Iterator[str]:
    width = (SIDE + SIDE_WIDTH - LEFT - GAP * (len(HEARERS) - 1)) / len(HEARERS)
    for number, room in enumerate(HEARERS):
        x = LEFT + number * (width + GAP)
        yield from _box(room, x, y, width)
        middle = x + width / 2
        knee = y - ROW + BOX + 10
        yield (
            f'<path class="line" d="M{LEFT + 40} {knee - 10}V{knee}H{middle:g}"/>'
            f"{_arrow(middle, knee, y)}"
        )


def _box(room: Room, x: float, y: float, width: float) -> Iterator[str]:
    kind = "box pure" if room.pure else "box"
    yield (
        f'<rect class="{kind}" x="{x:g}" y="{y}" width="{width:g}" height="{BOX}"'
        ' rx="5"/>'
    )
    yield _text(x + width / 2, y + 19, room.files, "file middle")
    yield _text(x + width / 2, y + 36, room.says, "said middle")


def _arrow(x: float, start: float, end: float) -> str:
    head = 'marker-end="url(#head)"'
    return f'<path class="line" {head} d="M{x:g} {start:g}V{end - 2:g}"/>'


def _way_back(start: int, end: int, name: str) -> str:
    x, begin, stop = LEFT - 22, start + BOX // 2, end + BOX // 2
    path = f"M{LEFT} {begin}H{x}V{stop}H{LEFT - 3}"
    turned = f'transform="rotate(-90 {x - 6} {(begin + stop) // 2})" '
    line = f'<path class="line back" marker-end="url(#head)" d="{path}"/>'
    text = _text(x - 6, (begin + stop) // 2, name, "said middle")
    return line + text.replace("<text ", f"<text {turned}")


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
