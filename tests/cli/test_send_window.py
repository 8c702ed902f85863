"""Lines on their way: what is known of them, and how few of them are kept."""

from amplitude_async.cli.send.source import Raw
from amplitude_async.cli.send.window import Fate, Line, Told, Window

__all__: list[str] = []

DELIVERED = Told(Fate.DELIVERED)


def test_a_line_that_is_held_keeps_no_file_in_memory() -> None:
    """A million lines may be decided behind it: they are counted and forgotten."""
    held: Line | None = None
    told: list[int] = []

    def look(line: Line) -> Told | None:
        if line is held:
            return None
        return Told(Fate.REJECTED, "bad") if line.raw.number % 100 == 0 else DELIVERED

    window = Window(0, look, lambda line, _: told.append(line.raw.number))
    most = 0
    for number in range(1, 60_001):
        line = window.take(Raw(number, b"x" * 10, 0))
        held = held or line
        if number % 5_000 == 0:
            window.sweep_all()
            most = max(most, window.kept)
    middle = (window.line, window.counts[Fate.DELIVERED], window.all[Fate.DELIVERED])
    held = None
    window.sweep_all()

    assert most <= 10_000
    assert middle == (0, 0, 59_399)
    assert told == [*range(2, 60_001), 1]
    assert (window.line, window.kept, window.open) == (60_000, 0, 0)
    assert window.last == Raw(60_000, b"x" * 10, 0)
    assert (window.counts[Fate.DELIVERED], window.counts[Fate.REJECTED]) == (
        59_400,
        600,
    )


def test_what_is_left_is_not_passed() -> None:
    """A line that a later run has to send stays the last word."""
    lines = [Line(Raw(0, b"", 0))]
    window = Window(
        0, lambda line: None if line in lines else DELIVERED, lambda *_: None
    )
    for number in range(1, 20_001):
        line = window.take(Raw(number, b"", 0))
        if number in {15_000, 15_001}:
            lines.append(line)
            window.settle(line, Told(Fate.LEFT if number == 15_000 else Fate.REJECTED))
        elif number == 1:
            lines.append(line)

    window.sweep_all()
    window.sweep_all()
    kept, behind = window.kept, window.line
    window.settle(lines[1], DELIVERED)
    window.sweep()

    assert (kept, behind) == (4, 0)
    assert window.line == 14_999
    assert window.counts[Fate.DELIVERED] == 14_999
