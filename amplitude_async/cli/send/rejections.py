"""Lines that were not taken: numbers, reasons, and a file of them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from amplitude_async.cli.send.source import Raw
from amplitude_async.cli.terminal import printable

__all__ = ["Rejection", "Rejections"]

_MOST_KEPT: Final = 20
_LONGEST: Final = 300


class Rejection(NamedTuple):
    """One line that was not taken."""

    line: int
    reason: str
    code: int = 0
    """HTTP status of the server that refused it; 0 where it was not even sent."""


class Rejections:
    """Keeps the first of them, counts all, and writes them to a file if asked.

    Args:
        path: where to write them.
        resumed: up to which line an earlier run came; None: there was none.

    Raises:
        FileExistsError: the file is there, and is none of an earlier run that is
            gone on with.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path | None = None, resumed: int | None = None) -> None:
        self.first: list[Rejection] = []
        self.count = 0
        self._file: TextIO | None = None
        self._made: Path | None = None
        self._broken: OSError | None = None
        if path is None:
            return
        if resumed is None or not path.exists():
            self._file, self._made = _created(path), path
            return
        # Beside it, so that a kill at any moment leaves the one or the other.
        draft = path.with_name(f".{path.name}.draft")
        draft.unlink(missing_ok=True)
        self._file = _created(draft)
        try:
            self._file.writelines(_written(path, resumed))
            self._file.flush()
            draft.replace(path)
        except OSError:
            self._file.close()
            draft.unlink(missing_ok=True)
            raise

    def add(self, raw: Raw, reason: str, code: int = 0) -> None:
        """Write down that a line was not taken."""
        self.count += 1
        found = Rejection(raw.number, printable(reason, _LONGEST), code)
        if len(self.first) < _MOST_KEPT:
            self.first.append(found)
        if self._file is not None:
            told: dict[str, Any] = {**found._asdict(), "reason": reason}
            told["input"] = raw.text.decode(errors="replace")
            with self._noted():
                self._file.write(json.dumps(told) + "\n")

    def flush(self) -> None:
        """Put what was written where another process sees it.

        Raises:
            OSError: there is no room for it.
        """
        if self._broken is not None:
            # What was in its buffer is lost: no later success makes up for that.
            raise self._broken
        if self._file is not None:
            with self._noted():
                self._file.flush()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._broken = error
            raise

    def close(self) -> None:
        """Close the file; what it could not hold was told by `flush`."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def discard(self) -> None:
        """Close the file, and remove it where it is new: nothing was done."""
        self.close()
        if self._made is not None:
            self._made.unlink(missing_ok=True)


def _created(path: Path) -> TextIO:
    # For this user alone from the first instant on: events tell about people.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _written(path: Path, line: int) -> Iterator[str]:
    """Read what an earlier run wrote of the lines that it was done with.

    Raises:
        FileExistsError: it is a file of another kind, which stays as it is.
    """
    if not path.is_file():
        raise FileExistsError(path)
    with path.open("rb") as file:
        for text in file:
            if not text.endswith(b"\n") and text.startswith(_START):
                return  # it was killed while it wrote this
            number = _number_of(text)
            if number is None:
                raise FileExistsError(path)
            if number <= line:
                yield text.decode()


def _number_of(text: bytes) -> int | None:
    """Read the number of a rejected line; None where this tells of none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != _TOLD:
        return None
    number = found["line"]
    return number if isinstance(number, int) else None


_START: Final = b'{"line": '
_TOLD: Final = frozenset({*Rejection._fields, "input"})
