"""Lines that were not taken: numbers, reasons, and a file of them."""

import json
import os
from contextlib import suppress
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
        FileExistsError: the file is there, and no earlier run is gone on with.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path | None = None, resumed: int | None = None) -> None:
        self.first: list[Rejection] = []
        self.count = 0
        self._file: TextIO | None = None
        if path is None:
            return
        kept = [] if resumed is None else _written(path, resumed)
        if resumed is not None:
            with suppress(FileNotFoundError):
                path.unlink()
        # For this user alone from the first instant on: events tell about people.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._file.writelines(kept)
        self._file.flush()

    def add(self, raw: Raw, reason: str, code: int = 0) -> None:
        """Write down that a line was not taken."""
        self.count += 1
        found = Rejection(raw.number, printable(reason, _LONGEST), code)
        if len(self.first) < _MOST_KEPT:
            self.first.append(found)
        if self._file is not None:
            told: dict[str, Any] = {**found._asdict(), "reason": reason}
            told["input"] = raw.text.decode(errors="replace")
            self._file.write(json.dumps(told) + "\n")

    def flush(self) -> None:
        """Put what was written where another process sees it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _written(path: Path, line: int) -> list[str]:
    """Read what an earlier run wrote of the lines that it was done with."""
    kept = []
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        for text in file:
            try:
                found = json.loads(text)["line"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # it was killed while it wrote this
            if isinstance(found, int) and found <= line:
                kept.append(text)
    return kept
