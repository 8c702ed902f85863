"""Lines of a CSV file, put together to rows."""

import csv
from typing import Final

from amplitude_async.cli.send.source import LONGEST_LINE, Batches, Raw

__all__ = ["csv_rows", "header_of"]

_MOST_LINES: Final = 1_000


def csv_rows(batches: Batches, delimiter: str) -> Batches:
    """Cut lines into cells, and join those that one quoted cell goes over."""
    open_: list[Raw] = []
    for batch in batches:
        found = []
        for line in batch:
            if not open_ and line.text.count(b'"') % 2 == 0:
                found.append(_row(line, delimiter))
                continue
            open_.append(line)
            if _is_whole(open_):
                found.append(_row(_joined(open_), delimiter))
                open_ = []
        if found:
            yield found
    if open_:
        yield [_joined(open_)._replace(problem=_UNENDED)]


_UNENDED: Final = 'a cell that begins with " does not end: double a " inside a cell'


def _is_whole(lines: list[Raw]) -> bool:
    """Say whether every quoted cell has ended, or never will."""
    if sum(line.text.count(b'"') for line in lines) % 2 == 0:
        return True
    too_long = sum(len(line.text) for line in lines) > LONGEST_LINE
    return too_long or len(lines) > _MOST_LINES


def _joined(lines: list[Raw]) -> Raw:
    first, last = lines[0], lines[-1]
    text = b"\n".join(line.text for line in lines)
    problem = next((line.problem for line in lines if line.problem), "")
    return Raw(first.number, text, last.position, None, problem)


def _row(line: Raw, delimiter: str) -> Raw:
    if line.problem or not line.text.strip():
        return line
    try:
        text = line.text.decode()
        # In one piece: a cell may hold line ends.
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        return line._replace(
            problem="the line is no UTF-8: convert the file with iconv"
        )
    except csv.Error as error:
        problem = _UNENDED if "end of data" in str(error) else f"no CSV: {error}"
        return line._replace(problem=problem)
    return line._replace(row=rows[0] if rows else [])


def header_of(line: Raw, delimiter: str) -> list[str]:
    """Give the names of the columns.

    Raises:
        ValueError: the line has none, or another delimiter.
    """
    if line.problem or not line.row:
        msg = (
            f"line {line.number}: {line.problem or 'the names of columns are missing'}"
        )
        raise ValueError(msg)
    names = [name.strip() for name in line.row]
    if len(names) == 1:
        other = next((d for d in (";", "\t", ",", "|") if d in names[0]), None)
        if other is not None and other != delimiter:
            wanted = "tab" if other == "\t" else f"'{other}'"
            msg = f"the header has one column alone: try --delimiter {wanted}"
            raise ValueError(msg)
    doubled = {name for name in names if name and names.count(name) > 1}
    if doubled:
        msg = f"two columns have the name {min(doubled)}: rename one"
        raise ValueError(msg)
    return names
