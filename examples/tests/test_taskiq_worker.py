"""The test of taskiq_worker.py: its broker runs tasks in this process.

Run it with ``python -m pytest examples/tests/test_taskiq_worker.py``.
"""

import pytest

from amplitude_async import bound
from amplitude_async.testing import CapturedEvents
from examples.taskiq_worker import broker, welcome

__all__: list[str] = []


@pytest.mark.asyncio
async def test_welcome(amplitude_events: CapturedEvents) -> None:
    """The user whom the sender has bound is on the task's event."""
    await broker.startup()
    with bound(user_id="user-1"):
        await welcome.kiq("de")
    await amplitude_events.wait_for("User Welcomed", user_id="user-1")
    await broker.shutdown()
