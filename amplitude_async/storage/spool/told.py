"""What was said already of a file that is left where it is."""

import logging
from pathlib import Path

__all__ = ["Told"]

logger = logging.getLogger("amplitude_async.storage")


class Told:
    """Says one thing of each file, however often it is met."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()

    def once(self, level: int, path: Path, message: str) -> None:
        """Log about a file or a directory, unless that was done before."""
        if path not in self._paths:
            self._paths.add(path)
            logger.log(level, "spool file %s: %s", path, message)
