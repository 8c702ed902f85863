"""The tests of aiohttp_service.py: asynchronous, and without a flush.

They need ``pip install pytest-asyncio``. Run them with ``python -m pytest
examples/tests``.
"""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from amplitude_async.testing import CapturedEvents
from examples.aiohttp_service import application

__all__: list[str] = []

pytestmark = pytest.mark.asyncio


async def test_pay(amplitude_events: CapturedEvents) -> None:
    """Who pays is on the event: the service has it from the token."""
    async with TestClient(TestServer(application())) as http:
        await http.post("/orders/o-1", headers={"Authorization": "Bearer user-1"})

        amplitude_events.assert_tracked("Order Paid", user_id="user-1", order="o-1")


async def test_sign_up(amplitude_events: CapturedEvents) -> None:
    """The first event of a user is under the new id."""
    async with TestClient(TestServer(application())) as http:
        await http.post("/users/user-2")

    [event] = amplitude_events.of_user("user-2")
    assert event.name == "Signed Up"
