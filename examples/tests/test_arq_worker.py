"""The test of arq_worker.py: a job is a function, and its context a dict.

Run it with ``python -m pytest examples/tests/test_arq_worker.py``.
"""

import pytest

from amplitude_async import Amplitude, bound
from amplitude_async.testing import CapturedEvents
from examples.arq_worker import welcome

__all__: list[str] = []


@pytest.mark.asyncio
async def test_welcome(amplitude_events: CapturedEvents) -> None:
    """The job tracks with the client of its context."""
    async with Amplitude.from_env() as client:
        with bound(user_id="user-1"):
            await welcome({"amplitude": client}, "de")

    amplitude_events.assert_tracked("User Welcomed", user_id="user-1", times=1)
