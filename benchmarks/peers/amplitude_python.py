"""amplitude-analytics, Amplitude's own SDK: a thread pool behind a timeline."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amplitude import Amplitude, BaseEvent, Config
from amplitude.constants import EventLogLevel
from course import EVENT_TYPE, Course, run

__all__: list[str] = []


class AmplitudePython:
    """Default: batches of 200. Tuned: batches of 1,000 and no log line per event."""

    asynchronous = False

    def __init__(self, course: Course) -> None:
        options: dict[str, Any] = {}
        if course.tuning == "tuned":
            options["flush_queue_size"] = 1_000
            options["event_log_level"] = EventLogLevel.NONE
        if course.busy:
            options["flush_interval_millis"] = 1_000
        url = f"{course.url}/2/httpapi"
        self._client = Amplitude("bench", Config(server_url=url, **options))

    def track(self, user: str, values: dict[str, Any]) -> None:
        """Track one event."""
        self._client.track(BaseEvent(EVENT_TYPE, user_id=user, event_properties=values))

    def finish(self) -> None:
        """Flush, then let the thread pool finish what the consumer gave it."""
        self._client.flush()
        self._client.shutdown()


run(Course(), AmplitudePython)
