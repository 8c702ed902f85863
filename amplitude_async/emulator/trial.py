"""One event that the emulator sends to itself, to show what an event comes to."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import aiohttp

__all__ = ["Trial"]

_SECONDS = 3.0


class Trial:
    """Sends a test event through the socket, so that faults and limits hold for it.

    Args:
        url: returns the emulator's own address.
        path: where events go.
        api_key: one that is taken.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        url: Callable[[], str],
        path: str,
        api_key: str,
        clock: Callable[[], float],
    ) -> None:
        self._url = url
        self._path = path
        self._api_key = api_key
        self._clock = clock

    async def send(self) -> tuple[str, str]:
        """Send one event; return its `insert_id`, and why no answer came, if none."""
        insert_id = f"test-{secrets.token_hex(8)}"
        event = {
            "event_type": "Test Event",
            "user_id": "test-user",
            "device_id": "test-device",
            "time": int(self._clock() * 1000),
            "insert_id": insert_id,
            "event_properties": {"sent_from": "the emulator's page", "total": 9.5},
        }
        body = {"api_key": self._api_key, "events": [event]}
        limit = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(self._url() + self._path, json=body) as response,
            ):
                return insert_id, f"it was answered {response.status}"
        except TimeoutError:
            return insert_id, f"no answer within {_SECONDS:g} s"
        except aiohttp.ClientError as error:
            return insert_id, type(error).__name__

    def __repr__(self) -> str:
        return f"<Trial {self._path}>"
