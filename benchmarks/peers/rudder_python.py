"""rudder-sdk-python: one consumer thread behind a queue, gzip by default."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import EVENT_TYPE, Course, run
from rudderstack.analytics.client import Client

__all__: list[str] = []

ROOMY = 400_000


class Rudder:
    """Default: a queue of 10,000. Lossless: larger. Tuned: no gzip, larger uploads."""

    asynchronous = False

    def __init__(self, course: Course) -> None:
        options: dict[str, Any] = {}
        if course.tuning != "default" or course.roomy:
            options["max_queue_size"] = ROOMY
        if course.tuning == "tuned":
            options |= {"upload_size": 1_000, "gzip": False}
        self._client = Client("bench", host=course.url, **options)

    def track(self, user: str, values: dict[str, Any]) -> None:
        """Track one event."""
        self._client.track(user, EVENT_TYPE, values)

    def finish(self) -> None:
        """Wait until the queue is empty and its last upload answered."""
        self._client.flush()


run(Course(), Rudder)
