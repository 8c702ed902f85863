"""posthog: one consumer thread behind a queue."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import EVENT_TYPE, Course, run
from posthog import Posthog

__all__: list[str] = []

ROOMY = 400_000


class PosthogThreaded:
    """Default: a queue of 10,000. Lossless: a larger one. Tuned: larger uploads too."""

    asynchronous = False

    def __init__(self, course: Course) -> None:
        options: dict[str, Any] = {}
        if course.tuning != "default" or course.roomy:
            options["max_queue_size"] = ROOMY
        if course.tuning == "tuned":
            options["flush_at"] = 1_000
        if course.busy:
            options["flush_interval"] = 1.0
        self._client = Posthog("bench", host=course.url, **options)

    def track(self, user: str, values: dict[str, Any]) -> None:
        """Track one event."""
        self._client.capture(EVENT_TYPE, distinct_id=user, properties=values)

    def finish(self) -> None:
        """Wait until the queue is empty; its own ten seconds may not be enough."""
        self._client.flush(timeout_seconds=None)


run(Course(), PosthogThreaded)
