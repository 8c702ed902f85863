"""amplitude_async, as a service uses it: keyword fields, one awaited verb."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import EVENT_TYPE, Course, properties, run

from amplitude_async import Amplitude, Event

__all__: list[str] = []

LARGE = 2_000_000
# Fewer than make a batch: no request is built while the clock runs.
BLOCK = 150


class Ours:
    """One client; the official URLs compress by default, a local one has to be told."""

    asynchronous = True

    def __init__(self, course: Course) -> None:
        options: dict[str, Any] = {"compression": "gzip"}
        if course.tuning == "tuned":
            options |= {"flush_queue_size": 1_000, "max_storage_capacity": LARGE}
        if course.busy:
            options["flush_interval"] = 1.0
        if course.padding:  # requests as large as the API takes
            options |= {"flush_queue_size": 1_000, "flush_interval": 1.0}
        if course.roomy:
            options["max_storage_capacity"] = LARGE
            options["max_storage_bytes"] = 10**10
        self.client = Amplitude(
            "bench", server_url=f"{course.url}/2/httpapi", **options
        )

    async def track(self, user: str, values: dict[str, Any]) -> None:
        """Track one event."""
        await self.client.track(EVENT_TYPE, user_id=user, event_properties=values)

    async def finish(self) -> None:
        """Send the rest."""
        await self.client.flush(None)

    async def forms(self, course: Course) -> dict[str, Any]:
        """Compare the two ways to track, in turns: by name and by constructed event."""
        track = self.client.track
        costs: dict[str, list[float]] = {"name": [], "event": []}
        for turn in range(course.events // BLOCK):
            user, values = course.users[turn % len(course.users)], properties(turn)
            began = time.process_time_ns()
            if turn % 2:
                for _ in range(BLOCK):
                    await track(EVENT_TYPE, user_id=user, event_properties=values)
            else:
                for _ in range(BLOCK):
                    event = Event(
                        event_type=EVENT_TYPE, user_id=user, event_properties=values
                    )
                    await track(event)
            spent = (time.process_time_ns() - began) / BLOCK / 1000
            costs["name" if turn % 2 else "event"].append(spent)
            await self.client.flush(None)
        return {form: statistics.median(spent) for form, spent in costs.items()}


async def make(course: Course) -> Ours:
    """Start a client."""
    ours = Ours(course)
    await ours.client.start()
    return ours


run(Course(), make)
