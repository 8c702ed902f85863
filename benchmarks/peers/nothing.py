"""No SDK at all: what the caller and the measuring itself cost."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import Course, run

__all__: list[str] = []


class Nothing:
    """Takes events and forgets them."""

    asynchronous = True

    def __init__(self, course: Course) -> None:
        self._mode = course.mode

    async def track(self, user: str, values: dict[str, Any]) -> None:
        """Do nothing."""

    async def finish(self) -> None:
        """Do nothing."""


run(Course(), Nothing)
