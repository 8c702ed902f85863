"""amplitude_async's mParticle client: batches of 20 events of one user, queued."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course import EVENT_TYPE, Course, run

from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    MParticle,
    UserIdentities,
)

__all__: list[str] = []

EVENTS_PER_BATCH = 20


class OursMParticle:
    """One client; the caller collects 20 events, as a request handler would."""

    asynchronous = True

    def __init__(self, course: Course) -> None:
        self.client = MParticle("bench", "bench", base_url=f"{course.url}/v2")
        self._events: list[CustomEvent] = []
        self._user = ""

    async def track(self, user: str, values: dict[str, Any]) -> None:
        """Add one event; the last of 20 sends the batch."""
        if not self._events:
            self._user = user
        # mParticle takes no lists.
        values["tags"] = ",".join(values["tags"])
        event = CustomEvent(event_name=EVENT_TYPE, custom_attributes=values)
        self._events.append(event)
        if len(self._events) == EVENTS_PER_BATCH:
            await self._send()

    async def finish(self) -> None:
        """Send the rest."""
        if self._events:
            await self._send()
        await self.client.flush(None)

    async def _send(self) -> None:
        events, self._events = self._events, []
        identities = UserIdentities(customer_id=self._user)
        batch = Batch(
            environment="development", user_identities=identities, events=events
        )
        await self.client.send(batch)


async def make(course: Course) -> OursMParticle:
    """Start a client."""
    ours = OursMParticle(course)
    await ours.client.start()
    return ours


run(Course(), make)
