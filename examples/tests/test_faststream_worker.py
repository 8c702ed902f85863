"""The test of faststream_worker.py, with FastStream's broker for tests.

Run it with ``python -m pytest examples/tests/test_faststream_worker.py``.
"""

import pytest
from faststream.redis import TestRedisBroker

from amplitude_async import bound
from amplitude_async.testing import CapturedEvents
from examples.faststream_worker import app, broker

__all__: list[str] = []


@pytest.mark.asyncio
async def test_welcome(amplitude_events: CapturedEvents) -> None:
    """The user whom the sender has bound is on the event of the message."""
    async with TestRedisBroker(broker), app.lifespan_context():
        with bound(user_id="user-1"):
            await broker.publish("de", list="welcome")

    amplitude_events.assert_tracked("User Welcomed", user_id="user-1", times=1)
