"""The floor: what any client must do that validates, encodes, compresses and posts.

Constructing the pydantic model of the event, encoding it once, joining 200 of them,
one gzip at zlib's level 1 and one POST of aiohttp, awaited. No queue, no id, no retry,
no account: the figure that a real client is measured against.
"""

import sys
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import aiohttp
from course import EVENT_TYPE, Course, run

from amplitude_async import Event

__all__: list[str] = []

BATCH = 200


class Floor:
    """The steps, one after the other."""

    asynchronous = True

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._bodies: list[bytes] = []

    async def track(self, user: str, values: dict[str, Any]) -> None:
        """Construct and encode; each 200th call posts."""
        event = Event(event_type=EVENT_TYPE, user_id=user, event_properties=values)
        body = event.__pydantic_serializer__.to_json(
            event, by_alias=True, exclude_none=True
        )
        self._bodies.append(body)
        if len(self._bodies) == BATCH:
            await self._post()

    async def finish(self) -> None:
        """Post the rest."""
        if self._bodies:
            await self._post()
        await self._session.close()

    async def _post(self) -> None:
        joined = b",".join(self._bodies)
        self._bodies = []
        squeezer = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = squeezer.compress(b'{"api_key":"bench","events":[' + joined + b"]}")
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        async with self._session.post(
            self._url, data=body + squeezer.flush(), headers=headers
        ) as answer:
            await answer.read()


async def make(course: Course) -> Floor:
    """Open one session."""
    return Floor(f"{course.url}/2/httpapi", aiohttp.ClientSession())


run(Course(), make)
