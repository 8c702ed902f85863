"""The floor of mParticle: models of 20 events and their batch, one encoding, one POST.

As ``floor.py``: no queue, no id, no retry, no check. mParticle documents no compressed
requests, so nothing is compressed.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import aiohttp
from course import EVENT_TYPE, Course, run

from amplitude_async.mparticle import Batch, CustomEvent, UserIdentities

__all__: list[str] = []

EVENTS_PER_BATCH = 20
BATCHES_PER_REQUEST = 10


class Floor:
    """The steps, one after the other."""

    asynchronous = True

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._events: list[CustomEvent] = []
        self._bodies: list[bytes] = []
        self._user = ""

    async def track(self, user: str, values: dict[str, Any]) -> None:
        """Construct an event; each 20th makes a batch, each 200th posts."""
        if not self._events:
            self._user = user
        # mParticle takes no lists.
        values["tags"] = ",".join(values["tags"])
        event = CustomEvent(event_name=EVENT_TYPE, custom_attributes=values)
        self._events.append(event)
        if len(self._events) == EVENTS_PER_BATCH:
            self._encode()
            if len(self._bodies) == BATCHES_PER_REQUEST:
                await self._post()

    async def finish(self) -> None:
        """Post the rest."""
        if self._events:
            self._encode()
        if self._bodies:
            await self._post()

    def _encode(self) -> None:
        batch = Batch(
            environment="development",
            user_identities=UserIdentities(customer_id=self._user),
            events=self._events,
        )
        self._events = []
        body = batch.__pydantic_serializer__.to_json(
            batch, by_alias=True, exclude_none=True
        )
        self._bodies.append(body)

    async def _post(self) -> None:
        body = b"[" + b",".join(self._bodies) + b"]"
        self._bodies = []
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as answer:
            await answer.read()


async def make(course: Course) -> Floor:
    """Open one session."""
    return Floor(f"{course.url}/v2/bulkevents", aiohttp.ClientSession())


run(Course(), make)
