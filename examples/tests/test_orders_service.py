"""The tests of orders_service.py: every event is seen, and none is sent.

They need ``pip install httpx2``, as Starlette's test client does. Run them with
``python -m pytest examples/tests``.
"""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from amplitude_async.testing import CapturedEvents
from examples.orders_service import app, token_of

__all__: list[str] = []

AUTH = {"Authorization": f"Bearer {token_of('user-1')}"}


@pytest.fixture
def http(amplitude_events: CapturedEvents) -> Iterator[TestClient]:
    """Yield a client of the service; captured, the service needs no API key."""
    with TestClient(app) as client:
        yield client


def test_pay(amplitude_events: CapturedEvents, http: TestClient) -> None:
    """Who pays is on the event, and the revenue is counted."""
    http.post("/orders/o-1?total=9.5", headers=AUTH)

    amplitude_events.assert_tracked(
        "Order Paid", user_id="user-1", order="o-1", times=1
    )
    amplitude_events.assert_revenue(9.5, user_id="user-1")


def test_nobody_pays(amplitude_events: CapturedEvents, http: TestClient) -> None:
    """A request without a token tracks nothing."""
    assert http.post("/orders/o-1?total=9.5").status_code in {401, 403}

    amplitude_events.assert_not_tracked("Order Paid")
    amplitude_events.assert_no_rejections()
