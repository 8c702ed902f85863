"""More tests of orders_service.py: asynchronous ones, on the loop of the service.

They need ``pip install httpx2 pytest-asyncio``. Run them with ``python -m pytest
examples/tests``.
"""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from amplitude_async.testing import CapturedEvents
from examples.orders_service import app, token_of

__all__: list[str] = []

AUTH = {"Authorization": f"Bearer {token_of('user-1')}"}

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def http(amplitude_events: CapturedEvents) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the service, whose lifespan runs meanwhile."""
    async with app.router.lifespan_context(app) as state:

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx2.ASGITransport(served)
        async with httpx2.AsyncClient(transport=transport, base_url="http://t") as http:
            yield http


async def test_pay(amplitude_events: CapturedEvents, http: httpx2.AsyncClient) -> None:
    """Who pays is on the event, and the revenue is counted."""
    await http.post("/orders/o-1?total=9.5", headers=AUTH)

    amplitude_events.assert_tracked(
        "Order Paid", user_id="user-1", order="o-1", times=1
    )
    amplitude_events.assert_revenue(9.5, user_id="user-1")


async def test_nightly(
    amplitude_events: CapturedEvents, http: httpx2.AsyncClient
) -> None:
    """The job beside the requests mails a report, at a moment of its own."""
    await amplitude_events.wait_for("Report Mailed", user_id="user-1", job="nightly")
