"""snowplow-tracker with its AsyncEmitter: one thread, ten events per request."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logging
from urllib.parse import urlsplit

import requests
from course import Course, run
from snowplow_tracker import (
    AsyncEmitter,
    SelfDescribing,
    SelfDescribingJson,
    Subject,
    Tracker,
)

__all__: list[str] = []

SCHEMA = "iglu:com.example/checkout_completed/jsonschema/1-0-0"
ROOMY = 400_000


class Snowplow:
    """Default: as it comes. Tuned: 200 a request, one session, no base64, no logs."""

    asynchronous = False

    def __init__(self, course: Course) -> None:
        address = urlsplit(course.url)
        options: dict[str, Any] = {}
        tuned = course.tuning == "tuned"
        if tuned:
            options |= {"batch_size": 200, "session": requests.Session()}
            logging.disable(logging.CRITICAL)
        if tuned or course.roomy:
            options["buffer_capacity"] = ROOMY
        self._emitter = AsyncEmitter(
            str(address.hostname), protocol="http", port=address.port, **options
        )
        self._tracker = Tracker("bench", self._emitter, encode_base64=not tuned)

    def track(self, user: str, values: dict[str, Any]) -> None:
        """Track one event."""
        subject = Subject()
        subject.set_user_id(user)
        data = SelfDescribingJson(SCHEMA, values)
        self._tracker.track(SelfDescribing(data, event_subject=subject))

    def finish(self) -> None:
        """Send what the last batch left over."""
        self._emitter.sync_flush()


run(Course(), Snowplow)
