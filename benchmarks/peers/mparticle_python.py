"""mparticle: models and blocking uploads; queueing is the caller's affair."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mparticle
from course import EVENT_TYPE, Course, run

__all__: list[str] = []

# Events of one user per batch, and batches per request.
SHAPES = {"default": (100, 1), "tuned": (100, 10), "twenty": (20, 10)}


class MParticlePython:
    """One user's events in a batch; the call that fills it uploads and waits."""

    asynchronous = False

    def __init__(self, course: Course) -> None:
        self._size, self._bulk = SHAPES[course.tuning]
        if course.roomy:
            self._size = course.events + 1
        configuration = mparticle.Configuration()
        configuration.host = f"{course.url}/v2"
        configuration.api_key, configuration.api_secret = "bench", "bench"
        self._api = mparticle.EventsApi(configuration)
        self._events: list[Any] = []
        self._batches: list[Any] = []
        self._user = ""

    def track(self, user: str, values: dict[str, Any]) -> None:
        """Add one event; a full batch goes out before this returns."""
        if not self._events:
            self._user = user
        # It takes no lists.
        values["tags"] = ",".join(values["tags"])
        self._events.append(mparticle.AppEvent(EVENT_TYPE, custom_attributes=values))
        if len(self._events) >= self._size:
            self._close_batch()

    def finish(self) -> None:
        """Upload the rest."""
        if self._events:
            self._close_batch()
        if self._batches:
            self._api.bulk_upload_events(self._batches)

    def _close_batch(self) -> None:
        batch = mparticle.Batch()
        batch.environment = "development"
        batch.user_identities = mparticle.UserIdentities(customerid=self._user)
        batch.events, self._events = self._events, []
        if self._bulk == 1:
            self._api.upload_events(batch)
            return
        self._batches.append(batch)
        if len(self._batches) == self._bulk:
            self._api.bulk_upload_events(self._batches)
            self._batches = []


run(Course(), MParticlePython)
